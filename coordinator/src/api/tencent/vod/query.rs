//! [`Query`]: which files a search wants. Pure. Members of a list are alternatives, parameters must all hold.

use shared::{ids::FileId, recording::MediaFile, template::Format, time::Timestamp};

use crate::{
    api::tencent::{error::ApiError, gate::Caller, params::Fields, text::read_iso},
    media::note::Note,
};

/// Greatest sum of offset and limit, and most hits that are counted.
pub(super) const MOST: i64 = 5_000;

/// What a search asks for; an empty list asks for nothing in particular.
#[derive(Debug, Default)]
pub(super) struct Query {
    pub(super) files: Option<Vec<FileId>>,
    names: Vec<String>,
    prefixes: Vec<String>,
    descriptions: Vec<String>,
    tags: Vec<String>,
    categories: Vec<String>,
    types: Vec<String>,
    streams: Vec<String>,
    domains: Vec<String>,
    apps: Vec<String>,
    /// Recordings are not among the kinds that are wanted, so that nothing is.
    nothing: bool,
    /// From this moment on.
    pub(super) after: Option<Timestamp>,
    /// Before this moment.
    pub(super) before: Option<Timestamp>,
    pub(super) oldest_first: bool,
    pub(super) offset: usize,
    pub(super) limit: usize,
}

/// Which blocks an answer has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Blocks {
    pub(super) basic: bool,
    pub(super) meta: bool,
}

impl Blocks {
    pub(super) fn read(fields: &mut Fields) -> Result<Self, ApiError> {
        let wanted = fields.texts("Filters", 32, 64)?;
        let has = |name: &str| wanted.is_empty() || wanted.iter().any(|block| block == name);
        Ok(Blocks {
            basic: has("basicInfo"),
            meta: has("metaData"),
        })
    }
}

fn texts(fields: &mut Fields, name: &'static str, most: usize, longest: usize) -> Result<Vec<String>, ApiError> {
    fields.texts(name, most, longest).map_err(|error| error.of(name))
}

/// A list and its older form of one value.
fn either(fields: &mut Fields, list: &'static str, one: &str, longest: usize) -> Result<Vec<String>, ApiError> {
    let mut all = texts(fields, list, 10, longest)?;
    all.extend(fields.text(one)?.filter(|text| !text.is_empty()));
    Ok(all)
}

fn time(fields: &mut Fields, name: &'static str) -> Result<Option<Timestamp>, ApiError> {
    match fields.text(name)?.filter(|text| !text.is_empty()) {
        None => Ok(None),
        Some(text) => read_iso(name, &text).map(Some).map_err(|error| error.of(name)),
    }
}

impl Query {
    pub(super) fn read(fields: &mut Fields) -> Result<Self, ApiError> {
        let mut query = Query {
            files: match texts(fields, "FileIds", 10, 40)? {
                none if none.is_empty() => None,
                ids => Some(ids.iter().filter_map(|id| id.parse().ok()).collect()),
            },
            names: either(fields, "Names", "Text", 100)?,
            prefixes: texts(fields, "NamePrefixes", 10, 100)?,
            descriptions: texts(fields, "Descriptions", 10, 100)?,
            tags: texts(fields, "Tags", 16, 32)?,
            categories: texts(fields, "Categories", 10, 16)?,
            types: texts(fields, "MediaTypes", 10, 16)?,
            streams: either(fields, "StreamIds", "StreamId", 256)?,
            domains: texts(fields, "StreamDomains", 10, 256)?
                .iter()
                .map(|domain| domain.to_lowercase())
                .collect(),
            apps: texts(fields, "StreamPaths", 10, 256)?,
            after: time(fields, "StartTime")?,
            before: time(fields, "EndTime")?,
            ..Query::default()
        };
        let sources = either(fields, "SourceTypes", "SourceType", 64)?;
        let status = texts(fields, "Status", 10, 16)?;
        let classes = texts(fields, "StorageClasses", 10, 32)?;
        let wants = |list: &[String], member: &str| list.is_empty() || list.iter().any(|known| known == member);
        query.nothing = !wants(&sources, "Record") || !wants(&status, "Normal") || !wants(&classes, "STANDARD");
        if let Some(mut range) = fields.block("CreateTime")? {
            query.after = time(&mut range, "After")?.or(query.after);
            query.before = time(&mut range, "Before")?.or(query.before);
            range.finish()?;
        }
        query.sort(fields)?;
        query.page(fields)?;
        fields.without_effect(&["SubAppId", "Vids", "Vid", "StorageRegions"]);
        fields.refuse(&[
            "ClassIds",
            "ExpireTime",
            "ReviewResults",
            "TrtcSdkAppIds",
            "TrtcRoomIds",
            "KnowledgeBases",
        ])?;
        Ok(query)
    }

