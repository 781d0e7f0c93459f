//! The older signature: a parameter `Signature` over all other parameters, with a nonce. HMAC-SHA1 unless
//! `SignatureMethod` says HmacSHA256.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ring::hmac;
use shared::time::Timestamp;

use super::{Received, check_time, mismatch};
use crate::api::tencent::error::ApiError;

/// What a request says of its signer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) secret_id: String,
    pub(crate) nonce: String,
    pub(crate) timestamp: i64,
    algorithm: Algorithm,
    signature: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Algorithm {
    Sha1,
    Sha256,
}

/// All parameters of a request, decoded, by name.
pub(crate) type Flat = BTreeMap<String, String>;

impl Claim {
    /// Reads what is said of the signer among a request's parameters.
    ///
    /// # Errors
    /// `MissingParameter`, `InvalidParameterValue`, `AuthFailure.SignatureExpire`, `AuthFailure.SignatureFailure`.
    pub(crate) fn read(all: &Flat, now: Timestamp) -> Result<Self, ApiError> {
        let needed = |name: &str| match all.get(name).map(String::as_str) {
            None | Some("") => Err(ApiError::missing(name)),
            Some(value) => Ok(value.to_owned()),
        };
        let secret_id = needed("SecretId")?;
        let signature = needed("Signature")?;
        let nonce = needed("Nonce")?;
        if nonce.len() > 20 || !nonce.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(ApiError::value("Nonce", "must be a whole number of at most 20 digits"));
        }
        let algorithm = match all.get("SignatureMethod").map(String::as_str) {
            None | Some("" | "HmacSHA1") => Algorithm::Sha1,
            Some("HmacSHA256") => Algorithm::Sha256,
            Some(_) => return Err(ApiError::value("SignatureMethod", "must be HmacSHA1 or HmacSHA256")),
        };
        Ok(Claim {
            timestamp: check_time(&needed("Timestamp")?, now)?,
            secret_id,
            nonce,
            algorithm,
            signature: STANDARD.decode(signature).map_err(|_| mismatch())?,
        })
    }

    /// Compares the signature with that of the request under `secret`. `all` are its parameters, decoded.
    ///
    /// # Errors
    /// `AuthFailure.SignatureFailure`.
    pub(crate) fn verify(&self, request: &Received<'_>, all: &Flat, secret: &str) -> Result<(), ApiError> {
        let algorithm = match self.algorithm {
            Algorithm::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Algorithm::Sha256 => hmac::HMAC_SHA256,
        };
        let key = hmac::Key::new(algorithm, secret.as_bytes());
        // One SDK writes the names in the signed text with `.` for `_`.
        for dotted in [false, true] {
            let signed = joined(all, dotted);
            for host in request.hosts()? {
                let text = format!("{}{host}/?{signed}", request.method);
                if hmac::verify(&key, text.as_bytes(), &self.signature).is_ok() {
                    return Ok(());
                }
            }
        }
        Err(mismatch())
    }
}

/// `name=value` joined by `&`, sorted by name, values as they are.
fn joined(all: &Flat, dotted: bool) -> String {
    let mut pairs: Vec<(String, &str)> = all
        .iter()
        .filter(|(name, _)| *name != "Signature")
        .map(|(name, value)| match dotted {
            true => (name.replace('_', "."), value.as_str()),
            false => (name.clone(), value.as_str()),
        })
        .collect();
    pairs.sort();
    let pairs: Vec<String> = pairs
        .into_iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    pairs.join("&")
}

#[cfg(test)]
#[path = "v1_tests.rs"]
mod tests;
