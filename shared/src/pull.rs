//! Streams that are fetched from an origin: [`PullSource`], where it is ([`PullUrl`]), and which addresses may be reached
//! for it ([`AddressPolicy`]).

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use url::Url;

use crate::{
    ids::{PullId, StreamKey, WorkerId},
    time::Timestamp,
};

/// Longest legal URL of an origin, bytes.
pub const MAX_URL_BYTES: usize = 2_048;

/// Where an origin offers a stream: `rtmp://`, or `http://` and `https://` for HTTP-FLV.
///
/// It may hold credentials, so that `Display` and `Debug` show neither user nor password nor query; [`PullUrl::expose`] does.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PullUrl(String);

/// How an origin is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullScheme {
    /// RTMP 1.0, as a player.
    Rtmp,
    /// FLV over HTTP, in the clear or over TLS.
    HttpFlv {
        /// `https://`.
        tls: bool,
    },
}

/// Why a URL cannot be pulled from. Never quotes the URL: it may hold credentials.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PullUrlError {
    /// Over [`MAX_URL_BYTES`].
    #[error("url has {0} bytes, at most {MAX_URL_BYTES} are allowed")]
    TooLong(usize),
    /// No URL at all.
    #[error("url cannot be read ({0}): write rtmp://HOST[:PORT]/APP/STREAM or http://HOST[:PORT]/PATH.flv")]
    Shape(String),
    /// Another scheme.
    #[error("url has the scheme {0:?}: rtmp, http (HTTP-FLV) and https can be pulled from")]
    Scheme(String),
    /// No host.
    #[error("url names no host: write rtmp://HOST[:PORT]/APP/STREAM or http://HOST[:PORT]/PATH.flv")]
    Host,
    /// White space or a control character.
    #[error("url contains white space or a control character: percent-encode it")]
    Space,
    /// RTMP without application or stream.
    #[error("an rtmp url names application and stream: rtmp://HOST[:PORT]/APP/STREAM")]
    RtmpPath,
    /// RTMP with user and password before the host.
    #[error(
        "an rtmp url has no user and password before the host: RTMP servers take them in the query, rtmp://HOST/APP/STREAM?user=…&pass=…"
    )]
    RtmpUser,
    /// A literal address that is refused wherever it is reached from.
    #[error("url: {0}")]
    Address(#[from] AddressRefused),
}

/// What a player tells an RTMP server.
#[derive(Clone, PartialEq, Eq)]
pub struct RtmpTarget {
    /// Application: the first part of the path.
    pub app: String,
    /// Stream name: the rest of the path and the query, as written.
    pub stream: String,
    /// URL up to and including the application.
    pub tc_url: String,
}

impl FromStr for PullUrl {
    type Err = PullUrlError;
    fn from_str(text: &str) -> Result<Self, PullUrlError> {
        if text.len() > MAX_URL_BYTES {
            return Err(PullUrlError::TooLong(text.len()));
        }
        if text.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(PullUrlError::Space);
        }
        let url = Url::parse(text).map_err(|error| PullUrlError::Shape(error.to_string()))?;
        if !matches!(url.scheme(), "rtmp" | "http" | "https") {
            return Err(PullUrlError::Scheme(url.scheme().to_owned()));
        }
        if url.host_str().is_none_or(str::is_empty) {
            return Err(PullUrlError::Host);
        }
        let pull = PullUrl(text.to_owned());
        if pull.scheme() == PullScheme::Rtmp {
            if !url.username().is_empty() || url.password().is_some() {
                return Err(PullUrlError::RtmpUser);
            }
            if pull.rtmp_target().is_none() {
                return Err(PullUrlError::RtmpPath);
            }
        }
        if let Ok(address) = pull.host().parse::<IpAddr>() {
            AddressPolicy::OPEN.check(address)?;
        }
        Ok(pull)
    }
}

