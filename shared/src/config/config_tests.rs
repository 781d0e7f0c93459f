use std::io::Write as _;

use super::*;

fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn load(text: &str, vars: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let file = file(text);
    let mut overrides = Overrides::default();
    for (key, value) in flags {
        overrides.set(key, value);
    }
    Config::load(Some(file.path()), env(vars), &overrides)
}

fn refused(text: &str, vars: &[(&str, &str)], flags: &[(&str, &str)]) -> String {
    load(text, vars, flags).unwrap_err().to_string()
}

#[test]
fn defaults_make_a_working_standalone() {
    let config = Config::load(None, env(&[]), &Overrides::default()).unwrap();
    config.validate(Role::Standalone).unwrap();
    assert_eq!(config.worker.objects.url, Some(ObjectsUrl::File("data/objects".into())));
    assert_eq!(config.worker.journal.sync_interval, Duration::from_secs(1));
    let again: Config = toml::from_str(&config.to_toml().unwrap()).unwrap();
    assert_eq!(again.worker.journal, config.worker.journal);
}

#[test]
fn flags_win_over_environment_over_file() {
    let text = "[worker]\nrtmp = \"127.0.0.1:1\"\n[worker.journal]\npreroll = \"5s\"\nsegment_size = \"1 MiB\"\n[coordinator]\nrecord = [\"flv\"]\n";
    let vars = [
        ("AIRCHECK_WORKER__RTMP", "127.0.0.1:2"),
        ("AIRCHECK_WORKER__JOURNAL__PREROLL", "6s"),
        ("AIRCHECK_SERVER", "http://x"),
        ("PATH", "/bin"),
    ];
    let config = load(
        text,
        &vars,
        &[
            ("worker.rtmp", "127.0.0.1:3"),
            ("coordinator.record", "hls,mp4"),
            ("node.insecure", "true"),
        ],
    )
    .unwrap();
    assert_eq!(config.worker.rtmp.port(), 3);
    assert_eq!(config.worker.journal.preroll, Duration::from_secs(6));
    assert_eq!(config.worker.journal.segment_size, ByteSize::mib(1));
    assert_eq!(config.coordinator.record, [Format::Hls, Format::Mp4]);
    assert!(config.node.insecure);
}

#[test]
fn optional_texts_come_from_every_source() {
    let config = load(
        "[objects]\nurl = \"file:///a\"\n",
        &[("AIRCHECK_WORKER__NAME", "eins")],
        &[("objects.url", "file:///b")],
    )
    .unwrap();
    assert_eq!(config.worker.objects.url, Some(ObjectsUrl::File("/b".into())));
    assert_eq!(config.worker.name.as_deref(), Some("eins"));
}

#[test]
fn what_is_wrong_is_named_with_its_source() {
    assert!(refused("[worker]\nrtpm = \"x\"\n", &[], &[]).contains("line 2"));
    assert!(refused("[worker.journal]\npreroll = 5\n", &[], &[]).contains("preroll"));
    let unknown = refused("", &[("AIRCHECK_WORKER__RTPM", "x")], &[]);
    assert!(
        unknown.contains("AIRCHECK_WORKER__RTPM") && unknown.contains("unknown field `rtpm`"),
        "{unknown}"
    );
    assert!(refused("", &[("AIRCHECK_WORKER__RENDER__THREADS", "two")], &[]).contains("whole number"));
    assert!(refused("", &[("AIRCHECK_WORKER__JOURNAL", "x")], &[]).contains("a section"));
    assert!(refused("", &[], &[("worker.rtmp", "localhost")]).contains("worker.rtmp"));
    assert!(refused("", &[], &[("coordinator.record", "flv,avi")]).contains("avi"));
    assert!(refused("", &[], &[("worker.journal.min_free", "12")]).contains("is not a size"));
    let missing = Config::load(Some(Path::new("/nonexistent/x.toml")), env(&[]), &Overrides::default()).unwrap_err();
    assert!(missing.to_string().contains("/nonexistent/x.toml"));
}

