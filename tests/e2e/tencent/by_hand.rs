//! What no SDK sends: changed, repeated, old, broken and too large requests, and the bytes of the answers.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use support::programs::{python, text};

use super::{DOMAIN, world};

/// Sends bytes and reads the whole answer: head and body.
fn exchange(server: SocketAddr, request: &[u8]) -> Result<(String, String)> {
    let mut socket = TcpStream::connect(server)?;
    socket.set_read_timeout(Some(Duration::from_secs(30)))?;
    // A server that has answered already may have closed its side.
    let _ = socket.write_all(request);
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer);
    let answer = String::from_utf8(answer)?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .with_context(|| format!("no answer: {answer:?}"))?;
    Ok((head.to_owned(), body.to_owned()))
}

/// The code of an answer, which must have the one shape that clients understand.
fn code(server: SocketAddr, request: &[u8]) -> Result<String> {
    let (head, body) = exchange(server, request)?;
    ensure!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let kind = head
        .lines()
        .find_map(|line| line.to_lowercase().strip_prefix("content-type: ").map(str::to_owned));
    ensure!(kind.as_deref() == Some("application/json"), "{head}");
    let said: Value = serde_json::from_str(&body).with_context(|| format!("{head}\n{body}"))?;
    ensure!(
        said["Response"]["RequestId"].as_str().is_some_and(|id| id.len() == 36),
        "{said}"
    );
    Ok(said["Response"]["Error"]["Code"].as_str().unwrap_or("none").to_owned())
}

