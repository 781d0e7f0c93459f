//! How to record: formats, their settings, and the pattern of file names.
//!
//! The ranges are those of the API that this product is compatible with; see `docs/cli.md`.

mod class;
mod place;

use std::{collections::BTreeMap, fmt, str::FromStr};

use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use self::class::wrong_class;
use crate::{ids::TemplateId, time::Timestamp};

/// Shortest legal `record_interval_s`, seconds.
pub const MIN_RECORD_INTERVAL_S: u32 = 30;
/// Longest legal `record_interval_s`, seconds.
pub const MAX_RECORD_INTERVAL_S: u32 = 43_200;
/// `record_interval_s` where none is given, seconds.
pub const DEFAULT_RECORD_INTERVAL_S: u32 = 1_800;
/// Longest legal `storage_time_s`, seconds: 1500 days.
pub const MAX_STORAGE_TIME_S: u32 = 1_500 * 86_400;
/// Longest legal `flow_continue_s`, seconds.
pub const MAX_FLOW_CONTINUE_S: u32 = 1_800;
/// Longest template name, bytes.
pub const MAX_TEMPLATE_NAME_BYTES: usize = 255;
/// Longest description, bytes.
pub const MAX_DESCRIPTION_BYTES: usize = 1_024;
/// Longest file name pattern, bytes.
pub const MAX_PATTERN_BYTES: usize = 255;
/// The pattern where none is given.
pub const DEFAULT_FILE_NAME: &str = "{StreamID}_{StartYear}-{StartMonth}-{StartDay}-{StartHour}-{StartMinute}-{StartSecond}_{EndYear}-{EndMonth}-{EndDay}-{EndHour}-{EndMinute}-{EndSecond}";

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Flash Video.
    Flv,
    /// HTTP Live Streaming: a playlist and its segments.
    Hls,
    /// MP4 with its index in front.
    Mp4,
    /// AAC as ADTS, audio only.
    Aac,
    /// MPEG-1/2 layer 3, audio only.
    Mp3,
}

impl Format {
    /// All of them, in the order that lists show.
    pub const ALL: [Format; 5] = [Format::Flv, Format::Hls, Format::Mp4, Format::Aac, Format::Mp3];

    /// Lower-case name, as in settings.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Format::Flv => "flv",
            Format::Hls => "hls",
            Format::Mp4 => "mp4",
            Format::Aac => "aac",
            Format::Mp3 => "mp3",
        }
    }

    /// Extension of a file's name, without the dot.
    #[must_use]
    pub const fn extension(self) -> &'static str {
        match self {
            Format::Hls => "m3u8",
            other => other.as_str(),
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Format {
    type Err = TemplateError;
    fn from_str(text: &str) -> Result<Self, TemplateError> {
        Format::ALL
            .into_iter()
            .find(|format| format.as_str() == text.to_ascii_lowercase())
            .ok_or_else(|| TemplateError::Format { found: text.to_owned() })
    }
}

/// Why a template is not legal. The message says what is.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TemplateError {
    /// Not a template's name.
    #[error("template name {found:?}: use 1 to {MAX_TEMPLATE_NAME_BYTES} bytes of letters, digits, `_` and `-`")]
    Name {
        /// What was given, shortened.
        found: String,
    },
    /// A description over the limit.
    #[error("description has {len} bytes, at most {MAX_DESCRIPTION_BYTES} are allowed")]
    Description {
        /// Its length, bytes.
        len: usize,
    },
    /// No such format.
    #[error("format {found:?} is unknown: use flv, hls, mp4, aac or mp3")]
    Format {
        /// What was given.
        found: String,
    },
    /// The same format twice.
    #[error("format {format} is given twice")]
    Twice {
        /// Which.
        format: Format,
    },
    /// A number outside its range.
    #[error("{format}: {field} is {found} s, it must be {min} to {max} s")]
    Range {
        /// Of which format.
        format: Format,
        /// Which number.
        field: &'static str,
        /// What was given.
        found: u32,
        /// Least legal value.
        min: u32,
        /// Greatest legal value.
        max: u32,
    },
    /// Stitching for a format that has none.
    #[error("{format}: flow_continue_s is a setting of HLS alone")]
    FlowContinue {
        /// Which format.
        format: Format,
    },
    /// Segments of a format that has none.
    #[error("{format}: hls_segments is a setting of HLS alone")]
    HlsSegments {
        /// Which format.
        format: Format,
    },
    /// A storage class that is none, or that cannot be played from.
    #[error("{format}: storage_class {found:?}: {problem}")]
    StorageClass {
        /// Of which format.
        format: Format,
        /// What was given, shortened.
        found: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Not a place's name.
    #[error("place {found:?}: a place's name has 1 to 32 lower-case letters, digits and hyphens")]
    Place {
        /// What was given, shortened.
        found: String,
    },
    /// One file of all pushes, for a format that has none.
    #[error("{format}: mp4_stitch is a setting of MP4 alone")]
    Mp4Stitch {
        /// Which format.
        format: Format,
    },
    /// One MP4 of all pushes without the segments that it is made of.
    #[error(
        "mp4: one file of all pushes is made of HLS segments: it needs HLS with hls_segments fmp4 and flow_continue_s of 1 to {MAX_FLOW_CONTINUE_S} s"
    )]
    Mp4StitchNeeds,
    /// A file name pattern that cannot be.
    #[error("file name pattern {pattern:?}: {problem}")]
    Pattern {
        /// The pattern, shortened.
        pattern: String,
        /// What is wrong with it.
        problem: String,
    },
}

