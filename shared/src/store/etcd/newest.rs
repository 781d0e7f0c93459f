//! Reading the newest first without reading all.
//!
//! etcd reads a whole range to answer a sorted question about it, whatever its limit. Keys that end in ids of UUID version 7, or
//! in 13 digits of milliseconds, lie in the order of their time; so their end is read in windows of time, each in etcd's own
//! order, from the newest to the oldest: narrower where one holds too much, wider where it holds too little. Pure.

use crate::time::Timestamp;

/// The first window, ms.
const FIRST_MS: u64 = 60_000;
/// By how much a window is widened or narrowed.
const STEP: u64 = 8;
/// From here on a window is widened to everything that is left, ms: 4 years.
const WIDEST_MS: u64 = 4 * 365 * 86_400_000;

/// How keys tell their time behind the prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Clocked {
    /// `019c2f3a-1b2c-7…`: the first twelve hexadecimal digits are milliseconds since the Unix epoch.
    Uuid,
    /// `1700000000000/…`.
    Digits,
}

impl Clocked {
    /// The least key, behind the prefix, of this moment.
    fn key(self, ms: u64) -> String {
        match self {
            Clocked::Uuid => format!("{:08x}-{:04x}-", ms >> 16, ms & 0xffff),
            Clocked::Digits => format!("{ms:013}"),
        }
    }

    /// The moment of what follows the prefix in a key.
    pub(super) fn moment(key: &str) -> Option<(Self, u64)> {
        let digits = |range| {
            key.get(range)
                .filter(|text: &&str| text.bytes().all(|b| b.is_ascii_hexdigit()))
        };
        if let (Some(high), Some("-"), Some(low), Some("-7")) =
            (digits(0..8), key.get(8..9), digits(9..13), key.get(13..15))
        {
            let high = u64::from_str_radix(high, 16).ok()?;
            let low = u64::from_str_radix(low, 16).ok()?;
            return Some((Clocked::Uuid, (high << 16) | low));
        }
        let decimal = key.get(0..13).filter(|text| text.bytes().all(|b| b.is_ascii_digit()))?;
        Some((Clocked::Digits, decimal.parse().ok()?))
    }
}

/// Where to read next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Window {
    /// First key, included.
    pub(super) from: String,
    /// Where it ends, not included.
    pub(super) to: String,
    /// It begins where the whole range does: there is nothing older.
    pub(super) last: bool,
    /// It cannot be narrower.
    pub(super) least: bool,
}

/// The windows of one scan.
#[derive(Debug)]
pub(super) struct Windows {
    clocked: Clocked,
    prefix: String,
    /// Everything from here on is read.
    to: String,
    /// Its moment.
    until_ms: u64,
    width_ms: u64,
}

impl Windows {
    /// Over keys below `prefix`, from before `to` backwards; `newest` is the moment at which the newest are to be expected.
    pub(super) fn new(clocked: Clocked, prefix: &str, to: &str, newest: Timestamp) -> Self {
        Windows {
            clocked,
            prefix: prefix.to_owned(),
            to: to.to_owned(),
            until_ms: u64::try_from(newest.as_millis()).unwrap_or(0),
            width_ms: FIRST_MS,
        }
    }

    /// The window that is to be read now.
    pub(super) fn now(&self) -> Window {
        let begin = self.until_ms.saturating_sub(self.width_ms);
        let last = begin == 0 || self.width_ms >= WIDEST_MS;
        let from = if last {
            self.prefix.clone()
        } else {
            format!("{}{}", self.prefix, self.clocked.key(begin))
        };
        Window {
            // The moment of the end itself is not known to hold anything.
            from: from.min(self.to.clone()),
            to: self.to.clone(),
            last,
            least: self.width_ms <= 1,
        }
    }

    /// It held too much to be read.
    pub(super) fn narrow(&mut self) {
        self.width_ms = (self.width_ms.min(self.until_ms) / STEP).max(1);
    }

    /// It was read; the next one lies before it.
    pub(super) fn pass(&mut self, window: &Window) {
        self.to.clone_from(&window.from);
        self.until_ms = self.until_ms.saturating_sub(self.width_ms);
        self.width_ms = self.width_ms.saturating_mul(STEP);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millis(ms)
    }

    #[test]
    fn keys_tell_their_time() {
        let uuid = "01a205ad-1b7b-722e-82cd-b112f1f82bdf";
        assert_eq!(Clocked::moment(uuid), Some((Clocked::Uuid, 0x01a2_05ad_1b7b)));
        assert!(uuid.starts_with(&Clocked::Uuid.key(0x01a2_05ad_1b7b)));
        assert_eq!(
            Clocked::moment("1700000000000/x"),
            Some((Clocked::Digits, 1_700_000_000_000))
        );
        for other in ["", "a", "01a205ad-1b7b-422e-82cd-b112f1f82bdf", "170000000000", "ü"] {
            assert_eq!(Clocked::moment(other), None, "{other}");
        }
    }

    #[test]
    fn windows_cover_everything_once_from_the_newest_to_the_oldest() {
        let mut windows = Windows::new(Clocked::Digits, "f/", "f0", at(1_700_000_000_000));
        let mut to = "f0".to_owned();
        let mut count = 0;
        loop {
            let window = windows.now();
            assert_eq!(window.to, to, "neighbours");
            assert!(window.from < window.to);
            to.clone_from(&window.from);
            count += 1;
            if window.last {
                break;
            }
            windows.pass(&window);
        }
        assert_eq!(to, "f/");
        assert!(count < 12, "{count} reads of an empty library");
    }

    #[test]
    fn a_window_narrows_to_a_millisecond_and_no_further() {
        let mut windows = Windows::new(Clocked::Uuid, "f/", "f0", at(1_700_000_000_000));
        let mut count = 0;
        while !windows.now().least {
            let before = windows.now().from;
            windows.narrow();
            assert!(windows.now().from > before);
            count += 1;
        }
        assert!(count < 10, "{count}");
        windows.narrow();
        assert!(windows.now().from < windows.now().to);
        let old = Windows::new(Clocked::Uuid, "f/", "f0", at(10)).now();
        assert!(old.last && old.from == "f/");
    }
}
