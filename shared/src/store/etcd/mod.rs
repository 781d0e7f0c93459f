//! [`Etcd`]: the model's promises on an etcd cluster, below one prefix.
//!
//! # Tour
//!
//! 1. [`EtcdOptions`]: members, prefix, credentials.
//! 2. `members`: which member is asked, what is asked again, and for how long.
//! 3. This file: the trait's calls as etcd's.
//! 4. `newest`: where the newest keys lie, so that not all are read for them.
//! 5. `watching`: watches that outlive their connection.
//!
//! # Invariants
//!
//! * A transaction whose answer was lost is sent again only when it [fences itself](Txn::fences_itself): a second copy of
//!   such a one changes nothing, however late the first arrives.
//! * Reads are linear: none is answered by a member that does not know what was committed before it.

mod errors;
mod members;
mod newest;
mod options;
#[cfg(test)]
mod tests;
mod watching;

use std::{fmt, ops::Bound, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use etcd_client::{Compare, CompareOp, GetOptions, KeyValue, PutOptions, SortOrder, SortTarget, TxnOp, TxnOpResponse};

pub use self::options::{EtcdLogin, EtcdOptions, EtcdTls};
use self::{
    errors::Refusal,
    members::{Members, Repeat},
    newest::{Clocked, Windows},
};
use super::{
    Entry, Guard, LeaseId, MIN_LEASE_TTL, MetaStore, Op, OpenError, Revision, Scan, Scanned, StoreError, Txn, Watch,
    at_once,
    kv::{is_empty_range, scan_bounds},
};
use crate::time::{Clock, Timestamp};

/// Fewest entries that a window of time is read for: an answer of some kilobytes costs what a small one does.
const WINDOW_ENTRIES: usize = 256;

/// A store on an etcd cluster.
pub struct Etcd {
    members: Members,
    prefix: Prefix,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for Etcd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Etcd")
            .field("members", &self.members)
            .field("prefix", &self.prefix.0)
            .finish()
    }
}

/// `PREFIX/`: what stands in front of every key.
#[derive(Debug, Clone)]
struct Prefix(String);

impl Prefix {
    fn key(&self, key: &str) -> String {
        format!("{}{key}", self.0)
    }

    /// A key as the store's users know it.
    fn strip(&self, key: &[u8]) -> Result<String, StoreError> {
        let text = std::str::from_utf8(key).ok();
        let own = text.and_then(|text| text.strip_prefix(&self.0));
        own.map(str::to_owned).ok_or_else(|| StoreError::Corrupt {
            key: String::from_utf8_lossy(key).into_owned(),
            problem: "the key is not UTF-8 or not below the prefix".to_owned(),
        })
    }

    fn entry(&self, found: &KeyValue) -> Result<Entry, StoreError> {
        Ok(Entry {
            key: self.strip(found.key())?,
            value: Bytes::copy_from_slice(found.value()),
            revision: revision(found.mod_revision()),
            lease: (found.lease() != 0).then(|| LeaseId(found.lease().cast_unsigned())),
        })
    }
}

fn revision(number: i64) -> Revision {
    Revision(u64::try_from(number).unwrap_or(0))
}

/// No revision of etcd's is above `i64::MAX`; a guard on such a one does not hold.
fn number(revision: Revision) -> i64 {
    i64::try_from(revision.0).unwrap_or(i64::MAX)
}

impl Etcd {
    /// Prepares the way to the members; each is connected to when it is first needed. The clock says only where the newest
    /// keys are looked for first.
    ///
    /// # Errors
    /// [`OpenError`]: an address or a certificate cannot be used.
    pub fn new(options: EtcdOptions, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let prefix = Prefix(format!("{}/", options.prefix));
        Ok(Etcd {
            members: Members::new(options)?,
            prefix,
            clock,
        })
    }

