//! [`Reach`]: one request to a receiver, at an address that was checked. A URL of a customer's must not become a way into the
//! network that this server stands in.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Mutex,
    time::Duration,
};

use reqwest::{Client, StatusCode, header, redirect};
use shared::config::Network;
use thiserror::Error;
use url::{Host, Url};

/// Longest URL, bytes.
const MAX_URL: usize = 2_048;
/// Clients that are kept, one for each host and its addresses; when more are known all are forgotten.
const KNOWN_CLIENTS: usize = 256;
/// Longest reason for a failure that is written down, bytes.
pub(crate) const MAX_PROBLEM: usize = 256;

/// Which addresses receivers may have.
#[derive(Debug, Clone, Default)]
pub(crate) struct Policy {
    pub(crate) allow: Vec<Network>,
}

/// Why a URL is not called.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum Unsafe {
    #[error("it must be http:// or https:// with a host, at most {MAX_URL} bytes")]
    Shape,
    #[error("it must not hold a user or password")]
    Credentials,
    #[error("{0} is {1}, which receivers may not have: coordinator.events.allow names networks in which they may lie")]
    Address(IpAddr, &'static str),
}

/// What kind of address is for this machine or its network only; none: it may be anybody's.
fn inner(address: IpAddr) -> Option<&'static str> {
    let kind = |found: bool, kind: &'static str| found.then_some(kind);
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            kind(v4.is_loopback(), "a loopback address")
                .or(kind(v4.is_link_local(), "a link-local address"))
                .or(kind(v4.is_private(), "a private address"))
                .or(kind(a == 100 && (b & 0xc0) == 64, "a carrier's private address"))
                .or(kind(a == 198 && (b & 0xfe) == 18, "an address for measurements"))
                .or(kind((a, b, c) == (192, 0, 0), "a reserved address"))
                .or(kind(a >= 240, "a reserved address"))
                .or(kind(a == 0, "an address of this network"))
                .or(kind(v4.is_multicast(), "a multicast address"))
        }
        IpAddr::V6(v6) => {
            // Addresses that carry an IPv4 address are as good as that one.
            let segments = v6.segments();
            let carried = match segments {
                [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => {
                    Some(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)))
                }
                [0, 0, 0, 0, 0, 0, high, low] if high != 0 => {
                    Some(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)))
                }
                _ => None,
            };
            kind(v6.is_loopback(), "a loopback address")
                .or(kind(v6.is_unspecified(), "no address"))
                .or(kind(v6.is_unicast_link_local(), "a link-local address"))
                .or(kind(v6.is_unique_local(), "a private address"))
                .or(kind(v6.is_multicast(), "a multicast address"))
                .or(kind(segments[0] & 0xffc0 == 0xfec0, "a site-local address"))
                .or(carried.and_then(|v4| inner(IpAddr::V4(v4))))
        }
    }
}

impl Policy {
    /// Lets an address through, or says what it is.
    pub(crate) fn check(&self, address: IpAddr) -> Result<(), Unsafe> {
        let address = address.to_canonical();
        if self.allow.iter().any(|network| network.holds(address)) {
            return Ok(());
        }
        match inner(address) {
            Some(kind) => Err(Unsafe::Address(address, kind)),
            None => Ok(()),
        }
    }
}

/// A URL that may be called, as far as can be said without resolving its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    url: Url,
}

impl Target {
    pub(crate) fn read(text: &str, policy: &Policy) -> Result<Self, Unsafe> {
        let url = match Url::parse(text) {
            Ok(url) if text.len() <= MAX_URL && matches!(url.scheme(), "http" | "https") => url,
            _ => return Err(Unsafe::Shape),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Unsafe::Credentials);
        }
        match url.host() {
            Some(Host::Ipv4(v4)) => policy.check(v4.into())?,
            Some(Host::Ipv6(v6)) => policy.check(v6.into())?,
            Some(Host::Domain(name)) if !name.is_empty() => {}
            _ => return Err(Unsafe::Shape),
        }
        Ok(Target { url })
    }

    /// Where it leads, in the order of the resolver; all of it must be allowed, so that no answer of a name service chooses.
    async fn addresses(&self, policy: &Policy) -> Result<Vec<SocketAddr>, String> {
        let port = self.url.port_or_known_default().unwrap_or(80);
        let found: Vec<SocketAddr> = match self.url.host() {
            Some(Host::Ipv4(v4)) => vec![(v4, port).into()],
            Some(Host::Ipv6(v6)) => vec![(v6, port).into()],
            Some(Host::Domain(name)) => tokio::net::lookup_host((name, port))
                .await
                .map_err(|error| format!("the name {name} has no address: {error}"))?
                .collect(),
            None => Vec::new(),
        };
        for address in &found {
            policy.check(address.ip()).map_err(|error| error.to_string())?;
        }
        match found.is_empty() {
            true => Err("the name has no address".to_owned()),
            false => Ok(found),
        }
    }
}

