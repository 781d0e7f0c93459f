//! `aircheck recording …`, `aircheck file …` and `aircheck recover` on the command line.

use clap::{Args, Subcommand};

use super::{Client, Of, Settings, State};

#[derive(Debug, Subcommand)]
pub(crate) enum RecordingCommand {
    /// List recordings, the newest first.
    #[command(after_help = "Examples:
  aircheck recording list --state finished
  aircheck recording list --stream show --output json")]
    List {
        #[command(flatten)]
        of: Of,
        /// Only in this state.
        #[arg(long, value_enum)]
        state: Option<State>,
        #[command(flatten)]
        client: Client,
    },
    /// Show one recording and its files.
    Get {
        /// The recording's id.
        recording: String,
        #[command(flatten)]
        client: Client,
    },
    /// Lock a recording: none of its files is removed, neither when their storage time is over nor by anybody.
    #[command(after_help = "Example:\n  aircheck recording lock 0198f3b2-…")]
    Lock {
        /// The recording's id.
        recording: String,
        #[command(flatten)]
        client: Client,
    },
    /// Take the lock of a recording away. Files that are locked themselves stay locked.
    #[command(after_help = "Example:\n  aircheck recording unlock 0198f3b2-…")]
    Unlock {
        /// The recording's id.
        recording: String,
        #[command(flatten)]
        client: Client,
    },
    /// Say which rule would win for a stream and why, and what was recorded of it.
    #[command(after_help = "Example:\n  aircheck recording explain push.example.com/live/show")]
    Explain {
        /// DOMAIN/APP/STREAM
        stream: String,
        #[command(flatten)]
        client: Client,
    },
    /// Wait until every recording of a stream has ended.
    #[command(after_help = "Example:\n  aircheck recording wait --stream show --timeout 1m")]
    Wait {
        #[command(flatten)]
        of: Of,
        /// Give up after this long.
        #[arg(long, value_name = "TIME", default_value = "10m")]
        timeout: humantime::Duration,
        #[command(flatten)]
        client: Client,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum FileCommand {
    /// List finished files, the newest first.
    #[command(after_help = "Examples:
  aircheck file list --stream show
  aircheck file list --recording 0198f3b2-… --format mp4 --output json")]
    List {
        #[command(flatten)]
        of: Of,
        /// Only of this recording.
        #[arg(long, value_name = "ID")]
        recording: Option<String>,
        /// Only of this format.
        #[arg(long)]
        format: Option<String>,
        #[command(flatten)]
        client: Client,
    },
    /// Show one file.
    Get {
        /// The file's id.
        file: String,
        #[command(flatten)]
        client: Client,
    },
    /// Lock a file: it is not removed, neither when its storage time is over nor by anybody.
    #[command(after_help = "Examples:
  aircheck file lock 0198f3b2-…
  aircheck recording lock 0198f3b1-…    (all files of a recording)")]
    Lock {
        /// The file's id.
        file: String,
        #[command(flatten)]
        client: Client,
    },
    /// Take the lock of a file away. If its storage time is over it goes within a minute.
    #[command(after_help = "Example:\n  aircheck file unlock 0198f3b2-…")]
    Unlock {
        /// The file's id.
        file: String,
        #[command(flatten)]
        client: Client,
    },
    /// Remove a file from the library and from storage.
    #[command(after_help = "Example:\n  aircheck file delete 0198f3b2-…")]
    Delete {
        /// The file's id.
        file: String,
        #[command(flatten)]
        client: Client,
    },
    /// List what is still to be copied to the second place of objects, and what went wrong.
    #[command(after_help = "Example:\n  aircheck file copies --output json")]
    Copies {
        #[command(flatten)]
        client: Client,
    },
    /// List files that have left the library and that storage has not let go yet, and why.
    #[command(after_help = "Example:\n  aircheck file removals --output json")]
    Removals {
        #[command(flatten)]
        client: Client,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Recover {
    /// Where media lies: s3://BUCKET/PREFIX or file:///FOLDER, as the workers had it; with objects.url go all places of the settings.
    #[arg(long, value_name = "URL")]
    pub(crate) from_objects: String,
    /// Only say what would be restored.
    #[arg(long)]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) settings: Settings,
    #[command(flatten)]
    pub(crate) client: Client,
}
