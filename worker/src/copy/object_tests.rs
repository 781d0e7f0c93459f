use std::path::Path;

use shared::ids::{FileId, RecordingId, Seeded, StreamKey};
use shared::lease::Epoch;
use shared::objects::Bucket;
use shared::time::Timestamp;

use super::*;

const ROOT: &str = "d/a/s/r";

fn ways(first: &Path) -> Ways {
    Ways {
        from: Archive::Folder(first.to_path_buf()).into(),
        to: Archive::Bucket(Bucket::in_memory()),
        piece: 10,
        pace: Pace::new(0).into(),
        metrics: WorkerMetrics::default(),
    }
}

fn write(first: &Path, key: &str, bytes: &[u8]) {
    let path = first.join(ROOT).join(key);
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    std::fs::write(path, bytes).expect("written");
}

fn file(format: Format, key: &str, bytes: &[u8]) -> MediaFile {
    let (ids, at) = (Seeded::new(1), Timestamp::from_millis(5));
    let sum = crc_fast::checksum(CrcAlgorithm::Crc64Nvme, bytes);
    MediaFile {
        id: FileId::generate(&ids, at),
        recording: RecordingId::generate(&ids, at),
        stream: StreamKey::new("d", "a", "s").expect("legal"),
        format,
        sequence: 0,
        name: "n".to_owned(),
        object_key: format!("{ROOT}/{key}"),
        size: bytes.len() as u64,
        duration_ms: 1,
        start: at,
        end: at,
        checksum: format!("crc64nvme:{sum:016x}"),
        video_units: 0,
        audio_units: 0,
        gaps: vec![],
        epoch: Epoch::new(1),
        committed: at,
        expires: None,
        locked: false,
        copied: None,
    }
}

fn order(file: Option<MediaFile>) -> Copy {
    Copy {
        id: uuid::Uuid::nil(),
        since: Timestamp::from_millis(1),
        root: ROOT.to_owned(),
        file,
    }
}

async fn there(ways: &Ways) -> Vec<String> {
    let listed = ways.to.list("", None, 1_000).await.expect("listed");
    listed
        .into_iter()
        .map(|object| object.key[ROOT.len() + 1..].to_owned())
        .collect()
}

#[tokio::test]
async fn a_file_is_copied_with_its_document_whatever_its_length() {
    let first = tempfile::tempdir().expect("a folder");
    for len in [1_usize, 10, 11, 95] {
        let bytes: Vec<u8> = (0..len).map(|n| n as u8).collect();
        write(first.path(), "e000001/mp4/0.mp4", &bytes);
        write(first.path(), "recording.json", b"{}");
        let ways = ways(first.path());
        let file = file(Format::Mp4, "e000001/mp4/0.mp4", &bytes);
        ways.copy(&order(Some(file.clone()))).await.expect("copied");
        assert_eq!(ways.to.get(&file.object_key).await.expect("there"), bytes);
        assert_eq!(there(&ways).await, ["e000001/mp4/0.mp4", "recording.json"]);
        assert_eq!(ways.metrics.copied_bytes.get(), len as u64 + 2);
        // Again: only what may have changed.
        ways.copy(&order(Some(file))).await.expect("copied");
        assert_eq!(ways.metrics.copied_bytes.get(), len as u64 + 4);
    }
}

#[tokio::test]
async fn what_is_not_as_the_library_says_does_not_become_an_object() {
    let first = tempfile::tempdir().expect("a folder");
    write(first.path(), "e000001/mp4/0.mp4", b"another twenty bytes");
    let ways = ways(first.path());
    let file = file(Format::Mp4, "e000001/mp4/0.mp4", b"the expected twenty!");
    let error = ways.copy(&order(Some(file))).await.expect_err("damaged");
    assert!(
        matches!(&error, CopyError::Damaged(text) if text.contains("the library says")),
        "{error}"
    );
    assert_eq!(there(&ways).await, [] as [&str; 0]);
}

