//! Which settings may stand together. Each refusal names the settings and says what would do.

use std::{net::SocketAddr, time::Duration};

use rustls::pki_types::ServerName;

use super::{Config, ConfigError, CopyConfig, CopyMode, ObjectsConfig, OtlpProtocol};
use crate::objects::ObjectsUrl;
use crate::store::MetadataUrl;

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Both roles on one machine.
    Standalone,
    /// Plans and serves the APIs.
    Coordinator,
    /// Takes and records streams.
    Worker,
}

impl Role {
    fn coordinates(self) -> bool {
        self != Role::Worker
    }

    fn works(self) -> bool {
        self != Role::Coordinator
    }
}

pub(super) fn invalid<T>(text: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError::Invalid(text.into()))
}

fn within(name: &str, value: Duration, min: Duration, max: Duration) -> Result<(), ConfigError> {
    if (min..=max).contains(&value) {
        Ok(())
    } else {
        invalid(format!("{name} is {value:?}, it must be {min:?} to {max:?}"))
    }
}

fn count_within(name: &str, value: u64, min: u64, max: u64) -> Result<(), ConfigError> {
    if (min..=max).contains(&value) {
        Ok(())
    } else {
        invalid(format!("{name} is {value}, it must be {min} to {max}"))
    }
}

/// What must hold of a place of objects, whichever it is.
pub(super) fn validate_place(section: &str, place: &ObjectsConfig) -> Result<(), ConfigError> {
    if let Some(url) = &place.endpoint
        && !(url.starts_with("https://") || url.starts_with("http://"))
    {
        return invalid(format!("{section}.endpoint {url:?}: write https://HOST[:PORT]"));
    }
    if let Some(sse) = &place.sse
        && !["AES256", "aws:kms", "aws:kms:dsse"].contains(&sse.as_str())
    {
        return invalid(format!(
            "{section}.sse {sse:?}: use AES256, aws:kms or aws:kms:dsse, or leave it out"
        ));
    }
    if place.sse_key.is_some() && !place.sse.as_ref().is_some_and(|sse| sse.starts_with("aws:kms")) {
        return invalid(format!(
            "{section}.sse_key names a key for {section}.sse = \"aws:kms\", which is not set"
        ));
    }
    Ok(())
}

impl Config {
    /// Checks ranges, what must go together, and what this role needs.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] for the first rule that is broken.
    pub fn validate(&self, role: Role) -> Result<(), ConfigError> {
        count_within("node.runtime_threads", self.node.runtime_threads as u64, 1, 64)?;
        if role.coordinates() {
            self.validate_coordinator(role)?;
        }
        if role.works() {
            self.validate_worker()?;
        }
        self.validate_objects()?;
        self.validate_telemetry()?;
        self.validate_credentials()?;
        self.validate_doors(role)
    }

    fn validate_telemetry(&self) -> Result<(), ConfigError> {
        let t = &self.telemetry;
        if !(0.0..=1.0).contains(&t.trace_share) {
            return invalid(format!(
                "telemetry.trace_share is {}: it must be within 0 and 1",
                t.trace_share
            ));
        }
        let sends = !t.otlp_metrics_interval.is_zero();
        if sends {
            within(
                "telemetry.otlp_metrics_interval",
                t.otlp_metrics_interval,
                Duration::from_secs(1),
                Duration::from_secs(600),
            )?;
        }
        let Some(address) = &t.otlp else {
            if sends {
                return invalid("telemetry.otlp_metrics_interval needs telemetry.otlp: where metrics are to go");
            }
            return Ok(());
        };
        let secure = address.starts_with("https://");
        if !secure && !address.starts_with("http://") {
            return invalid(format!(
                "telemetry.otlp {address:?}: write http://HOST:PORT or https://HOST:PORT"
            ));
        }
        if secure && t.otlp_protocol == OtlpProtocol::Grpc && t.otlp_ca_file.is_none() {
            return invalid(
                "telemetry.otlp is an https:// address, which over gRPC needs telemetry.otlp_ca_file: the authority that signed the receiver's certificate",
            );
        }
        Ok(())
    }

