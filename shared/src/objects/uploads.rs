//! Asks for multipart uploads that nobody completed: `ListMultipartUploads` and `ListParts`, which the library has no calls for.
//!
//! The library signs the request's URL, so keys and their rotation stay its affair.

use std::time::Duration;

use object_store::aws::AmazonS3;
use object_store::path::Path;
use object_store::signer::{SignedUrlOptions, Signer};
use reqwest::Method;
use serde::Deserialize;

use super::bucket::{ObjectError, Pending};

/// A signed URL is used at once.
const SIGNED_FOR: Duration = Duration::from_secs(300);
/// Pages of up to a thousand uploads that are read; more wait for the next time.
const PAGES: usize = 100;

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

impl Lister {
    pub(super) fn new(store: AmazonS3) -> Result<Self, ObjectError> {
        let client = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(5))
            .build()
            .map_err(|e| ObjectError::Refused(format!("HTTP client: {e}")))?;
        Ok(Self { store, client })
    }

    /// A URL under which whoever holds it may read or look at an object for a while; `query` is part of it.
    pub(super) async fn link(
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

    /// Every upload whose key begins with `prefix`.
    pub(super) async fn list(&self, prefix: &str) -> Result<Vec<Pending>, ObjectError> {
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

    /// Whether an upload is neither completed nor aborted.
    pub(super) async fn has(&self, path: &Path, upload_id: &str) -> Result<bool, ObjectError> {
        let away =
            |e: &dyn std::fmt::Display| ObjectError::Unavailable(format!("looking for an upload of {path}: {e}"));
        let options = SignedUrlOptions::default().with_query(vec![("uploadId", upload_id), ("max-parts", "1")]);
        let url = self.store.signed_url_opts(Method::GET, path, SIGNED_FOR, &options);
        let url = url.await.map_err(|e| away(&e))?;
        let answer = self.client.get(url).send().await.map_err(|e| away(&e.without_url()))?;
        let status = answer.status();
        let text = answer.text().await.map_err(|e| away(&e.without_url()))?;
        match status {
            _ if status.is_success() && text.contains("ListPartsResult") => Ok(true),
            reqwest::StatusCode::NOT_FOUND if text.contains("NoSuchUpload") => Ok(false),
            _ => Err(away(&format!("{status}: {text}"))),
        }
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
        quick_xml::de::from_str(&text).map_err(|e| away(&e))
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
        let page: Page = quick_xml::de::from_str(text).unwrap();
        assert_eq!(page.uploads.len(), 2);
        assert_eq!((page.is_truncated, page.next_key_marker.as_deref()), (true, Some("k2")));
        let none: Page =
            quick_xml::de::from_str("<ListMultipartUploadsResult><Bucket>b</Bucket></ListMultipartUploadsResult>")
                .unwrap();
        assert!(none.uploads.is_empty() && !none.is_truncated);
    }
}
