//! [`Call`]: a request in any of the four forms, read into one. Pure.
//!
//! | Form | Signature | Action and version | Parameters |
//! |---|---|---|---|
//! | TC3 POST | header `Authorization` | headers `X-TC-…` | JSON body |
//! | TC3 GET | header `Authorization` | headers `X-TC-…` | query |
//! | v1 POST | parameter `Signature` | parameters | form body |
//! | v1 GET | parameter `Signature` | parameters | query |

use shared::time::Timestamp;

use super::{
    error::ApiError,
    params::{Fields, decode_form},
    signature::{Received, tc3, v1},
};

/// Parameters of the v1 forms that belong to no action.
const COMMON: [&str; 11] = [
    "Action",
    "Version",
    "Timestamp",
    "Nonce",
    "SecretId",
    "Signature",
    "SignatureMethod",
    "RequestClient",
    "Region",
    "Token",
    "Language",
];

/// Who says to have signed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Signer {
    /// By TC3-HMAC-SHA256.
    Tc3(tc3::Claim),
    /// By the older signature, over these parameters.
    V1(v1::Claim, v1::Flat),
}

/// What is asked for, by whom.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Call {
    pub(crate) signer: Signer,
    pub(crate) action: String,
    pub(crate) version: String,
    /// The action's parameters. Without errors in them only once the signature is verified.
    pub(crate) fields: Result<Fields, ApiError>,
}

impl Call {
    /// Reads a request. The signature is not verified yet.
    ///
    /// # Errors
    /// Codes of `AuthFailure`, `MissingParameter`, `InvalidParameter`, `InvalidParameterValue`.
    pub(crate) fn read(request: &Received<'_>, now: Timestamp) -> Result<Self, ApiError> {
        let authorization = request.header("authorization")?;
        if authorization.is_some() || request.header("x-tc-action")?.is_some() {
            return Call::read_tc3(request, authorization, now);
        }
        let form = match request.method {
            "GET" => request.query,
            _ => text(request.body)?,
        };
        let mut all = decode_form(form)?;
        if !all.contains_key("Signature") && !all.contains_key("Action") {
            return Err(ApiError::missing("Action"));
        }
        let claim = v1::Claim::read(&all, now)?;
        let needed = |name: &str| all.get(name).cloned().ok_or_else(|| ApiError::missing(name));
        let (action, version) = (needed("Action")?, needed("Version")?);
        let signed = all.clone();
        COMMON.iter().for_each(|name| drop(all.remove(*name)));
        Ok(Call {
            signer: Signer::V1(claim, signed),
            action,
            version,
            fields: Fields::from_flat(&all),
        })
    }

    fn read_tc3(request: &Received<'_>, authorization: Option<&str>, now: Timestamp) -> Result<Self, ApiError> {
        let needed = |name: &'static str, header: &'static str| match request.header(header)? {
            None | Some("") => Err(ApiError::missing(name)),
            Some(value) => Ok(value.to_owned()),
        };
        let authorization = authorization.ok_or_else(|| {
            ApiError::new(
                "AuthFailure.InvalidAuthorization",
                "the header Authorization is missing",
            )
        })?;
        let timestamp = needed("X-TC-Timestamp", "x-tc-timestamp")?;
        let claim = tc3::Claim::read(authorization, &timestamp, now)?;
        Ok(Call {
            signer: Signer::Tc3(claim),
            action: needed("X-TC-Action", "x-tc-action")?,
            version: needed("X-TC-Version", "x-tc-version")?,
            fields: Call::tc3_fields(request),
        })
    }

    fn tc3_fields(request: &Received<'_>) -> Result<Fields, ApiError> {
        if request.method == "GET" {
            return Fields::from_flat(&decode_form(request.query)?);
        }
        let kind = request.header("content-type")?.unwrap_or_default();
        match kind.split(';').next().map(str::trim) {
            Some("application/json") => Fields::from_json(request.body),
            Some("application/x-www-form-urlencoded") => Fields::from_flat(&decode_form(text(request.body)?)?),
            _ => Err(ApiError::invalid(format!(
                "the body is {kind:?}: send application/json"
            ))),
        }
    }

    pub(crate) fn secret_id(&self) -> &str {
        match &self.signer {
            Signer::Tc3(claim) => &claim.secret_id,
            Signer::V1(claim, _) => &claim.secret_id,
        }
    }

    /// Compares the signature with that of the request under `secret`.
    ///
    /// # Errors
    /// `AuthFailure.SignatureFailure`.
    pub(crate) fn verify(&self, request: &Received<'_>, secret: &str) -> Result<(), ApiError> {
        match &self.signer {
            Signer::Tc3(claim) => claim.verify(request, secret),
            Signer::V1(claim, signed) => claim.verify(request, signed, secret),
        }
    }
}

fn text(body: &[u8]) -> Result<&str, ApiError> {
    std::str::from_utf8(body).map_err(|_| ApiError::invalid("the body is not UTF-8"))
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
