//! What etcd's refusals mean here.

use etcd_client::Error;
use thiserror::Error as ThisError;
use tonic::{Code, Status};

use super::super::{Revision, StoreError};

/// Why a member did not do it, and whether another might.
#[derive(Debug, Clone, ThisError)]
pub(super) enum Refusal {
    /// It cannot be reached, has no leader, or did not answer in time.
    #[error("etcd member {member}: {words}")]
    Away {
        member: String,
        words: String,
        /// False if the request cannot have had an effect.
        sent: bool,
    },
    /// The answer is longer than is taken.
    #[error("etcd's answer is too large")]
    TooLarge,
    /// The lease is no more.
    #[error("the lease has ended")]
    NoLease,
    /// The request is not legal.
    #[error("{0}")]
    Illegal(String),
    /// Credentials or rights are missing.
    #[error("{0}")]
    Forbidden(String),
    /// The revision asked for is gone.
    #[error("compacted")]
    Compacted,
}

impl From<Refusal> for StoreError {
    fn from(refusal: Refusal) -> StoreError {
        match refusal {
            Refusal::Away { .. } | Refusal::TooLarge => StoreError::unavailable(refusal),
            Refusal::NoLease => StoreError::Invalid("the lease is not known".to_owned()),
            Refusal::Illegal(words) => StoreError::Invalid(words),
            Refusal::Forbidden(words) => StoreError::Forbidden(words),
            Refusal::Compacted => StoreError::Compacted { up_to: Revision(0) },
        }
    }
}

impl Refusal {
    pub(super) fn away(member: &str, words: impl Into<String>, sent: bool) -> Self {
        Refusal::Away {
            member: member.to_owned(),
            words: words.into(),
            sent,
        }
    }

    /// Reads what the client says of a call to a member.
    pub(super) fn read(member: &str, error: Error) -> Self {
        match error {
            Error::GRpcStatus(status) => Self::of_status(member, &status),
            // The client's word for a renewal that found no lease.
            Error::LeaseKeepAliveError(_) => Refusal::NoLease,
            Error::TransportError(error) => Self::away(member, deepest(&error), true),
            other => Self::away(member, other.to_string(), true),
        }
    }

    fn of_status(member: &str, status: &Status) -> Self {
        let words = status.message();
        let about = format!("etcd member {member} says: {words}");
        match status.code() {
            Code::NotFound if words.contains("lease not found") => Refusal::NoLease,
            Code::OutOfRange if words.contains("compacted") => Refusal::Compacted,
            Code::OutOfRange => Refusal::TooLarge,
            Code::PermissionDenied | Code::Unauthenticated => Refusal::Forbidden(format!(
                "{about}; check the user, its password and the rights of its roles"
            )),
            Code::InvalidArgument if words.contains("authentication failed") => {
                Refusal::Forbidden(format!("{about}; check the user and its password"))
            }
            // A user whose rights have just changed is asked to authenticate again.
            Code::InvalidArgument if words.contains("auth") && words.contains("revision") => {
                Self::away(member, words, false)
            }
            Code::FailedPrecondition if words.contains("auth") => Refusal::Forbidden(format!(
                "{about}; leave out user and password, or enable authentication in etcd"
            )),
            Code::InvalidArgument | Code::FailedPrecondition | Code::Unimplemented => Refusal::Illegal(about),
            _ => {
                let early = words.contains("etcdserver: no leader") || words.contains("too many requests");
                let words = match cause(status) {
                    Some(cause) if !words.contains(&cause) => format!("{words}: {cause}"),
                    _ => words.to_owned(),
                };
                Self::away(member, words, !early && !never_sent(status))
            }
        }
    }
}

/// True if there was no connection to send it on.
fn never_sent(status: &Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

fn cause(status: &Status) -> Option<String> {
    std::error::Error::source(status).map(deepest)
}

/// The last cause in a chain: the one that says something.
pub(super) fn deepest(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
