//! The command line. What each command does is in `roles.rs` (servers) and `client/` (everything that speaks gRPC).

mod callback;
mod compose;
mod domain;
mod library;
mod task;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(crate) use self::callback::{
    CallbackCommand, CallbackRuleCommand, CallbackTemplate, CallbackTemplateCommand, EventCommand, EventState,
};
pub(crate) use self::compose::ComposeCommand;
pub(crate) use self::domain::DomainCommand;
pub(crate) use self::library::{FileCommand, RecordingCommand, Recover};
pub(crate) use self::task::{List, TaskCommand, TaskState};

/// Records live streams, and loses nothing silently.
#[derive(Debug, Parser)]
#[command(name = "aircheck", version, about, propagate_version = true, max_term_width = 110)]
#[command(after_help = "Examples:
  Record everything that is pushed to this machine, as HLS and MP4:
    aircheck standalone --data-dir ./data --record hls,mp4
  Push with ffmpeg, or point OBS at rtmp://127.0.0.1/live with the stream key `show`:
    ffmpeg -re -i clip.mp4 -c copy -f flv rtmp://127.0.0.1/live/show
  See what was recorded:
    aircheck recording list
    aircheck file list")]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run coordinator and worker in one process, on an embedded store and a local directory.
    #[command(after_help = "Examples:
  aircheck standalone --data-dir ./data --record hls,mp4
  aircheck standalone --data-dir ./data --record flv --rtmp 0.0.0.0:1935 --insecure
  AIRCHECK_WORKER__JOURNAL__SYNC_INTERVAL=200ms aircheck standalone --data-dir ./data

The first TERM or INT finishes what is being recorded, within worker.drain_grace; the second ends at once.
What is unfinished then is finished by the next start.")]
    Standalone(Standalone),
    /// Run the coordinator: templates, rules, leases and the media library.
    #[command(after_help = "Examples:
  aircheck coordinator --metadata etcd://127.0.0.1:2379/aircheck --data-dir ./coordinator-1
  aircheck coordinator --metadata etcd://e1:2379,e2:2379,e3:2379/aircheck --name c2 --grpc 0.0.0.0:7070 \\
      --advertise http://c2.example.com:7070 --insecure

Start two or three with the same --metadata: one leads, each serves all calls, and when the leader dies
another takes over within seconds.")]
    Coordinator(Coordinator),
    /// Run a worker: takes streams and records them.
    #[command(after_help = "Example:
  aircheck worker --coordinator http://127.0.0.1:7070 --data-dir ./worker-1 --rtmp 127.0.0.1:1935
  aircheck worker --coordinator http://c1:7070,http://c2:7070 --name w1 --data-dir ./worker-1")]
    Worker(Worker),
    /// Record templates: in which formats, cut how often, kept how long, named how.
    Template {
        #[command(subcommand)]
        command: TemplateCommand,
    },
    /// Record rules: which streams a template is for. The most specific rule wins.
    Rule {
        #[command(subcommand)]
        command: RuleCommand,
    },
    /// Streams that are fetched from an origin: nginx-rtmp, SRS, MediaMTX, anything that offers RTMP or HTTP-FLV.
    Pull {
        #[command(subcommand)]
        command: PullCommand,
    },
    /// Tasks: record a stream between two moments, or what it sent just now.
    Task {
        #[command(subcommand)]
        command: TaskCommand,
    },
    /// Streams that are live.
    Stream {
        #[command(subcommand)]
        command: StreamCommand,
    },
    /// Recordings: one for each publish and cause.
    Recording {
        #[command(subcommand)]
        command: RecordingCommand,
    },
    /// Who is told of pushes, recordings and files.
    Callback {
        #[command(subcommand)]
        command: CallbackCommand,
    },
    /// Events: what was told, or is on its way.
    Event {
        #[command(subcommand)]
        command: EventCommand,
    },
    /// Who may push: push domains with their keys, and bans of streams.
    Domain {
        #[command(subcommand)]
        command: DomainCommand,
    },
    /// New files of pieces of stored ones: recordings joined, and cut at key pictures.
    Compose {
        #[command(subcommand)]
        command: ComposeCommand,
    },
    /// Keys of the HTTP API that speaks Tencent's protocol.
    Key {
        #[command(subcommand)]
        command: KeyCommand,
    },
    /// Finished media files.
    File {
        #[command(subcommand)]
        command: FileCommand,
    },
    /// Rebuild the library from the recording.json documents in storage, after metadata was lost.
    #[command(after_help = "Examples:
  aircheck recover --from-objects s3://recordings/tv --dry-run
  aircheck recover --from-objects s3://recordings/tv
  aircheck recover --from-objects file:///var/lib/aircheck/objects --output json

