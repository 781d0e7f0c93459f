//! Sources made by FFmpeg, as tags with their index entries; and what FFmpeg reads in a file.

use media::access_unit::{AccessUnit, Codec, Track, UnitInfo, UnitKind};
use media::flv;
use media::timeline::Timeline;
use std::path::Path;
use std::process::{Command, Stdio};

/// A tag as the journal would hold it.
#[derive(Debug, Clone)]
pub(crate) struct Tag {
    pub(crate) tag_type: u8,
    pub(crate) info: UnitInfo,
    pub(crate) body: Vec<u8>,
}

impl Tag {
    /// The coded data or the configuration record.
    pub(crate) fn payload(&self) -> &[u8] {
        &self.body[usize::from(self.info.header_len)..]
    }

    pub(crate) fn track(&self) -> Track {
        if self.tag_type == flv::VIDEO {
            Track::Video
        } else {
            Track::Audio
        }
    }

    pub(crate) fn unit(&self) -> Option<AccessUnit<'_>> {
        matches!(self.info.kind, UnitKind::Video | UnitKind::Audio).then(|| AccessUnit {
            track: self.track(),
            codec: self.info.codec,
            dts_ms: self.info.dts_ms,
            cto_ms: self.info.cto_ms,
            key: self.info.key,
            data: self.payload(),
        })
    }
}

/// Runs `ffmpeg` with these arguments and returns what it writes to standard output; it must not say a word.
pub(crate) fn ffmpeg(args: &[&str]) -> Vec<u8> {
    run(
        "ffmpeg",
        &[&["-nostdin", "-hide_banner", "-loglevel", "warning"], args].concat(),
    )
}

/// Runs a program that must succeed without a word on standard error.
pub(crate) fn run(program: &str, args: &[&str]) -> Vec<u8> {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && said.trim().is_empty(),
        "{program} {args:?}\n{said}"
    );
    output.stdout
}

/// Encodes a test picture and a test tone; `options` follow the inputs 0 (pictures) and 1 (sound).
pub(crate) fn encode(seconds: u32, options: &str) -> Vec<u8> {
    let picture = format!("testsrc2=size=160x120:rate=25:duration={seconds}");
    let tone = format!("sine=frequency=440:sample_rate=44100:duration={seconds}");
    let mut args = vec!["-f", "lavfi", "-i", &picture, "-f", "lavfi", "-i", &tone];
    args.extend(options.split_whitespace());
    args.extend(["-flvflags", "no_duration_filesize", "-f", "flv", "-"]);
    ffmpeg(&args)
}

/// Reads an FLV file as the ingest side would.
pub(crate) fn read(file: &[u8]) -> Vec<Tag> {
    let mut at = flv::read_file_header(file).unwrap().unwrap().first_tag as usize;
    let mut timeline = Timeline::new();
    let mut tags = Vec::new();
    while at < file.len() {
        let tag = flv::read_tag(&file[at..]).unwrap().expect("a whole tag");
        at += tag.len;
        let class = flv::classify(tag.tag_type, tag.body).expect("a body");
        let track = if tag.tag_type == flv::VIDEO {
            Track::Video
        } else {
            Track::Audio
        };
        let base_ms = match class.kind {
            UnitKind::Video | UnitKind::Audio => timeline.map(track, tag.timestamp_ms, 0).base_ms,
            _ => timeline.attach(tag.timestamp_ms),
        };
        let info = UnitInfo {
            kind: class.kind,
            codec: class.codec,
            key: class.key,
            dts_ms: base_ms + i64::from(tag.timestamp_ms),
            cto_ms: class.cto_ms,
            body_len: u32::try_from(tag.body.len()).unwrap(),
            header_len: class.header_len,
            arrival_ms: 0,
        };
        tags.push(Tag {
            tag_type: tag.tag_type,
            info,
            body: tag.body.to_vec(),
        });
    }
    tags
}

/// One packet as FFmpeg's demuxer gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) dts_ms: i64,
    pub(crate) pts_ms: i64,
    pub(crate) hash: String,
}

