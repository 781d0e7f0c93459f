//! FLV files and transport streams made of real encoders' units, read back by FFmpeg: every packet once, with its
//! bytes, its times and its distance to the other track, and not one warning.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on must stop")]

mod source;

use media::access_unit::{Codec, UnitKind};
use media::codec::{aac, avc, hevc};
use media::flv::{self, FileBase, FileStart, HeadBuilder, file_time_ms};
use media::hls::{self, MediaPlaylist};
use media::segmenter::Segmenter;
use media::ts::{DEFAULT_OFFSET_90K, Demuxer, Muxer, PACKET_LEN, State, Tracks};
use source::{Tag, encode, ffmpeg, packets, read, run, same};
use std::path::{Path, PathBuf};

const X264: &str = "-pix_fmt yuv420p -c:v libx264 -preset ultrafast -g 25";
const AVC_TO_ANNEX_B: &str = "h264_mp4toannexb,filter_units=remove_types=7-9";
const AVC_PLAIN: &str = "filter_units=remove_types=7-9";
const HEVC_PLAIN: &str = "filter_units=remove_types=32-35";

/// Splits at random access points, as a recorder does.
fn split(tags: &[Tag], target_ms: i64) -> Vec<&[Tag]> {
    let mut segmenter = Segmenter::new(target_ms);
    let cuts = tags
        .iter()
        .enumerate()
        .filter(|(_, tag)| segmenter.push(&tag.info))
        .map(|(index, _)| index);
    let mut files = Vec::new();
    let mut from = 0;
    for cut in cuts.chain([tags.len()]) {
        files.push(&tags[from..cut]);
        from = cut;
    }
    files
}

/// Renders one FLV file; `before` is what came before it.
fn render_flv(before: &[Tag], tags: &[Tag]) -> Vec<u8> {
    let mut base = FileBase::new();
    let base_ms = tags
        .iter()
        .find_map(|tag| base.push(&tag.info))
        .or_else(|| base.finish())
        .unwrap();
    let first_unit = tags.iter().position(|tag| tag.unit().is_some()).unwrap();
    let metadata = before
        .iter()
        .chain(&tags[..first_unit])
        .rfind(|tag| tag.info.kind == UnitKind::Metadata);
    let config = |kind| {
        before
            .iter()
            .rfind(|tag| tag.info.kind == kind)
            .map(|tag| (tag.tag_type, &tag.body[..]))
    };
    let configs: Vec<_> = [UnitKind::VideoConfig, UnitKind::AudioConfig]
        .into_iter()
        .filter_map(config)
        .collect();
    let metadata = metadata.map(|tag| &tag.body[..]);
    let mut head = HeadBuilder::new(FileStart {
        base_ms,
        metadata,
        configs: &configs,
    });
    let mut body = Vec::new();
    for tag in tags {
        if flv::keeps(tag.info.kind) || flv::keeps_metadata(&tag.body, metadata) {
            flv::append_tag(
                &mut body,
                tag.tag_type,
                file_time_ms(tag.info.dts_ms, base_ms),
                &tag.body,
            );
            head.push(&tag.info);
        }
    }
    assert_eq!(head.body_len(), body.len() as u64);
    [head.finish(), body].concat()
}

/// Renders one continuous transport stream in segments.
fn render_ts(tags: &[Tag], target_ms: i64) -> Vec<Vec<u8>> {
    let mut muxer = Muxer::new(State::new(DEFAULT_OFFSET_90K));
    let tracks = Tracks {
        video: true,
        audio: true,
    };
    let mut segmenter = Segmenter::new(target_ms);
    let mut segments = Vec::new();
    for tag in tags {
        let codec = tag.info.codec;
        if matches!(tag.info.kind, UnitKind::VideoConfig | UnitKind::AudioConfig) {
            muxer.set_config(codec, tag.track(), tag.payload()).unwrap();
        }
        let Some(unit) = tag.unit() else { continue };
        if codec == Codec::Mp3 && segments.is_empty() {
            muxer.set_config(codec, unit.track, unit.data).unwrap();
        }
        if segmenter.push(&tag.info) || segments.is_empty() {
            let mut segment = Vec::new();
            muxer.start_segment(tracks, &mut segment);
            segments.push(segment);
        }
        muxer.push(&unit, segments.last_mut().unwrap()).unwrap();
    }
    segments
}

