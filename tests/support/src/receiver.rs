//! A receiver of events: a web server that writes down what it is sent and answers as it is told to, also badly.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

/// Longest head of a request, bytes.
const MAX_HEAD: usize = 64 << 10;
/// For how long a request that hangs is held.
const HANG: Duration = Duration::from_secs(60);

/// What came.
#[derive(Debug, Clone)]
pub struct Heard {
    /// Path of the URL.
    pub path: String,
    /// The header `aircheck-event-id`.
    pub id: String,
    /// The header `content-type`.
    pub content_type: String,
    /// The body.
    pub body: Value,
    /// When it was there.
    pub at: Instant,
}

impl Heard {
    /// `event_type`.
    #[must_use]
    pub fn kind(&self) -> i64 {
        self.body["event_type"].as_i64().unwrap_or(-1)
    }
}

/// How a request is answered.
#[derive(Debug, Clone)]
pub enum Answer {
    /// 200.
    Take,
    /// Another status.
    Status(u16),
    /// 302 to there.
    Redirect(String),
    /// Not at all.
    Hang,
    /// Half an answer, and the connection is closed.
    Die,
}

type Script = dyn FnMut(&Heard) -> Answer + Send;

/// A running receiver. It ends with the process.
#[derive(Debug, Clone)]
pub struct Receiver {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<Heard>>>,
}

fn locked<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Receiver {
    /// Starts one that takes everything.
    ///
    /// # Errors
    /// There is no port.
    pub fn start() -> Result<Self> {
        Self::scripted(|_| Answer::Take)
    }

    /// Starts one that answers as `script` says.
    ///
    /// # Errors
    /// There is no port.
    pub fn scripted(script: impl FnMut(&Heard) -> Answer + Send + 'static) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let receiver = Receiver {
            address: listener.local_addr()?,
            heard: Arc::default(),
        };
        let script: Arc<Mutex<Box<Script>>> = Arc::new(Mutex::new(Box::new(script)));
        let heard = Arc::clone(&receiver.heard);
        thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let (heard, script) = (Arc::clone(&heard), Arc::clone(&script));
                // A client that goes away in the middle has said nothing.
                thread::spawn(move || drop(serve(socket, &heard, &script)));
            }
        });
        Ok(receiver)
    }

    /// A URL of it.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Everything that came, doubles included, in its order.
    #[must_use]
    pub fn heard(&self) -> Vec<Heard> {
        locked(&self.heard).clone()
    }

    /// What came, each event once.
    #[must_use]
    pub fn events(&self) -> Vec<Heard> {
        let mut known = std::collections::BTreeSet::new();
        let mut events = self.heard();
        events.retain(|heard| known.insert(heard.id.clone()));
        events
    }

    /// Waits until what came fits.
    ///
    /// # Errors
    /// It does not in time; with what came.
    pub fn until(&self, limit: Duration, fits: impl Fn(&[Heard]) -> bool) -> Result<Vec<Heard>> {
        let begin = Instant::now();
        loop {
            let heard = self.heard();
            if fits(&heard) {
                return Ok(heard);
            }
            if begin.elapsed() > limit {
                let told: Vec<String> = heard.iter().map(|heard| heard.body.to_string()).collect();
                bail!("after {limit:?} the receiver heard only {told:#?}");
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

fn serve(mut socket: TcpStream, heard: &Mutex<Vec<Heard>>, script: &Mutex<Box<Script>>) -> Result<()> {
    socket.set_read_timeout(Some(HANG))?;
    let mut bytes = Vec::new();
    let mut buffer = [0; 4_096];
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        let len = socket.read(&mut buffer)?;
        ensure!(len > 0 && bytes.len() < MAX_HEAD, "no request");
        bytes.extend_from_slice(buffer.get(..len).unwrap_or_default());
    };
    let head = String::from_utf8(bytes.get(..end).unwrap_or_default().to_vec())?;
    let mut lines = head.lines();
    let path = lines
        .next()
        .and_then(|line| line.split(' ').nth(1))
        .context("no path")?
        .to_owned();
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let header = |wanted: &str| {
        let found = headers.iter().find(|(name, _)| name == wanted);
        found.map(|(_, value)| value.clone()).unwrap_or_default()
    };
    let length: usize = header("content-length").parse()?;
    while bytes.len() < end + length {
        let len = socket.read(&mut buffer)?;
        ensure!(len > 0, "half a body");
        bytes.extend_from_slice(buffer.get(..len).unwrap_or_default());
    }
    let one = Heard {
        path,
        id: header("aircheck-event-id"),
        content_type: header("content-type"),
        body: serde_json::from_slice(bytes.get(end..end + length).unwrap_or_default())?,
        at: Instant::now(),
    };
    let answer = (locked(script))(&one);
    locked(heard).push(one);
    match answer {
        Answer::Take => socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n{\"code\":0}")?,
        Answer::Status(status) => {
            socket.write_all(format!("HTTP/1.1 {status} No\r\ncontent-length: 0\r\n\r\n").as_bytes())?;
        }
        Answer::Redirect(url) => socket
            .write_all(format!("HTTP/1.1 302 Found\r\nlocation: {url}\r\ncontent-length: 0\r\n\r\n").as_bytes())?,
        // Until the other side gives up.
        Answer::Hang => drop(socket.read(&mut buffer)),
        Answer::Die => socket.write_all(b"HTTP/1.1 20")?,
    }
    socket.shutdown(Shutdown::Both)?;
    Ok(())
}
