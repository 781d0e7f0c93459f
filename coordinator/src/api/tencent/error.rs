//! [`ApiError`]: a documented error code and what is wrong, in words.

use std::{borrow::Cow, fmt};

use shared::store::{ErrorClass, StoreError};

use crate::actors::supervisor::Restarting;

/// Longest message, bytes: what it quotes may be long.
const MAX_MESSAGE_BYTES: usize = 512;

/// Why a request is not answered with what it asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiError {
    code: Cow<'static, str>,
    message: String,
}

impl ApiError {
    /// With one of the documented codes.
    pub(crate) fn new(code: impl Into<Cow<'static, str>>, message: impl fmt::Display) -> Self {
        let mut message = message.to_string();
        if message.len() > MAX_MESSAGE_BYTES {
            message.truncate(message.floor_char_boundary(MAX_MESSAGE_BYTES));
            message.push('…');
        }
        ApiError {
            code: code.into(),
            message,
        }
    }

    /// Parameters that cannot be read, or do not fit together.
    pub(crate) fn invalid(message: impl fmt::Display) -> Self {
        ApiError::new("InvalidParameter", message)
    }

    /// A parameter outside its range.
    pub(crate) fn value(name: impl fmt::Display, problem: impl fmt::Display) -> Self {
        ApiError::new("InvalidParameterValue", format!("{name} {problem}"))
    }

    /// The code of a value out of range, made narrower by the parameter's name, as the vod service does.
    pub(crate) fn of(self, name: &str) -> Self {
        match self.code() {
            "InvalidParameterValue" => ApiError {
                code: format!("InvalidParameterValue.{name}").into(),
                message: self.message,
            },
            _ => self,
        }
    }

    /// A parameter that must be there is not.
    pub(crate) fn missing(name: impl fmt::Display) -> Self {
        ApiError::new("MissingParameter", format!("{name} is missing"))
    }

    /// The key's scope does not cover it.
    pub(crate) fn unauthorized(message: impl fmt::Display) -> Self {
        ApiError::new("UnauthorizedOperation", message)
    }

    /// Legal elsewhere, not offered here.
    pub(crate) fn unsupported(message: impl fmt::Display) -> Self {
        ApiError::new("UnsupportedOperation", message)
    }

    pub(crate) fn code(&self) -> &str {
        &self.code
    }

    pub(crate) fn message(&self) -> &str {
        &self.message
    }
}

impl From<Restarting> for ApiError {
    fn from(error: Restarting) -> Self {
        ApiError::new("ServiceUnavailable", error)
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        let code = match (&error, error.class()) {
            (_, ErrorClass::Retry) => "ServiceUnavailable",
            (StoreError::Invalid(_), _) => "InvalidParameter",
            _ => "InternalError",
        };
        ApiError::new(code, error)
    }
}