/// The packets of one stream (`v` or `a`), through a bitstream filter, with times in milliseconds.
pub(crate) fn packets(file: &Path, stream: &str, filter: &str) -> Vec<Packet> {
    let map = format!("0:{stream}");
    let bsf = format!("-bsf:{stream}");
    let mut args = vec!["-copyts", "-i", file.to_str().unwrap(), "-map", &map, "-c", "copy"];
    if !filter.is_empty() {
        args.extend([bsf.as_str(), filter]);
    }
    args.extend(["-f", "framehash", "-hash", "md5", "-"]);
    let text = String::from_utf8(ffmpeg(&args)).unwrap();
    let mut tick = 0;
    let mut packets = Vec::new();
    for line in text.lines() {
        if let Some(base) = line.strip_prefix("#tb 0: 1/") {
            tick = base.trim().parse::<i64>().unwrap() / 1000;
        }
        let fields: Vec<_> = line.split(',').map(str::trim).collect();
        if line.starts_with('#') || fields.len() < 6 {
            continue;
        }
        let ms = |field: &str| {
            let ticks: i64 = field.parse().unwrap();
            assert_eq!(ticks % tick, 0, "whole milliseconds: {line}");
            ticks / tick
        };
        packets.push(Packet {
            dts_ms: ms(fields[1]),
            pts_ms: ms(fields[2]),
            hash: fields[5].to_string(),
        });
    }
    assert!(!packets.is_empty(), "{text}");
    packets
}

/// Asserts that both lists hold the same packets at the same distances, and returns by how much `b` is later.
pub(crate) fn same(a: &[Packet], b: &[Packet], what: &str) -> i64 {
    assert_eq!(a.len(), b.len(), "{what}: how many packets");
    let shift = b[0].dts_ms - a[0].dts_ms;
    for (index, (a, b)) in a.iter().zip(b).enumerate() {
        let moved = Packet {
            dts_ms: a.dts_ms + shift,
            pts_ms: a.pts_ms + shift,
            hash: a.hash.clone(),
        };
        assert_eq!(&moved, b, "{what}: packet {index}");
    }
    shift
}

/// HEVC as no FLV muxer of FFmpeg 5 writes it: encoded to a transport stream, its access units put into tags by `wrap`;
/// with the packets of that stream, through `filter`.
pub(crate) fn hevc(
    seconds: u32,
    options: &str,
    filter: &str,
    wrap: impl Fn(Packaging<'_>) -> Vec<u8>,
) -> (Vec<Tag>, Vec<Packet>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hevc.ts");
    let picture = format!("testsrc2=size=162x122:rate=25:duration={seconds}");
    let mut args = vec!["-f", "lavfi", "-i", &picture, "-pix_fmt", "yuv420p", "-c:v", "libx265"];
    args.extend(options.split_whitespace());
    args.extend([
        "-x265-params",
        "log-level=none:aud=1:keyint=25",
        "-f",
        "mpegts",
        path.to_str().unwrap(),
    ]);
    ffmpeg(&args);
    let probe = [
        "-v",
        "error",
        "-show_entries",
        "packet=pts,dts,flags",
        "-of",
        "csv=p=0",
        path.to_str().unwrap(),
    ];
    let times = String::from_utf8(run("ffprobe", &probe)).unwrap();
    let stream = ffmpeg(&["-i", path.to_str().unwrap(), "-c", "copy", "-f", "hevc", "-"]);
    let mut units: Vec<Vec<&[u8]>> = Vec::new();
    for nal in annex_b(&stream) {
        if nal[0] >> 1 == 35 {
            units.push(Vec::new());
        } else if let Some(unit) = units.last_mut() {
            unit.push(nal);
        }
    }
    let sets: Vec<&[u8]> = units[0]
        .iter()
        .copied()
        .filter(|nal| matches!(nal[0] >> 1, 32..=34))
        .collect();
    let config = hvcc(&sets);
    let mut tags = vec![tag(
        wrap(Packaging {
            config: true,
            key: true,
            cto_ms: 0,
            data: &config,
        }),
        0,
    )];
    let times: Vec<_> = times.lines().filter(|line| !line.trim().is_empty()).collect();
    assert_eq!(times.len(), units.len());
    for (line, unit) in times.iter().zip(&units) {
        let fields: Vec<_> = line.trim_end_matches(',').split(',').collect();
        let ms = |field: &str| field.parse::<i64>().unwrap() / 90;
        let (pts, dts) = (ms(fields[0]), ms(fields[1]));
        let kept = unit.iter().filter(|nal| !matches!(nal[0] >> 1, 32..=34));
        let data: Vec<u8> = kept
            .flat_map(|nal| [&u32::try_from(nal.len()).unwrap().to_be_bytes()[..], nal].concat())
            .collect();
        let cto_ms = i32::try_from(pts - dts).unwrap();
        let key = fields[2].starts_with('K');
        tags.push(tag(
            wrap(Packaging {
                config: false,
                key,
                cto_ms,
                data: &data,
            }),
            dts,
        ));
    }
    (tags, packets(&path, "v", filter))
}

/// What a tag's header must say.
pub(crate) struct Packaging<'a> {
    pub(crate) config: bool,
    pub(crate) key: bool,
    pub(crate) cto_ms: i32,
    pub(crate) data: &'a [u8],
}

