//! Errors of the domain to gRPC statuses. A message says what is wrong and what to do.

use shared::{
    lease::Fenced,
    store::{CommitError, ErrorClass, RemovalError, StoreError},
    template::TemplateError,
    wire::{self, WireError},
};
use tonic::{Code, Status};

use super::forward;
use crate::{
    actors::supervisor::Restarting, api::compose::Refused, catalog::CatalogError, compositions::CompositionError,
    doors::DoorError, fleet::DrainError, pulls::PullError, tasks::TaskError,
};

/// `?` in services: anything that can go wrong there has a status.
#[derive(Debug)]
pub(super) struct Failure(Status);

impl From<Failure> for Status {
    fn from(failure: Failure) -> Status {
        failure.0
    }
}

/// Longest message of a status, bytes. It travels in a header, and clients refuse long ones; what it quotes may be long.
const MAX_MESSAGE_BYTES: usize = 1_024;

/// What a message that is too long keeps of its end, bytes: there it says what to do.
const KEPT_END_BYTES: usize = 256;

fn status(code: Code, message: impl ToString) -> Status {
    let mut message = message.to_string();
    if message.len() > MAX_MESSAGE_BYTES {
        let end = message.split_off(message.ceil_char_boundary(message.len() - KEPT_END_BYTES));
        message.truncate(message.floor_char_boundary(MAX_MESSAGE_BYTES - KEPT_END_BYTES - '…'.len_utf8()));
        message.push('…');
        message.push_str(&end);
    }
    Status::new(code, message)
}

impl Failure {
    pub(super) fn not_found(message: impl ToString) -> Self {
        Failure(status(Code::NotFound, message))
    }

    pub(super) fn exists(message: impl ToString) -> Self {
        Failure(status(Code::AlreadyExists, message))
    }

    pub(super) fn not_now(message: impl ToString) -> Self {
        Failure(status(Code::FailedPrecondition, message))
    }

    pub(super) fn full(message: impl ToString) -> Self {
        Failure(status(Code::ResourceExhausted, message))
    }

    pub(super) fn internal(message: impl ToString) -> Self {
        Failure(status(Code::Internal, message))
    }

    pub(super) fn refused(message: impl ToString) -> Self {
        Failure(status(Code::FailedPrecondition, message))
    }

    pub(super) fn invalid(message: impl ToString) -> Self {
        Failure(status(Code::InvalidArgument, message))
    }
}

impl From<WireError> for Failure {
    fn from(error: WireError) -> Self {
        Failure::invalid(error)
    }
}

impl From<TemplateError> for Failure {
    fn from(error: TemplateError) -> Self {
        Failure::invalid(error)
    }
}

impl From<Restarting> for Failure {
    fn from(error: Restarting) -> Self {
        let mut status = status(Code::Unavailable, error);
        if !error.asked {
            forward::mark_not_done(&mut status);
        }
        Failure(status)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let code = match (&error, error.class()) {
            (_, ErrorClass::Retry) => Code::Unavailable,
            (StoreError::Stale { .. }, _) => Code::Aborted,
            // A bound of the store that what was asked for would break.
            (StoreError::Invalid(_), _) => Code::InvalidArgument,
            _ => Code::Internal,
        };
        Failure(status(code, error))
    }
}

impl From<CatalogError> for Failure {
    fn from(error: CatalogError) -> Self {
        let code = match &error {
            CatalogError::Template(_) | CatalogError::NameReserved => Code::InvalidArgument,
            CatalogError::NameTaken(_) | CatalogError::RuleExists(_) => Code::AlreadyExists,
            CatalogError::NoTemplate(_) | CatalogError::NoRule(_) => Code::NotFound,
            CatalogError::TooManyTemplates(_) | CatalogError::TooManyRules(_) => Code::ResourceExhausted,
            CatalogError::InUse { .. } | CatalogError::NoPlace { .. } => Code::FailedPrecondition,
            CatalogError::Store(error) => return error.clone().into(),
        };
        Failure(status(code, error))
    }
}

impl From<DrainError> for Failure {
    fn from(error: DrainError) -> Self {
        match &error {
            DrainError::None(_) => Failure::not_found(error),
            DrainError::Several { .. } => Failure::invalid(error),
            DrainError::Silent(_) => Failure::not_now(error),
        }
    }
}

impl From<DoorError> for Failure {
    fn from(error: DoorError) -> Self {
        let code = match &error {
            DoorError::Known(_) => Code::AlreadyExists,
            DoorError::Unknown(_) => Code::NotFound,
            DoorError::TooManyDomains | DoorError::TooManyBans => Code::ResourceExhausted,
            DoorError::NoKey | DoorError::Until | DoorError::Reason => Code::InvalidArgument,
            DoorError::Store(error) => return error.clone().into(),
        };
        Failure(status(code, error))
    }
}

impl From<Refused> for Failure {
    fn from(error: Refused) -> Self {
        let code = match &error {
            Refused::Field { .. } | Refused::Span(_) => Code::InvalidArgument,
            Refused::NoFile(_) => Code::NotFound,
            Refused::Store(error) => return error.clone().into(),
        };
        Failure(status(code, error))
    }
}

impl From<CompositionError> for Failure {
    fn from(error: CompositionError) -> Self {
        let code = match &error {
            CompositionError::TokenTaken(_) => Code::AlreadyExists,
            CompositionError::TooManyOpen | CompositionError::TooManyKept => Code::ResourceExhausted,
            CompositionError::Store(error) => return error.clone().into(),
        };
        Failure(status(code, error))
    }
}

impl From<PullError> for Failure {
    fn from(error: PullError) -> Self {
        let code = match &error {
            PullError::Exists(_) => Code::AlreadyExists,
            PullError::None(_) => Code::NotFound,
            PullError::TooMany(_) => Code::ResourceExhausted,
            PullError::Url(_) | PullError::Window | PullError::Past => Code::InvalidArgument,
            PullError::Store(error) => return error.clone().into(),
        };
        Failure(status(code, error))
    }
}

impl From<TaskError> for Failure {
    fn from(error: TaskError) -> Self {
        let code = match &error {
            TaskError::Input(_) => Code::InvalidArgument,
            TaskError::NotLive(_)
            | TaskError::RecordsNothing(_)
            | TaskError::Over { .. }
            | TaskError::Running { .. } => Code::FailedPrecondition,
            TaskError::TokenTaken { .. } => Code::AlreadyExists,
            TaskError::TooMany(_) | TaskError::TooManyOfStream { .. } => Code::ResourceExhausted,
            TaskError::NoTask(_) => Code::NotFound,
            TaskError::Transition { .. } => Code::Internal,
            TaskError::Store(error) => return error.clone().into(),
        };
        Failure(status(code, error))
    }
}

impl From<RemovalError> for Failure {
    fn from(error: RemovalError) -> Self {
        match error {
            RemovalError::NoFile(_) => Failure::not_found(error),
            RemovalError::Store(error) => error.into(),
            RemovalError::FileLocked(_)
            | RemovalError::RecordingLocked(_)
            | RemovalError::Running(_)
            | RemovalError::Composed { .. } => Failure(status(Code::FailedPrecondition, error)),
        }
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
            CommitError::NoRecording(_) => Failure::not_found(error),
            CommitError::Final { .. } => {
                let mut refusal = status(Code::FailedPrecondition, error);
                refusal
                    .metadata_mut()
                    .insert(wire::FINAL, tonic::metadata::MetadataValue::from_static("1"));
                Failure(refusal)
            }
            CommitError::MissingFiles { .. } => Failure(status(Code::FailedPrecondition, error)),
        }
    }
}
