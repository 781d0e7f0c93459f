//! [`Book`]: callback templates and rules. Pure: a change gives the next book.
//!
//! It is one value of the store, so that who tells of a change sees all of it at once, and a change of it cannot cross another.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use shared::{
    ids::{NameError, StreamKey, check_domain, check_name},
    secret::Sealed,
    time::Timestamp,
};
use thiserror::Error;

use super::{
    Kind,
    reach::{Policy, Target, Unsafe},
};

/// Most templates, and most rules.
pub(crate) const MOST: usize = 50;
/// Longest name, bytes.
const MAX_NAME: usize = 255;
/// Longest description, bytes.
const MAX_DESCRIPTION: usize = 1_024;

/// How bad an exception is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Level {
    Error,
    Warning,
    Info,
}

impl Level {
    pub(crate) const ALL: [Level; 3] = [Level::Error, Level::Warning, Level::Info];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Level::Error => "error",
            Level::Warning => "warning",
            Level::Info => "info",
        }
    }
}

/// Where a receiver hears of what.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct CallbackSpec {
    pub(crate) name: String,
    pub(crate) description: String,
    /// Where each kind of event goes; what is not there goes nowhere.
    pub(crate) urls: BTreeMap<Kind, String>,
    /// Which exceptions are told; empty: all.
    pub(crate) levels: Vec<Level>,
    /// What events are signed with, sealed for [`KEY_PURPOSE`]; none: they are not signed.
    pub(crate) key: Option<Sealed>,
}

/// What the keys of all callback templates are sealed for.
pub(crate) const KEY_PURPOSE: &str = "callback-key";

/// A stored callback template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CallbackTemplate {
    /// The millisecond of its making, or the next that was free: never given again.
    pub(crate) id: u64,
    #[serde(flatten)]
    pub(crate) spec: CallbackSpec,
    pub(crate) created: Timestamp,
    pub(crate) updated: Timestamp,
}

/// What a callback rule covers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Place {
    pub(crate) domain: String,
    /// None: any, unless another rule names it.
    pub(crate) app: Option<String>,
}

impl Place {
    /// Checks the names; an app that is empty means any.
    pub(crate) fn new(domain: &str, app: &str) -> Result<Self, NameError> {
        Ok(Place {
            domain: check_domain(domain)?,
            app: match app {
                "" => None,
                app => Some(check_name("app", app)?.to_owned()),
            },
        })
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.domain, self.app.as_deref().unwrap_or("*"))
    }
}

/// A stored callback rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CallbackRule {
    #[serde(flatten)]
    pub(crate) place: Place,
    pub(crate) template: u64,
    pub(crate) created: Timestamp,
}

/// Why a change is refused. The message says what to do.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum BookError {
    #[error("a callback template's name has 1 to {MAX_NAME} bytes, without control characters")]
    Name,
    #[error("a callback template named {0:?} exists: choose another name, or change that one")]
    NameTaken(String),
    #[error("a description has at most {MAX_DESCRIPTION} bytes")]
    Description,
    #[error("a callback template needs at least one URL")]
    NoUrl,
    #[error("the URL for {kind}: {problem}")]
    Url { kind: Kind, problem: Unsafe },
    #[error("there are {MOST} callback templates, the most there may be: delete one")]
    TooManyTemplates,
    #[error("no callback template {0}: `aircheck callback template list` shows what there is")]
    NoTemplate(String),
    #[error("callback template {0} is used by the rule for {1}: delete that first")]
    InUse(u64, Place),
    #[error("a callback rule for {0} exists: delete it first, there is one for each domain and app")]
    RuleExists(Place),
    #[error("there are {MOST} callback rules, the most there may be: delete one")]
    TooManyRules,
    #[error("no callback rule for {0}: `aircheck callback rule list` shows what there is")]
    NoRule(Place),
}

/// Callback templates and rules.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Book {
    templates: Vec<CallbackTemplate>,
    rules: Vec<CallbackRule>,
    /// The last id that was given.
    last: u64,
}