fn shortened(text: &str) -> String {
    let mut short: String = text.chars().take(64).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

/// One piece of a [`FileNamePattern`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Year,
    Month,
    Day,
    Hour,
    Minute,
    Second,
    Millisecond,
}

const FIELDS: [(&str, Field); 7] = [
    ("Year", Field::Year),
    ("Month", Field::Month),
    ("Day", Field::Day),
    ("Hour", Field::Hour),
    ("Minute", Field::Minute),
    ("Second", Field::Second),
    ("Millisecond", Field::Millisecond),
];

enum Piece<'a> {
    Text(&'a str),
    StreamId,
    Start(Field),
    End(Field),
}

/// A checked pattern of file names (`VodFileName`), such as `{StreamID}_{StartYear}-{StartMonth}`.
///
/// Placeholders: `{StreamID}`, and `{Start…}` and `{End…}` of `Year`, `Month`, `Day`, `Hour`, `Minute`, `Second`, `Millisecond`: 15 in all.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct FileNamePattern(String);

/// What a file's name is made of.
#[derive(Debug, Clone, Copy)]
pub struct FileNameFields<'a> {
    /// Stream name.
    pub stream: &'a str,
    /// Wall clock at the file's first unit.
    pub start: Timestamp,
    /// Wall clock at the file's last unit.
    pub end: Timestamp,
}

impl FileNamePattern {
    /// Checks a pattern; an empty one is the default.
    ///
    /// # Errors
    /// [`TemplateError::Pattern`]: too long, control characters, a brace without its other, an unknown placeholder.
    pub fn new(pattern: &str) -> Result<Self, TemplateError> {
        if pattern.is_empty() {
            return Ok(Self::default());
        }
        let bad = |problem: String| TemplateError::Pattern {
            pattern: shortened(pattern),
            problem,
        };
        if pattern.len() > MAX_PATTERN_BYTES {
            return Err(bad(format!(
                "{} bytes, at most {MAX_PATTERN_BYTES} are allowed",
                pattern.len()
            )));
        }
        if pattern.chars().any(char::is_control) {
            return Err(bad("control characters are not allowed".to_owned()));
        }
        pieces(pattern).map_err(bad)?;
        Ok(FileNamePattern(pattern.to_owned()))
    }

