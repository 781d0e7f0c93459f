//! Inputs that broke RTMP servers: each is sent by a real encoder or by an attacker.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use media::{
    amf::{AmfError, Value},
    rtmp::{ChunkError, Limits, ServerSession, SessionError},
};
use support::{
    Recorder, answers, basic, command_payload, message, opening_bytes, publishing, publishing_with, type_0, type_1,
    type_2,
};

fn chunk_error(result: Result<(), SessionError>) -> ChunkError {
    match result {
        Err(SessionError::Chunk(error)) => error,
        other => panic!("not a chunk error: {other:?}"),
    }
}

#[test]
fn an_audio_chunk_may_stand_within_a_video_message() {
    let (mut session, mut recorder) = publishing();
    let video: Vec<u8> = (0..200).collect();
    let mut bytes = type_0(6, 40, 200, 9);
    bytes.extend_from_slice(&video[..128]);
    bytes.extend(message(4, 41, 8, b"audio"));
    bytes.extend(basic(3, 6));
    bytes.extend_from_slice(&video[128..]);
    session.feed(&bytes, &mut recorder).unwrap();
    assert_eq!(recorder.media(), [(8, 41, b"audio".as_slice()), (9, 40, &video)]);
}

#[test]
fn a_type_3_header_that_begins_a_message_repeats_the_delta() {
    let (mut session, mut recorder) = publishing();
    let mut bytes = message(4, 1000, 8, b"a");
    bytes.extend(type_1(4, 23, 1, 8));
    bytes.push(b'b');
    for body in b"cde" {
        bytes.extend(basic(3, 4));
        bytes.push(*body);
    }
    bytes.extend(type_2(4, 24));
    bytes.push(b'f');
    bytes.extend(basic(3, 4));
    bytes.push(b'g');
    session.feed(&bytes, &mut recorder).unwrap();
    assert_eq!(recorder.times(), [1000, 1023, 1046, 1069, 1092, 1116, 1140]);
}

#[test]
fn a_type_3_header_after_an_absolute_one_repeats_it_only_where_it_can_be_a_duration() {
    for (first, second) in [
        (0, 0),
        (26, 52),
        (9_999, 19_998),
        (10_000, 10_000),
        (3_600_000, 3_600_000),
    ] {
        let (mut session, mut recorder) = publishing();
        let mut bytes = message(4, first, 8, b"a");
        bytes.extend(basic(3, 4));
        bytes.push(b'b');
        session.feed(&bytes, &mut recorder).unwrap();
        assert_eq!(recorder.times(), [first, second]);
    }
}

#[test]
fn timestamps_wrap_at_32_bits() {
    let (mut session, mut recorder) = publishing();
    let mut bytes = message(4, 0xFFFF_FFF0, 8, b"a");
    bytes.extend(type_1(4, 10, 1, 8));
    bytes.push(b'b');
    for body in b"cd" {
        bytes.extend(basic(3, 4));
        bytes.push(*body);
    }
    session.feed(&bytes, &mut recorder).unwrap();
    assert_eq!(recorder.times(), [0xFFFF_FFF0, 0xFFFF_FFFA, 4, 14]);
}

#[test]
fn a_negative_delta_is_a_large_one() {
    let (mut session, mut recorder) = publishing();
    let mut bytes = message(4, 1000, 8, b"a");
    bytes.extend(type_1(4, 7_u32.wrapping_neg(), 1, 8));
    bytes.push(b'b');
    session.feed(&bytes, &mut recorder).unwrap();
    assert_eq!(recorder.times(), [1000, 993]);
}

/// 300 bytes at 16777215 ms or later, in chunks of 128.
fn late_message(time: u32, repeated: bool) -> (Vec<u8>, Vec<u8>) {
    let body: Vec<u8> = (0..300_u32).map(|byte| byte.to_le_bytes()[0]).collect();
    let mut bytes = type_0(6, time, 300, 9);
    for (index, chunk) in body.chunks(128).enumerate() {
        if index > 0 {
            bytes.extend(basic(3, 6));
            if repeated {
                bytes.extend_from_slice(&time.to_be_bytes());
            }
        }
        bytes.extend_from_slice(chunk);
    }
    (bytes, body)
}

