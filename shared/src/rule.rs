//! Which stream is recorded with which template: [`RuleKey`], and the pure matcher [`winner`] with its [`explain`].

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{
    ids::{NameError, StreamKey, TemplateId, check_domain, check_name},
    time::Timestamp,
};

/// What a rule covers, and its identity: one rule for each triple.
///
/// As text it is `domain/app/stream` with `*` for any.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RuleKey {
    domain: String,
    app: Option<String>,
    stream: Option<String>,
}

/// How closely a rule's triple describes a stream. The order is that of precedence: the first that exists wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Specificity {
    /// Domain, app and stream.
    DomainAppStream,
    /// Domain and stream, any app.
    DomainStream,
    /// Domain and app, any stream.
    DomainApp,
    /// Domain alone.
    Domain,
}

impl Specificity {
    /// Most specific first.
    pub const ALL: [Specificity; 4] = [
        Specificity::DomainAppStream,
        Specificity::DomainStream,
        Specificity::DomainApp,
        Specificity::Domain,
    ];

    /// In words, such as `domain+app`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Specificity::DomainAppStream => "domain+app+stream",
            Specificity::DomainStream => "domain+stream",
            Specificity::DomainApp => "domain+app",
            Specificity::Domain => "domain",
        }
    }

    /// The only triple of this specificity that covers `stream`.
    #[must_use]
    pub fn key(self, stream: &StreamKey) -> RuleKey {
        let app = || Some(stream.app().to_owned());
        let name = || Some(stream.stream().to_owned());
        let (app, name) = match self {
            Specificity::DomainAppStream => (app(), name()),
            Specificity::DomainStream => (None, name()),
            Specificity::DomainApp => (app(), None),
            Specificity::Domain => (None, None),
        };
        RuleKey {
            domain: stream.domain().to_owned(),
            app,
            stream: name,
        }
    }
}

impl RuleKey {
    /// Checks the names; an app or stream that is empty or `*` means any.
    ///
    /// # Errors
    /// [`NameError`], as for a [`StreamKey`].
    pub fn new(domain: &str, app: &str, stream: &str) -> Result<Self, NameError> {
        let optional = |part, name: &str| {
            if name.is_empty() {
                Ok(None)
            } else {
                check_name(part, name).map(|name| Some(name.to_owned()))
            }
        };
        Ok(RuleKey {
            domain: check_domain(domain)?,
            app: optional("app", app)?,
            stream: optional("stream", stream)?,
        })
    }

    /// Push domain, lower case.
    #[must_use]
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Application; none: any.
    #[must_use]
    pub fn app(&self) -> Option<&str> {
        self.app.as_deref()
    }

    /// Stream name; none: any.
    #[must_use]
    pub fn stream(&self) -> Option<&str> {
        self.stream.as_deref()
    }

    /// Which of the four places it takes.
    #[must_use]
    pub const fn specificity(&self) -> Specificity {
        match (&self.app, &self.stream) {
            (Some(_), Some(_)) => Specificity::DomainAppStream,
            (None, Some(_)) => Specificity::DomainStream,
            (Some(_), None) => Specificity::DomainApp,
            (None, None) => Specificity::Domain,
        }
    }
}

impl fmt::Display for RuleKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}/{}/{}",
            self.domain,
            self.app().unwrap_or("*"),
            self.stream().unwrap_or("*")
        )
    }
}

/// A stored rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// What it covers.
    pub key: RuleKey,
    /// How those streams are recorded.
    pub template: TemplateId,
    /// When it was made.
    pub created: Timestamp,
}

/// All rules by their triples.
pub type Rules = BTreeMap<RuleKey, Rule>;

/// The rule that decides about a stream: the most specific that covers it. At most four look-ups.
#[must_use]
pub fn winner<'a>(rules: &'a Rules, stream: &StreamKey) -> Option<&'a Rule> {
    Specificity::ALL
        .into_iter()
        .find_map(|specificity| rules.get(&specificity.key(stream)))
}

/// One place where a rule for a stream may stand, and what is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate<'a> {
    /// The triple.
    pub key: RuleKey,
    /// Its place in the precedence.
    pub specificity: Specificity,
    /// The rule, if there is one.
    pub rule: Option<&'a Rule>,
    /// True for the one that decides.
    pub wins: bool,
    /// In words: why it wins, loses or does not count.
    pub reason: String,
}

/// Every place where a rule for `stream` may stand, most specific first, with the reason why it wins or not.
#[must_use]
pub fn explain<'a>(rules: &'a Rules, stream: &StreamKey) -> [Candidate<'a>; 4] {
    let mut decided: Option<Specificity> = None;
    Specificity::ALL.map(|specificity| {
        let key = specificity.key(stream);
        let rule = rules.get(&key);
        let wins = rule.is_some() && decided.is_none();
        let reason = match (rule, decided) {
            (None, _) => "there is no such rule".to_owned(),
            (Some(_), Some(better)) => format!("the rule for {} is more specific", better.as_str()),
            (Some(_), None) => {
                decided = Some(specificity);
                "it is the most specific rule that covers the stream".to_owned()
            }
        };
        Candidate {
            key,
            specificity,
            rule,
            wins,
            reason,
        }
    })
}

