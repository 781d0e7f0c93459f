//! Bad input on every call of every service. What the services are is read from the contract itself: a new call without an entry
//! here fails.

use std::{collections::BTreeMap, time::Duration};

use prost::Message;
use proto::v1;
use shared::{auth::Secret, ids::IdGen as _};
use tonic::Code;

use crate::{
    reflect::{Contract, Method, Wrong, call},
    world::{World, named, spec},
};

/// Longest refusal, bytes: it may quote what is wrong, and never all of it.
const MAX_WORDS: usize = 1_024;

fn key() -> Option<v1::StreamKey> {
    Some(v1::StreamKey {
        domain: "d".into(),
        app: "live".into(),
        stream: "s".into(),
    })
}

fn callback(name: &str) -> Option<v1::CallbackTemplateSpec> {
    Some(v1::CallbackTemplateSpec {
        name: name.into(),
        urls: Some(v1::CallbackUrls {
            push_start: "https://receiver.example.com/events".into(),
            ..Default::default()
        }),
        ..Default::default()
    })
}

/// For each call a request of the right shape, about things that do not exist; and what comes of it.
fn entries(world: &World) -> BTreeMap<&'static str, (Vec<u8>, Code)> {
    let id = || world.ids.uuid(world.now()).to_string();
    let now = world.now().as_millis();
    let rule = Some(v1::RuleKey {
        domain: "d".into(),
        app: "live".into(),
        stream: "s".into(),
    });
    let pull = Some(v1::PullRef {
        by: Some(v1::pull_ref::By::PullId(id())),
    });
    let entry = |message: &dyn ToBytes, code| (message.bytes(), code);
    let mut all = BTreeMap::from([
        (
            "Callbacks/CreateCallbackTemplate",
            entry(
                &v1::CreateCallbackTemplateRequest {
                    spec: callback("c"),
                    key: String::new(),
                },
                Code::Ok,
            ),
        ),
        (
            "Callbacks/UpdateCallbackTemplate",
            entry(
                &v1::UpdateCallbackTemplateRequest {
                    template: "none".into(),
                    spec: callback("none"),
                    key: None,
                },
                Code::NotFound,
            ),
        ),
        (
            "Callbacks/ListCallbackTemplates",
            entry(&v1::ListCallbackTemplatesRequest::default(), Code::Ok),
        ),
        (
            "Callbacks/DeleteCallbackTemplate",
            entry(
                &v1::DeleteCallbackTemplateRequest {
                    template: "none".into(),
                },
                Code::NotFound,
            ),
        ),
        (
            "Callbacks/CreateCallbackRule",
            entry(
                &v1::CreateCallbackRuleRequest {
                    domain: "d".into(),
                    app: "live".into(),
                    template: "none".into(),
                },
                Code::NotFound,
            ),
        ),
        (
            "Callbacks/ListCallbackRules",
            entry(&v1::ListCallbackRulesRequest::default(), Code::Ok),
        ),
        (
            "Callbacks/DeleteCallbackRule",
            entry(
                &v1::DeleteCallbackRuleRequest {
                    domain: "d".into(),
                    app: "live".into(),
                },
                Code::NotFound,
            ),
        ),
        ("Events/ListEvents", entry(&v1::ListEventsRequest::default(), Code::Ok)),
        (
            "Events/GetEvent",
            entry(&v1::GetEventRequest { id: id() }, Code::NotFound),
        ),
        (
            "Events/ReplayEvent",
            entry(&v1::ReplayEventRequest { id: id() }, Code::NotFound),
        ),
        ("Files/ListFiles", entry(&v1::ListFilesRequest::default(), Code::Ok)),
        (
            "Files/GetFile",
            entry(&v1::GetFileRequest { file_id: id() }, Code::NotFound),
        ),
        (
            "Files/LockFile",
            entry(&v1::LockFileRequest { file_id: id() }, Code::NotFound),
        ),
        (
            "Files/UnlockFile",
            entry(&v1::UnlockFileRequest { file_id: id() }, Code::NotFound),
        ),
        (
            "Files/DeleteFile",
            entry(&v1::DeleteFileRequest { file_id: id() }, Code::NotFound),
        ),
        (
            "Files/ListRemovals",
            entry(&v1::ListRemovalsRequest::default(), Code::Ok),
        ),
        ("Files/ListCopies", entry(&v1::ListCopiesRequest::default(), Code::Ok)),
        (
            "Workers/ReadRecording",
            entry(
                &v1::ReadRecordingRequest {
                    recording_id: id(),
                    ..Default::default()
                },
                Code::NotFound,
            ),
        ),
        (
            "Workers/TradeCopies",
            entry(&v1::TradeCopiesRequest::default(), Code::InvalidArgument),
        ),
        (
            "Recordings/LockRecording",
            entry(&v1::LockRecordingRequest { recording_id: id() }, Code::NotFound),
        ),
        (
            "Recordings/UnlockRecording",
            entry(&v1::UnlockRecordingRequest { recording_id: id() }, Code::NotFound),
        ),
        (
            "Recordings/RestoreRecording",
            entry(
                &v1::RestoreRecordingRequest {
                    document: b"{}".to_vec(),
                    ..Default::default()
                },
                Code::InvalidArgument,
            ),
        ),
        ("Fleet/ListWorkers", entry(&v1::ListWorkersRequest::default(), Code::Ok)),
        (
            "Fleet/DrainWorker",
            entry(
                &v1::DrainWorkerRequest {
                    worker: "nobody".to_owned(),
                    undo: false,
                },
                Code::NotFound,
            ),
        ),
        ("Keys/CreateKey", entry(&v1::CreateKeyRequest::default(), Code::Ok)),
        ("Keys/ListKeys", entry(&v1::ListKeysRequest::default(), Code::Ok)),
        (
            "Keys/ResealSecrets",
            entry(&v1::ResealSecretsRequest::default(), Code::Ok),
        ),
        (
            "Keys/DisableKey",
            entry(
                &v1::DisableKeyRequest {
                    secret_id: "AKIDnobody".into(),
                },
                Code::NotFound,
            ),
        ),
        (
            "PullSources/CreatePullSource",
            entry(
                &v1::CreatePullSourceRequest {
                    stream: key(),
                    url: "rtmp://origin.example.com/live/s".into(),
                    ..Default::default()
                },
                Code::Ok,
            ),
        ),
        (
            "PullSources/GetPullSource",
            entry(&v1::GetPullSourceRequest { pull: pull.clone() }, Code::NotFound),
        ),
        (
            "PullSources/ListPullSources",
            entry(&v1::ListPullSourcesRequest::default(), Code::Ok),
        ),
        (
            "PullSources/UpdatePullSource",
            entry(
                &v1::UpdatePullSourceRequest {
                    pull: pull.clone(),
                    ..Default::default()
                },
                Code::NotFound,
            ),
        ),
        (
            "PullSources/DeletePullSource",
            entry(&v1::DeletePullSourceRequest { pull }, Code::NotFound),
        ),
        (
            "Recordings/ListRecordings",
            entry(&v1::ListRecordingsRequest::default(), Code::Ok),
        ),
        (
            "Recordings/GetRecording",
            entry(&v1::GetRecordingRequest { recording_id: id() }, Code::NotFound),
        ),
        (
            "Recordings/ExplainRecording",
            entry(&v1::ExplainRecordingRequest { stream: key() }, Code::Ok),
        ),
        (
            "Rules/CreateRule",
            entry(
                &v1::CreateRuleRequest {
                    key: rule.clone(),
                    template: Some(v1::create_rule_request::Template::TemplateId(id())),
                },
                Code::NotFound,
            ),
        ),
        ("Rules/ListRules", entry(&v1::ListRulesRequest::default(), Code::Ok)),
        (
            "Rules/DeleteRule",
            entry(&v1::DeleteRuleRequest { key: rule }, Code::NotFound),
        ),
        (
            "Streams/ListStreams",
            entry(&v1::ListStreamsRequest::default(), Code::Ok),
        ),
        (
            "Streams/ExplainStream",
            entry(&v1::ExplainStreamRequest { stream: key() }, Code::Ok),
        ),
        (
            "Tasks/CreateTask",
            entry(
                &v1::CreateTaskRequest {
                    stream: key(),
                    start_ms: now + 60_000,
                    end_ms: now + 120_000,
                    ..Default::default()
                },
                Code::Ok,
            ),
        ),
        (
            "Tasks/StopTask",
            entry(&v1::StopTaskRequest { task_id: id() }, Code::NotFound),
        ),
        (
            "Tasks/DeleteTask",
            entry(
                &v1::DeleteTaskRequest {
                    task_id: id(),
                    let_run: false,
                },
                Code::NotFound,
            ),
        ),
        (
            "Tasks/GetTask",
            entry(&v1::GetTaskRequest { task_id: id() }, Code::NotFound),
        ),
        ("Tasks/ListTasks", entry(&v1::ListTasksRequest::default(), Code::Ok)),
        (
            "Templates/CreateTemplate",
            entry(
                &v1::CreateTemplateRequest {
                    spec: Some(spec("t", &[v1::Format::Flv])),
                },
                Code::Ok,
            ),
        ),
        (
            "Templates/GetTemplate",
            entry(
                &v1::GetTemplateRequest {
                    template: named("none"),
                },
                Code::NotFound,
            ),
        ),
        (
            "Templates/ListTemplates",
            entry(&v1::ListTemplatesRequest::default(), Code::Ok),
        ),
        (
            "Templates/UpdateTemplate",
            entry(
                &v1::UpdateTemplateRequest {
                    template: named("none"),
                    spec: Some(spec("none", &[v1::Format::Flv])),
                },
                Code::NotFound,
            ),
        ),
        (
            "Templates/DeleteTemplate",
            entry(
                &v1::DeleteTemplateRequest {
                    template: named("none"),
                },
                Code::NotFound,
            ),
        ),
        (
            "Workers/Session",
            entry(
                &v1::WorkerUp {
                    message: Some(v1::worker_up::Message::Hello(v1::Hello {
                        worker_id: id(),
                        name: "w".into(),
                        ..Default::default()
                    })),
                },
                Code::Ok,
            ),
        ),
        ("Workers/AcquireLease", entry(&world.ask(world.worker(), "s"), Code::Ok)),
        (
            "Workers/ReleaseLease",
            entry(
                &v1::ReleaseLeaseRequest {
                    publish_id: id(),
                    epoch: 1,
                    reason: "peer_closed".into(),
                    ended_ms: now,
                    revision: 0,
                },
                Code::Ok,
            ),
        ),
        (
            "Workers/CommitFile",
            entry(
                &v1::CommitFileRequest {
                    recording_id: id(),
                    epoch: 1,
                    file: Some(world.file(v1::Format::Flv, 0)),
                },
                Code::NotFound,
            ),
        ),
        (
            "Workers/CommitRecording",
            entry(
                &v1::CommitRecordingRequest {
                    recording_id: id(),
                    epoch: 1,
                    state: v1::RecordingState::Recording.into(),
                    ..Default::default()
                },
                Code::NotFound,
            ),
        ),
    ]);
    all.extend(crate::more_input::entries(&id()));
    all
}

