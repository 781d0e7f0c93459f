use super::*;
use alloc::vec;
use proptest::prelude::*;

fn segment(uri: &str, duration_ms: u32) -> Segment {
    Segment {
        uri: uri.to_string(),
        duration_ms,
        discontinuity: false,
        program_date_time_ms: None,
        map: None,
    }
}

fn header(kind: Kind) -> Header {
    Header {
        version: 3,
        target_duration_s: 6,
        kind: Some(kind),
        media_sequence: 0,
        discontinuity_sequence: 0,
    }
}

#[test]
fn an_event_playlist_grows_and_ends_as_written_here() {
    let mut text = String::new();
    header(Kind::Event).append(&mut text);
    let first = Segment {
        program_date_time_ms: Some(1_795_367_289_123),
        ..segment("000000.ts", 6006)
    };
    first.append(&mut text);
    segment("000001.ts", 5999).append(&mut text);
    let second = Segment {
        discontinuity: true,
        program_date_time_ms: Some(1_795_367_400_000),
        ..segment("000002.ts", 40)
    };
    second.append(&mut text);
    append_end(&mut text);
    assert_eq!(
        text,
        "#EXTM3U\n\
         #EXT-X-VERSION:3\n\
         #EXT-X-TARGETDURATION:6\n\
         #EXT-X-PLAYLIST-TYPE:EVENT\n\
         #EXT-X-MEDIA-SEQUENCE:0\n\
         #EXT-X-PROGRAM-DATE-TIME:2026-11-22T17:08:09.123Z\n\
         #EXTINF:6.006,\n\
         000000.ts\n\
         #EXTINF:5.999,\n\
         000001.ts\n\
         #EXT-X-DISCONTINUITY\n\
         #EXT-X-PROGRAM-DATE-TIME:2026-11-22T17:10:00.000Z\n\
         #EXTINF:0.040,\n\
         000002.ts\n\
         #EXT-X-ENDLIST\n"
    );
    let read = MediaPlaylist::parse(&text).unwrap();
    assert_eq!(
        read,
        MediaPlaylist {
            header: header(Kind::Event),
            segments: vec![first, segment("000001.ts", 5999), second],
            ended: true,
        }
    );
    assert_eq!(read.least_target_duration_s(), 6);
    assert_eq!(read.to_text(), text);
}

#[test]
fn initialisation_segments_need_version_6() {
    let playlist = MediaPlaylist {
        header: Header {
            version: version(true),
            media_sequence: 7,
            discontinuity_sequence: 2,
            ..header(Kind::Vod)
        },
        segments: vec![Segment {
            map: Some("init \"0\".mp4".to_string()),
            ..segment("#0.m4s", 1)
        }],
        ended: true,
    };
    let text = playlist.to_text();
    assert!(text.contains("#EXT-X-VERSION:6\n") && text.contains("#EXT-X-DISCONTINUITY-SEQUENCE:2\n"));
    assert!(
        text.contains("#EXT-X-MAP:URI=\"init%20%220%22.mp4\"\n#EXTINF:0.001,\n%230.m4s\n"),
        "{text}"
    );
}

#[test]
fn target_durations_are_rounded_as_the_rfc_says() {
    assert_eq!([0, 499, 500, 6499, 6500].map(rounded_s), [0, 0, 1, 6, 7]);
    let empty = MediaPlaylist {
        header: header(Kind::Vod),
        segments: vec![],
        ended: true,
    };
    assert_eq!(empty.least_target_duration_s(), 1);
}

#[test]
fn playlists_of_others_are_read() {
    let text = "#EXTM3U\r\n#EXT-X-TARGETDURATION:10\r\n#EXT-X-ALLOW-CACHE:YES\r\n# a comment\r\n\r\n\
        #EXT-X-MAP:BYTERANGE=\"10@0\",URI=\"i.mp4\"\r\n#EXT-X-PROGRAM-DATE-TIME:2020-02-29T23:59:60.5+0100\r\n\
        #EXTINF:9.9999999,title, with comma\r\na b.ts?x=1\r\n#EXTINF:10\r\nb.ts\r\n";
    let playlist = MediaPlaylist::parse(text).unwrap();
    assert_eq!(playlist.header.version, 1);
    assert_eq!(playlist.segments.len(), 2);
    assert_eq!(playlist.segments[0].map.as_deref(), Some("i.mp4"));
    assert_eq!(playlist.segments[0].duration_ms, 9999);
    assert_eq!(playlist.segments[0].program_date_time_ms, Some(1_583_017_200_500));
    assert_eq!(playlist.segments[1], segment("b.ts", 10_000));
    assert!(!playlist.ended);
}