    /// The pattern as given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The file's name without extension: times in `zone`, years with four digits, milliseconds with three, the rest with two.
    #[must_use]
    pub fn render(&self, fields: &FileNameFields<'_>, zone: &TimeZone) -> String {
        let (start, end) = (civil(fields.start, zone), civil(fields.end, zone));
        let mut out = String::with_capacity(self.0.len() + fields.stream.len());
        // The pattern was checked when it was made, so there is nothing to refuse here.
        for piece in pieces(&self.0).unwrap_or_default() {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::StreamId => out.push_str(fields.stream),
                Piece::Start(field) => push_field(&mut out, start, field),
                Piece::End(field) => push_field(&mut out, end, field),
            }
        }
        out
    }
}

fn civil(at: Timestamp, zone: &TimeZone) -> jiff::civil::DateTime {
    jiff::Timestamp::from_millisecond(at.as_millis())
        .unwrap_or(jiff::Timestamp::UNIX_EPOCH)
        .to_zoned(zone.clone())
        .datetime()
}

fn push_field(out: &mut String, at: jiff::civil::DateTime, field: Field) {
    out.push_str(&match field {
        Field::Year => format!("{:04}", at.year()),
        Field::Month => format!("{:02}", at.month()),
        Field::Day => format!("{:02}", at.day()),
        Field::Hour => format!("{:02}", at.hour()),
        Field::Minute => format!("{:02}", at.minute()),
        Field::Second => format!("{:02}", at.second()),
        Field::Millisecond => format!("{:03}", at.millisecond()),
    });
}

fn pieces(pattern: &str) -> Result<Vec<Piece<'_>>, String> {
    let mut out = Vec::new();
    let mut rest = pattern;
    while let Some(open) = rest.find(['{', '}']) {
        let (text, from) = rest.split_at(open);
        if !text.is_empty() {
            out.push(Piece::Text(text));
        }
        let Some(inner) = from.strip_prefix('{') else {
            return Err("`}` without `{`".to_owned());
        };
        let Some((name, after)) = inner.split_once('}') else {
            return Err("`{` without `}`".to_owned());
        };
        out.push(placeholder(name)?);
        rest = after;
    }
    if !rest.is_empty() {
        out.push(Piece::Text(rest));
    }
    Ok(out)
}

fn placeholder(name: &str) -> Result<Piece<'static>, String> {
    let field = |rest: &str| FIELDS.iter().find(|(text, _)| *text == rest).map(|(_, field)| *field);
    let found = match (
        name,
        name.strip_prefix("Start").and_then(field),
        name.strip_prefix("End").and_then(field),
    ) {
        ("StreamID", ..) => Some(Piece::StreamId),
        (_, Some(field), _) => Some(Piece::Start(field)),
        (_, _, Some(field)) => Some(Piece::End(field)),
        _ => None,
    };
    found.ok_or_else(|| {
        format!("`{{{name}}}` is unknown: use {{StreamID}}, or {{Start…}} and {{End…}} of Year, Month, Day, Hour, Minute, Second, Millisecond")
    })
}

impl Default for FileNamePattern {
    fn default() -> Self {
        FileNamePattern(DEFAULT_FILE_NAME.to_owned())
    }
}

impl TryFrom<String> for FileNamePattern {
    type Error = TemplateError;
    fn try_from(pattern: String) -> Result<Self, TemplateError> {
        FileNamePattern::new(&pattern)
    }
}

impl From<FileNamePattern> for String {
    fn from(pattern: FileNamePattern) -> String {
        pattern.0
    }
}

