//! [`Replays`]: nonces that were used. Pure and bounded.
//!
//! A nonce is remembered as long as its request's time would be accepted. Only requests whose signature is right get
//! here, so strangers cannot fill it. TC3 requests have no nonce: two equal ones within a second are the same bytes.

use std::collections::BTreeSet;

use ring::digest;
use shared::time::Timestamp;

use super::{error::ApiError, signature::MAX_SKEW_S};

/// Most nonces: 200 requests a second for the whole time in which they count.
const MOST: usize = 120_000;

/// Nonces by the time of their requests.
#[derive(Debug, Default)]
pub(crate) struct Replays {
    seen: BTreeSet<(i64, [u8; 16])>,
}

impl Replays {
    /// Notes a nonce.
    ///
    /// # Errors
    /// `AuthFailure.SignatureFailure` if it was used before, `RequestLimitExceeded` if there is no room.
    pub(crate) fn note(
        &mut self,
        secret_id: &str,
        timestamp: i64,
        nonce: &str,
        now: Timestamp,
    ) -> Result<(), ApiError> {
        let oldest = now.as_millis().div_euclid(1_000).saturating_sub(MAX_SKEW_S);
        while self.seen.first().is_some_and(|(at, _)| *at < oldest) {
            self.seen.pop_first();
        }
        let hash = digest::digest(&digest::SHA256, format!("{secret_id}\n{nonce}").as_bytes());
        let mut short = [0; 16];
        short.iter_mut().zip(hash.as_ref()).for_each(|(to, from)| *to = *from);
        if self.seen.contains(&(timestamp, short)) {
            return Err(ApiError::new(
                "AuthFailure.SignatureFailure",
                format!("the nonce {nonce} was used before at this time: sign each request anew"),
            ));
        }
        if self.seen.len() >= MOST {
            return Err(ApiError::new(
                "RequestLimitExceeded",
                "too many requests with nonces within ten minutes: try again later, or sign with TC3-HMAC-SHA256",
            ));
        }
        self.seen.insert((timestamp, short));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_counts_once_as_long_as_its_time_is_accepted() {
        let mut replays = Replays::default();
        let at = |s: i64| Timestamp::from_millis(s * 1_000);
        replays.note("a", 100, "7", at(100)).unwrap();
        assert_eq!(
            replays.note("a", 100, "7", at(400)).unwrap_err().code(),
            "AuthFailure.SignatureFailure"
        );
        replays.note("b", 100, "7", at(100)).unwrap();
        replays.note("a", 101, "7", at(100)).unwrap();
        replays.note("a", 700, "8", at(700)).unwrap();
        assert_eq!(replays.seen.len(), 1, "what no longer counts is forgotten");
    }

    #[test]
    fn a_full_memory_refuses_rather_than_forgets() {
        let mut replays = Replays::default();
        let now = Timestamp::from_millis(0);
        for nonce in 0..MOST {
            replays.note("a", 0, &nonce.to_string(), now).unwrap();
        }
        assert_eq!(
            replays.note("a", 0, "x", now).unwrap_err().code(),
            "RequestLimitExceeded"
        );
        assert_eq!(
            replays.note("a", 0, "0", now).unwrap_err().code(),
            "AuthFailure.SignatureFailure"
        );
        replays.note("a", 301, "x", Timestamp::from_millis(301_000)).unwrap();
    }
}