/// Calls receivers.
#[derive(Debug, Default)]
pub(crate) struct Reach {
    policy: Policy,
    /// One for each host and its addresses: what was checked is what is connected to.
    clients: Mutex<BTreeMap<(String, Vec<SocketAddr>), Client>>,
}

impl Reach {
    pub(crate) fn new(policy: Policy) -> Self {
        Reach {
            policy,
            clients: Mutex::default(),
        }
    }

    fn client(&self, target: &Target, addresses: Vec<SocketAddr>) -> Result<Client, reqwest::Error> {
        let host = target.url.host_str().unwrap_or_default().to_owned();
        let mut clients = self.clients.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(client) = clients.get(&(host.clone(), addresses.clone())) {
            return Ok(client.clone());
        }
        shared::objects::install_tls();
        // A redirect could lead to an address that was not checked; a proxy would hide which address is reached.
        let client = Client::builder()
            .resolve_to_addrs(&host, &addresses)
            .redirect(redirect::Policy::none())
            .no_proxy()
            // A receiver may close a connection that it kept at the very moment of the next event.
            .pool_max_idle_per_host(0)
            .user_agent(concat!("aircheck/", env!("CARGO_PKG_VERSION")))
            .build()?;
        if clients.len() >= KNOWN_CLIENTS {
            clients.clear();
        }
        clients.insert((host, addresses), client.clone());
        Ok(client)
    }

    /// Posts a body. It has arrived when the receiver answers 200 in time; what it says with it does not matter.
    ///
    /// # Errors
    /// In words, at most [`MAX_PROBLEM`] bytes.
    pub(crate) async fn post(&self, url: &str, id: &str, body: String, limit: Duration) -> Result<(), String> {
        let posted = tokio::time::timeout(limit, self.post_slowly(url, id, body)).await;
        let mut problem = match posted {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(problem)) => problem,
            Err(_) => format!("no answer within {}", humantime(limit)),
        };
        problem.truncate(problem.floor_char_boundary(MAX_PROBLEM));
        Err(problem)
    }

    async fn post_slowly(&self, url: &str, id: &str, body: String) -> Result<(), String> {
        let target = Target::read(url, &self.policy).map_err(|error| error.to_string())?;
        let addresses = target.addresses(&self.policy).await?;
        let bare = |error: reqwest::Error| describe(&error.without_url());
        let client = self.client(&target, addresses).map_err(bare)?;
        let response = client
            .post(target.url)
            .header(header::CONTENT_TYPE, "application/json")
            .header("aircheck-event-id", id)
            .body(body)
            .send()
            .await
            .map_err(bare)?;
        match response.status() {
            StatusCode::OK => Ok(()),
            status if status.is_redirection() => Err(format!(
                "it answers with HTTP status {}: redirects are not followed",
                status.as_u16()
            )),
            status => Err(format!("it answers with HTTP status {}", status.as_u16())),
        }
    }
}

fn humantime(limit: Duration) -> String {
    format!("{} s", limit.as_secs_f64())
}

/// An error with its causes, which say what happened.
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_this_machine_and_its_networks_are_refused() {
        let policy = Policy::default();
        for address in [
            "127.0.0.1",
            "127.255.0.1",
            "0.0.0.0",
            "10.0.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "100.100.100.200",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "fd00:ec2::254",
            "ff02::1",
            "fec0::1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "::127.0.0.1",
        ] {
            let address: IpAddr = address.parse().unwrap();
            assert!(policy.check(address).is_err(), "{address}");
        }
        for address in [
            "8.8.8.8",
            "172.32.0.1",
            "100.128.0.1",
            "2606:4700::1",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
        ] {
            let address: IpAddr = address.parse().unwrap();
            assert!(policy.check(address).is_ok(), "{address}");
        }
        let open = Policy {
            allow: vec!["127.0.0.0/8".parse().unwrap()],
        };
        assert!(open.check("127.0.0.1".parse().unwrap()).is_ok());
        assert!(open.check("10.0.0.1".parse().unwrap()).is_err());
    }

    #[test]
    fn however_an_address_is_written_it_is_the_same() {
        let policy = Policy::default();
        for url in [
            "http://2130706433/",
            "http://0x7f.1/",
            "http://0177.0.0.1/",
            "http://127.1/",
            "http://[::ffff:7f00:1]/",
            "http://[0:0:0:0:0:0:0:1]/",
            "HTTP://10.0.0.1:80/",
        ] {
            assert!(matches!(Target::read(url, &policy), Err(Unsafe::Address(..))), "{url}");
        }
        assert!(Target::read("https://receiver.example:8443/a?b=c", &policy).is_ok());
        assert_eq!(
            Target::read(&format!("http://a/{}", "x".repeat(MAX_URL)), &policy),
            Err(Unsafe::Shape)
        );
    }

    #[tokio::test]
    async fn a_name_that_leads_to_this_machine_is_refused_when_it_is_called() {
        let refused = Reach::default()
            .post("http://localhost:9/", "1", String::new(), Duration::from_secs(20))
            .await
            .unwrap_err();
        assert!(refused.contains("a loopback address"), "{refused}");
    }
}
