//! What holds for all inputs: any split gives the same, what a client sends a server receives, nothing panics.

mod checks;
mod support;

use media::{
    amf::Value,
    rtmp::{
        ChunkReader, ChunkWriter, ClientSession, HandshakeForm, Headers, Limits, MediaTag, Message, PublishTarget,
        ServerSession,
    },
};
use proptest::{collection::vec, prelude::*};
use support::{Recorder, converse, target};

/// Bodies as media has them: mostly short, some of many chunks.
fn body() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![4 => vec(any::<u8>(), 0..300), 1 => vec(any::<u8>(), 300..20_000)]
}

fn tag() -> impl Strategy<Value = (u8, u32, Vec<u8>)> {
    // Mostly small times that grow and shrink a little; all 32 bits now and then.
    let time = prop_oneof![0..5000_u32, 0xFF_FFF0..0x100_0010_u32, any::<u32>()];
    (prop_oneof![Just(8), Just(9), Just(18)], time, body()).prop_filter("data that is a request", |tag| {
        tag.0 != 18 || {
            !tag.2.starts_with(b"\x02\x00\x0d@setDataFrame") && !tag.2.starts_with(b"\x02\x00\x0f@clearDataFrame")
        }
    })
}

fn headers() -> impl Strategy<Value = Headers> {
    prop_oneof![Just(Headers::Full), Just(Headers::Compact)]
}

fn handshake() -> impl Strategy<Value = HandshakeForm> {
    prop_oneof![
        Just(HandshakeForm::Plain),
        Just(HandshakeForm::DigestFirst),
        Just(HandshakeForm::DigestSecond)
    ]
}

fn chunk_size() -> impl Strategy<Value = u32> {
    prop_oneof![16..200_u32, Just(128), Just(4096), Just(65_536), 1..0x8000_0000_u32]
}

fn value() -> impl Strategy<Value = Value> {
    let text = "\\PC{0,20}";
    let leaf = prop_oneof![
        any::<f64>()
            .prop_filter("NaN is not equal to itself", |number| !number.is_nan())
            .prop_map(Value::Number),
        any::<bool>().prop_map(Value::Boolean),
        text.prop_map(Value::String),
        Just(Value::Null),
        Just(Value::Undefined),
        (-1e15..1e15, any::<i16>()).prop_map(|(ms, tz)| Value::Date { ms, tz }),
        text.prop_map(Value::Xml),
        any::<u16>().prop_map(Value::Reference),
    ];
    leaf.prop_recursive(6, 64, 8, move |inner| {
        let fields = vec((text, inner.clone()), 0..8);
        prop_oneof![
            fields.clone().prop_map(Value::Object),
            fields.clone().prop_map(Value::EcmaArray),
            vec(inner, 0..8).prop_map(Value::StrictArray),
            (text, fields).prop_map(|(class, fields)| Value::TypedObject { class, fields }),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_bytes_in_any_split_give_the_same(data in vec(any::<u8>(), 0..2000)) {
        checks::rtmp_session(&data);
    }

    #[test]
    fn a_damaged_session_in_any_split_gives_the_same(
        split in any::<u8>(),
        tags in vec(tag(), 1..8),
        headers in headers(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
    ) {
        let mut writer = ChunkWriter::new(headers);
        let mut data = vec![2, split];
        for (type_id, timestamp_ms, payload) in &tags {
            let payload = &payload[..payload.len().min(2000)];
            let message = Message { type_id: *type_id, stream_id: 1, timestamp_ms: *timestamp_ms, payload };
            writer.write(&mut data, u32::from(*type_id), message).unwrap();
        }
        for (index, byte) in damage {
            let at = index.index(data.len() - 2) + 2;
            data[at] = byte;
        }
        checks::rtmp_session(&data);
    }

    #[test]
    fn what_a_client_sends_the_server_hands_on(
        tags in vec(tag(), 0..20),
        chunk_size in chunk_size(),
        headers in headers(),
        handshake in handshake(),
        seed in any::<[u8; 32]>(),
        piece_len in 1..5000_usize,
    ) {
        let mut client = ClientSession::new(PublishTarget { chunk_size, headers, handshake, ..target() }, seed);
        let mut server = ServerSession::new(Limits::default(), seed);
        let mut recorder = Recorder::default();
        converse(&mut client, &mut server, &mut recorder).unwrap();
        prop_assert!(client.ready());
        for (tag_type, timestamp_ms, body) in &tags {
            client.send(MediaTag { tag_type: *tag_type, timestamp_ms: *timestamp_ms, body }).unwrap();
        }
        for piece in std::mem::take(client.output()).chunks(piece_len) {
            server.feed(piece, &mut recorder).unwrap();
        }
        let expected: Vec<_> = tags.iter().map(|(kind, time, body)| (*kind, *time, body.as_slice())).collect();
        prop_assert!(recorder.media() == expected);
        prop_assert_eq!(server.partial_bytes(), 0);
    }

    #[test]
    fn messages_are_cut_and_joined_on_every_chunk_stream(
        messages in vec((2..70_000_u32, any::<u8>(), any::<u32>(), any::<u32>(), body()), 0..20),
        size in chunk_size(),
        headers in headers(),
    ) {
        let mut writer = ChunkWriter::new(headers);
        let mut bytes = Vec::new();
        let control = Message { type_id: 1, stream_id: 0, timestamp_ms: 0, payload: &size.to_be_bytes() };
        writer.write(&mut bytes, 2, control).unwrap();
        writer.set_chunk_size(size).unwrap();
        // Types 1 and 2 are obeyed, not handed on.
        let messages: Vec<_> = messages.into_iter().filter(|message| !matches!(message.1, 1 | 2)).collect();
        for (csid, type_id, stream_id, timestamp_ms, payload) in &messages {
            let message = Message { type_id: *type_id, stream_id: *stream_id, timestamp_ms: *timestamp_ms, payload };
            writer.write(&mut bytes, *csid, message).unwrap();
        }
        let mut reader = ChunkReader::new(&Limits::default());
        let mut rest = bytes.as_slice();
        for (_, type_id, stream_id, timestamp_ms, payload) in &messages {
            let expected = Message { type_id: *type_id, stream_id: *stream_id, timestamp_ms: *timestamp_ms, payload };
            prop_assert!(reader.next_message(&mut rest).unwrap() == Some(expected));
        }
        prop_assert!(reader.next_message(&mut rest).unwrap().is_none() && rest.is_empty());
    }

    #[test]
    fn any_bytes_as_amf(data in vec(any::<u8>(), 0..2000)) {
        checks::amf(&data);
    }

    #[test]
    fn values_are_written_and_read(value in value()) {
        let mut bytes = Vec::new();
        value.encode(&mut bytes);
        prop_assert_eq!(support::values(&bytes), [value]);
        checks::amf(&bytes);
    }
}
