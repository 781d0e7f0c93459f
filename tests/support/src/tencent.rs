//! Tencent's own SDKs as clients: a process each, asked by lines of JSON.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use crate::programs::{python, root};
use crate::server::Server;

/// Which SDK, and how it signs.
#[derive(Debug, Clone, Copy)]
pub enum Client {
    /// Python with these further arguments of `tests/clients/tencent.py`.
    Python(&'static [&'static str]),
    /// Node with these further arguments of `tests/clients/tencent.mjs`.
    Node(&'static [&'static str]),
}

/// Every form of request that the SDKs can send.
pub const CLIENTS: [Client; 10] = [
    Client::Python(&[]),
    Client::Python(&["--method", "GET"]),
    Client::Python(&["--unsigned-payload"]),
    Client::Python(&["--sign", "HmacSHA1"]),
    Client::Python(&["--sign", "HmacSHA256", "--method", "GET"]),
    Client::Python(&["--asynchronous"]),
    Client::Python(&["--asynchronous", "--sign", "HmacSHA256"]),
    Client::Node(&[]),
    Client::Node(&["--method", "GET"]),
    Client::Node(&["--sign", "HmacSHA256"]),
];

/// A key of the HTTP API.
#[derive(Debug, Clone)]
pub struct Key {
    /// `SecretId`.
    pub id: String,
    /// `SecretKey`.
    pub secret: String,
}

impl Key {
    /// Makes one by the command line, with further arguments of `aircheck key create`.
    ///
    /// # Errors
    /// The command fails.
    pub fn create(server: &Server, more: &[&str]) -> Result<Self> {
        let made = server.ask(&[&["key", "create"], more].concat())?;
        let text = |name: &str| {
            let text = made[name].as_str().with_context(|| format!("no {name} in {made}"))?;
            Ok::<_, anyhow::Error>(text.to_owned())
        };
        Ok(Key {
            id: text("secret_id")?,
            secret: text("secret_key")?,
        })
    }
}

/// A running client.
#[derive(Debug)]
pub struct Sdk {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Drop for Sdk {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the SDK made of a refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The documented code.
    pub code: String,
    /// In words.
    pub message: String,
}

impl Sdk {
    /// Starts a client against `endpoint`.
    ///
    /// # Errors
    /// It is not installed (deploy/setup/install test).
    pub fn start(client: Client, endpoint: SocketAddr, key: &Key) -> Result<Self> {
        let folder = root().join("tests/clients");
        let (mut command, more) = match client {
            Client::Python(more) => {
                let mut command = Command::new(python());
                command.arg("-B").arg(folder.join("tencent.py"));
                (command, more)
            }
            Client::Node(more) => {
                let mut command = Command::new("node");
                command.arg(folder.join("tencent.mjs"));
                (command, more)
            }
        };
        command
            .args([
                "--endpoint",
                &endpoint.to_string(),
                "--id",
                &key.id,
                "--secret",
                &key.secret,
            ])
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        for proxy in [
            "http_proxy",
            "HTTP_PROXY",
            "https_proxy",
            "HTTPS_PROXY",
            "all_proxy",
            "ALL_PROXY",
        ] {
            command.env_remove(proxy);
        }
        let mut child = command.spawn().with_context(|| format!("starting {command:?}"))?;
        let input = child.stdin.take().context("no standard input")?;
        let output = BufReader::new(child.stdout.take().context("no standard output")?);
        Ok(Sdk { child, input, output })
    }

    /// Asks, and gives the answer or the refusal; every refusal must name its request.
    ///
    /// # Errors
    /// The client died, or made neither of it.
    pub fn call(&mut self, service: &str, action: &str, params: &Value) -> Result<Result<Value, Refused>> {
        writeln!(
            self.input,
            "{}",
            json!({"service": service, "action": action, "params": params})
        )?;
        self.input.flush()?;
        let mut line = String::new();
        let len = self.output.read_line(&mut line)?;
        ensure!(len > 0, "the client died at {action} {params}");
        let said: Value = serde_json::from_str(&line).with_context(|| format!("{action}: {line}"))?;
        let text = |name: &str| said[name].as_str().unwrap_or_default().to_owned();
        if said.get("answer").is_some() {
            let answer = said["answer"].clone();
            ensure!(answer["RequestId"].is_string(), "{action}: no RequestId in {answer}");
            return Ok(Ok(answer));
        }
        ensure!(
            text("request_id").len() == 36,
            "{action}: a refusal without RequestId: {said}"
        );
        Ok(Err(Refused {
            code: text("code"),
            message: text("message"),
        }))
    }

    /// Asks for what must be answered.
    ///
    /// # Errors
    /// It is refused.
    pub fn ask(&mut self, service: &str, action: &str, params: &Value) -> Result<Value> {
        match self.call(service, action, params)? {
            Ok(answer) => Ok(answer),
            Err(refused) => bail!("{action} {params} is refused: {refused:?}"),
        }
    }

    /// Asks for what must be refused with this code.
    ///
    /// # Errors
    /// It is answered, or refused with another code.
    pub fn refused(&mut self, service: &str, action: &str, params: &Value, code: &str) -> Result<String> {
        match self.call(service, action, params)? {
            Ok(answer) => bail!("{action} {params} is answered: {answer}"),
            Err(refused) => {
                ensure!(refused.code == code, "{action} {params}: {refused:?}, not {code}");
                ensure!(!refused.message.is_empty(), "{action} {params}: {code} without words");
                Ok(refused.message)
            }
        }
    }
}
