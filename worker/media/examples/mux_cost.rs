//! What the media core costs: CPU time for each access unit and for a second of stream at 2.5 Mbit/s.
//!
//! `cargo run --release -p media --example mux_cost`. Pictures at 25 a second with a key picture every 2 s, AAC at
//! 43 frames a second. CPU time is the process's own, as the scheduler accounts it (`/proc/self/schedstat`); each
//! figure is the median of seven rounds.

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use media::access_unit::{AccessUnit, Codec, Track, UnitInfo, UnitKind};
use media::flv::{self, FileStart, HeadBuilder};
use media::segmenter::Segmenter;
use media::timeline::Timeline;
use media::ts::{DEFAULT_OFFSET_90K, Muxer, State, Tracks};
use std::hint::black_box;

const SECONDS: i64 = 60;
const AVCC: [u8; 23] = [
    1, 0x64, 0, 0x1F, 0xFF, 0xE1, 0, 8, 0x67, 0x64, 0, 0x1F, 0xAC, 1, 2, 3, 1, 0, 4, 0x68, 0xEB, 0xE3, 0xCB,
];

/// A tag as received: type, timestamp, body.
struct Tag {
    tag_type: u8,
    timestamp_ms: u32,
    body: Vec<u8>,
}

/// One minute at 2.5 Mbit/s: key pictures eight times as large as the others.
fn stream() -> Vec<Tag> {
    let mut tags = Vec::new();
    let mut noise = 1u32;
    let mut bytes = |len: usize| -> Vec<u8> {
        (0..len)
            .map(|_| {
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (noise >> 24) as u8 | 1
            })
            .collect()
    };
    let mut audio_ms = 0;
    for n in 0..SECONDS * 25 {
        let key = n % 50 == 0;
        let len: usize = if key { 80_000 } else { 10_000 };
        let mut body = vec![if key { 0x17 } else { 0x27 }, 1, 0, 0, 40];
        body.extend_from_slice(&(len as u32).to_be_bytes());
        body.push(if key { 0x65 } else { 0x41 });
        body.extend(bytes(len - 1));
        tags.push(Tag {
            tag_type: flv::VIDEO,
            timestamp_ms: (n * 40) as u32,
            body,
        });
        while audio_ms < (n + 1) * 40 {
            let mut body = vec![0xAF, 1];
            body.extend(bytes(370));
            tags.push(Tag {
                tag_type: flv::AUDIO,
                timestamp_ms: audio_ms as u32,
                body,
            });
            audio_ms += 23;
        }
    }
    tags
}

fn index(tags: &[Tag]) -> Vec<UnitInfo> {
    let mut timeline = Timeline::new();
    tags.iter()
        .map(|tag| {
            let class = flv::classify(tag.tag_type, &tag.body).unwrap_or_else(|| unreachable!("no body is empty"));
            let track = if tag.tag_type == flv::VIDEO {
                Track::Video
            } else {
                Track::Audio
            };
            let mapped = timeline.map(track, tag.timestamp_ms, i64::from(tag.timestamp_ms));
            UnitInfo {
                kind: class.kind,
                codec: class.codec,
                key: class.key,
                dts_ms: mapped.base_ms + i64::from(tag.timestamp_ms),
                cto_ms: class.cto_ms,
                body_len: tag.body.len() as u32,
                header_len: class.header_len,
                arrival_ms: 0,
            }
        })
        .collect()
}

fn mux(tags: &[Tag], index: &[UnitInfo], out: &mut Vec<u8>) -> usize {
    let mut muxer = Muxer::new(State::new(DEFAULT_OFFSET_90K));
    let configured = muxer
        .set_config(Codec::Avc, Track::Video, &AVCC)
        .and_then(|()| muxer.set_config(Codec::Aac, Track::Audio, &[0x12, 0x10]));
    assert_eq!(configured, Ok(()));
    let mut segmenter = Segmenter::new(6000);
    let mut written = 0;
    for (tag, info) in tags.iter().zip(index) {
        if segmenter.push(info) || (written == 0 && out.is_empty()) {
            written += out.len();
            out.clear();
            muxer.start_segment(
                Tracks {
                    video: true,
                    audio: true,
                },
                out,
            );
        }
        let unit = AccessUnit {
            track: if info.kind == UnitKind::Video {
                Track::Video
            } else {
                Track::Audio
            },
            codec: info.codec,
            dts_ms: info.dts_ms,
            cto_ms: info.cto_ms,
            key: info.key,
            data: &tag.body[usize::from(info.header_len)..],
        };
        assert_eq!(muxer.push(&unit, out), Ok(()));
    }
    written + out.len()
}

/// CPU time of this process so far, nanoseconds.
fn cpu_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|field| field.parse().ok()).unwrap_or(0)
}

/// CPU nanoseconds of `repeats` turns.
fn time(repeats: u64, work: &mut impl FnMut()) -> u64 {
    let begin = cpu_ns();
    for _ in 0..repeats {
        work();
    }
    cpu_ns() - begin
}

fn measure(what: &str, units: usize, mut work: impl FnMut()) {
    // The system accounts in ticks of some milliseconds: each round must be long beside them.
    let mut repeats = 1;
    while time(repeats, &mut work) < 100_000_000 {
        repeats *= 2;
    }
    let mut rounds: Vec<u64> = (0..7).map(|_| time(repeats, &mut work)).collect();
    rounds.sort_unstable();
    let ns = rounds[3] as f64 / repeats as f64;
    println!(
        "{what:34} {:8.1} ns/unit {:8.2} us/stream-second",
        ns / units as f64,
        ns / SECONDS as f64 / 1000.0
    );
}

fn main() {
    let tags = stream();
    let infos = index(&tags);
    let bytes: usize = tags.iter().map(|tag| tag.body.len()).sum();
    let units = tags.len();
    println!("{units} units, {:.2} Mbit/s", bytes as f64 * 8.0 / SECONDS as f64 / 1e6);
    let mut copy = Vec::with_capacity(bytes * 2);
    measure("memcpy of the bodies", units, || {
        copy.clear();
        tags.iter().for_each(|tag| copy.extend_from_slice(&tag.body));
        black_box(copy.len());
    });
    measure("append_tag", units, || {
        copy.clear();
        tags.iter()
            .for_each(|tag| _ = flv::append_tag(&mut copy, tag.tag_type, tag.timestamp_ms, &tag.body));
        black_box(copy.len());
    });
    measure("classify", units, || {
        tags.iter()
            .for_each(|tag| _ = black_box(flv::classify(tag.tag_type, black_box(&tag.body))));
    });
    measure("classify and timeline", units, || _ = black_box(index(&tags)));
    measure("FLV head: push and finish", units, || {
        let mut head = HeadBuilder::new(FileStart {
            base_ms: 0,
            metadata: None,
            configs: &[],
        });
        infos.iter().for_each(|info| head.push(info));
        black_box(head.finish());
    });
    let mut segment = Vec::with_capacity(4 << 20);
    measure("MPEG-TS in segments of 6 s", units, || {
        segment.clear();
        black_box(mux(&tags, &infos, &mut segment));
    });
    segment.clear();
    let written = mux(&tags, &infos, &mut segment);
    println!("MPEG-TS is {:.3} times the coded bytes", written as f64 / bytes as f64);
}
