//! Rules about the sources themselves that the compiler does not hold.

mod arrows;
mod purity;
mod words;

use std::path::{Path, PathBuf};

/// The checkout's root: this is its root package.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every file that git tracks or would add, relative to the root.
fn files() -> Vec<PathBuf> {
    let output = std::process::Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "-z"])
        .current_dir(root())
        .output()
        .expect("git lists the files");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let listed = String::from_utf8(output.stdout).expect("file names are UTF-8");
    let files: Vec<PathBuf> = listed
        .split('\0')
        .filter(|name| !name.is_empty())
        .map(PathBuf::from)
        .collect();
    let there: Vec<PathBuf> = files.into_iter().filter(|path| root().join(path).is_file()).collect();
    assert!(there.len() > 20, "only {} files: not a checkout?", there.len());
    there
}

/// A text file's content; none for what is not text.
fn text(path: &Path) -> Option<String> {
    String::from_utf8(std::fs::read(root().join(path)).expect("a listed file can be read")).ok()
}

/// The Rust sources below `folder`.
fn sources(folder: &str) -> Vec<PathBuf> {
    files()
        .into_iter()
        .filter(|path| path.starts_with(folder) && path.extension().is_some_and(|e| e == "rs"))
        .collect()
}

/// A source's code without its comments and without its inline tests, line by line with line numbers.
fn code(path: &Path) -> Vec<(usize, String)> {
    let text = text(path).expect("Rust sources are text");
    let mut lines = Vec::new();
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("#[cfg(test)]") {
            break;
        }
        let line = line.split_once("//").map_or(line, |(code, _)| code);
        lines.push((index + 1, line.to_owned()));
    }
    lines
}