Start coordinators on the new, empty metadata first; they may record meanwhile. What the library has is not changed, and
what is restored stays for a day at least. It may be repeated. Objects that no recording.json speaks of are listed as
strays. Ends with an error if something could not be restored, or if a recording.json cannot be read, also where another
place has a good one.")]
    Recover(Recover),
    /// Print a journal, one of its segments or indexes, a recorder's state, or the metadata store.
    #[command(after_help = "Examples:
  aircheck inspect ./data/journal
  aircheck inspect ./data/journal/0198f3b2-… --output json
  aircheck inspect --metadata etcd://127.0.0.1:2379/aircheck
  aircheck inspect --metadata etcd://127.0.0.1:2379/aircheck --under v1/recording/ --output json")]
    Inspect(Inspect),
    /// Check settings and print those in force, without starting anything.
    #[command(after_help = "Example:
  aircheck check-config --config /etc/aircheck.toml")]
    CheckConfig(Settings),
}

/// Where settings come from: flags over AIRCHECK_* environment over one TOML file over defaults.
#[derive(Debug, Args)]
pub(crate) struct Settings {
    /// TOML file with settings.
    #[arg(long, value_name = "FILE", env = "AIRCHECK_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Any setting by its name, such as worker.journal.preroll=10s. May be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// A journal directory, a directory of journals, or a file within one.
    #[arg(required_unless_present = "metadata")]
    pub(crate) path: Option<PathBuf>,
    /// The metadata store at this URL: who leads, how much there is of what, and every key.
    #[arg(long, value_name = "URL", conflicts_with = "path")]
    pub(crate) metadata: Option<String>,
    /// Of the metadata store only keys that begin so, such as v1/recording/
    #[arg(long, value_name = "KEY", default_value = "")]
    pub(crate) under: String,
    /// What to print; JSON is one object a line.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
    /// The same as --output json.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) settings: Settings,
}

#[derive(Debug, Args)]
pub(crate) struct Node {
    /// Directory for everything that must outlive the process.
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Listen beyond this machine without asking for credentials.
    #[arg(long)]
    pub(crate) insecure: bool,
    #[command(flatten)]
    pub(crate) settings: Settings,
}

