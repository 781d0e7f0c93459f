//! The `aircheck` binary.
fn main() {}
