//! [`Places`]: several places of objects, of which a key says in which it lies.
//!
//! A recording whose template names a place has `@NAME/` in front of its folder, and so has everything that lies below. A domain never begins so.
//! Objects lie under their whole key wherever they are: a place, a copy of it and the library call them alike, and two places may be one bucket.

use std::collections::BTreeMap;
use std::sync::Arc;

use thiserror::Error;

use super::{Archive, ObjectError};
use crate::config::ObjectsConfig;
use crate::ids::{RecordingId, StreamKey};

/// Most places beside `objects.url`.
pub const MAX_PLACES: usize = 16;
/// Longest name of a place, bytes.
const MAX_NAME_BYTES: usize = 32;
/// What stands in front of a place's name in a key.
const MARK: char = '@';

/// True for what a place may be called: 1 to 32 lower-case letters, digits and hyphens.
#[must_use]
pub fn is_place_name(name: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !name.is_empty() && name.len() <= MAX_NAME_BYTES && name.bytes().all(legal)
}

/// The folder of a recording; an empty name is that of `objects.url`.
#[must_use]
pub fn folder(place: &str, stream: &StreamKey, recording: RecordingId) -> String {
    match place {
        "" => format!("{}/{recording}", stream.path()),
        place => format!("{MARK}{place}/{}/{recording}", stream.path()),
    }
}

/// The name of the place that a key lies in; empty: `objects.url`.
#[must_use]
pub fn place_of(key: &str) -> &str {
    let name = key.split('/').next().and_then(|first| first.strip_prefix(MARK));
    name.unwrap_or_default()
}

/// The settings do not have a place that something lies in.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("the settings here have no place of objects {0:?}: set objects.places.{0}.url as it is elsewhere")]
pub struct UnknownPlace(pub String);

impl From<UnknownPlace> for ObjectError {
    fn from(unknown: UnknownPlace) -> Self {
        // Not missing: what is not looked for is not gone.
        ObjectError::Refused(unknown.to_string())
    }
}

/// Something for each place. Clones share the named ones.
#[derive(Debug, Clone)]
pub struct Places<T> {
    own: T,
    named: Arc<BTreeMap<String, T>>,
}

impl<T> Places<T> {
    /// Of `objects.url`, and of places by their names.
    #[must_use]
    pub fn new(own: T, named: BTreeMap<String, T>) -> Self {
        Places {
            own,
            named: Arc::new(named),
        }
    }

    /// Makes something for each place of the settings; it is given the place's name, empty for `objects.url`, and its settings.
    ///
    /// # Errors
    /// The first.
    pub fn of_settings<E>(
        config: &ObjectsConfig,
        mut make: impl FnMut(&str, &ObjectsConfig) -> Result<T, E>,
    ) -> Result<Self, E> {
        let own = make("", config)?;
        let named = config
            .places
            .keys()
            .filter_map(|name| Some((name, config.place(name)?)));
        let named = named.map(|(name, config)| Ok((name.clone(), make(name, &config)?)));
        Ok(Places::new(own, named.collect::<Result<_, E>>()?))
    }

    /// That of the place which a key lies in.
    ///
    /// # Errors
    /// [`UnknownPlace`].
    pub fn of(&self, key: &str) -> Result<&T, UnknownPlace> {
        match place_of(key) {
            "" => Ok(&self.own),
            name => self.named.get(name).ok_or_else(|| UnknownPlace(name.to_owned())),
        }
    }

    /// All of them by their names, that of `objects.url` first, whose name is empty.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &T)> {
        let named = self.named.iter().map(|(name, place)| (name.as_str(), place));
        std::iter::once(("", &self.own)).chain(named)
    }
}

impl<T> From<T> for Places<T> {
    fn from(own: T) -> Self {
        Places::new(own, BTreeMap::new())
    }
}

impl Places<Archive> {
    /// Opens what the settings name. Nothing is sent or read yet. None where they do not say where media goes.
    ///
    /// # Errors
    /// As of [`Archive::open`], with the place's name.
    pub fn open(config: &ObjectsConfig) -> Result<Option<Self>, ObjectError> {
        if config.url.is_none() {
            return Ok(None);
        }
        let opened = Places::of_settings(config, |name, config| match &config.url {
            Some(url) => Archive::open(url, config),
            None => Err(UnknownPlace(name.to_owned()).into()),
        });
        opened.map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Seeded;
    use crate::time::Timestamp;

    #[test]
    fn a_key_says_in_which_place_it_lies() {
        let recording = RecordingId::generate(&Seeded::new(1), Timestamp::default());
        let stream = StreamKey::new("push.example.com", "@live", "@show").unwrap();
        assert_eq!(
            folder("", &stream, recording),
            format!("push.example.com/%40live/%40show/{recording}")
        );
        let cold = folder("cold", &stream, recording);
        assert_eq!(cold, format!("@cold/push.example.com/%40live/%40show/{recording}"));
        assert_eq!((place_of(&cold), place_of("@cold")), ("cold", "cold"));
        for key in ["d/a/s", "d/@cold/s", "", "/@cold/x"] {
            assert_eq!(place_of(key), "", "{key:?}");
        }
        assert!(StreamKey::new("@cold", "a", "s").is_err(), "a domain is not a place");
    }

    #[test]
    fn an_unknown_place_is_no_other() {
        let places = Places::new(0, BTreeMap::from([("cold".to_owned(), 1)]));
        assert_eq!(places.of("d/a/s/r/x"), Ok(&0));
        assert_eq!(places.of("@cold/d/a/s/r/x"), Ok(&1));
        let unknown = places.of("@warm/d/a/s/r/x").unwrap_err();
        assert!(unknown.to_string().contains("objects.places.warm.url"), "{unknown}");
        assert!(places.of("@/d").is_ok(), "no name can be empty");
        assert_eq!(places.iter().collect::<Vec<_>>(), [("", &0), ("cold", &1)]);
    }

    #[test]
    fn names_of_places_are_short_and_plain() {
        for (name, legal) in [
            ("cold", true),
            ("eu-2", true),
            (&*"x".repeat(32), true),
            (&*"x".repeat(33), false),
            ("", false),
            ("Cold", false),
            ("a/b", false),
            ("a_b", false),
        ] {
            assert_eq!(is_place_name(name), legal, "{name:?}");
        }
    }
}
