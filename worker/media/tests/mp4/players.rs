//! Streams of real encoders, muxed here: ffprobe must read back every packet, and ffmpeg decode without a word.
//!
//! `ffmpeg`, `ffprobe` and `python3` are looked for on the path.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use media::{
    access_unit::{Codec, Track, UnitInfo, UnitKind},
    flv,
    mp4::{HeadBuilder, Layout, Take},
};
use tempfile::TempDir;

use crate::{
    reader,
    source::{avc, config, hevc},
};

/// A tag of a stream and the bytes behind its codec header.
pub(crate) type Tag = (UnitInfo, Vec<u8>);

/// One packet of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Packet {
    pub(crate) dts_ms: i64,
    pub(crate) pts_ms: i64,
    pub(crate) key: bool,
    pub(crate) size: u64,
    pub(crate) adler32: u32,
}

pub(crate) type Packets = BTreeMap<Track, Vec<Packet>>;

pub(crate) const PICTURES: &str = "-f lavfi -i testsrc2=s=320x180:r=25";
pub(crate) const SOUND: &str = "-f lavfi -i sine=f=440:r=44100";
pub(crate) const X264: &str = "-c:v libx264 -preset veryfast -g 25 -pix_fmt yuv420p";

/// Encodes with ffmpeg into a new file.
pub(crate) fn encode(dir: &TempDir, name: &str, arguments: &str) -> PathBuf {
    let path = dir.path().join(name);
    let status = Command::new("ffmpeg")
        .args(["-v", "error", "-nostdin"])
        .args(arguments.split_whitespace())
        .arg(&path)
        .status()
        .expect("ffmpeg is installed");
    assert!(status.success(), "ffmpeg {arguments}");
    path
}

/// The tags of an FLV file.
pub(crate) fn flv_tags(path: &Path) -> Vec<Tag> {
    let bytes = fs::read(path).unwrap();
    let header = flv::read_file_header(&bytes).unwrap().expect("a whole header");
    let mut rest = &bytes[header.first_tag as usize..];
    let mut tags = Vec::new();
    while let Some(tag) = flv::read_tag(rest).unwrap() {
        if let Some(class) = flv::classify(tag.tag_type, tag.body) {
            let info = UnitInfo {
                kind: class.kind,
                codec: class.codec,
                key: class.key,
                dts_ms: i64::from(tag.timestamp_ms),
                cto_ms: class.cto_ms,
                body_len: u32::try_from(tag.body.len()).unwrap(),
                header_len: class.header_len,
                arrival_ms: 0,
            };
            tags.push((info, tag.body[usize::from(class.header_len)..].to_vec()));
        }
        rest = &rest[tag.len..];
    }
    tags
}

/// What a decoder configuration is for the layout: the record, or the first bytes of an MP3 unit.
pub(crate) fn record((info, data): &Tag) -> Option<&[u8]> {
    let config = matches!(info.kind, UnitKind::VideoConfig | UnitKind::AudioConfig);
    (config || info.codec == Codec::Mp3).then_some(data.as_slice())
}

/// Muxes the tags, every unit of which must be taken; gives what the file should hold.
fn mux(path: &Path, tags: &[Tag]) -> Packets {
    let mut layout = Layout::new();
    let mut builder = HeadBuilder::new(&[], 1_700_000_000_000);
    let (mut body, mut packets) = (Vec::new(), Packets::new());
    for tag in tags {
        let (info, data) = tag;
        let take = layout.push(info, record(tag));
        assert_eq!(builder.push(info, record(tag)), take);
        match take {
            Take::Yes => {
                body.extend_from_slice(data);
                let track = if info.kind == UnitKind::Video {
                    Track::Video
                } else {
                    Track::Audio
                };
                packets.entry(track).or_default().push(Packet {
                    dts_ms: info.dts_ms,
                    pts_ms: info.dts_ms + i64::from(info.cto_ms),
                    key: info.key,
                    size: data.len() as u64,
                    adler32: adler32(data),
                });
            }
            Take::NotAUnit => {}
            other => panic!("{info:?}: {other:?}"),
        }
    }
    let mut file = builder.finish().unwrap();
    reader::read(&file);
    file.extend_from_slice(&body);
    fs::write(path, file).unwrap();
    check_boxes(path);
    packets
}

/// Starts the presentation at 0, as a file does.
fn from_zero(mut packets: Packets) -> Packets {
    let start_ms = packets.values().flatten().map(|packet| packet.pts_ms).min().unwrap();
    for packet in packets.values_mut().flatten() {
        packet.dts_ms -= start_ms;
        packet.pts_ms -= start_ms;
    }
    packets
}