/// Codec id 12 with AVC's packet layout.
pub(crate) fn legacy_hevc(unit: Packaging<'_>) -> Vec<u8> {
    let [_, c0, c1, c2] = unit.cto_ms.to_be_bytes();
    let first = if unit.key { 0x1C } else { 0x2C };
    [&[first, u8::from(!unit.config), c0, c1, c2], unit.data].concat()
}

/// Enhanced RTMP: `CodedFrames` with a composition time, `CodedFramesX` without.
pub(crate) fn enhanced_hevc(unit: Packaging<'_>) -> Vec<u8> {
    let [_, c0, c1, c2] = unit.cto_ms.to_be_bytes();
    let first = if unit.key { 0x90 } else { 0xA0 };
    let (packet_type, time): (u8, &[u8]) = match (unit.config, unit.cto_ms) {
        (true, _) => (0, &[]),
        (false, 0) => (3, &[]),
        _ => (1, &[c0, c1, c2]),
    };
    [&[first | packet_type][..], b"hvc1", time, unit.data].concat()
}

fn tag(body: Vec<u8>, dts_ms: i64) -> Tag {
    let class = flv::classify(flv::VIDEO, &body).unwrap();
    assert_eq!(class.codec, Codec::Hevc);
    let info = UnitInfo {
        kind: class.kind,
        codec: class.codec,
        key: class.key,
        dts_ms,
        cto_ms: class.cto_ms,
        body_len: u32::try_from(body.len()).unwrap(),
        header_len: class.header_len,
        arrival_ms: 0,
    };
    Tag {
        tag_type: flv::VIDEO,
        info,
        body,
    }
}

/// NAL units between start codes.
fn annex_b(stream: &[u8]) -> Vec<&[u8]> {
    let starts: Vec<_> = (0..stream.len().saturating_sub(3))
        .filter(|&at| stream[at..].starts_with(&[0, 0, 1]))
        .collect();
    let ends = starts.iter().skip(1).copied().chain([stream.len()]);
    starts
        .iter()
        .zip(ends)
        .map(|(&start, end)| {
            let nal = &stream[start + 3..end];
            let used = nal.iter().rposition(|&byte| byte != 0).unwrap() + 1;
            &nal[..used]
        })
        .collect()
}

/// A record with these parameter sets; profile and level as the sequence parameter set has them.
fn hvcc(sets: &[&[u8]]) -> Vec<u8> {
    let sps = sets.iter().find(|nal| nal[0] >> 1 == 33).unwrap();
    // Emulation prevention can only stand in the constraint flags here, where it would be 0 bytes anyway.
    let mut plain = Vec::new();
    let mut zeros = 0;
    for &byte in sps.iter() {
        if zeros >= 2 && byte == 3 {
            zeros = 0;
            continue;
        }
        zeros = if byte == 0 { zeros + 1 } else { 0 };
        plain.push(byte);
    }
    let mut record = vec![1];
    record.extend_from_slice(&plain[3..15]);
    record.extend_from_slice(&[
        0xF0,
        0,
        0xFC,
        0xFD,
        0xF8,
        0xF8,
        0,
        0,
        0x0F,
        u8::try_from(sets.len()).unwrap(),
    ]);
    for set in sets {
        record.extend_from_slice(&[0x80 | set[0] >> 1, 0, 1]);
        record.extend_from_slice(&u16::try_from(set.len()).unwrap().to_be_bytes());
        record.extend_from_slice(set);
    }
    record
}
