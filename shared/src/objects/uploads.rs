//! Asks for multipart uploads that nobody completed, and for their parts: `ListMultipartUploads` and `ListParts`, which the library has no calls for.
//!
//! The library signs the request's URL, so keys and their rotation stay its affair.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use object_store::aws::AmazonS3;
use object_store::path::Path;
use object_store::signer::{SignedUrlOptions, Signer};
use reqwest::Method;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::bucket::{ObjectError, Pending, StoredPart};

/// A signed URL is used at once.
const SIGNED_FOR: Duration = Duration::from_secs(300);
/// Pages of up to a thousand uploads or parts that are read; more wait for the next time.
const PAGES: usize = 100;

/// What a service knows of uploads that are not complete, and what it signs.
#[async_trait]
pub(super) trait Unfinished: fmt::Debug + Send + Sync {
    /// A URL under which whoever holds it may read or look at an object for a while; `query` is part of it.
    async fn link(
        &self,
        method: Method,
        path: &Path,
        query: Vec<(&str, &str)>,
        good_for: Duration,
    ) -> Result<String, ObjectError>;

    /// Every upload whose key begins with `prefix`.
    async fn list(&self, prefix: &str) -> Result<Vec<Pending>, ObjectError>;

    /// Whether an upload is neither completed nor aborted.
    async fn has(&self, path: &Path, upload_id: &str) -> Result<bool, ObjectError>;

    /// The parts of an upload, in order; none: there is no such upload.
    async fn parts(&self, path: &Path, upload_id: &str) -> Result<Option<Vec<StoredPart>>, ObjectError>;
}