#[test]
fn rules_across_fields_name_both() {
    let text = |flags: &[(&str, &str)], role| load("", &[], flags).unwrap().validate(role).unwrap_err().to_string();
    let timeout = text(&[("coordinator.worker_timeout", "3s")], Role::Standalone);
    assert!(timeout.contains("coordinator.worker_timeout") && timeout.contains("coordinator.heartbeat"));
    let partial = text(&[("worker.ingest.max_partial", "1 MiB")], Role::Worker);
    assert!(partial.contains("max_partial") && partial.contains("max_message"));
    assert!(text(&[("worker.time_zone", "Mars/Olympus")], Role::Worker).contains("worker.time_zone"));
    assert!(text(&[], Role::Coordinator).contains("belongs to one process"));
    for (settings, said) in [
        (&[("store.url", "etcds://h:2379/p")][..], "store.ca_file"),
        (
            &[("store.url", "etcd://h:2379/p"), ("store.cert_file", "x")],
            "etcds://",
        ),
        (
            &[("store.url", "etcd://h:2379/p"), ("store.user", "u")],
            "store.password_file",
        ),
        (
            &[
                ("store.url", "etcd://a:b@h:2379/p"),
                ("store.user", "u"),
                ("store.password_file", "x"),
            ],
            "one of them",
        ),
    ] {
        let refused = text(settings, Role::Coordinator);
        assert!(refused.contains(said), "{refused}");
    }
    assert!(text(&[("objects.sse_key", "k")], Role::Worker).contains("objects.sse"));
    assert!(text(&[("objects.endpoint", "s3.local:9000")], Role::Worker).contains("https://HOST"));
    assert!(text(&[("objects.part_size", "1 MiB")], Role::Worker).contains("objects.part_size"));
}

#[test]
fn a_second_place_says_what_it_is_for() {
    let places = "[objects]\nurl = \"s3://recordings/tv\"\n[objects.copy]\nurl = \"s3://backup/tv\"\n";
    let with = |line: &str| format!("{places}{line}\n");
    let objects = |text: &str| {
        let config = load(text, &[], &[]).unwrap();
        config.validate(Role::Standalone).unwrap();
        config.worker.objects
    };
    let refused = |text: &str| {
        let checked = load(text, &[], &[]).and_then(|config| config.validate(Role::Standalone));
        checked.unwrap_err().to_string()
    };
    let all = objects(places);
    assert!(
        all.copies().is_some() && all.backup().is_none(),
        "without a word, a copy of everything"
    );
    let backup = objects(&with("mode = \"backup\""));
    assert!(backup.copies().is_none() && backup.backup().is_some());
    assert_eq!(backup.copy.after, std::time::Duration::from_secs(600));

    for (after, taken) in [
        ("1s", true),
        ("24h", true),
        ("999ms", false),
        ("25h", false),
        ("0s", false),
    ] {
        let text = with(&format!("mode = \"backup\"\nafter = \"{after}\""));
        match taken {
            true => drop(objects(&text)),
            false => assert!(refused(&text).contains("objects.copy.after"), "{after}"),
        }
    }
    let said = refused(&with("mode = \"spare\""));
    assert!(said.contains("backup") && said.contains("all"), "{said}");
    for (text, names) in [
        // Words for a place that is not named.
        (
            "[objects]\nurl = \"s3://recordings/tv\"\n[objects.copy]\nmode = \"backup\"\n".to_owned(),
            "objects.copy.url",
        ),
        // Folders do not go away as services do.
        (
            with("mode = \"backup\"").replace("s3://backup/tv", "file:///backup"),
            "s3://BUCKET/PREFIX",
        ),
        (
            with("mode = \"backup\"").replace("s3://recordings/tv", "file:///recordings"),
            "s3://BUCKET/PREFIX",
        ),
        (
            with("mode = \"backup\"").replace("s3://backup/tv", "s3://recordings/tv"),
            "another place",
        ),
    ] {
        let said = refused(&text);
        assert!(said.contains(names), "{text}: {said}");
    }
}

#[test]
fn a_door_beyond_loopback_needs_insecure() {
    for key in ["coordinator.grpc", "coordinator.http", "worker.rtmp"] {
        let open = [(key, "0.0.0.0:7000")];
        let error = load("", &[], &open)
            .unwrap()
            .validate(Role::Standalone)
            .unwrap_err()
            .to_string();
        assert!(error.contains(key) && error.contains("--insecure"), "{error}");
        load("", &[], &[open[0], ("node.insecure", "true")])
            .unwrap()
            .validate(Role::Standalone)
            .unwrap();
    }
    load("", &[], &[("coordinator.grpc", "0.0.0.0:7000")])
        .unwrap()
        .validate(Role::Worker)
        .unwrap();
    load("", &[], &[("worker.rtmp", "[::1]:7000")])
        .unwrap()
        .validate(Role::Worker)
        .unwrap();
}

