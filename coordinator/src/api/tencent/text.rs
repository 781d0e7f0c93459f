//! Times as that protocol writes them. Pure.

use shared::time::Timestamp;

use super::error::ApiError;

fn instant(at: Timestamp) -> jiff::Timestamp {
    jiff::Timestamp::from_millisecond(at.as_millis()).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
}

/// `2018-06-29T19:00:00Z`.
pub(crate) fn utc(at: Timestamp) -> String {
    instant(at).strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// `2018-06-30 03:00:00`, at UTC+8.
pub(crate) fn beijing(at: Timestamp) -> String {
    let zone = jiff::tz::TimeZone::fixed(jiff::tz::offset(8));
    instant(at).to_zoned(zone).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// Reads an ISO 8601 time with its zone.
pub(crate) fn read_iso(name: &str, text: &str) -> Result<Timestamp, ApiError> {
    let at: jiff::Timestamp = text.parse().map_err(|_| {
        ApiError::value(
            name,
            format!("is {text:?}, it must be a time such as 2018-06-29T19:00:00Z"),
        )
    })?;
    Ok(Timestamp::from_millis(at.as_millisecond()))
}

/// Reads `2018-06-30 03:00:00`, meant at UTC+8.
pub(crate) fn read_beijing(name: &str, text: &str) -> Result<Timestamp, ApiError> {
    let zone = jiff::tz::TimeZone::fixed(jiff::tz::offset(8));
    let at = jiff::civil::DateTime::strptime("%Y-%m-%d %H:%M:%S", text)
        .and_then(|civil| civil.to_zoned(zone))
        .map_err(|_| {
            ApiError::value(
                name,
                format!("is {text:?}, it must be a time such as 2018-06-30 03:00:00 (UTC+8)"),
            )
        })?;
    Ok(Timestamp::from_millis(at.timestamp().as_millisecond()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_of_writing_times_read_back() {
        let at = Timestamp::from_millis(1_530_298_800_000);
        assert_eq!(utc(at), "2018-06-29T19:00:00Z");
        assert_eq!(beijing(at), "2018-06-30 03:00:00");
        assert_eq!(read_iso("T", "2018-06-29T19:00:00Z").unwrap(), at);
        assert_eq!(read_iso("T", "2018-06-30T03:00:00+08:00").unwrap(), at);
        assert_eq!(read_beijing("T", "2018-06-30 03:00:00").unwrap(), at);
        for bad in ["", "2018-06-29", "tomorrow", "2018-13-01T00:00:00Z"] {
            assert_eq!(read_iso("T", bad).unwrap_err().code(), "InvalidParameterValue", "{bad}");
            assert_eq!(
                read_beijing("T", bad).unwrap_err().code(),
                "InvalidParameterValue",
                "{bad}"
            );
        }
    }
}
