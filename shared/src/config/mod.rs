//! The one [`Config`]: flags over `AIRCHECK_*` environment over one TOML file over defaults, read once.
//!
//! An environment variable names a setting by its section and key, joined by two underscores: `AIRCHECK_WORKER__JOURNAL__SYNC_INTERVAL=2s`. Unknown keys are refused
//! wherever they come from. Durations and sizes carry units.

mod copy;
mod events;
mod layers;
mod places;
mod scale_in;
mod size;
mod tasks;
mod telemetry;
mod tls;
mod validate;

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use self::layers::{env_path, lay};
pub use self::{
    copy::{CopyConfig, CopyMode},
    events::{EventsConfig, Network},
    places::PlaceConfig,
    scale_in::ScaleInConfig,
    size::ByteSize,
    tasks::TasksConfig,
    telemetry::{LogFormat, OtlpProtocol, TelemetryConfig},
    tls::TlsConfig,
    validate::Role,
};
use crate::{
    auth::Secret,
    objects::ObjectsUrl,
    store::{MetadataUrl, mask},
    template::Format,
};

/// Every setting of every role.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What all roles of this process share.
    pub node: NodeConfig,
    /// Where metadata lies.
    pub store: StoreConfig,
    /// Where media goes.
    pub objects: ObjectsConfig,
    /// The coordinator role.
    pub coordinator: CoordinatorConfig,
    /// News from origins.
    pub hooks: HooksConfig,
    /// Who may call whom.
    pub auth: AuthConfig,
    /// Certificates.
    pub tls: TlsConfig,
    /// The worker role.
    pub worker: WorkerConfig,
    /// Logs and traces.
    pub telemetry: TelemetryConfig,
}

/// `[node]`: what all roles of this process share.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NodeConfig {
    /// Folder of everything that must outlive the process: journals, the embedded store, local objects.
    pub data_dir: PathBuf,
    /// Lets the process listen beyond loopback although nobody has to show credentials.
    pub insecure: bool,
    /// Threads of the asynchronous runtime, 1 to 64. Ingest and rendering have threads of their own.
    pub runtime_threads: usize,
}

impl Default for NodeConfig {
    fn default() -> Self {
        NodeConfig {
            data_dir: PathBuf::from("data"),
            insecure: false,
            runtime_threads: 2,
        }
    }
}

/// `[store]`: where metadata lies.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StoreConfig {
    /// `embedded:` or `etcd://[USER:PASSWORD@]HOST:2379[,HOST:2379…]/PREFIX`; `etcds://` for TLS.
    pub url: MetadataUrl,
    /// PEM file of the authority that signed the certificates of etcd's members; with `etcds://`.
    pub ca_file: Option<PathBuf>,
    /// PEM file of the certificate to show to etcd; together with `key_file`.
    pub cert_file: Option<PathBuf>,
    /// PEM file of that certificate's key.
    pub key_file: Option<PathBuf>,
    /// User of etcd; together with `password_file`, instead of one in the URL.
    pub user: Option<String>,
    /// File that holds that user's password.
    pub password_file: Option<PathBuf>,
}

