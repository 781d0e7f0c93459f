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
            place: spec.place,
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
                storage_class: settings.storage_class,
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
            storage_class: settings.storage_class.clone(),
        });
        v1::TemplateSpec {
            name: spec.name.clone(),
            description: spec.description.clone(),
            formats: formats.collect(),
            place: spec.place.clone(),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::Format;

    #[test]
    fn a_place_goes_over_the_wire_and_its_name_is_checked() {
        let spec = |place: &str| v1::TemplateSpec {
            name: "x".to_owned(),
            place: place.to_owned(),
            ..Default::default()
        };
        let read = TemplateSpec::try_from(spec("cold")).unwrap();
        assert_eq!(read.place, "cold");
        assert_eq!(v1::TemplateSpec::from(&read), spec("cold"));
        let error = TemplateSpec::try_from(spec("a/b")).unwrap_err().to_string();
        assert!(error.contains("place \"a/b\""), "{error}");
    }

    #[test]
    fn a_template_gets_its_defaults_and_its_ranges_are_checked() {
        let one = |format: i32, interval| v1::FormatSettings {
            format,
            record_interval_s: interval,
            ..Default::default()
        };
        let spec = |formats| v1::TemplateSpec {
            name: "x".to_owned(),
            description: String::new(),
            formats,
            ..Default::default()
        };
        let read = TemplateSpec::try_from(spec(vec![one(1, 0)])).unwrap();
        assert_eq!(read.formats.get(&Format::Flv), Some(&FormatSettings::default()));
        let error = |formats| TemplateSpec::try_from(spec(formats)).unwrap_err().to_string();
        assert!(error(vec![one(0, 0)]).starts_with("formats.format: is missing"));
        assert_eq!(error(vec![one(99, 0)]), "formats.format: 99 is unknown");
        assert_eq!(error(vec![one(1, 0), one(1, 60)]), "formats: format flv is given twice");
        assert_eq!(
            error(vec![one(3, 5)]),
            "spec: mp4: record_interval_s is 5 s, it must be 30 to 43200 s"
        );
        let of_class = |class: &str| v1::FormatSettings {
            storage_class: class.to_owned(),
            ..one(3, 0)
        };
        let read = TemplateSpec::try_from(spec(vec![of_class("STANDARD_IA")])).unwrap();
        assert_eq!(read.storage_class(Format::Mp4), Some("STANDARD_IA"));
        assert_eq!(v1::TemplateSpec::from(&read).formats[0].storage_class, "STANDARD_IA");
        for (class, why) in [
            ("cold", "capital letters"),
            ("A\r\nB", "capital letters"),
            ("DEEP_ARCHIVE", "restored"),
        ] {
            let text = error(vec![of_class(class)]);
            assert!(
                text.starts_with("spec: mp4: storage_class") && text.contains(why),
                "{text}"
            );
        }
        assert!(error(vec![of_class(&"A".repeat(65))]).contains("at most 64 bytes"));
        let stitched = |mp4_stitch: i32| {
            let hls = v1::FormatSettings {
                flow_continue_s: 60,
                hls_segments: v1::HlsSegments::Fmp4.into(),
                ..one(2, 0)
            };
            vec![
                hls,
                v1::FormatSettings {
                    mp4_stitch,
                    ..one(3, 0)
                },
            ]
        };
        let read = TemplateSpec::try_from(spec(stitched(1))).unwrap();
        assert_eq!(read.mp4_stitch(), Some(Mp4Stitch::Keep));
        assert_eq!(v1::TemplateSpec::from(&read).formats[1].mp4_stitch, 1);
        assert!(error(stitched(9)).starts_with("formats.mp4_stitch: "));
    }
}