impl PullUrl {
    /// The whole URL with whatever credentials it holds: for the wire and the store, never for a log.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    fn parsed(&self) -> Option<Url> {
        Url::parse(&self.0).ok()
    }

    /// How to speak to it.
    #[must_use]
    pub fn scheme(&self) -> PullScheme {
        match self
            .0
            .split_once(':')
            .map(|(scheme, _)| scheme.to_ascii_lowercase())
            .as_deref()
        {
            Some("https") => PullScheme::HttpFlv { tls: true },
            Some("http") => PullScheme::HttpFlv { tls: false },
            _ => PullScheme::Rtmp,
        }
    }

    /// Host name, or address without brackets.
    #[must_use]
    pub fn host(&self) -> String {
        let host = self
            .parsed()
            .and_then(|url| url.host_str().map(str::to_owned))
            .unwrap_or_default();
        host.trim_start_matches('[').trim_end_matches(']').to_owned()
    }

    /// Port: 1935, 80 or 443 where none is written.
    #[must_use]
    pub fn port(&self) -> u16 {
        let written = self.parsed().and_then(|url| url.port());
        written.unwrap_or(match self.scheme() {
            PullScheme::Rtmp => 1935,
            PullScheme::HttpFlv { tls: false } => 80,
            PullScheme::HttpFlv { tls: true } => 443,
        })
    }

    /// What to ask an RTMP server for; none where the URL is not RTMP or lacks application or stream.
    #[must_use]
    pub fn rtmp_target(&self) -> Option<RtmpTarget> {
        // By hand, because names go out as written and a URL library would escape them.
        let (scheme, rest) = self.0.split_once("://")?;
        let (authority, path) = rest.split_once('/')?;
        let (app, stream) = path.split_once('/')?;
        let named = !app.is_empty() && !app.contains('?') && !stream.is_empty() && !stream.starts_with('?');
        (named && scheme.eq_ignore_ascii_case("rtmp")).then(|| RtmpTarget {
            app: app.to_owned(),
            stream: stream.to_owned(),
            tc_url: format!("rtmp://{authority}/{app}"),
        })
    }
}

impl fmt::Display for PullUrl {
    /// Without user, password and query: `http://***@host/path?***`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, rest) = self.0.split_once("://").unwrap_or(("", &self.0));
        let (rest, query) = rest
            .split_once(['?', '#'])
            .map_or((rest, ""), |(rest, _)| (rest, "?***"));
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let authority = authority
            .rsplit_once('@')
            .map_or_else(|| authority.to_owned(), |(_, host)| format!("***@{host}"));
        write!(f, "{scheme}://{authority}{path}{query}")
    }
}

impl fmt::Debug for PullUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PullUrl({self})")
    }
}

impl fmt::Debug for RtmpTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RtmpTarget({}/…)", self.tc_url)
    }
}

impl TryFrom<String> for PullUrl {
    type Error = PullUrlError;
    fn try_from(text: String) -> Result<Self, PullUrlError> {
        text.parse()
    }
}

impl From<PullUrl> for String {
    fn from(url: PullUrl) -> String {
        url.0
    }
}

/// The URL of a stream at an origin that was configured as `template`, with `{app}`, `{stream}` and `{path}` in it. Names
/// go into RTMP URLs as they are, into others percent-encoded.
///
/// # Errors
/// The result is no URL, which is the template's fault or that of names no URL can hold.
pub fn from_template(template: &str, app: &str, stream: &str) -> Result<PullUrl, PullUrlError> {
    let raw = template.starts_with("rtmp:");
    let write = |name: &str| {
        if raw {
            return name.to_owned();
        }
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
        name.bytes()
            .map(|byte| {
                if plain(byte) {
                    char::from(byte).to_string()
                } else {
                    format!("%{byte:02X}")
                }
            })
            .collect()
    };
    let (app, stream) = (write(app), write(stream));
    template
        .replace("{path}", &format!("{app}/{stream}"))
        .replace("{app}", &app)
        .replace("{stream}", &stream)
        .parse()
}

/// Which addresses a worker connects to for somebody else's URL. What a cloud answers its machines with (metadata, and
/// with it credentials) lies at link-local addresses, and what a machine offers to itself at loopback.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AddressPolicy {
    /// 127.0.0.0/8 and `::1` may be reached.
    pub loopback: bool,
    /// 169.254.0.0/16, `fe80::/10` and the metadata addresses of clouds may be reached.
    pub link_local: bool,
}

/// An address that may not be reached.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{address} is {kind}, which may not be pulled from{advice}")]
pub struct AddressRefused {
    /// Which.
    pub address: IpAddr,
    kind: &'static str,
    advice: &'static str,
}

impl AddressPolicy {
    /// Refuses only what no setting can allow.
    pub const OPEN: Self = Self {
        loopback: true,
        link_local: true,
    };

    /// Lets an address through, or says why not and which setting would.
    ///
    /// # Errors
    /// [`AddressRefused`].
    pub fn check(&self, address: IpAddr) -> Result<(), AddressRefused> {
        let refused = |kind, advice| Err(AddressRefused { address, kind, advice });
        let address = address.to_canonical();
        if address.is_unspecified() || address.is_multicast() || address == IpAddr::V4(Ipv4Addr::BROADCAST) {
            return refused("no address of one machine", "");
        }
        if address.is_loopback() && !self.loopback {
            return refused(
                "a loopback address",
                ": set worker.pull.allow_loopback = true on the workers if an origin runs beside them",
            );
        }
        if is_link_local(address) && !self.link_local {
            return refused(
                "a link-local or metadata address",
                ": set worker.pull.allow_link_local = true on the workers if an origin really is there",
            );
        }
        Ok(())
    }
}