/// `[objects]`: where media goes, and how. All but `url` speaks of `s3://` alone. Keys come from the usual `AWS_*` variables.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ObjectsConfig {
    /// `file:///FOLDER` or `s3://BUCKET/PREFIX`; absent: `objects` in the data folder.
    pub url: Option<ObjectsUrl>,
    /// `https://HOST[:PORT]` of a service that is not Amazon's; absent: `AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL`, or Amazon's of the region.
    /// `http://` is taken where it is written here or there.
    pub endpoint: Option<String>,
    /// Region; absent: `AWS_REGION`, `AWS_DEFAULT_REGION`, or `us-east-1`.
    pub region: Option<String>,
    /// File of two lines, an access key's id and its secret; absent: keys come from the usual places.
    pub keys_file: Option<PathBuf>,
    /// The bucket's name stands in the path and not in the host's name.
    pub path_style: bool,
    /// Most recorders and others that store media at a time, 1 to 1000; half of them, rounded down, are recordings that end.
    pub max_uploads: usize,
    /// Bytes of the first parts of a multipart upload, 5 MiB to 64 MiB; later ones are longer. `max_uploads` times this bounds memory.
    pub part_size: ByteSize,
    /// Most bytes a second sent to storage; `0 B`: no limit.
    pub max_bandwidth: ByteSize,
    /// Time for one request, 1 s to 10 min; one that carries media has a second more for each 512 KiB.
    #[serde(with = "humantime_serde")]
    pub request_timeout: Duration,
    /// Checksum sent with what is stored, beside the signature's own SHA-256.
    pub checksum: ChecksumMode,
    /// Encryption by the service: `AES256`, `aws:kms` or `aws:kms:dsse`; absent: the bucket's default.
    pub sse: Option<String>,
    /// Key of `aws:kms`.
    pub sse_key: Option<String>,
    /// Storage class, such as `STANDARD_IA`; absent: the bucket's default.
    pub storage_class: Option<String>,
    /// A second place, which gets a copy of everything.
    pub copy: Box<CopyConfig>,
    /// Further places, by the names that templates call them by; at most 16.
    pub places: BTreeMap<String, PlaceConfig>,
}

impl Default for ObjectsConfig {
    fn default() -> Self {
        ObjectsConfig {
            url: None,
            endpoint: None,
            region: None,
            keys_file: None,
            path_style: true,
            max_uploads: 16,
            part_size: ByteSize::mib(8),
            max_bandwidth: ByteSize::from_bytes(0),
            request_timeout: Duration::from_secs(30),
            checksum: ChecksumMode::Auto,
            sse: None,
            sse_key: None,
            storage_class: None,
            copy: Box::default(),
            places: BTreeMap::new(),
        }
    }
}

/// A checksum that the service verifies and keeps, beside the signature's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChecksumMode {
    /// `crc64nvme` where no endpoint is given, which means Amazon's; none elsewhere, because not every service knows it.
    Auto,
    /// CRC-64/NVME.
    Crc64nvme,
    /// SHA-256.
    Sha256,
    /// None.
    None,
}