#[derive(Debug)]
pub(super) struct Lister {
    store: AmazonS3,
    client: reqwest::Client,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Page {
    #[serde(default, rename = "Upload")]
    uploads: Vec<Upload>,
    #[serde(default)]
    is_truncated: bool,
    #[serde(default)]
    next_key_marker: Option<String>,
    #[serde(default)]
    next_upload_id_marker: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Upload {
    key: String,
    upload_id: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Parts {
    #[serde(default, rename = "Part")]
    parts: Vec<Part>,
    #[serde(default)]
    is_truncated: bool,
    #[serde(default)]
    next_part_number_marker: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Part {
    part_number: u32,
    #[serde(rename = "ETag")]
    etag: String,
    size: u64,
    #[serde(rename = "ChecksumSHA256")]
    sha256: Option<String>,
    #[serde(rename = "ChecksumCRC64NVME")]
    crc64nvme: Option<String>,
}

/// A part's id as the library spells it where it asks for checksums.
#[derive(Debug, Serialize)]
#[serde(rename = "PartMetadata")]
struct Spelled<'a> {
    e_tag: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    checksum_sha256: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    checksum_crc64nvme: Option<&'a str>,
}

impl Part {
    fn stored(self) -> Option<StoredPart> {
        let spelled = Spelled {
            e_tag: &self.etag,
            checksum_sha256: self.sha256.as_deref(),
            checksum_crc64nvme: self.crc64nvme.as_deref(),
        };
        let is_bare = spelled.checksum_sha256.is_none() && spelled.checksum_crc64nvme.is_none();
        let id = match is_bare {
            true => self.etag.clone(),
            false => quick_xml::se::to_string(&spelled).ok()?,
        };
        Some(StoredPart {
            index: self.part_number.checked_sub(1)?,
            id,
            size: self.size,
        })
    }
}

impl Lister {
    /// A page of an upload's parts; none: there is no such upload.
    async fn parts_page(&self, path: &Path, query: Vec<(&str, &str)>) -> Result<Option<Parts>, ObjectError> {
        let away =
            |e: &dyn std::fmt::Display| ObjectError::Unavailable(format!("looking for an upload of {path}: {e}"));
        let options = SignedUrlOptions::default().with_query(query);
        let url = self.store.signed_url_opts(Method::GET, path, SIGNED_FOR, &options);
        let url = url.await.map_err(|e| away(&e))?;
        let answer = self.client.get(url).send().await.map_err(|e| away(&e.without_url()))?;
        let status = answer.status();
        let text = answer.text().await.map_err(|e| away(&e.without_url()))?;
        match status {
            _ if status.is_success() => listed(&text, "ListParts").map(Some).map_err(|e| away(&e)),
            reqwest::StatusCode::NOT_FOUND if text.contains("NoSuchUpload") => Ok(None),
            _ => Err(away(&format!("{status}: {text}"))),
        }
    }

    pub(super) fn new(store: AmazonS3) -> Result<Self, ObjectError> {
        let client = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(5))
            .build()
            .map_err(|e| ObjectError::Refused(format!("HTTP client: {e}")))?;
        Ok(Self { store, client })
    }

    async fn page(&self, prefix: &str, marker: Option<&(String, String)>) -> Result<Page, ObjectError> {
        let away = |e: &dyn std::fmt::Display| ObjectError::Unavailable(format!("listing uploads below {prefix}: {e}"));
        let mut query = vec![("uploads", ""), ("prefix", prefix)];
        if let Some((key, id)) = marker {
            query.extend([("key-marker", key.as_str()), ("upload-id-marker", id.as_str())]);
        }
        let options = SignedUrlOptions::default().with_query(query);
        let url = self
            .store
            .signed_url_opts(Method::GET, &Path::default(), SIGNED_FOR, &options)
            .await
            .map_err(|e| away(&e))?;
        let answer = self.client.get(url).send().await.map_err(|e| away(&e.without_url()))?;
        let status = answer.status();
        let text = answer.text().await.map_err(|e| away(&e.without_url()))?;
        if status.is_client_error() && status != reqwest::StatusCode::FORBIDDEN
            || status == reqwest::StatusCode::NOT_IMPLEMENTED
        {
            return Err(ObjectError::Refused(format!(
                "listing uploads below {prefix}: {status}: {text}"
            )));
        }
        if !status.is_success() {
            return Err(away(&format!("{status}: {text}")));
        }
        listed(&text, "ListMultipartUploads").map_err(|e| away(&e))
    }
}

/// A list that was asked for. Services begin it with what was asked and `Result` or `Response`; what else they answer, be it with 200, as they
/// do with errors that they meet late, is no list of nothing.
fn listed<T: DeserializeOwned>(text: &str, asked: &str) -> Result<T, String> {
    if !text.contains(&format!("<{asked}")) {
        return Err(format!("answered with something else: {text}"));
    }
    quick_xml::de::from_str(text).map_err(|error| error.to_string())
}

#[async_trait]
impl Unfinished for Lister {
    async fn link(
        &self,
        method: Method,
        path: &Path,
        query: Vec<(&str, &str)>,
        good_for: Duration,
    ) -> Result<String, ObjectError> {
        let options = SignedUrlOptions::default().with_query(query);
        let signed = self.store.signed_url_opts(method, path, good_for, &options).await;
        match signed {
            Ok(url) => Ok(url.to_string()),
            Err(error) => Err(ObjectError::Unavailable(format!("signing a link to {path}: {error}"))),
        }
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Pending>, ObjectError> {
        let mut found = Vec::new();
        let mut marker: Option<(String, String)> = None;
        for _ in 0..PAGES {
            let page = self.page(prefix, marker.as_ref()).await?;
            // Some services give more than was asked for.
            let of_prefix = page.uploads.into_iter().filter(|upload| upload.key.starts_with(prefix));
            found.extend(of_prefix.map(|upload| Pending {
                key: upload.key,
                upload_id: upload.upload_id,
            }));
            marker = match (page.is_truncated, page.next_key_marker) {
                (true, Some(key)) => Some((key, page.next_upload_id_marker.unwrap_or_default())),
                _ => break,
            };
        }
        Ok(found)
    }

    async fn has(&self, path: &Path, upload_id: &str) -> Result<bool, ObjectError> {
        let query = vec![("uploadId", upload_id), ("max-parts", "1")];
        Ok(self.parts_page(path, query).await?.is_some())
    }

    async fn parts(&self, path: &Path, upload_id: &str) -> Result<Option<Vec<StoredPart>>, ObjectError> {
        let mut found = Vec::new();
        let mut marker: Option<String> = None;
        for _ in 0..PAGES {
            let mut query = vec![("uploadId", upload_id)];
            query.extend(marker.as_deref().map(|marker| ("part-number-marker", marker)));
            let Some(page) = self.parts_page(path, query).await? else {
                return Ok(None);
            };
            found.extend(page.parts.into_iter().filter_map(Part::stored));
            marker = page.next_part_number_marker.filter(|_| page.is_truncated);
            if marker.is_none() {
                break;
            }
        }
        Ok(Some(found))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read_as_services_write_it() {
        let text = r#"<?xml version="1.0"?><ListMultipartUploadsResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">
            <Bucket>b</Bucket><KeyMarker></KeyMarker><NextKeyMarker>k2</NextKeyMarker><NextUploadIdMarker>u2</NextUploadIdMarker>
            <IsTruncated>true</IsTruncated>
            <Upload><Key>k1</Key><UploadId>u1</UploadId><Initiated>2026-01-01T00:00:00Z</Initiated></Upload>
            <Upload><Key>k2</Key><UploadId>u2</UploadId></Upload></ListMultipartUploadsResult>"#;
        let page: Page = listed(text, "ListMultipartUploads").unwrap();
        assert_eq!(page.uploads.len(), 2);
        assert_eq!((page.is_truncated, page.next_key_marker.as_deref()), (true, Some("k2")));
        let none = "<ListMultipartUploadsResult><Bucket>b</Bucket></ListMultipartUploadsResult>";
        let none: Page = listed(none, "ListMultipartUploads").unwrap();
        assert!(none.uploads.is_empty() && !none.is_truncated);
    }

    #[test]
    fn an_error_that_comes_with_200_is_no_list_of_nothing() {
        let error = r#"<?xml version="1.0"?><Error><Code>InternalError</Code><Message>a bad day</Message></Error>"#;
        assert!(listed::<Page>(error, "ListMultipartUploads").is_err());
        assert!(listed::<Parts>(error, "ListParts").is_err());
    }

    #[test]
    fn parts_have_the_ids_that_a_completion_asks_for() {
        let text = r#"<ListPartsResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Bucket>b</Bucket><IsTruncated>false</IsTruncated>
            <Part><PartNumber>1</PartNumber><ETag>&quot;e1&quot;</ETag><Size>5242880</Size></Part>
            <Part><PartNumber>3</PartNumber><ETag>"e3"</ETag><Size>7</Size><ChecksumCRC64NVME>c3==</ChecksumCRC64NVME></Part>
            </ListPartsResult>"#;
        let page: Parts = listed(text, "ListParts").unwrap();
        let parts: Vec<StoredPart> = page.parts.into_iter().filter_map(Part::stored).collect();
        assert_eq!(
            (parts[0].index, parts[0].id.as_str(), parts[0].size),
            (0, "\"e1\"", 5 << 20)
        );
        let spelled =
            r#"<PartMetadata><e_tag>"e3"</e_tag><checksum_crc64nvme>c3==</checksum_crc64nvme></PartMetadata>"#;
        assert_eq!((parts[1].index, parts[1].id.as_str()), (2, spelled));
    }
}
