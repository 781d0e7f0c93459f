//! [`Catalog`]: templates and rules, what may be done to them, and what they say about a stream. Pure: each change
//! gives the transaction that makes it durable.

use std::{collections::BTreeMap, time::Duration};

use shared::{
    config::CoordinatorConfig,
    ids::{IdGen, StreamKey, TemplateId},
    recording::Cause,
    rule::{self, Rule, RuleKey, Rules},
    store::{StoreError, Txn, keys},
    template::{Format, Template, TemplateError, TemplateSpec},
    time::Timestamp,
};
use thiserror::Error;

/// Name of the built-in rule's template.
pub(crate) const BUILT_IN: &str = "built-in";

/// Names a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TemplateRef {
    /// By id.
    Id(TemplateId),
    /// By its number.
    Number(u64),
    /// By name.
    Name(String),
}

impl std::fmt::Display for TemplateRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            TemplateRef::Id(id) => id.fmt(f),
            TemplateRef::Number(number) => number.fmt(f),
            TemplateRef::Name(name) => name.fmt(f),
        }
    }
}

/// Why a change of the catalog is refused. The message says what to do.
#[derive(Debug, Clone, Error)]
pub(crate) enum CatalogError {
    #[error(transparent)]
    Template(#[from] TemplateError),
    #[error("a template named {0:?} exists: choose another name, or update that one")]
    NameTaken(String),
    #[error("place {found:?}: the coordinator's settings {}", known(places))]
    NoPlace { found: String, places: Vec<String> },
    #[error("the name {BUILT_IN:?} belongs to the built-in rule of --record: choose another")]
    NameReserved,
    #[error("no template {0}: `aircheck template list` shows what there is")]
    NoTemplate(TemplateRef),
    #[error("there are {0} templates, the most that coordinator.max_templates allows: delete one, or raise the limit")]
    TooManyTemplates(usize),
    #[error("template {name:?} is used by {} rule(s) ({}): delete those first", rules.len(), shortened(rules))]
    InUse { name: String, rules: Vec<RuleKey> },
    #[error("a rule for {0} exists: delete it first, there is one rule for each domain, app and stream")]
    RuleExists(RuleKey),
    #[error("no rule for {0}: `aircheck rule list` shows what there is")]
    NoRule(RuleKey),
    #[error("there are {0} rules, the most that coordinator.max_rules allows: delete one, or raise the limit")]
    TooManyRules(usize),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Which places there are.
fn known(places: &[String]) -> String {
    match places {
        [] => "have no places of objects: set objects.places.NAME.url, or leave the place out".to_owned(),
        places => format!("have these places of objects: {}", places.join(", ")),
    }
}

fn shortened(rules: &[RuleKey]) -> String {
    let mut text = rules
        .iter()
        .take(5)
        .map(RuleKey::to_string)
        .collect::<Vec<_>>()
        .join(", ");
    if rules.len() > 5 {
        text.push_str(", …");
    }
    text
}

/// What the rules say about a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Decision {
    /// Why it would be recorded.
    pub(crate) cause: Cause,
    /// How; without a format it would not.
    pub(crate) template: TemplateSpec,
}

/// One line of an explanation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CandidateLine {
    pub(crate) rule: String,
    pub(crate) specificity: &'static str,
    pub(crate) exists: bool,
    pub(crate) wins: bool,
    pub(crate) reason: String,
    pub(crate) template: String,
}

/// Which rule would win for a stream, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Explanation {
    pub(crate) candidates: Vec<CandidateLine>,
    pub(crate) formats: Vec<Format>,
    pub(crate) summary: String,
}

/// Templates and rules.
#[derive(Debug, Clone)]
pub(crate) struct Catalog {
    templates: BTreeMap<TemplateId, Template>,
    rules: Rules,
    built_in: Option<TemplateSpec>,
    /// Names of the places of objects that templates may name.
    places: Vec<String>,
    max_templates: usize,
    max_rules: usize,
}