/// `[coordinator]`: the coordinator role.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CoordinatorConfig {
    /// Where HTTP is served. Port 0: any free one.
    pub http: SocketAddr,
    /// Where gRPC is served. Port 0: any free one.
    pub grpc: SocketAddr,
    /// Name for people; absent: the host's.
    pub name: Option<String>,
    /// Where the other coordinators reach this one's gRPC, `http://HOST:PORT`; absent: where it listens, which must be an address and not `0.0.0.0` then.
    pub advertise: Option<String>,
    /// Where the other coordinators reach this one's HTTP, `http://HOST:PORT`; absent: at the host of `advertise`, on the port of `http`.
    pub advertise_http: Option<String>,
    /// Silence after which another coordinator takes over, 2 s to 60 s.
    #[serde(with = "humantime_serde")]
    pub leader_ttl: Duration,
    /// The built-in rule: record every stream that no rule matches in these formats. Empty: no such rule.
    pub record: Vec<Format>,
    /// Most templates, 1 to 10000.
    pub max_templates: usize,
    /// Most rules, 1 to 10000.
    pub max_rules: usize,
    /// Most pull sources, 1 to 100000.
    pub max_pulls: usize,
    /// Time between two heartbeats of a worker, 100 ms to 60 s.
    #[serde(with = "humantime_serde")]
    pub heartbeat: Duration,
    /// Silence after which a worker's streams are taken for interrupted; at least 2 heartbeats.
    #[serde(with = "humantime_serde")]
    pub worker_timeout: Duration,
    /// Silence after which a worker's interrupted streams are taken for offline; at least `worker_timeout`.
    #[serde(with = "humantime_serde")]
    pub offline_timeout: Duration,
    /// Absence of a worker after which what it was recording has failed as `worker_lost`; at least `offline_timeout`.
    #[serde(with = "humantime_serde")]
    pub lost_timeout: Duration,
    /// Time for which an ended publish is remembered, so that a repeated request for it is not taken for a new one; at least 1 h.
    #[serde(with = "humantime_serde")]
    pub publish_retention: Duration,
    /// File with the key that secrets in the metadata store are sealed with: 64 hexadecimal digits, the same for every
    /// coordinator of a cluster. Absent: `secrets.key` in the data folder, made at the first start.
    pub secrets_key_file: Option<PathBuf>,
    /// Takes pushes only for push domains that were added; else any domain may be pushed to.
    pub known_domains_only: bool,
    /// Where clients reach HTTP, such as `https://aircheck.example.com`, for links to media; absent: where it is served.
    pub public_url: Option<String>,
    /// How long a link to media is good, 1 min to 30 d.
    #[serde(with = "humantime_serde")]
    pub media_link_ttl: Duration,
    /// Tasks.
    pub tasks: TasksConfig,
    /// Which workers are drained when fewer are wanted.
    pub scale_in: ScaleInConfig,
    /// News to customers' receivers.
    pub events: EventsConfig,
    /// The data folder, from `[node]`. Not a setting of its own.
    #[serde(skip)]
    pub data_dir: PathBuf,
    /// News from origins, from `[hooks]`. Not a setting of its own.
    #[serde(skip)]
    pub hooks: HooksConfig,
    /// Time between two looks for files whose storage time is over, 100 ms to 1 h.
    #[serde(with = "humantime_serde")]
    pub retention_interval: Duration,
    /// Where media lies, from `[objects]`, its URL filled in. Not a setting of its own.
    #[serde(skip)]
    pub objects: ObjectsConfig,
    /// Who may call, from `[auth]`. Not a setting of its own.
    #[serde(skip)]
    pub auth: AuthConfig,
    /// Certificates, from `[tls]`. Not a setting of its own.
    #[serde(skip)]
    pub tls: TlsConfig,
}

impl Default for CoordinatorConfig {
    fn default() -> Self {
        CoordinatorConfig {
            http: loopback(8080),
            grpc: loopback(7070),
            name: None,
            advertise: None,
            advertise_http: None,
            leader_ttl: Duration::from_secs(3),
            record: Vec::new(),
            max_templates: 50,
            max_rules: 50,
            max_pulls: 1_000,
            heartbeat: Duration::from_secs(2),
            worker_timeout: Duration::from_secs(10),
            offline_timeout: Duration::from_secs(600),
            lost_timeout: Duration::from_secs(86_400),
            publish_retention: Duration::from_secs(7 * 86_400),
            secrets_key_file: None,
            known_domains_only: false,
            public_url: None,
            media_link_ttl: Duration::from_secs(86_400),
            tasks: TasksConfig::default(),
            scale_in: ScaleInConfig::default(),
            events: EventsConfig::default(),
            data_dir: PathBuf::new(),
            retention_interval: Duration::from_secs(60),
            objects: ObjectsConfig::default(),
            hooks: HooksConfig::default(),
            auth: AuthConfig::default(),
            tls: TlsConfig::default(),
        }
    }
}

/// `[auth]`: tokens. Each is 16 to 512 visible ASCII characters, given itself or as a file that holds it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AuthConfig {
    /// What workers show to coordinators; also `AIRCHECK_JOIN_TOKEN`.
    pub join_token: Option<Secret>,
    /// File that holds it.
    pub join_token_file: Option<PathBuf>,
    /// What clients show to coordinators, and whoever reads `/metrics`; also `AIRCHECK_API_TOKEN`.
    pub api_token: Option<Secret>,
    /// File that holds it.
    pub api_token_file: Option<PathBuf>,
}

