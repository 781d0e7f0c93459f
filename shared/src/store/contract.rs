//! What every [`MetaStore`] promises, as cases that each store runs: none is skipped.
//!
//! Each case starts from an empty store.
#![allow(clippy::unwrap_used, reason = "tests that several crates run")]

use std::time::Duration;

use crate::{
    ids::{IdGen as _, Seeded},
    time::{Clock as _, System, Timestamp},
};

use super::{Change, Guard, MAX_SCAN, MAX_TXN_OPS, MAX_VALUE_BYTES, MetaStore, Revision, Scan, StoreError, Txn};

/// Calls a macro with the name of every case.
#[macro_export]
macro_rules! for_each_contract_case {
    ($call:ident) => {
        $call! {
            what_is_put_is_read
            many_are_read_in_the_order_asked_for
            keys_are_scanned_in_order_and_in_pages
            the_newest_are_paged_whatever_their_times_are
            all_guards_hold_or_nothing_happens
            revisions_grow_by_one_for_each_change
            watches_tell_each_change_once_and_in_order
            a_watch_begins_where_a_scan_ended
            leased_keys_vanish_when_the_lease_ends
            a_renewed_lease_lives_on
            bad_requests_are_refused
        }
    };
}

async fn keys(store: &dyn MetaStore, scan: Scan) -> Vec<String> {
    store
        .scan(scan)
        .await
        .unwrap()
        .entries
        .into_iter()
        .map(|entry| entry.key)
        .collect()
}

/// Values, emptiness and odd keys survive.
pub async fn what_is_put_is_read(store: &dyn MetaStore) {
    assert_eq!(store.get("a").await.unwrap(), None);
    store
        .commit(Txn::new().put("a", "1").put("b/ü 🎥", vec![0, 255]).put("c", ""))
        .await
        .unwrap();
    assert_eq!(store.get("a").await.unwrap().unwrap().value, "1");
    assert_eq!(store.get("b/ü 🎥").await.unwrap().unwrap().value, vec![0u8, 255]);
    assert!(store.get("c").await.unwrap().unwrap().value.is_empty());
    store
        .commit(Txn::new().put("a", "2").delete("c").delete("never"))
        .await
        .unwrap();
    assert_eq!(store.get("a").await.unwrap().unwrap().value, "2");
    assert_eq!(store.get("c").await.unwrap(), None);
}

/// Those that are not there leave their place empty; what is too much for one answer of the store comes in several.
pub async fn many_are_read_in_the_order_asked_for(store: &dyn MetaStore) {
    let large = |n: usize| vec![u8::try_from(n % 256).unwrap(); MAX_VALUE_BYTES];
    let key = |n: usize| format!("k/{n}");
    for n in 0..40 {
        store.commit(Txn::new().put(key(n), large(n))).await.unwrap();
    }
    let asked: Vec<String> = (0..MAX_TXN_OPS).rev().map(key).collect();
    let found = store.get_many(&asked).await.unwrap();
    assert_eq!(found.len(), MAX_TXN_OPS);
    for (entry, n) in found.iter().zip((0..MAX_TXN_OPS).rev()) {
        let value = entry.as_ref().map(|entry| (entry.key.clone(), entry.value.to_vec()));
        assert_eq!(value, (n < 40).then(|| (key(n), large(n))));
    }
    assert_eq!(store.get_many(&[]).await.unwrap(), []);
}