impl Catalog {
    pub(crate) fn new(config: &CoordinatorConfig, templates: Vec<Template>, rules: Vec<Rule>) -> Self {
        Catalog {
            templates: templates.into_iter().map(|template| (template.id, template)).collect(),
            rules: rules.into_iter().map(|rule| (rule.key.clone(), rule)).collect(),
            built_in: (!config.record.is_empty()).then(|| TemplateSpec::plain(BUILT_IN, &config.record)),
            places: config.objects.places.keys().cloned().collect(),
            max_templates: config.max_templates,
            max_rules: config.max_rules,
        }
    }

    /// In the order of their making.
    pub(crate) fn templates(&self) -> impl Iterator<Item = &Template> {
        self.templates.values()
    }

    /// In the order of their triples.
    pub(crate) fn rules(&self) -> impl Iterator<Item = &Rule> {
        self.rules.values()
    }

    pub(crate) fn template(&self, by: &TemplateRef) -> Result<&Template, CatalogError> {
        let found = match by {
            TemplateRef::Id(id) => self.templates.get(id),
            TemplateRef::Number(number) => self.templates.values().find(|template| template.id.number() == *number),
            TemplateRef::Name(name) => self.templates.values().find(|template| template.spec.name == *name),
        };
        found.ok_or_else(|| CatalogError::NoTemplate(by.clone()))
    }

    /// An id for a new template whose number no other has: made a moment later if need be.
    pub(crate) fn new_template_id(&self, ids: &dyn IdGen, now: Timestamp) -> TemplateId {
        let mut at = now;
        loop {
            let id = TemplateId::generate(ids, at);
            if self.template(&TemplateRef::Number(id.number())).is_err() {
                return id;
            }
            at = at + Duration::from_millis(1);
        }
    }

    pub(crate) fn template_name(&self, id: TemplateId) -> &str {
        self.templates.get(&id).map_or("", |template| &template.spec.name)
    }

    fn check_name(&self, name: &str, except: Option<TemplateId>) -> Result<(), CatalogError> {
        if name == BUILT_IN {
            return Err(CatalogError::NameReserved);
        }
        if self
            .templates
            .values()
            .any(|other| other.spec.name == name && Some(other.id) != except)
        {
            return Err(CatalogError::NameTaken(name.to_owned()));
        }
        Ok(())
    }

    /// Refuses settings whose place this coordinator does not know.
    pub(crate) fn check_place(&self, spec: &TemplateSpec) -> Result<(), CatalogError> {
        match spec.place.is_empty() || self.places.contains(&spec.place) {
            true => Ok(()),
            false => Err(CatalogError::NoPlace {
                found: spec.place.clone(),
                places: self.places.clone(),
            }),
        }
    }

    /// Templates whose place this coordinator does not know (any more).
    pub(crate) fn misplaced(&self) -> impl Iterator<Item = &Template> {
        self.templates
            .values()
            .filter(|template| self.check_place(&template.spec).is_err())
    }

    pub(crate) fn create_template(
        &mut self,
        spec: TemplateSpec,
        id: TemplateId,
        now: Timestamp,
    ) -> Result<(Template, Txn), CatalogError> {
        spec.validate()?;
        self.check_place(&spec)?;
        self.check_name(&spec.name, None)?;
        if self.templates.len() >= self.max_templates {
            return Err(CatalogError::TooManyTemplates(self.templates.len()));
        }
        self.put_template(Template {
            id,
            spec,
            created: now,
            updated: now,
        })
    }

    pub(crate) fn update_template(
        &mut self,
        by: &TemplateRef,
        spec: TemplateSpec,
        now: Timestamp,
    ) -> Result<(Template, Txn), CatalogError> {
        spec.validate()?;
        self.check_place(&spec)?;
        let old = self.template(by)?;
        let (id, created) = (old.id, old.created);
        self.check_name(&spec.name, Some(id))?;
        self.put_template(Template {
            id,
            spec,
            created,
            updated: now,
        })
    }