/// Settings of one format, legal by [`TemplateSpec::validate`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Hash)]
#[serde(deny_unknown_fields, default)]
pub struct FormatSettings {
    /// Seconds of media in one file, 30 to 43200. Without meaning for HLS.
    pub record_interval_s: u32,
    /// Seconds that a file is kept after it is finished; 0: for ever.
    pub storage_time_s: u32,
    /// Pattern of the file's name.
    pub file_name: FileNamePattern,
    /// HLS only: seconds that the recording waits for its stream to come back; 0: does not wait.
    pub flow_continue_s: u32,
    /// HLS only: what its segments are.
    #[serde(skip_serializing_if = "HlsSegments::is_default")]
    pub hls_segments: HlsSegments,
    /// MP4 only: one file of all pushes of a recording, in place of files for each push.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mp4_stitch: Option<Mp4Stitch>,
    /// What object storage is told of its media, such as `STANDARD_IA`; empty: `objects.storage_class`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub storage_class: String,
}

/// What becomes of the time between two pushes in an MP4 of all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Hash)]
#[serde(rename_all = "lowercase")]
pub enum Mp4Stitch {
    /// What was shown last stays as long as the stream was away, by the wall clock.
    Keep,
    /// The next push begins where the one before ends.
    Close,
}

/// What the segments of an HLS recording are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, Hash)]
#[serde(rename_all = "lowercase")]
pub enum HlsSegments {
    /// MPEG-TS.
    #[default]
    Ts,
    /// Fragmented MP4 with initialisation segments: what Apple's players need for HEVC.
    Fmp4,
}

impl HlsSegments {
    /// `ts` or `fmp4`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ts => "ts",
            Self::Fmp4 => "fmp4",
        }
    }

    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for FormatSettings {
    fn default() -> Self {
        FormatSettings {
            record_interval_s: DEFAULT_RECORD_INTERVAL_S,
            storage_time_s: 0,
            file_name: FileNamePattern::default(),
            flow_continue_s: 0,
            hls_segments: HlsSegments::Ts,
            mp4_stitch: None,
            storage_class: String::new(),
        }
    }
}

/// What a template says. Without a format it means: do not record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Hash)]
#[serde(deny_unknown_fields)]
pub struct TemplateSpec {
    /// Its name: letters, digits, `_` and `-`; unique in a cluster.
    pub name: String,
    /// Free text.
    #[serde(default)]
    pub description: String,
    /// The formats that are on.
    #[serde(default)]
    pub formats: BTreeMap<Format, FormatSettings>,
    /// Where its recordings go: the name of a place of the settings (`objects.places`); empty: `objects.url`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub place: String,
}

impl TemplateSpec {
    /// A template with these formats at their defaults, as `--record` means it. `name` is not checked.
    #[must_use]
    pub fn plain(name: &str, formats: &[Format]) -> Self {
        TemplateSpec {
            name: name.to_owned(),
            description: String::new(),
            formats: formats
                .iter()
                .map(|format| (*format, FormatSettings::default()))
                .collect(),
            place: String::new(),
        }
    }

    /// True if it records nothing.
    #[must_use]
    pub fn is_no_record(&self) -> bool {
        self.formats.is_empty()
    }

    /// How long a recording waits for its stream to come back, seconds; 0: it does not.
    #[must_use]
    pub fn flow_continue_s(&self) -> u32 {
        self.formats.get(&Format::Hls).map_or(0, |hls| hls.flow_continue_s)
    }

    /// What the segments of its HLS are.
    #[must_use]
    pub fn hls_segments(&self) -> HlsSegments {
        self.formats
            .get(&Format::Hls)
            .map_or(HlsSegments::Ts, |hls| hls.hls_segments)
    }

    /// How an MP4 of all pushes of a recording treats the time between them; none: MP4 files are of one push each.
    #[must_use]
    pub fn mp4_stitch(&self) -> Option<Mp4Stitch> {
        self.formats.get(&Format::Mp4).and_then(|mp4| mp4.mp4_stitch)
    }

    /// The formats that are rendered while a push runs. `stitched`: the recording goes on with the stream's next push, so that an MP4 of all
    /// pushes is made when it has ended.
    pub fn rendered(&self, stitched: bool) -> impl Iterator<Item = Format> {
        let later = stitched && self.mp4_stitch().is_some();
        let formats = self.formats.keys().copied();
        formats.filter(move |format| !(later && *format == Format::Mp4))
    }

