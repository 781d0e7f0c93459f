//! `aircheck recover`: reads every `recording.json` in storage, and has the coordinator enter what its library has lost.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt as _, stream};
use proto::v1::recordings_client::RecordingsClient;
use proto::v1::{RestoreRecordingRequest, SeenFile};
use serde_json::{Value, json};
use shared::config::{Config, ObjectsConfig};
use shared::ids::{FileId, RecordingId};
use shared::objects::{Archive, Listed, ObjectError, ObjectsUrl, place_of};
use shared::playlist::named_by;
use shared::recording::{MediaFile, RecordingDocument};
use shared::template::Format;
use shared::time::Timestamp;

use super::{Done, Way, connect, print, said};
use crate::cli::Recover;

/// Objects that are listed at a time.
const PAGE: usize = 1_000;
/// Recordings that are looked at together.
const AT_A_TIME: usize = 8;
/// Most problems and stray keys that are printed; all are counted.
const SHOWN: usize = 1_000;
/// A line of progress each so many recordings.
const SAY_EVERY: u64 = 1_000;

/// The objects of one folder `[@PLACE/]DOMAIN/APP/STREAM/RECORDING`.
struct Group {
    root: String,
    objects: Vec<Listed>,
}

/// What was found, and what became of it.
#[derive(Debug, Default)]
struct Summary {
    recordings: u64,
    made: u64,
    added: u64,
    known: u64,
    leaving: u64,
    strays: Vec<String>,
    stray_count: u64,
    problems: Vec<String>,
    problem_count: u64,
}

/// What one folder came to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Examined {
    /// Files that are whole, and when they were stored.
    seen: BTreeMap<FileId, Timestamp>,
    /// Objects that no document speaks of.
    strays: Vec<String>,
    problems: Vec<String>,
}

/// The folder of the recording that an object may belong to.
fn root_of(key: &str) -> Option<&str> {
    let mut parts = key.split('/');
    let above = if place_of(key).is_empty() { 3 } else { 4 };
    let len: usize = parts.by_ref().take(above).map(|part| part.len() + 1).sum();
    let id = parts.next()?;
    parts.next()?;
    id.parse::<RecordingId>().ok()?;
    key.get(..len + id.len())
}

/// The document of the recording in a folder, of several places' the newest, as it lies there; and what is wrong with those of no use. Of two
/// places one may have been away when it was written last.
fn newest(root: &str, found: Vec<Vec<u8>>) -> (Option<(RecordingDocument, Vec<u8>)>, Vec<String>) {
    let (mut fit, mut unfit) = (Vec::new(), Vec::new());
    for bytes in found {
        match RecordingDocument::from_json(&bytes) {
            Ok(document) if document.recording.folder() == root => fit.push((document, bytes)),
            Ok(RecordingDocument { recording, .. }) => {
                unfit.push(format!("it is of recording {} of {}", recording.id, recording.stream));
            }
            Err(error) => unfit.push(error.to_string()),
        }
    }
    let newest = fit.into_iter().max_by_key(|(document, _)| {
        let recording = &document.recording;
        (
            recording.epoch.get(),
            recording.state.is_terminal(),
            document.files.len(),
        )
    });
    let instead = match newest {
        Some(_) => "; the other place's was taken",
        None => "",
    };
    let unfit = unfit
        .iter()
        .map(|what| format!("{root}/recording.json: {what}{instead}"));
    (newest, unfit.collect())
}

/// Holds a document against what lies in its folder. `playlists` are the texts of its HLS files.
fn examine(group: &Group, document: &RecordingDocument, playlists: &BTreeMap<FileId, String>) -> Examined {
    let mut out = Examined::default();
    let there: BTreeMap<&str, &Listed> = group
        .objects
        .iter()
        .map(|object| (object.key.as_str(), object))
        .collect();
    let mut spoken_of = BTreeSet::from([format!("{}/recording.json", group.root)]);
    for file in &document.files {
        spoken_of.insert(file.object_key.clone());
        let named = playlists.get(&file.id).map(|text| named_by(text, &file.object_key));
        spoken_of.extend(named.iter().flatten().cloned());
        match (there.get(file.object_key.as_str()), wrong(file, &there, named.as_ref())) {
            (Some(object), None) => drop(out.seen.insert(file.id, object.modified)),
            (_, problem) => {
                let problem = problem.unwrap_or_else(|| "is not there".to_owned());
                out.problems.push(format!("{}: {problem}", file.object_key));
            }
        }
    }
    // What a running recording has in storage it may not have written down yet; earlier pushes' playlists are part of a stitched one.
    let is_index = |key: &str| key.ends_with("/hls/index.m3u8");
    if document.recording.state.is_terminal() {
        let strays = there.keys().filter(|key| !spoken_of.contains(**key) && !is_index(key));
        out.strays.extend(strays.map(|key| (*key).to_owned()));
    }
    out
}

