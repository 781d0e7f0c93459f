//! What real encoders sent, byte by byte, replayed in several splits. `examples/rtmp_capture.rs` made the captures of
//! one clip of 2 s, 20 pictures and 88 audio frames, pushed by FFmpeg 5.1 and 9.0, GStreamer 1.22's `rtmp2sink` and
//! librtmp 2.4.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use media::rtmp::{Handler, Limits, MediaTag, PublishRequest, ServerSession, Unpublish, Verdict};

#[derive(Debug, Clone, PartialEq, Eq)]
enum Event {
    Publish(PublishRequest),
    Media {
        tag_type: u8,
        timestamp_ms: u32,
        body: Vec<u8>,
    },
    Unpublish(Unpublish),
}

#[derive(Default)]
struct Recorder(Vec<Event>);

impl Handler for Recorder {
    fn on_publish(&mut self, request: &PublishRequest) -> Verdict {
        self.0.push(Event::Publish(request.clone()));
        Verdict::Accept
    }

    fn on_media(
        &mut self,
        MediaTag {
            tag_type,
            timestamp_ms,
            body,
        }: MediaTag<'_>,
    ) {
        self.0.push(Event::Media {
            tag_type,
            timestamp_ms,
            body: body.to_vec(),
        });
    }

    fn on_unpublish(&mut self, why: Unpublish) {
        self.0.push(Event::Unpublish(why));
    }
}

fn replay(capture: &[u8], piece_len: usize) -> Vec<Event> {
    let mut session = ServerSession::new(Limits::default(), [1; 32]);
    let mut recorder = Recorder::default();
    for piece in capture.chunks(piece_len) {
        session.feed(piece, &mut recorder).unwrap();
        session.output().clear();
    }
    assert_eq!(session.partial_bytes(), 0, "a capture ends with whole messages");
    assert_eq!(session.stray_messages(), 0);
    assert_eq!(session.bytes_received(), capture.len() as u64);
    recorder.0
}

/// Replays in several splits and returns the events, which are all the same.
fn events(capture: &[u8]) -> (PublishRequest, Vec<(u8, u32, Vec<u8>)>) {
    let events = replay(capture, capture.len());
    for piece_len in [1, 2, 3, 7, 128, 1536, 4096] {
        assert!(replay(capture, piece_len) == events, "pieces of {piece_len}");
    }
    let [
        Event::Publish(request),
        media @ ..,
        Event::Unpublish(Unpublish::FcUnpublish),
    ] = events.as_slice()
    else {
        panic!("not a publish and an unpublish");
    };
    let media = media
        .iter()
        .map(|event| match event {
            Event::Media {
                tag_type,
                timestamp_ms,
                body,
            } => (*tag_type, *timestamp_ms, body.clone()),
            other => panic!("{other:?} between publish and unpublish"),
        })
        .collect();
    (request.clone(), media)
}

/// Number, bytes and last timestamp of the tags of a type.
fn sums(media: &[(u8, u32, Vec<u8>)], tag_type: u8) -> (usize, usize, u32) {
    let of_type = media.iter().filter(|tag| tag.0 == tag_type);
    of_type.fold((0, 0, 0), |(count, bytes, _), tag| {
        (count + 1, bytes + tag.2.len(), tag.1)
    })
}

fn assert_metadata(media: &[(u8, u32, Vec<u8>)]) {
    let (tag_type, _, body) = &media[0];
    assert_eq!(*tag_type, 18);
    assert!(body.starts_with(b"\x02\x00\x0aonMetaData\x08"), "{body:02x?}");
}

#[test]
fn ffmpeg_5_pushes_h264_and_aac() {
    let (request, media) = events(include_bytes!("data/ffmpeg5-h264-aac.bin"));
    assert_eq!((request.app.as_str(), request.stream.as_str()), ("live", "test"));
    assert_eq!(request.params, "domain=push.example.com&txSecret=abc");
    assert_eq!(request.domain.as_deref(), Some("push.example.com"));
    assert_eq!(request.flash_ver, "FMLE/3.0 (compatible; Lavf59.27.100)");
    assert_eq!(request.publish_type, "live");
    assert_metadata(&media);
    assert_eq!(sums(&media, 9), (VIDEO_TAGS, VIDEO_BYTES, 1923));
    assert_eq!(sums(&media, 8), (AUDIO_TAGS, AUDIO_BYTES, 2020));
}

