use std::sync::Arc;

use super::*;
use crate::{
    ids::Seeded,
    recording::{Cause, tests::sample},
    store::{FileFilter, Model, Page},
    template::Format,
    time::Manual,
};

const DAY: i64 = 86_400_000;

fn at(ms: i64) -> Timestamp {
    Timestamp::from_millis(1_790_000_000_000 + ms)
}

/// A library with a finished recording of `count` files that go after a day; they entered one each second.
async fn library(count: u32) -> (Repo, Recording, Vec<MediaFile>) {
    let repo = Repo::new(Arc::new(Model::new(Arc::new(Manual::at(at(0))))));
    let ids = Seeded::new(1);
    let (mut recording, file) = sample(&ids);
    recording.state = RecordingState::Recording;
    if let Some(flv) = recording.template.formats.get_mut(&Format::Flv) {
        flv.storage_time_s = 86_400;
    }
    let key = keys::recording(recording.id);
    let txn = Txn::new().put_json(key, &recording).unwrap();
    repo.store().commit(txn).await.unwrap();
    let token = crate::lease::FencingToken {
        recording: recording.id,
        epoch: recording.epoch,
    };
    let mut files = Vec::new();
    for n in 0..count {
        let file = MediaFile {
            id: FileId::generate(&ids, at(0)),
            sequence: n,
            ..file.clone()
        };
        repo.commit_file(token, file.clone(), at(i64::from(n) * 1_000))
            .await
            .unwrap();
        files.push(repo.file(file.id).await.unwrap().unwrap());
    }
    (repo, recording, files)
}

async fn set_state(repo: &Repo, recording: &Recording, state: RecordingState) {
    let ended = Recording {
        state,
        ..recording.clone()
    };
    let txn = Txn::new().put_json(keys::recording(recording.id), &ended).unwrap();
    repo.store().commit(txn).await.unwrap();
}

async fn due(repo: &Repo, now: Timestamp) -> Vec<FileId> {
    let (due, more) = repo.due_files(now, None, 1_000).await.unwrap();
    assert!(!more);
    due.into_iter().map(|due| due.file).collect()
}

async fn leftovers(repo: &Repo) -> Vec<String> {
    let scanned = repo.store().scan(Scan::prefix("")).await.unwrap();
    scanned.entries.into_iter().map(|entry| entry.key).collect()
}

#[tokio::test]
async fn a_file_is_due_when_its_storage_time_is_over_and_not_before() {
    let (repo, recording, files) = library(3).await;
    assert_eq!(files[1].expires, Some(at(DAY + 1_000)));
    assert_eq!(due(&repo, at(DAY - 1)).await, []);
    assert_eq!(due(&repo, at(DAY)).await, [files[0].id]);
    assert_eq!(due(&repo, at(DAY + 2_000)).await.len(), 3);
    let (page, more) = repo.due_files(at(2 * DAY), None, 2).await.unwrap();
    assert!(more && page.len() == 2 && page[0].recording == recording.id);
    let (rest, more) = repo.due_files(at(2 * DAY), Some(page[1].key.clone()), 2).await.unwrap();
    assert!(!more && rest.len() == 1);
}

#[tokio::test]
async fn what_is_kept_for_ever_has_no_entry() {
    let (repo, mut recording, files) = library(1).await;
    recording.template.formats.get_mut(&Format::Flv).unwrap().storage_time_s = 0;
    assert_eq!(MediaFile::expiry(Format::Flv, at(0), &recording), None);
    assert_eq!(
        MediaFile::expiry(Format::Mp4, at(0), &recording),
        None,
        "not its format"
    );
    let kept = repo.change_file(files[0].id, |file| file.expires = None).await.unwrap();
    assert_eq!(kept.expires, None);
    assert_eq!(due(&repo, at(3_000 * DAY)).await, []);
}

