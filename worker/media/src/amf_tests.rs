use alloc::{string::String, vec, vec::Vec};

use super::*;

fn read(bytes: &[u8]) -> Result<Vec<Value>, AmfError> {
    let mut decoder = Decoder::new(bytes);
    let mut values = Vec::new();
    while let Some(value) = decoder.next_value()? {
        values.push(value);
    }
    Ok(values)
}

fn text(text: &str) -> Value {
    Value::String(text.into())
}

fn field(name: &str, value: Value) -> (String, Value) {
    (name.into(), value)
}

#[test]
fn every_kind_of_value_is_read_and_written() {
    let cases: [(&[u8], Value); 14] = [
        (b"\x00\x3F\xF8\0\0\0\0\0\0", Value::Number(1.5)),
        (b"\x01\x01", Value::Boolean(true)),
        (b"\x02\x00\x03abc", text("abc")),
        (
            b"\x03\x00\x01a\x05\0\0\x09",
            Value::Object(vec![field("a", Value::Null)]),
        ),
        (b"\x03\0\0\x09", Value::Object(vec![])),
        (b"\x03\0\0\x05\0\0\x09", Value::Object(vec![field("", Value::Null)])),
        (b"\x05", Value::Null),
        (b"\x06", Value::Undefined),
        (b"\x07\x01\x02", Value::Reference(258)),
        (
            b"\x08\0\0\0\x01\x00\x01a\x05\0\0\x09",
            Value::EcmaArray(vec![field("a", Value::Null)]),
        ),
        (
            b"\x0A\0\0\0\x02\x05\x06",
            Value::StrictArray(vec![Value::Null, Value::Undefined]),
        ),
        (
            b"\x0B\x40\x8F\x40\0\0\0\0\0\xFF\xC4",
            Value::Date { ms: 1000.0, tz: -60 },
        ),
        (b"\x0F\0\0\0\x04<a/>", Value::Xml("<a/>".into())),
        (
            b"\x10\x00\x01C\x00\x01a\x05\0\0\x09",
            Value::TypedObject {
                class: "C".into(),
                fields: vec![field("a", Value::Null)],
            },
        ),
    ];
    for (bytes, value) in cases {
        assert_eq!(read(bytes), Ok(vec![value.clone()]));
        let mut written = Vec::new();
        value.encode(&mut written);
        assert_eq!(written, bytes);
        for end in 1..bytes.len() {
            let open_ended = bytes[0] == marker::ECMA_ARRAY && matches!(end, 5 | 9);
            assert_eq!(
                read(&bytes[..end]) == Err(AmfError::Truncated),
                !open_ended,
                "{value:?} up to {end}"
            );
        }
    }
}

#[test]
fn values_follow_each_other() {
    let mut bytes = Vec::new();
    write_string(&mut bytes, "connect");
    write_number(&mut bytes, 1.0);
    write_boolean(&mut bytes, false);
    write_null(&mut bytes);
    let mut decoder = Decoder::new(&bytes);
    assert_eq!(decoder.next_value(), Ok(Some(text("connect"))));
    assert_eq!(decoder.remaining().len(), bytes.len() - 10);
    assert_eq!(decoder.next_value(), Ok(Some(Value::Number(1.0))));
    assert_eq!(decoder.next_value(), Ok(Some(Value::Boolean(false))));
    assert_eq!(decoder.next_value(), Ok(Some(Value::Null)));
    assert_eq!(decoder.next_value(), Ok(None));
}

#[test]
fn long_text_and_long_names_keep_to_their_length_fields() {
    let long = "é".repeat(40_000);
    let mut bytes = Vec::new();
    write_string(&mut bytes, &long);
    assert_eq!(bytes[..5], [0x0C, 0, 1, 0x38, 0x80]);
    assert_eq!(read(&bytes), Ok(vec![text(&long)]));
    let mut bytes = Vec::new();
    Value::Object(vec![field(&long, Value::Null)]).encode(&mut bytes);
    let cut = "é".repeat(32_767);
    assert_eq!(read(&bytes), Ok(vec![Value::Object(vec![field(&cut, Value::Null)])]));
}

#[test]
fn text_that_is_not_utf_8_is_mended() {
    assert_eq!(read(b"\x02\x00\x03a\xFFb"), Ok(vec![text("a\u{FFFD}b")]));
}

#[test]
fn an_ecma_array_may_end_with_the_input() {
    let array = Value::EcmaArray(vec![field("a", Value::Null)]);
    assert_eq!(read(b"\x08\0\0\0\x07\x00\x01a\x05"), Ok(vec![array]));
    assert_eq!(
        read(b"\x03\x00\x01a\x05"),
        Err(AmfError::Truncated),
        "an object may not"
    );
}

#[test]
fn unknown_markers_are_named() {
    for unknown in [0x04, 0x09, 0x0E, 0x12, 0xFF] {
        assert_eq!(read(&[unknown]), Err(AmfError::Marker(unknown)));
    }
}

