//! Client commands: one gRPC call each, printed as a table for people or as JSON for programs.

pub(crate) mod callbacks;
pub(crate) mod compose;
pub(crate) mod domains;
pub(crate) mod events;
pub(crate) mod files;
pub(crate) mod keys;
pub(crate) mod pulls;
pub(crate) mod recordings;
pub(crate) mod recover;
pub(crate) mod rules;
pub(crate) mod streams;
pub(crate) mod tasks;
pub(crate) mod templates;
pub(crate) mod workers;

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use jiff::Timestamp;
use proto::v1;
use serde_json::{Value, json};
use shared::auth::{Caller, Secret, tls::Certificates};
use shared::config::TlsConfig;
use shared::ids::StreamKey;
use shared::servers::{Manner, Servers};
use tonic::service::interceptor::InterceptedService;

use crate::cli::{Client, Output};

/// What every command comes to.
pub(crate) type Done = Result<(), Box<dyn Error + Send + Sync>>;

/// Entries asked for at once; the lists of a coordinator are read page by page.
pub(crate) const PAGE: u32 = 500;

/// Time for one call.
const LIMIT: Duration = Duration::from_secs(10);
/// For how long a command waits for coordinators to agree on a leader.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs a command on a small runtime.
pub(crate) fn run(command: impl Future<Output = Done>) -> Result<ExitCode, Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(command).map_err(|e| -> Box<dyn Error> { e })?;
    Ok(ExitCode::SUCCESS)
}

/// The way to the coordinators.
pub(crate) type Way = InterceptedService<Servers, Caller>;

/// The way to the coordinators that the command names; connects when first asked.
pub(crate) fn connect(client: &Client) -> Result<Way, Box<dyn Error + Send + Sync>> {
    let urls: Vec<String> = client.server.split(',').map(|url| url.trim().to_owned()).collect();
    let manner = Manner {
        limit: LIMIT,
        patience: Some(PATIENCE),
        first: 0,
    };
    let caller = caller(client)?;
    let servers = Servers::new(&urls, &caller, manner).map_err(|error| format!("--server {error}"))?;
    Ok(InterceptedService::new(servers, caller))
}

/// What the command shows to the coordinator.
fn caller(client: &Client) -> Result<Caller, Box<dyn Error + Send + Sync>> {
    let token = match (&client.api_token, &client.token_file) {
        (_, Some(path)) => Some(Secret::read(path)?),
        (Some(text), None) => Some(Secret::new(text).map_err(|error| format!("AIRCHECK_API_TOKEN: {error}"))?),
        (None, None) => None,
    };
    let tls = TlsConfig {
        ca_file: client.ca_file.clone(),
        ..TlsConfig::default()
    };
    Ok(Caller::new(token.as_ref(), Some(Certificates::load(&tls)?))?)
}

/// A refusal in the server's own words.
pub(crate) fn said(status: tonic::Status) -> Box<dyn Error + Send + Sync> {
    let message = status.message();
    if message.is_empty() {
        status.to_string().into()
    } else if message.starts_with("no coordinator at") {
        format!("{message}. Is it running? Say where with --server").into()
    } else {
        message.to_owned().into()
    }
}

/// Prints a document as JSON, or as `text` says it.
pub(crate) fn print(client: &Client, document: &Value, text: impl FnOnce() -> String) -> Done {
    let mut out = std::io::stdout().lock();
    let written = match client.output {
        Output::Json => serde_json::to_writer_pretty(&mut out, document)
            .map_err(std::io::Error::from)
            .and_then(|()| writeln!(out)),
        Output::Text => out.write_all(text().as_bytes()),
    };
    match written {
        // Whoever reads it has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        done => Ok(done?),
    }
}

/// A table with a line of headings; columns are as wide as their widest cell.
pub(crate) fn table(headings: &[&str], rows: &[Vec<String>]) -> String {
    let heading: Vec<String> = headings.iter().map(|h| h.to_uppercase()).collect();
    let mut widths = vec![0; headings.len()];
    for row in std::iter::once(&heading).chain(rows) {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in std::iter::once(&heading).chain(rows) {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        text += cells.join("  ").trim_end();
        text.push('\n');
    }
    text
}

/// A time of day in UTC, to the second; empty for none.
pub(crate) fn when(ms: i64) -> String {
    if ms == 0 {
        return String::new();
    }
    Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), |t| t.strftime("%Y-%m-%d %H:%M:%S").to_string())
}

/// A time for programs: RFC 3339 in UTC; null for none.
pub(crate) fn instant(ms: i64) -> Value {
    match Timestamp::from_millisecond(ms) {
        Ok(time) if ms != 0 => json!(time.to_string()),
        _ => Value::Null,
    }
}

/// A length of time as `1:02:03.4`.
pub(crate) fn length(ms: u64) -> String {
    let (s, tenths) = (ms / 1000, ms % 1000 / 100);
    if s >= 3600 {
        format!("{}:{:02}:{:02}.{tenths}", s / 3600, s / 60 % 60, s % 60)
    } else {
        format!("{}:{:02}.{tenths}", s / 60, s % 60)
    }
}

/// Bytes with a unit.
pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    let mut unit = "B";
    let (mut whole, mut tenth) = (n, 0);
    for next in UNITS {
        if whole < 1000 {
            break;
        }
        (whole, tenth, unit) = (whole / 1000, whole % 1000 / 100, next);
    }
    if unit == "B" {
        format!("{n} B")
    } else {
        format!("{whole}.{tenth} {unit}")
    }
}

pub(crate) fn stream_name(key: Option<&v1::StreamKey>) -> String {
    let name = |k: &v1::StreamKey| match StreamKey::new(&k.domain, &k.app, &k.stream) {
        // As `recording explain` reads it back.
        Ok(key) => key.to_string(),
        Err(_) => format!("{}/{}/{}", k.domain, k.app, k.stream),
    };
    key.map_or_else(String::new, name)
}

pub(crate) fn stream_json(key: Option<&v1::StreamKey>) -> Value {
    key.map_or(
        Value::Null,
        |k| json!({ "domain": k.domain, "app": k.app, "stream": k.stream }),
    )
}

pub(crate) fn parse_stream(text: &str) -> Result<v1::StreamKey, Box<dyn Error + Send + Sync>> {
    Ok((&text.parse::<StreamKey>().map_err(|e| e.to_string())?).into())
}

pub(crate) fn format_name(number: i32) -> String {
    shared::wire::format(number).map_or_else(|_| number.to_string(), |f| f.as_str().to_owned())
}

pub(crate) fn gaps_json(gaps: &[v1::Gap]) -> Value {
    let one = |g: &v1::Gap| json!({ "reason": g.reason, "from_ms": g.from_ms, "to_ms": g.to_ms, "units": g.units });
    Value::Array(gaps.iter().map(one).collect())
}

/// A filter that was not given is empty.
pub(crate) fn given(text: Option<&String>) -> String {
    text.cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!(
            [bytes(999), bytes(1_000), bytes(1_234_567)],
            ["999 B", "1.0 kB", "1.2 MB"]
        );
        assert_eq!(
            [length(0), length(61_450), length(3_723_400)],
            ["0:00.0", "1:01.4", "1:02:03.4"]
        );
        assert_eq!(when(1_700_000_000_000), "2023-11-14 22:13:20");
    }

    #[test]
    fn columns_line_up() {
        let rows = [
            vec!["a".to_owned(), "long".to_owned()],
            vec!["bcd".to_owned(), String::new()],
        ];
        assert_eq!(table(&["x", "y"], &rows), "X    Y\na    long\nbcd\n");
    }
}
