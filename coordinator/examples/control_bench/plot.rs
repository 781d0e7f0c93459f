//! The result as a picture: three panels over the number of streams, each with its target.

use std::fmt::Write as _;

use crate::report::Row;

const WIDTH: f64 = 280.0;
const HEIGHT: f64 = 220.0;
const TOP: f64 = 50.0;
const LEFT: f64 = 50.0;
const GAP: f64 = 70.0;

struct Panel<'a> {
    title: &'a str,
    target: f64,
    lines: Vec<(&'a str, Vec<f64>)>,
}

fn draw(out: &mut String, number: usize, panel: &Panel<'_>, streams: &[usize]) {
    let left = LEFT + number as f64 * (WIDTH + GAP);
    let all = panel.lines.iter().flat_map(|(_, values)| values).copied();
    let most = all.fold(panel.target, f64::max) * 1.15;
    let x = |index: usize| left + WIDTH * (index as f64 + 0.5) / streams.len() as f64;
    let y = |value: f64| TOP + HEIGHT * (1.0 - value / most);
    let bottom = TOP + HEIGHT;
    let _ = writeln!(
        out,
        "<text x=\"{left}\" y=\"{:.0}\" font-weight=\"bold\">{}</text>\n\
         <path stroke=\"#999\" fill=\"none\" d=\"M{left} {TOP}V{bottom}H{:.0}\"/>\n\
         <path stroke=\"#c60\" stroke-dasharray=\"4\" d=\"M{left} {:.1}H{:.0}\"/>\n\
         <text x=\"{:.0}\" y=\"{:.1}\" fill=\"#c60\">target {}</text>",
        TOP - 14.0,
        panel.title,
        left + WIDTH,
        y(panel.target),
        left + WIDTH,
        left + 4.0,
        y(panel.target) - 4.0,
        panel.target
    );
    for (index, count) in streams.iter().enumerate() {
        let _ = writeln!(
            out,
            "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"middle\">{count}</text>",
            x(index),
            bottom + 18.0
        );
    }
    for ((colour, values), shift) in panel.lines.iter().zip([-6.0, 14.0]) {
        let points: Vec<String> = values
            .iter()
            .enumerate()
            .map(|(index, value)| format!("{:.1},{:.1}", x(index), y(*value)))
            .collect();
        let _ = writeln!(
            out,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" points=\"{}\"/>",
            points.join(" ")
        );
        for (index, value) in values.iter().enumerate() {
            let _ = writeln!(
                out,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{colour}\"/><text x=\"{:.1}\" y=\"{:.1}\" fill=\"{colour}\" text-anchor=\"middle\">{}</text>",
                x(index),
                y(*value),
                x(index),
                y(*value) + shift,
                if *value < 100.0 {
                    format!("{value:.1}")
                } else {
                    format!("{value:.0}")
                }
            );
        }
    }
}

/// The picture.
pub(crate) fn svg(rows: &[Row]) -> String {
    let streams: Vec<usize> = rows.iter().map(|row| row.streams).collect();
    let over = |value: &dyn Fn(&Row) -> f64| rows.iter().map(value).collect::<Vec<f64>>();
    let panels = [
        Panel {
            title: "lease, ms: p99 (blue), p50 (grey)",
            target: 50.0,
            lines: vec![
                ("#26c", over(&|row| row.lease.p99.as_secs_f64() * 1e3)),
                ("#999", over(&|row| row.lease.p50.as_secs_f64() * 1e3)),
            ],
        },
        Panel {
            title: "leader's memory, bytes a stream",
            target: 3_000.0,
            lines: vec![("#26c", over(&Row::bytes_per_stream))],
        },
        Panel {
            title: "failover, s: leases (blue), sessions (grey)",
            target: 5.0,
            lines: vec![
                ("#26c", over(&|row| row.failover.as_secs_f64())),
                ("#999", over(&|row| row.sessions.as_secs_f64())),
            ],
        },
    ];
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {:.0} {:.0}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        LEFT + 3.0 * (WIDTH + GAP),
        TOP + HEIGHT + 50.0
    );
    for (number, panel) in panels.iter().enumerate() {
        draw(&mut out, number, panel, &streams);
    }
    let _ = writeln!(
        out,
        "<text x=\"{LEFT}\" y=\"{:.0}\">over the number of leased streams</text>\n</svg>",
        TOP + HEIGHT + 40.0
    );
    out
}