fn is_link_local(address: IpAddr) -> bool {
    /// Alibaba Cloud's metadata service, and that of AWS over IPv6.
    const METADATA: [IpAddr; 2] = [
        IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
        IpAddr::V6(Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x254)),
    ];
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    link_local || METADATA.contains(&address)
}

/// Who made a pull source, and so who may remove it unasked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MadeBy {
    /// A person or program over the API.
    Operator,
    /// An origin's webhook: it goes when the origin says that the stream ended.
    Hook {
        /// The origin's name for the publisher, so that late news of an earlier one ends nothing; empty if it gives none.
        client: String,
    },
}

/// A stream that is fetched from an origin by whichever worker the coordinator places it on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullSource {
    /// Identity.
    pub id: PullId,
    /// What it is recorded as; one source for each stream.
    pub stream: StreamKey,
    /// Where it is fetched from.
    pub url: PullUrl,
    /// Kept, but not fetched.
    pub paused: bool,
    /// Not fetched before this moment.
    pub from: Option<Timestamp>,
    /// Not fetched from this moment on.
    pub until: Option<Timestamp>,
    /// Who made it.
    pub made_by: MadeBy,
    /// When it was made.
    pub created: Timestamp,
    /// When its settings changed last.
    pub updated: Timestamp,
    /// The worker that fetches it.
    pub worker: Option<WorkerId>,
    /// How often it was asked to be fetched anew.
    #[serde(default)]
    pub restarts: u32,
}

/// Whether a source is to be fetched at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullPhase {
    /// It is.
    Active,
    /// It is paused.
    Paused,
    /// Its window has not begun.
    Scheduled,
    /// Its window is over.
    Ended,
}

impl PullSource {
    /// Where it stands at `now`.
    #[must_use]
    pub fn phase(&self, now: Timestamp) -> PullPhase {
        if self.until.is_some_and(|until| now >= until) {
            PullPhase::Ended
        } else if self.paused {
            PullPhase::Paused
        } else if self.from.is_some_and(|from| now < from) {
            PullPhase::Scheduled
        } else {
            PullPhase::Active
        }
    }
}

/// What a worker is told of a source: all it needs to fetch it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pull {
    /// Identity.
    pub id: PullId,
    /// What it is published as.
    pub stream: StreamKey,
    /// Where it is fetched from.
    pub url: PullUrl,
    /// How often it was asked to be fetched anew.
    pub restarts: u32,
}

/// Names a set of pulls, given in the order of their ids: the same set has the same revision under every coordinator, so
/// that a new leader need not know what an older one said. 0: the empty set.
#[must_use]
pub fn revision(pulls: &[Pull]) -> u64 {
    if pulls.is_empty() {
        return 0;
    }
    let text: String = pulls
        .iter()
        .map(|pull| {
            let restarts = (pull.restarts > 0).then(|| format!("{}\n", pull.restarts));
            let (url, restarts) = (pull.url.expose(), restarts.unwrap_or_default());
            format!("{}\n{}\n{url}\n{restarts}", pull.id, pull.stream)
        })
        .collect();
    let (high, _) = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, text.as_bytes()).as_u64_pair();
    high.max(1)
}

/// How a worker fares with a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullState {
    /// On its way to the origin, or waiting to try again.
    Connecting,
    /// Connected; the origin has sent no media yet.
    Waiting,
    /// Media is journaled.
    Live,
}

