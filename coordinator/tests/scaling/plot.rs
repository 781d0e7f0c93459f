//! The day as a picture.

use std::fmt::Write as _;

use super::day::{BURSTS, Day};

const WIDTH: u64 = 960;
const HEIGHT: u64 = 360;
const LEFT: u64 = 60;
const TOP: u64 = 30;
const MOST: u64 = 15_000;

fn x(minute: usize) -> u64 {
    LEFT + minute as u64 * WIDTH / 1_440
}

fn y(streams: u64) -> u64 {
    TOP + HEIGHT - streams.min(MOST) * HEIGHT / MOST
}

fn line(out: &mut String, colour: &str, values: impl Iterator<Item = u64>) {
    out.push_str("<polyline fill=\"none\" stroke-width=\"1.5\" stroke=\"");
    out.push_str(colour);
    out.push_str("\" points=\"");
    for (minute, value) in values.enumerate().filter(|(minute, _)| minute % 2 == 0) {
        let _ = write!(out, "{},{} ", x(minute), y(value));
    }
    out.push_str("\"/>\n");
}

pub(crate) fn svg(day: &Day) -> String {
    let (right, bottom) = (LEFT + WIDTH, TOP + HEIGHT);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        right + 20,
        bottom + 60
    );
    for streams in (0..=MOST).step_by(3_000) {
        let at = y(streams);
        let _ = writeln!(
            out,
            "<path stroke=\"#ddd\" d=\"M{LEFT} {at}H{right}\"/><text x=\"4\" y=\"{}\">{streams}</text>",
            at + 4
        );
    }
    for hour in (0..=24_usize).step_by(3) {
        let _ = writeln!(
            out,
            "<text x=\"{}\" y=\"{}\">{hour}:00</text>",
            x(hour * 60) - 14,
            bottom + 18
        );
    }
    for burst in BURSTS {
        let at = x(burst as usize / 60);
        let _ = writeln!(
            out,
            "<path stroke=\"#c60\" stroke-dasharray=\"3\" d=\"M{at} {TOP}V{bottom}\"/>"
        );
    }
    line(&mut out, "#999", day.minutes.iter().map(|(_, _, room)| *room));
    line(&mut out, "#2a7", day.minutes.iter().map(|(_, ready, _)| *ready));
    line(&mut out, "#26c", day.minutes.iter().map(|(streams, _, _)| *streams));
    let _ = writeln!(
        out,
        "<text x=\"{LEFT}\" y=\"{}\">blue: streams · green: room of workers that take streams · grey: with those that start · dashed: 1,000 starts in a second</text>\n\
         <text x=\"{LEFT}\" y=\"18\">{} streams started, {} refused, {:.1} % of the room idle on average</text>\n</svg>",
        bottom + 42,
        day.started,
        day.refused,
        day.idle() * 100.0
    );
    out
}
