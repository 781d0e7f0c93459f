//! [`When`]: a moment on the command line.

use std::str::FromStr;
use std::time::Duration;

/// A moment as it is given: absolute, or counted from now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// Milliseconds since 1970.
    At(i64),
    /// Milliseconds from now; negative: before.
    FromNow(i64),
}

impl When {
    /// Milliseconds since 1970.
    pub(crate) const fn ms(self, now_ms: i64) -> i64 {
        match self {
            Self::At(ms) => ms,
            Self::FromNow(ms) => now_ms.saturating_add(ms),
        }
    }
}

impl FromStr for When {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || {
            format!(
                "{text:?} is no time: write 2026-11-23T20:00:00Z, seconds since 1970, `now`, or +10m or -20s from now"
            )
        };
        let length = |text: &str| {
            let length: Duration = text.parse::<humantime::Duration>().map_err(|_| bad())?.into();
            i64::try_from(length.as_millis()).map_err(|_| bad())
        };
        match (text, text.strip_prefix('+'), text.strip_prefix('-')) {
            ("now", ..) => Ok(Self::FromNow(0)),
            (_, Some(later), _) => length(later).map(Self::FromNow),
            (_, _, Some(before)) => length(before).map(|ms| Self::FromNow(-ms)),
            _ => match text.parse::<i64>() {
                Ok(seconds) => seconds.checked_mul(1000).map(Self::At).ok_or_else(bad),
                Err(_) => {
                    let at: jiff::Timestamp = text.parse().map_err(|_| bad())?;
                    Ok(Self::At(at.as_millisecond()))
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_as_people_write_them() {
        let ms = |text: &str| text.parse::<When>().map(|when| when.ms(1_000_000));
        assert_eq!(ms("now"), Ok(1_000_000));
        assert_eq!(ms("+1m 30s"), Ok(1_090_000));
        assert_eq!(ms("-20s"), Ok(980_000));
        assert_eq!(ms("2020-08-10T00:00:00.007Z"), Ok(1_597_017_600_007));
        assert_eq!(ms("2020-08-10T08:00:00+08:00"), Ok(1_597_017_600_000));
        assert_eq!(ms("1597017600"), Ok(1_597_017_600_000));
        for bad in ["", "soon", "+", "10m", "2020-08-10", "99999999999999999"] {
            assert!(ms(bad).is_err_and(|said| said.contains("is no time")), "{bad}");
        }
    }
}
