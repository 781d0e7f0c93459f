//! A proxy in front of an HTTP server that does what networks and services do on their bad days.
//!
//! One request a connection. What happens to it is asked for each time, so a test may change it at any moment.

use std::io::{BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};

/// What happens to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is passed on, and so is the answer.
    None,
    /// The service asks to slow down: 503.
    Busy,
    /// These keys may not do that: 403.
    Forbidden,
    /// The connection ends in the middle of the body.
    Cut,
    /// 200, and an error for a body.
    ErrorBody,
    /// No answer.
    Hang,
    /// A bit of the body is another when it arrives.
    Damaged,
    /// It is carried out, and the answer is lost.
    AnswerLost,
    /// A list or a look at an object is answered as if nothing had been stored yet; whatever else is passed on.
    Stale,
}

/// A request that came, without its body.
#[derive(Debug, Clone)]
pub struct Passed {
    /// Method and target.
    pub line: String,
    headers: Vec<String>,
}

impl Passed {
    /// What a header says.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let said = self.headers.iter().filter_map(|header| header.split_once(':'));
        let mut said = said.filter(|(known, _)| known.eq_ignore_ascii_case(name));
        said.next().map(|(_, value)| value.trim())
    }
}

/// Requests that are remembered, the first.
const REMEMBERED: usize = 1_000;

type Policy = dyn Fn(&str, u64) -> Fault + Send + Sync;

/// A running proxy. It ends with the process.
#[derive(Clone)]
pub struct Proxy {
    address: SocketAddr,
    policy: Arc<Mutex<Arc<Policy>>>,
    requests: Arc<AtomicU64>,
    faults: Arc<AtomicU64>,
    passed: Arc<Mutex<Vec<Passed>>>,
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proxy")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

struct Request {
    /// Method and target.
    line: String,
    headers: Vec<String>,
    len: usize,
}

impl Proxy {
    /// Starts one in front of `http://HOST:PORT`.
    ///
    /// # Errors
    /// No free port.
    pub fn start(server: &str) -> Result<Self> {
        let server: SocketAddr = server.strip_prefix("http://").context("not http://")?.parse()?;
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let proxy = Self {
            address: listener.local_addr()?,
            policy: Arc::new(Mutex::new(Arc::new(|_, _| Fault::None))),
            requests: Arc::default(),
            faults: Arc::default(),
            passed: Arc::default(),
        };
        let shared = proxy.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let proxy = shared.clone();
                // A fault is a failure here too.
                std::thread::spawn(move || drop(proxy.serve(&client, server)));
            }
        });
        Ok(proxy)
    }

    /// Where it listens, `http://HOST:PORT`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on asks `policy`, with the request's line and its number, from 0.
    pub fn set(&self, policy: impl Fn(&str, u64) -> Fault + Send + Sync + 'static) {
        *self.policy.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(policy);
    }

    /// Requests so far, and those to which something was done.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        (
            self.requests.load(Ordering::Relaxed),
            self.faults.load(Ordering::Relaxed),
        )
    }

    /// The first thousand requests.
    #[must_use]
    pub fn passed(&self) -> Vec<Passed> {
        self.passed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn remember(&self, request: &Request) {
        let mut passed = self.passed.lock().unwrap_or_else(PoisonError::into_inner);
        if passed.len() < REMEMBERED {
            passed.push(Passed {
                line: request.line.clone(),
                headers: request.headers.clone(),
            });
        }
    }

    fn serve(&self, client: &TcpStream, server: SocketAddr) -> Result<()> {
        let mut reader = BufReader::new(client);
        let request = read_request(&mut reader)?;
        self.remember(&request);
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let policy = Arc::clone(&self.policy.lock().unwrap_or_else(PoisonError::into_inner));
        let fault = policy(&request.line, number);
        if fault != Fault::None {
            self.faults.fetch_add(1, Ordering::Relaxed);
        }
        match fault {
            Fault::Stale if request.line.starts_with("HEAD ") => stale(client, "404 Not Found", ""),
            Fault::Stale if request.line.contains("list-type=2") => stale(client, "200 OK", NOTHING_LISTED),
            Fault::Stale if request.line.contains("uploads=") && request.line.starts_with("GET ") => {
                stale(client, "200 OK", NOTHING_UPLOADED)
            }
            Fault::None | Fault::Stale | Fault::Damaged | Fault::AnswerLost => {
                forward(&request, reader, client, server, fault)
            }
            Fault::Cut => {
                // Half of the body is taken; what comes behind it meets a closed door.
                std::io::copy(&mut reader.take(request.len as u64 / 2), &mut std::io::sink())?;
                Ok(client.shutdown(Shutdown::Both)?)
            }
            Fault::Hang => {
                std::io::copy(&mut reader.take(request.len as u64), &mut std::io::sink())?;
                std::thread::sleep(Duration::from_secs(600));
                Ok(())
            }
            Fault::Busy => answer(client, reader, &request, "503 Slow Down", "SlowDown"),
            Fault::Forbidden => answer(client, reader, &request, "403 Forbidden", "AccessDenied"),
            Fault::ErrorBody => answer(client, reader, &request, "200 OK", "InternalError"),
        }
    }
}