impl CallbackSpec {
    fn check(&self, policy: &Policy) -> Result<(), BookError> {
        if self.name.is_empty() || self.name.len() > MAX_NAME || self.name.chars().any(char::is_control) {
            return Err(BookError::Name);
        }
        if self.description.len() > MAX_DESCRIPTION {
            return Err(BookError::Description);
        }
        if self.urls.is_empty() {
            return Err(BookError::NoUrl);
        }
        for (kind, url) in &self.urls {
            Target::read(url, policy).map_err(|problem| BookError::Url { kind: *kind, problem })?;
        }
        Ok(())
    }
}

impl Book {
    /// What events are signed with, sealed.
    pub(crate) fn keys_mut(&mut self) -> impl Iterator<Item = &mut Sealed> {
        let keys = self.templates.iter_mut();
        keys.filter_map(|template| template.spec.key.as_mut())
    }

    /// In the order of their making.
    pub(crate) fn templates(&self) -> &[CallbackTemplate] {
        &self.templates
    }

    /// In the order of their places.
    pub(crate) fn rules(&self) -> &[CallbackRule] {
        &self.rules
    }

    pub(crate) fn template(&self, id: u64) -> Result<&CallbackTemplate, BookError> {
        let found = self.templates.iter().find(|template| template.id == id);
        found.ok_or_else(|| BookError::NoTemplate(id.to_string()))
    }

    /// By its number, or else its name.
    pub(crate) fn named(&self, text: &str) -> Result<&CallbackTemplate, BookError> {
        let number = text.parse::<u64>().ok();
        let by_id = |template: &&CallbackTemplate| Some(template.id) == number;
        let by_name = |template: &&CallbackTemplate| template.spec.name == text;
        let found = self.templates.iter().find(by_id);
        let found = found.or_else(|| self.templates.iter().find(by_name));
        found.ok_or_else(|| BookError::NoTemplate(text.to_owned()))
    }

    fn check_name(&self, name: &str, except: Option<u64>) -> Result<(), BookError> {
        let mut others = self.templates.iter().filter(|other| Some(other.id) != except);
        match others.any(|other| other.spec.name == name) {
            true => Err(BookError::NameTaken(name.to_owned())),
            false => Ok(()),
        }
    }

    pub(crate) fn create_template(
        &mut self,
        spec: CallbackSpec,
        policy: &Policy,
        now: Timestamp,
    ) -> Result<CallbackTemplate, BookError> {
        spec.check(policy)?;
        self.check_name(&spec.name, None)?;
        if self.templates.len() >= MOST {
            return Err(BookError::TooManyTemplates);
        }
        let at = u64::try_from(now.as_millis()).unwrap_or(0);
        self.last = at.max(self.last.saturating_add(1));
        let template = CallbackTemplate {
            id: self.last,
            spec,
            created: now,
            updated: now,
        };
        self.templates.push(template.clone());
        Ok(template)
    }

    pub(crate) fn update_template(
        &mut self,
        id: u64,
        change: impl FnOnce(&mut CallbackSpec),
        policy: &Policy,
        now: Timestamp,
    ) -> Result<CallbackTemplate, BookError> {
        let mut spec = self.template(id)?.spec.clone();
        change(&mut spec);
        spec.check(policy)?;
        self.check_name(&spec.name, Some(id))?;
        let known = self.templates.iter_mut().find(|template| template.id == id);
        let known = known.ok_or_else(|| BookError::NoTemplate(id.to_string()))?;
        known.spec = spec;
        known.updated = now;
        Ok(known.clone())
    }

    pub(crate) fn delete_template(&mut self, id: u64) -> Result<(), BookError> {
        self.template(id)?;
        if let Some(rule) = self.rules.iter().find(|rule| rule.template == id) {
            return Err(BookError::InUse(id, rule.place.clone()));
        }
        self.templates.retain(|template| template.id != id);
        Ok(())
    }

    pub(crate) fn create_rule(
        &mut self,
        place: Place,
        template: u64,
        now: Timestamp,
    ) -> Result<CallbackRule, BookError> {
        self.template(template)?;
        let at = match self.rules.binary_search_by(|rule| rule.place.cmp(&place)) {
            Ok(_) => return Err(BookError::RuleExists(place)),
            Err(at) => at,
        };
        if self.rules.len() >= MOST {
            return Err(BookError::TooManyRules);
        }
        let rule = CallbackRule {
            place,
            template,
            created: now,
        };
        self.rules.insert(at, rule.clone());
        Ok(rule)
    }

