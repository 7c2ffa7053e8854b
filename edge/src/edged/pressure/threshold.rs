//! How much must stay free.

use serde_json::Value;

use super::super::quantity::{self, QuantityError};

/// How much must stay free of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threshold {
    /// So many bytes, files or processes.
    Amount(u64),
    /// So many hundredths of a percent of the whole.
    Share(u32),
}

/// Text that is no threshold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ThresholdError {
    /// Neither a percentage nor a quantity.
    #[error(transparent)]
    Quantity(#[from] QuantityError),
    /// A percentage that cannot be.
    #[error("`{0}` is not a percentage of 0 to 99.99 with at most two decimals")]
    Percentage(String),
}

impl Threshold {
    /// Reads `100Mi` or `10%`; `None` for empty text: not watched.
    ///
    /// # Errors
    /// See [`ThresholdError`].
    pub fn parse(text: &str) -> Result<Option<Self>, ThresholdError> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(None);
        }
        let Some(percent) = text.strip_suffix('%') else {
            return Ok(Some(Self::Amount(quantity::units(&Value::String(text.to_owned()))?)));
        };
        let refused = || ThresholdError::Percentage(text.chars().take(64).collect());
        let (whole, part) = percent.split_once('.').unwrap_or((percent, "0"));
        let is_number = |text: &str, most: usize| (1..=most).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        if !is_number(whole, 2) || !is_number(part, 2) {
            return Err(refused());
        }
        let hundredths: u32 = format!("{part:0<2}").parse().map_err(|_| refused())?;
        Ok(Some(Self::Share(whole.parse::<u32>().map_err(|_| refused())? * 100 + hundredths)))
    }

    /// What it is of a whole of that size.
    pub fn of(self, total: u64) -> u64 {
        match self {
            Self::Amount(amount) => amount,
            // At most the whole, so it fits.
            Self::Share(hundredths) => u64::try_from(u128::from(total) * u128::from(hundredths) / 10_000).unwrap_or(total),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    #[test]
    fn a_threshold_is_a_quantity_or_a_percentage_or_nothing() {
        for (text, want) in [
            ("", None),
            (" ", None),
            ("100Mi", Some(Threshold::Amount(100 << 20))),
            ("100", Some(Threshold::Amount(100))),
            ("0", Some(Threshold::Amount(0))),
            ("10%", Some(Threshold::Share(1000))),
            ("7.5%", Some(Threshold::Share(750))),
            ("0.05%", Some(Threshold::Share(5))),
            ("99.99%", Some(Threshold::Share(9999))),
        ] {
            assert_eq!(Threshold::parse(text), Ok(want), "{text}");
        }
        for text in ["%", "100%", "-1%", "1.%", ".5%", "1.234%", "1e1%", "10 %", "٣%"] {
            assert_eq!(Threshold::parse(text), Err(ThresholdError::Percentage(text.into())), "{text}");
        }
        for text in ["-1", "ten", "1MB", "9999999999Ei", "%10"] {
            assert!(matches!(Threshold::parse(text), Err(ThresholdError::Quantity(_))), "{text}");
        }
    }

    #[test]
    fn a_share_is_of_the_whole_whatever_its_size() {
        assert_eq!(Threshold::Share(1000).of(1000), 100);
        assert_eq!(Threshold::Share(9999).of(u64::MAX), 18_444_899_399_302_180_659);
        assert_eq!((Threshold::Share(500).of(0), Threshold::Amount(7).of(0)), (0, 7));
    }
}
