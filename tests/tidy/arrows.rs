//! Which crate may depend on which, and that a wire protocol is in the build once.

use std::collections::BTreeSet;
use std::path::Path;

use crate::text;

/// A crate's manifest, and the crates of this workspace and others that it must not name.
const FORBIDDEN: &[(&str, &[&str])] = &[
    (
        "proto/Cargo.toml",
        &["shared", "coordinator", "worker", "media", "journal", "actix", "tokio"],
    ),
    (
        "shared/Cargo.toml",
        &[
            "coordinator",
            "worker",
            "media",
            "journal",
            "actix",
            "actix-rt",
            "actix-web",
        ],
    ),
    ("coordinator/Cargo.toml", &["worker", "media", "journal"]),
    ("worker/Cargo.toml", &["coordinator"]),
    (
        "worker/journal/Cargo.toml",
        &["coordinator", "worker", "shared", "proto", "tokio", "actix"],
    ),
];

/// All that the media core may use: nothing that acts. The digest is the RTMP handshake's. It is `no_std`: what it does not
/// depend on, it cannot call.
const MEDIA_MAY_USE: &[&str] = &["bytes", "thiserror", "hmac", "sha2"];

/// Names under `[dependencies]` (and its dotted sub-tables) of a manifest.
fn dependencies(manifest: &str) -> BTreeSet<String> {
    let text = text(Path::new(manifest)).unwrap_or_else(|| panic!("{manifest} is text"));
    let mut section = String::new();
    let mut names = BTreeSet::new();
    for line in text.lines().map(str::trim) {
        if let Some(header) = line.strip_prefix('[') {
            section = header.trim_end_matches(']').to_owned();
            names.extend(section.strip_prefix("dependencies.").map(str::to_owned));
        } else if section == "dependencies" && !line.starts_with('#') {
            let name = line.split(['.', '=', ' ']).next().unwrap_or("");
            names.extend((!name.is_empty()).then(|| name.to_owned()));
        }
    }
    names
}

#[test]
fn dependencies_point_one_way() {
    for (manifest, forbidden) in FORBIDDEN {
        let names = dependencies(manifest);
        for name in *forbidden {
            assert!(
                !names.contains(*name),
                "{manifest} must not depend on {name} (docs/ARCHITECTURE.md)"
            );
        }
    }
}

#[test]
fn the_media_core_uses_nothing_that_can_do_io() {
    let names = dependencies("worker/media/Cargo.toml");
    let more: Vec<&String> = names
        .iter()
        .filter(|name| !MEDIA_MAY_USE.contains(&name.as_str()))
        .collect();
    assert!(
        more.is_empty(),
        "worker/media depends on {more:?}; it may use {MEDIA_MAY_USE:?}"
    );
    let lib = text(Path::new("worker/media/src/lib.rs")).expect("lib.rs is text");
    assert!(lib.contains("no_std"), "worker/media is no longer no_std");
}

#[test]
fn each_wire_protocol_is_in_the_build_once() {
    let lock = text(Path::new("Cargo.lock")).expect("Cargo.lock is text");
    for name in ["tonic", "prost", "hyper", "rustls", "tokio"] {
        let count = lock
            .lines()
            .filter(|line| *line == format!("name = \"{name}\""))
            .count();
        assert!(count <= 1, "{count} versions of {name} in Cargo.lock");
    }
}

#[test]
fn versions_stand_in_the_workspace_manifest_alone() {
    for manifest in crate::files()
        .iter()
        .filter(|path| path.ends_with("Cargo.toml") && !path.ends_with("fuzz/Cargo.toml"))
    {
        if manifest == Path::new("Cargo.toml") {
            continue;
        }
        let name = manifest.to_string_lossy();
        let text = text(manifest).expect("a manifest is text");
        let mut in_dependencies = false;
        for line in text.lines() {
            if let Some(section) = line.strip_prefix('[') {
                in_dependencies = section.contains("dependencies");
            } else if in_dependencies && !line.trim().is_empty() && !line.trim_start().starts_with('#') {
                let inherits =
                    line.contains("workspace = true") || line.contains(".workspace") || line.starts_with(' ');
                assert!(
                    inherits || line.contains("path ="),
                    "{name} names a version itself: {line}"
                );
            }
        }
    }
}
