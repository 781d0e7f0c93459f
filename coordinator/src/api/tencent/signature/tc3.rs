//! TC3-HMAC-SHA256: the signature stands in the header `Authorization` and covers method, path, query, some headers and
//! the body.

use ring::{digest, hmac};
use shared::time::Timestamp;

use super::{Received, check_time, hex, mismatch, unhex};
use crate::api::tencent::error::ApiError;

const ALGORITHM: &str = "TC3-HMAC-SHA256";
/// Text in the place of a body's hash that leaves the body out of the signature.
const UNSIGNED: &str = "UNSIGNED-PAYLOAD";
/// Most headers that a signature may name; clients name two or three.
const MAX_SIGNED_HEADERS: usize = 16;

/// What a request says of its signer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) secret_id: String,
    date: String,
    service: String,
    signed_headers: Vec<String>,
    signature: Vec<u8>,
    timestamp: i64,
}

fn malformed(problem: &str) -> ApiError {
    ApiError::new(
        "AuthFailure.InvalidAuthorization",
        format!("the header Authorization {problem}"),
    )
}

/// The UTC day of a time, as `2023-11-14`.
fn day(seconds: i64) -> Option<String> {
    let at = jiff::Timestamp::from_second(seconds).ok()?;
    Some(at.strftime("%Y-%m-%d").to_string())
}

impl Claim {
    /// Reads the header `Authorization`; `timestamp` is that of `X-TC-Timestamp`.
    ///
    /// # Errors
    /// `AuthFailure.InvalidAuthorization`, `AuthFailure.SignatureExpire`, `InvalidParameterValue`.
    pub(crate) fn read(authorization: &str, timestamp: &str, now: Timestamp) -> Result<Self, ApiError> {
        let fields = authorization
            .trim()
            .strip_prefix(ALGORITHM)
            .ok_or_else(|| malformed("does not begin with TC3-HMAC-SHA256, the only scheme that is taken"))?;
        let (mut credential, mut headers, mut signature) = (None, None, None);
        for field in fields.split(',') {
            let (name, value) = field
                .trim()
                .split_once('=')
                .ok_or_else(|| malformed("is not Credential=…, SignedHeaders=…, Signature=…"))?;
            let slot = match name {
                "Credential" => &mut credential,
                "SignedHeaders" => &mut headers,
                "Signature" => &mut signature,
                _ => return Err(malformed("has a field that is unknown")),
            };
            if slot.replace(value).is_some() {
                return Err(malformed("has a field twice"));
            }
        }
        let (Some(credential), Some(headers), Some(signature)) = (credential, headers, signature) else {
            return Err(malformed("lacks one of Credential, SignedHeaders and Signature"));
        };
        let [secret_id, date, service, "tc3_request"] = credential.split('/').collect::<Vec<_>>()[..] else {
            return Err(malformed("has a Credential that is not ID/DATE/SERVICE/tc3_request"));
        };
        let timestamp = check_time(timestamp, now)?;
        if day(timestamp).as_deref() != Some(date) {
            return Err(ApiError::new(
                "AuthFailure.SignatureFailure",
                format!("the date {date:?} of the Credential is not the UTC day of X-TC-Timestamp"),
            ));
        }
        let signed_headers: Vec<String> = headers.split(';').map(str::to_ascii_lowercase).collect();
        if signed_headers.len() > MAX_SIGNED_HEADERS {
            return Err(malformed("signs more than 16 headers"));
        }
        for needed in ["content-type", "host"] {
            if !signed_headers.iter().any(|name| name == needed) {
                return Err(malformed("must sign content-type and host at least"));
            }
        }
        Ok(Claim {
            secret_id: secret_id.to_owned(),
            date: date.to_owned(),
            service: service.to_owned(),
            signed_headers,
            signature: unhex(signature).ok_or_else(|| malformed("has a Signature that is not hexadecimal"))?,
            timestamp,
        })
    }

    /// Compares the signature with that of the request under `secret`.
    ///
    /// # Errors
    /// `AuthFailure.SignatureFailure`.
    pub(crate) fn verify(&self, request: &Received<'_>, secret: &str) -> Result<(), ApiError> {
        let key = self.signing_key(secret);
        let payload = match request.header("x-tc-content-sha256")? {
            Some(UNSIGNED) => digest::digest(&digest::SHA256, UNSIGNED.as_bytes()),
            _ => digest::digest(&digest::SHA256, request.body),
        };
        let payload = hex(payload.as_ref());
        let mut paths = vec!["/", request.path];
        paths.dedup();
        for host in request.hosts()? {
            for lower in [false, true] {
                let headers = self.headers(request, host, lower)?;
                for path in &paths {
                    let canonical = [
                        request.method,
                        path,
                        request.query,
                        &headers,
                        &self.signed_headers.join(";"),
                        &payload,
                    ]
                    .join("\n");
                    let signed = self.string_to_sign(&canonical);
                    if hmac::verify(&key, signed.as_bytes(), &self.signature).is_ok() {
                        return Ok(());
                    }
                }
            }
        }
        Err(mismatch())
    }

    /// `name:value` and a line feed for each signed header, in the signer's order.
    fn headers(&self, request: &Received<'_>, host: &str, lower: bool) -> Result<String, ApiError> {
        let mut out = String::new();
        for name in &self.signed_headers {
            let value = match name.as_str() {
                "host" => host,
                name => request.header(name)?.unwrap_or_default(),
            };
            let value = value.trim();
            let value = if lower { value.to_lowercase() } else { value.to_owned() };
            out.push_str(&format!("{name}:{value}\n"));
        }
        Ok(out)
    }

    fn string_to_sign(&self, canonical: &str) -> String {
        let hash = digest::digest(&digest::SHA256, canonical.as_bytes());
        let Claim {
            timestamp,
            date,
            service,
            ..
        } = self;
        format!(
            "{ALGORITHM}\n{timestamp}\n{date}/{service}/tc3_request\n{}",
            hex(hash.as_ref())
        )
    }

    fn signing_key(&self, secret: &str) -> hmac::Key {
        let mut key = format!("TC3{secret}").into_bytes();
        for part in [self.date.as_str(), &self.service, "tc3_request"] {
            key = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), part.as_bytes())
                .as_ref()
                .to_vec();
        }
        hmac::Key::new(hmac::HMAC_SHA256, &key)
    }
}

#[cfg(test)]
#[path = "tc3_tests.rs"]
mod tests;
