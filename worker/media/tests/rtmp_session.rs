//! The conversation of a server session: handshakes, commands, data, answers.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use media::{
    amf::Value,
    rtmp::{
        ClientError, ClientSession, HandshakeForm, Limits, MediaTag, PublishTarget, ServerSession, SessionError,
        Unpublish,
    },
};
use support::{
    Event, Recorder, answers, code, command, command_answers, command_payload, converse, message, opening_bytes,
    publishing, publishing_with, target,
};

const HANDSHAKE_LEN: usize = 1 + 1536 + 1536;

fn text(text: &str) -> Value {
    Value::String(text.into())
}

/// A session behind the handshake, not connected.
fn open() -> ServerSession {
    let mut session = ServerSession::new(Limits::default(), [3; 32]);
    session
        .feed(&opening_bytes()[..HANDSHAKE_LEN], &mut Recorder::default())
        .unwrap();
    session.output().clear();
    session
}

#[test]
fn a_client_publishes_with_every_form_of_handshake() {
    for handshake in [
        HandshakeForm::Plain,
        HandshakeForm::DigestFirst,
        HandshakeForm::DigestSecond,
    ] {
        for seed in 0..20 {
            let mut client = ClientSession::new(PublishTarget { handshake, ..target() }, [seed; 32]);
            let mut server = ServerSession::new(Limits::default(), [seed + 100; 32]);
            let mut recorder = Recorder::default();
            converse(&mut client, &mut server, &mut recorder).unwrap();
            assert!(client.ready(), "{handshake:?}");
            client
                .send(MediaTag {
                    tag_type: 9,
                    timestamp_ms: 40,
                    body: &[7; 9000],
                })
                .unwrap();
            client.unpublish().unwrap();
            converse(&mut client, &mut server, &mut recorder).unwrap();
            assert!(!server.publishing());
            let Event::Publish(request) = &recorder.events[0] else {
                panic!("no publish")
            };
            assert_eq!((request.app.as_str(), request.stream.as_str()), ("live", "test"));
            assert_eq!(
                (request.params.as_str(), request.publish_type.as_str()),
                ("token=1", "live")
            );
            assert_eq!(request.domain.as_deref(), Some("push.example.com"));
            assert_eq!(request.flash_ver, "test/1.0");
            assert_eq!(recorder.media(), [(9, 40, [7; 9000].as_slice())]);
            assert_eq!(recorder.events[2], Event::Unpublish(Unpublish::FcUnpublish));
        }
    }
}

#[test]
fn c2_may_say_anything_and_be_followed_at_once() {
    let opening = opening_bytes();
    let (hello, rest) = opening.split_at(1 + 1536);
    let bytes = [hello, &[0xEE; 1536], &rest[1536..]].concat();
    let (mut session, mut recorder) = (ServerSession::new(Limits::default(), [3; 32]), Recorder::default());
    session.feed(&bytes, &mut recorder).unwrap();
    assert!(session.publishing());
}

#[test]
fn the_handshake_is_answered_before_c2_comes() {
    let (mut session, mut recorder) = (ServerSession::new(Limits::default(), [3; 32]), Recorder::default());
    let hello = &opening_bytes()[..1 + 1536];
    session.feed(&hello[..1536], &mut recorder).unwrap();
    assert!(session.output().is_empty());
    session.feed(&hello[1536..], &mut recorder).unwrap();
    let output = session.output();
    assert_eq!((output.len(), output[0]), (HANDSHAKE_LEN, 3));
    assert_eq!(output[1 + 1536..], hello[1..], "S2 echoes a plain C1");
}

#[test]
fn other_protocols_are_refused_by_name_at_the_first_byte() {
    for (first, kind, words) in [
        (b'G', "not_rtmp", "not RTMP: looks like HTTP or other text"),
        (0x16, "not_rtmp", "not RTMP: looks like TLS"),
        (0xFF, "not_rtmp", "not RTMP: unknown first byte"),
        (2, "version", "RTMP version 2, only 3 is spoken"),
        (31, "version", "RTMP version 31, only 3 is spoken"),
        (6, "encrypted", "encrypted RTMP (version 6) is not spoken: use RTMPS"),
    ] {
        let mut session = ServerSession::new(Limits::default(), [0; 32]);
        let error = session.feed(&[first], &mut Recorder::default()).unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (kind, words));
        assert_eq!(
            session.feed(&[3], &mut Recorder::default()),
            Err(error),
            "an ended session stays so"
        );
    }
}

