//! Names and identities: [`StreamKey`], the UUID newtypes, and [`IdGen`] that makes them.

use std::{
    fmt,
    str::FromStr,
    sync::atomic::{AtomicU64, Ordering},
};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use uuid::Uuid;

use crate::time::Timestamp;

/// Longest legal domain, app or stream name, bytes.
pub const MAX_NAME_BYTES: usize = 256;

/// Longest result of [`safe_path_component`], bytes: three of them and the ids stay below the 1024 bytes of an S3 key, each below the 255 of a file name.
pub const MAX_COMPONENT_BYTES: usize = 200;

/// Why a name is not legal.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NameError {
    /// Nothing is there.
    #[error("{part} is empty")]
    Empty {
        /// `domain`, `app` or `stream`.
        part: &'static str,
    },
    /// Over [`MAX_NAME_BYTES`].
    #[error("{part} has {len} bytes, at most {MAX_NAME_BYTES} are allowed")]
    TooLong {
        /// `domain`, `app` or `stream`.
        part: &'static str,
        /// Its length, bytes.
        len: usize,
    },
    /// A NUL, a line break or another control character.
    #[error("{part} contains the control character U+{:04X}", u32::from(*found))]
    Control {
        /// `domain`, `app` or `stream`.
        part: &'static str,
        /// The first of them.
        found: char,
    },
    /// The whole name is `.` or `..`.
    #[error("{part} is `{name}`, which is a folder's name for itself or its parent")]
    Dots {
        /// `domain`, `app` or `stream`.
        part: &'static str,
        /// `.` or `..`.
        name: String,
    },
    /// A domain with `/`, white space or another character no host name has.
    #[error("domain `{name}` contains `{found}`, which no host name has")]
    Host {
        /// The domain.
        name: String,
        /// The first such character.
        found: char,
    },
    /// Not three parts.
    #[error("`{text}` is not DOMAIN/APP/STREAM")]
    Shape {
        /// What was given.
        text: String,
    },
}

/// The name of a live stream: push domain, application and stream name, each legal by [`StreamKey::new`].
///
/// As text it is `domain/app/stream`; a `/` in the app, and a `%` there, stand as `%2F` and `%25`, so that the text can be read back.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "StreamKeyParts")]
pub struct StreamKey {
    domain: String,
    app: String,
    stream: String,
}

#[derive(Deserialize)]
struct StreamKeyParts {
    domain: String,
    app: String,
    stream: String,
}

impl TryFrom<StreamKeyParts> for StreamKey {
    type Error = NameError;
    fn try_from(parts: StreamKeyParts) -> Result<Self, NameError> {
        StreamKey::new(&parts.domain, &parts.app, &parts.stream)
    }
}

impl StreamKey {
    /// Checks the three names and keeps them; the domain is lowered, for host names have no case.
    ///
    /// Legal is what people really use, spaces, emoji and `/` included.
    ///
    /// # Errors
    /// [`NameError`] names the part and the reason: empty, over 256 bytes, control characters, `.` or `..` as a whole, a domain that is no host name.
    pub fn new(domain: &str, app: &str, stream: &str) -> Result<Self, NameError> {
        Ok(StreamKey {
            domain: check_domain(domain)?,
            app: check_name("app", app)?.to_owned(),
            stream: check_name("stream", stream)?.to_owned(),
        })
    }

    /// Push domain, lower case.
    #[must_use]
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Application.
    #[must_use]
    pub fn app(&self) -> &str {
        &self.app
    }

    /// Stream name, without the query.
    #[must_use]
    pub fn stream(&self) -> &str {
        &self.stream
    }

    /// Three safe path components joined by `/`: where the stream's objects lie.
    #[must_use]
    pub fn path(&self) -> String {
        format!(
            "{}/{}/{}",
            safe_path_component(&self.domain),
            safe_path_component(&self.app),
            safe_path_component(&self.stream)
        )
    }
}

impl fmt::Display for StreamKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}/{}/{}",
            self.domain,
            self.app.replace('%', "%25").replace('/', "%2F"),
            self.stream
        )
    }
}

impl FromStr for StreamKey {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let mut parts = text.splitn(3, '/');
        match (parts.next(), parts.next(), parts.next()) {
            (Some(domain), Some(app), Some(stream)) => StreamKey::new(
                domain,
                &app.replace("%2F", "/").replace("%2f", "/").replace("%25", "%"),
                stream,
            ),
            _ => Err(NameError::Shape { text: text.to_owned() }),
        }
    }
}