    fn validate_coordinator(&self, role: Role) -> Result<(), ConfigError> {
        let c = &self.coordinator;
        count_within("coordinator.max_templates", c.max_templates as u64, 1, 10_000)?;
        count_within("coordinator.max_rules", c.max_rules as u64, 1, 10_000)?;
        count_within("coordinator.max_pulls", c.max_pulls as u64, 1, 100_000)?;
        self.validate_hooks()?;
        within(
            "coordinator.heartbeat",
            c.heartbeat,
            Duration::from_millis(100),
            Duration::from_secs(60),
        )?;
        within(
            "coordinator.leader_ttl",
            c.leader_ttl,
            Duration::from_secs(2),
            Duration::from_secs(60),
        )?;
        let is_url = |url: &&String| url.starts_with("http://") || url.starts_with("https://");
        if let Some(bad) = c.advertise.as_ref().filter(|url| !is_url(url)) {
            return invalid(format!(
                "coordinator.advertise {bad:?}: write http://HOST:PORT, or https:// where it has certificates"
            ));
        }
        if let Some(bad) = c.advertise_http.as_ref().filter(|url| !is_url(url)) {
            return invalid(format!(
                "coordinator.advertise_http {bad:?}: write http://HOST:PORT, or https:// where it has certificates"
            ));
        }
        if c.advertise.is_none() && c.grpc.ip().is_unspecified() && self.store.url != MetadataUrl::Embedded {
            return invalid(format!(
                "coordinator.grpc is {}, which the other coordinators cannot connect to: say where they reach this one with --advertise http://HOST:{}",
                c.grpc,
                c.grpc.port()
            ));
        }
        if c.worker_timeout < c.heartbeat * 2 {
            return invalid(format!(
                "coordinator.worker_timeout ({:?}) is less than two of coordinator.heartbeat ({:?}): one late heartbeat would interrupt every stream",
                c.worker_timeout, c.heartbeat
            ));
        }
        if c.offline_timeout < c.worker_timeout {
            return invalid(format!(
                "coordinator.offline_timeout ({:?}) is less than coordinator.worker_timeout ({:?}): a stream is interrupted before it is offline",
                c.offline_timeout, c.worker_timeout
            ));
        }
        if c.lost_timeout < c.offline_timeout {
            return invalid(format!(
                "coordinator.lost_timeout ({:?}) is less than coordinator.offline_timeout ({:?}): a stream is offline before its recordings are given up",
                c.lost_timeout, c.offline_timeout
            ));
        }
        if c.publish_retention < Duration::from_secs(3_600) {
            return invalid("coordinator.publish_retention is less than 1 h");
        }
        within(
            "coordinator.media_link_ttl",
            c.media_link_ttl,
            Duration::from_secs(60),
            Duration::from_secs(30 * 86_400),
        )?;
        within(
            "coordinator.retention_interval",
            c.retention_interval,
            Duration::from_millis(100),
            Duration::from_secs(3_600),
        )?;
        let web = |url: &&String| !url.starts_with("http://") && !url.starts_with("https://");
        if let Some(bad) = c.public_url.as_ref().filter(web) {
            return invalid(format!(
                "coordinator.public_url {bad:?}: write http://HOST:PORT or https://HOST"
            ));
        }
        self.validate_tasks()?;
        self.validate_scale_in()?;
        self.validate_events()?;
        match (&self.store.url, role) {
            (MetadataUrl::Embedded, Role::Standalone) => Ok(()),
            (MetadataUrl::Embedded, _) => invalid(
                "store.url is `embedded:`, which belongs to one process: a coordinator of its own needs --metadata etcd://HOST:2379/PREFIX; for one machine run `aircheck standalone`",
            ),
            (MetadataUrl::Etcd { .. }, _) => self.validate_etcd(),
        }
    }

    fn validate_etcd(&self) -> Result<(), ConfigError> {
        let MetadataUrl::Etcd { tls, login, .. } = &self.store.url else {
            return Ok(());
        };
        let s = &self.store;
        if *tls && s.ca_file.is_none() {
            return invalid(
                "store.url is an etcds:// URL, which needs store.ca_file: the authority that signed the certificates of etcd's members",
            );
        }
        if !*tls && (s.ca_file.is_some() || s.cert_file.is_some() || s.key_file.is_some()) {
            return invalid(
                "store.ca_file, store.cert_file and store.key_file are for TLS: write store.url as etcds://, or leave them out",
            );
        }
        if s.cert_file.is_some() != s.key_file.is_some() {
            return invalid("store.cert_file and store.key_file go together: give both, or neither");
        }
        if s.user.is_some() != s.password_file.is_some() {
            return invalid("store.user and store.password_file go together: give both, or neither");
        }
        if login.is_some() && s.user.is_some() {
            return invalid("store.url names a user, and so does store.user: give one of them");
        }
        Ok(())
    }

