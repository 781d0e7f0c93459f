//! Where media goes: [`ObjectsUrl`] names it, [`Bucket`] reaches it when it is object storage.
//!
//! `bucket` is what uploads call, `s3` makes one from settings and the environment, `uploads` lists the multipart uploads that nobody
//! completed. [`Archive`] is either kind of place for whoever looks after what lies there: reads, lists and removes;
//! [`Sink`] is an object on its way to one. [`Places`] are several, of which a key says in which it lies. `faulty` (feature `test-support`) is
//! object storage that has bad days.

mod archive;
mod bucket;
#[cfg(any(test, feature = "test-support"))]
mod faulty;
mod places;
mod rescue;
mod s3;
mod sink;
mod uploads;

use std::{fmt, path::PathBuf, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use archive::Archive;
pub use bucket::{Bucket, LinkTo, Listed, ObjectError, Pending};
#[cfg(any(test, feature = "test-support"))]
pub use faulty::{Fault, Faulty, Seen};
pub use places::{MAX_PLACES, Places, UnknownPlace, folder, is_place_name, place_of};
pub use rescue::{HELD, RESCUE, Rescue};
pub use s3::install_tls;
pub use sink::Sink;

/// Where media goes: a local folder or a bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ObjectsUrl {
    /// `file:///absolute/folder`, or a bare path.
    File(PathBuf),
    /// `s3://bucket/prefix`. Endpoint, region and keys come from the usual `AWS_*` variables.
    S3 {
        /// Bucket name, 3 to 63 characters.
        bucket: String,
        /// Key prefix without slashes at its ends; may be empty.
        prefix: String,
    },
}

/// Not an objects URL.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("objects URL {url:?}: {problem}; use file:///FOLDER or s3://BUCKET/PREFIX")]
pub struct ObjectsUrlError {
    /// What was given.
    pub url: String,
    /// What is wrong with it.
    pub problem: &'static str,
}

impl FromStr for ObjectsUrl {
    type Err = ObjectsUrlError;
    fn from_str(url: &str) -> Result<Self, ObjectsUrlError> {
        let bad = |problem| ObjectsUrlError {
            url: url.to_owned(),
            problem,
        };
        if let Some(path) = url.strip_prefix("file://") {
            if !path.starts_with('/') {
                return Err(bad("a file URL has three slashes and an absolute path"));
            }
            return Ok(ObjectsUrl::File(PathBuf::from(path)));
        }
        if let Some(rest) = url.strip_prefix("s3://") {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
            if !(3..=63).contains(&bucket.len()) || !bucket.chars().all(legal) {
                return Err(bad(
                    "a bucket's name has 3 to 63 lower-case letters, digits, dots and hyphens",
                ));
            }
            return Ok(ObjectsUrl::S3 {
                bucket: bucket.to_owned(),
                prefix: prefix.trim_matches('/').to_owned(),
            });
        }
        match url {
            "" => Err(bad("it is empty")),
            other if other.contains("://") => Err(bad("the scheme is unknown")),
            path => Ok(ObjectsUrl::File(PathBuf::from(path))),
        }
    }
}

impl fmt::Display for ObjectsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ObjectsUrl::File(path) if path.is_absolute() => write!(f, "file://{}", path.display()),
            ObjectsUrl::File(path) => write!(f, "{}", path.display()),
            ObjectsUrl::S3 { bucket, prefix } if prefix.is_empty() => write!(f, "s3://{bucket}"),
            ObjectsUrl::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
        }
    }
}

impl TryFrom<String> for ObjectsUrl {
    type Error = ObjectsUrlError;
    fn try_from(url: String) -> Result<Self, ObjectsUrlError> {
        url.parse()
    }
}

impl From<ObjectsUrl> for String {
    fn from(url: ObjectsUrl) -> String {
        url.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_are_read_and_written() {
        for url in [
            "file:///var/lib/aircheck",
            "s3://bucket/a/b",
            "s3://bucket",
            "relative/folder",
        ] {
            assert_eq!(url.parse::<ObjectsUrl>().unwrap().to_string(), url);
        }
        assert_eq!(
            "s3://bucket/a/".parse::<ObjectsUrl>().unwrap(),
            ObjectsUrl::S3 {
                bucket: "bucket".to_owned(),
                prefix: "a".to_owned()
            }
        );
        for bad in ["", "file://x", "s3://", "s3://A_B/x", "ftp://x"] {
            assert!(
                bad.parse::<ObjectsUrl>()
                    .unwrap_err()
                    .to_string()
                    .contains("use file:///FOLDER"),
                "{bad}"
            );
        }
    }
}
