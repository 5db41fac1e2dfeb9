//! Points in time as text.

use std::time::UNIX_EPOCH;

/// Unix seconds of an RFC 3339 time: any number of fractional digits, `Z` or an offset.
pub(crate) fn unix_seconds(text: &str) -> Option<i64> {
    let (time, rest) = text.split_at_checked(19)?;
    let utc = humantime::parse_rfc3339(&format!("{time}Z")).ok()?.duration_since(UNIX_EPOCH).ok()?;
    let zone = rest.trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
    let ahead = match zone.split_at_checked(1)? {
        ("Z" | "z", "") => 0,
        (sign @ ("+" | "-"), offset) => {
            let (hours, minutes) = offset.split_once(':')?;
            let seconds =
                hours.parse::<i64>().ok()?.checked_mul(60)?.checked_add(minutes.parse().ok()?)?.checked_mul(60)?;
            if sign == "+" { seconds } else { -seconds }
        }
        _ => return None,
    };
    i64::try_from(utc.as_secs()).ok()?.checked_sub(ahead)
}