impl AuthConfig {
    /// Workers must show a token.
    #[must_use]
    pub fn has_join(&self) -> bool {
        self.join_token.is_some() || self.join_token_file.is_some()
    }

    /// Clients must show a token.
    #[must_use]
    pub fn has_api(&self) -> bool {
        self.api_token.is_some() || self.api_token_file.is_some()
    }
}

/// `[hooks]`: webhooks of an origin, which say which streams it has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HooksConfig {
    /// Where the origin offers a stream, with `{app}`, `{stream}` or `{path}` (both, joined by `/`) in it, such as
    /// `rtmp://10.0.0.5/{app}/{stream}`. Absent: no webhooks.
    pub origin: Option<String>,
    /// Push domain that its streams are recorded under; absent: the host of `origin`.
    pub domain: Option<String>,
    /// What the origin shows, 16 to 512 bytes.
    pub token: Option<Secret>,
    /// File that holds it.
    pub token_file: Option<PathBuf>,
    /// A stream that a webhook announced and that cannot be fetched for so long is forgotten: the news of its end was lost. At least 10 s.
    #[serde(with = "humantime_serde")]
    pub forget_after: Duration,
}

impl Default for HooksConfig {
    fn default() -> Self {
        HooksConfig {
            origin: None,
            domain: None,
            token: None,
            token_file: None,
            forget_after: Duration::from_secs(600),
        }
    }
}

/// `[worker]`: the worker role.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WorkerConfig {
    /// Where RTMP is taken. Port 0: any free one.
    pub rtmp: SocketAddr,
    /// Where a process that is only a worker serves health and metrics. Absent: nowhere.
    pub http: Option<SocketAddr>,
    /// Coordinators to speak to, `http://HOST:PORT`; in standalone its own.
    pub coordinator: Vec<String>,
    /// Name for people; absent: the host's.
    pub name: Option<String>,
    /// Time zone of file names: an IANA name such as `Asia/Shanghai`, or `UTC`.
    pub time_zone: String,
    /// Time for finishing recordings after the first signal to stop; then the process aborts, and finishes them after its next start.
    #[serde(with = "humantime_serde")]
    pub drain_grace: Duration,
    /// Time that publishers have to go by themselves when the worker takes no streams any more: those that can are asked to connect again,
    /// others are closed when their next key picture has come. At the end of the process at most half of `drain_grace`.
    #[serde(with = "humantime_serde")]
    pub drain_handover: Duration,
    /// The journal.
    pub journal: JournalConfig,
    /// Taking streams.
    pub ingest: IngestConfig,
    /// Fetching streams from origins.
    pub pull: PullConfig,
    /// HLS.
    pub hls: HlsConfig,
    /// Making files from journals.
    pub render: RenderConfig,
    /// The data folder, from `[node]`. Not a setting of its own.
    #[serde(skip)]
    pub data_dir: PathBuf,
    /// Where media goes, from `[objects]`, its URL filled in. Not a setting of its own.
    #[serde(skip)]
    pub objects: ObjectsConfig,
    /// What is shown to coordinators, from `[auth]`. Not a setting of its own.
    #[serde(skip)]
    pub auth: AuthConfig,
    /// Certificates, from `[tls]`. Not a setting of its own.
    #[serde(skip)]
    pub tls: TlsConfig,
}

impl Default for WorkerConfig {
    fn default() -> Self {
        WorkerConfig {
            rtmp: loopback(1935),
            http: None,
            coordinator: vec!["http://127.0.0.1:7070".to_owned()],
            name: None,
            time_zone: "UTC".to_owned(),
            drain_grace: Duration::from_secs(30),
            drain_handover: Duration::from_secs(10),
            journal: JournalConfig::default(),
            ingest: IngestConfig::default(),
            pull: PullConfig::default(),
            hls: HlsConfig::default(),
            render: RenderConfig::default(),
            data_dir: PathBuf::new(),
            objects: ObjectsConfig::default(),
            auth: AuthConfig::default(),
            tls: TlsConfig::default(),
        }
    }
}