/// RFC 1950 §8.2.
pub(crate) fn adler32(data: &[u8]) -> u32 {
    let (a, b) = data.iter().fold((1u32, 0u32), |(a, b), &byte| {
        let a = (a + u32::from(byte)) % 65521;
        (a, (b + a) % 65521)
    });
    b << 16 | a
}

/// The packets that ffprobe finds, in the file's time. About an MP4 it must have nothing to say; about an FLV it may, for
/// that format does not say in front what is in it.
pub(crate) fn probe(path: &Path) -> Packets {
    let flv = path.extension().is_some_and(|extension| extension == "flv");
    let output = Command::new("ffprobe")
        .args([
            "-v",
            if flv { "error" } else { "warning" },
            "-show_data_hash",
            "adler32",
        ])
        .args([
            "-show_entries",
            "packet=codec_type,pts_time,dts_time,size,flags,data_hash",
        ])
        .arg(path)
        .output()
        .expect("ffprobe is installed");
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "",
        "ffprobe has nothing to say"
    );
    let text = String::from_utf8(output.stdout).unwrap();
    let mut packets = Packets::new();
    for section in text.split("[PACKET]").skip(1) {
        let fields: BTreeMap<_, _> = section.lines().filter_map(|line| line.split_once('=')).collect();
        // Six decimals, of which the last three are 0.
        let ms = |name: &str| {
            fields[name]
                .parse::<f64>()
                .map(|seconds| (seconds * 1000.0).round() as i64)
                .unwrap()
        };
        let track = if fields["codec_type"] == "video" {
            Track::Video
        } else {
            Track::Audio
        };
        assert!(!fields["flags"].contains('D'), "the edit list drops nothing: {section}");
        packets.entry(track).or_default().push(Packet {
            dts_ms: ms("dts_time"),
            pts_ms: ms("pts_time"),
            key: fields["flags"].contains('K'),
            size: fields["size"].parse().unwrap(),
            adler32: u32::from_str_radix(fields["data_hash"].trim_start_matches("adler32:"), 16).unwrap(),
        });
    }
    packets
}

/// Decodes all of it: ffmpeg must neither warn nor fail.
pub(crate) fn decode(path: &Path) {
    let output = Command::new("ffmpeg")
        .args(["-v", "warning", "-nostdin", "-xerror", "-i"])
        .arg(path)
        .args(["-fps_mode", "passthrough", "-enc_time_base", "-1", "-f", "null", "-"])
        .output()
        .expect("ffmpeg is installed");
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "",
        "ffmpeg decodes {} without a word",
        path.display()
    );
    assert!(output.status.success());
}

