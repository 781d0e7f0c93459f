//! `aircheck callback …` and `aircheck event …` on the command line.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::Client;

#[derive(Debug, Subcommand)]
pub(crate) enum CallbackCommand {
    /// Callback templates: where which kind of event goes.
    Template {
        #[command(subcommand)]
        command: CallbackTemplateCommand,
    },
    /// Callback rules: of which streams a callback template hears.
    Rule {
        #[command(subcommand)]
        command: CallbackRuleCommand,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum CallbackTemplateCommand {
    /// Make a callback template.
    #[command(after_help = "Examples:
  aircheck callback template create billing --file https://billing.example.com/recorded --key-file callback.key
  aircheck callback template create all --url https://ops.example.com/events --level error --level warning

A receiver answers 200 within 20 s. What it does not take is tried 12 times more, a minute apart.")]
    Create(CallbackTemplate),
    /// Replace what a callback template says. Events that wait go to the new URLs.
    #[command(after_help = "Example:
  aircheck callback template update billing --file https://billing.example.com/v2/recorded

URLs and levels that are not given are taken away; the key stays unless --key-file or --no-key is given.")]
    Update {
        #[command(flatten)]
        template: CallbackTemplate,
        /// Events are not signed any more.
        #[arg(long, conflicts_with = "key_file")]
        no_key: bool,
    },
    /// List all callback templates.
    List {
        #[command(flatten)]
        client: Client,
    },
    /// Remove a callback template that no rule uses.
    Delete {
        /// Its id or its name.
        template: String,
        #[command(flatten)]
        client: Client,
    },
}

#[derive(Debug, Args)]
pub(crate) struct CallbackTemplate {
    /// Its name; to update one, its id will do too.
    pub(crate) name: String,
    /// Words about it.
    #[arg(long, default_value = "")]
    pub(crate) description: String,
    /// Every kind of event that has no URL of its own goes here.
    #[arg(long, value_name = "URL")]
    pub(crate) url: Option<String>,
    /// A push begins (event_type 1).
    #[arg(long, value_name = "URL")]
    pub(crate) push_start: Option<String>,
    /// A push ends (event_type 0).
    #[arg(long, value_name = "URL")]
    pub(crate) push_end: Option<String>,
    /// A file is finished (event_type 100).
    #[arg(long, value_name = "URL")]
    pub(crate) file: Option<String>,
    /// A recording begins, pauses, goes on, ends (event_type 332).
    #[arg(long, value_name = "URL")]
    pub(crate) status: Option<String>,
    /// Something of a recording is missing (event_type 341).
    #[arg(long, value_name = "URL")]
    pub(crate) exception: Option<String>,
    /// Something is wrong with a push (event_type 321).
    #[arg(long, value_name = "URL")]
    pub(crate) push_exception: Option<String>,
    /// Tell only exceptions of this level: error, warning or info. May be repeated.
    #[arg(long, value_name = "LEVEL")]
    pub(crate) level: Vec<String>,
    /// Sign events with the key in this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) key_file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) client: Client,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CallbackRuleCommand {
    /// Let a callback template hear of a domain's streams, or of those of one application.
    #[command(after_help = "Examples:
  aircheck callback rule create --domain push.example.com --template all
  aircheck callback rule create --domain push.example.com --app live --template billing

The rule for the application comes before that for the whole domain; only one hears of a stream.")]
    Create {
        #[command(flatten)]
        place: CallbackPlace,
        /// Id or name of a callback template.
        #[arg(long)]
        template: String,
        #[command(flatten)]
        client: Client,
    },
    /// List all callback rules.
    List {
        #[command(flatten)]
        client: Client,
    },
    /// Remove the rule for exactly this domain and application.
    Delete {
        #[command(flatten)]
        place: CallbackPlace,
        #[command(flatten)]
        client: Client,
    },
}

#[derive(Debug, Args)]
pub(crate) struct CallbackPlace {
    /// Push domain.
    #[arg(long)]
    pub(crate) domain: String,
    /// Application; absent: any that has no rule of its own.
    #[arg(long)]
    pub(crate) app: Option<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum EventState {
    /// On its way.
    Pending,
    /// Its receiver has it.
    Delivered,
    /// It is not tried any more.
    GivenUp,
}

#[derive(Debug, Subcommand)]
pub(crate) enum EventCommand {
    /// List events: those on their way first, the newest first.
    #[command(after_help = "Examples:
  aircheck event list --state pending
  aircheck event list --state given-up --limit 20 --output json")]
    List {
        /// Only those that stand so.
        #[arg(long, value_enum)]
        state: Option<EventState>,
        /// Most events to show.
        #[arg(long, default_value_t = 100)]
        limit: usize,
        #[command(flatten)]
        client: Client,
    },
    /// Show one event with what it says.
    Show {
        /// The event's id.
        event: String,
        #[command(flatten)]
        client: Client,
    },
    /// Send an event once more, under its id.
    #[command(after_help = "Example:
  aircheck event replay 01a2b3c4d5e6f708-0

Events are kept for coordinator.events.keep (3 days), at most coordinator.events.keep_max (10000) changes.")]
    Replay {
        /// The event's id.
        event: String,
        #[command(flatten)]
        client: Client,
    },
}
