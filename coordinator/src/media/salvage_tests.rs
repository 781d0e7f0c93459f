//! What a lost worker left in two places: in the first before that went away, in the second since.

use std::time::Duration;

use bytes::Bytes;
use shared::{
    ids::{RecordingId, Seeded},
    objects::{Fault, Faulty},
    recording::RecordingState,
    store::{FileFilter, Page},
    template::TemplateSpec,
    time::Clock as _,
};

use super::{
    super::sweeper::tests::{World, world},
    *,
};

const PART: usize = 5 << 20;

struct Lost {
    world: World,
    recording: Recording,
    first: Faulty,
    second: Faulty,
}

impl Lost {
    async fn new() -> Self {
        let mut world = world().await;
        let (first, second) = (Faulty::default(), Faulty::default());
        let place = |storage: &Faulty| Archive::Bucket(storage.bucket(Duration::from_secs(30)));
        world.remover.archive = place(&first).into();
        world.remover.second = Some(place(&second));
        world.remover.is_backup = true;
        let recording = Recording {
            id: RecordingId::generate(&Seeded::new(77), world.clock.now()),
            epoch: Epoch::new(1),
            state: RecordingState::Failed,
            template: TemplateSpec::plain("t", &[Format::Flv, Format::Hls, Format::Mp4, Format::Aac]),
            ..world.recording.clone()
        };
        Self {
            world,
            recording,
            first,
            second,
        }
    }

    fn root(&self) -> String {
        format!("{}/{}", self.recording.stream.path(), self.recording.id)
    }

    async fn put(&self, place: &Faulty, name: &str, bytes: impl Into<Bytes>) {
        let bucket = place.bucket(Duration::from_secs(30));
        let key = format!("{}/{name}", self.root());
        bucket.put(&key, vec![bytes.into()]).await.unwrap();
    }

    /// A file that grew in a place, with so many whole parts behind its first.
    async fn grew(&self, place: &Faulty, format: Format, parts: u8) {
        let bucket = place.bucket(Duration::from_secs(30));
        let key = self.key(format);
        let upload = bucket.begin(&key).await.unwrap();
        let (head, held, tail) = (b"head".to_vec(), vec![0; PART], b"tail".to_vec());
        let mut ids = Vec::new();
        for part in 1..=parts {
            let bytes = vec![Bytes::from(vec![part; PART])];
            ids.push(bucket.put_part(&key, &upload, u32::from(part), bytes).await.unwrap());
        }
        let size = head.len() + tail.len() + PART * (usize::from(parts) + 1);
        let file = self.file(format, size, i64::from(parts));
        let lengths = (head.len() as u64, held.len() as u64);
        let rescue = Rescue::new(upload, ids, lengths, (file, "UTC"));
        bucket.put(&format!("{key}{HELD}"), vec![held.into()]).await.unwrap();
        let object = rescue.to_object(head, tail).unwrap();
        bucket.put(&format!("{key}{RESCUE}"), object).await.unwrap();
    }

    fn key(&self, format: Format) -> String {
        let name = match format {
            Format::Hls => "index.m3u8".to_owned(),
            _ => format!("000000.{}", format.extension()),
        };
        format!("{}/e000001/{}/{name}", self.root(), format.as_str())
    }

    fn file(&self, format: Format, size: usize, duration_ms: i64) -> FinishedFile {
        FinishedFile {
            file_id: format!("{}-{}-000000", self.recording.id, format.as_str()),
            format,
            sequence: 0,
            key: self.key(format),
            size: size as u64,
            checksum: String::new(),
            duration_ms,
            start_ms: 1_790_000_000_000,
            video_units: 1,
            audio_units: 1,
            gaps: vec![],
        }
    }