/// The source as FFmpeg reads it, and a folder for what is rendered.
struct Case {
    folder: tempfile::TempDir,
    source: PathBuf,
    tags: Vec<Tag>,
    /// Pictures behind a cut may refer to pictures before it: decoders that begin there say so, and rightly.
    open_groups: bool,
}

impl Case {
    fn new(tags: Vec<Tag>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = folder.path().join("source.flv");
        // The source as one file, timestamps as received: legal FLV, even where FFmpeg 5 cannot write it.
        let mut file = Vec::new();
        flv::append_file_header(&mut file, true, true);
        for tag in &tags {
            flv::append_tag(
                &mut file,
                tag.tag_type,
                u32::try_from(tag.info.dts_ms).unwrap(),
                &tag.body,
            );
        }
        std::fs::write(&source, file).unwrap();
        Self {
            folder,
            source,
            tags,
            open_groups: false,
        }
    }

    fn encode(seconds: u32, options: &str) -> Self {
        Self::new(read(&encode(seconds, options)))
    }

    /// FFmpeg plays the list as it plays the segments glued together.
    fn check_playlist(&self, segments: &[Vec<u8>]) {
        let entry = |index: usize| hls::Segment {
            uri: format!("{index}.ts"),
            duration_ms: 1000,
            discontinuity: false,
            program_date_time_ms: Some(0),
            map: None,
        };
        let playlist = MediaPlaylist {
            header: hls::Header {
                version: hls::version(false),
                target_duration_s: 9,
                kind: Some(hls::Kind::Vod),
                media_sequence: 0,
                discontinuity_sequence: 0,
            },
            segments: (0..segments.len()).map(entry).collect(),
            ended: true,
        };
        decodes(&self.write("index.m3u8", playlist.to_text().as_bytes()));
    }

    /// Our own reader gives each unit back as the encoder sent it, and the decoder configurations.
    fn check_reread(&self, segments: &[Vec<u8>]) {
        let mut demuxer = Demuxer::new();
        let mut found = Vec::new();
        for segment in segments {
            let near_ms = found.last().map_or(0, |unit: &media::ts::Unit| unit.dts_ms);
            demuxer.start_segment(near_ms);
            for packet in segment.as_chunks::<PACKET_LEN>().0 {
                found.extend(demuxer.push(packet).unwrap());
            }
            found.extend(demuxer.end_segment().unwrap());
        }
        let units: Vec<_> = self.tags.iter().filter_map(Tag::unit).collect();
        assert_eq!(found.len(), units.len());
        let zero_ms = units[0].dts_ms;
        for (found, unit) in found.iter().zip(&units) {
            assert_eq!(
                (found.track, found.codec, found.key),
                (unit.track, unit.codec, unit.key)
            );
            assert_eq!((found.dts_ms, found.cto_ms), (unit.dts_ms - zero_ms, unit.cto_ms));
            assert!(
                found.data == unit.data,
                "{} bytes at {} ms",
                unit.data.len(),
                unit.dts_ms
            );
        }
        for kind in [UnitKind::VideoConfig, UnitKind::AudioConfig] {
            let Some(tag) = self.tags.iter().find(|tag| tag.info.kind == kind) else {
                continue;
            };
            let of_codec = found.iter().filter(|unit| unit.codec == tag.info.codec);
            let said: Vec<_> = of_codec.filter_map(|unit| unit.config.as_deref()).collect();
            match tag.info.codec {
                Codec::Hevc => {
                    let (said, sent) = (
                        hevc::Config::parse(said[0]).unwrap(),
                        hevc::Config::parse(tag.payload()).unwrap(),
                    );
                    let is_set = |nal: &&[u8]| (hevc::NAL_VPS..=hevc::NAL_PPS).contains(&hevc::nal_type(nal));
                    assert_eq!((said.codec_name(), said.level), (sent.codec_name(), sent.level));
                    assert_eq!(said.nals, sent.nals.into_iter().filter(is_set).collect::<Vec<_>>());
                }
                // What extends the core coder's is not in ADTS.
                Codec::Aac => assert_eq!(said, [&tag.payload()[..2]]),
                _ => assert_eq!(said, [tag.payload()]),
            }
        }
    }