    pub(crate) fn delete_rule(&mut self, place: &Place) -> Result<(), BookError> {
        let before = self.rules.len();
        self.rules.retain(|rule| rule.place != *place);
        match self.rules.len() == before {
            true => Err(BookError::NoRule(place.clone())),
            false => Ok(()),
        }
    }

    /// Who hears of a stream: the rule for its domain and app, or else the one for its domain.
    pub(crate) fn receiver(&self, stream: &StreamKey) -> Option<&CallbackTemplate> {
        let of = |app: Option<&str>| {
            let covers =
                |rule: &&CallbackRule| rule.place.domain == stream.domain() && rule.place.app.as_deref() == app;
            self.rules.iter().find(covers)
        };
        let rule = of(Some(stream.app())).or_else(|| of(None))?;
        self.template(rule.template).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str) -> CallbackSpec {
        CallbackSpec {
            name: name.to_owned(),
            urls: BTreeMap::from([(Kind::File, "http://receiver.example/files".to_owned())]),
            ..CallbackSpec::default()
        }
    }

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millis(ms)
    }

    #[test]
    fn a_rule_for_the_app_comes_before_that_for_the_domain() {
        let (mut book, policy) = (Book::default(), Policy::default());
        let one = book.create_template(spec("one"), &policy, at(5)).unwrap().id;
        let two = book.create_template(spec("two"), &policy, at(5)).unwrap().id;
        assert_eq!((one, two), (5, 6), "numbers are given once");
        book.create_rule(Place::new("D.example", "").unwrap(), one, at(1))
            .unwrap();
        book.create_rule(Place::new("d.example", "live").unwrap(), two, at(1))
            .unwrap();
        let of = |app: &str| {
            book.receiver(&StreamKey::new("d.example", app, "s").unwrap())
                .map(|t| t.id)
        };
        assert_eq!((of("live"), of("other")), (Some(two), Some(one)));
        assert_eq!(book.receiver(&StreamKey::new("e.example", "live", "s").unwrap()), None);
        let json = serde_json::to_string(&book).unwrap();
        assert_eq!(serde_json::from_str::<Book>(&json).unwrap(), book);
    }

    #[test]
    fn what_is_refused_says_why() {
        let (mut book, policy) = (Book::default(), Policy::default());
        let id = book.create_template(spec("one"), &policy, at(5)).unwrap().id;
        let place = Place::new("d", "live").unwrap();
        book.create_rule(place.clone(), id, at(1)).unwrap();
        assert_eq!(
            book.create_rule(place.clone(), id, at(1)),
            Err(BookError::RuleExists(place.clone()))
        );
        assert_eq!(book.delete_template(id), Err(BookError::InUse(id, place.clone())));
        assert_eq!(
            book.create_template(spec("one"), &policy, at(9)),
            Err(BookError::NameTaken("one".to_owned()))
        );
        assert_eq!(
            book.create_template(
                CallbackSpec {
                    name: "x".into(),
                    ..CallbackSpec::default()
                },
                &policy,
                at(9)
            ),
            Err(BookError::NoUrl)
        );
        for url in [
            "ftp://a/b",
            "nonsense",
            "http://127.0.0.1/x",
            "http://u:p@host.example/",
            "http://[::1]/",
        ] {
            let bad = |spec: &mut CallbackSpec| drop(spec.urls.insert(Kind::Status, url.to_owned()));
            let refused = book.update_template(id, bad, &policy, at(9));
            assert!(
                matches!(refused, Err(BookError::Url { kind: Kind::Status, .. })),
                "{url}: {refused:?}"
            );
        }
        book.delete_rule(&place).unwrap();
        assert_eq!(book.delete_rule(&place), Err(BookError::NoRule(place)));
        book.delete_template(id).unwrap();
        assert_eq!(book.delete_template(id), Err(BookError::NoTemplate(id.to_string())));
        let next = book.create_template(spec("one"), &policy, at(1)).unwrap();
        assert_eq!(next.id, 6, "a clock that went back gives no number again");
        for n in 1..MOST {
            book.create_template(spec(&n.to_string()), &policy, at(9)).unwrap();
        }
        assert_eq!(
            book.create_template(spec("more"), &policy, at(9)),
            Err(BookError::TooManyTemplates)
        );
    }
}
