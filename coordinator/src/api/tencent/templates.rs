//! Record templates.
//!
//! A template's number (`TemplateId`) is the millisecond of its making, which its UUID of version 7 begins with: nothing
//! need be stored, it never changes and is never given again, and templates made by other doors have one too.

use serde_json::{Value, json};
use shared::template::{
    DEFAULT_RECORD_INTERVAL_S, FileNamePattern, Format, FormatSettings, MAX_FLOW_CONTINUE_S, MAX_RECORD_INTERVAL_S,
    MAX_STORAGE_TIME_S, MIN_RECORD_INTERVAL_S, Template, TemplateError, TemplateSpec,
};

use super::{
    actions::{Answer, Context, done, field},
    error::ApiError,
    params::Fields,
};
use crate::catalog::{CatalogError, TemplateRef};

/// Formats and the names of their blocks.
const BLOCKS: [(&str, Format); 5] = [
    ("FlvParam", Format::Flv),
    ("HlsParam", Format::Hls),
    ("Mp4Param", Format::Mp4),
    ("AacParam", Format::Aac),
    ("Mp3Param", Format::Mp3),
];

/// What a request says of a template; what it leaves out is absent.
#[derive(Debug, Default)]
struct Said {
    name: Option<String>,
    description: Option<String>,
    /// Formats that are spoken of; without settings: off.
    formats: Vec<(Format, Option<FormatSettings>)>,
    flow_continue_s: Option<u32>,
}

/// The storage class of what that protocol calls `cold`: stored for less, read at once for more.
const COLD: &str = "STANDARD_IA";

