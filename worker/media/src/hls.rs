//! HLS media playlists: a value and its text. RFC 8216.
//!
//! A running recording appends: [`Header::append`] once, [`Segment::append`] for each segment, [`append_end`] when it ends.
//! [`MediaPlaylist`] is the whole as a value, for the final VOD playlist, for inspection and tests.
//!
//! Durations are whole milliseconds; nothing here computes with fractions. What this module does not know it skips when it reads.

use alloc::{
    string::{String, ToString},
    vec::Vec,
};
use core::fmt::Write;

/// May the list still grow? RFC 8216 §4.3.3.5.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Segments are only ever appended.
    Event,
    /// Nothing changes any more.
    Vod,
}

/// The tags in front of the first segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// `EXT-X-VERSION`: 3, or 6 where initialisation segments are named (RFC 8216 §7). From [`version`].
    pub version: u8,
    /// `EXT-X-TARGETDURATION`, seconds: at least [`rounded_s`] of every segment (§4.3.3.1). It should not change while the list grows (§6.2.1);
    /// of a live stream nobody knows how far apart its key pictures will be.
    pub target_duration_s: u32,
    /// `EXT-X-PLAYLIST-TYPE`; without it segments may also leave at the front.
    pub kind: Option<Kind>,
    /// `EXT-X-MEDIA-SEQUENCE`: number of the first segment.
    pub media_sequence: u64,
    /// `EXT-X-DISCONTINUITY-SEQUENCE`: discontinuities in front of the first segment. Written only if not 0.
    pub discontinuity_sequence: u64,
}

/// One media segment with the tags that apply to it. RFC 8216 §4.3.2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Where it is, as a URI reference. Written with everything escaped that would break the line.
    pub uri: String,
    /// `EXTINF`, milliseconds.
    pub duration_ms: u32,
    /// `EXT-X-DISCONTINUITY` stands in front of it.
    pub discontinuity: bool,
    /// `EXT-X-PROGRAM-DATE-TIME` of its first picture or sound, milliseconds since the Unix epoch, year 0 to 9999.
    pub program_date_time_ms: Option<i64>,
    /// `EXT-X-MAP`: URI of the initialisation segment, where it changes. It holds for the segments that follow.
    pub map: Option<String>,
}

/// A media playlist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaPlaylist {
    /// What stands in front.
    pub header: Header,
    /// In order of play.
    pub segments: Vec<Segment>,
    /// `EXT-X-ENDLIST`: no segment will be added.
    pub ended: bool,
}

/// Why text is not a media playlist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HlsError {
    /// The first line is not `#EXTM3U`.
    #[error("not a playlist")]
    NotAPlaylist,
    /// The list names variants, not segments.
    #[error("line {0}: a multivariant playlist")]
    Multivariant(usize),
    /// `EXT-X-TARGETDURATION` is required (RFC 8216 §4.3.3.1).
    #[error("no target duration")]
    NoTargetDuration,
    /// A tag's value cannot be read. Lines count from 1.
    #[error("line {0}: the value cannot be read")]
    Value(usize),
    /// A URI without `EXTINF` in front, or `EXTINF` without URI behind.
    #[error("line {0}: a segment without EXTINF or URI")]
    Incomplete(usize),
}

/// The version that a list needs: 6 with initialisation segments, else 3 for durations with decimals. RFC 8216 §7.
#[must_use]
pub const fn version(has_map: bool) -> u8 {
    if has_map { 6 } else { 3 }
}

/// A duration rounded to the nearest second, half up: what [`Header::target_duration_s`] must reach. RFC 8216 §4.3.3.1.
#[must_use]
pub const fn rounded_s(duration_ms: u32) -> u32 {
    duration_ms / 1000 + (duration_ms % 1000 >= 500) as u32
}

impl Header {
    /// Appends the tags in front of the first segment.
    pub fn append(&self, out: &mut String) {
        // Writing to a string cannot fail, here and below.
        let _ = writeln!(out, "#EXTM3U\n#EXT-X-VERSION:{}", self.version);
        let _ = writeln!(out, "#EXT-X-TARGETDURATION:{}", self.target_duration_s);
        match self.kind {
            Some(Kind::Event) => out.push_str("#EXT-X-PLAYLIST-TYPE:EVENT\n"),
            Some(Kind::Vod) => out.push_str("#EXT-X-PLAYLIST-TYPE:VOD\n"),
            None => {}
        }
        let _ = writeln!(out, "#EXT-X-MEDIA-SEQUENCE:{}", self.media_sequence);
        if self.discontinuity_sequence != 0 {
            let _ = writeln!(out, "#EXT-X-DISCONTINUITY-SEQUENCE:{}", self.discontinuity_sequence);
        }
    }
}