#[test]
fn connect_is_answered_with_what_we_take() {
    let mut session = open();
    let object = vec![
        ("app".into(), text("live")),
        ("objectEncoding".into(), Value::Number(3.0)),
    ];
    session
        .feed(
            &command("connect", 1.0, &[Value::Object(object)]),
            &mut Recorder::default(),
        )
        .unwrap();
    let messages = answers(&mut session);
    let kinds: Vec<u8> = messages.iter().map(|message| message.0).collect();
    assert_eq!(kinds, [5, 6, 20], "window, bandwidth (and chunk size), result");
    assert_eq!(messages[0].2, 2_500_000_u32.to_be_bytes());
    let result = support::values(&messages[2].2);
    assert_eq!(result[..2], [text("_result"), Value::Number(1.0)]);
    let fourcc = ["avc1", "hvc1", "mp4a", ".mp3"].map(text);
    assert_eq!(result[2].get("fourCcList"), Some(&Value::StrictArray(fourcc.to_vec())));
    let hevc = result[2].get("videoFourCcInfoMap").and_then(|map| map.get("hvc1"));
    assert_eq!(hevc, Some(&Value::Number(4.0)), "can forward");
    assert_eq!(result[2].get("capsEx"), Some(&Value::Number(1.0)), "reconnect requests");
    assert_eq!(code(&result), Some("NetConnection.Connect.Success"));
    assert_eq!(result[3].get("objectEncoding"), Some(&Value::Number(3.0)));

    session
        .feed(&command("connect", 2.0, &[]), &mut Recorder::default())
        .unwrap();
    assert_eq!(
        code(&command_answers(&mut session)[0]),
        Some("NetConnection.Connect.Rejected")
    );
}

#[test]
fn a_client_that_can_is_asked_to_connect_again() {
    for (caps, asked) in [
        (None, false),
        (Some(0.0), false),
        (Some(2.0), false),
        (Some(1.0), true),
        (Some(15.0), true),
    ] {
        let mut session = open();
        assert!(!session.ask_to_reconnect("not connected yet"));
        let mut object = vec![("app".into(), text("live"))];
        object.extend(caps.map(|caps| ("capsEx".into(), Value::Number(caps))));
        session
            .feed(
                &command("connect", 1.0, &[Value::Object(object)]),
                &mut Recorder::default(),
            )
            .unwrap();
        session.output().clear();
        assert_eq!(session.ask_to_reconnect("moving"), asked, "{caps:?}");
        assert_eq!(session.output().is_empty(), !asked);
        if asked {
            let messages = answers(&mut session);
            assert_eq!(
                (messages[0].0, messages[0].1),
                (20, 0),
                "a command of the connection's own stream"
            );
            let status = support::values(&messages[0].2);
            assert_eq!(status[..3], [text("onStatus"), Value::Number(0.0), Value::Null]);
            assert_eq!(code(&status), Some("NetConnection.Connect.ReconnectRequest"));
            assert_eq!(status[3].get("level"), Some(&text("status")));
            assert_eq!(status[3].get("description"), Some(&text("moving")));
            assert_eq!(status[3].get("tcUrl"), None, "where it came from");
        }
    }
}

#[test]
fn commands_of_encoders_are_answered_with_their_transaction() {
    let (mut session, mut recorder) = publishing();
    for name in [
        "releaseStream",
        "FCPublish",
        "_checkbw",
        "getStreamLength",
        "createStream",
    ] {
        session
            .feed(&command(name, 9.0, &[Value::Null, text("x")]), &mut recorder)
            .unwrap();
        let answer = &command_answers(&mut session)[0];
        assert_eq!(
            answer[..3],
            [text("_result"), Value::Number(9.0), Value::Null],
            "{name}"
        );
        assert_eq!(answer.len(), 4);
    }
    session
        .feed(&command("FCPublish", 0.0, &[Value::Null]), &mut recorder)
        .unwrap();
    assert!(answers(&mut session).is_empty(), "transaction 0 wants no answer");
}