trait ToBytes {
    fn bytes(&self) -> Vec<u8>;
}

impl<M: Message> ToBytes for M {
    fn bytes(&self) -> Vec<u8> {
        self.encode_to_vec()
    }
}

fn short(method: &Method) -> &str {
    method.path.trim_start_matches("/aircheck.v1.")
}

/// The calls of the contract that are ours; health and reflection are not.
fn ours(contract: &Contract) -> Vec<Method> {
    let methods = contract.methods();
    let ours = methods
        .into_iter()
        .filter(|method| method.path.starts_with("/aircheck.v1."));
    ours.collect()
}

#[actix_rt::test]
async fn every_call_has_an_entry_and_every_entry_a_call() {
    let world = World::new(|_| {}).await;
    let contract = Contract::new();
    let methods = ours(&contract);
    let entries = entries(&world);
    let called: Vec<&str> = methods.iter().map(short).collect();
    for name in &called {
        assert!(entries.contains_key(name), "{name} has no entry in bad_input.rs");
    }
    for name in entries.keys() {
        assert!(called.contains(name), "{name} is no call");
    }
}

#[actix_rt::test]
async fn what_does_not_exist_is_not_found_and_an_empty_request_says_what_is_missing() {
    let world = World::new(|_| {}).await;
    let entries = entries(&world);
    for method in ours(&Contract::new()) {
        let (request, expected) = &entries[short(&method)];
        let answered = call(&world.channel, &method.path, request.clone()).await;
        let code = answered.as_ref().map_or_else(tonic::Status::code, |()| Code::Ok);
        assert_eq!(code, *expected, "{}: {answered:?}", method.path);
        let empty = call(&world.channel, &method.path, Vec::new()).await;
        if let Err(refused) = empty {
            // Where a name is any text, there is none of that name.
            let codes = [Code::InvalidArgument, Code::NotFound];
            assert!(codes.contains(&refused.code()), "{}: {refused:?}", method.path);
            assert!(!refused.message().is_empty(), "{}", method.path);
        } else {
            let needs_nothing = ["/CreateKey", "/ResealSecrets"];
            let legal = method.path.contains("/List") || needs_nothing.iter().any(|call| method.path.ends_with(call));
            assert!(legal, "{} takes an empty request", method.path);
        }
    }
}