    fn decodes(&self, path: &Path) {
        if !self.open_groups {
            decodes(path);
        }
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// Renders FLV in cut files and checks each packet of each stream against the source.
    fn check_flv(&self, target_ms: i64, streams: &[&str]) -> usize {
        let files = split(&self.tags, target_ms);
        let mut start = 0;
        let mut read = vec![Vec::new(); streams.len()];
        for (index, tags) in files.iter().enumerate() {
            let bytes = render_flv(&self.tags[..start], tags);
            start += tags.len();
            let path = self.write(&format!("{index}.flv"), &bytes);
            self.decodes(&path);
            check_duration(&path, tags);
            let mut base = FileBase::new();
            tags.iter().for_each(|tag| _ = base.push(&tag.info));
            for (list, stream) in read.iter_mut().zip(streams) {
                list.extend(packets(&path, stream, "").into_iter().map(|mut packet| {
                    packet.dts_ms += base.finish().unwrap();
                    packet.pts_ms += base.finish().unwrap();
                    packet
                }));
            }
        }
        for (list, stream) in read.iter().zip(streams) {
            assert_eq!(same(&packets(&self.source, stream, ""), list, "flv"), 0);
        }
        files.len()
    }

    /// Renders a transport stream in segments and checks it as a whole, with filters for source and rendering.
    fn check_ts(&self, target_ms: i64, streams: &[(&str, &str, &str)]) -> usize {
        let segments = render_ts(&self.tags, target_ms);
        for (index, segment) in segments.iter().enumerate() {
            self.decodes(&self.write(&format!("{index}.ts"), segment));
        }
        self.check_playlist(&segments);
        self.check_reread(&segments);
        let whole = self.write("whole.ts", &segments.concat());
        decodes(&whole);
        for (stream, source_filter, filter) in streams {
            let source = packets(&self.source, stream, source_filter);
            assert_eq!(
                same(&source, &packets(&whole, stream, filter), "ts"),
                DEFAULT_OFFSET_90K / 90
            );
        }
        segments.len()
    }
}

/// Decodes without a word.
fn decodes(path: &Path) {
    ffmpeg(&["-i", path.to_str().unwrap(), "-f", "null", "-"]);
}

/// The duration that a demuxer shows is that of the units, to the millisecond.
fn check_duration(path: &Path, tags: &[Tag]) {
    let args = [
        "-v",
        "error",
        "-show_entries",
        "format=duration,size",
        "-of",
        "csv=p=0",
        path.to_str().unwrap(),
    ];
    let text = String::from_utf8(run("ffprobe", &args)).unwrap();
    let seconds: f64 = text.split(',').next().unwrap().trim().parse().unwrap();
    let units = || tags.iter().filter(|tag| tag.unit().is_some()).map(|tag| tag.info);
    let begin = units().map(|unit| unit.dts_ms).min().unwrap();
    let end = units().map(|unit| unit.dts_ms + i64::from(unit.cto_ms)).max().unwrap();
    let over = (seconds * 1000.0).round() as i64 - (end - begin);
    assert!(
        (1..=500).contains(&over),
        "{text}: {over} ms behind the last unit's time"
    );
}

#[test]
fn avc_with_reordered_pictures_and_aac() {
    let case = Case::encode(7, &format!("{X264} -preset fast -bf 3 -c:a aac -ac 2"));
    assert_eq!(case.check_flv(2000, &["v", "a"]), 4);
    let segments = case.check_ts(2000, &[("v", AVC_TO_ANNEX_B, AVC_PLAIN), ("a", "", "aac_adtstoasc")]);
    assert_eq!(segments, 4);
    let config = case
        .tags
        .iter()
        .find(|tag| tag.info.kind == UnitKind::VideoConfig)
        .unwrap();
    let config = avc::Config::parse(config.payload()).unwrap();
    let size = config.picture_size().unwrap();
    assert_eq!((size.width, size.height, config.length_size), (160, 120, 4));
    assert!(config.codec_name().starts_with("avc1.64"), "{}", config.codec_name());
    let asc = case
        .tags
        .iter()
        .find(|tag| tag.info.kind == UnitKind::AudioConfig)
        .unwrap();
    let asc = aac::Config::parse(asc.payload()).unwrap();
    assert_eq!(
        (asc.core_rate, asc.channels(), asc.codec_name().as_str()),
        (44_100, 2, "mp4a.40.2")
    );
}

#[test]
fn a_player_seeks_by_the_key_frame_index() {
    let case = Case::encode(7, &format!("{X264} -c:a aac"));
    let path = case.write("whole.flv", &render_flv(&[], &case.tags));
    let args = [
        "-v",
        "error",
        "-select_streams",
        "v",
        "-read_intervals",
        "5.5%+#1",
        "-show_entries",
        "packet=pts_time,flags",
    ];
    let text = String::from_utf8(run(
        "ffprobe",
        &[&args[..], &["-of", "csv=p=0", path.to_str().unwrap()]].concat(),
    ))
    .unwrap();
    let (time, flags) = text.trim().split_once(',').unwrap();
    assert!(flags.starts_with('K') && time.starts_with("5.0"), "{text}");
}

#[test]
fn open_groups_of_pictures_and_several_slices() {
    let options = format!("{X264} -preset fast -bf 2 -x264-params open-gop=1:slices=4 -c:a aac");
    let case = Case {
        open_groups: true,
        ..Case::encode(5, &options)
    };
    assert!(case.check_flv(900, &["v", "a"]) >= 4);
    assert!(case.check_ts(900, &[("v", AVC_TO_ANNEX_B, AVC_PLAIN), ("a", "", "aac_adtstoasc")]) >= 4);
}

#[test]
fn pictures_that_bring_delimiters_and_parameter_sets_of_their_own() {
    let options = format!("{X264} -preset fast -bf 2 -x264-params aud=1:repeat-headers=1 -c:a aac");
    let case = Case::encode(3, &options);
    case.check_reread(&render_ts(&case.tags, 1000));
    // Delimiters like those that we put in, and parameter sets, as what was a transport stream before has them.
    let options = format!("{X264} -bsf:v h264_metadata=aud=insert,dump_extra=freq=keyframe -c:a aac");
    let case = Case::encode(3, &options);
    case.check_reread(&render_ts(&case.tags, 1000));
}

#[test]
fn a_variable_frame_rate() {
    let drop = "-vf select='not(mod(n\\,3))+not(mod(n\\,7))' -fps_mode vfr";
    let case = Case::encode(6, &format!("{drop} {X264} -c:a aac"));
    case.check_flv(2000, &["v", "a"]);
    case.check_ts(2000, &[("v", AVC_TO_ANNEX_B, AVC_PLAIN), ("a", "", "aac_adtstoasc")]);
}

#[test]
fn pictures_alone_and_few_of_them() {
    let case = Case::encode(9, &format!("-vf fps=2 {X264} -g 2 -an"));
    assert!(case.check_flv(2000, &["v"]) >= 4);
    assert!(case.check_ts(2000, &[("v", AVC_TO_ANNEX_B, AVC_PLAIN)]) >= 4);
}

#[test]
fn sound_alone() {
    let case = Case::encode(6, "-vn -c:a aac");
    assert_eq!(case.check_flv(2000, &["a"]), 3);
    assert_eq!(case.check_ts(2000, &[("a", "", "aac_adtstoasc")]), 3);
}

#[test]
fn mp3_with_pictures_and_alone() {
    let case = Case::encode(4, &format!("{X264} -c:a libmp3lame"));
    case.check_flv(1000, &["v", "a"]);
    case.check_ts(1000, &[("v", AVC_TO_ANNEX_B, AVC_PLAIN), ("a", "", "")]);
    let case = Case::encode(4, "-vn -c:a libmp3lame -ar 22050 -ac 1");
    case.check_flv(1000, &["a"]);
    case.check_ts(1000, &[("a", "", "")]);
}

#[test]
fn hevc_in_both_packagings() {
    for wrap in [
        source::legacy_hevc as fn(source::Packaging<'_>) -> Vec<u8>,
        source::enhanced_hevc,
    ] {
        for options in ["-preset ultrafast -bf 0", "-preset ultrafast -bf 3"] {
            let (tags, encoded) = source::hevc(4, options, HEVC_PLAIN, wrap);
            let case = Case::new(tags);
            let config = hevc::Config::parse(case.tags[0].payload()).unwrap();
            let size = config.picture_size().unwrap();
            assert_eq!((size.width, size.height), (162, 122));
            assert!(config.codec_name().starts_with("hvc1.1.6.L"), "{}", config.codec_name());
            let segments = render_ts(&case.tags, 1000);
            assert_eq!(segments.len(), 4);
            case.check_reread(&segments);
            let whole = case.write("whole.ts", &segments.concat());
            decodes(&whole);
            let reread = packets(&whole, "v", HEVC_PLAIN);
            assert_eq!(
                (reread.len(), same(&encoded, &reread, "hevc")),
                (100, DEFAULT_OFFSET_90K / 90)
            );
        }
    }
}