    /// A file that is whole, as an object or in the parts of its upload, and of which the library has not heard.
    async fn ended(&self, place: &Faulty, format: Format, is_object: bool) {
        // What completed it half-way is where it was, but for the line.
        self.grew(place, format, 1).await;
        let bucket = place.bucket(Duration::from_secs(30));
        let key = self.key(format);
        let pending = bucket.pending(&key).await.unwrap().into_iter();
        let upload = pending.last().expect("it grew").upload_id;
        let mut ids = Vec::new();
        for part in 0..3 {
            let bytes = vec![Bytes::from(vec![part; PART])];
            ids.push(bucket.put_part(&key, &upload, u32::from(part), bytes).await.unwrap());
        }
        if is_object {
            bucket.complete(&key, &upload, ids.clone()).await.unwrap();
        }
        let file = self.file(format, 3 * PART, 9_000);
        self.vouch(place, Rescue::whole(upload, ids, (file, "UTC"))).await;
    }

    async fn vouch(&self, place: &Faulty, whole: Rescue) {
        let bucket = place.bucket(Duration::from_secs(30));
        let object = whole.to_object(Vec::new(), Vec::new()).unwrap();
        bucket
            .put(&format!("{}{RESCUE}", whole.file.key), object)
            .await
            .unwrap();
    }

    /// The library's files of the recording, by format.
    async fn files(&self) -> Vec<MediaFile> {
        let filter = FileFilter {
            recording: Some(self.recording.id),
            ..FileFilter::default()
        };
        let page = Page {
            size: 0,
            token: String::new(),
        };
        let (mut files, _) = self.world.remover.repo.files(&filter, &page).await.unwrap();
        files.sort_by_key(|file| file.format);
        files
    }

    async fn salvage(&self) -> Result<usize, SalvageError> {
        self.world
            .remover
            .salvage(&self.recording, self.world.clock.now())
            .await
    }

    async fn names(&self, place: &Faulty) -> Vec<String> {
        let root = format!("{}/", self.root());
        let keys = place.objects().await.unwrap().into_keys();
        keys.map(|key| key.strip_prefix(&root).unwrap().to_owned()).collect()
    }
}

fn playlist(segments: u32) -> String {
    let named: String = (0..segments).map(|n| format!("#EXTINF:2.000,\n{n:06}.ts\n")).collect();
    format!("#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-PLAYLIST-TYPE:EVENT\n#EXT-X-TARGETDURATION:2\n{named}")
}

