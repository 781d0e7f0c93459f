//! FLV tags: whatever stands in a file or arrives in a message is read, classified, placed in time and listed in a
//! head, without a panic and within the invariants that the muxers rely on.

use media::access_unit::{Track, UnitInfo, UnitKind};
use media::flv::{self, FileBase, FileStart, HEAD_ALIGN, HeadBuilder, TagRef};
use media::segmenter::Segmenter;
use media::timeline::{HOLD_MS, Timeline};

/// What a recorder keeps while it walks over tags.
struct Walk {
    timeline: Timeline,
    last_ms: [Option<i64>; 2],
    segmenter: Segmenter,
    base: FileBase,
    head: HeadBuilder,
}

pub fn flv_tag(data: &[u8]) {
    let _ = flv::read_file_header(data);
    let configs = [(flv::VIDEO, data), (flv::AUDIO, data)];
    let start = FileStart {
        base_ms: 0,
        metadata: Some(data),
        configs: &configs,
    };
    let mut walk = Walk {
        timeline: Timeline::new(),
        last_ms: [None; 2],
        segmenter: Segmenter::new(1000),
        base: FileBase::new(),
        head: HeadBuilder::new(start),
    };
    for tag_type in [flv::AUDIO, flv::VIDEO, flv::SCRIPT, 0] {
        assert_eq!(flv::classify(tag_type, data).is_none(), data.is_empty());
    }
    let mut rest = data;
    while let Ok(Some(tag)) = flv::read_tag(rest) {
        let (bytes, tail) = rest.split_at(tag.len);
        framing(bytes, &tag);
        walk.step(&tag);
        rest = tail;
    }
    let body_len = walk.head.body_len();
    assert!(walk.base.finish().is_none() || walk.head.duration_ms() >= 0);
    let head = walk.head.finish();
    assert_eq!(head.len() % HEAD_ALIGN, 0);
    assert!(body_len <= data.len() as u64);
    let mut rest = &head[flv::FILE_HEADER_LEN..];
    while let Some(tag) = flv::read_tag(rest).expect("our own head is well-formed") {
        rest = &rest[tag.len..];
    }
    assert!(rest.is_empty(), "and whole");
}

/// What was read is what would be written, but for the stream id, and no shorter piece is taken for a tag.
fn framing(bytes: &[u8], tag: &TagRef<'_>) {
    let mut again = Vec::new();
    assert!(flv::append_tag(&mut again, tag.tag_type, tag.timestamp_ms, tag.body));
    assert_eq!((&again[..8], &again[11..]), (&bytes[..8], &bytes[11..]));
    flv::patch_timestamp(&mut again, !tag.timestamp_ms);
    let patched = flv::read_tag(&again).expect("still a tag").expect("still whole");
    assert_eq!((patched.timestamp_ms, patched.body), (!tag.timestamp_ms, tag.body));
    for len in [0, 10, bytes.len() / 2, bytes.len() - 1] {
        assert_eq!(flv::read_tag(&bytes[..len]), Ok(None));
    }
}

impl Walk {
    fn step(&mut self, tag: &TagRef<'_>) {
        let Some(class) = flv::classify(tag.tag_type, tag.body) else {
            assert!(tag.body.is_empty());
            return;
        };
        let is_unit = matches!(class.kind, UnitKind::Video | UnitKind::Audio);
        let is_config = matches!(class.kind, UnitKind::VideoConfig | UnitKind::AudioConfig);
        if is_unit || is_config {
            assert!(
                usize::from(class.header_len) < tag.body.len(),
                "something stands behind the header"
            );
        } else {
            assert!(!class.key);
        }
        assert!((-(1 << 23)..1 << 23).contains(&class.cto_ms));
        let video = tag.tag_type == flv::VIDEO;
        let base_ms = if is_unit {
            let track = if video { Track::Video } else { Track::Audio };
            let mapped = self.timeline.map(track, tag.timestamp_ms, 0);
            assert!(i64::from(mapped.held_ms) <= HOLD_MS);
            let dts_ms = mapped.base_ms + i64::from(tag.timestamp_ms);
            let last_ms = self.last_ms[usize::from(video)].replace(dts_ms);
            assert!(last_ms.is_none_or(|last_ms| last_ms <= dts_ms), "a track goes back");
            mapped.base_ms
        } else {
            self.timeline.attach(tag.timestamp_ms)
        };
        let info = UnitInfo {
            kind: class.kind,
            codec: class.codec,
            key: class.key,
            dts_ms: base_ms + i64::from(tag.timestamp_ms),
            cto_ms: class.cto_ms,
            body_len: u32::try_from(tag.body.len()).expect("24 bits"),
            header_len: class.header_len,
            arrival_ms: 0,
        };
        let random_access = self.segmenter.is_random_access(&info);
        assert!(
            !self.segmenter.push(&info) || random_access,
            "a cut only at a random access point"
        );
        let before = self.base.clone();
        if let (Some(decided), Some(now)) = (before.clone().push(&info), self.base.push(&info)) {
            assert_eq!(decided, now);
        }
        self.head.push(&info);
    }
}