#[test]
fn ffmpeg_5_pushes_beyond_the_24_bit_timestamp() {
    let (_, media) = events(include_bytes!("data/ffmpeg5-late.bin"));
    assert_eq!(sums(&media, 9), (VIDEO_TAGS, VIDEO_BYTES, 16_777_923));
    assert_eq!(sums(&media, 8), (AUDIO_TAGS, AUDIO_BYTES, 16_778_020));
    let (_, unshifted) = events(include_bytes!("data/ffmpeg5-h264-aac.bin"));
    for (late, early) in media.iter().zip(&unshifted).filter(|(late, _)| late.1 > 0) {
        assert_eq!((late.0, late.1, &late.2), (early.0, early.1 + 16_776_000, &early.2));
    }
}

#[test]
fn ffmpeg_5_pushes_mp3_with_type_3_headers_only() {
    let (request, media) = events(include_bytes!("data/ffmpeg5-mp3.bin"));
    assert_eq!(
        (request.app.as_str(), request.stream.as_str()),
        ("app/inst", "ä%20b"),
        "nothing is decoded"
    );
    let times: Vec<u32> = media.iter().filter(|tag| tag.0 == 8).map(|tag| tag.1).collect();
    assert_eq!(times.last(), Some(&2011));
    assert!(
        times.windows(2).all(|pair| (26..=27).contains(&(pair[1] - pair[0]))),
        "{times:?}"
    );
}

#[test]
fn ffmpeg_9_pushes_enhanced_hevc() {
    let (_, media) = events(include_bytes!("data/ffmpeg9-hevc.bin"));
    assert_metadata(&media);
    let video: Vec<&Vec<u8>> = media.iter().filter(|tag| tag.0 == 9).map(|tag| &tag.2).collect();
    assert!(video.iter().all(|body| body[0] & 0x80 != 0 && &body[1..5] == b"hvc1"));
    assert_eq!(video.iter().filter(|body| matches!(body[0] & 0x0F, 1 | 3)).count(), 20);
}

#[test]
fn gstreamer_and_librtmp_push_the_same_as_ffmpeg() {
    let (request, gstreamer) = events(include_bytes!("data/gstreamer-rtmp2sink.bin"));
    assert_eq!((request.stream.as_str(), request.params.as_str()), ("gst", "token=1"));
    let (request, librtmp) = events(include_bytes!("data/librtmp.bin"));
    assert_eq!((request.app.as_str(), request.stream.as_str()), ("live", "lib"));
    let (_, ffmpeg) = events(include_bytes!("data/ffmpeg5-h264-aac.bin"));
    let audio = |media: &[(u8, u32, Vec<u8>)]| media.iter().filter(|tag| tag.0 == 8).cloned().collect::<Vec<_>>();
    let video = |media: &[(u8, u32, Vec<u8>)]| media.iter().filter(|tag| tag.0 == 9).cloned().collect::<Vec<_>>();
    assert!(
        audio(&gstreamer) == audio(&ffmpeg) && audio(&librtmp) == audio(&ffmpeg),
        "every byte and every time"
    );
    // GStreamer writes decoder configuration and end of sequence its own way.
    assert!(video(&gstreamer) == video(&librtmp));
    assert!(video(&gstreamer)[1..21] == video(&ffmpeg)[1..21]);
}

/// Tags of the clip, decoder configurations and end of sequence included, and all their bodies.
const VIDEO_TAGS: usize = 22;
const VIDEO_BYTES: usize = 13_274;
const AUDIO_TAGS: usize = 89;
const AUDIO_BYTES: usize = 4491;
