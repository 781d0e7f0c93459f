//! The stream journal.