/// Byte order, both directions, prefixes that are not path-wise, pages that join without gap or overlap.
pub async fn keys_are_scanned_in_order_and_in_pages(store: &dyn MetaStore) {
    let mut txn = Txn::new();
    for key in ["p/a", "p/b", "p/b/c", "p/é", "p", "q", "o"] {
        txn = txn.put(key, "");
    }
    store.commit(txn).await.unwrap();
    assert_eq!(keys(store, Scan::prefix("p/")).await, ["p/a", "p/b", "p/b/c", "p/é"]);
    assert_eq!(
        keys(store, Scan::prefix("p")).await,
        ["p", "p/a", "p/b", "p/b/c", "p/é"]
    );
    assert_eq!(
        keys(store, Scan::prefix("p/").reverse()).await,
        ["p/é", "p/b/c", "p/b", "p/a"]
    );
    assert_eq!(keys(store, Scan::prefix("")).await.len(), 7);
    assert!(keys(store, Scan::prefix("p/zz")).await.is_empty());
    for reverse in [false, true] {
        let mut whole = Scan::prefix("p/");
        whole.reverse = reverse;
        let expected = keys(store, whole.clone()).await;
        let (mut paged, mut after) = (Vec::new(), None);
        loop {
            let page = store.scan(whole.clone().limit(3).after(after.clone())).await.unwrap();
            paged.extend(page.entries.into_iter().map(|entry| entry.key));
            after = paged.last().cloned();
            if !page.more {
                break;
            }
        }
        assert_eq!(paged, expected);
        assert!(
            keys(store, whole.clone().after(expected.last().cloned()))
                .await
                .is_empty()
        );
    }
    assert_eq!(
        keys(store, Scan::prefix("p/").after(Some("a".into()))).await.len(),
        4,
        "before the prefix"
    );
    assert_eq!(
        keys(store, Scan::prefix("p/").after(Some("z".into()))).await.len(),
        0,
        "beyond the prefix"
    );
    assert_eq!(
        keys(store, Scan::prefix("p/").reverse().after(Some("z".into())))
            .await
            .len(),
        4
    );
    assert_eq!(
        keys(store, Scan::prefix("p/").reverse().after(Some("a".into())))
            .await
            .len(),
        0
    );
}

/// Keys that tell their time: dense and sparse, of long ago and of the future, and one that tells none; page by page the same
/// as all at once.
pub async fn the_newest_are_paged_whatever_their_times_are(store: &dyn MetaStore) {
    let now = System::new().now().as_millis();
    let ids = Seeded::new(7);
    let day = 86_400_000;
    let mut times: Vec<i64> = (0..600).map(|_| now - day).collect();
    times.extend((0..300).map(|n| now - n * 1_000));
    times.extend((0..20).map(|n| now - n * n * day));
    times.extend([0, 1, now + 5_000, now + 400 * day]);
    for chunk in times.chunks(50) {
        let mut txn = Txn::new();
        for ms in chunk {
            let id = ids.uuid(Timestamp::from_millis(*ms));
            txn = txn.put(format!("u/{id}"), "").put(format!("d/{ms:013}/{id}"), "");
        }
        store.commit(txn).await.unwrap();
    }
    let odd = Txn::new().put("u/zz", "").put("d/", "").put("e", "").put("v", "");
    store.commit(odd).await.unwrap();
    for prefix in ["u/", "d/"] {
        let mut expected = Vec::new();
        let mut after = None;
        loop {
            let page = store.scan(Scan::prefix(prefix).after(after)).await.unwrap();
            expected.extend(page.entries.into_iter().map(|entry| entry.key));
            after = expected.last().cloned();
            if !page.more {
                break;
            }
        }
        assert_eq!(expected.len(), times.len() + 1);
        expected.reverse();
        for limit in [1, 7, 100, 1_000] {
            let (mut paged, mut after): (Vec<String>, _) = (Vec::new(), None);
            // Single entries take long: the newest of them will do.
            while paged.len() < 30 || limit > 1 {
                let scan = Scan::prefix(prefix).reverse().limit(limit).after(after);
                let page = store.scan(scan).await.unwrap();
                assert!(page.entries.len() == limit || !page.more, "{limit}");
                paged.extend(page.entries.into_iter().map(|entry| entry.key));
                after = paged.last().cloned();
                if !page.more {
                    assert_eq!(paged.len(), expected.len());
                    break;
                }
            }
            assert_eq!(paged, expected[..paged.len()], "{prefix} by {limit}");
        }
    }
}

