use super::super::{AUDIO, VIDEO, read_file_header, read_tag};
use super::*;
use alloc::string::ToString;
use alloc::vec;

fn unit(kind: UnitKind, key: bool, dts_ms: i64, body_len: u32) -> UnitInfo {
    UnitInfo {
        kind,
        codec: Codec::Avc,
        key,
        dts_ms,
        cto_ms: 0,
        body_len,
        header_len: 5,
        arrival_ms: 0,
    }
}

fn properties(head: &[u8]) -> Vec<(String, Value)> {
    let first = read_file_header(head).unwrap().unwrap().first_tag as usize;
    let tag = read_tag(&head[first..]).unwrap().unwrap();
    let mut decoder = amf::Decoder::new(tag.body);
    assert_eq!(
        decoder.next_value().unwrap(),
        Some(Value::String("onMetaData".to_string()))
    );
    let value = decoder.next_value().unwrap().unwrap();
    assert!(decoder.remaining().is_empty());
    let Value::EcmaArray(properties) = value else {
        panic!("{value:?}")
    };
    let count = u32::from_be_bytes(tag.body[14..18].try_into().unwrap());
    assert_eq!(count as usize, properties.len());
    properties
}

fn get<'a>(properties: &'a [(String, Value)], name: &str) -> &'a Value {
    let mut all = properties.iter().filter(|(other, _)| other == name);
    let found = all.next().unwrap_or_else(|| panic!("{name} is missing"));
    assert!(all.next().is_none(), "{name} twice");
    &found.1
}

fn number(properties: &[(String, Value)], name: &str) -> f64 {
    get(properties, name).as_number().unwrap()
}

fn publisher() -> Vec<u8> {
    let mut body = Vec::new();
    Value::String("onMetaData".to_string()).encode(&mut body);
    let field = |name: &str, value| (name.to_string(), value);
    Value::EcmaArray(vec![
        field("duration", Value::Number(0.0)),
        field("fileSize", Value::Number(0.0)),
        field("width", Value::Number(1280.0)),
        field("encoder", Value::String("obs".to_string())),
        field("2.1", Value::Boolean(false)),
        field("keyframes", Value::Object(vec![])),
    ])
    .encode(&mut body);
    body
}

#[test]
fn an_empty_file_still_has_a_whole_head() {
    let head = HeadBuilder::new(FileStart {
        base_ms: 0,
        metadata: None,
        configs: &[],
    })
    .finish();
    assert_eq!(head.len(), HEAD_ALIGN);
    let properties = properties(&head);
    assert_eq!(number(&properties, "duration"), 0.0);
    assert_eq!(number(&properties, "filesize"), 4096.0);
    assert_eq!(get(&properties, "hasKeyframes"), &Value::Boolean(false));
}

