//! In which place of objects a template's recordings go, and so which folder each has.

use super::{TemplateError, TemplateSpec, shortened};
use crate::ids::{RecordingId, StreamKey};
use crate::objects::{folder, is_place_name};

impl TemplateSpec {
    /// The folder of a recording that is made by it.
    #[must_use]
    pub fn folder(&self, stream: &StreamKey, recording: RecordingId) -> String {
        folder(&self.place, stream, recording)
    }

    pub(super) fn check_place(&self) -> Result<(), TemplateError> {
        match self.place.is_empty() || is_place_name(&self.place) {
            true => Ok(()),
            false => Err(TemplateError::Place {
                found: shortened(&self.place),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_without_a_place_is_written_as_before() {
        let mut spec = TemplateSpec::plain("x", &[]);
        assert!(!serde_json::to_string(&spec).unwrap().contains("place"));
        let old: TemplateSpec = serde_json::from_str(r#"{"name":"x"}"#).unwrap();
        assert_eq!(old, spec);
        spec.place = "cold".to_owned();
        assert_eq!(spec.validate(), Ok(()));
        let text = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<TemplateSpec>(&text).unwrap(), spec);
        spec.place = "no place".to_owned();
        assert!(spec.validate().unwrap_err().to_string().contains("lower-case letters"));
    }
}