impl Segment {
    /// Appends the segment with its tags.
    pub fn append(&self, out: &mut String) {
        if self.discontinuity {
            out.push_str("#EXT-X-DISCONTINUITY\n");
        }
        if let Some(map) = &self.map {
            out.push_str("#EXT-X-MAP:URI=\"");
            append_uri(out, map);
            out.push_str("\"\n");
        }
        if let Some(ms) = self.program_date_time_ms {
            out.push_str("#EXT-X-PROGRAM-DATE-TIME:");
            append_date_time(out, ms);
            out.push('\n');
        }
        let _ = writeln!(
            out,
            "#EXTINF:{}.{:03},",
            self.duration_ms / 1000,
            self.duration_ms % 1000
        );
        append_uri(out, &self.uri);
        out.push('\n');
    }
}

/// Appends the tag that says that nothing more comes.
pub fn append_end(out: &mut String) {
    out.push_str("#EXT-X-ENDLIST\n");
}

impl MediaPlaylist {
    /// The target duration that these segments need, seconds: at least 1.
    #[must_use]
    pub fn least_target_duration_s(&self) -> u32 {
        self.segments
            .iter()
            .map(|segment| rounded_s(segment.duration_ms))
            .max()
            .unwrap_or(0)
            .max(1)
    }

    /// The playlist as text.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        self.header.append(&mut out);
        for segment in &self.segments {
            segment.append(&mut out);
        }
        if self.ended {
            append_end(&mut out);
        }
        out
    }

    /// Reads a playlist; tags and attributes that are not in these types are skipped.
    ///
    /// # Errors
    ///
    /// [`HlsError`], with the line.
    pub fn parse(text: &str) -> Result<Self, HlsError> {
        let mut lines = text.lines().zip(1usize..);
        if lines
            .next()
            .is_none_or(|(line, _)| line.trim_start_matches('\u{FEFF}').trim_end() != "#EXTM3U")
        {
            return Err(HlsError::NotAPlaylist);
        }
        let mut reader = Reader::default();
        for (line, number) in lines {
            reader.line(line.trim_end(), number)?;
        }
        reader.finish()
    }
}

/// What was read so far.
#[derive(Default)]
struct Reader {
    version: Option<u8>,
    target_duration_s: Option<u32>,
    kind: Option<Kind>,
    media_sequence: u64,
    discontinuity_sequence: u64,
    segments: Vec<Segment>,
    ended: bool,
    /// The line of an `EXTINF` without URI so far, and its duration.
    open: Option<(usize, u32)>,
    discontinuity: bool,
    program_date_time_ms: Option<i64>,
    map: Option<String>,
}

impl Reader {
    fn line(&mut self, line: &str, number: usize) -> Result<(), HlsError> {
        let value = HlsError::Value(number);
        let Some(tag) = line.strip_prefix('#') else {
            return if line.is_empty() {
                Ok(())
            } else {
                self.uri(line, number)
            };
        };
        let (name, text) = tag.split_once(':').unwrap_or((tag, ""));
        match name {
            "EXT-X-VERSION" => self.version = Some(text.parse().map_err(|_| value)?),
            "EXT-X-TARGETDURATION" => self.target_duration_s = Some(text.parse().map_err(|_| value)?),
            "EXT-X-PLAYLIST-TYPE" => {
                self.kind = Some(match text {
                    "EVENT" => Kind::Event,
                    "VOD" => Kind::Vod,
                    _ => return Err(value),
                });
            }
            "EXT-X-MEDIA-SEQUENCE" => self.media_sequence = text.parse().map_err(|_| value)?,
            "EXT-X-DISCONTINUITY-SEQUENCE" => self.discontinuity_sequence = text.parse().map_err(|_| value)?,
            "EXT-X-ENDLIST" => self.ended = true,
            "EXT-X-DISCONTINUITY" => self.discontinuity = true,
            "EXT-X-PROGRAM-DATE-TIME" => self.program_date_time_ms = Some(parse_date_time(text).ok_or(value)?),
            "EXT-X-MAP" => self.map = Some(attribute(text, "URI").ok_or(value)?.to_string()),
            "EXTINF" => {
                let duration = text.split_once(',').map_or(text, |(duration, _title)| duration);
                let duration_ms = parse_ms(duration).ok_or(value)?;
                if self.open.replace((number, duration_ms)).is_some() {
                    return Err(HlsError::Incomplete(number));
                }
            }
            "EXT-X-STREAM-INF" | "EXT-X-I-FRAME-STREAM-INF" => return Err(HlsError::Multivariant(number)),
            _ => {}
        }
        Ok(())
    }

    fn uri(&mut self, line: &str, number: usize) -> Result<(), HlsError> {
        let (_, duration_ms) = self.open.take().ok_or(HlsError::Incomplete(number))?;
        self.segments.push(Segment {
            uri: line.to_string(),
            duration_ms,
            discontinuity: core::mem::take(&mut self.discontinuity),
            program_date_time_ms: self.program_date_time_ms.take(),
            map: self.map.take(),
        });
        Ok(())
    }