/// What a worker says of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PullStatus {
    /// How it fares.
    pub state: PullState,
    /// Why the last try ended; empty if none did.
    pub error: String,
    /// Tries that ended in a row without media.
    pub failures: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> PullUrl {
        text.parse().unwrap()
    }

    #[test]
    fn urls_are_taken_apart_as_each_protocol_wants_them() {
        let rtmp = url("rtmp://origin.example.com/live/show/one?token=a b"
            .replace(' ', "")
            .as_str());
        assert_eq!((rtmp.host().as_str(), rtmp.port()), ("origin.example.com", 1935));
        let target = rtmp.rtmp_target().unwrap();
        assert_eq!(
            (target.app.as_str(), target.stream.as_str()),
            ("live", "show/one?token=ab")
        );
        assert_eq!(target.tc_url, "rtmp://origin.example.com/live");
        let http = url("https://[2001:db8::1]:8443/live/show.flv");
        assert_eq!((http.host().as_str(), http.port()), ("2001:db8::1", 8443));
        assert_eq!(http.scheme(), PullScheme::HttpFlv { tls: true });
        assert_eq!(http.rtmp_target(), None);
        assert_eq!(url("http://o/x.flv").port(), 80);
    }

    #[test]
    fn credentials_are_never_shown() {
        for (text, shown) in [
            ("http://user:secret@o/x.flv?key=secret", "http://***@o/x.flv?***"),
            ("rtmp://o:1936/live/show?pass=secret", "rtmp://o:1936/live/show?***"),
            ("rtmp://o/live/show", "rtmp://o/live/show"),
            ("https://u:p%40q@o", "https://***@o"),
        ] {
            let url = url(text);
            assert_eq!(url.to_string(), shown);
            assert!(!format!("{url:?} {:?}", url.rtmp_target()).contains("secret"));
            assert_eq!(url.expose(), text);
        }
    }

    #[test]
    fn what_cannot_be_pulled_is_refused_with_what_would_do() {
        for (text, says) in [
            ("", "cannot be read"),
            ("origin/live/show", "cannot be read"),
            ("file:///etc/passwd", "scheme \"file\""),
            ("gopher://x/1", "scheme \"gopher\""),
            ("rtmps://o/live/show", "scheme \"rtmps\""),
            ("rtmp://o/live", "rtmp://HOST[:PORT]/APP/STREAM"),
            ("rtmp://o/live/?x=1", "APP/STREAM"),
            ("rtmp:///live/show", "no host"),
            ("rtmp://u:p@o/live/show", "in the query"),
            ("http://o/a b", "white space"),
            ("http://0.0.0.0/x", "no address of one machine"),
            ("http://239.1.1.1/x", "no address of one machine"),
        ] {
            let error = text.parse::<PullUrl>().unwrap_err().to_string();
            assert!(error.contains(says), "{text}: {error}");
        }
        let long = format!("http://o/{}", "x".repeat(MAX_URL_BYTES));
        assert!(
            long.parse::<PullUrl>()
                .unwrap_err()
                .to_string()
                .contains("at most 2048")
        );
        let secret = "ftp://user:secret@o/x".parse::<PullUrl>().unwrap_err().to_string();
        assert!(!secret.contains("secret"), "{secret}");
    }

    #[test]
    fn addresses_that_lead_inwards_need_a_setting() {
        let closed = AddressPolicy::default();
        for inner in [
            "127.0.0.1",
            "127.9.9.9",
            "::1",
            "::ffff:127.0.0.1",
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "fe80::1",
            "100.100.100.200",
            "fd00:ec2::254",
            "0.0.0.0",
            "::",
        ] {
            let refused = closed.check(inner.parse().unwrap()).unwrap_err().to_string();
            assert!(refused.contains("may not be pulled from"), "{inner}: {refused}");
        }
        for outer in ["10.0.0.7", "192.168.1.9", "203.0.113.4", "2001:db8::9", "fd12::3"] {
            assert_eq!(closed.check(outer.parse().unwrap()), Ok(()), "{outer}");
        }
        let loopback = AddressPolicy {
            loopback: true,
            ..closed
        };
        assert_eq!(loopback.check("127.0.0.1".parse().unwrap()), Ok(()));
        assert!(loopback.check("169.254.169.254".parse().unwrap()).is_err());
        assert!(AddressPolicy::OPEN.check("169.254.169.254".parse().unwrap()).is_ok());
        let advice = closed.check("::1".parse().unwrap()).unwrap_err().to_string();
        assert!(advice.contains("worker.pull.allow_loopback"), "{advice}");
    }

    #[test]
    fn a_template_takes_names_in() {
        let rtmp = from_template("rtmp://o:1936/{app}/{stream}?k=1", "live", "show").unwrap();
        assert_eq!(rtmp.expose(), "rtmp://o:1936/live/show?k=1");
        let http = from_template("http://o/{path}.flv", "live", "a show/2?").unwrap();
        assert_eq!(http.expose(), "http://o/live/a%20show/2%3F.flv");
        assert!(from_template("rtmp://o/{path}", "live", "a show").is_err());
        assert!(from_template("rtmp://o/{stream}", "live", "show").is_err());
    }

    #[test]
    fn a_window_says_when() {
        let source = |paused, from: Option<i64>, until: Option<i64>| PullSource {
            id: PullId::from_uuid(uuid::Uuid::nil()),
            stream: StreamKey::new("d", "a", "s").unwrap(),
            url: url("rtmp://o/a/s"),
            paused,
            from: from.map(Timestamp::from_millis),
            until: until.map(Timestamp::from_millis),
            made_by: MadeBy::Operator,
            created: Timestamp::default(),
            updated: Timestamp::default(),
            worker: None,
            restarts: 0,
        };
        let at = Timestamp::from_millis;
        assert_eq!(source(false, None, None).phase(at(5)), PullPhase::Active);
        assert_eq!(source(true, None, None).phase(at(5)), PullPhase::Paused);
        let window = source(false, Some(5), Some(9));
        let phases: Vec<_> = [4, 5, 8, 9].map(|ms| window.phase(at(ms))).into();
        use PullPhase::{Active, Ended, Scheduled};
        assert_eq!(phases, [Scheduled, Active, Active, Ended]);
    }
}