    fn sort(&mut self, fields: &mut Fields) -> Result<(), ApiError> {
        let Some(mut sort) = fields.block("Sort")? else {
            return Ok(());
        };
        let wrong = || ApiError::new("InvalidParameterValue.Sort", "Sort must be by CreateTime, Asc or Desc");
        if sort.required("Field")? != "CreateTime" {
            return Err(wrong());
        }
        self.oldest_first = match sort.text("Order")?.as_deref() {
            None | Some("" | "Desc") => false,
            Some("Asc") => true,
            Some(_) => return Err(wrong()),
        };
        sort.finish()
    }

    fn page(&mut self, fields: &mut Fields) -> Result<(), ApiError> {
        let offset = fields
            .int("Offset", 0..=MOST)
            .map_err(|error| error.of("Offset"))?
            .unwrap_or(0);
        let limit = fields
            .int("Limit", 0..=MOST)
            .map_err(|error| error.of("Limit"))?
            .unwrap_or(10);
        if offset + limit > MOST {
            return Err(ApiError::new(
                "InvalidParameterValue.Offset",
                format!(
                    "Offset and Limit are {} together, at most {MOST} are allowed",
                    offset + limit
                ),
            ));
        }
        self.offset = usize::try_from(offset).unwrap_or(0);
        self.limit = usize::try_from(limit).unwrap_or(0);
        Ok(())
    }

    pub(super) fn fits(&self, caller: &Caller, file: &MediaFile, note: &Note) -> bool {
        fn any<'a>(list: &'a [String], holds: impl Fn(&'a str) -> bool) -> bool {
            list.is_empty() || list.iter().any(|member| holds(member))
        }
        let name = note.name(file);
        let lower = name.to_lowercase();
        let category = category(file.format);
        !self.nothing
            && caller.scope.covers(file.stream.domain())
            && self.files.as_ref().is_none_or(|files| files.contains(&file.id))
            && self.after.is_none_or(|after| file.committed >= after)
            && self.before.is_none_or(|before| file.committed < before)
            && any(&self.names, |text| lower.contains(&text.to_lowercase()))
            && any(&self.prefixes, |prefix| name.starts_with(prefix))
            && any(&self.descriptions, |text| {
                note.description.to_lowercase().contains(&text.to_lowercase())
            })
            && any(&self.tags, |tag| note.tags.iter().any(|known| known == tag))
            && any(&self.categories, |wanted| wanted == category)
            && any(&self.types, |wanted| {
                wanted.eq_ignore_ascii_case(file.format.as_str())
                    || wanted.eq_ignore_ascii_case(file.format.extension())
            })
            && any(&self.streams, |stream| stream == file.stream.stream())
            && any(&self.domains, |domain| domain == file.stream.domain())
            && any(&self.apps, |app| app == file.stream.app())
    }
}

