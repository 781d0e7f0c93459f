//! Waiting for a condition, with a deadline that tells what was waited for.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How often a condition that nothing announces is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(25);

/// Looks until `condition` gives a value.
///
/// # Errors
/// The condition's own error at once; or, after `limit`, what was waited for and what was last seen of it.
pub fn until<T>(limit: Duration, what: &str, mut condition: impl FnMut() -> Result<Seen<T>>) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        match condition()? {
            Seen::Met(value) => return Ok(value),
            Seen::Not(state) if Instant::now() >= deadline => bail!("not within {limit:?}: {what}; last seen: {state}"),
            Seen::Not(_) => std::thread::sleep(LOOK_EVERY),
        }
    }
}

/// What a look at a condition found.
#[derive(Debug)]
pub enum Seen<T> {
    /// It is met.
    Met(T),
    /// Not yet; in words, how it stands.
    Not(String),
}

impl<T> Seen<T> {
    /// Met if there is a value.
    pub fn some(value: Option<T>, otherwise: impl Into<String>) -> Self {
        value.map_or_else(|| Self::Not(otherwise.into()), Self::Met)
    }
}

impl Seen<()> {
    /// Met if true.
    pub fn when(met: bool, otherwise: impl Into<String>) -> Self {
        Self::some(met.then_some(()), otherwise)
    }
}
