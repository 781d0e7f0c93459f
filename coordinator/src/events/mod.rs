//! News to customers' receivers: who is told of what, and that it arrives.
//!
//! # Tour
//!
//! 1. `book`: callback templates and rules: which receiver hears of which streams (pure).
//! 2. `tell`: what a change of a publish, a recording or a file is in events (pure).
//! 3. `letter`: events as they are stored, and as they go out, signed (pure).
//! 4. `teller`: a store around the store. Whoever changes something does so through it, and it adds the events of that change to
//!    the same transaction: there is no moment at which one is stored without the other.
//! 5. `queue`: which event goes out next, and when again (pure).
//! 6. `courier`: takes letters from the store, hands them out, and writes down what became of them, for as long as this
//!    coordinator leads. `reach`: the one request, to an address that was checked.
//! 7. `desk`: what people do with all that.

pub(crate) mod book;
mod courier;
pub(crate) mod desk;
pub(crate) mod letter;
mod queue;
mod reach;
mod tell;
mod teller;

pub(crate) use self::{courier::Courier, reach::Policy, teller::Teller};

use std::fmt;

use serde::{Deserialize, Serialize};

/// What an event is about. Its number is that protocol's `event_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    PushStart,
    PushEnd,
    File,
    Status,
    Exception,
    PushException,
}

impl Kind {
    #[cfg(test)]
    pub(crate) const ALL: [Kind; 6] = [
        Kind::PushStart,
        Kind::PushEnd,
        Kind::File,
        Kind::Status,
        Kind::Exception,
        Kind::PushException,
    ];

    /// True if its letter's subject is a recording, false if it is a publish.
    pub(crate) const fn is_of_a_recording(self) -> bool {
        matches!(self, Kind::File | Kind::Status | Kind::Exception)
    }

    pub(crate) const fn number(self) -> u32 {
        match self {
            Kind::PushStart => 1,
            Kind::PushEnd => 0,
            Kind::File => 100,
            Kind::Status => 332,
            Kind::Exception => 341,
            Kind::PushException => 321,
        }
    }

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Kind::PushStart => "push_start",
            Kind::PushEnd => "push_end",
            Kind::File => "file",
            Kind::Status => "status",
            Kind::Exception => "exception",
            Kind::PushException => "push_exception",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
