//! Kubernetes quantities (`500m`, `64Mi`, `1.5`, `2e3`), exact.

use serde_json::Value;

/// A quantity that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Neither text nor number, or a form that Kubernetes does not know.
    #[error("`{0}` is not a quantity (examples: 500m, 0.5, 64Mi, 1G)")]
    Form(String),
    /// Below zero or above what a machine can have.
    #[error("`{0}` is out of range")]
    Range(String),
}

const NANO: i128 = 1_000_000_000;

/// The quantity in billionths, rounded up as Kubernetes does.
///
/// # Errors
/// `Form`, or `Range` for negative values and those above `u64`.
pub fn nano(value: &Value) -> Result<u64, QuantityError> {
    let text = text(value)?;
    u64::try_from(parse(&text)?).map_err(|_| QuantityError::Range(text))
}

/// The quantity in whole units (bytes), rounded up.
///
/// # Errors
/// As [`nano`].
pub fn units(value: &Value) -> Result<u64, QuantityError> {
    let text = text(value)?;
    let units = divided(parse(&text)?, NANO).and_then(|units| u64::try_from(units).ok());
    units.ok_or(QuantityError::Range(text))
}

/// So much of a resource: of `cpu` as [`nano`], of all else (bytes) as [`units`], which takes what no billionths can say.
///
/// # Errors
/// As [`nano`].
pub fn of(resource: &str, value: &Value) -> Result<u64, QuantityError> {
    if resource == "cpu" { nano(value) } else { units(value) }
}

/// Bytes as Kubernetes writes them: with the largest binary suffix that leaves nothing behind a point.
pub fn binary(bytes: u64) -> String {
    let suffixes = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    let step = if bytes == 0 { 0 } else { (bytes.trailing_zeros() / 10).min(6) };
    format!("{}{}", bytes >> (10 * step), suffixes[step as usize])
}

fn text(value: &Value) -> Result<String, QuantityError> {
    match value {
        Value::String(text) if text.len() <= 64 => Ok(text.trim().to_owned()),
        Value::Number(number) => Ok(number.to_string()),
        other => Err(QuantityError::Form(other.to_string().chars().take(80).collect())),
    }
}

fn parse(text: &str) -> Result<i128, QuantityError> {
    let form = || QuantityError::Form(text.to_owned());
    let range = || QuantityError::Range(text.to_owned());
    if text.starts_with('-') {
        return Err(range());
    }
    let body = text.strip_prefix('+').unwrap_or(text);
    let end = body.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(body.len());
    let (number, suffix) = body.split_at(end);
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && part.is_empty() || part.contains('.') {
        return Err(form());
    }
    let digits: i128 = format!("{whole}{part}").parse().map_err(|_| range())?;
    let scale = u32::try_from(part.len()).map_err(|_| range())?;
    let (multiplier, divisor): (i128, i128) = match suffix {
        "" => (1, 1),
        "n" => (1, NANO),
        "u" => (1, 1_000_000),
        "m" => (1, 1000),
        "k" => (1000, 1),
        "M" => (1_000_000, 1),
        "G" => (NANO, 1),
        "T" => (NANO * 1000, 1),
        "P" => (NANO * 1_000_000, 1),
        "E" => (NANO * NANO, 1),
        "Ki" => (1 << 10, 1),
        "Mi" => (1 << 20, 1),
        "Gi" => (1 << 30, 1),
        "Ti" => (1 << 40, 1),
        "Pi" => (1 << 50, 1),
        "Ei" => (1 << 60, 1),
        exponent => {
            let digits = exponent.strip_prefix(['e', 'E']).ok_or_else(form)?;
            let power: i32 = digits.parse().map_err(|_| form())?;
            let factor = 10_i128.checked_pow(power.unsigned_abs()).filter(|_| power.unsigned_abs() <= 18).ok_or_else(range)?;
            if power < 0 { (1, factor) } else { (factor, 1) }
        }
    };
    let numerator = digits.checked_mul(NANO).and_then(|n| n.checked_mul(multiplier)).ok_or_else(range)?;
    let denominator = 10_i128.checked_pow(scale).and_then(|d| d.checked_mul(divisor)).ok_or_else(range)?;
    divided(numerator, denominator).ok_or_else(range)
}

/// Rounded up.
fn divided(numerator: i128, denominator: i128) -> Option<i128> {
    Some(numerator.checked_add(denominator - 1)?.div_euclid(denominator))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;
    use serde_json::json;

    #[test]
    fn quantities_are_read_exactly() {
        for (given, want) in [
            (json!("500m"), 500_000_000),
            (json!("0.5"), 500_000_000),
            (json!(".5"), 500_000_000),
            (json!(2), 2_000_000_000),
            (json!("1e1"), 10_000_000_000),
            (json!("100n"), 100),
        ] {
            assert_eq!(nano(&given), Ok(want), "{given}");
        }
        for (given, want) in [
            (json!("64Mi"), 64 << 20),
            (json!("129M"), 129_000_000),
            (json!("1.5Ki"), 1536),
            (json!(1024), 1024),
            (json!("8Gi"), 8_u64 << 30),
            (json!("1m"), 1),
        ] {
            assert_eq!(units(&given), Ok(want), "{given}");
        }
    }

    #[test]
    fn more_than_billionths_can_say_is_only_too_much_of_a_cpu() {
        let much = json!("32Gi");
        assert_eq!([of("memory", &much), of("ephemeral-storage", &much)], [Ok(32 << 30), Ok(32 << 30)]);
        assert!(matches!(of("cpu", &much), Err(QuantityError::Range(_))));
        assert_eq!((of("cpu", &json!("500m")), of("memory", &json!("500m"))), (Ok(500_000_000), Ok(1)));
    }

    #[test]
    fn bytes_are_written_with_the_largest_suffix_that_is_exact() {
        for (bytes, want) in [
            (0, "0"),
            (1023, "1023"),
            (1024, "1Ki"),
            (1025, "1025"),
            (80 << 20, "80Mi"),
            ((80 << 20) + 1024, "81921Ki"),
            (1_u64 << 60, "1Ei"),
            (u64::MAX, "18446744073709551615"),
        ] {
            assert_eq!(binary(bytes), want);
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for given in [
            json!(""),
            json!("."),
            json!("1.2.3"),
            json!("Mi"),
            json!("1MB"),
            json!("1 Mi"),
            json!(true),
            json!([1]),
            json!("0x10"),
            json!("1e"),
            json!("9".repeat(65)),
        ] {
            assert!(matches!(nano(&given), Err(QuantityError::Form(_))), "{given}");
        }
        for given in [json!("-1"), json!("1e99"), json!("9".repeat(60)), json!("99999Ei")] {
            assert!(matches!(nano(&given), Err(QuantityError::Range(_))), "{given}");
        }
        // The largest that fits before it is rounded up, and not after.
        let much = "170141183460469231731687303715";
        for range in [units(&json!(much)), nano(&json!(format!("0.{much}"))), nano(&json!(format!("{much}n")))] {
            assert!(matches!(range, Err(QuantityError::Range(_))), "{range:?}");
        }
    }
}