    fn validate_hooks(&self) -> Result<(), ConfigError> {
        let hooks = &self.hooks;
        let Some(origin) = &hooks.origin else {
            return Ok(());
        };
        if !(origin.contains("{stream}") || origin.contains("{path}")) {
            return invalid(
                "hooks.origin has neither {stream} nor {path} in it: write it like rtmp://10.0.0.5/{app}/{stream}",
            );
        }
        if let Err(error) = crate::pull::from_template(origin, "app", "stream") {
            return invalid(format!("hooks.origin: {error}"));
        }
        if let Some(domain) = &hooks.domain
            && let Err(error) = crate::ids::check_domain(domain)
        {
            return invalid(format!("hooks.domain: {error}"));
        }
        if hooks.forget_after < Duration::from_secs(10) {
            return invalid("hooks.forget_after is less than 10 s");
        }
        match (&hooks.token, &hooks.token_file) {
            (Some(_), Some(_)) => invalid("hooks.token and hooks.token_file are both given: give one"),
            (None, None) => invalid(
                "hooks.origin is given without hooks.token or hooks.token_file: whoever reaches the HTTP port could have anything pulled",
            ),
            _ => Ok(()),
        }
    }

    fn validate_tasks(&self) -> Result<(), ConfigError> {
        const DAY: Duration = Duration::from_secs(86_400);
        const SECOND: Duration = Duration::from_secs(1);
        let t = &self.coordinator.tasks;
        within("coordinator.tasks.max_span", t.max_span, SECOND, DAY * 31)?;
        within("coordinator.tasks.max_ahead", t.max_ahead, SECOND, DAY * 366)?;
        if t.max_ahead < t.max_span {
            return invalid(format!(
                "coordinator.tasks.max_ahead ({:?}) is less than coordinator.tasks.max_span ({:?}): no task could be as long as that",
                t.max_ahead, t.max_span
            ));
        }
        within("coordinator.tasks.retention", t.retention, SECOND * 3_600, DAY * 3_653)?;
        count_within("coordinator.tasks.max_open", t.max_open as u64, 1, 100_000)?;
        count_within("coordinator.tasks.max_per_stream", t.max_per_stream as u64, 1, 1_000)
    }

    fn validate_scale_in(&self) -> Result<(), ConfigError> {
        let s = &self.coordinator.scale_in;
        if s.workers.as_ref().is_some_and(|workers| workers.trim().is_empty()) {
            return invalid(
                "coordinator.scale_in.workers is empty: write what the workers are called without the number, or leave it out",
            );
        }
        let day = Duration::from_secs(86_400);
        within("coordinator.scale_in.after", s.after, Duration::ZERO, day)?;
        count_within("coordinator.scale_in.least", s.least, 0, 100_000)?;
        count_within(
            "coordinator.scale_in.streams_per_worker",
            s.streams_per_worker,
            1,
            100_000,
        )?;
        count_within(
            "coordinator.scale_in.bits_per_worker",
            s.bits_per_worker,
            1_000_000,
            1_000_000_000_000,
        )?;
        count_within("coordinator.scale_in.reserve_streams", s.reserve_streams, 0, 1_000_000)?;
        count_within("coordinator.scale_in.reserve_percent", s.reserve_percent, 0, 1_000)
    }

    fn validate_events(&self) -> Result<(), ConfigError> {
        const DAY: Duration = Duration::from_secs(86_400);
        const SECOND: Duration = Duration::from_secs(1);
        let e = &self.coordinator.events;
        count_within("coordinator.events.retries", u64::from(e.retries), 0, 1_000)?;
        within("coordinator.events.retry_after", e.retry_after, SECOND / 10, DAY)?;
        count_within("coordinator.events.retry_factor", u64::from(e.retry_factor), 1, 10)?;
        within(
            "coordinator.events.max_retry_after",
            e.max_retry_after,
            e.retry_after,
            DAY * 7,
        )?;
        within(
            "coordinator.events.reply_timeout",
            e.reply_timeout,
            SECOND / 10,
            SECOND * 300,
        )?;
        count_within("coordinator.events.per_receiver", e.per_receiver as u64, 1, 1_000)?;
        count_within("coordinator.events.max_pending", e.max_pending as u64, 1, 1_000_000)?;
        within("coordinator.events.keep", e.keep, SECOND * 60, DAY * 366)?;
        count_within("coordinator.events.keep_max", e.keep_max as u64, 1, 1_000_000)
    }

