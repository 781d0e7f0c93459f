//! [`Problem`]: a refusal as RFC 9457 says it, `application/problem+json`.

use std::fmt;

use actix_web::{
    HttpResponse, ResponseError,
    http::{StatusCode, header},
};
use serde::Serialize;
use tonic::{Code, Status};
use tracing::{error, warn};
use utoipa::{IntoResponses, ToSchema};

/// Why a request is refused, and what to do.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct Problem {
    /// Kind of problem; `about:blank`: the status says it.
    r#type: &'static str,
    /// The status in words.
    title: &'static str,
    /// HTTP status.
    status: u16,
    /// What is wrong and what to do, for people.
    detail: String,
}

/// What any operation may answer instead.
#[derive(IntoResponses)]
#[allow(dead_code, reason = "only its description is used")]
pub(super) enum Refusals {
    /// The request is not what it should be.
    #[response(status = 400, content_type = "application/problem+json")]
    Invalid(Problem),
    /// No token, or one that is not accepted.
    #[response(status = 401, content_type = "application/problem+json")]
    Unauthenticated(Problem),
    /// The key may not do this, or not for this domain.
    #[response(status = 403, content_type = "application/problem+json")]
    Forbidden(Problem),
    /// What is named is not there.
    #[response(status = 404, content_type = "application/problem+json")]
    NotFound(Problem),
    /// The state of things refuses it: a name that is taken, a limit that is reached, something in use.
    #[response(status = 409, content_type = "application/problem+json")]
    Conflict(Problem),
    /// Nobody can answer just now: try again in a moment.
    #[response(status = 503, content_type = "application/problem+json")]
    Unavailable(Problem),
}

impl Problem {
    pub(super) fn new(status: StatusCode, detail: impl fmt::Display) -> Self {
        Problem {
            r#type: "about:blank",
            title: status.canonical_reason().unwrap_or_default(),
            status: status.as_u16(),
            detail: detail.to_string(),
        }
    }

    pub(super) fn invalid(detail: impl fmt::Display) -> Self {
        Problem::new(StatusCode::BAD_REQUEST, detail)
    }

    pub(super) fn forbidden(detail: impl fmt::Display) -> Self {
        Problem::new(StatusCode::FORBIDDEN, detail)
    }

    pub(super) fn not_found(detail: impl fmt::Display) -> Self {
        Problem::new(StatusCode::NOT_FOUND, detail)
    }

    pub(super) fn unavailable(detail: impl fmt::Display) -> Self {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail)
    }

    pub(super) fn internal() -> Self {
        Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the answer is not whole: the log says more",
        )
    }
}

impl From<Status> for Problem {
    fn from(status: Status) -> Self {
        let code = match status.code() {
            Code::InvalidArgument | Code::OutOfRange => StatusCode::BAD_REQUEST,
            Code::NotFound => StatusCode::NOT_FOUND,
            // The state of things refuses it: something must be changed or removed first.
            Code::AlreadyExists | Code::FailedPrecondition | Code::Aborted | Code::ResourceExhausted => {
                StatusCode::CONFLICT
            }
            Code::Unauthenticated => StatusCode::UNAUTHORIZED,
            Code::PermissionDenied => StatusCode::FORBIDDEN,
            Code::Unavailable | Code::DeadlineExceeded => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        match code {
            StatusCode::INTERNAL_SERVER_ERROR => error!(message = status.message(), "the JSON API failed"),
            StatusCode::SERVICE_UNAVAILABLE => warn!(message = status.message(), "the JSON API cannot answer now"),
            _ => {}
        }
        Problem::new(code, status.message())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    fn error_response(&self) -> HttpResponse {
        let mut answer = HttpResponse::build(self.status_code());
        match self.status {
            401 => _ = answer.insert_header((header::WWW_AUTHENTICATE, "Bearer")),
            503 => _ = answer.insert_header((header::RETRY_AFTER, "1")),
            _ => {}
        }
        // Every field has a JSON form.
        let body = serde_json::to_string(self).unwrap_or_default();
        answer.content_type("application/problem+json").body(body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grpc_refuses_has_one_status_each() {
        for (code, status) in [
            (Code::InvalidArgument, 400),
            (Code::Unauthenticated, 401),
            (Code::PermissionDenied, 403),
            (Code::NotFound, 404),
            (Code::AlreadyExists, 409),
            (Code::FailedPrecondition, 409),
            (Code::ResourceExhausted, 409),
            (Code::Aborted, 409),
            (Code::Internal, 500),
            (Code::Unavailable, 503),
        ] {
            let problem = Problem::from(Status::new(code, "why"));
            assert_eq!((problem.status, problem.detail.as_str()), (status, "why"), "{code:?}");
            assert_eq!(problem.error_response().status().as_u16(), status);
        }
    }
}
