//! Settings of the second place of objects.

use std::{path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use super::{ByteSize, ChecksumMode, ObjectsConfig};
use crate::objects::ObjectsUrl;

/// What a second place is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CopyMode {
    /// It gets a copy of everything that enters the library.
    #[default]
    All,
    /// It gets what the first place does not take for long.
    Backup,
}

/// `[objects.copy]`: a second place. Coordinators and workers need it alike.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CopyConfig {
    /// `s3://BUCKET/PREFIX` or `file:///FOLDER`; absent: there is no second place.
    pub url: Option<ObjectsUrl>,
    /// What it is for.
    pub mode: CopyMode,
    /// As backup: for so long the first place is waited for, 1 s to 24 h; not so long once journals have used half of their budget.
    #[serde(with = "humantime_serde")]
    pub after: Duration,
    /// As of `[objects]`, of this place.
    pub endpoint: Option<String>,
    /// As of `[objects]`, of this place.
    pub region: Option<String>,
    /// As of `[objects]`, of this place.
    pub keys_file: Option<PathBuf>,
    /// As of `[objects]`, of this place.
    pub path_style: bool,
    /// Files that one worker copies at a time, 1 to 64; times `objects.part_size` it bounds memory.
    pub max_copies: usize,
    /// Most bytes a second that one worker copies; `0 B`: no limit.
    pub max_bandwidth: ByteSize,
    /// As of `[objects]`, of this place.
    pub checksum: ChecksumMode,
    /// As of `[objects]`, of this place.
    pub sse: Option<String>,
    /// As of `[objects]`, of this place.
    pub sse_key: Option<String>,
    /// As of `[objects]`, of this place.
    pub storage_class: Option<String>,
}

impl Default for CopyConfig {
    fn default() -> Self {
        CopyConfig {
            url: None,
            mode: CopyMode::All,
            after: Duration::from_secs(600),
            endpoint: None,
            region: None,
            keys_file: None,
            path_style: true,
            max_copies: 2,
            max_bandwidth: ByteSize::from_bytes(0),
            checksum: ChecksumMode::Auto,
            sse: None,
            sse_key: None,
            storage_class: None,
        }
    }
}

impl ObjectsConfig {
    /// The second place as if it were the first; none where there is none.
    #[must_use]
    pub fn second(&self) -> Option<ObjectsConfig> {
        let copy = self.copy.as_ref().clone();
        copy.url.is_some().then(|| ObjectsConfig {
            url: copy.url,
            endpoint: copy.endpoint,
            region: copy.region,
            keys_file: copy.keys_file,
            path_style: copy.path_style,
            max_uploads: copy.max_copies,
            part_size: self.part_size,
            max_bandwidth: copy.max_bandwidth,
            request_timeout: self.request_timeout,
            checksum: copy.checksum,
            sse: copy.sse,
            sse_key: copy.sse_key,
            storage_class: copy.storage_class,
            copy: Box::default(),
            places: std::collections::BTreeMap::new(),
        })
    }

    /// The second place, if it gets a copy of everything.
    #[must_use]
    pub fn copies(&self) -> Option<ObjectsConfig> {
        self.second().filter(|_| self.copy.mode == CopyMode::All)
    }

    /// The second place, if it gets what the first does not take.
    #[must_use]
    pub fn backup(&self) -> Option<ObjectsConfig> {
        self.second().filter(|_| self.copy.mode == CopyMode::Backup)
    }
}