#[test]
fn positions_and_times_are_those_of_the_finished_file() {
    let avc_header = [0x17, 0, 0, 0, 0, 1, 2, 3];
    let aac_header = [0xAF, 0, 0x12, 0x10];
    let publisher = publisher();
    let configs: [(u8, &[u8]); 2] = [(VIDEO, &avc_header), (AUDIO, &aac_header)];
    let mut builder = HeadBuilder::new(FileStart {
        base_ms: 990,
        metadata: Some(&publisher),
        configs: &configs,
    });
    let mut body = Vec::new();
    let mut keys = Vec::new();
    for n in 0..100u32 {
        let key = n % 25 == 0;
        let video = unit(UnitKind::Video, key, 1000 + i64::from(n) * 40, 100 + n);
        let audio = unit(UnitKind::Audio, true, 990 + i64::from(n) * 40, 10);
        for (tag_type, unit) in [(VIDEO, video), (AUDIO, audio)] {
            if tag_type == VIDEO && key {
                keys.push((body.len(), 10 + n * 40));
            }
            append_tag(
                &mut body,
                tag_type,
                file_time_ms(unit.dts_ms, 990),
                &vec![tag_type; unit.body_len as usize],
            );
            builder.push(&unit);
        }
    }
    assert_eq!(builder.body_len(), body.len() as u64);
    let head = builder.finish();
    assert_eq!(head.len() % HEAD_ALIGN, 0);
    let file = [&head[..], &body].concat();
    let properties = properties(&head);
    assert_eq!(number(&properties, "filesize"), file.len() as f64);
    assert_eq!(number(&properties, "duration"), 4.01);
    assert_eq!(number(&properties, "lasttimestamp"), 3.97);
    assert_eq!(number(&properties, "lastkeyframetimestamp"), 3.01);
    assert_eq!(number(&properties, "width"), 1280.0);
    assert_eq!(get(&properties, "encoder").as_str(), Some("obs"));
    assert!(properties.iter().all(|(name, _)| name != "fileSize"));
    assert_eq!(number(&properties, "videocodecid"), 7.0);
    let key_frames = get(&properties, "keyframes");
    let list = |name| match key_frames.get(name) {
        Some(Value::StrictArray(values)) => values.iter().map(|v| v.as_number().unwrap()).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    let (times, positions) = (list("times"), list("filepositions"));
    assert_eq!(times, [0.01, 1.01, 2.01, 3.01]);
    for ((at, time), position) in keys.iter().zip(&positions) {
        assert_eq!(*position as usize, head.len() + at);
        let tag = read_tag(&file[*position as usize..]).unwrap().unwrap();
        assert_eq!((tag.tag_type, tag.timestamp_ms), (VIDEO, *time));
    }
    // The whole file reads as tags to its last byte, codec headers behind the metadata.
    let mut at = 13;
    let mut tags = Vec::new();
    while at < file.len() {
        let tag = read_tag(&file[at..]).unwrap().unwrap();
        tags.push((tag.tag_type, tag.timestamp_ms));
        at += tag.len;
    }
    assert_eq!(tags[..4], [(SCRIPT, 0), (VIDEO, 0), (AUDIO, 0), (VIDEO, 10)]);
    assert_eq!(tags.len(), 203);
}

#[test]
fn every_length_of_metadata_is_padded_to_whole_blocks() {
    for len in 0..4200 {
        let mut metadata = Vec::new();
        Value::String("onMetaData".to_string()).encode(&mut metadata);
        Value::Object(vec![("x".to_string(), Value::String("y".repeat(len)))]).encode(&mut metadata);
        let start = FileStart {
            base_ms: 0,
            metadata: Some(&metadata),
            configs: &[],
        };
        let head = HeadBuilder::new(start).finish();
        assert_eq!(head.len() % HEAD_ALIGN, 0, "{len}");
        assert!(head.len() <= 3 * HEAD_ALIGN);
        if len % 97 == 0 {
            assert_eq!(number(&properties(&head), "filesize"), head.len() as f64);
        }
    }
}

#[test]
fn an_index_that_grows_too_long_is_thinned_evenly() {
    let mut builder = HeadBuilder::new(FileStart {
        base_ms: 0,
        metadata: None,
        configs: &[],
    });
    let count = MAX_KEY_FRAMES as i64 * 5;
    for n in 0..count {
        builder.push(&unit(UnitKind::Video, true, n * 40, 100));
    }
    let entries = &builder.key_frames.entries;
    assert!(entries.len() <= MAX_KEY_FRAMES && entries.len() > MAX_KEY_FRAMES / 2);
    let stride = entries[1].0 - entries[0].0;
    assert!(entries.windows(2).all(|pair| pair[1].0 - pair[0].0 == stride));
    assert_eq!(builder.key_frames.last_ms, (count - 1) * 40);
    assert!(builder.finish().len() < 2_000_000);
}

#[test]
fn the_duration_is_to_the_end_of_what_is_shown_last() {
    let mut builder = HeadBuilder::new(FileStart {
        base_ms: 0,
        metadata: None,
        configs: &[],
    });
    for (n, cto_ms) in [40, 120, 40, 0].into_iter().enumerate() {
        builder.push(&UnitInfo {
            cto_ms,
            ..unit(UnitKind::Video, n == 0, n as i64 * 40, 9)
        });
    }
    assert_eq!(builder.duration_ms(), 40 + 120 + 40);
}

#[test]
fn rubbish_from_the_publisher_is_left_out() {
    for body in [
        &b""[..],
        b"\x02\x00\x0aonMetaData",
        b"\x02\x00\x0aonMetaData\x03\x00",
        b"\x02\x00\x01x\x05",
    ] {
        let head = HeadBuilder::new(FileStart {
            base_ms: 0,
            metadata: Some(body),
            configs: &[(9, b"")],
        })
        .finish();
        assert!(properties(&head).len() > 5);
    }
}

#[test]
fn metadata_that_is_in_the_head_is_not_in_the_body() {
    assert!(!keeps(UnitKind::Metadata));
    assert!(keeps(UnitKind::Text) && keeps(UnitKind::Other) && keeps(UnitKind::VideoConfig));
    assert!(!keeps_metadata(b"a", Some(b"a")));
    assert!(keeps_metadata(b"a", Some(b"b")));
    assert!(keeps_metadata(b"a", None));
}
