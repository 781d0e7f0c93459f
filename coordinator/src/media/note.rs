//! [`Note`]: what people add to a file of the library. The file's own record says what it is, when it goes and whether it is locked.

use serde::{Deserialize, Serialize};
use shared::{recording::MediaFile, time::Timestamp};

/// What people say of a file.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Note {
    /// Another name than the one it was made with.
    pub(crate) name: Option<String>,
    pub(crate) description: String,
    /// In the order in which they were added.
    pub(crate) tags: Vec<String>,
    pub(crate) updated: Option<Timestamp>,
}

impl Note {
    /// What the file is called.
    pub(crate) fn name<'a>(&'a self, file: &'a MediaFile) -> &'a str {
        self.name.as_deref().unwrap_or(&file.name)
    }
}