/// What is wrong with a file's objects.
fn wrong(file: &MediaFile, there: &BTreeMap<&str, &Listed>, named: Option<&BTreeSet<String>>) -> Option<String> {
    let object = there.get(file.object_key.as_str())?;
    if file.format != Format::Hls {
        let (has, said) = (object.size, file.size);
        return (has != said).then(|| format!("has {has} bytes, its recording.json says {said}"));
    }
    let Some(named) = named else {
        return Some("cannot be read".to_owned());
    };
    let missing = named.iter().find(|key| !there.contains_key(key.as_str()))?;
    Some(format!("names {missing}, which is not there"))
}

impl Summary {
    fn stray(&mut self, keys: impl IntoIterator<Item = String>) {
        for key in keys {
            self.stray_count += 1;
            if self.strays.len() < SHOWN {
                self.strays.push(key);
            }
        }
    }

    fn problem(&mut self, text: String) {
        self.problem_count += 1;
        if self.problems.len() < SHOWN {
            self.problems.push(text);
        }
    }

    fn document(&self, dry_run: bool) -> Value {
        json!({
            "dry_run": dry_run,
            "recordings": self.recordings,
            "recordings_restored": self.made,
            "files_restored": self.added,
            "files_known": self.known,
            "files_leaving": self.leaving,
            "problem_count": self.problem_count,
            "problems": self.problems,
            "stray_count": self.stray_count,
            "strays": self.strays,
        })
    }

    fn text(&self, dry_run: bool) -> String {
        let verb = if dry_run { "would be restored" } else { "restored" };
        let mut text = format!(
            "{} recordings found, {} {verb}\n{} files {verb}, {} were known, {} are being removed\n",
            self.recordings, self.made, self.added, self.known, self.leaving
        );
        for problem in &self.problems {
            text += &format!("problem  {problem}\n");
        }
        for stray in &self.strays {
            text += &format!("stray    {stray}\n");
        }
        let hidden = self.problem_count + self.stray_count - (self.problems.len() + self.strays.len()) as u64;
        if hidden > 0 {
            text += &format!("and {hidden} more\n");
        }
        text
    }
}

/// What became of one folder.
struct Outcome {
    examined: Examined,
    restored: Option<proto::v1::RestoreRecordingResponse>,
}

/// A place that is looked through.
struct Asked {
    archive: Archive,
    /// It is looked through for recordings of the place of this name alone; none: for all.
    only: Option<String>,
}

impl Asked {
    fn may_hold(&self, key: &str) -> bool {
        self.only.as_ref().is_none_or(|only| place_of(key) == only)
    }
}

struct Recovery {
    /// The first is asked for, the others have what belongs to it.
    places: Vec<Asked>,
    way: Way,
    dry_run: bool,
}

impl Recovery {
    /// Where something of a key may lie.
    fn places_of(&self, key: &str) -> impl Iterator<Item = &Archive> {
        let places = self.places.iter().filter(move |place| place.may_hold(key));
        places.map(|place| &place.archive)
    }

    /// Adds what other places have of a recording.
    async fn gather(&self, mut group: Group) -> Result<Group, ObjectError> {
        if self.places_of(&group.root).count() == 1 {
            return Ok(group);
        }
        let mut known: BTreeSet<String> = group.objects.iter().map(|object| object.key.clone()).collect();
        for place in self.places_of(&group.root) {
            let mut after = None;
            loop {
                let page = place.list(&group.root, after.as_deref(), PAGE).await?;
                let is_last = page.len() < PAGE;
                after = page.last().map(|object| object.key.clone());
                let new = page.into_iter().filter(|object| known.insert(object.key.clone()));
                group.objects.extend(new);
                if is_last {
                    break;
                }
            }
        }
        Ok(group)
    }

