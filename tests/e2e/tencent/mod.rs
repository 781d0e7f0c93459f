//! The HTTP API, spoken to by Tencent's own SDKs and by hand.

mod actions;
mod by_hand;
mod compose;
mod events;
mod log;
mod media;
mod pulls;
mod pushes;
mod tasks;

use anyhow::Result;
use support::server::Server;
use support::tencent::{Client, Key, Sdk};
use tempfile::TempDir;

use crate::{data, setup};

const DOMAIN: &str = "push.example.com";

/// A server that records nothing by itself, a key that may do everything, and the usual client.
fn world() -> Result<(TempDir, Server, Key, Sdk)> {
    let (folder, data) = data()?;
    let server = setup(&data).start()?;
    let key = Key::create(&server, &[])?;
    let sdk = Sdk::start(Client::Python(&[]), server.http(), &key)?;
    Ok((folder, server, key, sdk))
}

/// Seconds since the Unix epoch.
#[expect(clippy::disallowed_methods, reason = "tasks and links have times of day")]
pub(super) fn now() -> Result<u64> {
    Ok(std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)?
        .as_secs())
}

/// Pushes a moment of media and waits for its file.
pub(super) fn one_push(server: &Server, stream: &str) -> Result<()> {
    media::record(server, "live", stream, 1).map(drop)
}
