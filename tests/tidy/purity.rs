//! Pure files decide and do nothing else: they name no clock, no file, no socket, no thread and no runtime.

use std::path::PathBuf;

use crate::{code, files, sources};

/// Files that only compute.
const PURE_FILES: &[&str] = &[
    "shared/src/ids.rs",
    "shared/src/composition.rs",
    "shared/src/lease.rs",
    "shared/src/pull.rs",
    "shared/src/recording.rs",
    "shared/src/rule.rs",
    "shared/src/template.rs",
    "shared/src/store/keys.rs",
    "shared/src/store/kv.rs",
    "shared/src/store/url.rs",
    "coordinator/src/catalog.rs",
    "coordinator/src/api/tencent/limits.rs",
    "coordinator/src/api/tencent/params.rs",
    "coordinator/src/api/tencent/replays.rs",
    "coordinator/src/api/tencent/request.rs",
    "coordinator/src/api/tencent/signature/mod.rs",
    "coordinator/src/api/tencent/signature/tc3.rs",
    "coordinator/src/api/tencent/signature/v1.rs",
    "coordinator/src/api/tencent/text.rs",
    "coordinator/src/api/tencent/vod/query.rs",
    "coordinator/src/compositions.rs",
    "coordinator/src/doors.rs",
    "coordinator/src/events/book.rs",
    "coordinator/src/events/letter.rs",
    "coordinator/src/events/queue.rs",
    "coordinator/src/events/tell.rs",
    "coordinator/src/fleet.rs",
    "coordinator/src/leases.rs",
    "coordinator/src/leases/restore.rs",
    "coordinator/src/leases/stale.rs",
    "coordinator/src/leases/stitched.rs",
    "coordinator/src/media/link.rs",
    "coordinator/src/media/note.rs",
    "coordinator/src/push_key.rs",
    "coordinator/src/planner/compositions.rs",
    "coordinator/src/planner/mod.rs",
    "coordinator/src/planner/sessions.rs",
    "coordinator/src/planner/tasks.rs",
    "coordinator/src/pulls.rs",
    "coordinator/src/scaler.rs",
    "coordinator/src/stitches.rs",
    "coordinator/src/tasks.rs",
    "worker/journal/src/format.rs",
    "worker/journal/src/position.rs",
    "worker/src/compose/cut.rs",
    "worker/src/stream/core.rs",
    "worker/src/stream/needs.rs",
    "worker/src/record/state.rs",
];

const IMPURE: &[&str] = &[
    "tokio",
    "actix",
    "tonic::",
    "proto::",
    "std::fs",
    "std::net",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
    "Instant::now",
    "SystemTime::now",
    "std::env",
    "std::process",
];

/// Maps whose order differs from run to run: behaviour must not.
const UNORDERED: &[&str] = &["HashMap", "HashSet"];

fn pure_files() -> Vec<PathBuf> {
    let mut pure = sources("worker/media/src");
    let all = files();
    pure.extend(PURE_FILES.iter().map(PathBuf::from).filter(|path| all.contains(path)));
    pure
}

#[test]
fn pure_files_name_nothing_that_acts() {
    let mut found = Vec::new();
    for path in pure_files() {
        for (number, line) in code(&path) {
            for word in IMPURE.iter().chain(UNORDERED).filter(|word| line.contains(**word)) {
                found.push(format!("{}:{number} names {word}", path.display()));
            }
        }
    }
    assert!(found.is_empty(), "pure files that act:\n{}", found.join("\n"));
}

#[test]
fn wire_types_stay_at_the_border() {
    let border = ["shared/src/wire.rs", "shared/src/wire"];
    let mut found = Vec::new();
    for path in sources("shared/src").into_iter().chain(sources("worker/journal/src")) {
        if border.iter().any(|allowed| path.starts_with(allowed)) {
            continue;
        }
        found.extend(
            code(&path)
                .into_iter()
                // OTLP's messages are another's contract, and go no further than the file that sends them.
                .filter(|(_, line)| line.replace("opentelemetry_proto::", "").contains("proto::"))
                .map(|(number, _)| format!("{}:{number}", path.display())),
        );
    }
    assert!(
        found.is_empty(),
        "wire types outside shared/src/wire.rs:\n{}",
        found.join("\n")
    );
}

#[test]
fn tests_are_never_switched_off() {
    let mut found = Vec::new();
    for path in files()
        .iter()
        .filter(|path| path.extension().is_some_and(|e| e == "rs"))
    {
        if path.starts_with("tests/tidy") {
            continue;
        }
        let text = crate::text(path).expect("Rust sources are text");
        found.extend(
            text.lines()
                .enumerate()
                .filter(|(_, line)| {
                    line.contains("#[ignore") || line.contains("todo!(") || line.contains("unimplemented!(")
                })
                .map(|(index, line)| format!("{}:{}: {}", path.display(), index + 1, line.trim())),
        );
    }
    assert!(found.is_empty(), "switched off or unfinished:\n{}", found.join("\n"));
}

#[test]
fn the_lists_above_name_files_that_exist() {
    let all = files();
    let gone: Vec<&&str> = PURE_FILES
        .iter()
        .filter(|path| !all.contains(&PathBuf::from(path)))
        .collect();
    assert!(gone.is_empty(), "no such files: {gone:?}");
}
