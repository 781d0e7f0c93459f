use proptest::prelude::*;

use super::{
    super::{Change, Guard, Op},
    *,
};
use crate::{
    store::{Kv, Model, contract},
    time::{Manual, System},
};

fn open(dir: &tempfile::TempDir) -> Embedded {
    Embedded::open(&dir.path().join("m.redb"), Arc::new(System::new())).unwrap()
}

macro_rules! contract_cases {
    ($($case:ident)*) => {
        mod embedded_keeps {
            $(#[tokio::test] async fn $case() {
                let dir = tempfile::tempdir().unwrap();
                super::contract::$case(&super::open(&dir)).await;
            })*
        }
        mod model_keeps {
            use super::*;
            $(#[tokio::test] async fn $case() {
                contract::$case(&Model::new(Arc::new(System::new()))).await;
            })*
        }
    };
}
crate::for_each_contract_case!(contract_cases);

#[tokio::test]
async fn what_was_answered_is_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir);
    let lease = store.grant_lease(Duration::from_secs(1)).await.unwrap();
    store
        .commit(Txn::new().put("a", "1").put_leased("l", "x", lease))
        .await
        .unwrap();
    let revision = store.commit(Txn::new().put("b", "2").delete("a")).await.unwrap();
    assert!(
        store.watch("", Revision(0)).await.is_ok(),
        "nothing is compacted while it runs"
    );
    drop(store);
    let store = open(&dir);
    let scanned = store.scan(Scan::prefix("")).await.unwrap();
    assert_eq!(
        scanned.entries.iter().map(|e| e.key.as_str()).collect::<Vec<_>>(),
        ["b", "l"]
    );
    assert_eq!(scanned.revision, revision);
    assert!(matches!(
        store.watch("", Revision(0)).await,
        Err(StoreError::Compacted { .. })
    ));
    let mut watch = store.watch("", revision).await.unwrap();
    assert_eq!(
        watch.next().await.unwrap().changes,
        [Change::Delete("l".into())],
        "leases go on, and end"
    );
    assert!(
        store.grant_lease(Duration::from_secs(1)).await.unwrap() > lease,
        "ids are not used twice"
    );
}

#[tokio::test]
async fn the_file_belongs_to_one_process() {
    let dir = tempfile::tempdir().unwrap();
    let _first = open(&dir);
    let second = Embedded::open(&dir.path().join("m.redb"), Arc::new(System::new())).unwrap_err();
    assert!(second.to_string().contains("another process has it open"), "{second}");
    std::fs::write(dir.path().join("other"), "not a database, but long enough to look at").unwrap();
    assert!(Embedded::open(&dir.path().join("other"), Arc::new(System::new())).is_err());
}

#[tokio::test]
async fn the_file_is_free_as_soon_as_it_is_said_to_be() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..50 {
        let store = open(&dir);
        let held = store.held();
        let closing = std::thread::spawn(move || drop(store));
        while held.strong_count() > 0 {
            std::hint::spin_loop();
        }
        Embedded::open(&dir.path().join("m.redb"), Arc::new(System::new())).unwrap();
        closing.join().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_writers_at_once_share_commits_and_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(open(&dir));
    let tasks: Vec<_> = (0..2_000u32)
        .map(|n| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.commit(Txn::new().put(format!("k/{n:05}"), "v")).await.unwrap() })
        })
        .collect();
    let mut revisions = Vec::new();
    for task in tasks {
        revisions.push(task.await.unwrap().0);
    }
    revisions.sort_unstable();
    assert_eq!(revisions, (1..=2_000).collect::<Vec<_>>());
    assert!(store.scan(Scan::prefix("k/").limit(10)).await.unwrap().more);
}

/// A file in memory that fails when it is told to.
#[derive(Debug, Clone, Default)]
struct Memory {
    bytes: Arc<std::sync::Mutex<Vec<u8>>>,
    fail: Arc<std::sync::atomic::AtomicBool>,
}

impl Memory {
    fn working(&self) -> Result<std::sync::MutexGuard<'_, Vec<u8>>, std::io::Error> {
        match self.fail.load(std::sync::atomic::Ordering::SeqCst) {
            true => Err(std::io::Error::other("no space left on device")),
            false => Ok(self.bytes.lock().unwrap()),
        }
    }
}

