use shared::{
    ids::{FileId, PublishId, RecordingId, Seeded, TaskId, TemplateId, WorkerId},
    lease::Epoch,
    template::TemplateSpec,
};

use super::*;

const MANNER: Manner = Manner {
    app_id: 7,
    task_stream_param: false,
    now: Timestamp::from_millis(1_700_000_009_000),
};

fn at(ms: i64) -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000 + ms)
}

fn a_publish() -> PublishRecord {
    let ids = Seeded::new(3);
    PublishRecord {
        id: PublishId::generate(&ids, at(0)),
        stream: StreamKey::new("push.example.com", "live", "s1").unwrap(),
        worker: WorkerId::generate(&ids, at(0)),
        epoch: Epoch::new(1),
        params: "k=v".to_owned(),
        client_addr: "[2001:db8::4]:1234".to_owned(),
        started: at(500),
        ended: None,
        reason: String::new(),
        recordings: vec![],
        revision: 1,
        windows: BTreeMap::new(),
        storage: String::new(),
        places: BTreeMap::new(),
    }
}

fn a_recording(cause: Cause, formats: &[Format]) -> Recording {
    let ids = Seeded::new(4);
    let publish = a_publish();
    Recording {
        id: RecordingId::generate(&ids, at(0)),
        stream: publish.stream,
        cause,
        state: RecordingState::Recording,
        reason: String::new(),
        epoch: Epoch::new(1),
        template: TemplateSpec::plain("day", formats),
        template_id: Some(TemplateId::generate(&ids, at(0))),
        publishes: vec![publish.id],
        worker: publish.worker,
        params: publish.params,
        started: at(500),
        ended: None,
        gaps: vec![],
        locked: false,
    }
}

fn a_file(recording: &Recording, format: Format) -> MediaFile {
    MediaFile {
        id: FileId::generate(&Seeded::new(5), at(0)),
        recording: recording.id,
        stream: recording.stream.clone(),
        format,
        sequence: 0,
        name: "s1.flv".to_owned(),
        object_key: "a/e000001/flv/000000.flv".to_owned(),
        size: 99,
        duration_ms: 59_580,
        start: at(316),
        end: at(60_618),
        checksum: String::new(),
        video_units: 1,
        audio_units: 1,
        gaps: vec![],
        epoch: Epoch::new(1),
        committed: at(61_000),
        expires: None,
        locked: false,
        copied: None,
    }
}

fn words(drafts: &[Draft], name: &str) -> Vec<String> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    drafts
        .iter()
        .filter_map(|draft| draft.body.get(name))
        .map(text)
        .collect()
}

/// Every key that the protocol documents, in the order of its tables; those that are made when an event goes out are left out.
fn has_all(draft: &Draft, names: &[&str]) {
    for name in names {
        assert!(draft.body.contains_key(*name), "{name} is missing in {:?}", draft.body);
    }
}

#[test]
fn a_push_is_told_of_when_it_begins_and_when_it_ends() {
    let live = a_publish();
    let [start] = publish(None, &live, MANNER).try_into().unwrap();
    assert_eq!(start.kind, Kind::PushStart);
    let common = [
        "event_type",
        "appid",
        "app",
        "appname",
        "stream_id",
        "channel_id",
        "event_time",
        "sequence",
        "node",
        "user_ip",
        "stream_param",
        "errcode",
        "errmsg",
        "set_id",
        "idc_id",
        "width",
        "height",
    ];
    has_all(&start, &common);
    assert_eq!(start.body["user_ip"], "2001:db8::4");
    assert_eq!(
        (&start.body["errcode"], &start.body["errmsg"]),
        (&json!(0), &json!("ok"))
    );
    assert_eq!(
        (&start.body["app"], &start.body["appname"]),
        (&json!("push.example.com"), &json!("live"))
    );
    // Its set of recordings changes: nothing to tell.
    let changed = PublishRecord {
        revision: 2,
        ..live.clone()
    };
    assert_eq!(publish(Some(&live), &changed, MANNER), []);
    let over = PublishRecord {
        ended: Some(at(12_500)),
        reason: "silent".to_owned(),
        ..live.clone()
    };
    let [end] = publish(Some(&live), &over, MANNER).try_into().unwrap();
    has_all(&end, &common);
    assert_eq!((end.kind, &end.body["push_duration"]), (Kind::PushEnd, &json!("12000")));
    assert_eq!(
        (&end.body["errcode"], &end.body["sequence"]),
        (&json!(8), &start.body["sequence"])
    );
    assert_eq!(publish(Some(&over), &over, MANNER), []);
    // Found by its worker after a restart, and over.
    let both: Vec<Kind> = publish(None, &over, MANNER).iter().map(|draft| draft.kind).collect();
    assert_eq!(both, [Kind::PushStart, Kind::PushEnd]);
    assert_eq!(publish(Some(&over), &live, MANNER).len(), 1, "its worker is back");
}

