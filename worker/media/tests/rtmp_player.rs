//! The conversation of a client session that plays: what it asks for, what it hands on, how it ends.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use media::{
    amf::Value,
    rtmp::{ChunkReader, ClientError, ClientSession, Limits, ServerSession, SessionError},
};
use support::{Recorder, command, message, target, values};

/// A player whose server, one of ours, has come as far as `play`, which ours do not offer; and what it had asked for.
fn asking(limits: Limits) -> (ClientSession, Vec<String>) {
    let mut client = ClientSession::player(target(), [4; 32], limits);
    let mut server = ServerSession::new(Limits::default(), [3; 32]);
    let mut sent = Vec::new();
    loop {
        let question = std::mem::take(client.output());
        sent.extend_from_slice(&question);
        let refused = server.feed(&question, &mut Recorder::default());
        if refused == Err(SessionError::Play) {
            break;
        }
        refused.unwrap();
        client.feed(&std::mem::take(server.output())).unwrap();
    }
    let mut reader = ChunkReader::new(&Limits::default());
    let mut rest = &sent[1 + 1536 + 1536..];
    let mut names = Vec::new();
    while let Some(said) = reader.next_message(&mut rest).unwrap() {
        if said.type_id == 20 {
            let said = values(said.payload);
            names.extend(said.first().and_then(Value::as_str).map(str::to_owned));
            if names.last().is_some_and(|name| name == "play") {
                assert_eq!(
                    said[3],
                    Value::String("test?token=1".into()),
                    "the stream with its query"
                );
            }
        }
    }
    (client, names)
}

fn status(level: &str, code: &str) -> Vec<u8> {
    let text = |text: &str| Value::String(text.into());
    let info = [("level", level), ("code", code), ("description", "words")]
        .map(|(name, value)| (name.into(), text(value)))
        .into_iter()
        .collect();
    command("onStatus", 0.0, &[Value::Null, Value::Object(info)])
}

type Media = Vec<(u8, u32, Vec<u8>)>;

fn feed(client: &mut ClientSession, bytes: &[u8]) -> Result<Media, ClientError> {
    let mut seen = Vec::new();
    client.feed_media(bytes, &mut |tag| {
        seen.push((tag.tag_type, tag.timestamp_ms, tag.body.to_vec()))
    })?;
    Ok(seen)
}

#[test]
fn a_player_asks_for_the_stream_and_hands_on_what_comes_with_its_times() {
    let (mut client, asked) = asking(Limits::default());
    assert_eq!(asked, ["connect", "createStream", "play"]);
    assert!(!client.ready());
    assert_eq!(
        feed(&mut client, &status("status", "NetStream.Play.Start")).unwrap(),
        []
    );
    assert!(client.ready() && !client.ended());
    let data = [&[2, 0, 13][..], b"@setDataFrame", &[2, 0, 10], b"onMetaData", &[5]].concat();
    let tags = [
        (9, 0xFFFF_FFF0, b"key".to_vec()),
        (8, 0xFFFF_FFFF, b"sound".to_vec()),
        (9, 4, vec![7; 90]),
    ];
    let mut bytes = message(4, 0, 18, &data);
    for (type_id, time, body) in &tags {
        bytes.extend(message(if *type_id == 9 { 6 } else { 5 }, *time, *type_id, body));
    }
    let mut expected = vec![(18, 0, data[16..].to_vec())];
    expected.extend(tags);
    for split in [1, 3, 50, bytes.len()] {
        let mut seen = Vec::new();
        for piece in bytes.chunks(split) {
            seen.extend(feed(&mut client, piece).unwrap());
        }
        assert_eq!(seen, expected, "in pieces of {split}");
    }
}

#[test]
fn an_aggregate_is_taken_apart_and_a_cut_one_is_an_error() {
    let (mut client, _) = asking(Limits::default());
    let mut body = Vec::new();
    for (tag_type, time) in [(9u8, 100u32), (8, 110)] {
        media::flv::append_tag(&mut body, tag_type, time, b"xy");
    }
    let seen = feed(&mut client, &message(6, 5_000, 22, &body)).unwrap();
    assert_eq!(seen, [(9, 5_000, b"xy".to_vec()), (8, 5_010, b"xy".to_vec())]);
    assert_eq!(
        feed(&mut client, &message(6, 6_000, 22, &body[..12])),
        Err(ClientError::Aggregate)
    );
}

#[test]
fn a_player_hears_that_the_stream_ended_or_is_not_there() {
    for code in [
        "NetStream.Play.Stop",
        "NetStream.Play.Complete",
        "NetStream.Play.UnpublishNotify",
    ] {
        let (mut client, _) = asking(Limits::default());
        feed(&mut client, &status("status", code)).unwrap();
        assert!(client.ended(), "{code}");
    }
    let (mut client, _) = asking(Limits::default());
    feed(&mut client, &message(2, 0, 4, &[0, 1, 0, 0, 0, 1])).unwrap();
    assert!(client.ended(), "StreamEOF");
    let (mut client, _) = asking(Limits::default());
    let refused = feed(&mut client, &status("error", "NetStream.Play.StreamNotFound")).unwrap_err();
    assert_eq!(refused.to_string(), "refused with NetStream.Play.StreamNotFound: words");
}

#[test]
fn a_player_acknowledges_pings_and_windows_and_is_bounded() {
    let limits = Limits {
        message_len: 1_000,
        command_len: 500,
        ..Limits::default()
    };
    let (mut client, _) = asking(limits);
    client.output().clear();
    feed(&mut client, &message(2, 0, 4, &[0, 6, 1, 2, 3, 4])).unwrap();
    assert!(client.output().ends_with(&[0, 7, 1, 2, 3, 4]), "pong");
    client.output().clear();
    feed(&mut client, &message(2, 0, 5, &400u32.to_be_bytes())).unwrap();
    for time in 0..8 {
        feed(&mut client, &message(6, time, 9, &[1; 100])).unwrap();
    }
    let mut reader = ChunkReader::new(&Limits::default());
    let output = std::mem::take(client.output());
    let mut rest = output.as_slice();
    let mut acknowledged = 0;
    while let Some(said) = reader.next_message(&mut rest).unwrap() {
        assert_eq!(said.type_id, 3);
        acknowledged += 1;
    }
    assert!((2..=4).contains(&acknowledged), "{acknowledged}");
    let long = message(6, 0, 20, &[b'x'; 100]);
    assert!(matches!(feed(&mut client, &long), Err(ClientError::Amf(_))));
    let longer = support::type_0(6, 0, 1_001, 9);
    assert!(matches!(feed(&mut client, &longer), Err(ClientError::Chunk(_))));
}
