//! Completes what a lost worker had in storage: files whose parts are there, the playlist of what it named; and clears away the rest.
//!
//! A recording is noted for it in the transaction that gives it up, so nobody writes to it any more; whoever leads goes on with it until it
//! is done. Every step may be repeated.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use jiff::tz::TimeZone;
use serde::Deserialize;
use shared::{
    lease::Epoch,
    objects::{Archive, Bucket, HELD, Listed, ObjectError, RESCUE, Rescue},
    playlist::{named_by, rebased},
    recording::{Context, FinishedFile, Gap, MediaFile, Recording, RecordingDocument, TOTALS},
    store::StoreError,
    template::Format,
    time::Timestamp,
    trace::{self, Place},
};
use thiserror::Error;
use tracing::{Instrument, info, warn};

use super::{place::is_epoch, sweeper::Remover};

/// Recordings that are looked at at a time.
const PAGE: usize = 100;
/// Objects that are listed at a time.
const LIST: usize = 1_000;

/// Why a recording is not salvaged yet.
#[derive(Debug, Error)]
pub(super) enum SalvageError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Object(#[from] ObjectError),
}

/// The library's record of a file as its recorder knew it.
fn media_file(recording: &Recording, file: &FinishedFile, zone: &TimeZone) -> MediaFile {
    file.record(Context {
        recording: recording.id,
        stream: &recording.stream,
        template: &recording.template,
        epoch: epoch_of(&file.key).unwrap_or(recording.epoch),
        zone,
    })
}

/// The ownership under which an object was written: a recording that goes on across publishes has files of several.
fn epoch_of(key: &str) -> Option<Epoch> {
    let folder = key.split('/').rev().nth(2).filter(|folder| is_epoch(folder))?;
    folder.get(1..)?.parse().ok().map(Epoch::new)
}

/// What a running playlist says of itself beside its text; see `worker/src/record/index.rs`.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
struct Totals {
    video_units: u64,
    audio_units: u64,
    start_ms: Option<i64>,
    gaps: Vec<Gap>,
}

impl Totals {
    /// None said: it is of an older version.
    fn of(playlist: &str) -> Self {
        let said = playlist.lines().find_map(|line| line.strip_prefix(TOTALS));
        said.and_then(|json| serde_json::from_str(json).ok())
            .unwrap_or_default()
    }
}

/// A playlist that nobody goes on with, as it is to be from now on in a folder beside its own, and its length. None: it names nothing, or has
/// an end.
fn ended(playlist: &str, epoch: Epoch) -> Option<(String, i64)> {
    let length = |line: &str| {
        let seconds: f64 = line.strip_prefix("#EXTINF:")?.split(',').next()?.parse().ok()?;
        Some((seconds * 1_000.0).round() as i64)
    };
    let duration_ms: i64 = playlist.lines().filter_map(length).sum();
    if duration_ms == 0 || playlist.contains("#EXT-X-ENDLIST") {
        return None;
    }
    let lines = playlist.lines().filter(|line| !line.starts_with(TOTALS));
    let text: String = lines.flat_map(|line| [line, "\n"]).collect();
    let text = rebased(&text, epoch);
    let text = text.replace("#EXT-X-PLAYLIST-TYPE:EVENT", "#EXT-X-PLAYLIST-TYPE:VOD");
    Some((format!("{}\n#EXT-X-ENDLIST\n", text.trim_end()), duration_ms))
}

/// True for the playlist of a folder such as `ROOT/e000001/hls/`.
fn is_playlist(root: &str, key: &str) -> bool {
    let parts: Vec<&str> = key.get(root.len() + 1..).unwrap_or_default().split('/').collect();
    matches!(parts.as_slice(), [epoch, "hls", "index.m3u8"] if is_epoch(epoch))
}

