//! Moments in UTC, as text.

const DAY_MS: u64 = 86_400_000;

/// `2026-07-24T14:03:22Z`
pub(crate) fn rfc3339(at_ms: u64) -> String {
    let (year, month, day) = date(at_ms / DAY_MS);
    format!("{year:04}-{month:02}-{day:02}T{}Z", time_of_day(at_ms))
}

/// The time of day, with the date in front where that is not today's.
pub(crate) fn clock(at_ms: u64, now_ms: u64) -> String {
    if at_ms / DAY_MS == now_ms / DAY_MS {
        return time_of_day(at_ms);
    }
    let (_, month, day) = date(at_ms / DAY_MS);
    format!("{month:02}-{day:02} {}", time_of_day(at_ms))
}

/// Milliseconds since 1970, now.
pub(crate) fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn time_of_day(at_ms: u64) -> String {
    let s = at_ms % DAY_MS / 1000;
    format!("{:02}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60)
}

/// Gregorian date of a day since 1970 (H. Hinnant, "chrono-compatible low-level date algorithms", `civil_from_days`).
const fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year_of_era + (month <= 2) as u64;
    (year, month, of_year - (153 * shifted + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_told_in_utc() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(951_782_399_000), "2000-02-28T23:59:59Z");
        assert_eq!(rfc3339(951_782_400_999), "2000-02-29T00:00:00Z");
        assert_eq!(rfc3339(1_784_901_802_000), "2026-07-24T14:03:22Z");
        assert_eq!(clock(1_784_901_802_000, 1_784_901_803_000), "14:03:22");
        assert_eq!(clock(1_784_901_802_000, 1_784_988_203_000), "07-24 14:03:22");
    }
}