    fn put_template(&mut self, template: Template) -> Result<(Template, Txn), CatalogError> {
        let txn = Txn::new().put_json(keys::template(template.id), &template)?;
        self.templates.insert(template.id, template.clone());
        Ok((template, txn))
    }

    pub(crate) fn delete_template(&mut self, by: &TemplateRef) -> Result<Txn, CatalogError> {
        let template = self.template(by)?;
        let (id, name) = (template.id, template.spec.name.clone());
        let rules: Vec<_> = self
            .rules
            .values()
            .filter(|rule| rule.template == id)
            .map(|rule| rule.key.clone())
            .collect();
        if !rules.is_empty() {
            return Err(CatalogError::InUse { name, rules });
        }
        self.templates.remove(&id);
        Ok(Txn::new().delete(keys::template(id)))
    }

    pub(crate) fn create_rule(
        &mut self,
        key: RuleKey,
        template: &TemplateRef,
        now: Timestamp,
    ) -> Result<(Rule, Txn), CatalogError> {
        let template = self.template(template)?.id;
        if self.rules.contains_key(&key) {
            return Err(CatalogError::RuleExists(key));
        }
        if self.rules.len() >= self.max_rules {
            return Err(CatalogError::TooManyRules(self.rules.len()));
        }
        let rule = Rule {
            key: key.clone(),
            template,
            created: now,
        };
        let txn = Txn::new().put_json(keys::rule(&key), &rule)?;
        self.rules.insert(key, rule.clone());
        Ok((rule, txn))
    }

    pub(crate) fn delete_rule(&mut self, key: &RuleKey) -> Result<Txn, CatalogError> {
        self.rules
            .remove(key)
            .ok_or_else(|| CatalogError::NoRule(key.clone()))?;
        Ok(Txn::new().delete(keys::rule(key)))
    }

    /// What a publish of this stream that starts now gets; none: no rule and no `--record`.
    pub(crate) fn decide(&self, stream: &StreamKey) -> Option<Decision> {
        if let Some(rule) = rule::winner(&self.rules, stream)
            && let Some(template) = self.templates.get(&rule.template)
        {
            return Some(Decision {
                cause: Cause::Rule(rule.key.to_string()),
                template: template.spec.clone(),
            });
        }
        self.built_in.clone().map(|template| Decision {
            cause: Cause::BuiltIn,
            template,
        })
    }

    pub(crate) fn explain(&self, stream: &StreamKey) -> Explanation {
        let mut candidates: Vec<_> = rule::explain(&self.rules, stream)
            .into_iter()
            .map(|candidate| CandidateLine {
                rule: candidate.key.to_string(),
                specificity: candidate.specificity.as_str(),
                exists: candidate.rule.is_some(),
                wins: candidate.wins,
                reason: candidate.reason,
                template: candidate
                    .rule
                    .map_or("", |rule| self.template_name(rule.template))
                    .to_owned(),
            })
            .collect();
        let ruled = candidates.iter().any(|line| line.wins);
        let (wins, reason) = match (&self.built_in, ruled) {
            (None, _) => (false, "--record was not given"),
            (Some(_), true) => (false, "a rule covers the stream"),
            (Some(_), false) => (true, "no rule covers the stream, and --record was given"),
        };
        candidates.push(CandidateLine {
            rule: BUILT_IN.to_owned(),
            specificity: BUILT_IN,
            exists: self.built_in.is_some(),
            wins,
            reason: reason.to_owned(),
            template: self.built_in.as_ref().map_or("", |_| BUILT_IN).to_owned(),
        });
        let decision = self.decide(stream);
        let formats: Vec<Format> = decision
            .as_ref()
            .map(|decision| decision.template.formats.keys().copied().collect())
            .unwrap_or_default();
        let summary = match &decision {
            None => format!("{stream} would not be recorded: no rule covers it, and --record was not given"),
            Some(Decision { cause, template }) if template.is_no_record() => {
                format!(
                    "{stream} would not be recorded: {cause} wins, and its template {:?} has no format on",
                    template.name
                )
            }
            Some(Decision { cause, template }) => {
                let list = formats
                    .iter()
                    .map(|format| format.as_str())
                    .collect::<Vec<_>>()
                    .join(", ");
                format!(
                    "{stream} would be recorded as {list}: {cause} wins, with template {:?}",
                    template.name
                )
            }
        };
        Explanation {
            candidates,
            formats,
            summary,
        }
    }
}