#[tokio::test(start_paused = true)]
async fn what_lies_in_two_places_is_completed_where_it_came_furthest() {
    let lost = Lost::new().await;
    let document = RecordingDocument::new(lost.recording.clone(), vec![])
        .to_json()
        .unwrap();
    // The MP4 was left in the first and begun anew in the second; the AAC was between two files, and began there; the FLV could not leave.
    lost.grew(&lost.first, Format::Mp4, 1).await;
    lost.grew(&lost.second, Format::Mp4, 3).await;
    lost.grew(&lost.second, Format::Aac, 1).await;
    lost.grew(&lost.first, Format::Flv, 2).await;
    for (place, segments, named) in [(&lost.first, 0..3, 2), (&lost.second, 3..5, 5)] {
        for n in segments {
            lost.put(place, &format!("e000001/hls/{n:06}.ts"), vec![n; 100]).await;
        }
        lost.put(place, "e000001/hls/index.m3u8", playlist(named)).await;
        lost.put(place, "recording.json", document.clone()).await;
    }

    // While either is away nothing is decided: what is there may be the better half.
    for away in [&lost.first, &lost.second] {
        let before = (lost.names(&lost.first).await, lost.names(&lost.second).await);
        away.set(Some(Fault::Unavailable));
        let said = lost.salvage().await;
        assert!(
            matches!(said, Err(SalvageError::Object(ObjectError::Unavailable(_)))),
            "{said:?}"
        );
        away.set(None);
        assert_eq!((lost.names(&lost.first).await, lost.names(&lost.second).await), before);
    }

    for _ in 0..2 {
        lost.salvage().await.unwrap();
        let media = |end: &str| ["aac/000000.aac", "mp4/000000.mp4"].map(|name| format!("e000001/{name}{end}"));
        let segments = |of: std::ops::Range<u32>| of.map(|n| format!("e000001/hls/{n:06}.ts"));
        let ends = ["e000001/hls/index.m3u8", "recording.json"].map(str::to_owned);
        let mut second: Vec<String> = media("")
            .into_iter()
            .chain(segments(3..5))
            .chain(ends.clone())
            .chain(["e000002/hls/index.m3u8".to_owned()])
            .collect();
        let mut first: Vec<String> = segments(0..3).chain(ends).collect();
        first.push("e000001/flv/000000.flv".to_owned());
        first.sort();
        second.sort();
        assert_eq!(lost.names(&lost.first).await, first, "the MP4 that was left is gone");
        assert_eq!(lost.names(&lost.second).await, second);
        assert!(lost.first.pending().is_empty() && lost.second.pending().is_empty());
    }

    let files = lost.world.keys(&format!("v1/file/{}", "")).await;
    assert_eq!(
        files.len(),
        3 + 4,
        "those of another recording, and the four of this one"
    );
    for place in [&lost.first, &lost.second] {
        let objects = place.objects().await.unwrap();
        let json = &objects[&format!("{}/recording.json", lost.root())];
        let mut said = RecordingDocument::from_json(json).unwrap().files;
        said.sort_by_key(|file| file.format.as_str());
        let sizes: Vec<(Format, u64)> = said.iter().map(|file| (file.format, file.size)).collect();
        let list = format!("{}\n#EXT-X-ENDLIST\n", playlist(5).trim_end()).replace("EVENT", "VOD");
        let list = list.replace("\n00000", "\n../../e000001/hls/00000");
        assert_eq!(
            sizes,
            [
                (Format::Aac, 8 + 2 * PART as u64),
                (Format::Flv, 8 + 3 * PART as u64),
                (Format::Hls, 500 + list.len() as u64),
                (Format::Mp4, 8 + 4 * PART as u64),
            ]
        );
    }
    let objects = lost.second.objects().await.unwrap();
    let list = &objects[&format!("{}/e000002/hls/index.m3u8", lost.root())];
    assert!(
        list.ends_with(b"000004.ts\n#EXT-X-ENDLIST\n"),
        "the newer list is the one that is ended"
    );
    let running = &objects[&format!("{}/e000001/hls/index.m3u8", lost.root())];
    assert_eq!(
        *running,
        playlist(5),
        "what a worker that comes back goes on with is as it was"
    );
}

#[tokio::test(start_paused = true)]
async fn broken_off_at_any_request_it_comes_to_the_same() {
    for place in 0..2 {
        for after in 0.. {
            let lost = Lost::new().await;
            lost.grew(&lost.first, Format::Mp4, 1).await;
            lost.grew(&lost.second, Format::Mp4, 2).await;
            lost.ended(&lost.second, Format::Flv, false).await;
            for place in [&lost.first, &lost.second] {
                let document = RecordingDocument::new(lost.recording.clone(), vec![]).to_json();
                lost.put(place, "recording.json", document.unwrap()).await;
            }
            lost.put(&lost.second, "e000001/hls/000000.ts", vec![1; 100]).await;
            lost.put(&lost.second, "e000001/hls/index.m3u8", playlist(1)).await;
            let breaks = [&lost.first, &lost.second][place];
            breaks.once(Fault::AnswerLost, after);
            let broken_off = lost.salvage().await.is_err();
            breaks.set(None);
            lost.salvage().await.unwrap();
            let what = format!("place {place}, request {after}");
            assert_eq!(lost.names(&lost.first).await, ["recording.json"], "{what}");
            let second = [
                "e000001/flv/000000.flv",
                "e000001/hls/000000.ts",
                "e000001/hls/index.m3u8",
                "e000001/mp4/000000.mp4",
                "e000002/hls/index.m3u8",
                "recording.json",
            ];
            assert_eq!(lost.names(&lost.second).await, second, "{what}");
            assert!(lost.first.pending().is_empty() && lost.second.pending().is_empty());
            assert_eq!(lost.world.keys("v1/file/").await.len(), 3 + 3, "{what}");
            for place in [&lost.first, &lost.second] {
                let objects = place.objects().await.unwrap();
                let json = &objects[&format!("{}/recording.json", lost.root())];
                assert_eq!(RecordingDocument::from_json(json).unwrap().files.len(), 3, "{what}");
            }
            let objects = lost.second.objects().await.unwrap();
            let list = &objects[&format!("{}/e000002/hls/index.m3u8", lost.root())];
            assert!(list.ends_with(b"#EXT-X-ENDLIST\n"), "{what}");
            if !broken_off {
                assert!(after > 3, "{what}");
                break;
            }
        }
    }
}

