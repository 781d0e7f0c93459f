//! `aircheck inspect`: what lies in journals and in the metadata store, without asking a coordinator.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use serde_json::{Value, json};
use shared::config::Overrides;
use shared::store::{self, Entry, MetaStore, Scan, keys};
use shared::time::System;

use crate::cli::{Inspect, Output};

type Done = Result<ExitCode, Box<dyn Error>>;

pub(crate) fn run(args: &Inspect) -> Done {
    let json = args.json || args.output == Output::Json;
    let mut out = std::io::stdout().lock();
    let written = match (&args.path, &args.metadata) {
        (Some(path), _) => {
            let style = if json {
                journal::Style::Json
            } else {
                journal::Style::Text
            };
            return journal::inspect(path, style, &mut out)
                .map(|()| ExitCode::SUCCESS)
                .map_err(Into::into);
        }
        (None, Some(url)) => metadata(args, url, json, &mut out),
        (None, None) => return Err("give a path, or --metadata URL".into()),
    };
    match written {
        // Whoever reads it has seen enough.
        Err(error)
            if error
                .downcast_ref::<std::io::Error>()
                .is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe) =>
        {
            Ok(ExitCode::SUCCESS)
        }
        done => done.map(|()| ExitCode::SUCCESS),
    }
}

fn metadata(args: &Inspect, url: &str, json: bool, out: &mut impl Write) -> Result<(), Box<dyn Error>> {
    let mut flags = Overrides::default();
    flags.set("store.url", url);
    let config = crate::roles::read(&args.settings, flags)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let open = store::open(&config.store, &config.node.data_dir, Arc::new(System::new()))?;
        if !json {
            write!(out, "{}", summary(open.as_ref(), &config.store.url.to_string()).await?)?;
        }
        each(open.as_ref(), &args.under, |entry| {
            let value = value(entry);
            if json {
                let line = json!({
                    "key": entry.key, "revision": entry.revision, "lease": entry.lease, "value": value,
                });
                writeln!(out, "{line}")
            } else {
                writeln!(out, "{}  r{}  {value}", entry.key, entry.revision)
            }
        })
        .await
    })
}

/// Values are JSON; what is none is shown as text.
fn value(entry: &Entry) -> Value {
    if entry.value.is_empty() {
        return Value::Null;
    }
    serde_json::from_slice(&entry.value)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&entry.value).into_owned()))
}

async fn each(
    store: &dyn MetaStore,
    under: &str,
    mut tell: impl FnMut(&Entry) -> std::io::Result<()>,
) -> Result<(), Box<dyn Error>> {
    let mut after = None;
    loop {
        let page = store.scan(Scan::prefix(under).after(after)).await?;
        for entry in &page.entries {
            tell(entry)?;
        }
        after = page.entries.last().map(|entry| entry.key.clone());
        if !page.more {
            return Ok(());
        }
    }
}

/// Who leads, and how many there are of what.
async fn summary(store: &dyn MetaStore, url: &str) -> Result<String, Box<dyn Error>> {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    let mut live = 0;
    let mut states: BTreeMap<String, u64> = BTreeMap::new();
    let mut layout = Value::Null;
    let mut leader = Value::Null;
    each(store, "", |entry| {
        let parsed = value(entry);
        let kind = entry.key.split('/').nth(1).unwrap_or("").to_owned();
        match entry.key.as_str() {
            keys::LAYOUT => layout = parsed,
            keys::LEADER => leader = parsed,
            key => {
                if key.starts_with(keys::STREAMS) && !parsed["publish"].is_null() {
                    live += 1;
                }
                if let (true, Some(state)) = (key.starts_with(keys::RECORDINGS), parsed["state"].as_str()) {
                    *states.entry(state.to_owned()).or_default() += 1;
                }
                *counts.entry(kind).or_default() += 1;
            }
        }
        Ok(())
    })
    .await?;
    let mut text = format!("{url}, layout {layout}\n");
    text += &match leader {
        Value::Null => "no leader\n".to_owned(),
        leader => format!(
            "leader {} at {}, term {}\n",
            leader["name"], leader["address"], leader["term"]
        ),
    };
    let states: Vec<String> = states.iter().map(|(state, n)| format!("{n} {state}")).collect();
    for (kind, count) in &counts {
        text += &match kind.as_str() {
            "stream" => format!("{kind:18} {count}, {live} live\n"),
            "recording" => format!("{kind:18} {count}: {}\n", states.join(", ")),
            _ => format!("{kind:18} {count}\n"),
        };
    }
    text.push('\n');
    Ok(text)
}
