//! Tests of [`super::GroupSync`].

use std::sync::mpsc;

use super::*;

const LONG: Duration = Duration::from_secs(3600);

#[test]
fn what_was_written_before_is_durable_after_a_sync() {
    let dir = tempfile::tempdir().unwrap();
    let sync = GroupSync::start(&[dir.path().to_path_buf(), dir.path().to_path_buf()], LONG).unwrap();
    std::fs::write(dir.path().join("a"), b"a").unwrap();
    let generation = sync.mark_dirty();
    assert_eq!(sync.outcome(generation), Outcome::Pending);
    assert!(sync.stats().oldest_unsynced.is_some());
    sync.sync_now().unwrap();
    assert!(sync.completed() >= generation);
    assert_eq!(sync.outcome(generation), Outcome::Durable);
    assert!(sync.generation() > generation);
    assert_eq!(sync.stats().oldest_unsynced, None);
    assert_eq!(sync.stats().syncs, 1);
}

#[test]
fn nothing_is_synced_until_something_is_marked_and_then_an_interval_later() {
    let (ran, runs) = mpsc::channel();
    let interval = Duration::from_millis(30);
    let sync = GroupSync::start_with(interval, move || {
        ran.send(Instant::now()).unwrap();
        Ok(())
    })
    .unwrap();
    assert!(runs.recv_timeout(4 * interval).is_err());
    for _ in 0..3 {
        let marked = Instant::now();
        let generation = sync.mark_dirty();
        let started = runs.recv().unwrap();
        assert!(started - marked >= interval, "{:?}", started - marked);
        let mut state = sync.shared.lock();
        while state.outcome(generation) == Outcome::Pending {
            state = sync.shared.done.wait(state).unwrap();
        }
    }
    let stats = sync.stats();
    assert!(stats.longest_wait >= interval && stats.longest_unsynced >= stats.longest_wait);
}

#[test]
fn no_write_waits_longer_than_the_interval_and_the_syncs_own_time() {
    let dir = tempfile::tempdir().unwrap();
    let interval = Duration::from_millis(100);
    let sync = GroupSync::start(&[dir.path().to_path_buf()], interval).unwrap();
    let begin = Instant::now();
    let mut last = 0;
    // Writes without a pause, as a worker's journals are written, over ten intervals.
    while begin.elapsed() < 10 * interval {
        std::fs::write(dir.path().join("journal"), [7; 4096]).unwrap();
        last = sync.mark_dirty();
    }
    sync.sync_now().unwrap();
    assert_eq!(sync.outcome(last), Outcome::Durable);
    let stats = sync.stats();
    // A busy machine may start a thread late; a promise that is broken is late every time.
    let late = Duration::from_millis(500);
    let bound = interval + 2 * stats.longest_sync + late;
    assert!(
        stats.longest_unsynced <= bound,
        "{:?} > {bound:?}",
        stats.longest_unsynced
    );
    assert!(stats.syncs >= 2, "{}", stats.syncs);
}

#[test]
fn a_write_during_a_sync_is_in_the_next_generation() {
    let (ran, runs) = mpsc::channel();
    let (go_on, may_end) = mpsc::channel();
    let sync = GroupSync::start_with(Duration::ZERO, move || {
        ran.send(()).unwrap();
        may_end.recv().unwrap();
        Ok(())
    })
    .unwrap();
    let first = sync.mark_dirty();
    runs.recv().unwrap();
    let second = sync.mark_dirty();
    assert!(second > first);
    assert_eq!(sync.outcome(first), Outcome::Pending);
    go_on.send(()).unwrap();
    runs.recv().unwrap();
    assert_eq!(sync.outcome(first), Outcome::Durable);
    assert_eq!(sync.outcome(second), Outcome::Pending);
    go_on.send(()).unwrap();
    sync_again(&sync, &go_on);
    assert_eq!(sync.outcome(second), Outcome::Durable);
}

fn sync_again(sync: &GroupSync, go_on: &mpsc::Sender<()>) {
    go_on.send(()).unwrap();
    sync.sync_now().unwrap();
}

#[test]
fn a_failed_sync_is_counted_and_never_called_durable() {
    let mut results = vec![Ok(()), Err(io::Error::from_raw_os_error(5)), Ok(())];
    let sync = GroupSync::start_with(LONG, move || results.pop().unwrap()).unwrap();
    let before = sync.mark_dirty();
    sync.sync_now().unwrap();
    let lost = sync.mark_dirty();
    assert_eq!(sync.sync_now().unwrap_err().raw_os_error(), Some(5));
    let after = sync.mark_dirty();
    sync.sync_now().unwrap();
    assert_eq!(
        [before, lost, after].map(|g| sync.outcome(g)),
        [Outcome::Durable, Outcome::Failed, Outcome::Durable]
    );
    assert_eq!((sync.stats().errors, sync.stats().last_error), (1, Some(5)));
    assert!(sync.completed() >= after);
}

#[test]
fn dropping_syncs_what_is_left() {
    let (ran, runs) = mpsc::channel();
    let sync = GroupSync::start_with(LONG, move || {
        ran.send(()).unwrap();
        Ok(())
    })
    .unwrap();
    sync.mark_dirty();
    drop(sync);
    assert_eq!(runs.try_iter().count(), 1);
}

#[test]
fn no_mark_is_ever_lost() {
    let sync = Arc::new(GroupSync::start_with(Duration::from_micros(50), || Ok(())).unwrap());
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let sync = Arc::clone(&sync);
            thread::spawn(move || {
                for _ in 0..5_000 {
                    sync.mark_dirty();
                }
                sync.mark_dirty()
            })
        })
        .collect();
    for thread in threads {
        let generation = thread.join().unwrap();
        // No further mark comes: the sync of this generation must come by itself.
        let mut state = sync.shared.lock();
        while state.outcome(generation) == Outcome::Pending {
            state = sync.shared.done.wait(state).unwrap();
        }
    }
}

#[test]
fn who_waits_is_not_kept_waiting_for_the_whole_interval() {
    let interval = Duration::from_secs(2);
    let sync = GroupSync::start_with(interval, || Ok(())).unwrap();
    for _ in 0..2 {
        let marked = Instant::now();
        let generation = sync.mark_dirty();
        sync.hasten();
        sync.hasten();
        let mut state = sync.shared.lock();
        while state.outcome(generation) == Outcome::Pending {
            state = sync.shared.done.wait(state).unwrap();
        }
        let took = state.stats.longest_wait;
        assert!(took >= interval / 4 && marked.elapsed() < interval, "{took:?}");
    }
}