/// The coordinators were away, or the machine was lost a moment after the file's last byte was stored.
#[tokio::test(start_paused = true)]
async fn files_that_were_whole_and_in_no_library_enter_it() {
    for is_object in [false, true] {
        let lost = Lost::new().await;
        lost.ended(&lost.first, Format::Mp4, is_object).await;
        lost.ended(&lost.second, Format::Flv, is_object).await;
        // One that never grew in parts, and a list that has its end.
        lost.put(&lost.second, "e000001/aac/000000.aac", "sound").await;
        let short = lost.file(Format::Aac, 5, 700);
        lost.vouch(&lost.second, Rescue::whole(String::new(), vec![], (short, "UTC")))
            .await;
        lost.put(&lost.first, "e000001/hls/000000.ts", vec![1; 100]).await;
        lost.put(&lost.first, "e000001/hls/index.m3u8", playlist(1) + "#EXT-X-ENDLIST\n")
            .await;
        let list = lost.file(Format::Hls, 300, 2_000);
        lost.vouch(&lost.first, Rescue::whole(String::new(), vec![], (list, "UTC")))
            .await;

        assert_eq!(lost.salvage().await.unwrap(), 4);
        let said = lost.files().await.into_iter();
        let said: Vec<_> = said.map(|file| (file.format, file.size, file.duration_ms)).collect();
        let mut expected = [
            (Format::Aac, 5, 700),
            (Format::Flv, 3 * PART as u64, 9_000),
            (Format::Hls, 300, 2_000),
            (Format::Mp4, 3 * PART as u64, 9_000),
        ];
        expected.sort();
        assert_eq!(said, expected);
        let media = |name: &str| name.ends_with(RESCUE) || name.ends_with(HELD);
        for place in [&lost.first, &lost.second] {
            assert!(place.pending().is_empty());
            assert!(!lost.names(place).await.iter().any(|name| media(name)));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_vouched_for_and_gone_or_on_its_way_out_does_not_come_back() {
    let lost = Lost::new().await;
    let document = RecordingDocument::new(lost.recording.clone(), vec![]).to_json();
    lost.put(&lost.first, "recording.json", document.unwrap()).await;
    let gone = lost.file(Format::Flv, 5, 700);
    lost.vouch(&lost.first, Rescue::whole(String::new(), vec![], (gone, "UTC")))
        .await;
    lost.ended(&lost.first, Format::Mp4, true).await;
    let file = media_file(
        &lost.recording,
        &lost.file(Format::Mp4, 3 * PART, 9_000),
        &TimeZone::UTC,
    );
    let repo = &lost.world.remover.repo;
    assert!(
        repo.enter_salvaged(&lost.recording, &file, lost.world.clock.now())
            .await
            .unwrap()
    );
    repo.remove_file(file.id, lost.world.clock.now()).await.unwrap();

    assert_eq!(lost.salvage().await.unwrap(), 0);
    assert!(lost.files().await.is_empty());
    let objects = lost.first.objects().await.unwrap();
    let json = &objects[&format!("{}/recording.json", lost.root())];
    assert!(RecordingDocument::from_json(json).unwrap().files.is_empty());
}