/// Checks a push domain and lowers it.
///
/// # Errors
/// As [`StreamKey::new`].
pub fn check_domain(domain: &str) -> Result<String, NameError> {
    check_name("domain", domain)?;
    if let Some(found) = domain
        .chars()
        .find(|c| c.is_whitespace() || matches!(c, '/' | '\\' | '?' | '#' | '@' | '*' | '%'))
    {
        return Err(NameError::Host {
            name: domain.to_owned(),
            found,
        });
    }
    Ok(domain.to_lowercase())
}

/// Checks an app or stream name; `part` names it in the error.
///
/// # Errors
/// As [`StreamKey::new`].
pub fn check_name<'a>(part: &'static str, name: &'a str) -> Result<&'a str, NameError> {
    if name.is_empty() {
        return Err(NameError::Empty { part });
    }
    if name.len() > MAX_NAME_BYTES {
        return Err(NameError::TooLong { part, len: name.len() });
    }
    if let Some(found) = name.chars().find(|c| c.is_control()) {
        return Err(NameError::Control { part, found });
    }
    if name == "." || name == ".." {
        return Err(NameError::Dots {
            part,
            name: name.to_owned(),
        });
    }
    Ok(name)
}

/// Turns any name into one path component of `[A-Za-z0-9._~%-]`, at most [`MAX_COMPONENT_BYTES`] long; different names give different components.
///
/// Every other byte, `~` among them, is percent-encoded, and so is a leading dot (a name must be neither hidden nor a step upwards). What would be too long is cut and gets
/// `~` and a digest of the whole name at its end; `~` occurs nowhere else, so such a result cannot be another name's.
#[must_use]
pub fn safe_path_component(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for (index, byte) in name.bytes().enumerate() {
        let plain = byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-') || (byte == b'.' && index > 0);
        if plain {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    if out.len() > MAX_COMPONENT_BYTES {
        let digest = Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes()).simple().to_string();
        let mut keep = MAX_COMPONENT_BYTES - digest.len() - 1;
        // A percent escape is not cut in two.
        while keep > 0
            && out
                .as_bytes()
                .get(keep.saturating_sub(2)..keep)
                .is_some_and(|tail| tail.contains(&b'%'))
        {
            keep -= 1;
        }
        out.truncate(keep);
        out.push('~');
        out.push_str(&digest);
    }
    out
}

/// Where UUIDs come from. Time is an argument, so that a seeded run can be replayed.
pub trait IdGen: Send + Sync + fmt::Debug {
    /// A new UUID of version 7 for this moment.
    fn uuid(&self, now: Timestamp) -> Uuid;
}

/// Ids from the operating system's randomness.
#[derive(Debug, Default, Clone, Copy)]
pub struct Random;

impl IdGen for Random {
    fn uuid(&self, now: Timestamp) -> Uuid {
        let ms = u64::try_from(now.as_millis()).unwrap_or(0);
        let nanos = u32::try_from(ms % 1000).unwrap_or(0) * 1_000_000;
        Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, ms / 1000, nanos))
    }
}

/// Ids from a seed: the same seed and times give the same ids.
#[derive(Debug)]
pub struct Seeded(AtomicU64);

impl Seeded {
    /// Starts a sequence.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Seeded(AtomicU64::new(seed))
    }

    /// `SplitMix64` (Steele, Lea, Flood 2014): one atomic step for each number.
    fn next(&self) -> u64 {
        const STEP: u64 = 0x9E37_79B9_7F4A_7C15;
        let mut z = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

impl IdGen for Seeded {
    fn uuid(&self, now: Timestamp) -> Uuid {
        let mut random = [0u8; 10];
        for (to, from) in random
            .iter_mut()
            .zip(self.next().to_be_bytes().into_iter().chain(self.next().to_be_bytes()))
        {
            *to = from;
        }
        uuid::Builder::from_unix_timestamp_millis(u64::try_from(now.as_millis()).unwrap_or(0), &random).into_uuid()
    }
}

macro_rules! uuid_newtypes {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        ///
        /// Made by `generate` it is a UUID of version 7, and sorts by the time of its making. As text: 36 characters, lower case.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// Makes a new one.
            pub fn generate(ids: &dyn IdGen, now: Timestamp) -> Self {
                $name(ids.uuid(now))
            }

            /// Takes an existing UUID.
            #[must_use]
            pub const fn from_uuid(uuid: Uuid) -> Self {
                $name(uuid)
            }

            /// The UUID.
            #[must_use]
            pub const fn as_uuid(&self) -> Uuid {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, uuid::Error> {
                text.parse().map($name)
            }
        }
    )*};
}

