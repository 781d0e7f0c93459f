//! [`Doors`]: who may publish what: push domains with their keys, and bans. Pure: each change gives the transaction that
//! makes it durable.
//!
//! A domain need not be known for a push to be taken, unless the settings ask for it; one that is known has its push keys
//! enforced.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};
use shared::{
    ids::StreamKey,
    secret::{Sealed, Vault},
    store::{StoreError, Txn, keys},
    time::Timestamp,
};
use thiserror::Error;

use crate::push_key;

/// Most domains.
pub(crate) const MAX_DOMAINS: usize = 100;
/// Longest push key, characters.
pub(crate) const MAX_KEY: usize = 256;
/// Most seconds that a push URL is good after its time: 30 days.
pub(crate) const MAX_GRACE_S: u32 = 30 * 86_400;
/// Most bans.
pub(crate) const MAX_BANS: usize = 10_000;

/// How pushes to a domain prove that they may.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PushAuth {
    /// Off: every push is taken.
    pub(crate) enabled: bool,
    /// Sealed for [`PushDomain::purpose`].
    pub(crate) master: Option<Sealed>,
    /// The same; while keys change both are accepted.
    pub(crate) backup: Option<Sealed>,
    /// Seconds for which a push URL is good after its time.
    pub(crate) grace_s: u32,
}

/// A push domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PushDomain {
    /// In lower case.
    pub(crate) name: String,
    /// Off: no push is taken.
    pub(crate) enabled: bool,
    pub(crate) auth: PushAuth,
    pub(crate) created: Timestamp,
}

impl PushDomain {
    /// What a domain's push keys are sealed for.
    pub(crate) fn purpose(name: &str) -> String {
        format!("push-key/{name}")
    }
}

/// A stream that must not be pushed for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ban {
    pub(crate) stream: StreamKey,
    pub(crate) created: Timestamp,
    pub(crate) until: Timestamp,
    pub(crate) reason: String,
}

/// How long a stream is forbidden where nothing else is said: 7 days.
const USUAL_BAN: Duration = Duration::from_secs(7 * 86_400);
/// How long a stream may be forbidden: 90 days.
const LONGEST_BAN: Duration = Duration::from_secs(90 * 86_400);
/// Longest reason of a ban, bytes.
const MAX_REASON: usize = 2_048;

impl Ban {
    /// From now on. Without `until` for a week.
    pub(crate) fn new(
        stream: StreamKey,
        now: Timestamp,
        until: Option<Timestamp>,
        reason: String,
    ) -> Result<Ban, DoorError> {
        let until = until.unwrap_or(now + USUAL_BAN);
        if until <= now || until > now + LONGEST_BAN {
            return Err(DoorError::Until);
        }
        if reason.len() > MAX_REASON {
            return Err(DoorError::Reason);
        }
        Ok(Ban {
            stream,
            created: now,
            until,
            reason,
        })
    }
}

/// What changes of a push domain; what is absent stays.
#[derive(Debug, Clone, Default)]
pub(crate) struct DomainChange {
    pub(crate) enabled: Option<bool>,
    pub(crate) auth: Option<bool>,
    /// Some(None): it is taken away.
    pub(crate) master: Option<Option<Sealed>>,
    pub(crate) backup: Option<Option<Sealed>>,
    pub(crate) grace_s: Option<u32>,
}

/// Why a change is refused. The message says what to do.
#[derive(Debug, Clone, Error)]
pub(crate) enum DoorError {
    #[error("the domain {0} is there already")]
    Known(String),
    #[error("there is no push domain {0}")]
    Unknown(String),
    #[error("there are {MAX_DOMAINS} domains, the most there may be: delete one")]
    TooManyDomains,
    #[error("there are {MAX_BANS} bans, the most there may be: resume some streams")]
    TooManyBans,
    #[error("push authentication is on and there is no key: give one, or switch it off")]
    NoKey,
    #[error("a ban must end ahead, within 90 days")]
    Until,
    #[error("the reason has more than {MAX_REASON} bytes")]
    Reason,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Domains and bans.
#[derive(Debug, Clone, Default)]
pub(crate) struct Doors {
    domains: BTreeMap<String, PushDomain>,
    bans: BTreeMap<StreamKey, Ban>,
    known_only: bool,
}

impl Doors {
    pub(crate) fn new(known_only: bool, domains: Vec<PushDomain>, bans: Vec<Ban>) -> Self {
        Doors {
            domains: domains
                .into_iter()
                .map(|domain| (domain.name.clone(), domain))
                .collect(),
            bans: bans.into_iter().map(|ban| (ban.stream.clone(), ban)).collect(),
            known_only,
        }
    }

