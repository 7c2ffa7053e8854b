//! Durations as kubectl prints them.

use serde_json::Value;

/// The time since `at` (RFC 3339), or `<unknown>` when there is none.
pub fn since(at: Option<&Value>, now: jiff::Timestamp) -> String {
    let at = at.and_then(Value::as_str).and_then(|text| text.parse::<jiff::Timestamp>().ok());
    at.map_or_else(|| "<unknown>".to_owned(), |at| human(now.as_second() - at.as_second()))
}

/// At most two units, the second one only while it matters: `119s`, `9m30s`, `179m`, `7h5m`, `47h`, `7d3h`, `3y12d`.
pub fn human(seconds: i64) -> String {
    let two = |large: i64, unit: &str, small: i64, small_unit: &str| match small {
        0 => format!("{large}{unit}"),
        _ => format!("{large}{unit}{small}{small_unit}"),
    };
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1..0 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        120..600 => two(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => two(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => two(days, "d", hours % 24, "h"),
        691_200..63_072_000 => format!("{days}d"),
        63_072_000..252_288_000 => two(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}
