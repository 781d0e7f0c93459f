//! [`Targets::wanted`]: how many workers the fleet should have for what it carries. Pure, and without memory: any
//! coordinator gives the same answer, and how slowly a fleet shrinks is the autoscaler's business.

use std::collections::BTreeMap;

use thiserror::Error;

/// What the fleet carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Load {
    /// Live streams, and interrupted ones: they are expected back.
    pub streams: u64,
    /// Media bits a second of all of them.
    pub bits_per_second: u64,
}

/// What one worker is for, and how much is kept free for streams that start all at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Targets {
    /// Streams of a worker, 1 to 100,000.
    pub streams_per_worker: u64,
    /// Media bits a second of a worker, 1,000,000 to 1,000,000,000,000.
    pub bits_per_worker: u64,
    /// Streams that there is always room for, beside those that are live; at most 1,000,000.
    pub reserve_streams: u64,
    /// The same as a share of those that are live, percent, at most 1,000. The larger of the two counts.
    pub reserve_percent: u64,
}

impl Default for Targets {
    /// A worker as the Helm chart requests it: 200 streams of 2.5 Mbit/s.
    fn default() -> Self {
        Targets {
            streams_per_worker: 200,
            bits_per_worker: 500_000_000,
            reserve_streams: 50,
            reserve_percent: 10,
        }
    }
}

/// A trigger that says something wrong.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TargetError {
    /// Nothing of this name can be set.
    #[error(
        "{0:?} is not a setting of this scaler: use streamsPerWorker, bitsPerWorker, reserveStreams, reservePercent"
    )]
    Unknown(String),
    /// Not a number, or out of range.
    #[error("{name} is {value:?}, it must be a whole number of {min} to {max}")]
    Range {
        /// The setting.
        name: &'static str,
        /// What it was set to.
        value: String,
        /// Least.
        min: u64,
        /// Most.
        max: u64,
    },
}

/// What a trigger says to KEDA itself, and what stands beside our own settings therefore.
const OF_KEDA: [&str; 8] = [
    "scalerAddress",
    "enableTLS",
    "unsafeSsl",
    "caCert",
    "tlsCertFile",
    "tlsClientCert",
    "tlsClientKey",
    "activationTargetSize",
];

fn number(name: &'static str, value: &str, min: u64, max: u64) -> Result<u64, TargetError> {
    let read = value.trim().parse().ok().filter(|number| (min..=max).contains(number));
    read.ok_or_else(|| TargetError::Range {
        name,
        value: value.to_owned(),
        min,
        max,
    })
}

impl Targets {
    /// Reads the metadata of a trigger. What is absent has its default.
    ///
    /// # Errors
    /// The first setting, by name, that is unknown or out of range.
    pub fn read(metadata: &BTreeMap<String, String>) -> Result<Targets, TargetError> {
        let mut targets = Targets::default();
        for (name, value) in metadata {
            match name.as_str() {
                "streamsPerWorker" => targets.streams_per_worker = number("streamsPerWorker", value, 1, 100_000)?,
                "bitsPerWorker" => {
                    targets.bits_per_worker = number("bitsPerWorker", value, 1_000_000, 1_000_000_000_000)?;
                }
                "reserveStreams" => targets.reserve_streams = number("reserveStreams", value, 0, 1_000_000)?,
                "reservePercent" => targets.reserve_percent = number("reservePercent", value, 0, 1_000)?,
                name if OF_KEDA.contains(&name) => {}
                _ => return Err(TargetError::Unknown(name.clone())),
            }
        }
        Ok(targets)
    }

    /// Workers that carry `load` and have the reserve free; at least 1.
    ///
    /// Streams of the reserve are taken to be as heavy as those that are live.
    #[must_use]
    pub fn wanted(&self, load: Load) -> u64 {
        let reserve = (u128::from(load.streams) * u128::from(self.reserve_percent))
            .div_ceil(100)
            .max(u128::from(self.reserve_streams));
        let streams = u128::from(load.streams) + reserve;
        let by_streams = streams.div_ceil(u128::from(self.streams_per_worker.max(1)));
        let bits = match load.streams {
            0 => 0,
            live => u128::from(load.bits_per_second)
                .saturating_mul(streams)
                .div_ceil(u128::from(live)),
        };
        let by_bits = bits.div_ceil(u128::from(self.bits_per_worker.max(1)));
        u64::try_from(by_streams.max(by_bits).max(1)).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGETS: Targets = Targets {
        streams_per_worker: 200,
        bits_per_worker: 500_000_000,
        reserve_streams: 50,
        reserve_percent: 10,
    };

    fn wanted(streams: u64, mbits: u64) -> u64 {
        TARGETS.wanted(Load {
            streams,
            bits_per_second: mbits * 1_000_000,
        })
    }

    #[test]
    fn the_reserve_is_whichever_is_larger() {
        assert_eq!(wanted(0, 0), 1);
        assert_eq!(wanted(150, 0), 1);
        assert_eq!(wanted(151, 0), 2, "room for 50 more");
        assert_eq!(wanted(2_000, 0), 11, "room for 200 more");
    }

    #[test]
    fn heavy_streams_need_more_workers_than_many() {
        assert_eq!(wanted(100, 250), 1);
        // 10 streams of 100 Mbit/s, and as heavy ones in reserve: 60 × 100 Mbit/s.
        assert_eq!(wanted(10, 1_000), 12);
    }

    #[test]
    fn more_load_never_wants_fewer_workers() {
        let mut last = 0;
        for streams in 0..3_000 {
            let now = wanted(streams, streams * 3);
            assert!(now >= last, "{streams}");
            last = now;
        }
    }

    #[test]
    fn no_load_is_too_much_to_be_counted() {
        let all = Load {
            streams: u64::MAX,
            bits_per_second: u64::MAX,
        };
        let none = Targets {
            streams_per_worker: 1,
            bits_per_worker: 1_000_000,
            reserve_streams: 1_000_000,
            reserve_percent: 1_000,
        };
        assert_eq!(none.wanted(all), u64::MAX);
    }

    fn read(pairs: &[(&str, &str)]) -> Result<Targets, TargetError> {
        Targets::read(&pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn a_trigger_is_read_and_what_is_wrong_in_it_named() {
        assert_eq!(read(&[("scalerAddress", "c:7070")]), Ok(Targets::default()));
        let targets = read(&[("streamsPerWorker", "400"), ("reserveStreams", "1000")]).unwrap();
        assert_eq!((targets.streams_per_worker, targets.reserve_streams), (400, 1_000));
        for (name, value, said) in [
            ("streamsPerWorker", "0", "1 to 100000"),
            ("bitsPerWorker", "500M", "500M"),
            ("reservePercent", "-1", "reservePercent"),
            ("streamPerWorker", "200", "use streamsPerWorker"),
        ] {
            let error = read(&[(name, value)]).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
