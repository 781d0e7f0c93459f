//! Makes a [`Bucket`] of an `s3://` URL, the settings and the environment.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, Checksum};
use object_store::{ClientOptions, RetryConfig};

use super::bucket::{Bucket, Make, ObjectError};
use super::uploads::Lister;
use crate::config::{ChecksumMode, ObjectsConfig};

/// Time to reach the service at all.
const CONNECT: Duration = Duration::from_secs(5);

/// What browsers and players are told of an object, by the end of its key.
const CONTENT_TYPES: [(&str, &str); 9] = [
    ("flv", "video/x-flv"),
    ("mp4", "video/mp4"),
    ("m4s", "video/iso.segment"),
    ("aac", "audio/aac"),
    ("mp3", "audio/mpeg"),
    ("ts", "video/mp2t"),
    ("m3u8", "application/vnd.apple.mpegurl"),
    ("json", "application/json"),
    ("vtt", "text/vtt"),
];

/// Makes *ring* the process's provider of TLS. To be called before the first connection; again it does nothing.
pub fn install_tls() {
    // It fails only where there is one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
}

impl Bucket {
    /// Opens `s3://bucket/prefix`. Nothing is sent yet.
    ///
    /// # Errors
    /// [`ObjectError::Refused`] where settings and environment do not make a client.
    pub fn s3(bucket: &str, prefix: &str, config: &ObjectsConfig) -> Result<Self, ObjectError> {
        let keys = config.keys_file.as_deref().map(keys_of).transpose()?;
        let keys = keys.as_ref().map(|(id, secret)| (id.as_str(), secret.as_str()));
        Self::s3_with_keys(bucket, prefix, config, keys)
    }

    /// As [`Bucket::s3`], with an access key and its secret in place of what the environment says.
    ///
    /// # Errors
    /// As [`Bucket::s3`].
    pub fn s3_with_keys(
        bucket: &str,
        prefix: &str,
        config: &ObjectsConfig,
        keys: Option<(&str, &str)>,
    ) -> Result<Self, ObjectError> {
        install_tls();
        let refused = |e: object_store::Error| ObjectError::Refused(format!("s3://{bucket}: {e}"));
        let mut builder = AmazonS3Builder::from_env().with_bucket_name(bucket);
        if let Some((key, secret)) = keys {
            builder = builder.with_access_key_id(key).with_secret_access_key(secret);
        }
        if let Some(region) = &config.region {
            builder = builder.with_region(region);
        }
        let endpoint = config
            .endpoint
            .clone()
            .or_else(|| builder.get_config_value(&AmazonS3ConfigKey::S3Endpoint))
            .or_else(|| builder.get_config_value(&AmazonS3ConfigKey::Endpoint));
        let mut options = ClientOptions::new()
            .with_timeout_disabled() // Each request has its own.
            .with_connect_timeout(CONNECT)
            .with_pool_max_idle_per_host(config.max_uploads);
        for (suffix, content_type) in CONTENT_TYPES {
            options = options.with_content_type_for_suffix(suffix, content_type);
        }
        if let Some(endpoint) = &endpoint {
            // Whoever writes http:// means it.
            options = options.with_allow_http(endpoint.starts_with("http://"));
            let endpoint = addressed(endpoint, bucket, config.path_style)?;
            builder = builder.with_config(AmazonS3ConfigKey::S3Endpoint, endpoint);
        }
        let checksum = match config.checksum {
            ChecksumMode::Auto if endpoint.is_none() => Some(Checksum::CRC64NVME),
            ChecksumMode::Crc64nvme => Some(Checksum::CRC64NVME),
            ChecksumMode::Sha256 => Some(Checksum::SHA256),
            ChecksumMode::Auto | ChecksumMode::None => None,
        };
        if let Some(checksum) = checksum {
            builder = builder.with_checksum_algorithm(checksum);
        }
        for (key, value) in [
            ("aws_server_side_encryption", &config.sse),
            ("aws_sse_kms_key_id", &config.sse_key),
        ] {
            if let Some(value) = value {
                builder = builder.with_config(key.parse().map_err(refused)?, value);
            }
        }
        // Trying again is the caller's: it alone knows what else waits, and says so once.
        let never = RetryConfig {
            max_retries: 0,
            ..RetryConfig::default()
        };
        let store = builder
            .with_client_options(options)
            .with_virtual_hosted_style_request(!config.path_style)
            .with_retry(never)
            // Not every service answers to the removal of many as the library reads it.
            .with_disable_bulk_delete(true)
            .build()
            .map_err(refused)?;
        let lister = Lister::new(store.clone())?;
        let make = Make {
            prefix: prefix.to_owned(),
            timeout: config.request_timeout,
            storage_class: config.storage_class.clone(),
            unfinished: Some(Arc::new(lister)),
            checksum: checksum.map(|c| match c {
                Checksum::SHA256 => "checksum_sha256",
                _ => "checksum_crc64nvme",
            }),
        };
        Ok(Self::new(store, make))
    }
}

/// The two lines of a file of keys.
fn keys_of(path: &Path) -> Result<(String, String), ObjectError> {
    let refused = |problem: String| ObjectError::Refused(format!("keys_file {}: {problem}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|e| refused(e.to_string()))?;
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    match (lines.next(), lines.next(), lines.next()) {
        (Some(id), Some(secret), None) => Ok((id.to_owned(), secret.to_owned())),
        _ => Err(refused(
            "it has two lines, an access key's id and its secret".to_owned(),
        )),
    }
}

/// The endpoint as the library wants it: with the bucket's name in the host where the service wants it there.
fn addressed(endpoint: &str, bucket: &str, path_style: bool) -> Result<String, ObjectError> {
    let endpoint = endpoint.trim_end_matches('/');
    match endpoint.split_once("://") {
        Some(("http" | "https", host)) if !host.is_empty() && path_style => {
            Ok(format!("{}://{host}", scheme(endpoint)))
        }
        Some(("http" | "https", host)) if !host.is_empty() => Ok(format!("{}://{bucket}.{host}", scheme(endpoint))),
        _ => Err(ObjectError::Refused(format!(
            "endpoint {endpoint:?}: write https://HOST[:PORT]"
        ))),
    }
}

fn scheme(url: &str) -> &str {
    url.split_once("://").map_or("https", |(scheme, _)| scheme)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_keys_has_two_lines() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (text, good) in [
            ("id\n secret \n", true),
            ("id\n", false),
            ("", false),
            ("a\nb\nc\n", false),
        ] {
            std::fs::write(file.path(), text).unwrap();
            assert_eq!(keys_of(file.path()).is_ok(), good, "{text:?}");
        }
        let missing = keys_of(Path::new("/nonexistent")).unwrap_err().to_string();
        assert!(missing.contains("/nonexistent"), "{missing}");
    }

    #[test]
    fn the_bucket_stands_in_the_path_or_in_the_host() {
        assert_eq!(addressed("http://h:9/", "b", true).unwrap(), "http://h:9");
        assert_eq!(addressed("https://h", "b", false).unwrap(), "https://b.h");
        assert!(addressed("h:9", "b", true).is_err());
    }
}