/// `[worker.journal]`: the log of what was received.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JournalConfig {
    /// Longest time until what arrived is safe against power loss, 10 ms to 60 s.
    #[serde(with = "humantime_serde")]
    pub sync_interval: Duration,
    /// Media kept although no recording needs it, so that a task can begin in the past; 0 s to 1 h.
    #[serde(with = "humantime_serde")]
    pub preroll: Duration,
    /// Bytes of one segment, 256 KiB to 1 GiB.
    pub segment_size: ByteSize,
    /// Free space of the disk below which no new stream is taken.
    pub min_free: ByteSize,
    /// Most bytes of all journals together, which grow while storage is away; `0 B`: as much as the disk has. Alarms at 50, 80 and
    /// 95 %; from then on no publish is accepted; when all is used, the recordings that waited longest end.
    pub budget: ByteSize,
}

impl Default for JournalConfig {
    fn default() -> Self {
        JournalConfig {
            sync_interval: Duration::from_secs(1),
            preroll: Duration::from_secs(30),
            segment_size: ByteSize::mib(8),
            min_free: ByteSize::mib(1024),
            budget: ByteSize::from_bytes(0),
        }
    }
}

/// `[worker.ingest]`: taking streams.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct IngestConfig {
    /// Silence of a publisher after which its connection ends, or another may take its stream over; 1 s to 10 min.
    #[serde(with = "humantime_serde")]
    pub silence: Duration,
    /// Time for a connection to begin a publish, 1 s to 10 min.
    #[serde(with = "humantime_serde")]
    pub command_timeout: Duration,
    /// Most connections at a time; more wait unaccepted.
    pub max_connections: usize,
    /// Longest RTMP message, bytes; at most 64 MiB.
    pub max_message: ByteSize,
    /// Most bytes of unfinished messages for one connection.
    pub max_partial: ByteSize,
    /// Publishers need no credentials, also beyond loopback: there are none for them yet.
    pub allow_anyone: bool,
}

impl Default for IngestConfig {
    fn default() -> Self {
        IngestConfig {
            silence: Duration::from_secs(10),
            command_timeout: Duration::from_secs(10),
            max_connections: 10_000,
            max_message: ByteSize::mib(16),
            max_partial: ByteSize::mib(32),
            allow_anyone: false,
        }
    }
}

/// `[worker.pull]`: fetching streams from origins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PullConfig {
    /// Origins at loopback addresses may be reached.
    pub allow_loopback: bool,
    /// Origins at link-local addresses, among them the metadata services of clouds, may be reached.
    pub allow_link_local: bool,
    /// Time for reaching an origin until it agrees to send, 1 s to 10 min.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// Silence of an origin that was sending, after which it is connected to anew; 1 s to 10 min.
    #[serde(with = "humantime_serde")]
    pub silence: Duration,
    /// Longest wait between two tries, 1 s to 10 min. The first is 0.5 s; each is twice the one before, give or take a quarter.
    #[serde(with = "humantime_serde")]
    pub longest_wait: Duration,
}

impl Default for PullConfig {
    fn default() -> Self {
        PullConfig {
            allow_loopback: false,
            allow_link_local: false,
            connect_timeout: Duration::from_secs(10),
            silence: Duration::from_secs(10),
            longest_wait: Duration::from_secs(15),
        }
    }
}

/// `[worker.hls]`: HLS recordings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HlsConfig {
    /// Shortest segment; the cut waits for the next random access point. 1 s to 60 s.
    #[serde(with = "humantime_serde")]
    pub target_segment: Duration,
}

impl Default for HlsConfig {
    fn default() -> Self {
        HlsConfig {
            target_segment: Duration::from_secs(6),
        }
    }
}

