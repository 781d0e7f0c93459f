use serde_json::Value;

use super::*;

const SECRET: &str = "madeupSecretKeyForTestVector0001";
const POST: &str = r#"{"TemplateName": "templat", "Description": "test", "Mp4Param": {"RecordInterval": 3600, "StorageTime": 0, "Enable": 1}, "HlsSpecialParam": {"FlowContinueDuration": 600}}"#;
const CREDENTIAL: &str = "AKIDexampleexampleexampleexample0001/2023-11-14/live/tc3_request";
const SIGNATURE: &str = "3cefd9849dd0d3ee707af720dfbba692da597159a60149721f133aee312e63c1";

fn now() -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000)
}

fn headers() -> Vec<(String, String)> {
    [("content-type", "application/json"), ("host", "127.0.0.1:18080")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
}

fn request<'a>(headers: &'a [(String, String)], body: &'a str) -> Received<'a> {
    Received {
        method: "POST",
        path: "/",
        query: "",
        headers,
        body: body.as_bytes(),
    }
}

fn authorization(signature: &str) -> String {
    format!("TC3-HMAC-SHA256 Credential={CREDENTIAL}, SignedHeaders=content-type;host, Signature={signature}")
}

fn claim() -> Claim {
    Claim::read(&authorization(SIGNATURE), "1700000000", now()).unwrap()
}

#[test]
fn every_step_of_the_worked_example_comes_out() {
    let claim = claim();
    let headers = headers();
    let request = request(&headers, POST);
    assert_eq!(
        claim.headers(&request, "127.0.0.1:18080", false).unwrap(),
        "content-type:application/json\nhost:127.0.0.1:18080\n"
    );
    let canonical = "POST\n/\n\ncontent-type:application/json\nhost:127.0.0.1:18080\n\ncontent-type;host\n5bee4709dca2567711d78ec564818c20d540682ee21a15d088841a6071a7b1fd";
    assert_eq!(
        claim.string_to_sign(canonical),
        "TC3-HMAC-SHA256\n1700000000\n2023-11-14/live/tc3_request\naaefab54a294354dccbdcbbb1d38d77dbe54faf0edfc3037b7e8228dd7492c8d"
    );
    let signed = hmac::sign(&claim.signing_key(SECRET), claim.string_to_sign(canonical).as_bytes());
    assert_eq!(hex(signed.as_ref()), SIGNATURE);
    claim.verify(&request, SECRET).unwrap();
}

#[test]
fn anything_else_is_refused() {
    let claim = claim();
    let good = headers();
    assert!(
        claim
            .verify(&request(&good, POST), "madeupSecretKeyForTestVector0002")
            .is_err()
    );
    assert!(
        claim
            .verify(&request(&good, &POST.replace("test", "tesd")), SECRET)
            .is_err()
    );
    let mut other = headers();
    other[1].1 = "127.0.0.1:18081".to_owned();
    assert!(claim.verify(&request(&other, POST), SECRET).is_err());
    let mut get = request(&good, POST);
    get.method = "GET";
    assert!(claim.verify(&get, SECRET).is_err());
    let mut query = request(&good, POST);
    query.query = "a=1";
    assert_eq!(
        claim.verify(&query, SECRET).unwrap_err().code(),
        "AuthFailure.SignatureFailure"
    );
}

#[test]
fn what_is_no_authorization_is_refused_by_name() {
    let code = |text: &str, at: &str| Claim::read(text, at, now()).unwrap_err().code().to_owned();
    let good = authorization(SIGNATURE);
    for bad in [
        "",
        "SKIP",
        "Bearer x",
        "TC3-HMAC-SHA256",
        "TC3-HMAC-SHA256 Credential=a/b, SignedHeaders=content-type;host, Signature=00",
        &good.replace("content-type;host", "host"),
        &good.replace("content-type;host", "content-type"),
        &good.replace("Signature=3c", "Signature=zz"),
        &good.replace("Signature=", "Sig="),
        &format!("{good}, Signature=00"),
        &good.replace("content-type;host", &format!("content-type;host{}", ";a".repeat(15))),
    ] {
        assert_eq!(code(bad, "1700000000"), "AuthFailure.InvalidAuthorization", "{bad}");
    }
    assert_eq!(code(&good, "1699999000"), "AuthFailure.SignatureExpire");
    assert_eq!(
        code(&good.replace("2023-11-14", "2023-11-15"), "1700000000"),
        "AuthFailure.SignatureFailure"
    );
}

/// Every captured request of the official SDKs, as it came over the wire.
#[test]
fn captured_requests_of_the_sdks_verify_and_changed_ones_do_not() {
    let vectors: Value = serde_json::from_str(include_str!("vectors.json")).unwrap();
    let mut count = 0;
    for (name, vector) in vectors["requests"].as_object().unwrap() {
        if !name.contains("tc3") {
            continue;
        }
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let line = text(&vector["request_line"]);
        let [method, target, _] = line.split(' ').collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let headers: Vec<(String, String)> = vector["headers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|pair| (text(&pair[0]).to_lowercase(), text(&pair[1])))
            .collect();
        let body = text(&vector["body"]);
        let received = Received {
            method,
            path,
            query,
            headers: &headers,
            body: body.as_bytes(),
        };
        let timestamp = received.header("x-tc-timestamp").unwrap().unwrap();
        let at = Timestamp::from_millis(timestamp.parse::<i64>().unwrap() * 1_000);
        let claim = Claim::read(received.header("authorization").unwrap().unwrap(), timestamp, at).unwrap();
        claim
            .verify(&received, SECRET)
            .unwrap_or_else(|error| panic!("{name}: {error:?}"));
        assert!(claim.verify(&received, "another").is_err(), "{name}");
        let changed = Received {
            query: &format!("{query}&a=1"),
            ..received
        };
        assert!(claim.verify(&changed, SECRET).is_err(), "{name}");
        count += 1;
    }
    assert_eq!(count, 14);
}