#[derive(Debug, Args)]
pub(crate) struct Standalone {
    #[command(flatten)]
    pub(crate) node: Node,
    /// Record every stream that no rule matches, in these formats: flv, hls, mp4, aac, mp3.
    #[arg(long, value_name = "LIST")]
    pub(crate) record: Option<String>,
    /// Where publishers connect [default: 127.0.0.1:1935]
    #[arg(long, value_name = "ADDR")]
    pub(crate) rtmp: Option<SocketAddr>,
    /// Health and metrics [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    pub(crate) http: Option<SocketAddr>,
    /// API for client commands [default: 127.0.0.1:7070]
    #[arg(long, value_name = "ADDR")]
    pub(crate) grpc: Option<SocketAddr>,
    /// Where metadata lies: embedded: or etcd://HOST:2379/PREFIX [default: embedded:]
    #[arg(long, value_name = "URL")]
    pub(crate) metadata: Option<String>,
    /// Where media goes: file:///DIR or s3://BUCKET/PREFIX [default: DATA-DIR/objects]
    #[arg(long, value_name = "URL")]
    pub(crate) objects: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Coordinator {
    #[command(flatten)]
    pub(crate) node: Node,
    /// Record every stream that no rule matches, in these formats.
    #[arg(long, value_name = "LIST")]
    pub(crate) record: Option<String>,
    /// Health and metrics [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    pub(crate) http: Option<SocketAddr>,
    /// API for workers and clients [default: 127.0.0.1:7070]
    #[arg(long, value_name = "ADDR")]
    pub(crate) grpc: Option<SocketAddr>,
    /// Where metadata lies: etcd://HOST:2379[,HOST:2379...]/PREFIX
    #[arg(long, value_name = "URL")]
    pub(crate) metadata: Option<String>,
    /// Name for people [default: the host's]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Where the other coordinators reach this one's gRPC [default: http:// and where it listens]
    #[arg(long, value_name = "URL")]
    pub(crate) advertise: Option<String>,
    /// Where media goes.
    #[arg(long, value_name = "URL")]
    pub(crate) objects: Option<String>,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Worker {
    #[command(subcommand)]
    pub(crate) command: Option<WorkersCommand>,
    /// Health and metrics; absent: none
    #[arg(long, value_name = "ADDR")]
    pub(crate) http: Option<SocketAddr>,
    #[command(flatten)]
    pub(crate) node: Node,
    /// Coordinators to speak to, separated by commas [default: http://127.0.0.1:7070]
    #[arg(long, value_name = "URLS")]
    pub(crate) coordinator: Option<String>,
    /// Name for people [default: the host's]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Where publishers connect [default: 127.0.0.1:1935]
    #[arg(long, value_name = "ADDR")]
    pub(crate) rtmp: Option<SocketAddr>,
    /// Where media goes [default: DATA-DIR/objects]
    #[arg(long, value_name = "URL")]
    pub(crate) objects: Option<String>,
}

#[expect(
    clippy::disallowed_methods,
    reason = "a token comes from the environment, and the command line is no place for it"
)]
fn api_token() -> Option<String> {
    std::env::var("AIRCHECK_API_TOKEN")
        .ok()
        .filter(|token| !token.is_empty())
}

/// How a client command reaches the coordinator and prints.
#[derive(Debug, Args)]
pub(crate) struct Client {
    /// The coordinator's gRPC address; several, separated by commas, are tried in turn.
    #[arg(
        long,
        value_name = "URL",
        env = "AIRCHECK_SERVER",
        default_value = "http://127.0.0.1:7070"
    )]
    pub(crate) server: String,
    /// File with the API token, where the coordinator wants one; AIRCHECK_API_TOKEN holds the token itself.
    #[arg(long, value_name = "FILE", env = "AIRCHECK_TOKEN_FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// The API token; not a flag, because command lines are seen by all.
    #[arg(skip = api_token())]
    pub(crate) api_token: Option<String>,
    /// PEM file of the authority that signed the coordinator's certificate; absent: the system's authorities.
    #[arg(long, value_name = "FILE", env = "AIRCHECK_CA_FILE")]
    pub(crate) ca_file: Option<PathBuf>,
    /// What to print.
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// Tables for people.
    Text,
    /// One JSON document for programs.
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TemplateCommand {
    /// Make a template. Without a format it says: do not record.
    #[command(after_help = "Examples:
  aircheck template create archive --mp4 --mp4-interval 1h --storage 30d
  aircheck template create watch --hls --hls-continue 30s --flv
  aircheck template create never")]
    Create(TemplateSpec),
    /// Change a template as a whole: what is not said gets its default. Streams that are live keep what they began with.
    #[command(after_help = "Example:\n  aircheck template update archive --mp4 --mp4-interval 30m")]
    Update(TemplateSpec),
    /// List all templates.
    List {
        #[command(flatten)]
        client: Client,
    },
    /// Show one template.
    Get {
        /// Name or id.
        template: String,
        #[command(flatten)]
        client: Client,
    },
    /// Delete a template that no rule uses.
    Delete {
        /// Name or id.
        template: String,
        #[command(flatten)]
        client: Client,
    },
}