/// Absent and at-revision guards, on success and on refusal.
pub async fn all_guards_hold_or_nothing_happens(store: &dyn MetaStore) {
    let first = store
        .commit(Txn::new().guard(Guard::Absent("a".into())).put("a", "1"))
        .await
        .unwrap();
    let again = store
        .commit(Txn::new().guard(Guard::Absent("a".into())).put("a", "2").put("b", "2"))
        .await;
    assert!(matches!(again, Err(StoreError::Stale { key }) if key == "a"));
    assert_eq!(store.get("b").await.unwrap(), None);
    let second = store
        .commit(Txn::new().guard(Guard::AtRevision("a".into(), first)).put("a", "2"))
        .await
        .unwrap();
    assert_eq!(store.get("a").await.unwrap().unwrap().revision, second);
    for stale in [first, Revision(0), Revision(u64::from(u32::MAX))] {
        let txn = Txn::new().guard(Guard::AtRevision("a".into(), stale)).delete("a");
        assert!(matches!(store.commit(txn).await, Err(StoreError::Stale { .. })));
    }
    let missing = Txn::new().guard(Guard::AtRevision("none".into(), second)).put("x", "");
    assert!(matches!(store.commit(missing).await, Err(StoreError::Stale { .. })));
    store
        .commit(
            Txn::new()
                .guard(Guard::AtRevision("a".into(), second))
                .guard(Guard::Absent("x".into())),
        )
        .await
        .unwrap();
}

/// One transaction, one revision, whatever it holds; what changes nothing raises nothing.
pub async fn revisions_grow_by_one_for_each_change(store: &dyn MetaStore) {
    let one = store.commit(Txn::new().put("a", "1").put("b", "1")).await.unwrap();
    assert_eq!(store.get("a").await.unwrap().unwrap().revision, one);
    assert_eq!(store.get("b").await.unwrap().unwrap().revision, one);
    let two = store.commit(Txn::new().put("b", "1")).await.unwrap();
    assert_eq!(two, Revision(one.0 + 1), "putting the same value is a change");
    assert_eq!(store.commit(Txn::new()).await.unwrap(), two);
    assert_eq!(store.commit(Txn::new().delete("never")).await.unwrap(), two);
    assert_eq!(store.get("a").await.unwrap().unwrap().revision, one);
    assert_eq!(store.scan(Scan::prefix("")).await.unwrap().revision, two);
}

/// Past and future changes, only those under the prefix, in one order.
pub async fn watches_tell_each_change_once_and_in_order(store: &dyn MetaStore) {
    let start = store.commit(Txn::new().put("w/0", "0")).await.unwrap();
    store.commit(Txn::new().put("w/1", "1").put("x", "1")).await.unwrap();
    let mut watch = store.watch("w/", start).await.unwrap();
    store.commit(Txn::new().put("x", "2")).await.unwrap();
    let last = store.commit(Txn::new().put("w/2", "2").delete("w/1")).await.unwrap();
    let past = watch.next().await.unwrap();
    assert!(matches!(past.changes.as_slice(), [Change::Put(entry)] if entry.key == "w/1" && entry.value == "1"));
    let live = watch.next().await.unwrap();
    assert_eq!(live.revision, last);
    assert!(
        matches!(live.changes.as_slice(), [Change::Put(put), Change::Delete(key)] if put.key == "w/2" && key == "w/1")
    );
    let silent = tokio::time::timeout(Duration::from_millis(50), watch.next()).await;
    assert!(silent.is_err(), "nothing else happened");
}

/// Scan, then watch from the scan's revision: nothing is missed and nothing told twice, while others write.
pub async fn a_watch_begins_where_a_scan_ended(store: &dyn MetaStore) {
    for n in 0..20 {
        store.commit(Txn::new().put(format!("k/{n:02}"), "")).await.unwrap();
    }
    let scanned = store.scan(Scan::prefix("k/")).await.unwrap();
    let writes = async {
        for n in 20..40 {
            store.commit(Txn::new().put(format!("k/{n:02}"), "")).await.unwrap();
        }
    };
    let watching = async {
        let mut watch = store.watch("k/", scanned.revision).await.unwrap();
        let mut told = Vec::new();
        while told.len() < 20 {
            told.extend(
                watch
                    .next()
                    .await
                    .unwrap()
                    .changes
                    .iter()
                    .map(|change| change.key().to_owned()),
            );
        }
        told
    };
    let (told, ()) = futures_util::future::join(watching, writes).await;
    assert_eq!(told, (20..40).map(|n| format!("k/{n:02}")).collect::<Vec<_>>());
}