#[actix_rt::test]
async fn times_that_cannot_be_are_refused_with_what_could() {
    let world = World::new(|_| {}).await;
    let now = world.now().as_millis();
    let task = |start_ms, end_ms| {
        let task = v1::CreateTaskRequest {
            stream: key(),
            start_ms,
            end_ms,
            ..Default::default()
        };
        ("Tasks/CreateTask", task.bytes())
    };
    let pull = |from_ms, until_ms| {
        let pull = v1::CreatePullSourceRequest {
            stream: key(),
            url: "rtmp://origin.example.com/live/s".into(),
            from_ms,
            until_ms,
            ..Default::default()
        };
        ("PullSources/CreatePullSource", pull.bytes())
    };
    let list = |from_ms, to_ms| {
        let list = v1::ListTasksRequest {
            from_ms,
            to_ms,
            ..Default::default()
        };
        ("Tasks/ListTasks", list.bytes())
    };
    for ((name, request), says) in [
        (task(now + 20_000, now + 10_000), "give a later end"),
        (task(now + 20_000, now + 20_000), "give a later end"),
        (task(now - 20_000, now - 10_000), "end"),
        (task(0, 0), "end_ms"),
        (pull(now + 20_000, now + 10_000), "end"),
        (pull(0, now - 10_000), "end"),
        (list(20, 10), "to_ms"),
    ] {
        let path = format!("/aircheck.v1.{name}");
        let refused = call(&world.channel, &path, request).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{path}: {refused:?}");
        assert!(refused.message().contains(says), "{path}: {says}: {refused:?}");
    }
}

