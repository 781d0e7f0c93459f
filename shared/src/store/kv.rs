//! [`Kv`]: what every store must do, as a pure state machine. Simulations use it as it is.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
    time::Duration,
};

use super::{Batch, Change, Entry, Guard, LeaseId, MIN_LEASE_TTL, Op, Revision, Scan, Scanned, StoreError, Txn};
use crate::time::Monotonic;

/// A lease's time to live and when it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseTtl {
    /// Time from a renewal to the end.
    pub ttl: Duration,
    /// When it ends unless renewed.
    pub ends: Monotonic,
}

#[derive(Debug, Clone)]
struct Lease {
    time: LeaseTtl,
    keys: BTreeSet<String>,
}

/// Keys, values, revisions and leases. Whoever holds it says what time it is and passes its batches on to watchers.
#[derive(Debug, Clone, Default)]
pub struct Kv {
    entries: BTreeMap<String, Entry>,
    revision: Revision,
    leases: BTreeMap<LeaseId, Lease>,
    last_lease: u64,
}

/// Bounds of the keys that a scan reads.
pub(super) fn scan_bounds(scan: &Scan) -> (Bound<String>, Bound<String>) {
    let prefix_end = match prefix_end(&scan.prefix) {
        Some(end) => Bound::Excluded(end),
        None => Bound::Unbounded,
    };
    let prefix_start = Bound::Included(scan.prefix.clone());
    match (&scan.after, scan.reverse) {
        (None, _) => (prefix_start, prefix_end),
        (Some(after), false) if *after >= scan.prefix => (Bound::Excluded(after.clone()), prefix_end),
        (Some(_), false) => (prefix_start, prefix_end),
        (Some(after), true) => match &prefix_end {
            Bound::Excluded(end) if after >= end => (prefix_start, prefix_end),
            _ => (prefix_start, Bound::Excluded(after.clone())),
        },
    }
}

/// True if nothing can lie between the bounds; ordered maps refuse such ranges.
pub(super) fn is_empty_range(bounds: &(Bound<String>, Bound<String>)) -> bool {
    match bounds {
        (Bound::Included(from) | Bound::Excluded(from), Bound::Excluded(to)) => from >= to,
        _ => false,
    }
}

/// The first text after everything that begins with `prefix`; none if there is no such text.
pub(super) fn prefix_end(prefix: &str) -> Option<String> {
    let mut chars: Vec<char> = prefix.chars().collect();
    while let Some(last) = chars.pop() {
        // The next scalar value; the surrogates between U+D7FF and U+E000 are none.
        let next = if last == '\u{D7FF}' {
            Some('\u{E000}')
        } else {
            char::from_u32(u32::from(last) + 1)
        };
        if let Some(next) = next {
            chars.push(next);
            return Some(chars.into_iter().collect());
        }
    }
    None
}

impl Kv {
    /// Empty, at revision 0.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The revision now.
    #[must_use]
    pub const fn revision(&self) -> Revision {
        self.revision
    }

    /// Reads one key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// Reads keys in order.
    #[must_use]
    pub fn scan(&self, scan: &Scan) -> Scanned {
        let bounds = scan_bounds(scan);
        let mut entries: Vec<Entry> = Vec::new();
        if !is_empty_range(&bounds) {
            let range = self.entries.range(bounds);
            let wanted = scan.limit.saturating_add(1);
            let values = range.map(|(_, entry)| entry);
            entries = if scan.reverse {
                values.rev().take(wanted).cloned().collect()
            } else {
                values.take(wanted).cloned().collect()
            };
        }
        let more = entries.len() > scan.limit;
        entries.truncate(scan.limit);
        Scanned {
            entries,
            revision: self.revision,
            more,
        }
    }

    /// Changes all or nothing. The batch is empty when nothing changed; then the revision stays.
    ///
    /// # Errors
    /// [`StoreError::Invalid`], [`StoreError::Stale`], [`StoreError::LeaseEnded`]; nothing has changed then.
    pub fn commit(&mut self, txn: Txn) -> Result<Batch, StoreError> {
        txn.validate()?;
        for guard in &txn.guards {
            let holds = match guard {
                Guard::Absent(key) => !self.entries.contains_key(key),
                Guard::AtRevision(key, revision) => {
                    self.entries.get(key).is_some_and(|entry| entry.revision == *revision)
                }
            };
            if !holds {
                return Err(StoreError::Stale {
                    key: guard.key().to_owned(),
                });
            }
        }
        for op in &txn.ops {
            if let Op::Put { lease: Some(lease), .. } = op
                && !self.leases.contains_key(lease)
            {
                return Err(StoreError::LeaseEnded(*lease));
            }
        }
        Ok(self.apply(txn.ops))
    }

