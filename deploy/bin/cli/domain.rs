//! `aircheck domain …` on the command line.

use clap::Subcommand;

use super::Client;
use crate::when::When;

#[derive(Debug, Subcommand)]
pub(crate) enum DomainCommand {
    /// Add a push domain; it asks for push keys, and gets a random one.
    #[command(after_help = "Examples:
  aircheck domain create push.example.com
  aircheck domain create studio.local --open")]
    Create {
        /// A host's name.
        domain: String,
        /// Pushes need no key.
        #[arg(long)]
        open: bool,
        #[command(flatten)]
        client: Client,
    },
    /// List push domains.
    List {
        #[command(flatten)]
        client: Client,
    },
    /// Show a push domain.
    Get {
        /// Its name.
        domain: String,
        #[command(flatten)]
        client: Client,
    },
    /// Change what is given of a push domain. Pushes that run go on.
    #[command(after_help = "Examples:
  aircheck domain update push.example.com --enabled false
  aircheck domain update push.example.com --backup-key - < newkey
  aircheck domain update push.example.com --push-auth true --grace 1h")]
    Update {
        /// Its name.
        domain: String,
        /// Take pushes, or none.
        #[arg(long)]
        enabled: Option<bool>,
        /// Ask for push keys, or not.
        #[arg(long)]
        push_auth: Option<bool>,
        /// First key; - reads it from standard input, empty takes it away.
        #[arg(long, value_name = "KEY")]
        master_key: Option<String>,
        /// Second key, which is as good; - reads it from standard input, empty takes it away.
        #[arg(long, value_name = "KEY", conflicts_with = "master_key")]
        backup_key: Option<String>,
        /// For how long a push URL is good after its time, up to 30d.
        #[arg(long, value_name = "TIME")]
        grace: Option<humantime::Duration>,
        #[command(flatten)]
        client: Client,
    },
    /// Forget a push domain and its keys.
    Delete {
        /// Its name.
        domain: String,
        #[command(flatten)]
        client: Client,
    },
    /// Show the push keys of a domain.
    Keys {
        /// Its name.
        domain: String,
        #[command(flatten)]
        client: Client,
    },
    /// End a stream's push. Its publisher may come again.
    #[command(after_help = "Example:\n  aircheck domain drop push.example.com/live/show")]
    Drop {
        /// DOMAIN/APP/STREAM
        stream: String,
        #[command(flatten)]
        client: Client,
    },
    /// End a stream's push and refuse its pushes for a while.
    #[command(after_help = "Example:\n  aircheck domain ban push.example.com/live/show --until +1h --reason rights")]
    Ban {
        /// DOMAIN/APP/STREAM
        stream: String,
        /// RFC 3339, seconds since 1970, or from now: +10m; at most 90 days ahead [default: +7d]
        #[arg(long, value_name = "WHEN")]
        until: Option<When>,
        /// Words about it.
        #[arg(long, default_value = "")]
        reason: String,
        #[command(flatten)]
        client: Client,
    },
    /// List bans that are in force.
    Bans {
        #[command(flatten)]
        client: Client,
    },
    /// Let a stream be pushed again.
    Unban {
        /// DOMAIN/APP/STREAM
        stream: String,
        #[command(flatten)]
        client: Client,
    },
}