#[cfg(test)]
mod tests {
    use shared::{config::PlaceConfig, ids::Seeded};

    use super::*;

    fn catalog(record: &[Format]) -> Catalog {
        let config = CoordinatorConfig {
            record: record.to_vec(),
            max_templates: 3,
            max_rules: 3,
            ..Default::default()
        };
        Catalog::new(&config, vec![], vec![])
    }

    fn create(catalog: &mut Catalog, seed: u64, name: &str, formats: &[Format]) -> Result<Template, CatalogError> {
        let id = TemplateId::generate(&Seeded::new(seed), Timestamp::from_millis(5));
        catalog
            .create_template(TemplateSpec::plain(name, formats), id, Timestamp::from_millis(5))
            .map(|(made, _)| made)
    }

    fn named(name: &str) -> TemplateRef {
        TemplateRef::Name(name.to_owned())
    }

    fn rule(catalog: &mut Catalog, key: &str, template: &str) -> Result<Rule, CatalogError> {
        catalog
            .create_rule(key.parse().unwrap(), &named(template), Timestamp::from_millis(5))
            .map(|(made, _)| made)
    }

    #[test]
    fn names_are_unique_and_templates_limited() {
        let mut catalog = catalog(&[]);
        create(&mut catalog, 1, "a", &[Format::Flv]).unwrap();
        assert!(matches!(
            create(&mut catalog, 2, "a", &[]),
            Err(CatalogError::NameTaken(_))
        ));
        assert!(matches!(
            create(&mut catalog, 2, BUILT_IN, &[]),
            Err(CatalogError::NameReserved)
        ));
        assert!(matches!(
            create(&mut catalog, 2, "a b", &[]),
            Err(CatalogError::Template(_))
        ));
        create(&mut catalog, 2, "b", &[]).unwrap();
        create(&mut catalog, 3, "c", &[]).unwrap();
        let full = create(&mut catalog, 4, "d", &[]).unwrap_err();
        assert!(full.to_string().contains("coordinator.max_templates"), "{full}");
        let taken = catalog.update_template(&named("b"), TemplateSpec::plain("a", &[]), Timestamp::from_millis(6));
        assert!(matches!(taken, Err(CatalogError::NameTaken(_))));
        let (renamed, _) = catalog
            .update_template(&named("b"), TemplateSpec::plain("e", &[]), Timestamp::from_millis(6))
            .unwrap();
        assert_eq!((renamed.created.as_millis(), renamed.updated.as_millis()), (5, 6));
        assert!(matches!(
            catalog.template(&named("b")),
            Err(CatalogError::NoTemplate(_))
        ));
    }