#[test]
fn unknown_commands_get_an_error_and_nothing_else_happens() {
    let (mut session, mut recorder) = publishing();
    session
        .feed(&command("selfDestruct", 7.0, &[Value::Null]), &mut recorder)
        .unwrap();
    let answer = &command_answers(&mut session)[0];
    assert_eq!(answer[..2], [text("_error"), Value::Number(7.0)]);
    assert_eq!(code(answer), Some("NetConnection.Call.Failed"));
    for (name, transaction) in [
        ("selfDestruct", 0.0),
        ("_result", 3.0),
        ("_error", 3.0),
        ("onStatus", 0.0),
    ] {
        session.feed(&command(name, transaction, &[]), &mut recorder).unwrap();
        assert!(answers(&mut session).is_empty(), "{name}");
    }
    assert!(session.publishing());
}

#[test]
fn each_stream_gets_its_own_id() {
    let (mut session, mut recorder) = publishing();
    for id in [2.0, 3.0] {
        session
            .feed(&command("createStream", 4.0, &[Value::Null]), &mut recorder)
            .unwrap();
        assert_eq!(command_answers(&mut session)[0][3], Value::Number(id));
    }
}

#[test]
fn publish_needs_a_connection_and_a_name() {
    let mut session = open();
    let result = session.feed(
        &command("publish", 5.0, &[Value::Null, text("x")]),
        &mut Recorder::default(),
    );
    assert_eq!(result, Err(SessionError::NotConnected));
    let mut session = open();
    let result = session.feed(
        &command("publish", 5.0, &[Value::Null, Value::Null]),
        &mut Recorder::default(),
    );
    assert_eq!(result, Err(SessionError::PublishName));
}

#[test]
fn a_publish_is_accepted_on_its_message_stream() {
    let mut session = ServerSession::new(Limits::default(), [3; 32]);
    session.feed(&opening_bytes(), &mut Recorder::default()).unwrap();
    session.output().drain(..HANDSHAKE_LEN);
    let messages = answers(&mut session);
    let [.., begin, status] = messages.as_slice() else {
        panic!("too few answers")
    };
    assert_eq!(*begin, (4, 0, vec![0, 0, 0, 0, 0, 1]), "StreamBegin 1");
    assert_eq!((status.0, status.1), (20, 1));
    let status = support::values(&status.2);
    assert_eq!(status[..3], [text("onStatus"), Value::Number(0.0), Value::Null]);
    assert_eq!(code(&status), Some("NetStream.Publish.Start"));
}

#[test]
fn a_refused_publisher_is_told_why() {
    let mut client = ClientSession::new(target(), [1; 32]);
    let mut server = ServerSession::new(Limits::default(), [2; 32]);
    let mut recorder = Recorder {
        refuse: Some(("NetStream.Publish.BadName", "in use")),
        ..Recorder::default()
    };
    let error = converse(&mut client, &mut server, &mut recorder).unwrap_err();
    assert_eq!(
        error,
        SessionError::Refused {
            code: "NetStream.Publish.BadName"
        }
    );
    assert_eq!(error.kind(), "publish_refused");
    assert!(!server.publishing() && !client.ready());

    let mut client = ClientSession::new(target(), [1; 32]);
    let mut server = ServerSession::new(Limits::default(), [2; 32]);
    let mut recorder = Recorder {
        refuse: Some(("NetStream.Publish.Denied", "bad key")),
        ..Recorder::default()
    };
    let refusal = loop {
        let ended = server.feed(&std::mem::take(client.output()), &mut recorder).is_err();
        let result = client.feed(&std::mem::take(server.output()));
        if ended {
            break result.unwrap_err();
        }
        result.unwrap();
    };
    let (code, description) = ("NetStream.Publish.Denied".into(), "bad key".into());
    assert_eq!(refusal, ClientError::Refused { code, description });
}

