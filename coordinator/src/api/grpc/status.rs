//! Errors of the domain to gRPC statuses. A message says what is wrong and what to do.

use shared::{
    lease::Fenced,
    store::{CommitError, ErrorClass, StoreError},
    template::TemplateError,
    wire::{self, WireError},
};
use tonic::{Code, Status};

use crate::{actors::supervisor::Restarting, catalog::CatalogError};

/// `?` in services: anything that can go wrong there has a status.
#[derive(Debug)]
pub(super) struct Failure(Status);

impl From<Failure> for Status {
    fn from(failure: Failure) -> Status {
        failure.0
    }
}

impl Failure {
    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Failure(Status::not_found(message))
    }

    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Failure(Status::invalid_argument(message))
    }
}

impl From<WireError> for Failure {
    fn from(error: WireError) -> Self {
        Failure(Status::invalid_argument(error.to_string()))
    }
}

impl From<TemplateError> for Failure {
    fn from(error: TemplateError) -> Self {
        Failure(Status::invalid_argument(error.to_string()))
    }
}

impl From<Restarting> for Failure {
    fn from(error: Restarting) -> Self {
        Failure(Status::unavailable(error.to_string()))
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let code = match (&error, error.class()) {
            (_, ErrorClass::Retry) => Code::Unavailable,
            (StoreError::Stale { .. }, _) => Code::Aborted,
            _ => Code::Internal,
        };
        Failure(Status::new(code, error.to_string()))
    }
}

impl From<CatalogError> for Failure {
    fn from(error: CatalogError) -> Self {
        let code = match &error {
            CatalogError::Template(_) | CatalogError::NameReserved => Code::InvalidArgument,
            CatalogError::NameTaken(_) | CatalogError::RuleExists(_) => Code::AlreadyExists,
            CatalogError::NoTemplate(_) | CatalogError::NoRule(_) => Code::NotFound,
            CatalogError::TooManyTemplates(_) | CatalogError::TooManyRules(_) => Code::ResourceExhausted,
            CatalogError::InUse { .. } => Code::FailedPrecondition,
            CatalogError::Store(error) => return error.clone().into(),
        };
        Failure(Status::new(code, error.to_string()))
    }
}

impl From<Fenced> for Failure {
    fn from(fenced: Fenced) -> Self {
        let details = wire::fenced_details(&fenced).into();
        Failure(Status::with_details(
            Code::FailedPrecondition,
            fenced.to_string(),
            details,
        ))
    }
}

impl From<CommitError> for Failure {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Fenced(fenced) => fenced.into(),
            CommitError::Store(error) => error.into(),
            CommitError::NoRecording(_) => Failure(Status::not_found(error.to_string())),
            CommitError::Final { .. } | CommitError::MissingFiles { .. } => {
                Failure(Status::failed_precondition(error.to_string()))
            }
        }
    }
}