    #[test]
    fn a_template_names_a_place_that_the_settings_have() {
        let mut config = CoordinatorConfig::default();
        let plain = |catalog: &mut Catalog, seed, place: &str| {
            let id = TemplateId::generate(&Seeded::new(seed), Timestamp::from_millis(5));
            let mut spec = TemplateSpec::plain(&format!("t{seed}"), &[Format::Mp4]);
            spec.place = place.to_owned();
            let made = catalog.create_template(spec, id, Timestamp::from_millis(5));
            made.map(|(made, _)| made).map_err(|error| error.to_string())
        };
        let mut none = Catalog::new(&config, vec![], vec![]);
        let refused = plain(&mut none, 1, "cold").unwrap_err();
        assert!(refused.contains("have no places of objects"), "{refused}");
        for name in ["warm", "cold"] {
            config.objects.places.insert(name.to_owned(), PlaceConfig::default());
        }
        let mut catalog = Catalog::new(&config, vec![], vec![]);
        let made = plain(&mut catalog, 1, "cold").unwrap();
        plain(&mut catalog, 2, "").unwrap();
        let refused = plain(&mut catalog, 3, "hot").unwrap_err();
        assert!(
            refused.contains("place \"hot\"") && refused.contains("cold, warm"),
            "{refused}"
        );
        let mut moved = made.spec.clone();
        moved.place = "hot".to_owned();
        let by = TemplateRef::Id(made.id);
        assert!(catalog.update_template(&by, moved, Timestamp::from_millis(6)).is_err());
        assert_eq!(catalog.misplaced().count(), 0);
        // It is out of the settings: the template stays as it is, and is named.
        config.objects.places.clear();
        let templates = catalog.templates().cloned().collect();
        let catalog = Catalog::new(&config, templates, vec![]);
        let misplaced: Vec<_> = catalog
            .misplaced()
            .map(|template| template.spec.name.as_str())
            .collect();
        assert_eq!(misplaced, ["t1"]);
    }

    #[test]
    fn a_template_in_use_stays() {
        let mut catalog = catalog(&[]);
        create(&mut catalog, 1, "a", &[Format::Flv]).unwrap();
        assert!(matches!(
            rule(&mut catalog, "d", "none"),
            Err(CatalogError::NoTemplate(_))
        ));
        rule(&mut catalog, "d/app", "a").unwrap();
        let refused = catalog.delete_template(&named("a")).unwrap_err().to_string();
        assert!(refused.contains("d/app/*"), "{refused}");
        catalog.delete_rule(&"d/app".parse().unwrap()).unwrap();
        assert!(matches!(
            catalog.delete_rule(&"d/app".parse().unwrap()),
            Err(CatalogError::NoRule(_))
        ));
        catalog.delete_template(&named("a")).unwrap();
    }

    #[test]
    fn one_rule_for_each_triple_and_a_limit() {
        let mut catalog = catalog(&[]);
        create(&mut catalog, 1, "a", &[]).unwrap();
        rule(&mut catalog, "d", "a").unwrap();
        assert!(matches!(
            rule(&mut catalog, "d/*/*", "a"),
            Err(CatalogError::RuleExists(_))
        ));
        rule(&mut catalog, "d/a", "a").unwrap();
        rule(&mut catalog, "d/*/s", "a").unwrap();
        assert!(matches!(
            rule(&mut catalog, "e", "a"),
            Err(CatalogError::TooManyRules(3))
        ));
    }

    #[test]
    fn rules_come_before_record_and_a_no_record_template_wins_like_any_other() {
        let stream: StreamKey = "d/a/s".parse().unwrap();
        assert_eq!(catalog(&[]).decide(&stream), None);
        let mut catalog = catalog(&[Format::Hls]);
        assert_eq!(catalog.decide(&stream).unwrap().cause, Cause::BuiltIn);
        create(&mut catalog, 1, "never", &[]).unwrap();
        create(&mut catalog, 2, "day", &[Format::Flv, Format::Mp4]).unwrap();
        rule(&mut catalog, "d", "day").unwrap();
        assert_eq!(catalog.decide(&stream).unwrap().template.name, "day");
        assert!(
            catalog
                .explain(&stream)
                .summary
                .contains("would be recorded as flv, mp4: rule d/*/* wins")
        );
        rule(&mut catalog, "d/a/s", "never").unwrap();
        let explained = catalog.explain(&stream);
        assert!(explained.formats.is_empty());
        assert_eq!(explained.candidates.iter().filter(|line| line.wins).count(), 1);
        assert!(
            explained.summary.contains("its template \"never\" has no format on"),
            "{}",
            explained.summary
        );
        let other = catalog.explain(&"e/a/s".parse().unwrap());
        assert!(
            other
                .candidates
                .last()
                .is_some_and(|line| line.wins && line.rule == BUILT_IN)
        );
    }
}