uuid_newtypes! {
    /// One publish: an encoder's sending of a stream, from publish to unpublish.
    PublishId
    /// One recording: a stream's media under one cause.
    RecordingId
    /// One finished media file.
    FileId
    /// One worker; kept in its data directory.
    WorkerId
    /// One template.
    TemplateId
    /// One pull source: a stream that is fetched from an origin.
    PullId
    /// One task. Tasks come with the cluster; a recording's cause can already name one.
    TaskId
}

impl TaskId {
    /// The millisecond of its making, since the Unix epoch, as its UUID of version 7 holds it: its number where ids are
    /// numbers. Tasks of different streams may share one.
    #[must_use]
    pub fn number(self) -> u64 {
        self.0.as_u64_pair().0 >> 16
    }
}

impl TemplateId {
    /// The millisecond of its making, since the Unix epoch, as its UUID of version 7 holds it: its number where ids are
    /// numbers. The coordinator gives no two templates the same.
    #[must_use]
    pub fn number(self) -> u64 {
        self.0.as_u64_pair().0 >> 16
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_that_people_use_are_legal() {
        for stream in [
            "cam1",
            "a/b/c",
            "mit Leerzeichen",
            "日本語",
            "🎥 live",
            "a..b",
            "...",
            "a/../b",
            "%2F",
        ] {
            let key = StreamKey::new("Push.Example.com", "live", stream).unwrap();
            assert_eq!(key.domain(), "push.example.com");
            assert_eq!(key.to_string().parse::<StreamKey>().unwrap(), key);
        }
        assert!(StreamKey::new("d", "a", &"x".repeat(256)).is_ok());
        let nested = StreamKey::new("d", "live/inst%2F", "s").unwrap();
        assert_eq!(nested.to_string(), "d/live%2Finst%252F/s");
        assert_eq!(nested.to_string().parse::<StreamKey>().unwrap(), nested);
    }

    #[test]
    fn illegal_names_are_refused_with_the_reason() {
        let text = |d, a, s| StreamKey::new(d, a, s).unwrap_err().to_string();
        assert_eq!(text("", "a", "s"), "domain is empty");
        assert_eq!(text("d", "a", "x\0y"), "stream contains the control character U+0000");
        assert_eq!(text("d", "a\n", "s"), "app contains the control character U+000A");
        assert_eq!(
            text("d", "a", ".."),
            "stream is `..`, which is a folder's name for itself or its parent"
        );
        assert_eq!(
            text("d e", "a", "s"),
            "domain `d e` contains ` `, which no host name has"
        );
        assert!(text("d", "a", &"x".repeat(257)).starts_with("stream has 257 bytes"));
        assert_eq!(
            "only/two".parse::<StreamKey>().unwrap_err().to_string(),
            "`only/two` is not DOMAIN/APP/STREAM"
        );
    }

    #[test]
    fn components_are_safe_and_bounded() {
        assert_eq!(safe_path_component("cam-1.main_x"), "cam-1.main_x");
        assert_eq!(safe_path_component("a/../b"), "a%2F..%2Fb");
        assert_eq!(safe_path_component("..."), "%2E..");
        assert_eq!(safe_path_component("~"), "%7E");
        let long = safe_path_component(&"é".repeat(128));
        assert!(long.len() <= MAX_COMPONENT_BYTES, "{}", long.len());
        assert!(!long.contains("%~") && !long.contains("%C~"), "{long}");
    }

    #[test]
    fn seeded_ids_repeat_and_sort_by_time() {
        let (a, b) = (Seeded::new(7), Seeded::new(7));
        let early = PublishId::generate(&a, Timestamp::from_millis(1_000));
        assert_eq!(early, PublishId::generate(&b, Timestamp::from_millis(1_000)));
        assert!(early < PublishId::generate(&a, Timestamp::from_millis(1_001)));
        assert!(PublishId::generate(&Random, Timestamp::from_millis(1_001)) > early);
        assert_eq!(early.to_string().parse::<PublishId>().unwrap(), early);
    }

    proptest! {
        #[test]
        fn different_names_have_different_components(a in "\\PC{1,90}", b in "\\PC{1,90}") {
            let (x, y) = (safe_path_component(&a), safe_path_component(&b));
            prop_assert_eq!(a == b, x == y);
            for part in [x, y] {
                prop_assert!(part.len() <= MAX_COMPONENT_BYTES && !part.is_empty() && !part.starts_with('.'));
                prop_assert!(part.bytes().all(|c| c.is_ascii_alphanumeric() || b"._~%-".contains(&c)));
            }
        }

        #[test]
        fn keys_read_back_from_their_text(app in "\\PC{1,60}", stream in "\\PC{1,60}") {
            if let Ok(key) = StreamKey::new("example.com", &app, &stream) {
                prop_assert_eq!(key.to_string().parse::<StreamKey>().unwrap(), key);
            }
        }
    }
}