#[test]
fn extended_timestamps_may_or_may_not_be_repeated_on_type_3_chunks() {
    for time in [0xFF_FFFF, 0x0100_0000, 0xFFFF_FFFF] {
        for repeated in [true, false] {
            for piece_len in [1, 2, 3, 5, 1000] {
                let (mut session, mut recorder) = publishing();
                let (bytes, body) = late_message(time, repeated);
                for piece in bytes.chunks(piece_len) {
                    session.feed(piece, &mut recorder).unwrap();
                }
                assert_eq!(
                    recorder.media(),
                    [(9, time, body.as_slice())],
                    "{time} {repeated} {piece_len}"
                );
            }
        }
    }
}

#[test]
fn a_payload_that_begins_like_the_timestamp_is_still_told_apart() {
    // The last chunk's payload is the first two bytes of the timestamp that is not repeated; only the chunk behind
    // it tells. It is a whole message of another chunk stream.
    let time = 0x0104_0000_u32;
    let mut body = vec![7; 128];
    body.extend_from_slice(&[0x01, 0x04]);
    let mut bytes = type_0(6, time, 130, 9);
    bytes.extend_from_slice(&body[..128]);
    bytes.extend(basic(3, 6));
    bytes.extend_from_slice(&body[128..]);
    bytes.extend(message(4, 5, 8, b"next"));
    for piece_len in 1..20 {
        let (mut session, mut recorder) = publishing();
        for piece in bytes.chunks(piece_len) {
            session.feed(piece, &mut recorder).unwrap();
        }
        assert_eq!(
            recorder.media(),
            [(9, time, body.as_slice()), (8, 5, b"next")],
            "pieces of {piece_len}"
        );
    }
}

#[test]
fn the_first_header_of_a_chunk_stream_may_be_of_type_1() {
    let (mut session, mut recorder) = publishing();
    let mut bytes = type_1(7, 40, 1, 9);
    bytes.push(b'a');
    bytes.extend(basic(3, 7));
    bytes.push(b'b');
    session.feed(&bytes, &mut recorder).unwrap();
    assert_eq!(recorder.media(), [(9, 40, b"a".as_slice()), (9, 80, b"b")]);
}

#[test]
fn the_first_header_of_a_chunk_stream_must_say_the_length() {
    for (format, header) in [(2, type_2(7, 40)), (3, basic(3, 7))] {
        let (mut session, mut recorder) = publishing();
        let error = chunk_error(session.feed(&header, &mut recorder));
        assert_eq!(error, ChunkError::NoHeader { csid: 7, format });
        assert_eq!(error.kind(), "chunk_without_header");
    }
}

#[test]
fn a_window_of_0_is_no_window() {
    let (mut session, mut recorder) = publishing();
    session.feed(&message(2, 0, 5, &[0; 4]), &mut recorder).unwrap();
    for _ in 0..100 {
        session.feed(&message(4, 0, 8, &[1; 100]), &mut recorder).unwrap();
    }
    assert!(answers(&mut session).is_empty());
    assert_eq!(recorder.media().len(), 100);
}

#[test]
fn a_connection_that_says_nothing_costs_nothing() {
    let mut session = ServerSession::new(Limits::default(), [0; 32]);
    assert_eq!(session.feed(&[], &mut Recorder::default()), Ok(()));
    assert!(session.output().is_empty());
    assert_eq!(session.memory_bytes(), 0);
}

#[test]
fn a_connection_may_end_anywhere() {
    let opening = opening_bytes();
    for end in (0..opening.len()).step_by(7) {
        let mut session = ServerSession::new(Limits::default(), [0; 32]);
        assert_eq!(
            session.feed(&opening[..end], &mut Recorder::default()),
            Ok(()),
            "up to {end}"
        );
    }
}

/// `connect` whose object nests this deep.
fn nested_connect(depth: usize) -> Vec<u8> {
    let mut payload = command_payload("connect", 1.0, &[]);
    for _ in 0..depth {
        payload.extend_from_slice(b"\x03\x00\x01a");
    }
    payload
}

/// A message as chunks of 128 bytes on chunk stream 3.
fn chunked(type_id: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = type_0(3, 0, u32::try_from(payload.len()).unwrap(), type_id);
    for (index, chunk) in payload.chunks(128).enumerate() {
        if index > 0 {
            bytes.extend(basic(3, 3));
        }
        bytes.extend_from_slice(chunk);
    }
    bytes
}

