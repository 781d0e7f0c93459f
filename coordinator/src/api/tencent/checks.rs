//! What must hold for any bytes: called by the fuzz targets of `coordinator/fuzz`, and by a test for every input that is kept.
#![allow(unreachable_pub, reason = "public for the fuzz targets alone")]

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use shared::time::Timestamp;

use super::{
    params::{Fields, decode_form},
    request::Call,
    signature::{Received, v1::Flat},
};

/// The moment at which the kept requests were signed.
const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);
/// The key that the kept requests were signed with.
const SECRET: &str = "madeupSecretKeyForTestVector0001";

/// Reads everything that is there as everything that it may be.
fn read_all(fields: &Fields, names: &[String]) {
    for name in names {
        let fields = || fields.clone();
        drop(fields().text(name));
        drop(fields().int(name, 0..=9));
        drop(fields().switch(name));
        drop(fields().truth(name));
        drop(fields().texts(name, 4, 4));
        drop(fields().refuse(&[name]));
        drop(fields().block(name).map(|block| block.map(Fields::finish)));
        for block in fields().blocks(name, 4).unwrap_or_default() {
            drop(block.finish());
        }
    }
}

/// Parameters as text: what is read says the same when it is written again. Parameters as JSON: they are read or refused.
pub fn parameters(data: &[u8]) {
    if let Ok(fields) = Fields::from_json(data) {
        let names = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(data);
        let names: Vec<String> = names.into_iter().flatten().map(|(name, _)| name).collect();
        read_all(&fields, &names);
        assert_eq!(
            fields.finish().is_ok(),
            names.is_empty(),
            "what nobody asked for is refused"
        );
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(all) = decode_form(text) else { return };
    let written = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let pairs: Vec<String> = all
        .iter()
        .map(|(name, value)| format!("{}={}", written(name), written(value)))
        .collect();
    assert_eq!(decode_form(&pairs.join("&")).as_ref(), Ok(&all), "{text:?}");
    if let Ok(fields) = Fields::from_flat(&all) {
        let first = |name: &String| name.split('.').next().unwrap_or_default().to_owned();
        read_all(&fields, &all.keys().map(first).collect::<Vec<_>>());
        assert_eq!(fields.finish().is_ok(), Flat::is_empty(&all));
    }
}

/// A request, as `METHOD TARGET`, lines of headers, an empty line and the body: it is read or refused, and no signature fits two
/// secrets.
pub fn request(data: &[u8]) {
    let end = data.windows(2).position(|pair| pair == b"\n\n").unwrap_or(data.len());
    let Ok(head) = std::str::from_utf8(data.get(..end).unwrap_or_default()) else {
        return;
    };
    let mut lines = head.lines();
    let (method, target) = lines
        .next()
        .and_then(|line| line.split_once(' '))
        .unwrap_or(("GET", "/"));
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let received = Received {
        method,
        path,
        query,
        headers: &headers,
        body: data.get(end + 2..).unwrap_or_default(),
    };
    let Ok(call) = Call::read(&received, NOW) else { return };
    let fits = call.verify(&received, SECRET).is_ok();
    assert!(
        !(fits && call.verify(&received, "another").is_ok()),
        "one signature for two secrets: {head}"
    );
    assert!(!fits || !call.secret_id().is_empty());
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[test]
    fn every_kept_input_passes_its_check() {
        for (name, check) in [
            ("tencent_parameters", super::parameters as fn(&[u8])),
            ("tencent_request", super::request),
        ] {
            let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
            let mut count = 0;
            for entry in std::fs::read_dir(&corpus).unwrap() {
                let path = entry.unwrap().path();
                println!("{}", path.display());
                check(&std::fs::read(&path).unwrap());
                count += 1;
            }
            assert!(count > 4, "{} inputs in {}", count, corpus.display());
        }
    }
}