    fn validate_worker(&self) -> Result<(), ConfigError> {
        let w = &self.worker;
        within(
            "worker.journal.sync_interval",
            w.journal.sync_interval,
            Duration::from_millis(10),
            Duration::from_secs(60),
        )?;
        within(
            "worker.journal.preroll",
            w.journal.preroll,
            Duration::ZERO,
            Duration::from_secs(3_600),
        )?;
        count_within(
            "worker.journal.segment_size (bytes)",
            w.journal.segment_size.as_bytes(),
            256 << 10,
            1 << 30,
        )?;
        within(
            "worker.ingest.silence",
            w.ingest.silence,
            Duration::from_secs(1),
            Duration::from_secs(600),
        )?;
        within(
            "worker.ingest.command_timeout",
            w.ingest.command_timeout,
            Duration::from_secs(1),
            Duration::from_secs(600),
        )?;
        count_within(
            "worker.ingest.max_connections",
            w.ingest.max_connections as u64,
            1,
            1_000_000,
        )?;
        count_within(
            "worker.ingest.max_message (bytes)",
            w.ingest.max_message.as_bytes(),
            1 << 16,
            64 << 20,
        )?;
        if w.ingest.max_partial < w.ingest.max_message {
            return invalid(format!(
                "worker.ingest.max_partial ({}) is less than worker.ingest.max_message ({}): such a message could never arrive",
                w.ingest.max_partial, w.ingest.max_message
            ));
        }
        for (name, value) in [
            ("worker.pull.connect_timeout", w.pull.connect_timeout),
            ("worker.pull.silence", w.pull.silence),
            ("worker.pull.longest_wait", w.pull.longest_wait),
        ] {
            within(name, value, Duration::from_secs(1), Duration::from_secs(600))?;
        }
        within(
            "worker.hls.target_segment",
            w.hls.target_segment,
            Duration::from_secs(1),
            Duration::from_secs(60),
        )?;
        count_within("worker.render.threads", w.render.threads as u64, 1, 64)?;
        for (name, value) in [
            ("worker.drain_grace", w.drain_grace),
            ("worker.drain_handover", w.drain_handover),
        ] {
            within(name, value, Duration::ZERO, Duration::from_secs(86_400))?;
        }
        if let Err(error) = w.zone() {
            return invalid(format!(
                "worker.time_zone {:?}: {error}; use UTC or an IANA name such as Europe/Berlin",
                w.time_zone
            ));
        }
        if w.coordinator.is_empty() {
            return invalid("worker.coordinator is empty: give --coordinator http://HOST:7070");
        }
        if let Some(bad) = w
            .coordinator
            .iter()
            .find(|url| !(url.starts_with("http://") || url.starts_with("https://")))
        {
            return invalid(format!(
                "worker.coordinator {bad:?}: write http://HOST:PORT or https://HOST:PORT"
            ));
        }
        Ok(())
    }

    fn validate_objects(&self) -> Result<(), ConfigError> {
        let o = &self.objects;
        count_within("objects.max_uploads", o.max_uploads as u64, 1, 1000)?;
        count_within("objects.part_size (bytes)", o.part_size.as_bytes(), 5 << 20, 64 << 20)?;
        within(
            "objects.request_timeout",
            o.request_timeout,
            Duration::from_secs(1),
            Duration::from_secs(600),
        )?;
        validate_place("objects", o)?;
        o.validate_places()?;
        let Some(second) = o.second() else {
            if *o.copy != CopyConfig::default() {
                return invalid("objects.copy has settings and no url: set objects.copy.url, or leave them all out");
            }
            return Ok(());
        };
        count_within("objects.copy.max_copies", second.max_uploads as u64, 1, 64)?;
        validate_place("objects.copy", &second)?;
        let first = (&self.worker.objects.url, &o.endpoint);
        if (&second.url, &second.endpoint) == first {
            return invalid("objects.copy.url is where objects.url is: a copy goes to another place");
        }
        if o.copy.mode == CopyMode::Backup {
            let (least, most) = (Duration::from_secs(1), Duration::from_secs(86_400));
            within("objects.copy.after", o.copy.after, least, most)?;
            let is_bucket = |url: &Option<ObjectsUrl>| matches!(url, Some(ObjectsUrl::S3 { .. }));
            if !is_bucket(&second.url) || !is_bucket(&self.worker.objects.url) {
                return invalid(
                    "objects.copy.mode = \"backup\" is for two buckets: write objects.url and objects.copy.url as s3://BUCKET/PREFIX",
                );
            }
        }
        Ok(())
    }