    /// Lets a publish in, or says why not. `at` is the moment that counts for bans: now, or for a publish that is over
    /// already the moment at which it began.
    ///
    /// # Errors
    /// The reason, in words.
    pub(crate) fn admit(
        &self,
        vault: &Vault,
        stream: &StreamKey,
        params: &str,
        started: Timestamp,
        at: Timestamp,
    ) -> Result<(), String> {
        self.not_banned(stream, at)?;
        let name = stream.domain();
        let Some(domain) = self.domains.get(name) else {
            return match self.known_only {
                true => Err(format!("{name} is not one of the push domains here")),
                false => Ok(()),
            };
        };
        if !domain.enabled {
            return Err(format!("the push domain {name} is disabled (18, 303)"));
        }
        let auth = &domain.auth;
        if !auth.enabled {
            return Ok(());
        }
        let opened: Result<Vec<_>, _> = [&auth.master, &auth.backup]
            .into_iter()
            .flatten()
            .map(|sealed| vault.open(&PushDomain::purpose(name), sealed))
            .collect();
        let opened = opened.map_err(|error| error.to_string())?;
        let known: Vec<&str> = opened.iter().map(|key| key.reveal()).collect();
        push_key::check(&known, stream.stream(), params, auth.grace_s, started).map_err(|refused| refused.to_string())
    }

    /// # Errors
    /// The reason, in words.
    pub(crate) fn not_banned(&self, stream: &StreamKey, at: Timestamp) -> Result<(), String> {
        match self.ban_of(stream, at) {
            Some(ban) => Err(format!("stream {stream} is forbidden until {} (18, 305)", ban.until)),
            None => Ok(()),
        }
    }

    /// The ban that is in force at a moment.
    pub(crate) fn ban_of(&self, stream: &StreamKey, at: Timestamp) -> Option<&Ban> {
        self.bans.get(stream).filter(|ban| ban.created <= at && at < ban.until)
    }

    /// In the order of their streams; some may be over.
    pub(crate) fn bans(&self) -> impl Iterator<Item = &Ban> {
        self.bans.values()
    }

    /// In the order of their names.
    pub(crate) fn domains(&self) -> impl Iterator<Item = &PushDomain> {
        self.domains.values()
    }

    pub(crate) fn domain(&self, name: &str) -> Result<&PushDomain, DoorError> {
        self.domains
            .get(name)
            .ok_or_else(|| DoorError::Unknown(name.to_owned()))
    }

    pub(crate) fn add_domain(&mut self, domain: PushDomain) -> Result<Txn, DoorError> {
        if self.domains.contains_key(&domain.name) {
            return Err(DoorError::Known(domain.name));
        }
        if self.domains.len() >= MAX_DOMAINS {
            return Err(DoorError::TooManyDomains);
        }
        self.put_domain(domain)
    }

    pub(crate) fn change_domain(&mut self, name: &str, change: impl FnOnce(&mut PushDomain)) -> Result<Txn, DoorError> {
        let mut domain = self.domain(name)?.clone();
        change(&mut domain);
        self.put_domain(domain)
    }

    /// Changes what is given, and gives it as it is then.
    pub(crate) fn update_domain(&mut self, name: &str, change: DomainChange) -> Result<(PushDomain, Txn), DoorError> {
        let mut domain = self.domain(name)?.clone();
        let auth = &mut domain.auth;
        domain.enabled = change.enabled.unwrap_or(domain.enabled);
        auth.enabled = change.auth.unwrap_or(auth.enabled);
        auth.master = change.master.unwrap_or(auth.master.take());
        auth.backup = change.backup.unwrap_or(auth.backup.take());
        auth.grace_s = change.grace_s.unwrap_or(auth.grace_s);
        if auth.enabled && auth.master.is_none() && auth.backup.is_none() {
            return Err(DoorError::NoKey);
        }
        Ok((domain.clone(), self.put_domain(domain)?))
    }

    fn put_domain(&mut self, domain: PushDomain) -> Result<Txn, DoorError> {
        let txn = Txn::new().put_json(keys::domain(&domain.name), &domain)?;
        self.domains.insert(domain.name.clone(), domain);
        Ok(txn)
    }

    pub(crate) fn delete_domain(&mut self, name: &str) -> Result<Txn, DoorError> {
        self.domain(name)?;
        self.domains.remove(name);
        Ok(Txn::new().delete(keys::domain(name)))
    }

    pub(crate) fn forbid(&mut self, ban: Ban) -> Result<Txn, DoorError> {
        if self.bans.len() >= MAX_BANS && !self.bans.contains_key(&ban.stream) {
            return Err(DoorError::TooManyBans);
        }
        let txn = Txn::new().put_json(keys::ban(&ban.stream), &ban)?;
        self.bans.insert(ban.stream.clone(), ban);
        Ok(txn)
    }

