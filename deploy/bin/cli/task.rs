//! `aircheck task …` on the command line.

use clap::{Args, Subcommand, ValueEnum};

use super::{Client, Of};
use crate::when::When;

#[derive(Debug, Subcommand)]
pub(crate) enum TaskCommand {
    /// Record a stream between two moments, whatever the rules say of it.
    #[command(after_help = "Examples:
  aircheck task create push.example.com/live/show --start 2026-11-23T20:00:00Z --end 2026-11-23T22:00:00Z
  aircheck task create push.example.com/live/show --start +10m --for 2h --template archive
  aircheck task create push.example.com/live/show --for 30m

Times: RFC 3339, seconds since 1970, `now`, or counted from now as +10m and -20s. Without --start it begins now, and
the stream must be live. A start in the past reaches back as far as the stream's journal is kept
(worker.journal.preroll, 30 s by default). A template that is not known stands for none: FLV files of 30 minutes.")]
    Create(Create),
    /// Record what a live stream sent just now, and go on for a while.
    #[command(after_help = "Example:
  aircheck task highlight push.example.com/live/show --last 20s --for 1m

This is `task create` with a start in the past, for a stream that must be live.")]
    Highlight {
        /// DOMAIN/APP/STREAM
        stream: String,
        /// Reach back so far; at most what is kept of the stream (worker.journal.preroll).
        #[arg(long, value_name = "TIME", default_value = "30s")]
        last: humantime::Duration,
        /// Go on for so long from now.
        #[arg(long = "for", value_name = "TIME", default_value = "1m")]
        length: humantime::Duration,
        /// Name or id of a template.
        #[arg(long)]
        template: Option<String>,
        #[command(flatten)]
        client: Client,
    },
    /// End a task now. What was recorded is kept and finished.
    Stop {
        /// The task's id.
        task: String,
        #[command(flatten)]
        client: Client,
    },
    /// Remove a task; its recordings and files stay. One that records must be stopped first.
    Delete {
        /// The task's id.
        task: String,
        /// Remove it also while it records: that goes on to the end of the push or of the task's time.
        #[arg(long)]
        let_run: bool,
        #[command(flatten)]
        client: Client,
    },
    /// Show one task with its recordings and their files.
    Get {
        /// The task's id.
        task: String,
        #[command(flatten)]
        client: Client,
    },
    /// List tasks, the newest first.
    #[command(after_help = "Examples:
  aircheck task list --state recording
  aircheck task list --stream show --from -1h --to +1d
  aircheck task list --from 2026-11-01T00:00:00Z --to 2026-11-08T00:00:00Z --within --output json")]
    List(List),
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// DOMAIN/APP/STREAM
    pub(crate) stream: String,
    /// When to begin [default: now, and then the stream must be live]
    #[arg(long, value_name = "WHEN", allow_hyphen_values = true)]
    pub(crate) start: Option<When>,
    /// When to end: at most 24 h after the start and 7 days from now, unless configured otherwise.
    #[arg(
        long,
        value_name = "WHEN",
        allow_hyphen_values = true,
        required_unless_present = "length",
        conflicts_with = "length"
    )]
    pub(crate) end: Option<When>,
    /// End so long after the start.
    #[arg(long = "for", value_name = "TIME")]
    pub(crate) length: Option<humantime::Duration>,
    /// Name or id of a template, frozen now [default: FLV files of 30 minutes, kept for ever]
    #[arg(long)]
    pub(crate) template: Option<String>,
    /// The stream is the output of a mix. It is recorded like any push of its name.
    #[arg(long)]
    pub(crate) mixed: bool,
    /// A word of yours for this task: the same command with the same token makes no second task.
    #[arg(long)]
    pub(crate) token: Option<String>,
    #[command(flatten)]
    pub(crate) client: Client,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    #[command(flatten)]
    pub(crate) of: Of,
    /// Only in this state.
    #[arg(long, value_enum)]
    pub(crate) state: Option<TaskState>,
    /// Only tasks whose time reaches beyond this moment.
    #[arg(long, value_name = "WHEN", allow_hyphen_values = true)]
    pub(crate) from: Option<When>,
    /// Only tasks whose time begins before this moment.
    #[arg(long, value_name = "WHEN", allow_hyphen_values = true)]
    pub(crate) to: Option<When>,
    /// Only tasks whose whole time lies between --from and --to.
    #[arg(long, requires = "from", requires = "to")]
    pub(crate) within: bool,
    #[command(flatten)]
    pub(crate) client: Client,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TaskState {
    /// Its start has not come.
    Scheduled,
    /// Its time is running and the stream is not live.
    Waiting,
    /// The stream is live and recorded.
    Recording,
    /// The stream's worker is away.
    Interrupted,
    /// Its files are being finished.
    Finishing,
    /// Everything recorded is in the library.
    Completed,
    /// Nothing, or not everything, was recorded.
    Failed,
    /// Stopped before anything was recorded.
    Cancelled,
}