/// Checks the boxes against the standard, byte by byte.
fn check_boxes(path: &Path) {
    let checker = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/support/bmff_check.py");
    let output = Command::new("python3")
        .arg("-B")
        .arg(checker)
        .arg(path)
        .output()
        .expect("python3 is installed");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// Muxes, and compares what ffprobe reads with what was muxed.
fn check_packets(dir: &TempDir, tags: &[Tag]) -> PathBuf {
    let path = dir.path().join("muxed.mp4");
    let expected = from_zero(mux(&path, tags));
    same(&probe(&path), &expected);
    path
}

/// As [`check_packets`], and decodes the file.
fn check(dir: &TempDir, tags: &[Tag]) {
    decode(&check_packets(dir, tags));
}

/// Compares unit by unit, so that a failure names the first that differs.
pub(crate) fn same(found: &Packets, expected: &Packets) {
    for track in [Track::Video, Track::Audio] {
        let (found, expected) = (found.get(&track), expected.get(&track));
        let pairs = found.into_iter().flatten().zip(expected.into_iter().flatten());
        for (at, (found, expected)) in pairs.enumerate() {
            assert_eq!(found, expected, "{track:?} {at}");
        }
        assert_eq!(found.map(Vec::len), expected.map(Vec::len), "{track:?}");
    }
}

/// Encodes to FLV, and compares the MP4 made of it, also as ffprobe reads the FLV.
fn check_flv(arguments: &str) -> Vec<Tag> {
    let dir = TempDir::new().unwrap();
    let flv = encode(&dir, "source.flv", arguments);
    let tags = flv_tags(&flv);
    check(&dir, &tags);
    same(&from_zero(probe(&flv)), &probe(&dir.path().join("muxed.mp4")));
    tags
}

#[test]
fn reordered_pictures_with_sound() {
    let tags = check_flv(&format!("{PICTURES} {SOUND} -t 6 {X264} -bf 3 -c:a aac"));
    assert!(tags.iter().any(|(info, _)| info.cto_ms > 80));
}

#[test]
fn open_groups_of_pictures() {
    check_flv(&format!(
        "{PICTURES} {SOUND} -t 6 {X264} -bf 3 -x264-params open-gop=1:keyint=12:scenecut=0 -c:a aac"
    ));
}

#[test]
fn a_variable_frame_rate() {
    let filter = "select='not(mod(n\\,3))+not(mod(n\\,5))+between(n\\,40\\,60)'";
    check_flv(&format!(
        "{PICTURES} {SOUND} -t 6 -vf {filter} -fps_mode vfr {X264} -bf 2 -c:a aac"
    ));
}

#[test]
fn no_reordering() {
    check_flv(&format!(
        "{PICTURES} {SOUND} -t 3 {X264} -tune zerolatency -c:a aac -ar 48000"
    ));
}

#[test]
fn pictures_only() {
    check_flv(&format!("{PICTURES} -t 4 {X264} -bf 3"));
}

#[test]
fn sound_only() {
    check_flv(&format!("{SOUND} -t 4 -c:a aac"));
    check_flv(&format!("{SOUND} -t 4 -c:a libmp3lame"));
}

#[test]
fn mp3_with_pictures() {
    check_flv(&format!(
        "{PICTURES} {SOUND} -t 4 {X264} -bf 2 -c:a libmp3lame -ar 44100"
    ));
    check_flv(&format!(
        "{PICTURES} {SOUND} -t 4 {X264} -bf 2 -c:a libmp3lame -ar 22050 -ac 1"
    ));
}

#[test]
fn sound_that_begins_late_or_early() {
    check_flv(&format!("{PICTURES} -itsoffset 2.5 {SOUND} -t 6 {X264} -bf 3 -c:a aac"));
    check_flv(&format!("-itsoffset 1.7 {PICTURES} {SOUND} -t 6 {X264} -bf 3 -c:a aac"));
    check_flv(&format!(
        "{PICTURES} -itsoffset 130 {SOUND} -t 133 {X264} -bf 3 -c:a aac"
    ));
}

/// Tags of a second stream, behind those of the first.
fn join(mut first: Vec<Tag>, second: Vec<Tag>) -> Vec<Tag> {
    let end_ms = first.iter().map(|(info, _)| info.dts_ms).max().unwrap() + 40;
    first.extend(second.into_iter().map(|(info, data)| {
        (
            UnitInfo {
                dts_ms: info.dts_ms + end_ms,
                ..info
            },
            data,
        )
    }));
    first
}

#[test]
fn changed_pictures_and_sound_in_mid_file() {
    let dir = TempDir::new().unwrap();
    let small = encode(
        &dir,
        "small.flv",
        &format!("{PICTURES} {SOUND} -t 3 {X264} -bf 2 -c:a aac -ar 44100"),
    );
    let large = "-f lavfi -i testsrc2=s=640x360:r=30";
    let large = encode(
        &dir,
        "large.flv",
        &format!("{large} {SOUND} -t 3 {X264} -bf 2 -c:a aac -ar 48000 -ac 2"),
    );
    let tags = join(join(flv_tags(&small), flv_tags(&large)), flv_tags(&small));
    // ffprobe and ffmpeg 5 decode a track's sound at its first rate; so the change of sound is checked by packets only.
    let path = check_packets(&dir, &tags);
    let movie = reader::read(&head(&path));
    assert_eq!(movie.track(Track::Video).entries.len(), 2);
    assert_eq!(movie.track(Track::Audio).entries.len(), 2);

    let pictures: Vec<Tag> = tags
        .into_iter()
        .filter(|(info, _)| matches!(info.codec, Codec::Avc))
        .collect();
    check(&dir, &pictures);
}

/// The head of a muxed file.
fn head(path: &Path) -> Vec<u8> {
    let bytes = fs::read(path).unwrap();
    let at = bytes.windows(4).position(|four| four == b"mdat").unwrap();
    bytes[..at + 4].to_vec()
}

#[test]
fn offsets_below_zero() {
    let dir = TempDir::new().unwrap();
    let tags = flv_tags(&encode(
        &dir,
        "source.flv",
        &format!("{PICTURES} {SOUND} -t 4 {X264} -bf 3 -c:a aac"),
    ));
    // Decode times two pictures later: the same presentation, with offsets from -80 on.
    let later = |(info, data): Tag| match info.kind {
        UnitKind::Video => (
            UnitInfo {
                dts_ms: info.dts_ms + 80,
                cto_ms: info.cto_ms - 80,
                ..info
            },
            data,
        ),
        _ => (info, data),
    };
    let tags: Vec<Tag> = tags.into_iter().map(later).collect();
    let path = dir.path().join("muxed.mp4");
    let expected = from_zero(mux(&path, &tags));
    let mut found = probe(&path);
    // ffprobe moves decode times so that none comes after its presentation time.
    for packet in found.get_mut(&Track::Video).unwrap() {
        packet.dts_ms += 80;
    }
    same(&found, &expected);
    decode(&path);
}

/// H.265 pictures, as an MP4 of ffmpeg's has them, and that file.
pub(crate) fn hevc_tags(dir: &TempDir) -> (Vec<Tag>, PathBuf) {
    let x265 = "-c:v libx265 -preset veryfast -tag:v hvc1 -x265-params";
    let options = "log-level=error:open-gop=1:bframes=3:keyint=27:rc-lookahead=10:scenecut=0";
    let arguments =
        format!("{PICTURES} -t 4 {x265} {options} -pix_fmt yuv420p -video_track_timescale 1000 -movflags +faststart");
    let source = encode(dir, "source.mp4", &arguments);
    let movie = reader::read(&head(&source));
    let bytes = fs::read(&source).unwrap();
    let video = movie.track(Track::Video);
    let (info, record) = config(Codec::Hevc, 0, &video.entries[0].1);
    let mut tags = vec![(info, record.unwrap())];
    for sample in &video.samples {
        let data = bytes[usize::try_from(sample.offset).unwrap()..][..sample.size as usize].to_vec();
        let cto_ms = i32::try_from(sample.pts_ms - sample.dts_ms).unwrap();
        tags.push((hevc(sample.dts_ms, cto_ms, sample.key, sample.size), data));
    }
    (tags, source)
}

#[test]
fn hevc_pictures() {
    let dir = TempDir::new().unwrap();
    let (tags, source) = hevc_tags(&dir);
    check(&dir, &tags);
    same(&probe(&source), &probe(&dir.path().join("muxed.mp4")));
}

/// Cuts in front of each key picture but the first.
fn cut(tags: &[Tag]) -> Vec<Vec<Tag>> {
    let configs: Vec<Tag> = tags.iter().filter(|tag| record(tag).is_some()).cloned().collect();
    let mut files: Vec<Vec<Tag>> = vec![Vec::new()];
    for tag in tags {
        let pictures = files
            .last()
            .unwrap()
            .iter()
            .any(|(info, _)| info.kind == UnitKind::Video);
        if tag.0.kind == UnitKind::Video && tag.0.key && pictures {
            files.push(configs.clone());
        }
        files.last_mut().unwrap().push(tag.clone());
    }
    files
}

#[test]
fn cut_files_hold_every_unit_once() {
    let dir = TempDir::new().unwrap();
    let source = encode(
        &dir,
        "source.flv",
        &format!("{PICTURES} {SOUND} -t 8 {X264} -bf 3 -c:a aac"),
    );
    let files = cut(&flv_tags(&source));
    assert_eq!(files.len(), 8);
    files.iter().for_each(|tags| check(&dir, tags));
}

#[test]
fn files_cut_at_open_groups_begin_with_leading_pictures() {
    let dir = TempDir::new().unwrap();
    let sound = flv_tags(&encode(&dir, "sound.flv", &format!("{SOUND} -t 4 -c:a aac")));
    let (mut hevc, _) = hevc_tags(&dir);
    hevc.extend(sound);
    hevc.sort_by_key(|(info, _)| (matches!(info.kind, UnitKind::Video | UnitKind::Audio), info.dts_ms));
    let x264 = format!("{X264} -bf 3 -g 12 -x264-params open-gop=1:scenecut=0:b-adapt=0");
    let avc = flv_tags(&encode(
        &dir,
        "avc.flv",
        &format!("{PICTURES} {SOUND} -t 4 {x264} -c:a aac"),
    ));
    for tags in [&hevc, &avc] {
        let files = cut(tags);
        assert!(files.iter().filter(|tags| has_leading_pictures(tags)).count() >= 2);
        files.iter().for_each(|tags| drop(check_packets(&dir, tags)));
    }
    // H.265 names the pictures to be left out here; a decoder of H.264 misses what they refer to, and says so.
    cut(&hevc).iter().for_each(|tags| check(&dir, tags));
}

/// Whether a picture is presented before the first.
fn has_leading_pictures(tags: &[Tag]) -> bool {
    let pictures = tags.iter().filter(|(info, _)| info.kind == UnitKind::Video);
    let mut pts_ms = pictures.map(|(info, _)| info.dts_ms + i64::from(info.cto_ms));
    let first = pts_ms.next();
    pts_ms.any(|pts_ms| Some(pts_ms) < first)
}

#[test]
fn a_single_picture() {
    let dir = TempDir::new().unwrap();
    let tags = flv_tags(&encode(&dir, "source.flv", &format!("{PICTURES} -frames:v 1 {X264}")));
    assert_eq!(
        tags.iter()
            .filter(|(info, _)| info.kind == avc(0, 0, true, 1).kind)
            .count(),
        1
    );
    check(&dir, &tags);
}