    fn apply(&mut self, ops: Vec<Op>) -> Batch {
        let revision = Revision(self.revision.0 + 1);
        let mut changes = Vec::with_capacity(ops.len());
        for op in ops {
            let removed = self.entries.remove(op.key());
            if let Some(lease) = removed
                .as_ref()
                .and_then(|entry| entry.lease)
                .and_then(|lease| self.leases.get_mut(&lease))
            {
                lease.keys.remove(op.key());
            }
            match op {
                Op::Put { key, value, lease } => {
                    if let Some(lease) = lease.and_then(|lease| self.leases.get_mut(&lease)) {
                        lease.keys.insert(key.clone());
                    }
                    let entry = Entry {
                        key: key.clone(),
                        value,
                        revision,
                        lease,
                    };
                    self.entries.insert(key, entry.clone());
                    changes.push(Change::Put(entry));
                }
                Op::Delete(key) if removed.is_some() => changes.push(Change::Delete(key)),
                Op::Delete(_) => {}
            }
        }
        if !changes.is_empty() {
            self.revision = revision;
        }
        Batch {
            revision: self.revision,
            changes,
        }
    }

    /// Makes a lease.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] when `ttl` is below [`MIN_LEASE_TTL`].
    pub fn grant_lease(&mut self, ttl: Duration, now: Monotonic) -> Result<LeaseId, StoreError> {
        if ttl < MIN_LEASE_TTL {
            return Err(StoreError::Invalid(format!("a lease lives at least {MIN_LEASE_TTL:?}")));
        }
        self.last_lease += 1;
        let id = LeaseId(self.last_lease);
        self.leases.insert(
            id,
            Lease {
                time: LeaseTtl { ttl, ends: now + ttl },
                keys: BTreeSet::new(),
            },
        );
        Ok(id)
    }

    /// Lets a lease live on from now. One whose time is over is gone, whether or not it was expired yet.
    ///
    /// # Errors
    /// [`StoreError::LeaseEnded`].
    pub fn renew_lease(&mut self, id: LeaseId, now: Monotonic) -> Result<(), StoreError> {
        match self.leases.get_mut(&id) {
            Some(lease) if lease.time.ends > now => {
                lease.time.ends = now + lease.time.ttl;
                Ok(())
            }
            _ => Err(StoreError::LeaseEnded(id)),
        }
    }

    /// Ends a lease; its keys vanish in one transaction. The batch is empty when it had none.
    pub fn revoke_lease(&mut self, id: LeaseId) -> Batch {
        let keys = self.leases.remove(&id).map(|lease| lease.keys).unwrap_or_default();
        self.apply(keys.into_iter().map(Op::Delete).collect())
    }

    /// Ends every lease whose time is over, the lowest id first, and tells what vanished.
    pub fn expire(&mut self, now: Monotonic) -> Vec<Batch> {
        let over: Vec<LeaseId> = self
            .leases
            .iter()
            .filter(|(_, lease)| lease.time.ends <= now)
            .map(|(id, _)| *id)
            .collect();
        over.into_iter()
            .map(|id| self.revoke_lease(id))
            .filter(|batch| !batch.changes.is_empty())
            .collect()
    }

    /// When the next lease ends unless renewed.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Monotonic> {
        self.leases.values().map(|lease| lease.time.ends).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: i64) -> Monotonic {
        Monotonic::from_millis(s * 1_000)
    }

    #[test]
    fn nothing_happens_when_a_guard_does_not_hold() {
        let mut kv = Kv::new();
        let first = kv.commit(Txn::new().put("a", "1")).unwrap().revision;
        let stale = Txn::new()
            .guard(Guard::Absent("b".into()))
            .guard(Guard::Absent("a".into()))
            .put("b", "2");
        assert!(matches!(kv.commit(stale), Err(StoreError::Stale { key }) if key == "a"));
        assert!(kv.get("b").is_none());
        kv.commit(
            Txn::new()
                .guard(Guard::AtRevision("a".into(), first))
                .put("b", "2")
                .delete("a"),
        )
        .unwrap();
        assert!(kv.get("a").is_none());
        assert_eq!(kv.revision(), Revision(2));
        assert_eq!(
            kv.commit(Txn::new().delete("a")).unwrap().revision,
            Revision(2),
            "deleting nothing changes nothing"
        );
    }

    #[test]
    fn leased_keys_vanish_with_their_lease_unless_put_anew() {
        let mut kv = Kv::new();
        let lease = kv.grant_lease(Duration::from_secs(2), at(0)).unwrap();
        kv.commit(Txn::new().put_leased("a", "1", lease).put_leased("b", "1", lease))
            .unwrap();
        kv.commit(Txn::new().put("b", "2")).unwrap();
        kv.renew_lease(lease, at(1)).unwrap();
        assert_eq!(kv.expire(at(2)), []);
        assert_eq!(kv.next_expiry(), Some(at(3)));
        assert!(
            kv.renew_lease(lease, at(3)).is_err(),
            "over is over, also before anybody looked"
        );
        let gone = kv.expire(at(3));
        assert_eq!(
            gone.iter().flat_map(|batch| &batch.changes).collect::<Vec<_>>(),
            [&Change::Delete("a".into())]
        );
        assert!(kv.get("b").is_some());
        assert!(matches!(
            kv.commit(Txn::new().put_leased("c", "1", lease)),
            Err(StoreError::LeaseEnded(_))
        ));
    }

    #[test]
    fn prefixes_end_where_they_should() {
        assert_eq!(prefix_end("a/"), Some("a0".to_owned()));
        assert_eq!(prefix_end("\u{D7FF}"), Some("\u{E000}".to_owned()));
        assert_eq!(prefix_end("a\u{10FFFF}"), Some("b".to_owned()));
        assert_eq!(prefix_end(""), None);
    }
}