    fn validate_credentials(&self) -> Result<(), ConfigError> {
        let (auth, tls) = (&self.auth, &self.tls);
        for (name, token, file) in [
            ("join_token", auth.join_token.is_some(), auth.join_token_file.is_some()),
            ("api_token", auth.api_token.is_some(), auth.api_token_file.is_some()),
        ] {
            if token && file {
                return invalid(format!("auth.{name} and auth.{name}_file are both given: give one"));
            }
        }
        if tls.cert_file.is_some() != tls.key_file.is_some() {
            return invalid("tls.cert_file and tls.key_file go together: give both, or neither");
        }
        if let Some(bad) = tls
            .coordinator_name
            .as_ref()
            .filter(|name| ServerName::try_from(name.as_str()).is_err())
        {
            return invalid(format!(
                "tls.coordinator_name {bad:?}: write the name in the coordinators' certificate, such as coordinator.example.com"
            ));
        }
        within(
            "tls.reload_interval",
            tls.reload_interval,
            Duration::from_millis(10),
            Duration::from_secs(3_600),
        )?;
        Ok(())
    }

    /// Whoever reaches a port may use it, unless he must show something.
    fn validate_doors(&self, role: Role) -> Result<(), ConfigError> {
        let certifies = self.tls.certifies();
        let workers = self.auth.has_join() || certifies;
        let clients = self.auth.has_api() || certifies;
        type Door<'a> = (bool, &'a str, &'a str, SocketAddr, bool, &'a str);
        let doors: [Door<'_>; 3] = [
            (
                role.coordinates(),
                "coordinator.grpc",
                "--grpc",
                self.coordinator.grpc,
                workers && clients,
                "give workers a token (auth.join_token_file) and clients one (auth.api_token_file), or certificates (tls.cert_file, tls.key_file and tls.ca_file)",
            ),
            (
                role.coordinates(),
                "coordinator.http",
                "--http",
                self.coordinator.http,
                self.auth.has_api(),
                "give those who read /metrics a token (auth.api_token_file)",
            ),
            (
                role.works(),
                "worker.rtmp",
                "--rtmp",
                self.worker.rtmp,
                self.worker.ingest.allow_anyone,
                "publishers cannot show any in this version: where the network keeps strangers out, say worker.ingest.allow_anyone = true",
            ),
        ];
        let page = (role == Role::Worker)
            .then_some(self.worker.http)
            .flatten()
            .map(|addr| {
                let advice = "give those who read /metrics a token (auth.api_token_file)";
                (true, "worker.http", "--http", addr, self.auth.has_api(), advice)
            });
        for (used, key, flag, addr, guarded, advice) in doors.into_iter().chain(page) {
            if used && !addr.ip().is_loopback() && !guarded && !self.node.insecure {
                return invalid(format!(
                    "{key} ({flag}) is {addr}, beyond loopback, and no credentials are configured for it: anyone who reaches that port could use it. Either {advice}; or listen on \
                     127.0.0.1; or allow all of it with --insecure (node.insecure = true) on a network you trust"
                ));
            }
        }
        Ok(())
    }
}

impl super::WorkerConfig {
    /// The time zone of file names.
    ///
    /// # Errors
    /// The name is not in the machine's time zone database.
    pub fn zone(&self) -> Result<jiff::tz::TimeZone, jiff::Error> {
        if self.time_zone == "UTC" {
            Ok(jiff::tz::TimeZone::UTC)
        } else {
            jiff::tz::TimeZone::get(&self.time_zone)
        }
    }
}