impl Remover {
    /// Goes on with every recording that is noted for it.
    ///
    /// # Errors
    /// Those of the store.
    pub(super) async fn salvage_all(&self, now: Timestamp) -> Result<(), StoreError> {
        let mut away = BTreeSet::new();
        for id in self.repo.salvages(PAGE).await? {
            let recording = self.repo.recording(id).await?;
            let place = recording.as_ref().map_or("", |recording| &recording.template.place);
            if let Some(Err(unknown)) = recording.as_ref().map(|recording| self.archive.of(&recording.folder())) {
                // It is done by whoever leads with other settings.
                warn!(recording = %id, %unknown, "what a lost worker had in storage is completed later");
                continue;
            }
            if away.contains(place) {
                continue;
            }
            let span = Place::recording(id).span("salvage");
            let salvaged = async {
                match &recording {
                    Some(recording) => self.salvage(recording, now).await,
                    None => Ok(0),
                }
            };
            let salvaged = salvaged.instrument(span.clone()).await;
            match &salvaged {
                Ok(files) => trace::say(&span, "aircheck.files", i64::try_from(*files).unwrap_or(i64::MAX)),
                Err(error) => trace::fail(&span, error),
            }
            match salvaged {
                Ok(files) => {
                    self.repo.salvaged(id).await?;
                    info!(recording = %id, files, "what a lost worker had in storage is completed");
                }
                Err(SalvageError::Store(error)) => return Err(error),
                Err(SalvageError::Object(ObjectError::Unavailable(error))) => {
                    // It is the same for all others in that place.
                    warn!(recording = %id, place, error, "what a lost worker had in storage is completed later");
                    away.insert(place.to_owned());
                }
                Err(SalvageError::Object(error)) => {
                    warn!(recording = %id, %error, "what a lost worker had in storage cannot be completed");
                    self.repo.salvaged(id).await?;
                }
            }
        }
        Ok(())
    }

