use serde_json::Value;

use super::*;
use crate::api::tencent::params::decode_form;

const SECRET: &str = "madeupSecretKeyForTestVector0001";

fn now() -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000)
}

/// Every captured request of the official SDKs, as it came over the wire.
#[test]
fn captured_requests_of_the_sdks_verify_and_changed_ones_do_not() {
    let vectors: Value = serde_json::from_str(include_str!("vectors.json")).unwrap();
    let headers = [("host".to_owned(), "127.0.0.1:18080".to_owned())];
    let mut count = 0;
    for (name, vector) in vectors["requests"].as_object().unwrap() {
        if !name.contains("v1") {
            continue;
        }
        let line = vector["request_line"].as_str().unwrap();
        let [method, target, _] = line.split(' ').collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        let form = match target.split_once('?') {
            Some((_, query)) => query,
            None => vector["body"].as_str().unwrap(),
        };
        let all = decode_form(form).unwrap();
        let received = Received {
            method,
            path: "/",
            query: "",
            headers: &headers,
            body: b"",
        };
        let claim = Claim::read(&all, now()).unwrap();
        claim
            .verify(&received, &all, SECRET)
            .unwrap_or_else(|error| panic!("{name}: {error:?}"));
        assert!(claim.verify(&received, &all, "another").is_err(), "{name}");
        let other = Received {
            method: if method == "GET" { "POST" } else { "GET" },
            ..received
        };
        assert!(claim.verify(&other, &all, SECRET).is_err(), "{name}");
        for key in ["StreamName", "TemplateName", "Nonce", "Action"] {
            let mut changed = all.clone();
            changed.insert(key.to_owned(), "other".to_owned());
            assert!(claim.verify(&received, &changed, SECRET).is_err(), "{name} {key}");
        }
        count += 1;
    }
    assert_eq!(count, 3);
}

#[test]
fn names_with_underscores_verify_in_both_spellings() {
    let all = decode_form("A_B=1&A.A=2&Nonce=1&SecretId=x&Timestamp=1700000000").unwrap();
    let headers = [("host".to_owned(), "h:1".to_owned())];
    let received = Received {
        method: "POST",
        path: "/",
        query: "",
        headers: &headers,
        body: b"",
    };
    for (text, host) in [("A.A=2&A.B=1", "h:1"), ("A.A=2&A_B=1", "h"), ("A.A=2&A.B=1", "h")] {
        let signed = format!("POST{host}/?{text}&Nonce=1&SecretId=x&Timestamp=1700000000");
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, b"s");
        let mut said = all.clone();
        said.insert(
            "Signature".to_owned(),
            STANDARD.encode(hmac::sign(&key, signed.as_bytes())),
        );
        Claim::read(&said, now())
            .unwrap()
            .verify(&received, &said, "s")
            .unwrap();
    }
}

#[test]
fn what_is_missing_or_wrong_is_named() {
    let good = "Nonce=1&SecretId=x&Timestamp=1700000000&Signature=AAAA";
    Claim::read(&decode_form(good).unwrap(), now()).unwrap();
    for (from, to, code) in [
        ("Nonce=1&", "", "MissingParameter"),
        ("Nonce=1", "Nonce=-1", "InvalidParameterValue"),
        ("Nonce=1", "Nonce=123456789012345678901", "InvalidParameterValue"),
        ("SecretId=x", "SecretId=", "MissingParameter"),
        ("Signature=AAAA", "Signature=%21", "AuthFailure.SignatureFailure"),
        ("1700000000", "1600000000", "AuthFailure.SignatureExpire"),
        ("Nonce=1", "SignatureMethod=MD5&Nonce=1", "InvalidParameterValue"),
    ] {
        let all = decode_form(&good.replace(from, to)).unwrap();
        assert_eq!(Claim::read(&all, now()).unwrap_err().code(), code, "{to}");
    }
}