    /// Checks every range.
    ///
    /// # Errors
    /// The first thing that is wrong, with what would be right.
    pub fn validate(&self) -> Result<(), TemplateError> {
        let legal = |c: char| c.is_alphanumeric() || c == '_' || c == '-';
        if self.name.is_empty() || self.name.len() > MAX_TEMPLATE_NAME_BYTES || !self.name.chars().all(legal) {
            return Err(TemplateError::Name {
                found: shortened(&self.name),
            });
        }
        if self.description.len() > MAX_DESCRIPTION_BYTES {
            return Err(TemplateError::Description {
                len: self.description.len(),
            });
        }
        self.check_place()?;
        for (&format, settings) in &self.formats {
            let range = |field, found, min, max| {
                if (min..=max).contains(&found) {
                    Ok(())
                } else {
                    Err(TemplateError::Range {
                        format,
                        field,
                        found,
                        min,
                        max,
                    })
                }
            };
            range(
                "record_interval_s",
                settings.record_interval_s,
                MIN_RECORD_INTERVAL_S,
                MAX_RECORD_INTERVAL_S,
            )?;
            range("storage_time_s", settings.storage_time_s, 0, MAX_STORAGE_TIME_S)?;
            if format == Format::Hls {
                range("flow_continue_s", settings.flow_continue_s, 0, MAX_FLOW_CONTINUE_S)?;
            } else if settings.flow_continue_s != 0 {
                return Err(TemplateError::FlowContinue { format });
            } else if settings.hls_segments != HlsSegments::Ts {
                return Err(TemplateError::HlsSegments { format });
            }
            if let Some(problem) = wrong_class(&settings.storage_class) {
                let found = shortened(&settings.storage_class);
                return Err(TemplateError::StorageClass { format, found, problem });
            }
            if format != Format::Mp4 && settings.mp4_stitch.is_some() {
                return Err(TemplateError::Mp4Stitch { format });
            }
        }
        if self.mp4_stitch().is_some() && (self.flow_continue_s() == 0 || self.hls_segments() != HlsSegments::Fmp4) {
            return Err(TemplateError::Mp4StitchNeeds);
        }
        Ok(())
    }
}