#[derive(Debug, Args)]
pub(crate) struct TemplateSpec {
    /// The template's name (for update also its id).
    pub(crate) name: String,
    /// A sentence about it.
    #[arg(long, default_value = "")]
    pub(crate) description: String,
    /// Record FLV files.
    #[arg(long)]
    pub(crate) flv: bool,
    /// Record HLS.
    #[arg(long)]
    pub(crate) hls: bool,
    /// Record MP4 files.
    #[arg(long)]
    pub(crate) mp4: bool,
    /// Record the sound as AAC files.
    #[arg(long)]
    pub(crate) aac: bool,
    /// Record the sound as MP3 files, where it is MP3.
    #[arg(long)]
    pub(crate) mp3: bool,
    /// Cut all files this often, 30s to 12h, at the next key picture [default: 30m]
    #[arg(long, value_name = "TIME")]
    pub(crate) interval: Option<humantime::Duration>,
    /// Cut FLV files this often.
    #[arg(long, value_name = "TIME")]
    pub(crate) flv_interval: Option<humantime::Duration>,
    /// Cut MP4 files this often.
    #[arg(long, value_name = "TIME")]
    pub(crate) mp4_interval: Option<humantime::Duration>,
    /// Cut AAC files this often.
    #[arg(long, value_name = "TIME")]
    pub(crate) aac_interval: Option<humantime::Duration>,
    /// Cut MP3 files this often.
    #[arg(long, value_name = "TIME")]
    pub(crate) mp3_interval: Option<humantime::Duration>,
    /// Keep one HLS recording over interruptions up to this long, 0s to 30m [default: 0s]
    #[arg(long, value_name = "TIME")]
    pub(crate) hls_continue: Option<humantime::Duration>,
    /// Segments of HLS: MPEG-TS, or fragmented MP4 as Apple's players need it for HEVC [default: ts]
    #[arg(long, value_name = "KIND")]
    pub(crate) hls_segments: Option<HlsSegments>,
    /// Make one MP4 of all pushes of a recording when it has ended, and keep or close the time between them; needs --hls-segments fmp4
    #[arg(long, value_name = "GAPS")]
    pub(crate) mp4_stitch: Option<Mp4Stitch>,
    /// Keep files this long, up to 1500d; 0s: for ever [default: 0s]
    #[arg(long, value_name = "TIME")]
    pub(crate) storage: Option<humantime::Duration>,
    /// Storage class of media in object storage, such as STANDARD_IA [default: objects.storage_class]
    #[arg(long, value_name = "CLASS")]
    pub(crate) storage_class: Option<String>,
    /// Place of the coordinator's settings where recordings go, as in objects.places.NAME [default: objects.url]
    #[arg(long, value_name = "NAME")]
    pub(crate) place: Option<String>,
    /// Pattern of file names, such as {StreamID}_{StartYear}-{StartMonth}-{StartDay}
    #[arg(long, value_name = "PATTERN")]
    pub(crate) file_name: Option<String>,
    #[command(flatten)]
    pub(crate) client: Client,
}