pub(super) fn category(format: Format) -> &'static str {
    match format {
        Format::Aac | Format::Mp3 => "Audio",
        Format::Flv | Format::Hls | Format::Mp4 => "Video",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use shared::{
        access::AccessScope,
        ids::{RecordingId, Seeded, StreamKey},
        lease::Epoch,
    };

    use super::*;

    fn file() -> MediaFile {
        let ids = Seeded::new(1);
        let at = Timestamp::from_millis(1_600_000_000_000);
        MediaFile {
            id: FileId::generate(&ids, at),
            recording: RecordingId::generate(&ids, at),
            stream: StreamKey::new("push.example.com", "live", "cam").unwrap(),
            format: Format::Mp4,
            sequence: 0,
            name: "cam_2020.mp4".to_owned(),
            object_key: "k".to_owned(),
            size: 1,
            duration_ms: 1,
            start: at,
            end: at,
            checksum: String::new(),
            video_units: 0,
            audio_units: 0,
            gaps: vec![],
            epoch: Epoch::new(1),
            committed: at,
            expires: None,
            locked: false,
            copied: None,
        }
    }

    fn query(body: &Value) -> Result<Query, ApiError> {
        let mut fields = Fields::from_json(body.to_string().as_bytes()).unwrap();
        let query = Query::read(&mut fields)?;
        fields.finish()?;
        Ok(query)
    }

    #[test]
    fn each_parameter_must_hold_and_members_are_alternatives() {
        let caller = |domains: &[&str]| Caller {
            secret_id: "k".to_owned(),
            scope: AccessScope {
                manage: false,
                domains: domains.iter().map(|&domain| domain.to_owned()).collect(),
            },
        };
        let note = Note {
            description: "The Final".to_owned(),
            tags: vec!["cup".to_owned()],
            ..Note::default()
        };
        let file = file();
        let fits = |body: Value| query(&body).unwrap().fits(&caller(&[]), &file, &note);
        for hit in [
            json!({}),
            json!({"SourceTypes": ["Upload", "Record"], "StreamIds": ["other", "cam"]}),
            json!({"StreamId": "cam", "SourceType": "Record", "Text": "CAM_"}),
            json!({"CreateTime": {"After": "2020-09-13T12:26:40Z", "Before": "2020-09-13T12:26:41Z"}}),
            json!({"Names": ["_2020"], "NamePrefixes": ["cam"], "Descriptions": ["final"], "Tags": ["x", "cup"]}),
            json!({"Categories": ["Video"], "MediaTypes": ["MP4"], "StreamDomains": ["PUSH.example.com"], "StreamPaths": ["live"]}),
            json!({"FileIds": [file.id.to_string(), "nonsense"]}),
        ] {
            assert!(fits(hit.clone()), "{hit}");
        }
        for miss in [
            json!({"SourceTypes": ["Upload"]}),
            json!({"StreamIds": ["other"]}),
            json!({"CreateTime": {"After": "2020-09-13T12:26:41Z"}}),
            json!({"CreateTime": {"Before": "2020-09-13T12:26:40Z"}}),
            json!({"Names": ["cam"], "NamePrefixes": ["x"]}),
            json!({"Categories": ["Audio"]}),
            json!({"Tags": ["x"]}),
            json!({"Status": ["Forbidden"]}),
            json!({"FileIds": ["nonsense"]}),
        ] {
            assert!(!fits(miss.clone()), "{miss}");
        }
        let all = query(&json!({})).unwrap();
        assert!(!all.fits(&caller(&["other.example"]), &file, &note));
    }

    #[test]
    fn what_is_wrong_has_its_documented_code() {
        for (body, code) in [
            (json!({"Offset": 4_995}), "InvalidParameterValue.Offset"),
            (json!({"Offset": -1}), "InvalidParameterValue.Offset"),
            (
                json!({"Sort": {"Field": "Size", "Order": "Asc"}}),
                "InvalidParameterValue.Sort",
            ),
            (
                json!({"Sort": {"Field": "CreateTime", "Order": "asc"}}),
                "InvalidParameterValue.Sort",
            ),
            (json!({"StreamIds": vec!["x"; 11]}), "InvalidParameterValue.StreamIds"),
            (json!({"StartTime": "yesterday"}), "InvalidParameterValue.StartTime"),
            (json!({"TrtcRoomIds": ["1"]}), "UnsupportedOperation"),
            (json!({"Bogus": 1}), "UnknownParameter"),
        ] {
            assert_eq!(query(&body).unwrap_err().code(), code, "{body}");
        }
    }
}