/// A stored template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Template {
    /// Identity.
    pub id: TemplateId,
    /// Its settings.
    pub spec: TemplateSpec,
    /// When it was made.
    pub created: Timestamp,
    /// When it was last changed.
    pub updated: Timestamp,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fields(stream: &str) -> FileNameFields<'_> {
        // 2020-08-10 08:00:00.007 to 10:00:00 at UTC+8
        FileNameFields {
            stream,
            start: Timestamp::from_millis(1_597_017_600_007),
            end: Timestamp::from_millis(1_597_024_800_000),
        }
    }

    fn utc_plus_8() -> TimeZone {
        TimeZone::fixed(jiff::tz::offset(8))
    }

    #[test]
    fn the_documented_examples_of_file_names_come_out() {
        assert_eq!(
            FileNamePattern::default().render(&fields("livetest"), &utc_plus_8()),
            "livetest_2020-08-10-08-00-00_2020-08-10-10-00-00"
        );
        let pattern = FileNamePattern::new(
            "{StreamID}-{StartYear}{StartMonth}{StartDay}T{StartHour}{StartMinute}{StartSecond}.{StartMillisecond}",
        )
        .unwrap();
        assert_eq!(
            pattern.render(&fields("livetest"), &utc_plus_8()),
            "livetest-20200810T080000.007"
        );
        assert_eq!(pattern.render(&fields("x"), &TimeZone::UTC), "x-20200810T000000.007");
    }

    #[test]
    fn all_fifteen_placeholders_are_known_and_no_other() {
        let mut names = vec!["StreamID".to_owned()];
        for side in ["Start", "End"] {
            names.extend(FIELDS.iter().map(|(field, _)| format!("{side}{field}")));
        }
        assert_eq!(names.len(), 15);
        for name in names {
            assert!(FileNamePattern::new(&format!("{{{name}}}")).is_ok(), "{name}");
        }
        for bad in [
            "{streamid}",
            "{Start}",
            "{RandomID}",
            "{",
            "}",
            "a{b",
            "{{StreamID}}",
            "x\ny",
        ] {
            assert!(
                matches!(FileNamePattern::new(bad), Err(TemplateError::Pattern { .. })),
                "{bad}"
            );
        }
        assert_eq!(FileNamePattern::new("").unwrap().as_str(), DEFAULT_FILE_NAME);
    }

    #[test]
    fn ranges_are_checked_and_named() {
        let mut spec = TemplateSpec::plain("day-1_x", &[Format::Mp4]);
        assert_eq!(spec.validate(), Ok(()));
        for (interval, legal) in [(29, false), (30, true), (43_200, true), (43_201, false)] {
            spec.formats.get_mut(&Format::Mp4).unwrap().record_interval_s = interval;
            assert_eq!(spec.validate().is_ok(), legal, "{interval}");
        }
        let error = spec.validate().unwrap_err().to_string();
        assert_eq!(error, "mp4: record_interval_s is 43201 s, it must be 30 to 43200 s");
        spec = TemplateSpec::plain("x", &[Format::Flv]);
        spec.formats.get_mut(&Format::Flv).unwrap().flow_continue_s = 1;
        assert_eq!(
            spec.validate(),
            Err(TemplateError::FlowContinue { format: Format::Flv })
        );
        spec = TemplateSpec::plain("x", &[Format::Hls, Format::Mp4]);
        spec.formats.get_mut(&Format::Hls).unwrap().hls_segments = HlsSegments::Fmp4;
        assert_eq!(spec.validate(), Ok(()));
        assert!(
            serde_json::to_string(&spec)
                .unwrap()
                .contains("\"hls_segments\":\"fmp4\"")
        );
        spec.formats.get_mut(&Format::Mp4).unwrap().hls_segments = HlsSegments::Fmp4;
        assert_eq!(spec.validate(), Err(TemplateError::HlsSegments { format: Format::Mp4 }));
        spec = TemplateSpec::plain("x", &[Format::Hls, Format::Mp4]);
        spec.formats.get_mut(&Format::Mp4).unwrap().mp4_stitch = Some(Mp4Stitch::Close);
        assert_eq!(spec.validate(), Err(TemplateError::Mp4StitchNeeds));
        let hls = spec.formats.get_mut(&Format::Hls).unwrap();
        (hls.hls_segments, hls.flow_continue_s) = (HlsSegments::Fmp4, 60);
        assert_eq!(spec.validate(), Ok(()));
        assert_eq!(spec.rendered(true).collect::<Vec<_>>(), [Format::Hls]);
        assert_eq!(spec.rendered(false).count(), 2);
        spec.formats.get_mut(&Format::Hls).unwrap().mp4_stitch = Some(Mp4Stitch::Keep);
        assert_eq!(spec.validate(), Err(TemplateError::Mp4Stitch { format: Format::Hls }));
        for name in ["", "a b", "a/b", &"x".repeat(256)] {
            assert!(TemplateSpec::plain(name, &[]).validate().is_err(), "{name}");
        }
        assert!(TemplateSpec::plain("录制", &[]).validate().is_ok());
    }

    proptest! {
        #[test]
        fn any_pattern_is_refused_or_renders(pattern in "[a-zA-Z{}\\-_ ]{0,40}", at in any::<i64>()) {
            if let Ok(checked) = FileNamePattern::new(&pattern) {
                let name = checked.render(&FileNameFields { stream: "s", start: Timestamp::from_millis(at), end: Timestamp::from_millis(at) }, &TimeZone::UTC);
                let braces = name.contains(['{', '}']);
                prop_assert!(!braces);
            }
        }
    }
}
