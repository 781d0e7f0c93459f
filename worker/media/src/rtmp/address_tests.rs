use alloc::vec;

use super::*;

fn request(app: &str, tc_url: &str, name: &str) -> PublishRequest {
    let field = |name: &str, text: &str| (name.into(), Value::String(text.into()));
    let object = Value::Object(vec![field("app", app), field("tcUrl", tc_url), field("flashVer", "x")]);
    Connect::new(Some(&object)).publish_request(name, None)
}

#[test]
fn queries_are_split_off_the_application_and_the_stream() {
    for (app, name, expected) in [
        ("live", "s", ("live", "s", "")),
        ("live?a=1", "s", ("live", "s", "a=1")),
        ("live", "s?b=2&c", ("live", "s", "b=2&c")),
        ("live?a=1", "s?b=2", ("live", "s", "a=1&b=2")),
        ("/live/", "s", ("live", "s", "")),
        ("live/instance", "a/b", ("live/instance", "a/b", "")),
        ("live", "s?a=1?b=2", ("live", "s", "a=1?b=2")),
        ("live?", "s?", ("live", "s", "")),
        ("", "", ("", "", "")),
        ("live", "%2e%2E %2F😀", ("live", "%2e%2E %2F😀", "")),
    ] {
        let request = request(app, "", name);
        assert_eq!(
            (request.app.as_str(), request.stream.as_str(), request.params.as_str()),
            expected
        );
        assert_eq!(request.domain, None);
    }
}

#[test]
fn the_domain_is_that_of_the_stream_then_of_the_application_then_of_the_url() {
    let url = "rtmp://Host.example:1935/live";
    for (app, url, name, domain) in [
        ("live", url, "s", Some("host.example")),
        ("live?domain=App.example", url, "s", Some("app.example")),
        (
            "live?domain=app.example",
            url,
            "s?x=1&domain=stream.example",
            Some("stream.example"),
        ),
        ("live?domain=app.example", url, "s?domain=", Some("app.example")),
        ("live", url, "s?subdomain=x&Domain=y", Some("host.example")),
        ("live", "rtmp://user:pass@host/live", "s", Some("host")),
        ("live", "rtmps://host", "s", Some("host")),
        ("live", "rtmp://[2001:db8::1]:1935/live", "s", Some("2001:db8::1")),
        ("live", "rtmp://host?x=/", "s", Some("host")),
        ("live", "rtmp:///live", "s", None),
        ("live", "host/live", "s", None),
    ] {
        assert_eq!(request(app, url, name).domain.as_deref(), domain, "{app} {url} {name}");
    }
}

#[test]
fn a_client_that_says_nothing_of_itself_is_taken() {
    let request = Connect::new(None).publish_request("s", Some("append"));
    let expected = PublishRequest {
        stream: "s".into(),
        publish_type: "append".into(),
        ..PublishRequest::default()
    };
    assert_eq!(request, expected);
}