/// `[worker.render]`: making files from journals.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RenderConfig {
    /// Threads that render, 1 to 64.
    pub threads: usize,
}

impl Default for RenderConfig {
    fn default() -> Self {
        RenderConfig { threads: 1 }
    }
}

const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// Why there is no configuration. The message says which source and which key.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not TOML of this shape.
    #[error("configuration file {path}: {problem}")]
    File {
        /// The file.
        path: PathBuf,
        /// Line, key and reason.
        problem: String,
    },
    /// A variable is not a setting, or not one of this kind.
    #[error("environment variable {name}: {problem}")]
    Env {
        /// The variable.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A flag is not one of this kind.
    #[error("setting {key}: {problem}")]
    Flag {
        /// `section.key`.
        key: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Legal values that cannot be together, or a value outside its range.
    #[error("{0}")]
    Invalid(String),
}

/// What the command line says: `section.key` and its value as text.
#[derive(Debug, Clone, Default)]
pub struct Overrides(Vec<(String, String)>);

impl Overrides {
    /// Sets one key, such as `worker.rtmp`.
    pub fn set(&mut self, key: &str, value: impl ToString) {
        self.0.push((key.to_owned(), value.to_string()));
    }
}

impl Config {
    /// Reads the file, if any, and lays environment and flags over it. Ranges and roles are not checked yet: [`Config::validate`].
    ///
    /// # Errors
    /// The first source, key and reason that is wrong.
    pub fn load(
        file: Option<&Path>,
        env: impl IntoIterator<Item = (String, String)>,
        flags: &Overrides,
    ) -> Result<Config, ConfigError> {
        let mut merged = match file {
            None => toml::Table::new(),
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
                    path: path.to_owned(),
                    source,
                })?;
                // Once for itself, because the parser's words name line and column.
                let refused = |error: toml::de::Error| ConfigError::File {
                    path: path.to_owned(),
                    // It quotes the line, and a URL may hold a password.
                    problem: mask(error.to_string().trim_end()),
                };
                toml::from_str::<Config>(&text).map_err(refused)?;
                toml::from_str(&text).map_err(refused)?
            }
        };
        let shape =
            toml::Table::try_from(Config::default()).map_err(|error| ConfigError::Invalid(error.to_string()))?;
        for (name, value) in env {
            let Some(path) = env_path(&name) else { continue };
            lay(&mut merged, &shape, &path, &value).map_err(|problem| ConfigError::Env { name, problem })?;
        }
        for (key, value) in &flags.0 {
            let path: Vec<String> = key.split('.').map(str::to_owned).collect();
            lay(&mut merged, &shape, &path, value).map_err(|problem| ConfigError::Flag {
                key: key.clone(),
                problem,
            })?;
        }
        let mut config: Config = merged
            .try_into()
            .map_err(|error: toml::de::Error| ConfigError::Invalid(error.to_string().trim_end().to_owned()))?;
        config.derive();
        Ok(config)
    }

    /// Fills in what one section takes from another.
    fn derive(&mut self) {
        self.coordinator.data_dir.clone_from(&self.node.data_dir);
        self.coordinator.hooks.clone_from(&self.hooks);
        self.coordinator.auth.clone_from(&self.auth);
        self.coordinator.tls.clone_from(&self.tls);
        self.worker.auth.clone_from(&self.auth);
        self.worker.tls.clone_from(&self.tls);
        self.worker.data_dir.clone_from(&self.node.data_dir);
        self.worker.objects = self.objects.clone();
        let own = || ObjectsUrl::File(self.node.data_dir.join("objects"));
        self.worker.objects.url.get_or_insert_with(own);
        self.coordinator.objects = self.worker.objects.clone();
    }

    /// The settings in force as a TOML file.
    ///
    /// # Errors
    /// None in practice: every setting has a TOML form.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string_pretty(self)
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