#[test]
fn what_is_wrong_is_named_with_its_line() {
    let cases = [
        ("", HlsError::NotAPlaylist),
        ("#EXTM3U8\n", HlsError::NotAPlaylist),
        ("#EXTM3U\n", HlsError::NoTargetDuration),
        ("#EXTM3U\n#EXT-X-TARGETDURATION:x\n", HlsError::Value(2)),
        ("#EXTM3U\n#EXT-X-PLAYLIST-TYPE:LIVE\n", HlsError::Value(2)),
        ("#EXTM3U\n#EXT-X-TARGETDURATION:1\na.ts\n", HlsError::Incomplete(3)),
        (
            "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n",
            HlsError::Incomplete(3),
        ),
        ("#EXTM3U\n#EXTINF:-1,\n", HlsError::Value(2)),
        ("#EXTM3U\n#EXTINF:4294968,\n", HlsError::Value(2)),
        ("#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n", HlsError::Multivariant(2)),
        (
            "#EXTM3U\n#EXT-X-PROGRAM-DATE-TIME:2026-13-01T00:00:00Z\n",
            HlsError::Value(2),
        ),
        (
            "#EXTM3U\n#EXT-X-PROGRAM-DATE-TIME:2026-12-01T00:00:00\n",
            HlsError::Value(2),
        ),
        ("#EXTM3U\n#EXT-X-MAP:URI=\n", HlsError::NoTargetDuration),
        ("#EXTM3U\n#EXT-X-MAP:X=1\n", HlsError::Value(2)),
    ];
    for (text, error) in cases {
        assert_eq!(MediaPlaylist::parse(text), Err(error), "{text:?}");
    }
}

#[test]
fn dates_are_those_of_the_calendar() {
    for (ms, text) in [
        (0, "1970-01-01T00:00:00.000Z"),
        (-1, "1969-12-31T23:59:59.999Z"),
        (951_782_400_000, "2000-02-29T00:00:00.000Z"),
        (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        (i64::MAX, "9999-12-31T23:59:59.999Z"),
        (i64::MIN, "0000-01-01T00:00:00.000Z"),
    ] {
        let mut out = String::new();
        append_date_time(&mut out, ms);
        assert_eq!(out, text);
    }
}

fn uri() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9/_.~é%?=-]{1,20}"
}

proptest! {
    #[test]
    fn a_playlist_written_is_the_playlist_read(
        kind in prop_oneof![Just(None), Just(Some(Kind::Event)), Just(Some(Kind::Vod))],
        numbers: (u32, u64, u64, bool),
        segments in prop::collection::vec(
            (uri(), any::<u32>(), any::<bool>(), prop::option::of(YEARS_MS), prop::option::of(uri())), 0..20),
    ) {
        let (target_duration_s, media_sequence, discontinuity_sequence, ended) = numbers;
        let playlist = MediaPlaylist {
            header: Header { version: 6, target_duration_s, kind, media_sequence, discontinuity_sequence },
            segments: segments.into_iter().map(|(uri, duration_ms, discontinuity, program_date_time_ms, map)| {
                Segment { uri, duration_ms, discontinuity, program_date_time_ms, map }
            }).collect(),
            ended,
        };
        prop_assert_eq!(MediaPlaylist::parse(&playlist.to_text()), Ok(playlist));
    }

    #[test]
    fn any_uri_stays_one_line_and_no_comment(uri in any::<String>().prop_filter("not empty", |uri| !uri.is_empty())) {
        let mut text = String::from("#EXTM3U\n#EXT-X-TARGETDURATION:1\n");
        Segment { map: Some(uri.clone()), ..segment(&uri, 1) }.append(&mut text);
        let read = MediaPlaylist::parse(&text).unwrap();
        prop_assert_eq!(read.segments.len(), 1);
        prop_assert_eq!(text.lines().count(), 5);
    }

    #[test]
    fn any_text_is_read_or_refused(text in "(#EXTM3U\n)?((#EXT(INF|-X-MAP|-X-PROGRAM-DATE-TIME|-X-VERSION)?:?)?[-0-9TZ:+.,=\"a]{0,12}\n){0,10}") {
        let _ = MediaPlaylist::parse(&text);
    }
}
