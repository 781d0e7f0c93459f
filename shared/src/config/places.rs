//! Settings of further places of objects, which templates name.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::validate::{invalid, validate_place};
use super::{ChecksumMode, ConfigError, ObjectsConfig};
use crate::objects::{MAX_PLACES, ObjectsUrl, is_place_name};

/// `[objects.places.NAME]`: where recordings go whose template names it. What is not given is as of `[objects]`. Coordinators and workers need it
/// alike.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PlaceConfig {
    /// `s3://BUCKET/PREFIX` or `file:///FOLDER`. Must be given.
    pub url: Option<ObjectsUrl>,
    /// As of `[objects]`, of this place.
    pub endpoint: Option<String>,
    /// As of `[objects]`, of this place.
    pub region: Option<String>,
    /// As of `[objects]`, of this place.
    pub keys_file: Option<PathBuf>,
    /// As of `[objects]`, of this place.
    pub path_style: Option<bool>,
    /// As of `[objects]`, of this place.
    pub checksum: Option<ChecksumMode>,
    /// As of `[objects]`, of this place.
    pub sse: Option<String>,
    /// As of `[objects]`, of this place; not taken from there where `sse` is given.
    pub sse_key: Option<String>,
    /// As of `[objects]`, of this place.
    pub storage_class: Option<String>,
}

impl ObjectsConfig {
    /// A place by its name, as if it were the only one; the second place stands behind it as behind `objects.url`. None: there is no such place.
    #[must_use]
    pub fn place(&self, name: &str) -> Option<ObjectsConfig> {
        let place = self.places.get(name)?.clone();
        let sse_key = match place.sse {
            Some(_) => place.sse_key,
            None => place.sse_key.or_else(|| self.sse_key.clone()),
        };
        Some(ObjectsConfig {
            url: place.url,
            endpoint: place.endpoint.or_else(|| self.endpoint.clone()),
            region: place.region.or_else(|| self.region.clone()),
            keys_file: place.keys_file.or_else(|| self.keys_file.clone()),
            path_style: place.path_style.unwrap_or(self.path_style),
            checksum: place.checksum.unwrap_or(self.checksum),
            sse: place.sse.or_else(|| self.sse.clone()),
            sse_key,
            storage_class: place.storage_class.or_else(|| self.storage_class.clone()),
            places: std::collections::BTreeMap::new(),
            ..self.clone()
        })
    }

    pub(super) fn validate_places(&self) -> Result<(), ConfigError> {
        if self.places.len() > MAX_PLACES {
            let found = self.places.len();
            return invalid(format!(
                "objects.places has {found} places, at most {MAX_PLACES} are allowed"
            ));
        }
        let second = self.second().map(|second| (second.url, second.endpoint));
        for name in self.places.keys() {
            if !is_place_name(name) {
                return invalid(format!(
                    "objects.places.{name:?}: a place's name has 1 to 32 lower-case letters, digits and hyphens"
                ));
            }
            let section = format!("objects.places.{name}");
            let place = self.place(name).unwrap_or_default();
            if place.url.is_none() {
                return invalid(format!(
                    "{section} has no url: write s3://BUCKET/PREFIX or file:///FOLDER"
                ));
            }
            validate_place(&section, &place)?;
            if second
                .as_ref()
                .is_some_and(|(url, endpoint)| *url == place.url && *endpoint == place.endpoint)
            {
                return invalid(format!(
                    "objects.copy.url is where {section}.url is: a copy goes to another place"
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Config, Overrides, Role};
    use super::*;

    fn load(flags: &[(&str, &str)]) -> Result<Config, String> {
        let mut overrides = Overrides::default();
        for (key, value) in flags {
            overrides.set(key, value);
        }
        let config = Config::load(None, [], &overrides).map_err(|error| error.to_string())?;
        config.validate(Role::Standalone).map_err(|error| error.to_string())?;
        Ok(config)
    }

    #[test]
    fn a_place_has_what_it_says_and_the_rest_of_objects() {
        let config = load(&[
            ("objects.url", "s3://first"),
            ("objects.endpoint", "http://one"),
            ("objects.region", "r1"),
            ("objects.sse", "aws:kms"),
            ("objects.sse_key", "k"),
            ("objects.copy.url", "s3://second"),
            ("objects.places.cold.url", "s3://cold/x"),
            ("objects.places.cold.region", "r2"),
            ("objects.places.cold.path_style", "false"),
            ("objects.places.cold.checksum", "sha256"),
            ("objects.places.plain.url", "file:///plain"),
            ("objects.places.plain.sse", "AES256"),
        ])
        .unwrap();
        let cold = config.objects.place("cold").unwrap();
        assert_eq!(cold.url.as_ref().unwrap().to_string(), "s3://cold/x");
        assert_eq!(
            (cold.endpoint.as_deref(), cold.region.as_deref()),
            (Some("http://one"), Some("r2"))
        );
        assert_eq!((cold.path_style, cold.checksum), (false, ChecksumMode::Sha256));
        assert_eq!(cold.sse_key.as_deref(), Some("k"));
        assert!(cold.second().is_some() && cold.places.is_empty());
        assert_eq!(config.objects.place("plain").unwrap().sse_key, None);
        assert_eq!(config.objects.place("warm"), None);
        let again: Config = toml::from_str(&config.to_toml().unwrap()).unwrap();
        assert_eq!(again.objects, config.objects);
        assert_eq!(config.worker.objects.places, config.coordinator.objects.places);
    }

    #[test]
    fn a_place_that_cannot_be_is_refused_by_name() {
        for (flags, words) in [
            (
                vec![("objects.places.cold.region", "x")],
                "objects.places.cold has no url",
            ),
            (vec![("objects.places.Cold.url", "file:///x")], "lower-case letters"),
            (
                vec![
                    ("objects.places.cold.url", "s3://bucket"),
                    ("objects.places.cold.endpoint", "b"),
                ],
                "objects.places.cold.endpoint \"b\"",
            ),
            (
                vec![
                    ("objects.url", "s3://first"),
                    ("objects.copy.url", "s3://cold"),
                    ("objects.places.cold.url", "s3://cold"),
                ],
                "objects.copy.url is where objects.places.cold.url is",
            ),
            (vec![("objects.places.cold.uri", "s3://bucket")], "unknown field `uri`"),
        ] {
            let error = load(&flags).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
        let many: Vec<String> = (0..=MAX_PLACES).map(|n| format!("objects.places.p{n}.url")).collect();
        let many: Vec<_> = many.iter().map(|key| (key.as_str(), "file:///x")).collect();
        assert!(load(&many).unwrap_err().contains("at most 16"));
        assert!(load(&many[1..]).is_ok());
    }
}
