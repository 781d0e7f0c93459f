//! What no tracked file may say.

use std::path::Path;

use crate::{code, files, text};

/// Paths of one machine and hosts of registries; put together so that this file does not contain them.
fn forbidden() -> Vec<String> {
    let mut words: Vec<String> = ["/root", "/work", "/home"]
        .iter()
        .map(|folder| format!("{folder}/"))
        .collect();
    words.extend(
        ["crates", "registry.npmjs", "pypi", "deb.debian"]
            .iter()
            .zip([".io/", ".org", ".org", ".org"])
            .map(|(host, end)| format!("{host}{end}")),
    );
    words.push(format!("registry+https://{}", "mirror"));
    words
}

/// Lock files name the registry in the form that the tools themselves write.
fn exempt(path: &Path) -> bool {
    path.ends_with("Cargo.lock")
}

#[test]
fn no_file_names_a_machine_or_a_registry() {
    let words = forbidden();
    let mut found = Vec::new();
    for path in files().iter().filter(|path| !exempt(path)) {
        let Some(text) = text(path) else { continue };
        for (index, line) in text.lines().enumerate() {
            if let Some(word) = words.iter().find(|word| line.contains(word.as_str())) {
                found.push(format!("{}:{}: {word}", path.display(), index + 1));
            }
        }
    }
    assert!(
        found.is_empty(),
        "names of machines or registries:\n{}",
        found.join("\n")
    );
}

/// The attribute that begins on the first line; it may go on over several.
fn attribute<'a>(lines: impl Iterator<Item = &'a str>) -> String {
    let mut text = String::new();
    for line in lines.take(12) {
        text += line;
        if line.contains(")]") {
            break;
        }
    }
    text
}

#[test]
fn code_goes_round_no_lint_without_a_reason() {
    let mut found = Vec::new();
    for path in files()
        .iter()
        .filter(|path| path.extension().is_some_and(|e| e == "rs"))
    {
        if path.starts_with("tests/tidy") {
            continue;
        }
        let lines = code(path);
        for (index, (number, line)) in lines.iter().enumerate() {
            let rest = lines[index..].iter().map(|(_, line)| line.as_str());
            if line.contains("[allow(") && !attribute(rest).contains("reason") {
                found.push(format!("{}:{number}: {}", path.display(), line.trim()));
            }
        }
    }
    assert!(
        found.is_empty(),
        "use #[expect(…, reason = \"…\")]:\n{}",
        found.join("\n")
    );
}

/// A file this long does more than one thing.
const LINES_MAX: usize = 700;
/// From here on it is worth a look.
const LINES_NOTICE: usize = 500;

#[test]
fn files_stay_readable() {
    let mut found = Vec::new();
    for path in files()
        .iter()
        .filter(|path| path.extension().is_some_and(|e| e == "rs" || e == "py"))
    {
        let lines = text(path).map_or(0, |text| text.lines().count());
        if lines > LINES_NOTICE {
            eprintln!("notice: {} has {lines} lines", path.display());
        }
        if lines > LINES_MAX {
            found.push(format!("{}: {lines} lines", path.display()));
        }
    }
    assert!(
        found.is_empty(),
        "files of more than {LINES_MAX} lines:\n{}",
        found.join("\n")
    );
}