/// Keys go with their lease, at once when it is revoked and by themselves when its time is over, and watchers hear it.
pub async fn leased_keys_vanish_when_the_lease_ends(store: &dyn MetaStore) {
    let lease = store.grant_lease(Duration::from_secs(1)).await.unwrap();
    store
        .commit(
            Txn::new()
                .put_leased("l/a", "1", lease)
                .put_leased("l/b", "1", lease)
                .put("l/c", "1"),
        )
        .await
        .unwrap();
    assert_eq!(store.get("l/a").await.unwrap().unwrap().lease, Some(lease));
    store.revoke_lease(lease).await.unwrap();
    assert_eq!(keys(store, Scan::prefix("l/")).await, ["l/c"]);
    store.revoke_lease(lease).await.unwrap();
    assert!(matches!(store.renew_lease(lease).await, Err(StoreError::LeaseEnded(_))));
    let gone = store.commit(Txn::new().put_leased("l/d", "1", lease)).await;
    assert!(matches!(gone, Err(StoreError::LeaseEnded(id)) if id == lease));

    let short = store.grant_lease(Duration::from_secs(1)).await.unwrap();
    let revision = store.commit(Txn::new().put_leased("l/e", "1", short)).await.unwrap();
    let mut watch = store.watch("l/", revision).await.unwrap();
    let told = async {
        loop {
            // Somebody looks now and then: a model without a thread of its own ends leases when it is touched.
            tokio::select! {
                biased;
                told = watch.next() => break told.unwrap(),
                () = tokio::time::sleep(Duration::from_millis(20)) => drop(store.get("l/e").await.unwrap()),
            }
        }
    };
    let told = tokio::time::timeout(Duration::from_secs(10), told)
        .await
        .expect("the lease ends by itself");
    assert_eq!(told.changes, [Change::Delete("l/e".into())]);
}

/// Renewals count from their own time.
pub async fn a_renewed_lease_lives_on(store: &dyn MetaStore) {
    let lease = store.grant_lease(Duration::from_secs(1)).await.unwrap();
    store.commit(Txn::new().put_leased("l", "1", lease)).await.unwrap();
    let mut renewals = tokio::time::interval(Duration::from_millis(250));
    for _ in 0..8 {
        renewals.tick().await;
        store.renew_lease(lease).await.unwrap();
    }
    assert!(store.get("l").await.unwrap().is_some());
    store.revoke_lease(lease).await.unwrap();
}

/// Bounds are kept and named.
pub async fn bad_requests_are_refused(store: &dyn MetaStore) {
    let mut large = Txn::new();
    for n in 0..=MAX_TXN_OPS {
        large = large.put(format!("{n}"), "");
    }
    let bad = [
        Txn::new().put("", "x"),
        Txn::new().put("k".repeat(4_096), "x"),
        Txn::new().put("a", vec![0; MAX_VALUE_BYTES + 1]),
        Txn::new().put("a", "1").delete("a"),
        large,
    ];
    for txn in bad {
        assert!(matches!(store.commit(txn).await, Err(StoreError::Invalid(_))));
    }
    let many: Vec<String> = (0..=MAX_TXN_OPS).map(|n| n.to_string()).collect();
    assert!(matches!(store.get_many(&many).await, Err(StoreError::Invalid(_))));
    assert_eq!(store.get_many(&many[1..]).await.unwrap().len(), MAX_TXN_OPS);
    store
        .commit(Txn::new().put("a", vec![7; MAX_VALUE_BYTES]))
        .await
        .unwrap();
    assert_eq!(store.get("a").await.unwrap().unwrap().value.len(), MAX_VALUE_BYTES);
    assert!(matches!(
        store.grant_lease(Duration::from_millis(10)).await,
        Err(StoreError::Invalid(_))
    ));
    assert_eq!(Scan::prefix("").limit(0).limit, 1);
    assert_eq!(Scan::prefix("").limit(usize::MAX).limit, MAX_SCAN);
}
