//! Arguments of the scenario.

/// Nodes without `--nodes`.
const NODES: usize = 10_000;
/// The loopback has 28,000 ports for one address.
const NODES_MAX: usize = 25_000;

/// What is measured.
#[derive(Debug, PartialEq, Eq)]
pub struct Options {
    /// Nodes that come back at once.
    pub nodes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { nodes: NODES }
    }
}

impl Options {
    /// Reads `[--nodes N]`.
    ///
    /// # Errors
    /// What is wrong with them, in a sentence.
    pub fn parse(arguments: &[&str]) -> Result<Self, String> {
        match arguments {
            [] => Ok(Self::default()),
            ["--nodes", number] => match number.parse() {
                Ok(nodes) if (1..=NODES_MAX).contains(&nodes) => Ok(Self { nodes }),
                _ => Err(format!("`--nodes {number}`: write a number from 1 to {NODES_MAX}")),
            },
            _ => Err("scenario `storm` has one option: --nodes N".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_counted_and_nothing_else_is_understood() {
        assert_eq!(Options::parse(&[]), Ok(Options { nodes: NODES }));
        assert_eq!(Options::parse(&["--nodes", "500"]), Ok(Options { nodes: 500 }));
        for wrong in [&["--nodes"][..], &["--nodes", "0"], &["--nodes", "25001"], &["--nodes", "x"], &["--fast", "1"]] {
            assert!(Options::parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
