//! Storage classes: what object storage is told of a format's media.

use super::{Format, TemplateSpec};

/// Longest name of a storage class, bytes.
const MAX_STORAGE_CLASS_BYTES: usize = 64;

/// What is wrong with the name of a storage class. Services have names of their own, so any that may be one is taken.
pub(super) fn wrong_class(class: &str) -> Option<&'static str> {
    let legal = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || b"_-".contains(&byte);
    match class {
        _ if class.len() > MAX_STORAGE_CLASS_BYTES => Some("at most 64 bytes are allowed"),
        _ if !class.bytes().all(legal) => Some("use capital letters, digits, `_` and `-`, such as STANDARD_IA"),
        "GLACIER" | "DEEP_ARCHIVE" | "ARCHIVE" => {
            Some("what lies there must be restored before it can be read: move files there by a life cycle rule")
        }
        _ => None,
    }
}

impl TemplateSpec {
    /// What object storage is told of the media of a format; none: what the settings of storage say.
    #[must_use]
    pub fn storage_class(&self, format: Format) -> Option<&str> {
        let class = self
            .formats
            .get(&format)
            .map(|settings| settings.storage_class.as_str());
        class.filter(|class| !class.is_empty())
    }
}