#[test]
fn nesting_is_read_up_to_its_bound() {
    let nested = |depth: usize| [b"\x0A\0\0\0\x01".repeat(depth - 1), vec![0x05]].concat();
    assert!(read(&nested(MAX_DEPTH)).is_ok());
    for depth in [MAX_DEPTH + 1, 10_000, 1_000_000] {
        assert_eq!(read(&nested(depth)), Err(AmfError::Depth));
    }
    let objects = b"\x03\x00\x01a".repeat(10_000);
    assert_eq!(read(&objects), Err(AmfError::Depth));
    let amf3 = [b"\x11".as_slice(), &b"\x09\x03\x01".repeat(10_000)].concat();
    assert_eq!(read(&amf3), Err(AmfError::Depth));
}

#[test]
fn the_number_of_values_is_bounded() {
    assert_eq!(read(&vec![0x05; MAX_VALUES]).map(|values| values.len()), Ok(MAX_VALUES));
    assert_eq!(read(&vec![0x05; MAX_VALUES + 1]), Err(AmfError::Values));
    let announced = [b"\x0A\xFF\xFF\xFF\xFF".as_slice(), &vec![0x05; MAX_VALUES]].concat();
    assert_eq!(read(&announced), Err(AmfError::Values));
}

#[test]
fn text_that_refers_to_itself_again_and_again_is_bounded() {
    // An AMF3 array of one string of 16 KiB and 60,000 references to it: 1 GB if it were unfolded.
    let mut bytes = vec![0x11, 0x09, 0x87, 0xA9, 0x41, 0x01, 0x06, 0x82, 0x80, 0x01];
    bytes.extend_from_slice(&[b'x'; 1 << 14]);
    bytes.extend(b"\x06\x00".repeat(60_000));
    assert_eq!(read(&bytes), Err(AmfError::Text));
}

#[test]
fn amf3_values_are_read_behind_their_marker() {
    let cases: [(&[u8], Value); 19] = [
        (b"\x00", Value::Undefined),
        (b"\x01", Value::Null),
        (b"\x02", Value::Boolean(false)),
        (b"\x03", Value::Boolean(true)),
        (b"\x04\x7F", Value::Number(127.0)),
        (b"\x04\x81\x00", Value::Number(128.0)),
        (b"\x04\xBF\xFF\xFF\xFF", Value::Number(268_435_455.0)),
        (b"\x04\xFF\xFF\xFF\xFF", Value::Number(-1.0)),
        (b"\x05\x3F\xF8\0\0\0\0\0\0", Value::Number(1.5)),
        (b"\x06\x07abc", text("abc")),
        (b"\x07\x09<a/>", Value::Xml("<a/>".into())),
        (b"\x08\x01\x40\x8F\x40\0\0\0\0\0", Value::Date { ms: 1000.0, tz: 0 }),
        (
            b"\x09\x05\x01\x06\x07abc\x06\x00",
            Value::StrictArray(vec![text("abc"), text("abc")]),
        ),
        (b"\x09\x03\x03a\x01\x01\x02", {
            Value::EcmaArray(vec![field("a", Value::Null), field("0", Value::Boolean(false))])
        }),
        (
            b"\x0A\x0B\x01\x03a\x01\x01",
            Value::Object(vec![field("a", Value::Null)]),
        ),
        (b"\x0A\x13\x03C\x03a\x02", {
            Value::TypedObject {
                class: "C".into(),
                fields: vec![field("a", Value::Boolean(false))],
            }
        }),
        (b"\x09\x05\x01\x0A\x13\x01\x03x\x01\x0A\x01\x02", {
            let object = |value| Value::Object(vec![field("x", value)]);
            Value::StrictArray(vec![object(Value::Null), object(Value::Boolean(false))])
        }),
        (b"\x0C\x07abc", text("3 bytes")),
        (b"\x0D\x05\x00\xFF\xFF\xFF\xFF\x00\x00\x00\x01", {
            Value::StrictArray(vec![Value::Number(-1.0), Value::Number(1.0)])
        }),
    ];
    for (bytes, value) in cases {
        let mut behind_marker = vec![0x11];
        behind_marker.extend_from_slice(bytes);
        assert_eq!(read(&behind_marker), Ok(vec![value]));
    }
    for (bytes, error) in [
        (b"\x06\x02".as_slice(), AmfError::Reference),
        (b"\x0A\x05", AmfError::Reference),
        (b"\x0A\x07", AmfError::Marker(0x0A)),
        (b"\x11", AmfError::Marker(0x11)),
        (b"\x06\x09abc", AmfError::Truncated),
    ] {
        assert_eq!(read(&[b"\x11", bytes].concat()), Err(error), "{bytes:02x?}");
    }
}

#[test]
fn fields_are_found_by_name() {
    let object = Value::Object(vec![
        field("a", text("x")),
        field("b", Value::Number(2.0)),
        field("a", Value::Null),
    ]);
    assert_eq!(object.get("a").and_then(Value::as_str), Some("x"));
    assert_eq!(object.get("b").and_then(Value::as_number), Some(2.0));
    assert_eq!(object.get("b").and_then(Value::as_boolean), None);
    assert_eq!(object.get("c"), None);
    assert_eq!(Value::Null.get("a"), None);
}

#[test]
fn a_leading_string_is_split_off() {
    assert_eq!(
        leading_string(b"\x02\x00\x03abcdef"),
        Some((b"abc".as_slice(), b"def".as_slice()))
    );
    for none in [b"".as_slice(), b"\x02", b"\x02\x00\x03ab", b"\x03\x00\x03abc"] {
        assert_eq!(leading_string(none), None);
    }
}