#[derive(Debug, Args)]
pub(crate) struct RuleKey {
    /// Push domain.
    #[arg(long)]
    pub(crate) domain: String,
    /// Application; absent: any.
    #[arg(long)]
    pub(crate) app: Option<String>,
    /// Stream name; absent: any.
    #[arg(long)]
    pub(crate) stream: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RuleCommand {
    /// Bind streams to a template.
    #[command(after_help = "Examples:
  aircheck rule create --domain push.example.com --template archive
  aircheck rule create --domain push.example.com --app live --stream rehearsal --template never

The most specific rule wins: domain+app+stream, then domain+stream, then domain+app, then domain.")]
    Create {
        #[command(flatten)]
        key: RuleKey,
        /// Name or id of the template.
        #[arg(long)]
        template: String,
        #[command(flatten)]
        client: Client,
    },
    /// List all rules.
    List {
        #[command(flatten)]
        client: Client,
    },
    /// Delete a rule. Streams that are live are recorded to their end.
    Delete {
        #[command(flatten)]
        key: RuleKey,
        #[command(flatten)]
        client: Client,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Of {
    /// Only of this push domain.
    #[arg(long)]
    pub(crate) domain: Option<String>,
    /// Only of this application.
    #[arg(long)]
    pub(crate) app: Option<String>,
    /// Only of this stream name.
    #[arg(long)]
    pub(crate) stream: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum WorkersCommand {
    /// List the workers of a coordinator with their state and load, as of their last heartbeats.
    #[command(after_help = "Examples:\n  aircheck worker list\n  aircheck worker list --output json")]
    List {
        #[command(flatten)]
        client: Client,
    },
    /// Have a worker take no streams any more, and wait until it has none.
    ///
    /// Encoders that understand it are asked to connect again; others are closed when their next key picture has come, all within
    /// worker.drain_handover. What it fetches from origins goes to other workers. It finishes what it has recorded and runs on, idle; started
    /// anew, it takes streams again.
    #[command(after_help = "Examples:
  aircheck worker drain worker-2
  aircheck worker drain worker-2 --no-wait
  aircheck worker drain worker-2 --undo")]
    Drain {
        /// Its name, or its id
        worker: String,
        /// Have it take streams again
        #[arg(long)]
        undo: bool,
        /// Do not wait until its streams have gone
        #[arg(long)]
        no_wait: bool,
        #[command(flatten)]
        client: Client,
    },
}

/// A moment as milliseconds since 1970; 0 for `none`.
fn moment(text: &str) -> Result<i64, String> {
    if text == "none" {
        return Ok(0);
    }
    let time: jiff::Timestamp = text.parse().map_err(|error| {
        format!("{error}; write it like 2030-01-31T18:00:00Z or 2030-01-31T18:00:00+08:00, or none")
    })?;
    Ok(time.as_millisecond())
}

#[derive(Debug, Subcommand)]
pub(crate) enum PullCommand {
    /// Fetch a stream from an origin, on whichever worker has the least to do, until told otherwise.
    #[command(after_help = "Examples:
  aircheck pull create push.example.com/live/show rtmp://origin.example.com/live/show
  aircheck pull create push.example.com/live/show http://origin.example.com/live/show.flv --until 2030-01-31T20:00:00Z
  echo 'rtmp://origin.example.com/live/show?pass=secret' | aircheck pull create push.example.com/live/show -

The stream is recorded as if it had been pushed: by the rules for its domain, app and name.
An origin on a worker's own machine needs worker.pull.allow_loopback = true there.")]
    Create {
        /// DOMAIN/APP/STREAM that it is recorded as.
        stream: String,
        /// rtmp://HOST:PORT/APP/STREAM, or http:// or https:// for HTTP-FLV; - reads it from standard input.
        url: String,
        /// Keep it without fetching it yet.
        #[arg(long)]
        paused: bool,
        /// Do not fetch it before this moment.
        #[arg(long, value_name = "TIME", value_parser = moment)]
        from: Option<i64>,
        /// Do not fetch it from this moment on.
        #[arg(long, value_name = "TIME", value_parser = moment)]
        until: Option<i64>,
        #[command(flatten)]
        client: Client,
    },
    /// Change the URL or the window of a source; what is not given stays.
    #[command(after_help = "Examples:
  aircheck pull update push.example.com/live/show --url rtmp://other.example.com/live/show
  aircheck pull update push.example.com/live/show --until none")]
    Update {
        /// The source's id, or its DOMAIN/APP/STREAM.
        pull: String,
        /// Where to fetch it from; - reads it from standard input.
        #[arg(long)]
        url: Option<String>,
        /// Begin of its window, or none.
        #[arg(long, value_name = "TIME", value_parser = moment)]
        from: Option<i64>,
        /// End of its window, or none.
        #[arg(long, value_name = "TIME", value_parser = moment)]
        until: Option<i64>,
        #[command(flatten)]
        client: Client,
    },
    /// End the running fetch of a source and begin another.
    Restart {
        /// The source's id, or its DOMAIN/APP/STREAM.
        pull: String,
        #[command(flatten)]
        client: Client,
    },
    /// Stop fetching a source, and keep it.
    Pause {
        /// The source's id, or its DOMAIN/APP/STREAM.
        pull: String,
        #[command(flatten)]
        client: Client,
    },
    /// Fetch a source again.
    Resume {
        /// The source's id, or its DOMAIN/APP/STREAM.
        pull: String,
        #[command(flatten)]
        client: Client,
    },
    /// List all sources, where each is fetched and how it fares.
    List {
        #[command(flatten)]
        client: Client,
    },
    /// Show one source.
    Get {
        /// The source's id, or its DOMAIN/APP/STREAM.
        pull: String,
        #[command(flatten)]
        client: Client,
    },
    /// Delete a source; if it is live, its stream ends.
    Delete {
        /// The source's id, or its DOMAIN/APP/STREAM.
        pull: String,
        #[command(flatten)]
        client: Client,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum StreamCommand {
    /// List live streams.
    List {
        /// Only of this push domain.
        #[arg(long)]
        domain: Option<String>,
        /// Only of this application.
        #[arg(long)]
        app: Option<String>,
        #[command(flatten)]
        client: Client,
    },
    /// Say which rule would win for a stream, and why.
    Explain {
        /// DOMAIN/APP/STREAM
        stream: String,
        #[command(flatten)]
        client: Client,
    },
}

/// What the segments of HLS are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum HlsSegments {
    Ts,
    Fmp4,
}

/// What becomes of the time between two pushes in an MP4 of all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mp4Stitch {
    /// What was shown last stays as long as the stream was away.
    Keep,
    /// The next push begins where the one before ends.
    Close,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum State {
    /// Waits for its task's start.
    Scheduled,
    /// Live, or being finished.
    Recording,
    /// Its worker is away.
    Interrupted,
    /// Complete.
    Finished,
    /// Ended without all it should hold.
    Failed,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Make a key. Its secret is printed this once.
    #[command(after_help = "Examples:
  aircheck key create --note 'billing job' --read-only
  aircheck key create --domain push.example.com --output json

A key for single domains may not change templates, which belong to all of them.")]
    Create {
        /// Words about it.
        #[arg(long, default_value = "")]
        note: String,
        /// It may read and change nothing.
        #[arg(long)]
        read_only: bool,
        /// Only for this push domain. May be repeated.
        #[arg(long)]
        domain: Vec<String>,
        #[command(flatten)]
        client: Client,
    },
    /// List all keys, without secrets.
    List {
        #[command(flatten)]
        client: Client,
    },
    /// Refuse a key from now on.
    #[command(after_help = "Example:\n  aircheck key disable AKIDz8krbsJ5yKBZQpn74WFkmLPx3EXAMPLE")]
    Disable {
        /// Its SecretId.
        secret_id: String,
        #[command(flatten)]
        client: Client,
    },
    /// Seal all secrets in the metadata store with the first key of coordinator.secrets_key_file.
    #[command(after_help = "Example:
  aircheck key reseal

Replaces the key that secrets are sealed with: put a new line in front of the file of every coordinator and restart one after the
other, reseal, take the old line out and restart them again (docs/security.md). Repeating it changes nothing.")]
    Reseal {
        #[command(flatten)]
        client: Client,
    },
}