#[test]
fn a_publish_can_be_ended_by_the_caller() {
    let (mut session, mut recorder) = publishing();
    session.refuse("NetStream.Publish.Denied", "stream is live elsewhere");
    assert!(!session.publishing());
    assert_eq!(
        code(&command_answers(&mut session)[0]),
        Some("NetStream.Publish.Denied")
    );
    session.feed(&message(4, 0, 8, b"late"), &mut recorder).unwrap();
    assert_eq!((recorder.events.len(), session.stray_messages()), (0, 1));
}

#[test]
fn one_connection_publishes_one_stream_at_a_time() {
    let (mut session, mut recorder) = publishing();
    let publish = command("publish", 5.0, &[Value::Null, text("other?a=b"), text("record")]);
    session.feed(&publish, &mut recorder).unwrap();
    assert_eq!(
        code(&command_answers(&mut session)[0]),
        Some("NetStream.Publish.BadConnection")
    );
    assert!(recorder.events.is_empty() && session.publishing());

    let delete = command("deleteStream", 0.0, &[Value::Null, Value::Number(1.0)]);
    session.feed(&delete, &mut recorder).unwrap();
    assert_eq!(
        code(&command_answers(&mut session)[0]),
        Some("NetStream.Unpublish.Success")
    );
    session.feed(&message(4, 0, 8, b"between"), &mut recorder).unwrap();
    session.feed(&publish, &mut recorder).unwrap();
    session.feed(&message(4, 0, 8, b"second"), &mut recorder).unwrap();
    let [
        Event::Unpublish(Unpublish::DeleteStream),
        Event::Publish(request),
        Event::Media { body, .. },
    ] = recorder.events.as_slice()
    else {
        panic!("{:?}", recorder.events)
    };
    assert_eq!((request.stream.as_str(), request.params.as_str()), ("other", "a=b"));
    assert_eq!(request.publish_type, "record");
    assert_eq!(body, b"second");
    assert_eq!(session.stray_messages(), 1);
}

#[test]
fn only_the_publish_meant_is_ended() {
    for (name, argument) in [("deleteStream", Value::Number(2.0)), ("FCUnpublish", text("other"))] {
        let (mut session, mut recorder) = publishing();
        session
            .feed(&command(name, 0.0, &[Value::Null, argument]), &mut recorder)
            .unwrap();
        assert!(session.publishing() && recorder.events.is_empty(), "{name}");
    }
    for (name, arguments, why) in [
        ("deleteStream", vec![], Unpublish::DeleteStream),
        (
            "deleteStream",
            vec![Value::Null, Value::Number(1.0)],
            Unpublish::DeleteStream,
        ),
        ("closeStream", vec![Value::Null], Unpublish::CloseStream),
        ("FCUnpublish", vec![Value::Null], Unpublish::FcUnpublish),
        ("FCUnpublish", vec![Value::Null, text("test")], Unpublish::FcUnpublish),
        (
            "FCUnpublish",
            vec![Value::Null, text("test?token=1")],
            Unpublish::FcUnpublish,
        ),
    ] {
        let (mut session, mut recorder) = publishing();
        session.feed(&command(name, 0.0, &arguments), &mut recorder).unwrap();
        session.feed(&command(name, 0.0, &arguments), &mut recorder).unwrap();
        assert!(!session.publishing());
        assert_eq!(recorder.events, [Event::Unpublish(why)], "{name} once");
    }
}

#[test]
fn a_publish_on_the_connections_own_stream_is_ended_too() {
    let mut session = open();
    let mut recorder = Recorder::default();
    session
        .feed(&command("connect", 1.0, &[Value::Object(vec![])]), &mut recorder)
        .unwrap();
    let publish = support::message_on(0, 8, 20, &command_payload("publish", 5.0, &[Value::Null, text("x")]));
    session.feed(&publish, &mut recorder).unwrap();
    session
        .feed(
            &command("deleteStream", 0.0, &[Value::Null, Value::Number(1.0)]),
            &mut recorder,
        )
        .unwrap();
    assert_eq!(recorder.events.last(), Some(&Event::Unpublish(Unpublish::DeleteStream)));
}