    fn compare(&self, guard: &Guard) -> Compare {
        let key = self.prefix.key(guard.key());
        match guard {
            Guard::Absent(_) => Compare::version(key, CompareOp::Equal, 0),
            // What is absent has the revision 0 in comparisons; nothing was put by it.
            Guard::AtRevision(_, Revision(0)) => Compare::version(key, CompareOp::Less, 0),
            Guard::AtRevision(_, revision) => Compare::mod_revision(key, CompareOp::Equal, number(*revision)),
        }
    }

    fn request(&self, txn: &Txn) -> etcd_client::Txn {
        let guards: Vec<Compare> = txn.guards.iter().map(|guard| self.compare(guard)).collect();
        let ops: Vec<TxnOp> = txn.ops.iter().map(|op| self.op(op)).collect();
        // When it fails: what each guard's key looks like, so that the first that does not hold can be named.
        let looks: Vec<TxnOp> = txn
            .guards
            .iter()
            .map(|guard| TxnOp::get(self.prefix.key(guard.key()), Some(GetOptions::new().with_keys_only())))
            .collect();
        etcd_client::Txn::new().when(guards).and_then(ops).or_else(looks)
    }

    fn op(&self, op: &Op) -> TxnOp {
        match op {
            Op::Put { key, value, lease } => {
                let options = lease.map(|lease| PutOptions::new().with_lease(lease.0.cast_signed()));
                TxnOp::put(self.prefix.key(key), value.to_vec(), options)
            }
            Op::Delete(key) => TxnOp::delete(self.prefix.key(key), None),
        }
    }

    /// What one transaction of reads answers, a response for each key.
    async fn looked_up(&self, keys: &[String]) -> Result<Vec<TxnOpResponse>, Refusal> {
        let gets: Vec<TxnOp> = keys.iter().map(|key| TxnOp::get(self.prefix.key(key), None)).collect();
        let request = etcd_client::Txn::new().and_then(gets);
        let answer = self
            .members
            .call(Repeat::Always, |client| {
                let request = request.clone();
                async move {
                    let mut kv = client.kv_client().max_decoding_message_size(members::MAX_ANSWER_BYTES);
                    kv.txn(request).await
                }
            })
            .await?;
        Ok(answer.op_responses())
    }

    /// The revision of the whole store, as of now.
    async fn revision(&self) -> Result<Revision, StoreError> {
        let key = self.prefix.0.clone();
        let answer = self
            .members
            .call(Repeat::Always, |client| {
                let key = key.clone();
                async move {
                    let options = GetOptions::new().with_count_only();
                    client.kv_client().get(key, Some(options)).await
                }
            })
            .await;
        Ok(header(answer?.header()))
    }

    /// One range, at most `limit` entries; fewer when their values are large.
    async fn range(&self, scan: &Scan, from: &str, to: &str) -> Result<Scanned, StoreError> {
        let mut limit = scan.limit;
        loop {
            let mut options = GetOptions::new()
                .with_range(to)
                .with_limit(i64::try_from(limit).unwrap_or(i64::MAX));
            if scan.reverse {
                options = options.with_sort(SortTarget::Key, SortOrder::Descend);
            }
            let answer = self
                .members
                .call(Repeat::Always, |client| {
                    let (from, options) = (from.to_owned(), options.clone());
                    async move {
                        let mut kv = client.kv_client().max_decoding_message_size(members::MAX_ANSWER_BYTES);
                        kv.get(from, Some(options)).await
                    }
                })
                .await;
            match answer {
                Ok(mut found) => {
                    let entries = found
                        .take_kvs()
                        .iter()
                        .map(|kv| self.prefix.entry(kv))
                        .collect::<Result<_, _>>();
                    return Ok(Scanned {
                        entries: entries?,
                        revision: header(found.header()),
                        more: found.more(),
                    });
                }
                Err(Refusal::TooLarge) if limit > 1 => limit /= 2,
                Err(refusal) => return Err(refusal.into()),
            }
        }
    }
}

