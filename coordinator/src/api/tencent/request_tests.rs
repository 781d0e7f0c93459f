use serde_json::Value;

use super::*;

fn received<'a>(method: &'a str, query: &'a str, headers: &'a [(String, String)], body: &'a str) -> Received<'a> {
    Received {
        method,
        path: "/",
        query,
        headers,
        body: body.as_bytes(),
    }
}

#[test]
fn all_captured_forms_are_read_into_one() {
    let vectors: Value = serde_json::from_str(include_str!("signature/vectors.json")).unwrap();
    let now = Timestamp::from_millis(1_700_000_000_000);
    for name in [
        "tc3_post",
        "tc3_get_nested",
        "v1_post_sha256",
        "v1_get_sha1",
        "vod_tc3_post",
    ] {
        let vector = &vectors["requests"][name];
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let line = text(&vector["request_line"]);
        let [method, target, _] = line.split(' ').collect::<Vec<_>>()[..] else {
            panic!("{line}")
        };
        let headers: Vec<(String, String)> = vector["headers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|pair| (text(&pair[0]).to_lowercase(), text(&pair[1])))
            .collect();
        let body = text(&vector["body"]);
        let query = target.split_once('?').map_or("", |(_, query)| query);
        let received = received(method, query, &headers, &body);
        let call = Call::read(&received, now).unwrap();
        call.verify(&received, "madeupSecretKeyForTestVector0001").unwrap();
        let mut fields = call.fields.unwrap();
        match name {
            "tc3_post" | "tc3_get_nested" => {
                assert_eq!(
                    (call.action.as_str(), call.version.as_str()),
                    ("CreateLiveRecordTemplate", "2018-08-01")
                );
                let mut block = fields.block("Mp4Param").unwrap().unwrap();
                assert_eq!(block.int("RecordInterval", 0..=9_999).unwrap(), Some(3_600));
            }
            "vod_tc3_post" => {
                assert_eq!(
                    (call.action.as_str(), call.version.as_str()),
                    ("SearchMedia", "2018-07-17")
                );
                assert_eq!(fields.texts("SourceTypes", 9, 9).unwrap(), ["Record"]);
            }
            _ => {
                assert_eq!(call.action, "CreateRecordTask");
                assert_eq!(fields.int("EndTime", 0..=i64::MAX).unwrap(), Some(1_597_024_800));
                fields.without_effect(&["StreamName", "DomainName", "AppName", "StartTime", "TemplateId"]);
                fields.finish().unwrap();
            }
        }
    }
}

#[test]
fn what_is_no_call_is_refused_by_name() {
    let now = Timestamp::from_millis(1_700_000_000_000);
    let action = [("x-tc-action".to_owned(), "A".to_owned())];
    let twice = [
        ("authorization".to_owned(), "A".to_owned()),
        ("authorization".to_owned(), "B".to_owned()),
    ];
    let code = |request: &Received<'_>| Call::read(request, now).unwrap_err().code().to_owned();
    assert_eq!(code(&received("GET", "", &[], "")), "MissingParameter");
    assert_eq!(code(&received("GET", "Action=A", &[], "")), "MissingParameter");
    assert_eq!(
        code(&received("POST", "", &action, "{}")),
        "AuthFailure.InvalidAuthorization"
    );
    assert_eq!(code(&received("POST", "", &twice, "{}")), "InvalidParameter");
    assert_eq!(code(&received("GET", "a=1&a=2", &[], "")), "InvalidParameter");
}