#[test]
fn a_command_nested_10000_deep_is_refused() {
    let handshake = &opening_bytes()[..3073];
    for depth in [40, 10_000, 100_000] {
        let mut session = ServerSession::new(
            Limits {
                command_len: 1 << 20,
                ..Limits::default()
            },
            [0; 32],
        );
        session.feed(handshake, &mut Recorder::default()).unwrap();
        let result = session.feed(&chunked(20, &nested_connect(depth)), &mut Recorder::default());
        assert_eq!(result, Err(SessionError::Amf(AmfError::Depth)), "{depth} deep");
    }
    let mut session = ServerSession::new(Limits::default(), [0; 32]);
    session.feed(handshake, &mut Recorder::default()).unwrap();
    let error = session
        .feed(&chunked(20, &nested_connect(100_000)), &mut Recorder::default())
        .unwrap_err();
    assert_eq!(error.kind(), "command_too_long");
}

#[test]
fn metadata_nested_10000_deep_is_passed_on_unread() {
    let (mut session, mut recorder) = publishing();
    let mut payload = Vec::new();
    Value::String("onMetaData".into()).encode(&mut payload);
    payload.extend(b"\x03\x00\x01a".repeat(10_000));
    session.feed(&chunked(18, &payload), &mut recorder).unwrap();
    session
        .feed(&chunked(15, &[&[0], payload.as_slice()].concat()), &mut recorder)
        .unwrap();
    assert_eq!(recorder.media(), [(18, 0, payload.as_slice()), (18, 0, &payload)]);
}

#[test]
fn announcing_16_mib_on_3000_chunk_streams_is_refused_and_reserves_little() {
    let announce = |csid: u16| {
        let mut bytes = vec![1];
        bytes.extend_from_slice(&(csid - 64).to_le_bytes());
        bytes.extend_from_slice(&type_0(3, 0, 0xFF_FFFF, 9)[1..]);
        bytes.extend_from_slice(&[9; 128]);
        bytes
    };
    let (mut session, mut recorder) = publishing();
    let error = (1000..4000).find_map(|csid| session.feed(&announce(csid), &mut recorder).err());
    assert_eq!(error, Some(SessionError::Chunk(ChunkError::ChunkStreams { limit: 64 })));
    assert!(session.memory_bytes() < 2 << 20, "{} bytes", session.memory_bytes());

    let (mut session, mut recorder) = publishing_with(Limits {
        chunk_streams: 4000,
        ..Limits::default()
    });
    let all: Vec<u8> = (1000..4000).flat_map(announce).collect();
    session.feed(&all, &mut recorder).unwrap();
    assert_eq!(session.partial_bytes(), 3000 * 128);
    assert!(session.memory_bytes() < 64 << 20, "{} bytes", session.memory_bytes());
}

#[test]
fn incomplete_messages_together_are_limited() {
    let (mut session, mut recorder) = publishing_with(Limits {
        partial_bytes: 1000,
        ..Limits::default()
    });
    let announce = |csid| [type_0(csid, 0, 300, 9), vec![9; 128]].concat();
    for csid in 10..17 {
        session.feed(&announce(csid), &mut recorder).unwrap();
    }
    assert_eq!(session.partial_bytes(), 7 * 128);
    let error = chunk_error(session.feed(&announce(17), &mut recorder));
    assert_eq!(
        (error, error.kind()),
        (ChunkError::PartialBytes { limit: 1000 }, "too_many_partial_bytes")
    );
}

#[test]
fn chunk_sizes_of_0_and_from_2_31_on_are_refused_and_no_others() {
    for size in [0, 1 << 31, u32::MAX] {
        let (mut session, mut recorder) = publishing();
        let error = chunk_error(session.feed(&message(2, 0, 1, &size.to_be_bytes()), &mut recorder));
        assert_eq!((error, error.kind()), (ChunkError::ChunkSize(size), "chunk_size"));
    }
    for size in [1, 65_536, 0xFF_FFFF, 0x7FFF_FFFF_u32] {
        let (mut session, mut recorder) = publishing();
        session
            .feed(&message(2, 0, 1, &size.to_be_bytes()), &mut recorder)
            .unwrap();
        let mut bytes = type_0(6, 0, 3, 9);
        bytes.push(b'a');
        for byte in b"bc" {
            if size == 1 {
                bytes.extend(basic(3, 6));
            }
            bytes.push(*byte);
        }
        session.feed(&bytes, &mut recorder).unwrap();
        assert_eq!(recorder.media(), [(9, 0, b"abc".as_slice())]);
    }
}