#[test]
fn credentials_open_the_doors_that_they_guard() {
    let check = |flags: &[(&str, &str)], role| load("", &[], flags).unwrap().validate(role);
    let (grpc, http) = (
        ("coordinator.grpc", "0.0.0.0:7000"),
        ("coordinator.http", "0.0.0.0:8000"),
    );
    let join = ("auth.join_token", "join-join-join-join");
    let api = ("auth.api_token_file", "/run/api");
    assert!(
        check(&[grpc, join], Role::Standalone)
            .unwrap_err()
            .to_string()
            .contains("auth.api_token_file")
    );
    check(&[grpc, join, api], Role::Standalone).unwrap();
    check(&[http, api], Role::Standalone).unwrap();
    assert!(check(&[http, join], Role::Standalone).is_err());
    let tls = [("tls.cert_file", "c"), ("tls.key_file", "k"), ("tls.ca_file", "a")];
    check(&[&tls[..], &[grpc]].concat(), Role::Standalone).unwrap();
    assert!(
        check(&[grpc, tls[0], tls[1]], Role::Standalone).is_err(),
        "a server's certificate asks nobody"
    );
    assert!(
        check(&[tls[0]], Role::Worker)
            .unwrap_err()
            .to_string()
            .contains("go together")
    );
    let rtmp = ("worker.rtmp", "0.0.0.0:1935");
    assert!(
        check(&[rtmp, join, api], Role::Worker)
            .unwrap_err()
            .to_string()
            .contains("allow_anyone")
    );
    check(&[rtmp, ("worker.ingest.allow_anyone", "true")], Role::Worker).unwrap();
    let twice = [join, ("auth.join_token_file", "x")];
    assert!(
        check(&twice, Role::Worker)
            .unwrap_err()
            .to_string()
            .contains("give one")
    );
}

#[test]
fn tokens_come_from_the_environment_and_are_not_printed() {
    let env = [
        ("AIRCHECK_JOIN_TOKEN", "join-join-join-join"),
        ("AIRCHECK_API_TOKEN", "api-api-api-api-api"),
    ];
    let config = load("", &env, &[]).unwrap();
    assert!(
        config
            .auth
            .join_token
            .as_ref()
            .is_some_and(|token| token.is("join-join-join-join"))
    );
    assert!(config.coordinator.auth.has_api() && config.worker.auth.has_join());
    let printed = config.to_toml().unwrap();
    assert!(
        !printed.contains("join-join") && !printed.contains("api-api"),
        "{printed}"
    );
    let short = load("", &[("AIRCHECK_JOIN_TOKEN", "short")], &[])
        .unwrap_err()
        .to_string();
    assert!(
        short.contains("AIRCHECK_JOIN_TOKEN") && !short.contains("short\""),
        "{short}"
    );
}

#[test]
fn hooks_want_an_origin_and_a_token() {
    let check = |flags: &[(&str, &str)]| load("", &[], flags).unwrap().validate(Role::Standalone);
    let origin = ("hooks.origin", "rtmp://10.0.0.5/{app}/{stream}");
    let token = ("hooks.token", "0123456789abcdef");
    check(&[origin, token]).unwrap();
    for (flags, says) in [
        (&[origin][..], "hooks.token"),
        (&[origin, token, ("hooks.token_file", "x")], "give one"),
        (&[("hooks.origin", "rtmp://10.0.0.5/live/a"), token], "{stream}"),
        (&[("hooks.origin", "ftp://10.0.0.5/{stream}"), token], "scheme"),
        (&[origin, token, ("hooks.domain", "a b")], "hooks.domain"),
        (&[origin, token, ("hooks.forget_after", "1s")], "forget_after"),
    ] {
        let refused = check(flags).unwrap_err().to_string();
        assert!(refused.contains(says), "{refused}");
    }
}