impl Etcd {
    /// The end of a range, backwards: in windows of time where the keys tell theirs.
    async fn newest(&self, scan: &Scan, from: &str, to: &str) -> Result<Scanned, StoreError> {
        let behind = |key: &str| key.strip_prefix(&scan.prefix).and_then(Clocked::moment);
        let forwards = |limit: usize| {
            Scan {
                reverse: false,
                ..scan.clone()
            }
            .limit(limit)
        };
        let first = self.range(&forwards(1), from, to).await?;
        let clocked = first
            .entries
            .first()
            .and_then(|entry| behind(&self.prefix.key(&entry.key)));
        let Some((clocked, _)) = clocked else {
            return match first.more {
                true => self.range(scan, from, to).await,
                false => Ok(first),
            };
        };
        let newest = match scan.after.as_deref().and_then(behind) {
            Some((_, ms)) => Timestamp::from_millis(i64::try_from(ms).unwrap_or(i64::MAX)),
            None => self.clock.now(),
        };
        let mut windows = Windows::new(clocked, &scan.prefix, to, newest);
        let mut entries = Vec::new();
        let more = loop {
            let window = windows.now();
            // One more than wanted says whether there is more.
            let wanted = (scan.limit + 1).saturating_sub(entries.len());
            if window.from < window.to {
                let many = forwards((wanted * 4).max(WINDOW_ENTRIES));
                let mut found = self.range(&many, &window.from, &window.to).await?;
                if found.more && !window.least {
                    windows.narrow();
                    continue;
                }
                if found.more {
                    let sorted = Scan { reverse: true, ..many };
                    found = self.range(&sorted.limit(wanted), &window.from, &window.to).await?;
                } else {
                    found.entries.reverse();
                }
                entries.append(&mut found.entries);
                if found.more || entries.len() > scan.limit {
                    break true;
                }
            }
            if window.last {
                break false;
            }
            windows.pass(&window);
        };
        entries.truncate(scan.limit);
        Ok(Scanned {
            entries,
            revision: first.revision,
            more,
        })
    }
}

fn header(header: Option<&etcd_client::ResponseHeader>) -> Revision {
    header.map_or(Revision(0), |header| revision(header.revision()))
}

#[async_trait]
impl MetaStore for Etcd {
    async fn get(&self, key: &str) -> Result<Option<Entry>, StoreError> {
        let key = self.prefix.key(key);
        let answer = self
            .members
            .call(Repeat::Always, |client| {
                let key = key.clone();
                async move { client.kv_client().get(key, None).await }
            })
            .await;
        answer?.kvs().first().map(|found| self.prefix.entry(found)).transpose()
    }

    async fn get_many(&self, keys: &[String]) -> Result<Vec<Option<Entry>>, StoreError> {
        at_once(keys)?;
        match self.looked_up(keys).await {
            // Too much for one answer.
            Err(Refusal::TooLarge) if keys.len() > 1 => {
                let (left, right) = keys.split_at(keys.len() / 2);
                let mut entries = self.get_many(left).await?;
                entries.append(&mut self.get_many(right).await?);
                Ok(entries)
            }
            answer => {
                let responses = answer?;
                let found = responses.iter().map(|response| match response {
                    TxnOpResponse::Get(found) => found.kvs().first().map(|kv| self.prefix.entry(kv)).transpose(),
                    _ => Ok(None),
                });
                found.collect()
            }
        }
    }