#[test]
fn a_recording_tells_how_it_stands_once_for_each_format() {
    let rule = Cause::Rule("push.example.com/live/*".to_owned());
    let recording_now = a_recording(rule, &[Format::Hls, Format::Flv]);
    let step = |from: Option<RecordingState>, to: RecordingState| {
        let before = from.map(|state| Recording {
            state,
            ..recording_now.clone()
        });
        let after = Recording {
            state: to,
            ..recording_now.clone()
        };
        let drafts = recording(before.as_ref(), &after, MANNER);
        for draft in drafts.iter().filter(|draft| draft.kind == Kind::Status) {
            has_all(
                draft,
                &[
                    "event_type",
                    "appid",
                    "appname",
                    "domain",
                    "event_time",
                    "record_detail",
                    "record_event",
                    "task_id",
                    "session_id",
                    "stream_id",
                ],
            );
        }
        words(&drafts, "record_event")
    };
    use RecordingState::{Failed, Finished, Interrupted, Recording as Running, Scheduled};
    let twice = |word: &str| vec![word.to_owned(), word.to_owned()];
    assert_eq!(step(None, Running), twice("record_start_succeeded"));
    assert_eq!(step(None, Scheduled), Vec::<String>::new());
    assert_eq!(step(None, Finished), Vec::<String>::new(), "brought back after a loss");
    assert_eq!(step(Some(Scheduled), Running), twice("record_start_succeeded"));
    assert_eq!(step(Some(Scheduled), Failed), twice("record_start_failed"));
    assert_eq!(step(Some(Running), Running), Vec::<String>::new());
    assert_eq!(step(Some(Running), Interrupted), twice("record_paused"));
    assert_eq!(step(Some(Interrupted), Running), twice("record_resumed"));
    assert_eq!(step(Some(Running), Finished), twice("record_ended"));
    assert_eq!(
        step(Some(Interrupted), Failed),
        [twice("record_error"), twice("record_ended")].concat()
    );
    assert_eq!(step(Some(Finished), Finished), Vec::<String>::new());
    let detail = recording(None, &recording_now, MANNER);
    let detail: Value = serde_json::from_str(detail[0].body["record_detail"].as_str().unwrap()).unwrap();
    assert_eq!((&detail["file_format"], &detail["start_model"]), (&json!(1), &json!(1)));
}