#[actix_rt::test]
async fn nobody_is_let_in_without_a_token() {
    let world = World::new(|config| {
        config.auth.join_token = Some(Secret::new("join-join-join-join").unwrap());
        config.auth.api_token = Some(Secret::new("api-api-api-api-api").unwrap());
    })
    .await;
    let entries = entries(&world);
    for method in ours(&Contract::new()) {
        let (request, _) = &entries[short(&method)];
        let refused = call(&world.channel, &method.path, request.clone()).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated, "{}", method.path);
        assert!(refused.message().contains("token"), "{}: {refused:?}", method.path);
    }
}

/// Services whose fields are held to their bounds by tests of their own.
const OF_THEIR_OWN: [&str; 2] = ["Callbacks/", "Events/"];

/// Fields that may be so, by the end of their names, and what comes of them where it is not `INVALID_ARGUMENT`.
const MAY_BE: [(&str, Wrong, Code); 14] = [
    // Names of what is looked for: no such thing.
    ("DisableKey secret_id", Wrong::Long, Code::NotFound),
    ("DisableKey secret_id", Wrong::NoId, Code::NotFound),
    ("Template template.name", Wrong::Long, Code::NotFound),
    ("CreateRule template_name", Wrong::Long, Code::NotFound),
    // Filled in by the coordinator, whatever was sent.
    ("CommitFile file.recording_id", Wrong::Long, Code::Ok),
    ("CommitFile file.recording_id", Wrong::NoId, Code::Ok),
    ("CommitFile file.trace_id", Wrong::Long, Code::Ok),
    ("CommitFile file.trace_id", Wrong::NoId, Code::Ok),
    ("CommitFile file.expires_ms", Wrong::Least, Code::Ok),
    ("CommitFile file.expires_ms", Wrong::Greatest, Code::Ok),
    ("CommitFile file.copied_ms", Wrong::Least, Code::Ok),
    ("CommitFile file.copied_ms", Wrong::Greatest, Code::Ok),
    // Media time has no epoch.
    ("gaps.from_ms", Wrong::Least, Code::Ok),
    ("gaps.to_ms", Wrong::Greatest, Code::Ok),
];