impl redb::StorageBackend for Memory {
    fn len(&self) -> Result<u64, std::io::Error> {
        Ok(self.bytes.lock().unwrap().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), std::io::Error> {
        let offset = usize::try_from(offset).unwrap();
        out.copy_from_slice(&self.bytes.lock().unwrap()[offset..offset + out.len()]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), std::io::Error> {
        self.working()?.resize(usize::try_from(len).unwrap(), 0);
        Ok(())
    }

    fn sync_data(&self) -> Result<(), std::io::Error> {
        drop(self.working()?);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), std::io::Error> {
        let offset = usize::try_from(offset).unwrap();
        self.working()?[offset..offset + data.len()].copy_from_slice(data);
        Ok(())
    }
}

#[tokio::test]
async fn a_full_disk_is_said_and_the_store_works_again_when_the_disk_does() {
    let memory = Memory::default();
    let file = memory.clone();
    let opener = Box::new(move || Database::builder().create_with_backend(file.clone()));
    let store = Embedded::open_with(opener, Arc::new(System::new())).unwrap();
    let before = store.commit(Txn::new().put("before", "1")).await.unwrap();
    let mut watch = store.watch("", before).await.unwrap();
    memory.fail.store(true, std::sync::atomic::Ordering::SeqCst);
    let failed = store.commit(Txn::new().put("lost", "1")).await.unwrap_err();
    assert!(failed.to_string().contains("no space left"), "{failed}");
    assert_eq!(failed.class(), crate::store::ErrorClass::Retry);
    assert!(store.commit(Txn::new().put("lost", "2")).await.is_err());
    memory.fail.store(false, std::sync::atomic::Ordering::SeqCst);
    let found = tokio::time::timeout(Duration::from_secs(10), async {
        loop {
            // Nobody needs to write for the store to come back.
            if let Ok(found) = store.get("before").await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert_eq!(found.await.unwrap().unwrap().revision, before);
    let after = store.commit(Txn::new().put("after", "1")).await.unwrap();
    assert!(after > before);
    assert!(
        matches!(watch.next().await, Err(StoreError::Compacted { .. })),
        "watchers scan again"
    );
    assert_eq!(store.scan(Scan::prefix("")).await.unwrap().revision, after);
}

#[derive(Debug, Clone)]
enum Step {
    Put(u8, u8, Option<u8>),
    Delete(u8),
    Cas(u8, bool),
    Grant,
    Renew(u8),
    Revoke(u8),
    Wait(u16),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = 0..6u8;
    prop::collection::vec(
        prop_oneof![
            (key.clone(), any::<u8>(), prop::option::of(0..4u8)).prop_map(|(k, v, l)| Step::Put(k, v, l)),
            key.clone().prop_map(Step::Delete),
            (key, any::<bool>()).prop_map(|(k, fresh)| Step::Cas(k, fresh)),
            Just(Step::Grant),
            (0..4u8).prop_map(Step::Renew),
            (0..4u8).prop_map(Step::Revoke),
            (0..3_000u16).prop_map(Step::Wait),
        ],
        1..40,
    )
}

fn same<T: PartialEq + std::fmt::Debug>(a: Result<T, StoreError>, b: Result<T, StoreError>) {
    match (a, b) {
        (Ok(a), Ok(b)) => assert_eq!(a, b),
        (Err(a), Err(b)) => assert_eq!(a.to_string(), b.to_string()),
        (a, b) => panic!("{a:?} is not {b:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    /// Same steps, same answers, same content, same revisions as the model.
    #[test]
    fn it_does_what_the_model_does(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let clock = Arc::new(Manual::default());
            let store = Embedded::open(&dir.path().join("m"), Arc::<Manual>::clone(&clock) as Arc<dyn Clock>).unwrap();
            let mut model = Kv::new();
            for step in steps {
                let now = clock.monotonic();
                let mut commit = async |txn: Txn| {
                    // The embedded store ends leases in the same durable commit, before anything else.
                    model.expire(now);
                    same(store.commit(txn.clone()).await, model.commit(txn).map(|batch| batch.revision));
                };
                match step {
                    Step::Put(k, v, lease) => {
                        let op = Op::Put { key: format!("k{k}"), value: vec![v].into(), lease: lease.map(|l| LeaseId(l.into())) };
                        commit(Txn { guards: vec![], ops: vec![op] }).await;
                    }
                    Step::Delete(k) => commit(Txn::new().delete(format!("k{k}"))).await,
                    Step::Cas(k, fresh) => {
                        let key = format!("k{k}");
                        let at = store.get(&key).await.unwrap().map(|entry| entry.revision);
                        let guard = match at {
                            None => Guard::Absent(key.clone()),
                            Some(revision) => Guard::AtRevision(key.clone(), if fresh { revision } else { Revision(0) }),
                        };
                        commit(Txn::new().guard(guard).put(key, "cas")).await;
                    }
                    Step::Grant => {
                        model.expire(now);
                        same(store.grant_lease(Duration::from_secs(1)).await, model.grant_lease(Duration::from_secs(1), now));
                    }
                    Step::Renew(l) => {
                        model.expire(now);
                        same(store.renew_lease(LeaseId(l.into())).await, model.renew_lease(LeaseId(l.into()), now));
                    }
                    Step::Revoke(l) => {
                        model.expire(now);
                        store.revoke_lease(LeaseId(l.into())).await.unwrap();
                        model.revoke_lease(LeaseId(l.into()));
                    }
                    Step::Wait(ms) => clock.advance(Duration::from_millis(ms.into())),
                }
                for scan in [Scan::prefix(""), Scan::prefix("k").after(Some("k2".into())).limit(2), Scan::prefix("").reverse().after(Some("k3".into()))] {
                    same(store.scan(scan.clone()).await.map(|s| s.entries), Ok(model.scan(&scan).entries));
                }
            }
        });
    }
}