    /// What lies under a key in each place that has it.
    async fn each(&self, key: &str) -> Result<Vec<Vec<u8>>, ObjectError> {
        let mut found = Vec::new();
        for place in self.places_of(key) {
            match place.get(key).await {
                Ok(bytes) => found.push(bytes.to_vec()),
                Err(ObjectError::Missing(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    async fn restore(&self, group: Group) -> Result<Outcome, Box<dyn std::error::Error + Send + Sync>> {
        let group = self.gather(group).await?;
        let key = format!("{}/recording.json", group.root);
        let alone = |strays: Vec<Listed>, problems: Vec<String>| Outcome {
            examined: Examined {
                strays: strays.into_iter().map(|object| object.key).collect(),
                problems,
                ..Examined::default()
            },
            restored: None,
        };
        if !group.objects.iter().any(|object| object.key == key) {
            return Ok(alone(group.objects, Vec::new()));
        }
        let found = self.each(&key).await?;
        let (newest, unfit) = newest(&group.root, found);
        let Some((document, bytes)) = newest else {
            // What is there cannot be told from strays where nobody can read what is said of it.
            let strays = if unfit.is_empty() { group.objects } else { Vec::new() };
            return Ok(alone(strays, unfit));
        };
        let mut playlists = BTreeMap::new();
        let is_there = |file: &&MediaFile| group.objects.iter().any(|object| object.key == file.object_key);
        for file in document
            .files
            .iter()
            .filter(|file| file.format == Format::Hls)
            .filter(is_there)
        {
            // One that was left running in a place that went away is not the one that the library means.
            let texts = self.each(&file.object_key).await?;
            let texts = texts.iter().filter_map(|bytes| std::str::from_utf8(bytes).ok());
            if let Some(text) = texts.max_by_key(|text| (text.contains("#EXT-X-ENDLIST"), text.len())) {
                playlists.insert(file.id, text.to_owned());
            }
        }
        let mut examined = examine(&group, &document, &playlists);
        examined.problems.extend(unfit);
        let seen = examined.seen.iter().map(|(file, stored)| SeenFile {
            file_id: file.to_string(),
            stored_ms: stored.as_millis(),
        });
        let request = RestoreRecordingRequest {
            document: bytes,
            seen: seen.collect(),
            dry_run: self.dry_run,
        };
        let answer = RecordingsClient::new(self.way.clone()).restore_recording(request).await;
        Ok(Outcome {
            examined,
            restored: Some(answer.map_err(said)?.into_inner()),
        })
    }

    async fn restore_all(&self, groups: Vec<Group>, summary: &mut Summary) -> Done {
        let mut outcomes = stream::iter(groups)
            .map(|group| self.restore(group))
            .buffered(AT_A_TIME);
        while let Some(outcome) = outcomes.next().await {
            let Outcome { examined, restored } = outcome?;
            summary.stray(examined.strays);
            examined
                .problems
                .into_iter()
                .for_each(|problem| summary.problem(problem));
            if let Some(restored) = restored {
                summary.recordings += 1;
                summary.made += u64::from(restored.recording_restored);
                summary.added += u64::from(restored.files_restored);
                summary.known += u64::from(restored.files_known);
                summary.leaving += u64::from(restored.files_leaving);
                if summary.recordings.is_multiple_of(SAY_EVERY) {
                    eprintln!("{} recordings looked at", summary.recordings);
                }
            }
        }
        Ok(())
    }
}

pub(crate) async fn run(args: Recover) -> Done {
    let url: ObjectsUrl = args
        .from_objects
        .parse()
        .map_err(|error| format!("--from-objects: {error}"))?;
    let config = crate::roles::read(&args.settings, shared::config::Overrides::default()).map_err(|e| e.to_string())?;
    let recovery = Recovery {
        places: places(&config, &url)?,
        way: connect(&args.client)?,
        dry_run: args.dry_run,
    };
    let mut summary = Summary::default();
    let mut roots = BTreeSet::new();
    for place in &recovery.places {
        recovery.restore_from(place, &mut roots, &mut summary).await?;
    }
    print(&args.client, &summary.document(args.dry_run), || {
        summary.text(args.dry_run)
    })?;
    match summary.problem_count {
        0 => Ok(()),
        count => Err(format!("{count} files or recordings were not restored, see above").into()),
    }
}

/// The place that is asked for. With `objects.url` go all that the settings name; and with a backup the other place, since what is in both belongs
/// together.
fn places(config: &Config, url: &ObjectsUrl) -> Result<Vec<Asked>, ObjectError> {
    let first = &config.worker.objects;
    let is = |place: &ObjectsConfig| place.url.as_ref() == Some(url);
    let named = || {
        let place = |name: &String| Some((Some(name.clone()), first.place(name)?));
        first.places.keys().filter_map(place)
    };
    let backup = || first.backup().into_iter();
    // They may have one URL, of two services: then the first is meant.
    let (asked, others): (ObjectsConfig, Vec<_>) = if is(first) {
        let others = backup().map(|backup| (None, backup)).chain(named());
        (first.clone(), others.collect())
    } else if let Some(second) = first.second().filter(is) {
        let others = [(None, first.clone())].into_iter().chain(named());
        (second, others.filter(|_| backup().next().is_some()).collect())
    } else if let Some((name, place)) = named().find(|(_, place)| is(place)) {
        (place, backup().map(|backup| (name.clone(), backup)).collect())
    } else {
        (first.clone(), Vec::new())
    };
    let open = |only, url: &ObjectsUrl, place: &ObjectsConfig| {
        let archive = Archive::open(url, place)?;
        Ok::<_, ObjectError>(Asked { archive, only })
    };
    let mut places = vec![open(None, url, &asked)?];
    for (only, place) in others {
        if let Some(url) = &place.url {
            places.push(open(only, url, &place)?);
        }
    }
    Ok(places)
}

impl Recovery {
    /// Goes through one place; folders that an earlier one had are done.
    async fn restore_from(&self, place: &Asked, roots: &mut BTreeSet<String>, summary: &mut Summary) -> Done {
        let (mut after, mut open, mut whole): (Option<String>, Option<Group>, Vec<Group>) = (None, None, Vec::new());
        loop {
            let page = place.archive.list("", after.as_deref(), PAGE).await?;
            let is_last = page.len() < PAGE;
            after = page.last().map(|object| object.key.clone());
            for object in page.into_iter().filter(|object| place.may_hold(&object.key)) {
                let Some(root) = root_of(&object.key) else {
                    summary.stray([object.key]);
                    continue;
                };
                match &mut open {
                    Some(group) if group.root == root => group.objects.push(object),
                    _ => {
                        let root = root.to_owned();
                        let objects = vec![object];
                        whole.extend(open.replace(Group { root, objects }));
                    }
                }
            }
            if is_last {
                whole.extend(open.take());
            }
            if self.places.len() > 1 {
                whole.retain(|group| roots.insert(group.root.clone()));
            }
            self.restore_all(std::mem::take(&mut whole), summary).await?;
            if is_last {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOT: &str = "d/a/s/0198f3b2-0000-7000-8000-000000000001";

    fn listed(key: &str, size: u64) -> Listed {
        let modified = Timestamp::from_millis(7);
        let key = format!("{ROOT}/{key}");
        Listed { key, size, modified }
    }

    fn document(files: &[(&str, Format, u64)], state: &str) -> RecordingDocument {
        let files: Vec<Value> = files
            .iter()
            .enumerate()
            .map(|(n, (key, format, size))| {
                json!({
                    "id": format!("0198f3b2-0000-7000-8000-00000000001{n}"),
                    "recording": "0198f3b2-0000-7000-8000-000000000001",
                    "stream": {"domain": "d", "app": "a", "stream": "s"},
                    "format": format.as_str(), "sequence": n, "name": "n", "object_key": format!("{ROOT}/{key}"),
                    "size": size, "duration_ms": 1, "start": 1, "end": 2, "checksum": "", "video_units": 0, "audio_units": 0,
                    "gaps": [], "epoch": 1,
                })
            })
            .collect();
        let text = json!({
            "schema": "aircheck.recording/1",
            "recording": {
                "id": "0198f3b2-0000-7000-8000-000000000001",
                "stream": {"domain": "d", "app": "a", "stream": "s"},
                "cause": "built_in", "state": state, "reason": "", "epoch": 1,
                "template": {"name": "t"}, "publishes": [], "worker": "0198f3b2-0000-7000-8000-000000000002",
                "params": "", "started": 1, "ended": 2, "gaps": [],
            },
            "files": files,
        });
        RecordingDocument::from_json(text.to_string().as_bytes()).unwrap()
    }

    fn examined(objects: &[Listed], document: &RecordingDocument, playlist: Option<&str>) -> Examined {
        let group = Group {
            root: ROOT.to_owned(),
            objects: objects.to_vec(),
        };
        let hls = document.files.iter().find(|file| file.format == Format::Hls);
        let playlists = hls.zip(playlist).map(|(file, text)| (file.id, text.to_owned()));
        examine(&group, document, &playlists.into_iter().collect())
    }

    #[test]
    fn an_object_belongs_to_the_recording_whose_folder_it_is_in() {
        assert_eq!(root_of(&format!("{ROOT}/recording.json")), Some(ROOT));
        assert_eq!(root_of(&format!("{ROOT}/e000001/flv/0.flv")), Some(ROOT));
        let cold = format!("@cold/{ROOT}");
        assert_eq!(root_of(&format!("{cold}/recording.json")), Some(cold.as_str()));
        assert_eq!(root_of(&format!("x/{ROOT}/recording.json")), None);
        for key in [ROOT, "a/b/c/d/e", "recording.json", "a/b/c", ""] {
            assert_eq!(root_of(key), None, "{key}");
        }
    }

    #[test]
    fn files_are_seen_when_they_are_whole() {
        let document = document(
            &[
                ("e1/flv/0.flv", Format::Flv, 5),
                ("e1/mp4/0.mp4", Format::Mp4, 6),
                ("e1/aac/0.aac", Format::Aac, 1),
            ],
            "finished",
        );
        let objects = [
            listed("recording.json", 1),
            listed("e1/flv/0.flv", 5),
            listed("e1/mp4/0.mp4", 5),
            listed("e1/flv/1.flv", 5),
        ];
        let found = examined(&objects, &document, None);
        assert_eq!(
            found.seen.into_iter().collect::<Vec<_>>(),
            [(document.files[0].id, Timestamp::from_millis(7))]
        );
        assert_eq!(found.strays, [format!("{ROOT}/e1/flv/1.flv")]);
        assert!(
            found.problems[0].contains("has 5 bytes, its recording.json says 6")
                && found.problems[1].ends_with("is not there")
        );
    }

    #[test]
    fn a_playlist_is_whole_with_all_that_it_names_in_all_its_epochs() {
        let document = document(&[("e000002/hls/index.m3u8", Format::Hls, 5)], "finished");
        let text = "#EXTM3U\n#EXT-X-MAP:URI=\"init.mp4\"\n#EXTINF:1,\n../../e000001/hls/0.ts\n#EXTINF:1,\n1.ts\n";
        let all = [
            "recording.json",
            "e000001/hls/0.ts",
            "e000001/hls/index.m3u8",
            "e000002/hls/1.ts",
            "e000002/hls/index.m3u8",
            "e000002/hls/init.mp4",
        ];
        let objects: Vec<Listed> = all.iter().map(|key| listed(key, 1)).collect();
        let found = examined(&objects, &document, Some(text));
        assert_eq!(
            (found.seen.len(), found.strays.len(), found.problems.len()),
            (1, 0, 0),
            "{found:?}"
        );
        for gone in [1, 3, 4, 5] {
            let mut objects = objects.clone();
            objects.remove(gone);
            let found = examined(&objects, &document, Some(text));
            assert_eq!((found.seen.len(), found.problems.len()), (0, 1), "{gone}: {found:?}");
        }
    }

    #[test]
    fn a_document_that_cannot_be_read_does_not_hide_the_other_places() {
        let with = |files: &[(&str, Format, u64)], state| document(files, state).to_json().unwrap();
        let good = with(&[("e1/flv/0.flv", Format::Flv, 5)], "finished");
        let older = with(&[], "recording");
        let strange = String::from_utf8(good.clone()).unwrap().replace("\"s\"", "\"t\"");
        for bad in [b"{".to_vec(), Vec::new(), strange.into_bytes()] {
            for found in [vec![bad.clone(), good.clone()], vec![good.clone(), bad.clone()]] {
                let (taken, problems) = newest(ROOT, found);
                assert_eq!(taken.unwrap().1, good);
                assert!(problems.len() == 1 && problems[0].starts_with(ROOT), "{problems:?}");
                assert!(problems[0].ends_with("the other place's was taken"), "{problems:?}");
            }
            let (taken, problems) = newest(ROOT, vec![bad.clone(), bad.clone()]);
            assert!(taken.is_none() && problems.len() == 2, "{problems:?}");
        }
        let (taken, problems) = newest(ROOT, vec![older.clone(), good.clone()]);
        assert_eq!((taken.unwrap().1, problems.len()), (good, 0), "the newest");
        assert_eq!(newest(ROOT, vec![older.clone()]).0.unwrap().1, older);
        assert_eq!(newest(ROOT, Vec::new()), (None, Vec::new()));
    }

    #[test]
    fn what_a_running_recording_has_stored_is_no_stray() {
        let document = document(&[], "recording");
        let objects = [listed("recording.json", 1), listed("e000001/hls/0.ts", 5)];
        assert_eq!(examined(&objects, &document, None), Examined::default());
    }
}
