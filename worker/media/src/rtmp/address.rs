//! Which domain, application and stream a publish means.
//!
//! Encoders put a query behind the application, the stream name or both. Nothing is percent-decoded: names are
//! compared as encoders send them, and an escaped `/` must not become a path.

use alloc::{
    borrow::ToOwned,
    string::{String, ToString},
};

use super::PublishRequest;
use crate::amf::Value;

/// `CapsExMask.Reconnect` of `capsEx`: who says it comes back by itself when asked to. Enhanced RTMP v2, "Enhancing NetConnection".
pub(super) const CAPS_RECONNECT: u8 = 0x01;

/// What `connect` said.
#[derive(Debug, Default)]
pub(super) struct Connect {
    app: String,
    tc_url: String,
    flash_ver: String,
    /// The client understands a request to connect again.
    pub(super) reconnects: bool,
}

impl Connect {
    /// Reads the command object.
    pub(super) fn new(object: Option<&Value>) -> Self {
        let text = |name| {
            object
                .and_then(|it| it.get(name))
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        Self {
            app: text("app"),
            tc_url: text("tcUrl"),
            flash_ver: text("flashVer"),
            reconnects: object
                .and_then(|it| it.get("capsEx"))
                .and_then(Value::as_number)
                // The lowest bit.
                .is_some_and(|caps| caps % 2.0 >= 1.0),
        }
    }

    /// Bytes of memory held.
    pub(super) fn memory_bytes(&self) -> usize {
        [&self.app, &self.tc_url, &self.flash_ver]
            .into_iter()
            .fold(0, |sum, text| sum.saturating_add(text.capacity()))
    }

    /// The request that `publish` with this name and type makes.
    pub(super) fn publish_request(&self, name: &str, publish_type: Option<&str>) -> PublishRequest {
        let (app, app_query) = split_query(&self.app);
        let (stream, stream_query) = split_query(name);
        let mut params = app_query.to_string();
        if !params.is_empty() && !stream_query.is_empty() {
            params.push('&');
        }
        params.push_str(stream_query);
        let domain = parameter(stream_query, "domain")
            .or_else(|| parameter(app_query, "domain"))
            .or_else(|| host(&self.tc_url))
            .map(str::to_ascii_lowercase);
        PublishRequest {
            app: app.trim_matches('/').to_owned(),
            stream: stream.to_owned(),
            tc_url: self.tc_url.clone(),
            params,
            domain,
            flash_ver: self.flash_ver.clone(),
            publish_type: publish_type.unwrap_or("live").to_owned(),
        }
    }
}

/// What stands before and behind the first `?`.
pub(super) fn split_query(text: &str) -> (&str, &str) {
    text.split_once('?').unwrap_or((text, ""))
}

/// The first non-empty value of that name in a query.
fn parameter<'q>(query: &'q str, name: &str) -> Option<&'q str> {
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find_map(|(key, value)| (key == name && !value.is_empty()).then_some(value))
}

/// The host of a URL without user, port and the brackets of an IPv6 address.
fn host(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let host_and_port = authority.rsplit_once('@').map_or(authority, |(_, behind)| behind);
    let host = match host_and_port.strip_prefix('[') {
        Some(bracketed) => bracketed.split(']').next()?,
        None => host_and_port.split(':').next()?,
    };
    (!host.is_empty()).then_some(host)
}

#[cfg(test)]
#[path = "address_tests.rs"]
mod tests;