    async fn scan(&self, scan: Scan) -> Result<Scanned, StoreError> {
        let own = Scan {
            prefix: self.prefix.key(&scan.prefix),
            after: scan.after.as_deref().map(|after| self.prefix.key(after)),
            ..scan
        };
        let bounds = scan_bounds(&own);
        let (from, to) = match &bounds {
            (Bound::Included(from), Bound::Excluded(to)) => (from.clone(), to.clone()),
            // The least key beyond `from`.
            (Bound::Excluded(from), Bound::Excluded(to)) => (format!("{from}\0"), to.clone()),
            _ => return Err(StoreError::Invalid("a scan without an end".to_owned())),
        };
        if is_empty_range(&bounds) || from >= to {
            return Ok(Scanned {
                entries: Vec::new(),
                revision: self.revision().await?,
                more: false,
            });
        }
        if own.reverse {
            return self.newest(&own, &from, &to).await;
        }
        self.range(&own, &from, &to).await
    }

    async fn commit(&self, txn: Txn) -> Result<Revision, StoreError> {
        txn.validate()?;
        if txn.ops.is_empty() && txn.guards.is_empty() {
            // An empty transaction may be answered by a member that lags.
            return self.revision().await;
        }
        let repeat = if txn.ops.is_empty() || txn.fences_itself() {
            Repeat::Always
        } else {
            Repeat::Unsent
        };
        let request = self.request(&txn);
        let answer = self
            .members
            .call(repeat, |client| {
                let request = request.clone();
                async move { client.kv_client().txn(request).await }
            })
            .await;
        let lease = txn.ops.iter().find_map(|op| match op {
            Op::Put { lease, .. } => *lease,
            Op::Delete(_) => None,
        });
        let response = answer.map_err(|refusal| match (refusal, lease) {
            (Refusal::NoLease, Some(lease)) => StoreError::LeaseEnded(lease),
            (other, _) => other.into(),
        })?;
        if response.succeeded() {
            return Ok(header(response.header()));
        }
        let looks = response.op_responses();
        let mut guards = txn.guards.iter().zip(&looks);
        let broken = guards.find(|(guard, look)| !holds(guard, look)).map(|(guard, _)| guard);
        // One that held in the moment of looking cannot be: comparing and looking is one moment.
        let key = broken.or(txn.guards.first()).map_or("", Guard::key).to_owned();
        Err(StoreError::Stale { key })
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<Watch, StoreError> {
        watching::start(self.members.clone(), self.prefix.clone(), prefix, after).await
    }

    async fn grant_lease(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        if ttl < MIN_LEASE_TTL {
            return Err(StoreError::Invalid(format!("a lease lives at least {MIN_LEASE_TTL:?}")));
        }
        // etcd counts in seconds, and may grant more. A lease whose grant was not heard of ends by itself.
        let seconds = i64::try_from(ttl.as_millis().div_ceil(1_000)).unwrap_or(i64::MAX);
        let answer = self
            .members
            .call(Repeat::Always, |client| async move {
                client.lease_client().grant(seconds, None).await
            })
            .await;
        Ok(LeaseId(answer?.id().cast_unsigned()))
    }

    async fn renew_lease(&self, lease: LeaseId) -> Result<(), StoreError> {
        let answer = self
            .members
            .call(Repeat::Always, |client| async move {
                client.lease_client().keep_alive(lease.0.cast_signed()).await.map(drop)
            })
            .await;
        answer.map_err(|refusal| match refusal {
            Refusal::NoLease => StoreError::LeaseEnded(lease),
            other => other.into(),
        })
    }

    async fn revoke_lease(&self, lease: LeaseId) -> Result<(), StoreError> {
        let answer = self
            .members
            .call(Repeat::Always, |client| async move {
                client.lease_client().revoke(lease.0.cast_signed()).await.map(drop)
            })
            .await;
        match answer {
            Ok(()) | Err(Refusal::NoLease) => Ok(()),
            Err(other) => Err(other.into()),
        }
    }
}

fn holds(guard: &Guard, look: &TxnOpResponse) -> bool {
    let TxnOpResponse::Get(look) = look else { return true };
    let found = look.kvs().first().map(KeyValue::mod_revision);
    match guard {
        Guard::Absent(_) => found.is_none(),
        Guard::AtRevision(_, revision) => found == Some(number(*revision)),
    }
}