#[tokio::test]
async fn nothing_goes_while_its_recording_runs_is_locked_or_its_task_is_open() {
    let (repo, mut recording, files) = library(2).await;
    let ids: Vec<FileId> = files.iter().map(|file| file.id).collect();
    let late = at(2 * DAY);
    let gone = async || repo.remove_expired(recording.id, &ids, late).await.unwrap().len();
    for state in [
        RecordingState::Recording,
        RecordingState::Interrupted,
        RecordingState::Scheduled,
    ] {
        set_state(&repo, &recording, state).await;
        assert_eq!(gone().await, 0, "{state}");
        let asked = repo.remove_file(ids[0], late).await;
        assert!(matches!(asked, Err(RemovalError::Running(_))), "{state}: {asked:?}");
    }
    set_state(&repo, &recording, RecordingState::Finished).await;
    repo.lock_recording(recording.id, true).await.unwrap();
    assert_eq!(gone().await, 0);
    let asked = repo.remove_file(ids[0], late).await;
    assert!(matches!(asked, Err(RemovalError::RecordingLocked(_))), "{asked:?}");
    repo.lock_recording(recording.id, false).await.unwrap();

    let task = crate::ids::TaskId::generate(&Seeded::new(4), late);
    recording.cause = Cause::Task(task);
    set_state(&repo, &recording, RecordingState::Finished).await;
    let open = Txn::new().put(keys::open_task(task), "{}");
    repo.store().commit(open).await.unwrap();
    assert_eq!(repo.remove_expired(recording.id, &ids, late).await.unwrap(), []);
    repo.store()
        .commit(Txn::new().delete(keys::open_task(task)))
        .await
        .unwrap();
    assert_eq!(repo.remove_expired(recording.id, &ids, late).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_locked_file_stays_and_comes_due_again_when_it_is_unlocked() {
    let (repo, recording, files) = library(2).await;
    set_state(&repo, &recording, RecordingState::Finished).await;
    let (first, second) = (files[0].id, files[1].id);
    let locked = repo.change_file(first, |file| file.locked = true).await.unwrap();
    assert!(locked.locked);
    let again = repo.change_file(first, |file| file.locked = true).await.unwrap();
    assert_eq!(again, locked);
    let late = at(2 * DAY);
    assert_eq!(due(&repo, late).await, [second]);
    // Also where the index was read before it was locked.
    let begun = repo.remove_expired(recording.id, &[first, second], late).await.unwrap();
    assert_eq!(begun.len(), 1);
    let asked = repo.remove_file(first, late).await;
    assert!(matches!(asked, Err(RemovalError::FileLocked(_))), "{asked:?}");
    repo.change_file(first, |file| file.locked = false).await.unwrap();
    assert_eq!(due(&repo, late).await, [first]);
    let late = repo.change_file(second, |file| file.locked = true).await;
    assert!(matches!(late, Err(RemovalError::NoFile(_))), "it is gone: {late:?}");
}

/// A store in which somebody else is always a moment quicker, once.
#[derive(Debug)]
struct Raced {
    inner: Model,
    first: std::sync::Mutex<Option<Txn>>,
}

#[async_trait::async_trait]
impl crate::store::MetaStore for Raced {
    async fn get(&self, key: &str) -> Result<Option<crate::store::Entry>, StoreError> {
        self.inner.get(key).await
    }
    async fn scan(&self, scan: Scan) -> Result<crate::store::Scanned, StoreError> {
        self.inner.scan(scan).await
    }
    async fn commit(&self, txn: Txn) -> Result<Revision, StoreError> {
        let first = self.first.lock().unwrap().take();
        if let Some(first) = first {
            self.inner.commit(first).await?;
        }
        self.inner.commit(txn).await
    }
    async fn watch(&self, prefix: &str, after: Revision) -> Result<crate::store::Watch, StoreError> {
        self.inner.watch(prefix, after).await
    }
    async fn grant_lease(&self, ttl: std::time::Duration) -> Result<crate::store::LeaseId, StoreError> {
        self.inner.grant_lease(ttl).await
    }
    async fn renew_lease(&self, lease: crate::store::LeaseId) -> Result<(), StoreError> {
        self.inner.renew_lease(lease).await
    }
    async fn revoke_lease(&self, lease: crate::store::LeaseId) -> Result<(), StoreError> {
        self.inner.revoke_lease(lease).await
    }
}

/// The library of one file, and in it a change that becomes durable between reading and writing of the next one.
async fn raced(change_of: impl Fn(&mut MediaFile, &mut Recording)) -> (Repo, Recording, MediaFile) {
    let (repo, recording, files) = library(1).await;
    set_state(&repo, &recording, RecordingState::Finished).await;
    let model = Model::new(Arc::new(Manual::at(at(0))));
    for entry in repo.store().scan(Scan::prefix("")).await.unwrap().entries {
        crate::store::MetaStore::commit(&model, Txn::new().put(entry.key, entry.value))
            .await
            .unwrap();
    }
    let (mut file, mut held) = (files[0].clone(), recording.clone());
    held.state = RecordingState::Finished;
    change_of(&mut file, &mut held);
    let first = Txn::new()
        .put_json(keys::file(file.id), &file)
        .unwrap()
        .put_json(keys::recording(held.id), &held)
        .unwrap();
    let store = Raced {
        inner: model,
        first: std::sync::Mutex::new(Some(first)),
    };
    (Repo::new(Arc::new(store)), recording, files[0].clone())
}

#[tokio::test]
async fn a_lock_that_is_a_moment_quicker_than_the_removal_holds() {
    for whole in [false, true] {
        let lock = |file: &mut MediaFile, recording: &mut Recording| match whole {
            true => recording.locked = true,
            false => file.locked = true,
        };
        let (repo, recording, file) = raced(lock).await;
        let begun = repo
            .remove_expired(recording.id, &[file.id], at(2 * DAY))
            .await
            .unwrap();
        assert_eq!(begun, []);
        assert!(repo.file(file.id).await.unwrap().is_some());
        let (repo, _, file) = raced(lock).await;
        let asked = repo.remove_file(file.id, at(2 * DAY)).await;
        assert!(
            matches!(
                asked,
                Err(RemovalError::FileLocked(_) | RemovalError::RecordingLocked(_))
            ),
            "{asked:?}"
        );
    }
    let (repo, recording, file) = raced(|file, _| file.expires = Some(at(9 * DAY))).await;
    assert_eq!(
        repo.remove_expired(recording.id, &[file.id], at(2 * DAY))
            .await
            .unwrap(),
        []
    );
}

#[tokio::test]
async fn ten_thousand_due_files_leave_in_bounded_transactions_once_each() {
    let (repo, recording, files) = library(10_000).await;
    set_state(&repo, &recording, RecordingState::Finished).await;
    let late = at(2 * DAY);
    let (mut gone, mut after) = (std::collections::BTreeSet::new(), None);
    loop {
        let (due, more) = repo.due_files(late, after, 200).await.unwrap();
        assert!(due.len() <= 200);
        let ids: Vec<FileId> = due.iter().map(|due| due.file).collect();
        for removal in repo.remove_expired(recording.id, &ids, late).await.unwrap() {
            assert!(gone.insert(removal.file.id), "twice");
        }
        after = due.last().map(|due| due.key.clone());
        if !more {
            break;
        }
    }
    assert_eq!(gone.len(), files.len());
    assert_eq!(due(&repo, late).await, []);
    assert_eq!(repo.left_of(recording.id).await.unwrap(), Some(0));
    let mut after = None;
    loop {
        let removals = repo.removals(RemovalFrom::First, after, 1_000).await.unwrap();
        let Some(last) = removals.last() else { break };
        after = Some(last.file.id);
        repo.end_removals(recording.id, &removals, (true, false)).await.unwrap();
    }
    assert_eq!(leftovers(&repo).await, Vec::<String>::new());
}

#[tokio::test]
async fn the_record_of_a_recording_goes_with_its_last_file_unless_it_is_locked() {
    let (repo, recording, files) = library(2).await;
    set_state(&repo, &recording, RecordingState::Failed).await;
    let removal = repo.remove_file(files[0].id, at(5)).await.unwrap();
    assert_eq!(repo.left_of(recording.id).await.unwrap(), Some(1));
    repo.end_removals(recording.id, &[removal], (false, false))
        .await
        .unwrap();
    let (list, _) = repo.files(&FileFilter::default(), &Page::default()).await.unwrap();
    assert_eq!(list.len(), 1);
    let mut removal = repo.remove_file(files[1].id, at(6)).await.unwrap();
    removal.failures = 3;
    let from = RemovalFrom::First;
    repo.note_removal(from, &removal).await.unwrap();
    assert_eq!(repo.removals(from, None, 9).await.unwrap(), [removal.clone()]);
    repo.lock_recording(recording.id, true).await.unwrap();
    assert_eq!(repo.left_of(recording.id).await.unwrap(), None);
    let gone = std::slice::from_ref(&removal);
    repo.end_removals(recording.id, gone, (true, false)).await.unwrap();
    assert!(repo.recording(recording.id).await.unwrap().is_some());
    repo.note_removal(from, &removal).await.unwrap();
    assert_eq!(repo.removals(from, None, 9).await.unwrap(), [], "it has ended");
}

#[tokio::test]
async fn what_is_gone_from_the_first_place_waits_for_the_second_in_a_queue_of_its_own() {
    let (repo, recording, files) = library(120).await;
    set_state(&repo, &recording, RecordingState::Failed).await;
    let mut removals = Vec::new();
    for file in &files {
        removals.push(repo.remove_file(file.id, at(5)).await.unwrap());
    }
    let mut tried = removals[0].clone();
    tried.failures = 7;
    tried.problem = "away".to_owned();
    repo.note_removal(RemovalFrom::First, &tried).await.unwrap();
    repo.end_removals(recording.id, &removals, (true, true)).await.unwrap();
    assert!(
        repo.recording(recording.id).await.unwrap().is_none(),
        "it is out of the library whatever the second does"
    );
    assert_eq!(repo.removals(RemovalFrom::First, None, 9).await.unwrap(), []);
    assert_eq!(repo.removals_waiting(RemovalFrom::Second, 1_000).await.unwrap(), 120);
    let second = repo.removals(RemovalFrom::Second, None, 200).await.unwrap();
    assert!(
        second
            .iter()
            .all(|removal| removal.failures == 0 && removal.begun == at(5))
    );
    let behind = repo
        .removals(RemovalFrom::Second, Some(second[99].file.id), 200)
        .await
        .unwrap();
    assert_eq!(behind, second[100..]);
    assert!(repo.is_leaving(files[119].id).await.unwrap());
    repo.end_second_removals(&second).await.unwrap();
    assert!(!repo.is_leaving(files[119].id).await.unwrap());
    assert_eq!(leftovers(&repo).await, Vec::<String>::new());
}
