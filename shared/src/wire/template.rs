//! Templates, as messages.

use proto::v1;

use super::{WireError, format};
use crate::template::{FileNamePattern, FormatSettings, HlsSegments, Mp4Stitch, Template, TemplateSpec};

impl TryFrom<v1::TemplateSpec> for TemplateSpec {
    type Error = WireError;
    /// Reads, fills in defaults and validates.
    fn try_from(spec: v1::TemplateSpec) -> Result<Self, WireError> {
        let mut out = TemplateSpec {
            name: spec.name,
            description: spec.description,
            formats: std::collections::BTreeMap::new(),
        };
        for settings in spec.formats {
            let format = format(settings.format).map_err(|error| error.within("formats"))?;
            let file_name = FileNamePattern::new(&settings.file_name)
                .map_err(|error| WireError::new("formats.file_name", error))?;
            let filled = FormatSettings {
                record_interval_s: if settings.record_interval_s == 0 {
                    crate::template::DEFAULT_RECORD_INTERVAL_S
                } else {
                    settings.record_interval_s
                },
                storage_time_s: settings.storage_time_s,
                file_name,
                flow_continue_s: settings.flow_continue_s,
                hls_segments: match v1::HlsSegments::try_from(settings.hls_segments) {
                    Ok(v1::HlsSegments::Unspecified | v1::HlsSegments::Ts) => HlsSegments::Ts,
                    Ok(v1::HlsSegments::Fmp4) => HlsSegments::Fmp4,
                    Err(error) => return Err(WireError::new("formats.hls_segments", error)),
                },
                mp4_stitch: match v1::Mp4Stitch::try_from(settings.mp4_stitch) {
                    Ok(v1::Mp4Stitch::Unspecified) => None,
                    Ok(v1::Mp4Stitch::Keep) => Some(Mp4Stitch::Keep),
                    Ok(v1::Mp4Stitch::Close) => Some(Mp4Stitch::Close),
                    Err(error) => return Err(WireError::new("formats.mp4_stitch", error)),
                },
            };
            if out.formats.insert(format, filled).is_some() {
                return Err(WireError::new(
                    "formats",
                    crate::template::TemplateError::Twice { format },
                ));
            }
        }
        out.validate().map_err(|error| WireError::new("spec", error))?;
        Ok(out)
    }
}

impl From<&TemplateSpec> for v1::TemplateSpec {
    fn from(spec: &TemplateSpec) -> Self {
        let formats = spec.formats.iter().map(|(format, settings)| v1::FormatSettings {
            format: v1::Format::from(*format).into(),
            record_interval_s: settings.record_interval_s,
            storage_time_s: settings.storage_time_s,
            file_name: settings.file_name.as_str().to_owned(),
            flow_continue_s: settings.flow_continue_s,
            hls_segments: match settings.hls_segments {
                HlsSegments::Ts => v1::HlsSegments::Ts,
                HlsSegments::Fmp4 => v1::HlsSegments::Fmp4,
            }
            .into(),
            mp4_stitch: match settings.mp4_stitch {
                None => v1::Mp4Stitch::Unspecified,
                Some(Mp4Stitch::Keep) => v1::Mp4Stitch::Keep,
                Some(Mp4Stitch::Close) => v1::Mp4Stitch::Close,
            }
            .into(),
        });
        v1::TemplateSpec {
            name: spec.name.clone(),
            description: spec.description.clone(),
            formats: formats.collect(),
        }
    }
}

impl From<&Template> for v1::Template {
    fn from(template: &Template) -> Self {
        v1::Template {
            template_id: template.id.to_string(),
            spec: Some((&template.spec).into()),
            created_ms: template.created.as_millis(),
            updated_ms: template.updated.as_millis(),
        }
    }
}
