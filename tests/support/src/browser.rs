//! A headless Chromium that opens one page, and the little server the page comes from.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use serde_json::Value;

use crate::programs::root;

/// A page tells within this time how it went, browser start included. A dozen of them share two cores with what is being tested.
const LIMIT: Duration = Duration::from_secs(120);

/// Opens `tests/players/player.html` with this query, media from `folder`, and returns what the page reports.
///
/// # Errors
/// No Chromium, or no report in time.
pub fn play(folder: &Path, query: &str) -> Result<Value> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let address = listener.local_addr()?;
    let (tell, report) = channel();
    let served = folder.to_owned();
    // It ends with the test's process.
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let (served, tell) = (served.clone(), tell.clone());
            std::thread::spawn(move || answer(&socket, &served, &tell));
        }
    });
    let profile = tempfile::tempdir()?;
    let browser = Browser::open(profile.path(), &format!("http://{address}/player.html?{query}"))?;
    let said = wait_for(&report);
    drop(browser);
    said
}

fn wait_for(report: &Receiver<String>) -> Result<Value> {
    let text = report
        .recv_timeout(LIMIT)
        .map_err(|_| anyhow!("the page did not report within {LIMIT:?}"))?;
    Ok(serde_json::from_str(&text)?)
}

struct Browser(Child);

impl Browser {
    fn open(profile: &Path, url: &str) -> Result<Self> {
        for program in ["chromium", "chromium-browser", "google-chrome"] {
            let mut command = Command::new(program);
            command
                .args([
                    "--headless",
                    "--no-sandbox",
                    "--disable-gpu",
                    "--disable-quic",
                    "--no-first-run",
                ])
                .args([
                    "--disable-background-networking",
                    "--disable-component-update",
                    "--disable-sync",
                ])
                .args([
                    "--disable-dev-shm-usage",
                    "--autoplay-policy=no-user-gesture-required",
                    "--mute-audio",
                ])
                // A real page stays open; without this the browser prints the page and ends.
                .arg("--remote-debugging-port=0")
                .arg(format!("--user-data-dir={}", profile.display()))
                .arg(url)
                .env("HOME", profile)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null());
            match command.spawn() {
                Ok(child) => return Ok(Self(child)),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
        }
        bail!("no Chromium: deploy/setup/install test installs it")
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Asked to end, it takes its helpers along.
        let asked = Command::new("kill").arg(self.0.id().to_string()).status();
        if asked.is_err() {
            let _ = self.0.kill();
        }
        let _ = self.0.wait();
    }
}

fn answer(mut socket: &TcpStream, folder: &Path, tell: &Sender<String>) -> Result<()> {
    let mut reader = BufReader::new(socket);
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let (mut length, mut line) = (0, String::new());
    while reader.read_line(&mut line)? > 2 {
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse()?;
        }
        line.clear();
    }
    let mut words = request.split(' ');
    let (method, target) = (words.next().unwrap_or(""), words.next().context("no target")?);
    let path = target.split('?').next().unwrap_or("");
    if method == "POST" {
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        tell.send(String::from_utf8(body)?)?;
        socket.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")?;
        return Ok(());
    }
    let players = root().join("tests/players");
    let file: PathBuf = match path {
        "/player.html" => players.join("player.html"),
        "/hls.js" => players.join("node_modules/hls.js/dist/hls.js"),
        _ => folder.join(path.strip_prefix("/media/").unwrap_or("favicon.ico")),
    };
    let kind = match file.extension().and_then(|extension| extension.to_str()) {
        Some("html") => "text/html",
        Some("js") => "text/javascript",
        Some("m3u8") => "application/vnd.apple.mpegurl",
        Some("ts") => "video/mp2t",
        _ => "application/octet-stream",
    };
    let (status, body) = match std::fs::read(&file) {
        Ok(body) => ("200 OK", body),
        Err(_) => ("404 Not Found", Vec::new()),
    };
    write!(
        socket,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    )?;
    Ok(socket.write_all(&body)?)
}