#[test]
fn a_player_is_told_that_there_is_nothing_to_play() {
    let mut session = open();
    let result = session.feed(
        &command("play", 4.0, &[Value::Null, text("x")]),
        &mut Recorder::default(),
    );
    assert_eq!(result, Err(SessionError::Play));
    assert_eq!(code(&command_answers(&mut session)[0]), Some("NetStream.Play.Failed"));
}

#[test]
fn data_is_handed_on_without_the_request_to_store_it() {
    let values = |values: &[Value]| {
        let mut payload = Vec::new();
        values.iter().for_each(|value| value.encode(&mut payload));
        payload
    };
    let metadata = Value::EcmaArray(vec![("width".into(), Value::Number(64.0))]);
    let stored = values(&[text("onMetaData"), metadata.clone()]);
    let cases = [
        (
            values(&[text("@setDataFrame"), text("onMetaData"), metadata]),
            Some(stored.clone()),
        ),
        (stored.clone(), Some(stored)),
        (
            values(&[text("onTextData"), text("hello")]),
            Some(values(&[text("onTextData"), text("hello")])),
        ),
        (
            values(&[text("onCaption"), Value::Null]),
            Some(values(&[text("onCaption"), Value::Null])),
        ),
        (values(&[text("@clearDataFrame"), text("onMetaData")]), None),
        (vec![], Some(vec![])),
        (vec![0xFF, 1], Some(vec![0xFF, 1])),
    ];
    for (sent, handed_on) in cases {
        let (mut session, mut recorder) = publishing();
        session.feed(&message(5, 3, 18, &sent), &mut recorder).unwrap();
        let with_selector = [&[0], sent.as_slice()].concat();
        session.feed(&message(5, 4, 15, &with_selector), &mut recorder).unwrap();
        let expected: Vec<(u8, u32, &[u8])> = handed_on
            .iter()
            .flat_map(|body| [(18, 3, body.as_slice()), (18, 4, body)])
            .collect();
        assert_eq!(recorder.media(), expected, "{sent:02x?}");
    }
}

#[test]
fn amf3_data_is_converted_and_amf3_commands_are_read() {
    let (mut session, mut recorder) = publishing();
    // onTextData and, in AMF3, an object {text: "hi", n: -2} with a sealed and a dynamic field.
    let mut payload = vec![0];
    text("onTextData").encode(&mut payload);
    payload.extend_from_slice(b"\x11\x0A\x1B\x01\x09text\x06\x05hi\x03n\x04\xFF\xFF\xFF\xFE\x01");
    session.feed(&message(5, 3, 15, &payload), &mut recorder).unwrap();
    let values = support::values(recorder.media()[0].2);
    let fields = vec![("text".into(), text("hi")), ("n".into(), Value::Number(-2.0))];
    assert_eq!(values, [text("onTextData"), Value::Object(fields)]);

    let delete = command_payload("deleteStream", 0.0, &[Value::Null, Value::Number(1.0)]);
    session
        .feed(&message(8, 0, 17, &[&[0], delete.as_slice()].concat()), &mut recorder)
        .unwrap();
    assert!(!session.publishing());

    let (mut session, mut recorder) = publishing();
    session.feed(&message(8, 0, 17, &delete), &mut recorder).unwrap();
    assert!(!session.publishing(), "the format selector may be missing");
}