    /// Without effect when the stream is not banned.
    pub(crate) fn resume(&mut self, stream: &StreamKey) -> Txn {
        match self.bans.remove(stream) {
            Some(_) => Txn::new().delete(keys::ban(stream)),
            None => Txn::new(),
        }
    }

    /// Forgets bans that were over before `until`.
    pub(crate) fn forget_bans(&mut self, until: Timestamp) -> Vec<Txn> {
        let over: Vec<StreamKey> = self
            .bans
            .values()
            .filter(|ban| ban.until <= until)
            .map(|ban| ban.stream.clone())
            .collect();
        over.chunks(100)
            .map(|chunk| {
                chunk.iter().fold(Txn::new(), |mut txn, stream| {
                    txn.ops.extend(self.resume(stream).ops);
                    txn
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use shared::secret::Secret;

    use super::*;

    fn at(s: i64) -> Timestamp {
        Timestamp::from_millis(s * 1_000)
    }

    fn vault() -> Vault {
        Vault::new(&[7; 32]).unwrap()
    }

    fn domain(name: &str, key: Option<&str>) -> PushDomain {
        let seal = |key| vault().seal(&PushDomain::purpose(name), &Secret::new(key)).unwrap();
        PushDomain {
            name: name.to_owned(),
            enabled: true,
            auth: PushAuth {
                enabled: key.is_some(),
                master: key.map(seal),
                backup: None,
                grace_s: 0,
            },
            created: at(0),
        }
    }

    #[test]
    fn a_known_domain_has_its_keys_enforced_and_an_unknown_one_is_open_unless_told() {
        let mut doors = Doors::new(false, vec![domain("d", Some("madeupPushKey0001"))], vec![]);
        let stream: StreamKey = "d/live/livetest".parse().unwrap();
        let query = "txSecret=4407efc787ddbe63255f89341cf1fad5&txTime=6553FF10";
        let now = at(1_700_000_000);
        let admit = |doors: &Doors, stream: &StreamKey, query| doors.admit(&vault(), stream, query, now, now);
        assert_eq!(admit(&doors, &stream, query), Ok(()));
        assert!(admit(&doors, &stream, "").unwrap_err().contains("500"));
        assert!(
            admit(&doors, &"d/live/other".parse().unwrap(), query)
                .unwrap_err()
                .contains("503")
        );
        assert_eq!(admit(&doors, &"e/live/other".parse().unwrap(), ""), Ok(()));
        let strict = Doors::new(true, vec![], vec![]);
        assert!(admit(&strict, &stream, query).is_err());
        let other = Vault::new(&[8; 32]).unwrap();
        assert!(
            doors.admit(&other, &stream, query, now, now).is_err(),
            "a key that cannot be opened lets nobody in"
        );
        doors.change_domain("d", |domain| domain.auth.enabled = false).unwrap();
        assert_eq!(admit(&doors, &stream, ""), Ok(()));
        doors.change_domain("d", |domain| domain.enabled = false).unwrap();
        assert!(admit(&doors, &stream, query).unwrap_err().contains("disabled"));
        doors.delete_domain("d").unwrap();
        assert!(matches!(doors.delete_domain("d"), Err(DoorError::Unknown(_))));
        assert_eq!(admit(&doors, &stream, ""), Ok(()));
    }

    #[test]
    fn domains_are_added_once_and_limited() {
        let mut doors = Doors::default();
        for index in 0..MAX_DOMAINS {
            doors.add_domain(domain(&format!("d{index}"), None)).unwrap();
        }
        assert!(matches!(doors.add_domain(domain("d0", None)), Err(DoorError::Known(_))));
        assert!(matches!(
            doors.add_domain(domain("more", None)),
            Err(DoorError::TooManyDomains)
        ));
    }

    #[test]
    fn a_ban_holds_from_its_making_to_its_end() {
        let mut doors = Doors::default();
        let stream: StreamKey = "d/a/s".parse().unwrap();
        let ban = Ban {
            stream: stream.clone(),
            created: at(10),
            until: at(20),
            reason: String::new(),
        };
        doors.forbid(ban.clone()).unwrap();
        for (moment, banned) in [(9, false), (10, true), (19, true), (20, false)] {
            assert_eq!(doors.ban_of(&stream, at(moment)).is_some(), banned, "{moment}");
            let admitted = doors.admit(&vault(), &stream, "", at(moment), at(moment));
            assert_eq!(admitted.is_err(), banned, "{moment}");
        }
        assert_eq!(doors.resume(&stream).ops.len(), 1);
        assert!(doors.resume(&stream).ops.is_empty());
        doors.forbid(ban).unwrap();
        assert!(doors.forget_bans(at(19)).is_empty());
        assert_eq!(doors.forget_bans(at(20)).len(), 1);
        assert_eq!(doors.bans().count(), 0);
    }
}
