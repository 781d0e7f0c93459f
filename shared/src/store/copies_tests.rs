use std::sync::Arc;

use super::*;
use crate::{
    ids::Seeded,
    recording::tests::sample,
    store::{Model, library},
    time::Manual,
};

fn at(s: i64) -> Timestamp {
    Timestamp::from_millis(1_800_000_000_000 + s * 1_000)
}

fn workers() -> [WorkerId; 2] {
    let ids = Seeded::new(9);
    [WorkerId::generate(&ids, at(0)), WorkerId::generate(&ids, at(1))]
}

/// A store with `count` files that are to be copied.
async fn filled(count: usize) -> (Repo, Vec<CopyJob>) {
    let repo = Repo::new(Arc::new(Model::new(Arc::new(Manual::at(at(0))))));
    let ids = Seeded::new(5);
    let (_, file) = sample(&ids);
    let mut jobs = Vec::new();
    for sequence in 0..count {
        let mut file = file.clone();
        file.id = FileId::generate(&ids, at(0));
        file.sequence = u32::try_from(sequence).unwrap();
        let job = CopyJob::new(CopyOf::File(file.id), (file.recording, file.stream.clone(), ""), at(0));
        let txn = library::enter(&file).unwrap();
        let txn = txn.put_json(keys::copy(file.id.as_uuid()), &job).unwrap();
        repo.store().commit(txn).await.unwrap();
        jobs.push(job);
    }
    jobs.sort_by_key(|job| job.of.id());
    (repo, jobs)
}

async fn taken(repo: &Repo, worker: WorkerId, want: usize, now: i64, after: Option<Uuid>) -> (Vec<Uuid>, Option<Uuid>) {
    let (orders, at) = repo.take_copies((worker, &[]), want, at(now), after).await.unwrap();
    (orders.iter().map(|order| order.job.of.id()).collect(), at)
}

#[tokio::test]
async fn a_job_is_one_workers_until_it_falls_silent() {
    let (repo, jobs) = filled(1).await;
    let [one, two] = workers();
    let id = jobs[0].of.id();
    assert_eq!(taken(&repo, one, 5, 0, None).await.0, [id]);
    assert_eq!(taken(&repo, two, 5, 89, None).await.0, [] as [Uuid; 0]);
    assert!(repo.hold_copy(one, id, at(60)).await.unwrap());
    assert_eq!(taken(&repo, two, 5, 149, None).await.0, [] as [Uuid; 0]);
    assert!(!repo.hold_copy(two, id, at(100)).await.unwrap());
    assert_eq!(taken(&repo, two, 5, 151, None).await.0, [id]);
    assert!(!repo.hold_copy(one, id, at(152)).await.unwrap(), "it is another's");
    // It was started anew and holds nothing: what is its own it gets again at once.
    assert_eq!(taken(&repo, two, 5, 153, None).await.0, [id]);
    let held = repo.take_copies((two, &[id]), 5, at(153), None).await.unwrap();
    assert_eq!(held.0, [], "not twice");
    // The clock goes back.
    assert_eq!(taken(&repo, one, 5, -9_000, None).await.0, [id]);
}

#[tokio::test]
async fn what_is_copied_is_noted_with_the_file_and_asked_for_no_more() {
    let (repo, jobs) = filled(2).await;
    let [one, two] = workers();
    taken(&repo, one, 1, 0, None).await;
    let (id, since) = (jobs[0].of.id(), jobs[0].since);
    repo.copied(two, id, since, at(6)).await.unwrap();
    assert_eq!(repo.copies_waiting().await.unwrap().jobs, 2, "it is another's to do");
    for _ in 0..2 {
        repo.copied(one, id, since, at(7)).await.unwrap();
    }
    let CopyOf::File(file) = jobs[0].of else { unreachable!() };
    assert_eq!(repo.file(file).await.unwrap().unwrap().copied, Some(at(7)));
    assert_eq!(repo.copies(9).await.unwrap(), jobs[1..]);
    let backlog = Backlog {
        jobs: 1,
        since: Some(at(0)),
    };
    assert_eq!(repo.copies_waiting().await.unwrap(), backlog);
    // One of an older cause is not enough.
    taken(&repo, one, 1, 8, None).await;
    repo.copied(one, jobs[1].of.id(), at(-1), at(8)).await.unwrap();
    assert_eq!(repo.copies_waiting().await.unwrap().jobs, 1);
}

#[tokio::test]
async fn failures_wait_longer_each_time_and_never_end() {
    let (repo, jobs) = filled(1).await;
    let [one, two] = workers();
    let id = jobs[0].of.id();
    let (mut now, mut waits) = (0, Vec::new());
    for _ in 0..14 {
        assert_eq!(taken(&repo, one, 1, now, None).await.0, [id]);
        repo.copy_failed(two, id, "not its", at(now)).await.unwrap();
        repo.copy_failed(one, id, &"é".repeat(400), at(now)).await.unwrap();
        let job = repo.copies(1).await.unwrap().remove(0);
        assert!(job.problem.len() <= MAX_PROBLEM && job.taken.is_none());
        let wait = (job.retry_at.as_millis() - at(now).as_millis()) / 1_000;
        assert_eq!(taken(&repo, two, 1, now + wait - 1, None).await.0, [] as [Uuid; 0]);
        waits.push(wait);
        now += wait;
    }
    assert_eq!((waits[0], waits[13]), (2, 3_600));
    assert!(waits.is_sorted());
}

#[tokio::test]
async fn all_jobs_have_their_turn_however_many_fail() {
    let (repo, jobs) = filled(250).await;
    let [one, _] = workers();
    let (mut seen, mut after) = (Vec::new(), None);
    for _ in 0..130 {
        let (ids, at) = taken(&repo, one, 2, 0, after).await;
        for id in &ids {
            repo.copy_failed(one, *id, "away", at_start()).await.unwrap();
        }
        seen.extend(ids);
        after = at;
    }
    seen.sort_unstable();
    let all: Vec<Uuid> = jobs.iter().map(|job| job.of.id()).collect();
    assert_eq!(seen, all);
}

fn at_start() -> Timestamp {
    at(0)
}

#[tokio::test]
async fn who_removes_waits_for_who_copies() {
    let (repo, jobs) = filled(1).await;
    let [one, two] = workers();
    let id = jobs[0].of.id();
    taken(&repo, one, 1, 0, None).await;
    assert_eq!(repo.drop_copy(id, at(10)).await.unwrap(), Some(one));
    assert_eq!(repo.copies_waiting().await.unwrap().jobs, 1);
    assert_eq!(repo.drop_copy(id, at(91)).await.unwrap(), None);
    assert_eq!(taken(&repo, two, 1, 92, None).await.0, [] as [Uuid; 0]);
    assert!(!repo.hold_copy(one, id, at(92)).await.unwrap());
}

#[tokio::test]
async fn the_job_of_a_file_that_is_gone_goes() {
    let (repo, jobs) = filled(1).await;
    let CopyOf::File(file) = jobs[0].of else { unreachable!() };
    repo.store().commit(Txn::new().delete(keys::file(file))).await.unwrap();
    assert_eq!(taken(&repo, workers()[0], 1, 0, None).await.0, [] as [Uuid; 0]);
    assert_eq!(repo.copies_waiting().await.unwrap(), Backlog::default());
}
