//! What a look at the leader's key means, and when to renew and to stop. Pure: time is an argument.

use std::time::Duration;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use shared::{
    store::{Entry, LeaseId, StoreError},
    time::{Monotonic, Timestamp},
};
use uuid::Uuid;

/// The coordinator that leads. Lies under its store lease; the revision at which it was put is its term's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LeaderRecord {
    /// Which process, for as long as it runs.
    pub(crate) instance: Uuid,
    /// Name for people.
    pub(crate) name: String,
    /// Where it serves gRPC, `http://HOST:PORT`.
    pub(crate) address: String,
    /// Where it serves HTTP, `http://HOST:PORT`; absent from records of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) http: Option<String>,
    /// Count of leaders; only grows.
    pub(crate) term: u64,
    /// Since when.
    pub(crate) since: Timestamp,
}

/// The last decision of a leader: put with each transaction of its committer, and by whoever becomes leader, so that no
/// transaction of an earlier one can follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DecisionRecord {
    /// The leader's term.
    pub(super) term: u64,
    /// Which of its transactions, counted from 1; 0: its election.
    pub(super) number: u64,
}

fn to_json<T: Serialize>(record: &T) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(record).map_err(|error| StoreError::Invalid(error.to_string()))
}

fn read<T: DeserializeOwned>(entry: &Entry) -> Result<T, StoreError> {
    serde_json::from_slice(&entry.value).map_err(|error| StoreError::Corrupt {
        key: entry.key.clone(),
        problem: error.to_string(),
    })
}

impl LeaderRecord {
    pub(super) fn to_json(&self) -> Result<Vec<u8>, StoreError> {
        to_json(self)
    }
}

impl DecisionRecord {
    pub(super) fn to_json(self) -> Result<Vec<u8>, StoreError> {
        to_json(&self)
    }

    pub(super) fn read(entry: &Entry) -> Result<Self, StoreError> {
        read(entry)
    }
}

/// Who leads.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// There is no record: whoever wants to may stand.
    Nobody,
    /// An earlier term of this very process.
    Oneself(Option<LeaseId>),
    /// Another.
    Other(LeaderRecord),
}

/// Reads the leader's key.
pub(super) fn seen(instance: Uuid, leader: Option<&Entry>) -> Result<Seen, StoreError> {
    let Some(entry) = leader else { return Ok(Seen::Nobody) };
    let record: LeaderRecord = read(entry)?;
    Ok(if record.instance == instance {
        Seen::Oneself(entry.lease)
    } else {
        Seen::Other(record)
    })
}

/// When a leader stops to believe in its term that asked for its lease, or for a renewal, at `asked`. The store counts
/// from when it heard of that, which is later; a sixth of the time is for clocks that run at different speeds.
pub(super) fn believed_until(asked: Monotonic, ttl: Duration) -> Monotonic {
    asked + ttl * 5 / 6
}

/// Time between two renewals: three may fail.
pub(super) fn renew_every(ttl: Duration) -> Duration {
    ttl / 4
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use shared::store::Revision;

    use super::*;

    #[test]
    fn the_key_says_who_leads() {
        let record = LeaderRecord {
            instance: Uuid::from_u128(1),
            name: "c1".into(),
            address: "http://127.0.0.1:7070".into(),
            http: Some("http://127.0.0.1:8080".into()),
            term: 3,
            since: Timestamp::from_millis(5),
        };
        let mut entry = Entry {
            key: "v1/leader".into(),
            value: record.to_json().unwrap().into(),
            revision: Revision(9),
            lease: Some(LeaseId(4)),
        };
        assert_eq!(seen(Uuid::from_u128(2), None).unwrap(), Seen::Nobody);
        assert_eq!(
            seen(Uuid::from_u128(1), Some(&entry)).unwrap(),
            Seen::Oneself(Some(LeaseId(4)))
        );
        assert_eq!(seen(Uuid::from_u128(2), Some(&entry)).unwrap(), Seen::Other(record));
        entry.value = Bytes::from_static(b"?");
        assert!(matches!(
            seen(Uuid::from_u128(2), Some(&entry)),
            Err(StoreError::Corrupt { .. })
        ));
    }

    #[test]
    fn belief_ends_before_the_lease_does_and_survives_lost_renewals() {
        for ttl in [Duration::from_secs(2), Duration::from_secs(3), Duration::from_secs(60)] {
            let asked = Monotonic::from_millis(1_000);
            let until = believed_until(asked, ttl);
            assert!(until < asked + ttl);
            assert!(until > asked + renew_every(ttl) * 3);
        }
    }
}