#[test]
fn a_message_beyond_the_limit_is_refused_by_its_header() {
    let (mut session, mut recorder) = publishing_with(Limits {
        message_len: 1000,
        ..Limits::default()
    });
    session.feed(&chunked(9, &[1; 1000]), &mut recorder).unwrap();
    let error = chunk_error(session.feed(&type_0(6, 0, 1001, 9), &mut recorder));
    assert_eq!(
        (error, error.kind()),
        (ChunkError::MessageLen { len: 1001, limit: 1000 }, "message_too_long")
    );
}

#[test]
fn a_never_ending_header_is_bounded() {
    let (mut session, mut recorder) = publishing();
    for byte in type_0(6, u32::MAX, 1, 9) {
        session.feed(&[byte], &mut recorder).unwrap();
        assert!(session.memory_bytes() < 4096);
    }
    session.feed(&[7], &mut recorder).unwrap();
    assert_eq!(recorder.media(), [(9, u32::MAX, [7].as_slice())]);
}

#[test]
fn a_message_may_not_begin_within_another() {
    let (mut session, mut recorder) = publishing();
    session
        .feed(&[type_0(6, 0, 200, 9), vec![1; 128]].concat(), &mut recorder)
        .unwrap();
    let error = chunk_error(session.feed(&type_0(6, 0, 200, 9), &mut recorder));
    assert_eq!(
        (error, error.kind()),
        (ChunkError::Interrupted { csid: 6 }, "message_interrupted")
    );
}

#[test]
fn an_aborted_message_is_forgotten() {
    let (mut session, mut recorder) = publishing();
    session
        .feed(&[type_0(6, 0, 200, 9), vec![1; 128]].concat(), &mut recorder)
        .unwrap();
    session
        .feed(&message(2, 0, 2, &6_u32.to_be_bytes()), &mut recorder)
        .unwrap();
    assert_eq!(session.partial_bytes(), 0);
    session
        .feed(&message(2, 0, 2, &99_u32.to_be_bytes()), &mut recorder)
        .unwrap();
    session.feed(&message(6, 7, 9, b"new"), &mut recorder).unwrap();
    assert_eq!(recorder.media(), [(9, 7, b"new".as_slice())]);
}

#[test]
fn control_messages_cut_short_are_refused() {
    for type_id in [1, 2, 4, 5] {
        let (mut session, mut recorder) = publishing();
        let error = session.feed(&message(2, 0, type_id, &[0]), &mut recorder).unwrap_err();
        assert_eq!(error.kind(), "control_malformed");
    }
}

#[test]
fn messages_without_a_payload_are_messages() {
    for piece_len in [1, 100] {
        let (mut session, mut recorder) = publishing();
        let bytes = [type_0(6, 5, 0, 9), basic(3, 6), message(4, 6, 8, b"a")].concat();
        for piece in bytes.chunks(piece_len) {
            session.feed(piece, &mut recorder).unwrap();
        }
        assert_eq!(recorder.media(), [(9, 5, b"".as_slice()), (9, 10, b""), (8, 6, b"a")]);
    }
}

#[test]
fn every_form_of_chunk_stream_id_is_read() {
    for basic in [
        vec![2],
        vec![63],
        vec![0, 0],
        vec![0, 255],
        vec![1, 0, 1],
        vec![1, 255, 255],
    ] {
        let (mut session, mut recorder) = publishing();
        let bytes = [basic, message(3, 5, 9, b"a")[1..].to_vec()].concat();
        session.feed(&bytes, &mut recorder).unwrap();
        assert_eq!(recorder.media(), [(9, 5, b"a".as_slice())]);
    }
}

#[test]
fn an_idle_session_holds_little_memory_also_after_a_large_picture() {
    let (mut session, mut recorder) = publishing();
    let picture = vec![5; 1 << 20];
    let bytes = chunked(9, &picture);
    let (front, back) = bytes.split_at(bytes.len() / 2);
    session.feed(front, &mut recorder).unwrap();
    assert!(session.memory_bytes() >= 1 << 19, "half a picture is held");
    session.feed(back, &mut recorder).unwrap();
    assert_eq!(recorder.media(), [(9, 0, picture.as_slice())]);
    session.output().clear();
    session.feed(&[], &mut recorder).unwrap();
    let idle = session.memory_bytes() + size_of::<ServerSession>();
    assert!(idle <= 2048, "{idle} bytes");
    println!("an idle session holds {idle} bytes");
}
