//! Figures: medians of runs, the JSON of DESIGN section 5, and the table.

use std::fmt::Write as _;
use std::path::PathBuf;

use serde::Serialize;

use crate::machine;

/// What a figure should reach; shown next to it.
#[derive(Clone, Copy, Debug)]
pub enum Goal {
    AtLeast(f64),
    AtMost(f64),
}

impl Goal {
    fn text(self, value: f64) -> String {
        let (sign, wanted, reached) = match self {
            Self::AtLeast(wanted) => (">=", wanted, value >= wanted),
            Self::AtMost(wanted) => ("<=", wanted, value <= wanted),
        };
        format!("goal {sign} {wanted}{}", if reached { "" } else { "  MISSED" })
    }
}

/// One figure: `value` is the median of its runs.
#[derive(Debug, Serialize)]
pub struct Figure {
    name: String,
    value: f64,
    unit: &'static str,
    min: f64,
    max: f64,
    runs: usize,
    #[serde(skip)]
    goal: Option<Goal>,
}

impl Figure {
    pub fn goal(&mut self, goal: Goal) {
        self.goal = Some(goal);
    }
}

/// The figures of one scenario.
#[derive(Debug, Serialize)]
pub struct Figures {
    scenario: String,
    pub commit: String,
    pub machine: String,
    figures: Vec<Figure>,
}

impl Figures {
    pub fn new(scenario: &str) -> Self {
        Self { scenario: scenario.to_owned(), commit: machine::commit(), machine: machine::description(), figures: Vec::new() }
    }

    /// Adds a figure from one value per run.
    ///
    /// # Panics
    /// Without runs: that is an error of the scenario.
    pub fn add(&mut self, name: impl Into<String>, unit: &'static str, runs: &[f64]) -> &mut Figure {
        let sorted = sorted(runs);
        let (min, max) = (sorted[0], sorted[sorted.len() - 1]);
        self.figures.push(Figure { name: name.into(), value: median(runs), unit, min, max, runs: runs.len(), goal: None });
        self.figures.last_mut().expect("one was pushed")
    }

    /// Writes `target/bench/<scenario>.json`.
    ///
    /// # Errors
    /// The directory or the file cannot be written.
    pub fn write(&self) -> Result<PathBuf, String> {
        let dir = directory();
        let path = dir.join(format!("{}.json", self.scenario));
        let text = serde_json::to_string_pretty(self).expect("names and numbers have a JSON form");
        std::fs::create_dir_all(&dir)
            .and_then(|()| std::fs::write(&path, text + "\n"))
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        Ok(path)
    }

    pub fn table(&self) -> String {
        let name = self.figures.iter().map(|f| f.name.len()).max().unwrap_or(0);
        let unit = self.figures.iter().map(|f| f.unit.len()).max().unwrap_or(0);
        let mut table = format!("{:name$}  {:>9}  {:unit$}  {:>9} {:>9} {:>4}\n", "", "median", "", "min", "max", "runs");
        for f in &self.figures {
            let goal = f.goal.map(|goal| format!("  {}", goal.text(f.value))).unwrap_or_default();
            let (value, min, max) = (short(f.value), short(f.min), short(f.max));
            let _ = writeln!(table, "{:name$}  {value:>9}  {:unit$}  {min:>9} {max:>9} {:>4}{goal}", f.name, f.unit, f.runs);
        }
        table
    }
}

/// `target/bench`.
pub fn directory() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| harness::top().join("target"), PathBuf::from).join("bench")
}

fn sorted(runs: &[f64]) -> Vec<f64> {
    assert!(!runs.is_empty(), "a figure needs a run");
    let mut sorted = runs.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// The middle value, or the mean of the two in the middle.
///
/// # Panics
/// Without values.
pub fn median(values: &[f64]) -> f64 {
    let sorted = sorted(values);
    let half = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[half] } else { f64::midpoint(sorted[half - 1], sorted[half]) }
}

/// The smallest value that at least the share `quantile` of all values does not exceed (nearest rank).
///
/// # Panics
/// Without values.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rank within a list in memory")]
pub fn quantile(values: &[f64], quantile: f64) -> f64 {
    let sorted = sorted(values);
    let rank = (sorted.len() as f64 * quantile).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

/// The ratios of runs that were made in the same turn.
pub fn ratios(of: &[f64], to: &[f64]) -> Vec<f64> {
    of.iter().zip(to).map(|(of, to)| of / to).collect()
}

/// Four digits that say something, with k and M.
fn short(value: f64) -> String {
    let (value, suffix) = match value.abs() {
        v if v >= 1e6 => (value / 1e6, " M"),
        v if v >= 1e4 => (value / 1e3, " k"),
        _ => (value, ""),
    };
    let decimals = match value.abs() {
        v if v >= 1000.0 => 0,
        v if v >= 100.0 => 1,
        v if v >= 10.0 => 2,
        _ => 3,
    };
    format!("{value:.decimals$}{suffix}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    #[test]
    fn the_median_is_the_middle_value_or_between_the_two_middle_ones() {
        assert_eq!(median(&[9.0, 1.0, 5.0]), 5.0);
        assert_eq!(median(&[9.0, 1.0, 5.0, 6.0]), 5.5);
        assert_eq!(median(&[2.0]), 2.0);
    }

    #[test]
    fn a_quantile_is_a_value_that_was_measured() {
        let values: Vec<f64> = (1..=200).map(f64::from).collect();
        assert_eq!((quantile(&values, 0.5), quantile(&values, 0.99), quantile(&values, 1.0)), (100.0, 198.0, 200.0));
        assert_eq!((quantile(&[7.0], 0.99), quantile(&[7.0], 0.0)), (7.0, 7.0));
    }

    #[test]
    fn ratios_are_formed_within_a_turn() {
        assert_eq!(ratios(&[1.0, 9.0], &[2.0, 3.0]), [0.5, 3.0]);
    }

    #[test]
    fn a_figure_in_json_has_the_fields_of_the_design_and_no_other() {
        let mut figures = Figures::new("actors");
        figures.add("one-way", "ratio", &[3.0, 1.0, 2.0]).goal(Goal::AtLeast(0.6));
        let json = serde_json::to_value(&figures).unwrap();
        assert_eq!(json["figures"][0], serde_json::json!({"name": "one-way", "value": 2.0, "unit": "ratio", "min": 1.0, "max": 3.0, "runs": 3}));
        let mut fields: Vec<_> = json.as_object().unwrap().keys().cloned().collect();
        fields.sort();
        assert_eq!(fields, ["commit", "figures", "machine", "scenario"]);
    }

    #[test]
    fn the_table_shows_the_goal_and_whether_it_was_missed() {
        let mut figures = Figures::new("actors");
        figures.add("fast", "ratio", &[0.7]).goal(Goal::AtLeast(0.6));
        figures.add("slow", "ms", &[5.1]).goal(Goal::AtMost(5.0));
        figures.add("plain", "messages/s", &[4_312_345.0]);
        let table = figures.table();
        let line = |name: &str| table.lines().find(|l| l.starts_with(name)).unwrap_or_default().to_owned();
        assert!(line("fast").ends_with("goal >= 0.6"), "{table}");
        assert!(line("slow").ends_with("goal <= 5  MISSED"), "{table}");
        assert!(line("plain").contains("4.312 M") && !line("plain").contains("goal"), "{table}");
    }
}