#[test]
fn a_file_of_a_rule_has_its_push_s_parameters_and_one_of_a_task_has_not() {
    let rule = a_recording(Cause::Rule("d/a/*".to_owned()), &[Format::Flv]);
    let [told] = file(&a_file(&rule, Format::Flv), &rule, MANNER).try_into().unwrap();
    has_all(
        &told,
        &[
            "event_type",
            "appid",
            "app",
            "appname",
            "stream_id",
            "channel_id",
            "file_id",
            "record_file_id",
            "record_temp_id",
            "file_format",
            "task_id",
            "start_time",
            "end_time",
            "start_time_usec",
            "end_time_usec",
            "duration",
            "file_size",
            "stream_param",
            "media_start_time",
            "record_bps",
            "callback_ext",
        ],
    );
    assert_eq!(
        (&told.body["duration"], &told.body["start_time_usec"]),
        (&json!(60), &json!(316_000))
    );
    assert_eq!(
        told.body["record_temp_id"],
        rule.template_id.unwrap().number().to_string()
    );
    assert_eq!(told.link.as_ref().unwrap().name, "s1.flv");
    let id = TaskId::generate(&Seeded::new(9), at(0));
    let mut task = a_recording(Cause::Task(id), &[Format::Flv]);
    task.template_id = None;
    let told = |manner: Manner| file(&a_file(&task, Format::Flv), &task, manner).remove(0).body;
    let plain = told(MANNER);
    assert!(!plain.contains_key("stream_param"));
    assert_eq!(
        (&plain["task_id"], &plain["record_temp_id"]),
        (&json!(id.to_string()), &json!(""))
    );
    assert_eq!(
        told(Manner {
            task_stream_param: true,
            ..MANNER
        })["stream_param"],
        "k=v"
    );
}

#[test]
fn what_is_missing_is_an_exception_and_like_ones_are_one() {
    let rule = a_recording(Cause::BuiltIn, &[Format::Flv, Format::Mp4]);
    let gap = |reason: &str| Gap {
        reason: reason.to_owned(),
        from_ms: 5,
        to_ms: 9,
        units: 1,
    };
    let mut broken = a_file(&rule, Format::Flv);
    broken.gaps = vec![
        gap("timestamp_jump"),
        gap("timestamp_jump"),
        gap("torn_tail"),
        gap("before_first_key_frame"),
    ];
    broken.video_units = 0;
    let drafts = file(&broken, &rule, MANNER);
    let kinds: Vec<Kind> = drafts.iter().map(|draft| draft.kind).collect();
    assert_eq!(
        kinds,
        [
            Kind::File,
            Kind::Exception,
            Kind::Exception,
            Kind::Exception,
            Kind::PushException
        ]
    );
    assert_eq!(words(&drafts, "exception_level"), ["error", "info", "warning"]);
    assert_eq!(
        drafts[3].body["exception"],
        json!({"type": -9, "occurs": 2, "desc": "timestamp_jump"})
    );
    has_all(
        &drafts[1],
        &[
            "interface",
            "event_type",
            "appid",
            "domain",
            "path",
            "stream_id",
            "session_id",
            "file_format",
            "timestamp",
            "exception_level",
            "exception",
        ],
    );
    has_all(
        &drafts[4],
        &[
            "event_type",
            "interface",
            "appid",
            "domain",
            "path",
            "stream_id",
            "stream_param",
            "sequence",
            "data_time",
            "report_interval",
            "timeout",
            "abnormal_event",
        ],
    );
    broken.format = Format::Mp4;
    let second = file(&broken, &rule, MANNER);
    assert!(
        !second.iter().any(|draft| draft.kind == Kind::PushException),
        "a push is told of once"
    );
    let mut failed = rule.clone();
    failed.state = RecordingState::Failed;
    failed.reason = "disk_full".to_owned();
    let drafts = recording(Some(&rule), &failed, MANNER);
    assert_eq!(
        drafts.last().unwrap().body["exception"],
        json!({"type": -104, "occurs": 1, "desc": "disk_full"})
    );
    let mut spec = CallbackSpec {
        urls: BTreeMap::from([(Kind::Exception, "http://x".to_owned())]),
        levels: vec![Level::Warning],
        ..CallbackSpec::default()
    };
    assert!(!wanted(drafts.last().unwrap(), &spec) && !wanted(&drafts[0], &spec));
    spec.levels.clear();
    assert!(wanted(drafts.last().unwrap(), &spec));
}
