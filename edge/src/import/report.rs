//! What came of an import, in words.

use std::fmt;

/// Most rows that are named one by one; the others are counted.
const LISTED_MAX: usize = 1_000;

/// Rows of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Taken over.
    pub imported: u64,
    /// There already, and left as they were.
    pub kept: u64,
    /// Left out; each is named in the report.
    pub skipped: u64,
}

/// What was imported, what was not, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Devices.
    pub devices: Tally,
    /// Their attributes.
    pub attributes: Tally,
    /// Properties of their twins, tombstones included.
    pub properties: Tally,
    /// Objects of the cloud and statuses of pods.
    pub objects: Tally,
    remarks: Vec<String>,
    skipped: Vec<String>,
    unlisted: u64,
}

impl Report {
    /// Says something about the source as a whole.
    pub(super) fn remark(&mut self, text: String) {
        self.remarks.push(text);
    }

    /// Names a row that is left out. It is counted by the caller.
    pub(super) fn skip(&mut self, row: impl fmt::Display, reason: impl fmt::Display) {
        if self.skipped.len() < LISTED_MAX {
            self.skipped.push(format!("{row}: {reason}").chars().map(|sign| if sign.is_control() { '\u{fffd}' } else { sign }).collect());
        } else {
            self.unlisted += 1;
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, Tally { imported, kept, skipped }) in
            [("devices", self.devices), ("attributes", self.attributes), ("properties", self.properties), ("objects", self.objects)]
        {
            writeln!(f, "{name:<10} {imported:>6} imported {kept:>6} kept {skipped:>6} skipped")?;
        }
        for remark in &self.remarks {
            writeln!(f, "{remark}")?;
        }
        for skipped in &self.skipped {
            writeln!(f, "skipped: {skipped}")?;
        }
        if self.unlisted > 0 {
            writeln!(f, "skipped: {} more", self.unlisted)?;
        }
        Ok(())
    }
}