    fn finish(self) -> Result<MediaPlaylist, HlsError> {
        if let Some((number, _)) = self.open {
            return Err(HlsError::Incomplete(number));
        }
        let header = Header {
            version: self.version.unwrap_or(1),
            target_duration_s: self.target_duration_s.ok_or(HlsError::NoTargetDuration)?,
            kind: self.kind,
            media_sequence: self.media_sequence,
            discontinuity_sequence: self.discontinuity_sequence,
        };
        Ok(MediaPlaylist {
            header,
            segments: self.segments,
            ended: self.ended,
        })
    }
}

/// Appends a URI reference so that it stays one line, no comment and within quotes.
fn append_uri(out: &mut String, uri: &str) {
    for (index, char) in uri.chars().enumerate() {
        let breaks = char <= ' ' || char == '"' || char == '\u{7F}' || char.is_control() || (index == 0 && char == '#');
        if breaks || (char.is_whitespace() && !char.is_ascii()) {
            let mut bytes = [0; 4];
            for byte in char.encode_utf8(&mut bytes).bytes() {
                let _ = write!(out, "%{byte:02X}");
            }
        } else {
            out.push(char);
        }
    }
}

/// The value of a quoted attribute. RFC 8216 §4.2.
fn attribute<'a>(mut list: &'a str, name: &str) -> Option<&'a str> {
    loop {
        let (key, rest) = list.split_once('=')?;
        let (value, rest) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => rest.split_at(rest.find(',').unwrap_or(rest.len())),
        };
        if key.trim() == name {
            return Some(value);
        }
        list = rest.strip_prefix(',')?;
    }
}

/// Decimal seconds as milliseconds; digits beyond the third are cut off.
fn parse_ms(text: &str) -> Option<u32> {
    let (seconds, decimals) = text.trim().split_once('.').unwrap_or((text.trim(), ""));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(seconds) || !(decimals.is_empty() || digits(decimals)) {
        return None;
    }
    let ms = decimals
        .bytes()
        .chain([b'0'; 3])
        .take(3)
        .fold(0u32, |ms, digit| ms * 10 + u32::from(digit - b'0'));
    seconds.parse::<u32>().ok()?.checked_mul(1000)?.checked_add(ms)
}

const DAY_MS: i64 = 86_400_000;
/// Days from 1 March of year 0 to the Unix epoch, in the proleptic Gregorian calendar.
const EPOCH_DAYS: i64 = 719_468;
/// Days of 400 years.
const ERA_DAYS: i64 = 146_097;
/// Year 0 and the last millisecond of year 9999: what four digits can say.
const YEARS_MS: core::ops::RangeInclusive<i64> = -62_167_219_200_000..=253_402_300_799_999;

/// Appends UTC with milliseconds: `2026-11-22T17:08:09.123Z`. ISO 8601; times beyond four-digit years stop at their edge.
fn append_date_time(out: &mut String, ms: i64) {
    let ms = ms.clamp(*YEARS_MS.start(), *YEARS_MS.end());
    let (year, month, day) = civil(ms.div_euclid(DAY_MS));
    let of_day = ms.rem_euclid(DAY_MS);
    let (hour, minute) = (of_day / 3_600_000, of_day / 60_000 % 60);
    let (second, milli) = (of_day / 1000 % 60, of_day % 1000);
    let _ = write!(
        out,
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{milli:03}Z"
    );
}

/// Year, month and day of a day counted from the Unix epoch. Years begin in March here, so that the leap day is the last.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + EPOCH_DAYS;
    let (era, day_of_era) = (days.div_euclid(ERA_DAYS), days.rem_euclid(ERA_DAYS));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

/// The inverse of [`civil`], for years 0 to 9999.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let from_march = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * ERA_DAYS + day_of_era - EPOCH_DAYS
}

/// `2026-11-22T17:08:09.123Z`, also without decimals, and with `+hh:mm` or `+hhmm` in place of `Z`.
fn parse_date_time(text: &str) -> Option<i64> {
    let (date, time) = text.trim().split_once('T')?;
    let mut date = date.splitn(3, '-').map(number);
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    if !(0..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let zone_at = time.find(['Z', '+', '-'])?;
    let (time, zone) = time.split_at_checked(zone_at)?;
    let mut time = time.splitn(3, ':');
    let (hour, minute) = (number(time.next()?)?, number(time.next()?)?);
    let second_ms = i64::from(parse_ms(time.next()?)?);
    if hour > 24 || minute > 59 || second_ms > 60_999 {
        return None;
    }
    let offset_min = match zone.strip_prefix(['+', '-']) {
        None if zone == "Z" => 0,
        None => return None,
        Some(offset) => {
            let (hours, minutes) = offset.split_once(':').or_else(|| offset.split_at_checked(2))?;
            let minutes = number(hours)? * 60 + if minutes.is_empty() { 0 } else { number(minutes)? };
            if zone.starts_with('-') { -minutes } else { minutes }
        }
    };
    Some(days(year, month, day) * DAY_MS + (hour * 60 + minute - offset_min) * 60_000 + second_ms)
}

/// Up to four decimal digits.
fn number(text: &str) -> Option<i64> {
    let digits = (1..=4).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

#[cfg(test)]
#[path = "hls_tests.rs"]
mod tests;
