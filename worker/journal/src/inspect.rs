use crate::JournalError;
use std::{io::Write, path::Path};
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    Text,
    Json,
}
/// Prints a journal directory, segment, index or slot file.
pub fn inspect(path: &Path, style: Style, out: &mut dyn Write) -> Result<(), JournalError> {
    todo!()
}