#[tokio::test]
async fn a_playlist_comes_after_all_that_it_names_and_only_what_is_missing_is_copied() {
    let first = tempfile::tempdir().expect("a folder");
    let playlist = b"#EXTM3U\n../../e000001/hls/0.ts\n1.ts\n";
    for (key, bytes) in [
        ("e000001/hls/0.ts", &b"zero"[..]),
        ("e000001/hls/index.m3u8", b"#EXTM3U\n0.ts\n"),
        ("e000002/hls/1.ts", b"one"),
        ("e000002/hls/index.m3u8", playlist),
        ("e000002/mp4/0.mp4", b"not of it"),
    ] {
        write(first.path(), key, bytes);
    }
    let ways = ways(first.path());
    let file = file(Format::Hls, "e000002/hls/index.m3u8", playlist);
    let here = list(ways.from(ROOT).expect("known"), ROOT).await.expect("listed");
    let order_of = |there: &BTreeMap<String, u64>| -> Vec<String> {
        let keys = missing(&here, there, &file).into_iter();
        keys.map(|(key, _)| key[ROOT.len() + 1..].to_owned()).collect()
    };
    let all = [
        "e000001/hls/0.ts",
        "e000002/hls/1.ts",
        "e000001/hls/index.m3u8",
        "e000002/hls/index.m3u8",
    ];
    assert_eq!(order_of(&BTreeMap::new()), all);
    assert_eq!(order_of(&here), all[2..], "playlists may have changed");
    ways.copy(&order(Some(file))).await.expect("copied");
    assert_eq!(
        there(&ways).await,
        [
            "e000001/hls/0.ts",
            "e000001/hls/index.m3u8",
            "e000002/hls/1.ts",
            "e000002/hls/index.m3u8"
        ]
    );
}

#[tokio::test]
async fn a_document_alone_waits_until_it_says_that_its_recording_has_ended() {
    let first = tempfile::tempdir().expect("a folder");
    let ways = ways(first.path());
    ways.copy(&order(None)).await.expect("there is none");
    write(first.path(), "recording.json", b"{}");
    let error = ways.copy(&order(None)).await.expect_err("not yet");
    assert!(matches!(error, CopyError::NotYet(_)), "{error}");
    assert!(!error.is_away());
}

#[tokio::test]
async fn a_list_that_is_behind_does_not_pass_for_the_whole() {
    let first = tempfile::tempdir().expect("a folder");
    let playlist = b"#EXTM3U\n0.ts\n1.ts\n";
    write(first.path(), "e000001/hls/0.ts", b"zero");
    write(first.path(), "e000001/hls/index.m3u8", playlist);
    let ways = ways(first.path());
    let file = file(Format::Hls, "e000001/hls/index.m3u8", playlist);
    let error = ways.copy(&order(Some(file))).await.expect_err("1.ts is not there");
    assert!(
        matches!(&error, CopyError::Source(_)) && error.to_string().contains("1.ts"),
        "{error}"
    );
    assert_eq!(there(&ways).await, [] as [&str; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_document_that_is_copied_late_does_not_take_the_place_of_a_newer_one() {
    let (from, to) = (Bucket::in_memory(), Bucket::in_memory());
    let place = |rate| Ways {
        from: Archive::Bucket(from.clone()).into(),
        to: Archive::Bucket(to.clone()),
        piece: 10,
        pace: Pace::new(rate).into(),
        metrics: WorkerMetrics::default(),
    };
    let key = format!("{ROOT}/recording.json");
    let bytes = b"some bytes";
    let file = file(Format::Mp4, "e000001/mp4/0.mp4", bytes);
    for place in [&from, &to] {
        let stored = place.put(&file.object_key, vec![Bytes::from_static(bytes)]);
        stored.await.expect("stored");
    }
    let older = Bytes::from_static(b"{\"files\": 1}");
    from.put(&key, vec![older]).await.expect("stored");

    // One has read the document and waits for its bandwidth before it stores it.
    let (slow, fast) = (place(1), place(0));
    slow.pace.wait(3_600).await;
    let order = order(Some(file));
    let mut late = std::pin::pin!(slow.copy(&order));
    let soon = tokio::time::timeout(Duration::from_secs(1), late.as_mut()).await;
    assert!(soon.is_err(), "it has an hour to wait, in virtual time");
    let newer = Bytes::from_static(b"{\"files\": 2}");
    from.put(&key, vec![newer.clone()]).await.expect("stored");
    fast.copy(&order).await.expect("copied");
    assert_eq!(to.get(&key).await.expect("there"), newer);

    late.await.expect("copied");
    assert_eq!(to.get(&key).await.expect("there"), newer);
    assert_eq!(slow.metrics.copied_bytes.get(), 24, "both versions");
}
