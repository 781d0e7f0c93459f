//! `aircheck compose …` on the command line.

use clap::Subcommand;

use super::Client;

#[derive(Debug, Subcommand)]
pub(crate) enum ComposeCommand {
    /// Ask for one MP4 of pieces of stored files. Nothing is coded anew: each piece begins with the key picture at or before the time that it is
    /// asked from, and ends in front of one at or behind the time that it is asked to.
    #[command(after_help = "Examples:
  aircheck compose create 0198f3b2-… 0198f3b3-… --name show --wait
  aircheck compose create 0198f3b2-…@90s..2m30s --name goal
  aircheck compose create 0198f3b2-…@..10m 0198f3b2-…@20m.. --name without-the-break --output json")]
    Create {
        /// FILE or FILE@FROM..TO, times from the file's beginning; one that is left out is its beginning or end.
        #[arg(required = true)]
        pieces: Vec<String>,
        /// Name of the new file, without extension.
        #[arg(long)]
        name: String,
        /// Words about it.
        #[arg(long, default_value = "")]
        description: String,
        /// Leave the pictures out.
        #[arg(long)]
        no_video: bool,
        /// Leave the sound out.
        #[arg(long, conflicts_with = "no_video")]
        no_audio: bool,
        /// Nothing else is made with the same token within three days.
        #[arg(long, default_value = "")]
        token: String,
        /// Wait until it is there, and fail if it will not be.
        #[arg(long)]
        wait: bool,
        #[command(flatten)]
        client: Client,
    },
    /// Show how one stands.
    Get {
        /// Its id.
        composition: String,
        #[command(flatten)]
        client: Client,
    },
    /// List them, the newest first. Those that have ended are kept for three days.
    List {
        #[command(flatten)]
        client: Client,
    },
}
