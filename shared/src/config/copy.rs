//! Settings of the second place of objects.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{ByteSize, ChecksumMode, ObjectsConfig};
use crate::objects::ObjectsUrl;

/// `[objects.copy]`: a second place, which gets a copy of everything that enters the library. Coordinators and workers need it alike.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CopyConfig {
    /// `s3://BUCKET/PREFIX` or `file:///FOLDER`; absent: there is no second place.
    pub url: Option<ObjectsUrl>,
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
        })
    }
}
