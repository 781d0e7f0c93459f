//! [`ServerSession`]: the conversation as a server has it.

use alloc::vec::Vec;

use super::{Handler, Limits, SessionError};

/// One connection of a client to us.
#[derive(Debug)]
pub struct ServerSession {
    output: Vec<u8>,
    received: u64,
}

impl ServerSession {
    /// Starts a session. `random` seeds the bytes of the handshake; it protects nothing.
    #[must_use]
    pub fn new(_limits: Limits, _random: [u8; 32]) -> Self {
        Self {
            output: Vec::new(),
            received: 0,
        }
    }

    /// Takes what the connection received, in any split.
    ///
    /// # Errors
    /// Says why the connection must be closed once [`Self::output`] is sent; every later call says so again.
    pub fn feed<H: Handler>(&mut self, input: &[u8], _handler: &mut H) -> Result<(), SessionError> {
        self.received = self.received.wrapping_add(input.len() as u64);
        Ok(())
    }

    /// Bytes to send; the caller takes them away.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// True between an accepted publish and its end.
    #[must_use]
    pub fn publishing(&self) -> bool {
        false
    }

    /// Tells the client that its running publish ends, `code` being a status code such as `NetStream.Publish.Denied`.
    /// The caller then sends [`Self::output`] and closes.
    pub fn refuse(&mut self, _code: &str, _reason: &str) {}

    /// Bytes held of messages of which some chunks are still to come.
    #[must_use]
    pub fn partial_bytes(&self) -> usize {
        0
    }

    /// Bytes fed so far.
    #[must_use]
    pub fn bytes_received(&self) -> u64 {
        self.received
    }

    /// Media messages that came outside a publish and were therefore not handed on.
    #[must_use]
    pub fn stray_messages(&self) -> u64 {
        0
    }
}