#[test]
fn an_aggregate_is_taken_apart_and_its_times_count_from_the_first() {
    let tag = |tag_type: u8, time: u32, body: &[u8]| {
        let [t0, t1, t2, t3] = time.to_be_bytes();
        let len = u8::try_from(body.len()).unwrap();
        [
            &[tag_type, 0, 0, len, t1, t2, t3, t0, 0, 0, 0],
            body,
            &[0, 0, 0, len + 11],
        ]
        .concat()
    };
    let data = [
        &tag(8, 0x0100_0000, b"a"),
        &tag(9, 0x0100_0010, b"v"),
        &tag(18, 0x0100_0020, b"s")[..],
    ]
    .concat();
    for cut in [0, 4] {
        let (mut session, mut recorder) = publishing();
        session
            .feed(&message(6, 5000, 22, &data[..data.len() - cut]), &mut recorder)
            .unwrap();
        assert_eq!(
            recorder.media(),
            [(8, 5000, b"a".as_slice()), (9, 5016, b"v"), (18, 5032, b"s")]
        );
    }
    let (mut session, mut recorder) = publishing();
    let result = session.feed(&message(6, 5000, 22, &data[..data.len() - 5]), &mut recorder);
    assert_eq!(result, Err(SessionError::Aggregate));
    assert_eq!(recorder.times(), [5000, 5016]);
}

#[test]
fn media_outside_a_publish_is_counted_and_not_handed_on() {
    let mut session = open();
    let mut recorder = Recorder::default();
    session.feed(&message(4, 0, 8, b"early"), &mut recorder).unwrap();
    session.feed(&message(6, 0, 9, b"early"), &mut recorder).unwrap();
    assert_eq!((recorder.events.len(), session.stray_messages()), (0, 2));
}

#[test]
fn pings_are_answered() {
    let (mut session, mut recorder) = publishing();
    session
        .feed(&message(2, 0, 4, &[0, 6, 1, 2, 3, 4]), &mut recorder)
        .unwrap();
    session
        .feed(&message(2, 0, 4, &[0, 3, 0, 0, 0, 1, 0, 0, 3, 232]), &mut recorder)
        .unwrap();
    assert_eq!(answers(&mut session), [(4, 0, vec![0, 7, 1, 2, 3, 4])]);
    assert!(session.feed(&message(2, 0, 4, &[0, 6, 1]), &mut recorder).is_err());
}

#[test]
fn what_came_is_acknowledged_once_for_each_window() {
    let (mut session, mut recorder) = publishing();
    session
        .feed(&message(2, 0, 5, &1000_u32.to_be_bytes()), &mut recorder)
        .unwrap();
    let mut acknowledged = Vec::new();
    answers(&mut session);
    for _ in 0..100 {
        session.feed(&message(4, 0, 8, &[1; 88]), &mut recorder).unwrap();
        for (type_id, stream_id, payload) in answers(&mut session) {
            assert_eq!((type_id, stream_id), (3, 0));
            acknowledged.push(u64::from(u32::from_be_bytes(payload.try_into().unwrap())));
        }
    }
    assert_eq!(acknowledged.len(), 10, "10 kB in windows of 1 kB");
    assert!(acknowledged.windows(2).all(|pair| pair[1] - pair[0] == 1000));
    assert_eq!(acknowledged.last(), Some(&session.bytes_received()));
}

#[test]
fn a_client_that_does_not_read_its_answers_is_let_go() {
    let (mut session, mut recorder) = publishing_with(Limits {
        output_bytes: 10_000,
        ..Limits::default()
    });
    let ping = message(2, 0, 4, &[0, 6, 1, 2, 3, 4]);
    let error = (0..10_000).find_map(|_| session.feed(&ping, &mut recorder).err());
    assert_eq!(error, Some(SessionError::OutputFull { limit: 10_000 }));
    assert!(session.output().len() < 10_100);
}

#[test]
fn unknown_messages_are_ignored() {
    let (mut session, mut recorder) = publishing();
    for type_id in [0, 3, 6, 7, 16, 19, 21, 23, 255] {
        session.feed(&message(9, 0, type_id, b"?"), &mut recorder).unwrap();
    }
    assert!(recorder.events.is_empty() && answers(&mut session).is_empty());
}

#[test]
fn commands_that_are_none_end_the_session() {
    for (payload, kind) in [
        (vec![], "command_malformed"),
        (vec![5], "command_malformed"),
        (vec![2, 0, 9, b'c'], "amf"),
        (vec![0x42], "amf"),
    ] {
        let (mut session, mut recorder) = publishing();
        let error = session.feed(&message(3, 0, 20, &payload), &mut recorder).unwrap_err();
        assert_eq!(error.kind(), kind);
    }
}
