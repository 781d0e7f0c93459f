//! Push keys: `txSecret` and `txTime` in the query of a push URL. Pure.
//!
//! `txSecret` is the MD5 of key, stream name and `txTime` as written, in hexadecimal digits; `txTime` is a time in seconds
//! since the Unix epoch, in hexadecimal digits of either case. Neither domain nor application is part of it.

use md5::{Digest as _, Md5};
use shared::time::Timestamp;
use subtle::ConstantTimeEq as _;
use thiserror::Error;

/// Why a push is refused. The numbers are those of that protocol's push-end event, `18` being "refused".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum PushRefused {
    #[error("the push URL has no txTime (18, 500)")]
    NoTime,
    #[error("txTime of the push URL is over (18, 501)")]
    Expired,
    #[error("the push URL has no txSecret (18, 502)")]
    NoSecret,
    #[error("txSecret of the push URL is wrong (18, 503)")]
    WrongSecret,
}

/// The first value of a name in a raw query.
fn value<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(known, value)| *known == name && !value.is_empty())
        .map(|(_, value)| value)
}

/// `txSecret` for a key, a stream name and `txTime` as it will stand in the URL.
pub(crate) fn secret(key: &str, stream: &str, time: &str) -> String {
    let mut hash = Md5::new();
    hash.update(key);
    hash.update(stream);
    hash.update(time);
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Checks the query of a push URL against the keys that are accepted. `grace_s` is added to `txTime`; a push that began
/// at `started` may go on after that.
///
/// # Errors
/// [`PushRefused`].
pub(crate) fn check(
    keys: &[&str],
    stream: &str,
    query: &str,
    grace_s: u32,
    started: Timestamp,
) -> Result<(), PushRefused> {
    let time = value(query, "txTime").ok_or(PushRefused::NoTime)?;
    let until = i64::from_str_radix(time, 16).map_err(|_| PushRefused::NoTime)?;
    let shown = value(query, "txSecret")
        .ok_or(PushRefused::NoSecret)?
        .to_ascii_lowercase();
    // Every key is tried, so that the time taken does not tell which one fits.
    let fits = keys.iter().fold(false, |fits, key| {
        let same: bool = secret(key, stream, time).as_bytes().ct_eq(shown.as_bytes()).into();
        fits | same
    });
    if !fits {
        return Err(PushRefused::WrongSecret);
    }
    // Only who knows the key learns that its time is over.
    if until.saturating_add(i64::from(grace_s)) < started.as_millis().div_euclid(1_000) {
        return Err(PushRefused::Expired);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Key, stream name, `txTime`, `txSecret`: the documented examples, recomputed, and two more.
    const EXAMPLES: [(&str, &str, &str, &str); 5] = [
        (
            "e12c46f2612d5106e2034781ab261ca3",
            "test",
            "5C271099",
            "f85a2ab363fe4deaffef9754d79da6fe",
        ),
        ("somestring", "test", "5c2acacc", "b77e812107e1d8b8f247885a46e1bd34"),
        ("somestring", "test_900", "5c2acacc", "4beae959b16c77da6a65c7edda1dfefe"),
        (
            "madeupPushKey0001",
            "livetest",
            "6553FF10",
            "4407efc787ddbe63255f89341cf1fad5",
        ),
        (
            "madeupPushKey0001",
            "livetest",
            "6553ff10",
            "58559df3e122a1653f0b3abbc0c4155e",
        ),
    ];

    #[test]
    fn the_documented_examples_come_out_and_are_accepted_until_their_time() {
        for (key, stream, time, expected) in EXAMPLES {
            assert_eq!(secret(key, stream, time), expected);
            let query = format!("a=1&txSecret={expected}&txTime={time}&b=2");
            let until = i64::from_str_radix(time, 16).unwrap();
            let at = |s: i64| Timestamp::from_millis(s * 1_000);
            assert_eq!(check(&["other", key], stream, &query, 0, at(until)), Ok(()));
            assert_eq!(
                check(&[key], stream, &query, 0, at(until + 1)),
                Err(PushRefused::Expired)
            );
            assert_eq!(check(&[key], stream, &query, 60, at(until + 60)), Ok(()));
            assert_eq!(
                check(&[key], "another", &query, 0, at(until)),
                Err(PushRefused::WrongSecret)
            );
            assert_eq!(
                check(&["other"], stream, &query, 0, at(until)),
                Err(PushRefused::WrongSecret)
            );
            assert_eq!(check(&[], stream, &query, 0, at(until)), Err(PushRefused::WrongSecret));
            assert_eq!(
                check(
                    &[key],
                    stream,
                    &query
                        .to_uppercase()
                        .replace("TXSECRET", "txSecret")
                        .replace("TXTIME", "txTime"),
                    0,
                    at(until)
                )
                .is_ok(),
                time.chars().all(|c| !c.is_lowercase())
            );
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let now = Timestamp::from_millis(0);
        for (query, refused) in [
            ("", PushRefused::NoTime),
            ("txSecret=00", PushRefused::NoTime),
            ("txTime=zz&txSecret=00", PushRefused::NoTime),
            ("txTime=&txSecret=00", PushRefused::NoTime),
            ("txTime=6553FF10", PushRefused::NoSecret),
            ("txTime=6553FF10&txSecret=00", PushRefused::WrongSecret),
        ] {
            assert_eq!(check(&["k"], "s", query, 0, now), Err(refused), "{query}");
        }
    }

    proptest! {
        #[test]
        fn no_query_panics(query in "\\PC{0,60}", at in any::<i64>()) {
            prop_assert!(check(&["k"], "s", &query, 1, Timestamp::from_millis(at)).is_err());
        }
    }
}