    /// Completes what there is of one recording; gives how many files it has now that it did not have.
    async fn salvage(&self, recording: &Recording, now: Timestamp) -> Result<usize, SalvageError> {
        let root = recording.folder();
        let archive = self.archive.of(&root).map_err(ObjectError::from)?;
        let places: Vec<Found<'_>> = match self.backup() {
            // What lies in a backup is newer.
            Some(second) => vec![Found::below(&root, second).await?, Found::below(&root, archive).await?],
            None => vec![Found::below(&root, archive).await?],
        };
        let mut files: Vec<MediaFile> = Vec::new();
        // A playlist says nothing of it: its name is as those of the files beside it.
        let mut zone = TimeZone::UTC;
        for Found { archive, objects } in &places {
            let Archive::Bucket(bucket) = archive else { continue };
            for key in objects.keys().filter(|key| key.ends_with(RESCUE)) {
                let is_known = |file: &MediaFile| key.strip_suffix(RESCUE) == Some(&file.object_key);
                if !files.iter().any(is_known) {
                    files.extend(self.complete(bucket, recording, key, &mut zone).await?);
                }
            }
        }
        // Whoever finished one that goes on across publishes has ended its list.
        let playlists = places
            .iter()
            .flat_map(|place| place.objects.keys().map(move |key| (place.archive, key)));
        let playlist = playlists.rev().filter(|(_, key)| is_playlist(&root, key));
        let playlist = playlist
            .max_by_key(|(_, key)| *key)
            .filter(|_| !recording.is_stitched());
        let mut list = None;
        if let Some((archive, key)) = playlist.filter(|_| recording.template.formats.contains_key(&Format::Hls)) {
            list = self.end_playlist(recording, (archive, key), (&places, &zone)).await?;
            files.extend(list.as_ref().map(|(file, _)| file.clone()));
        }
        let mut entered = Vec::new();
        for file in files {
            if self.repo.enter_salvaged(recording, &file, now).await? {
                entered.push(file);
            }
        }
        for Found { archive, .. } in &places {
            write_document(archive, recording, &root, &entered).await?;
        }
        // Behind what is made of it: a list that has its end says no more what it is, should this be done again.
        if let (Some((file, text)), Some((archive, _))) = (list, playlist) {
            archive.put(&file.object_key, text.into()).await?;
        }
        // The backup last: what completes its files shows, should this be done again, that those in the first are the older ones.
        for Found { archive, objects } in places.iter().rev() {
            if let Archive::Bucket(bucket) = archive {
                self.clear(bucket, &root, objects).await?;
            }
        }
        Ok(entered.len())
    }

    /// Completes one file by what lies beside it.
    async fn complete(
        &self,
        bucket: &Bucket,
        recording: &Recording,
        key: &str,
        zone: &mut TimeZone,
    ) -> Result<Option<MediaFile>, SalvageError> {
        let object = bucket.get(key).await?;
        let Some((rescue, head, tail)) = Rescue::parse(&object) else {
            warn!(key, "what should complete a file cannot be read");
            return Ok(None);
        };
        let held = match rescue.whole {
            true => Ok(Bytes::new()),
            false => bucket.get(&format!("{}{HELD}", rescue.file.key)).await,
        };
        let held = match held {
            Ok(held) if held.len() as u64 == rescue.held => held,
            Ok(_) | Err(ObjectError::Missing(_)) => {
                warn!(key, "the first bytes of a file are not there");
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        let done = rescue.complete(bucket, (head, held, tail)).await?;
        *zone = rescue.time_zone();
        Ok(done.then(|| media_file(recording, &rescue.file, zone)))
    }

    /// The playlist that a lost worker left running, as a file and with its end, which is to be stored: under an epoch of its own, so that the
    /// worker does not write over it, should it come back.
    async fn end_playlist(
        &self,
        recording: &Recording,
        (archive, key): (&Archive, &str),
        (places, zone): (&[Found<'_>], &TimeZone),
    ) -> Result<Option<(MediaFile, String)>, SalvageError> {
        let text = String::from_utf8_lossy(&archive.get(key).await?).into_owned();
        let totals = Totals::of(&text);
        let epoch = epoch_of(key).unwrap_or(recording.epoch);
        let Some((text, duration_ms)) = ended(&text, epoch) else {
            return Ok(None);
        };
        let own = epoch.next().path_component();
        let key = format!("{}/{own}/hls/index.m3u8", recording.folder());
        let size = |key: &String| places.iter().find_map(|place| Some(place.objects.get(key)?.size));
        let segments: u64 = named_by(&text, &key).iter().filter_map(size).sum();
        let checksum = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc64Nvme, text.as_bytes());
        let file = FinishedFile {
            file_id: format!("{}-hls-000000", recording.id),
            format: Format::Hls,
            sequence: 0,
            key,
            size: segments + text.len() as u64,
            checksum: format!("crc64nvme:{checksum:016x}"),
            duration_ms,
            start_ms: totals.start_ms.unwrap_or(recording.started.as_millis()),
            video_units: totals.video_units,
            audio_units: totals.audio_units,
            gaps: totals.gaps,
        };
        Ok(Some((media_file(recording, &file, zone), text)))
    }

    /// Nothing of what could not be completed stays.
    async fn clear(&self, bucket: &Bucket, root: &str, objects: &BTreeMap<String, Listed>) -> Result<(), SalvageError> {
        match bucket.pending(&format!("{root}/")).await {
            Ok(pending) => {
                for upload in pending {
                    bucket.abort(&upload.key, &upload.upload_id).await?;
                }
            }
            Err(ObjectError::Refused(error)) => warn!(error, "storage does not list multipart uploads"),
            Err(error) => return Err(error.into()),
        }
        for key in objects
            .keys()
            .filter(|key| key.ends_with(RESCUE) || key.ends_with(HELD))
        {
            bucket.delete(key).await?;
        }
        Ok(())
    }
}

async fn write_document(
    archive: &Archive,
    recording: &Recording,
    root: &str,
    files: &[MediaFile],
) -> Result<(), SalvageError> {
    let key = format!("{root}/recording.json");
    let known = match archive.get(&key).await {
        Ok(bytes) => RecordingDocument::from_json(&bytes)
            .map(|document| document.files)
            .unwrap_or_default(),
        // It never came so far, or lies where this process does not look.
        Err(ObjectError::Missing(_)) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let is_new = |file: &MediaFile| !files.iter().any(|new| new.id == file.id);
    let all: Vec<MediaFile> = known.into_iter().filter(is_new).chain(files.iter().cloned()).collect();
    let json = RecordingDocument::new(recording.clone(), all).to_json();
    let json = json.map_err(|error| ObjectError::Refused(error.to_string()))?;
    Ok(archive.put(&key, json.into()).await?)
}

/// What lies in the folder of a recording, in one place.
struct Found<'a> {
    archive: &'a Archive,
    objects: BTreeMap<String, Listed>,
}

impl<'a> Found<'a> {
    async fn below(root: &str, archive: &'a Archive) -> Result<Self, ObjectError> {
        let (mut objects, mut after) = (BTreeMap::new(), None);
        loop {
            let page = archive.list(root, after.as_deref(), LIST).await?;
            let is_last = page.len() < LIST;
            after = page.last().map(|object| object.key.clone());
            objects.extend(page.into_iter().map(|object| (object.key.clone(), object)));
            if is_last {
                return Ok(Found { archive, objects });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Epoch = Epoch::new(1);

    #[test]
    fn a_running_playlist_is_ended_as_it_is() {
        let running = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-PLAYLIST-TYPE:EVENT\n#EXT-X-TARGETDURATION:6\n#EXTINF:6.006,\n000000.ts\n#EXTINF:5.5,\n000001.ts\n";
        let (text, duration_ms) = ended(running, FIRST).unwrap();
        assert_eq!(duration_ms, 11_506);
        assert_eq!(
            text,
            "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-PLAYLIST-TYPE:VOD\n#EXT-X-TARGETDURATION:6\n#EXTINF:6.006,\n../../e000001/hls/000000.ts\n\
             #EXTINF:5.5,\n../../e000001/hls/000001.ts\n#EXT-X-ENDLIST\n"
        );
        assert_eq!(ended(&text, FIRST), None, "again");
        assert_eq!(ended("#EXTM3U\n", FIRST), None);
        let fragments = "#EXTM3U\n#EXT-X-MAP:URI=\"init-0.mp4\"\n#EXTINF:1,\n000000.m4s\n";
        let (text, _) = ended(fragments, FIRST).unwrap();
        assert!(
            text.contains("\n#EXT-X-MAP:URI=\"../../e000001/hls/init-0.mp4\"\n"),
            "{text}"
        );
    }

    #[test]
    fn what_a_running_playlist_says_of_itself_is_read_and_leaves_it() {
        let running = "#EXTM3U\n#EXT-X-PLAYLIST-TYPE:EVENT\n#AIRCHECK:{\"version\":1,\"paused\":false,\"video_units\":7,\"audio_units\":9,\"start_ms\":5,\"gaps\":[]}\n#EXTINF:6.000,\n000000.ts\n";
        let totals = Totals::of(running);
        assert_eq!(
            (totals.video_units, totals.audio_units, totals.start_ms),
            (7, 9, Some(5))
        );
        let (text, _) = ended(running, FIRST).unwrap();
        assert!(!text.contains("AIRCHECK"), "{text}");
        assert_eq!(Totals::of("#EXTM3U\n"), Totals::default());
    }

    #[test]
    fn files_of_a_recording_know_their_epoch() {
        assert_eq!(epoch_of("d/a/s/r/e000012/mp4/000000.mp4"), Some(Epoch::new(12)));
        assert_eq!(epoch_of("d/a/s/r/mp4/000000.mp4"), None);
    }

    #[test]
    fn only_the_playlist_of_an_epoch_is_one() {
        assert!(is_playlist("d/a/s/r", "d/a/s/r/e000001/hls/index.m3u8"));
        for key in [
            "d/a/s/r/e000001/hls/x.m3u8",
            "d/a/s/r/hls/index.m3u8",
            "d/a/s/r/e000001/mp4/index.m3u8",
        ] {
            assert!(!is_playlist("d/a/s/r", key), "{key}");
        }
    }
}

#[cfg(test)]
#[path = "salvage_tests.rs"]
mod in_two_places;