fn seconds(number: i64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// One format's block.
fn format_block(mut block: Fields) -> Result<Option<FormatSettings>, ApiError> {
    let interval = i64::from(MIN_RECORD_INTERVAL_S)..=i64::from(MAX_RECORD_INTERVAL_S);
    let on = block.switch("Enable")?.unwrap_or(false);
    let mut settings = FormatSettings::default();
    // A block that switches its format off may hold anything that was there before.
    if let Some(interval) = block.int("RecordInterval", if on { interval } else { i64::MIN..=i64::MAX })? {
        settings.record_interval_s = seconds(interval);
    }
    if let Some(storage) = block.int("StorageTime", 0..=i64::from(MAX_STORAGE_TIME_S))? {
        settings.storage_time_s = seconds(storage);
    }
    if let Some(pattern) = block.text("VodFileName")? {
        settings.file_name = FileNamePattern::new(&pattern)
            .map_err(|error| ApiError::new("InvalidParameter.InvalidVodFileName", error))?;
    }
    if let Some(mode) = block.text("StorageMode")? {
        settings.storage_class = match mode.to_ascii_lowercase().as_str() {
            "" | "normal" => String::new(),
            "cold" => COLD.to_owned(),
            _ => {
                let problem = format!("StorageMode {mode:?} is unknown: use normal or cold");
                return Err(ApiError::new("InvalidParameterValue", problem));
            }
        };
    }
    block.without_effect(&["VodSubAppId", "Procedure", "ClassId"]);
    block.refuse(&["CosBucketName", "CosBucketRegion", "CosBucketPath"])?;
    block.finish()?;
    Ok(on.then_some(settings))
}

fn said(fields: &mut Fields) -> Result<Said, ApiError> {
    let mut said = Said {
        name: fields.text("TemplateName")?,
        description: fields.text("Description")?,
        ..Said::default()
    };
    for (name, format) in BLOCKS {
        if let Some(block) = fields.block(name)? {
            said.formats.push((format, format_block(block)?));
        }
    }
    if let Some(mut block) = fields.block("HlsSpecialParam")? {
        let range = 0..=i64::from(MAX_FLOW_CONTINUE_S);
        said.flow_continue_s = block.int("FlowContinueDuration", range)?.map(seconds);
        block.finish()?;
    }
    if let Some(mut block) = fields.block("FlvSpecialParam")? {
        block.without_effect(&["UploadInRecording"]);
        block.finish()?;
    }
    // There is no watermark that could be left out.
    fields.truth("RemoveWatermark")?;
    Ok(said)
}

impl Said {
    /// Lays what was said over what is there.
    fn over(self, mut spec: TemplateSpec) -> TemplateSpec {
        if let Some(name) = self.name {
            spec.name = name;
        }
        if let Some(description) = self.description {
            spec.description = description;
        }
        let before = spec.formats.get(&Format::Hls);
        let (waited, segments) = (before.map(|hls| hls.flow_continue_s), spec.hls_segments());
        let stitched = spec.mp4_stitch();
        for (format, settings) in self.formats {
            match settings {
                Some(settings) => drop(spec.formats.insert(format, settings)),
                None => drop(spec.formats.remove(&format)),
            }
        }
        // Stitching stands outside the block of HLS: a new block does not end it.
        if let (Some(hls), Some(wait)) = (spec.formats.get_mut(&Format::Hls), self.flow_continue_s.or(waited)) {
            hls.flow_continue_s = wait;
        }
        // These have no word here.
        if let Some(hls) = spec.formats.get_mut(&Format::Hls) {
            hls.hls_segments = segments;
        }
        if let Some(mp4) = spec.formats.get_mut(&Format::Mp4) {
            mp4.mp4_stitch = stitched;
        }
        spec
    }
}

fn refused(error: CatalogError) -> ApiError {
    let code = match &error {
        CatalogError::Template(TemplateError::Pattern { .. }) => "InvalidParameter.InvalidVodFileName",
        CatalogError::Template(_)
        | CatalogError::NameTaken(_)
        | CatalogError::NameReserved
        | CatalogError::NoPlace { .. } => "InvalidParameterValue",
        CatalogError::NoTemplate(_) => "FailedOperation.NotFound",
        CatalogError::TooManyTemplates(_) => "InternalError.ConfOutLimit",
        CatalogError::InUse { .. } => "FailedOperation.ConfInUsed",
        _ => "InternalError",
    };
    ApiError::new(code, error)
}

pub(super) async fn create(cx: &Context<'_>, mut fields: Fields) -> Answer {
    cx.caller.check_all()?;
    let said = said(&mut fields)?;
    fields.refuse(&["IsDelayLive", "CosStore"])?;
    fields.finish()?;
    if said.name.as_deref().unwrap_or_default().is_empty() {
        return Err(ApiError::missing("TemplateName"));
    }
    let spec = said.over(TemplateSpec::plain("", &[]));
    let made = cx
        .change(move |catalog, moment| {
            let id = catalog.new_template_id(moment.ids, moment.now);
            catalog.create_template(spec, id, moment.now)
        })
        .await?
        .map_err(refused)?;
    field("TemplateId", made.id.number())
}

fn number(fields: &mut Fields) -> Result<u64, ApiError> {
    let number = fields.required_int("TemplateId", 0..=i64::MAX)?;
    Ok(u64::try_from(number).unwrap_or_default())
}

pub(super) async fn modify(cx: &Context<'_>, mut fields: Fields) -> Answer {
    cx.caller.check_all()?;
    let by = TemplateRef::Number(number(&mut fields)?);
    let said = said(&mut fields)?;
    fields.finish()?;
    cx.change(move |catalog, moment| {
        let spec = said.over(catalog.template(&by)?.spec.clone());
        catalog.update_template(&by, spec, moment.now)
    })
    .await?
    .map_err(refused)?;
    done()
}

pub(super) async fn delete(cx: &Context<'_>, mut fields: Fields) -> Answer {
    cx.caller.check_all()?;
    let by = TemplateRef::Number(number(&mut fields)?);
    fields.finish()?;
    cx.change(move |catalog, _| Ok(((), catalog.delete_template(&by)?)))
        .await?
        .map_err(|error| match error {
            // The one code for it that this action's documentation has.
            CatalogError::NoTemplate(_) => ApiError::new("InternalError.ConfNotFound", error),
            error => refused(error),
        })?;
    done()
}

pub(super) async fn describe(cx: &Context<'_>, mut fields: Fields) -> Answer {
    let by = TemplateRef::Number(number(&mut fields)?);
    fields.finish()?;
    let found = cx.look(move |state| state.catalog.template(&by).map(written)).await?;
    field("Template", found.map_err(refused)?)
}

pub(super) async fn list(cx: &Context<'_>, mut fields: Fields) -> Answer {
    let delayed = fields.switch("IsDelayLive")?.unwrap_or(false);
    fields.finish()?;
    // There are no templates of delayed streams.
    let all: Vec<Value> = match delayed {
        true => Vec::new(),
        false => {
            cx.look(|state| state.catalog.templates().map(written).collect())
                .await?
        }
    };
    field("Templates", all)
}

fn written(template: &Template) -> Value {
    let mut out = json!({
        "TemplateId": template.id.number(),
        "TemplateName": template.spec.name,
        "Description": template.spec.description,
        "IsDelayLive": 0,
        "RemoveWatermark": false,
        "CosStore": 0,
        "FlvSpecialParam": {"UploadInRecording": false},
        "HlsSpecialParam": {
            "FlowContinueDuration": template.spec.formats.get(&Format::Hls).map_or(0, |hls| hls.flow_continue_s),
        },
    });
    for (name, format) in BLOCKS {
        let settings = template.spec.formats.get(&format);
        let block = json!({
            "Enable": u8::from(settings.is_some()),
            "RecordInterval": settings.map_or(DEFAULT_RECORD_INTERVAL_S, |settings| settings.record_interval_s),
            "StorageTime": settings.map_or(0, |settings| settings.storage_time_s),
            "VodSubAppId": 0,
            "VodFileName": settings.map_or("", |settings| settings.file_name.as_str()),
            "Procedure": "",
            "StorageMode": if settings.is_some_and(|settings| settings.storage_class == COLD) { "cold" } else { "normal" },
            "ClassId": 0,
        });
        if let Some(out) = out.as_object_mut() {
            out.insert(name.to_owned(), block);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: Value) -> Result<TemplateSpec, ApiError> {
        let mut fields = Fields::from_json(body.to_string().as_bytes()).unwrap();
        let said = said(&mut fields)?;
        fields.finish()?;
        Ok(said.over(TemplateSpec::plain("old", &[Format::Mp4])))
    }

    #[test]
    fn a_place_has_no_word_here_and_stays() {
        let mut placed = TemplateSpec::plain("old", &[Format::Mp4]);
        placed.place = "cold".to_owned();
        let body = json!({"FlvParam": {"Enable": 1}}).to_string();
        let mut fields = Fields::from_json(body.as_bytes()).unwrap();
        let changed = said(&mut fields).unwrap().over(placed);
        assert_eq!((changed.formats.len(), changed.place.as_str()), (2, "cold"));
    }

    #[test]
    fn what_is_stored_cold_has_a_class_for_it_and_says_so() {
        let of = |mode: &str| read(json!({"Mp4Param": {"Enable": 1, "StorageMode": mode}}));
        for mode in ["cold", "Cold"] {
            let spec = of(mode).unwrap();
            assert_eq!(spec.storage_class(Format::Mp4), Some("STANDARD_IA"));
        }
        for mode in ["normal", "Normal", ""] {
            assert_eq!(of(mode).unwrap().storage_class(Format::Mp4), None);
        }
        assert_eq!(of("icy").unwrap_err().code(), "InvalidParameterValue");
        let template = Template {
            id: shared::ids::TemplateId::generate(&shared::ids::Seeded::new(1), shared::time::Timestamp::default()),
            spec: of("cold").unwrap(),
            created: shared::time::Timestamp::default(),
            updated: shared::time::Timestamp::default(),
        };
        assert_eq!(written(&template)["Mp4Param"]["StorageMode"], "cold");
        assert_eq!(written(&template)["FlvParam"]["StorageMode"], "normal");
    }

    #[test]
    fn what_is_said_lies_over_what_is_there() {
        let spec = read(json!({
            "Description": "d",
            "FlvParam": {"Enable": 1, "RecordInterval": 3600, "StorageTime": 60, "VodFileName": "{StreamID}"},
            "HlsParam": {"Enable": 1},
            "HlsSpecialParam": {"FlowContinueDuration": 600},
            "AacParam": {"Enable": 0, "RecordInterval": 0},
            "RemoveWatermark": true,
        }))
        .unwrap();
        assert_eq!((spec.name.as_str(), spec.description.as_str()), ("old", "d"));
        let on: Vec<Format> = spec.formats.keys().copied().collect();
        assert_eq!(on, [Format::Flv, Format::Hls, Format::Mp4]);
        let flv = &spec.formats[&Format::Flv];
        assert_eq!(
            (flv.record_interval_s, flv.storage_time_s, flv.file_name.as_str()),
            (3_600, 60, "{StreamID}")
        );
        assert_eq!(spec.formats[&Format::Hls].flow_continue_s, 600);
        assert!(read(json!({"Mp4Param": {"Enable": 0}})).unwrap().is_no_record());
        spec.validate().unwrap();
    }

    #[test]
    fn what_is_wrong_has_its_documented_code() {
        for (body, code) in [
            (json!({"Mp4Param": {"Enable": 2}}), "InvalidParameterValue"),
            (
                json!({"Mp4Param": {"Enable": 1, "RecordInterval": 29}}),
                "InvalidParameterValue",
            ),
            (
                json!({"Mp4Param": {"Enable": 1, "StorageTime": 129_600_001}}),
                "InvalidParameterValue",
            ),
            (
                json!({"Mp4Param": {"VodFileName": "{Nobody}"}}),
                "InvalidParameter.InvalidVodFileName",
            ),
            (json!({"Mp4Param": {"CosBucketPath": "/x"}}), "UnsupportedOperation"),
            (json!({"Mp4Param": {"Mystery": 1}}), "UnknownParameter"),
            (json!({"Mp4Param": 1}), "InvalidParameter"),
            (
                json!({"HlsSpecialParam": {"FlowContinueDuration": 1_801}}),
                "InvalidParameterValue",
            ),
        ] {
            assert_eq!(read(body.clone()).unwrap_err().code(), code, "{body}");
        }
    }
}