/// Signs a request as the documentation says, apart from anything of this project's.
const SIGN: &str = r#"
import sys, json, hmac, hashlib, time, base64
said = json.load(sys.stdin)
at = int(time.time()) + said["off"]
if said["kind"] == "tc3":
    day = time.strftime("%Y-%m-%d", time.gmtime(at))
    scope = day + "/live/tc3_request"
    canonical = "\n".join(["POST", "/", "", "content-type:application/json\nhost:" + said["host"] + "\n", "content-type;host", hashlib.sha256(said["body"].encode()).hexdigest()])
    text = "\n".join(["TC3-HMAC-SHA256", str(at), scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = ("TC3" + said["secret"]).encode()
    for part in (day, "live", "tc3_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    mac = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    print(json.dumps({"time": str(at), "authorization": f"TC3-HMAC-SHA256 Credential={said['id']}/{scope}, SignedHeaders=content-type;host, Signature={mac}"}))
else:
    from urllib.parse import urlencode
    all = dict(said["params"], Timestamp=str(at), Nonce=said["nonce"], SecretId=said["id"], Version="2018-08-01")
    text = "GET" + said["host"] + "/?" + "&".join(k + "=" + all[k] for k in sorted(all))
    all["Signature"] = base64.b64encode(hmac.new(said["secret"].encode(), text.encode(), hashlib.sha1).digest()).decode()
    print(json.dumps({"query": urlencode(all)}))
"#;

fn signed(said: &Value) -> Result<Value> {
    let folder = tempfile::tempdir()?;
    let input = folder.path().join("said.json");
    std::fs::write(&input, said.to_string())?;
    let script = format!(
        "import sys\nsys.stdin = open({:?})\n{SIGN}",
        input.display().to_string()
    );
    Ok(serde_json::from_str(&text(
        std::process::Command::new(python()).args(["-c", &script]),
    )?)?)
}

fn post(host: &str, signed: &Value, action: &str, version: &str, body: &str) -> String {
    let text = |name: &str| signed[name].as_str().unwrap_or_default().to_owned();
    format!(
        "POST / HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nX-TC-Action: {action}\r\nX-TC-Version: {version}\r\n\
         X-TC-Timestamp: {}\r\nAuthorization: {}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        text("time"),
        text("authorization"),
        body.len()
    )
}

#[test]
fn changed_repeated_and_old_requests_are_refused() -> Result<()> {
    let (_folder, server, key, _) = world()?;
    let host = server.http().to_string();
    let said = |kind: &str, off: i64, nonce: &str| {
        json!({
            "kind": kind, "off": off, "nonce": nonce, "host": host, "id": key.id, "secret": key.secret,
            "body": "{\"DomainName\": \"push.example.com\"}",
            "params": {"Action": "DescribeLiveRecordRules"},
        })
    };
    let body = format!("{{\"DomainName\": \"{DOMAIN}\"}}");
    let live = "2018-08-01";
    let good = signed(&said("tc3", 0, ""))?;
    let ask = |request: String| code(server.http(), request.as_bytes());
    let describe = "DescribeLiveDomain";
    ensure!(
        ask(post(&host, &good, describe, live, &body))? == "ResourceNotFound.DomainNotExist",
        "the good one"
    );
    let changed = body.replace("push", "pull");
    ensure!(
        ask(post(&host, &good, describe, live, &changed))? == "AuthFailure.SignatureFailure",
        "a changed body"
    );
    let old = signed(&said("tc3", -301, ""))?;
    ensure!(
        ask(post(&host, &old, describe, live, &body))? == "AuthFailure.SignatureExpire",
        "an old one"
    );
    let early = signed(&said("tc3", 310, ""))?;
    ensure!(
        ask(post(&host, &early, describe, live, &body))? == "AuthFailure.SignatureExpire",
        "an early one"
    );
    ensure!(
        ask(post(&host, &good, "Nonsense", live, &body))? == "InvalidAction",
        "no action"
    );
    ensure!(
        ask(post(&host, &good, describe, "2017-03-12", &body))? == "NoSuchVersion",
        "no version"
    );
    ensure!(
        ask(post(&host, &good, "DescribeLiveRecordRules", live, &body))? == "UnknownParameter",
        "a parameter that is not the action's"
    );
    let get = |signed: &Value| {
        let query = signed["query"].as_str().unwrap_or_default();
        format!("GET /?{query} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")
    };
    let v1 = signed(&said("v1", 0, "77"))?;
    ensure!(ask(get(&v1))? == "none", "a request of the older kind");
    ensure!(ask(get(&v1))? == "AuthFailure.SignatureFailure", "its repetition");
    let other = signed(&said("v1", 0, "78"))?;
    ensure!(ask(get(&other))? == "none", "another nonce");
    let old = signed(&said("v1", -301, "79"))?;
    ensure!(
        ask(get(&old))? == "AuthFailure.SignatureExpire",
        "an old one of the older kind"
    );
    Ok(())
}

#[test]
fn broken_requests_get_an_answer_that_clients_understand() -> Result<()> {
    let (_folder, server, _, _) = world()?;
    let ask = |request: &str| code(server.http(), request.as_bytes());
    for (request, expected) in [
        (
            "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
            "MissingParameter",
        ),
        (
            "GET /?Action=%FF HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
            "InvalidParameter",
        ),
        (
            "DELETE / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
            "UnsupportedProtocol",
        ),
        (
            "POST / HTTP/1.1\r\nHost: h\r\nX-TC-Action: A\r\nAuthorization: SKIP\r\nX-TC-Timestamp: 1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
            "AuthFailure.InvalidAuthorization",
        ),
        (
            "POST / HTTP/1.1\r\nHost: h\r\nAuthorization: a\r\nAuthorization: b\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
            "InvalidParameter",
        ),
    ] {
        let said = ask(request)?;
        ensure!(said == expected, "{request}: {said}, not {expected}");
    }
    let long = 2 << 20;
    let request = format!(
        "POST / HTTP/1.1\r\nHost: h\r\nX-TC-Action: A\r\nConnection: close\r\nContent-Length: {long}\r\n\r\n{}",
        "x".repeat(long)
    );
    ensure!(ask(&request)? == "RequestSizeLimitExceeded", "a body that is too long");
    Ok(())
}

#[test]
fn who_fails_too_often_is_not_listened_to_for_a_while() -> Result<()> {
    let (_folder, server, _, mut sdk) = world()?;
    let request = "GET /?Action=A&Version=2018-08-01&SecretId=x&Nonce=1&Timestamp=1&Signature=AAAA HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    let mut codes = std::collections::BTreeSet::new();
    for _ in 0..200 {
        codes.insert(code(server.http(), request.as_bytes())?);
        if codes.len() == 2 {
            break;
        }
    }
    ensure!(
        codes
            .iter()
            .map(String::as_str)
            .eq(["AuthFailure.SignatureExpire", "RequestLimitExceeded.IPLimitExceeded"]),
        "{codes:?}"
    );
    support::wait::until(Duration::from_secs(10), "being listened to again", || {
        let heard = sdk.call("live", "DescribeLiveRecordRules", &json!({}))?;
        Ok(support::wait::Seen::when(heard.is_ok(), format!("{heard:?}")))
    })
}

#[test]
fn a_rate_is_held() -> Result<()> {
    let (_folder, server, key, _) = world()?;
    let host = server.http().to_string();
    let good = signed(&json!({
        "kind": "tc3", "off": 0, "nonce": "", "host": host, "id": key.id, "secret": key.secret, "body": "{}", "params": {},
    }))?;
    let request = post(&host, &good, "DescribeLiveDomains", "2018-08-01", "{}");
    let codes = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| -> Result<Vec<String>> {
                    (0..400)
                        .map(|_| code(server.http(), request.as_bytes()))
                        .take_while(|code| code.as_ref().is_ok_and(|code| code == "none"))
                        .collect()
                })
            })
            .collect();
        workers
            .into_iter()
            .map(|worker| worker.join().map_or(0, |codes| codes.map_or(0, |codes| codes.len())))
            .sum::<usize>()
    });
    ensure!(
        (100..1_600).contains(&codes),
        "{codes} of 1600 were answered although 100 a second are allowed"
    );
    Ok(())
}