fn may_be(name: &str, wrong: Wrong, code: Code) -> bool {
    MAY_BE
        .iter()
        .any(|(end, so, answer)| name.ends_with(end) && *so == wrong && *answer == code)
}

#[actix_rt::test]
async fn each_field_that_is_wrong_by_itself_is_refused_and_named() {
    let world = World::new(|config| config.record = vec![shared::template::Format::Flv]).await;
    let mut entries = entries(&world);
    // What there is is changed as it may be, so that it is the field that is refused.
    let granted = world.grant(&world.ask(world.worker(), "recorded")).await;
    let recording_id = granted.recordings[0].recording_id.clone();
    let running = v1::CommitRecordingRequest {
        recording_id: recording_id.clone(),
        epoch: granted.epoch,
        state: v1::RecordingState::Recording.into(),
        ..Default::default()
    };
    let file = v1::CommitFileRequest {
        recording_id,
        epoch: granted.epoch,
        file: Some(world.file(v1::Format::Flv, 0)),
    };
    for (name, request) in [
        ("Workers/CommitRecording", running.bytes()),
        ("Workers/CommitFile", file.bytes()),
    ] {
        call(&world.channel, &format!("/aircheck.v1.{name}"), request.clone())
            .await
            .unwrap();
        entries.insert(name, (request, Code::Ok));
    }
    let contract = Contract::new();
    let mut surprises = Vec::new();
    let mut count = 0;
    for method in ours(&contract) {
        if OF_THEIR_OWN.iter().any(|service| short(&method).starts_with(service)) {
            continue;
        }
        let (request, _) = &entries[short(&method)];
        for field in contract.fields(&method) {
            for wrong in field.wrongs() {
                count += 1;
                let spoiled = field.spoil(request, wrong);
                let answered =
                    tokio::time::timeout(Duration::from_secs(10), call(&world.channel, &method.path, spoiled));
                let answered = answered.await.expect("an answer");
                let (code, words) = match &answered {
                    Ok(()) => (Code::Ok, ""),
                    Err(status) => (status.code(), status.message()),
                };
                if words.len() > MAX_WORDS {
                    surprises.push(format!(
                        "{} {} {wrong:?}: {} bytes of words",
                        short(&method),
                        field.name,
                        words.len()
                    ));
                }
                let name = format!("{} {}", short(&method), field.name);
                if code != Code::InvalidArgument && !may_be(&name, wrong, code) {
                    surprises.push(format!(
                        "{} {} {wrong:?}: {code:?} {words:.100}",
                        short(&method),
                        field.name
                    ));
                }
            }
        }
    }
    assert!(count > 100, "{count} cases");
    assert!(surprises.is_empty(), "{}", surprises.join("\n"));
}