impl FromStr for RuleKey {
    type Err = NameError;
    /// Reads `domain/app/stream`, where `*` or nothing means any, and missing parts too.
    fn from_str(text: &str) -> Result<Self, NameError> {
        let mut parts = text.splitn(3, '/').map(|part| if part == "*" { "" } else { part });
        let domain = parts.next().unwrap_or_default();
        RuleKey::new(
            domain,
            parts.next().unwrap_or_default(),
            parts.next().unwrap_or_default(),
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ids::Seeded;

    fn rules(keys: &[&str]) -> Rules {
        let ids = Seeded::new(1);
        let now = Timestamp::from_millis(5);
        keys.iter()
            .map(|text| {
                let key: RuleKey = text.parse().unwrap();
                (
                    key.clone(),
                    Rule {
                        key,
                        template: TemplateId::generate(&ids, now),
                        created: now,
                    },
                )
            })
            .collect()
    }

    fn winner_text(keys: &[&str], stream: &str) -> Option<String> {
        winner(&rules(keys), &stream.parse().unwrap()).map(|rule| rule.key.to_string())
    }

    #[test]
    fn the_most_specific_rule_wins() {
        let all = ["d", "d/a", "d/*/s", "d/a/s"];
        assert_eq!(winner_text(&all, "d/a/s").as_deref(), Some("d/a/s"));
        assert_eq!(winner_text(&all[..3], "d/a/s").as_deref(), Some("d/*/s"));
        assert_eq!(winner_text(&all[..2], "d/a/s").as_deref(), Some("d/a/*"));
        assert_eq!(winner_text(&all[..1], "d/a/s").as_deref(), Some("d/*/*"));
        assert_eq!(winner_text(&all, "d/b/t").as_deref(), Some("d/*/*"));
        assert_eq!(winner_text(&all, "e/a/s"), None);
        assert_eq!(
            winner_text(&all, "D/a/s").as_deref(),
            Some("d/a/s"),
            "domains have no case"
        );
        assert_eq!(winner_text(&all, "d/A/s").as_deref(), Some("d/*/s"), "apps have");
    }

    #[test]
    fn the_explanation_names_each_place_and_its_reason() {
        let rules = rules(&["d", "d/a"]);
        let stream = "d/a/s".parse().unwrap();
        let said: Vec<_> = explain(&rules, &stream)
            .into_iter()
            .map(|c| (c.key.to_string(), c.wins, c.reason))
            .collect();
        let none = "there is no such rule".to_owned();
        assert_eq!(
            said,
            [
                ("d/a/s".to_owned(), false, none.clone()),
                ("d/*/s".to_owned(), false, none),
                (
                    "d/a/*".to_owned(),
                    true,
                    "it is the most specific rule that covers the stream".to_owned()
                ),
                (
                    "d/*/*".to_owned(),
                    false,
                    "the rule for domain+app is more specific".to_owned()
                ),
            ]
        );
    }

    /// The plain model: look at every rule, keep those that cover the stream, sort by how much they say.
    fn model(rules: &Rules, stream: &StreamKey) -> Option<RuleKey> {
        let covers = |key: &&RuleKey| {
            key.domain() == stream.domain()
                && key.app().is_none_or(|app| app == stream.app())
                && key.stream().is_none_or(|name| name == stream.stream())
        };
        let weight = |key: &&RuleKey| (u8::from(key.stream().is_some()) * 2) + u8::from(key.app().is_some());
        rules.keys().filter(covers).max_by_key(weight).cloned()
    }

    proptest! {
        #[test]
        fn the_matcher_agrees_with_a_plain_model(
            keys in prop::collection::vec(("[ab]", "[xy]?", "[st]?"), 0..20),
            stream in ("[abc]", "[xyz]", "[stu]"),
        ) {
            let texts: Vec<String> = keys.iter().map(|(d, a, s)| format!("{d}/{a}/{s}")).collect();
            let rules = rules(&texts.iter().map(String::as_str).collect::<Vec<_>>());
            let stream = StreamKey::new(&stream.0, &stream.1, &stream.2).unwrap();
            let expected = model(&rules, &stream);
            prop_assert_eq!(winner(&rules, &stream).map(|rule| rule.key.clone()), expected.clone());
            let explained: Vec<_> = explain(&rules, &stream).into_iter().filter(|c| c.wins).map(|c| c.key).collect();
            prop_assert_eq!(explained, expected.into_iter().collect::<Vec<_>>());
        }
    }
}