fn read_request(reader: &mut impl std::io::BufRead) -> Result<Request> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let (mut headers, mut len) = (Vec::new(), 0);
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header)? <= 2 {
            break;
        }
        let (name, value) = header.split_once(':').context("not a header")?;
        if name.eq_ignore_ascii_case("content-length") {
            len = value.trim().parse()?;
        }
        if !name.eq_ignore_ascii_case("connection") {
            headers.push(header);
        }
    }
    Ok(Request { line, headers, len })
}

/// Lists of a bucket in which there is nothing.
const NOTHING_LISTED: &str = "<ListBucketResult><Name>recordings</Name><KeyCount>0</KeyCount><IsTruncated>false</IsTruncated></ListBucketResult>";
const NOTHING_UPLOADED: &str = "<ListMultipartUploadsResult><Bucket>recordings</Bucket><IsTruncated>false</IsTruncated></ListMultipartUploadsResult>";

fn stale(mut client: &TcpStream, status: &str, body: &str) -> Result<()> {
    write!(
        client,
        "HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )?;
    Ok(client.shutdown(Shutdown::Write)?)
}

fn answer(mut client: &TcpStream, reader: impl Read, request: &Request, status: &str, code: &str) -> Result<()> {
    std::io::copy(&mut reader.take(request.len as u64), &mut std::io::sink())?;
    let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>a bad day</Message></Error>");
    write!(
        client,
        "HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )?;
    Ok(client.shutdown(Shutdown::Write)?)
}

fn forward(
    request: &Request,
    mut reader: impl Read,
    mut client: &TcpStream,
    server: SocketAddr,
    fault: Fault,
) -> Result<()> {
    let mut up = TcpStream::connect(server)?;
    up.write_all(request.line.as_bytes())?;
    for header in &request.headers {
        up.write_all(header.as_bytes())?;
    }
    up.write_all(b"Connection: close\r\n\r\n")?;
    let mut left = request.len;
    let mut buffer = vec![0; 256 << 10];
    while left > 0 {
        let room = buffer.len().min(left);
        let len = reader.read(&mut buffer[..room])?;
        if len == 0 {
            break;
        }
        if fault == Fault::Damaged && left == request.len {
            buffer[len / 2] ^= 0x10;
        }
        up.write_all(&buffer[..len])?;
        left -= len;
    }
    if fault == Fault::AnswerLost {
        std::io::copy(&mut up, &mut std::io::sink())?;
        return Ok(client.shutdown(Shutdown::Both)?);
    }
    std::io::copy(&mut up, &mut client)?;
    Ok(client.shutdown(Shutdown::Write)?)
}
