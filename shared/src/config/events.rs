//! Settings of events.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    str::FromStr,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// `[coordinator.events]`: news to customers' receivers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EventsConfig {
    /// What every event names as `appid`.
    pub app_id: i64,
    /// How often an event is tried again after it failed, 0 to 1000.
    pub retries: u32,
    /// Time from a failed attempt to the next, 100 ms to 1 day.
    #[serde(with = "humantime_serde")]
    pub retry_after: Duration,
    /// By how much that time grows with each further failure, 1 (not at all) to 10.
    pub retry_factor: u32,
    /// How long it becomes at most, up to 7 days.
    #[serde(with = "humantime_serde")]
    pub max_retry_after: Duration,
    /// Time for a receiver to answer, its name's resolution and the connection included; 100 ms to 5 min.
    #[serde(with = "humantime_serde")]
    pub reply_timeout: Duration,
    /// Events that are on their way to one receiver at a time, 1 to 1000.
    pub per_receiver: usize,
    /// Things that happened and whose events wait, 1 to 1000000. Of what happens beyond, nothing is told: it is counted.
    pub max_pending: usize,
    /// How long events are kept after they were delivered or given up, 1 min to 366 d.
    #[serde(with = "humantime_serde")]
    pub keep: Duration,
    /// Most that are kept, 1 to 1000000; then the oldest go.
    pub keep_max: usize,
    /// Tell `stream_param` also of what a task recorded.
    pub task_stream_param: bool,
    /// Networks that receivers may lie in although they are loopback, link-local or private, such as `10.1.0.0/16`.
    pub allow: Vec<Network>,
}

impl Default for EventsConfig {
    fn default() -> Self {
        EventsConfig {
            app_id: 0,
            retries: 12,
            retry_after: Duration::from_secs(60),
            retry_factor: 1,
            max_retry_after: Duration::from_secs(3_600),
            reply_timeout: Duration::from_secs(20),
            per_receiver: 8,
            max_pending: 100_000,
            keep: Duration::from_secs(14 * 86_400),
            keep_max: 10_000,
            task_stream_param: false,
            allow: Vec::new(),
        }
    }
}

/// A range of addresses: `ADDRESS/BITS`, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

/// Not a [`Network`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is no network: write it like 10.1.0.0/16 or fd00:1::/32")]
pub struct NetworkError(String);

impl Network {
    /// True if the address lies in it. An IPv4 address within IPv6 counts as what it is.
    #[must_use]
    pub fn holds(&self, address: IpAddr) -> bool {
        let wide = |bits: u8, of: u32| u32::from(bits).min(of);
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(mine), IpAddr::V4(other)) => {
                let shift = 32 - wide(self.bits, 32);
                let part = |address: u32| u64::from(address) >> shift;
                part(mine.to_bits()) == part(other.to_bits())
            }
            (IpAddr::V6(mine), IpAddr::V6(other)) => {
                let shift = 128 - wide(self.bits, 128);
                let part = |address: Ipv6Addr| address.to_bits().checked_shr(shift).unwrap_or(0);
                part(mine) == part(other)
            }
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let wrong = || NetworkError(text.to_owned());
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(most), str::parse).map_err(|_| wrong())?;
        match bits <= most {
            true => Ok(Network { address, bits }),
            false => Err(wrong()),
        }
    }
}

impl TryFrom<String> for Network {
    type Error = NetworkError;

    fn try_from(text: String) -> Result<Self, NetworkError> {
        text.parse()
    }
}

impl From<Network> for String {
    fn from(network: Network) -> String {
        network.to_string()
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_holds_its_addresses_and_no_others() {
        let holds = |network: &str, address: &str| {
            let network: Network = network.parse().unwrap();
            network.holds(address.parse().unwrap())
        };
        for (network, address) in [
            ("10.1.0.0/16", "10.1.255.3"),
            ("127.0.0.1", "127.0.0.1"),
            ("127.0.0.0/8", "::ffff:127.0.0.1"),
            ("0.0.0.0/0", "8.8.8.8"),
            ("fd00:1::/32", "fd00:1:ffff::1"),
            ("::/0", "fe80::1"),
        ] {
            assert!(holds(network, address), "{network} {address}");
        }
        for (network, address) in [
            ("10.1.0.0/16", "10.2.0.0"),
            ("127.0.0.1", "127.0.0.2"),
            ("::/0", "1.2.3.4"),
            ("0.0.0.0/0", "::1"),
            ("fd00:1::/32", "fd00:2::1"),
        ] {
            assert!(!holds(network, address), "{network} {address}");
        }
        for bad in ["", "10.1.0.0/33", "fd00::/129", "host/8", "10.1.0.0/", "10.1.0.0/-1"] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
    }
}
