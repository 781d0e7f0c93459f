//! What a stopped or killed worker left: journals to finish, staged objects of nobody.

use std::path::Path;

use journal::recover::recover;
use journal::{Control, Options, Position, Progress, Publish, Writer};
use shared::lease::Grant;
use std::sync::Arc;
use tracing::{error, info, warn};

/// Name of the grant's file in a journal's directory.
pub(crate) const GRANT: &str = "grant.json";
/// Directory, in a journal's, of the recorders' states and finished files' records.
pub(crate) const NOTES: &str = "recorders";

/// A journal found at start, closed now if it was not.
#[derive(Debug)]
pub(crate) struct Adopted {
    pub(crate) publish: Publish,
    pub(crate) progress: Arc<Progress>,
    /// What the coordinator had granted before, if its answer had come.
    pub(crate) grant: Option<Grant>,
    pub(crate) reason: String,
}

/// Recovers every journal below `journals`. One that cannot be recovered is left alone and named in the log: it may hold media.
pub(crate) fn adopt_all(
    journals: &Path,
    options: Options,
    now_ms: i64,
) -> std::io::Result<Vec<(std::path::PathBuf, Adopted)>> {
    let mut found = Vec::new();
    let mut dirs: Vec<_> = std::fs::read_dir(journals)?.collect::<Result<_, _>>()?;
    dirs.sort_by_key(std::fs::DirEntry::file_name);
    for entry in dirs {
        let dir = entry.path();
        if !dir.is_dir() {
            continue;
        }
        match adopt(&dir, options, now_ms) {
            Ok(Some(adopted)) => found.push((dir, adopted)),
            Ok(None) => {}
            Err(error) => error!(dir = %dir.display(), %error, "journal cannot be recovered; it is left as it is"),
        }
    }
    Ok(found)
}

fn adopt(dir: &Path, options: Options, now_ms: i64) -> Result<Option<Adopted>, journal::JournalError> {
    let recovered = recover(dir)?;
    if recovered.torn_bytes > 0 {
        warn!(publish = %recovered.publish.id, bytes = recovered.torn_bytes, "torn tail cut off");
    }
    info!(publish = %recovered.publish.id, stream = %recovered.publish.stream, end = recovered.end.0, "journal adopted");
    let reason = match &recovered.closed {
        Some(Control::Unpublish { reason, .. }) => reason.clone(),
        _ => "worker_killed".to_owned(),
    };
    let publish = recovered.publish.clone();
    let progress = if recovered.closed.is_some() {
        Arc::new(Progress::new(recovered.snapshot))
    } else {
        let mut writer = Writer::reopen(dir, options, &recovered, Position::START, now_ms)?;
        let progress = writer.progress();
        if recovered.torn_bytes > 0 {
            let gap = Control::Gap {
                reason: "torn_tail".to_owned(),
                from_ms: recovered.snapshot.end_dts_ms,
                to_ms: recovered.snapshot.end_dts_ms,
                lost_bytes: recovered.torn_bytes,
                lost_units: None,
            };
            writer.control(&gap, now_ms)?;
        }
        writer.close(
            &Control::Unpublish {
                reason: reason.clone(),
                at_ms: now_ms,
            },
            now_ms,
        )?;
        progress
    };
    let grant = std::fs::read(dir.join(GRANT))
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok());
    Ok(Some(Adopted {
        publish,
        progress,
        grant,
        reason,
    }))
}
