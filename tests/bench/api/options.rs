//! Arguments of the scenario.

use std::time::Duration;

/// How long the API is away without `--seconds`.
const AWAY: u64 = 25;
const AWAY_MAX: u64 = 3600;

/// What is measured.
#[derive(Debug, PartialEq, Eq)]
pub struct Options {
    /// How long the API is away.
    pub away: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { away: Duration::from_secs(AWAY) }
    }
}

impl Options {
    /// Reads `[--seconds N]`.
    ///
    /// # Errors
    /// What is wrong with them, in a sentence.
    pub fn parse(arguments: &[&str]) -> Result<Self, String> {
        match arguments {
            [] => Ok(Self::default()),
            ["--seconds", number] => match number.parse() {
                Ok(seconds) if (1..=AWAY_MAX).contains(&seconds) => Ok(Self { away: Duration::from_secs(seconds) }),
                _ => Err(format!("`--seconds {number}`: write a number from 1 to {AWAY_MAX}")),
            },
            _ => Err("scenario `api` has one option: --seconds N".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_counted_and_nothing_else_is_understood() {
        assert_eq!(Options::parse(&[]), Ok(Options::default()));
        assert_eq!(Options::parse(&["--seconds", "60"]), Ok(Options { away: Duration::from_secs(60) }));
        for wrong in [&["--seconds"][..], &["--seconds", "0"], &["--seconds", "x"], &["--fast", "1"]] {
            assert!(Options::parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
