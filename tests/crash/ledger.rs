//! What was sent, what was acknowledged, and whether what is stored can have come from that.

use std::collections::HashSet;
use std::fmt;

/// Names of the properties of each device. Update `n` carries the first always, the second when 2 divides `n`, the third
/// when 3 does: so an update that was applied in part is seen.
pub const PROPERTIES: [&str; 3] = ["every", "second", "third"];

/// What is stored of one property: the number of the update that it has its value from, and the edge's version, which each
/// update raises by one. Both 0 before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    pub value: u64,
    pub version: u64,
}

/// The twin of one device.
pub type Row = [Stored; PROPERTIES.len()];

/// The updates of one device.
///
/// They are numbered for the whole test, and sent in order on one connection, so that those which took effect before a kill
/// are the first of those sent since the one before it: the stored twin says how many.
#[derive(Debug)]
pub struct Ledger {
    pub device: String,
    /// After the last kill.
    stored: Row,
    sent: Vec<u64>,
    /// How many of `sent` have taken effect by what a result says.
    acknowledged: usize,
    next: u64,
    lost: HashSet<u64>,
}

/// What one kill did to one device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Updates with a result.
    pub acknowledged: usize,
    /// Updates that are stored and have no result.
    pub unannounced: usize,
    /// Updates that are not stored.
    pub forgotten: usize,
}

/// What must never be.
#[derive(Debug, PartialEq, Eq)]
pub enum Fault {
    /// The store is where it was before an update that was acknowledged.
    Lost { device: String, acknowledged: usize, stored: usize },
    /// No number of first updates leads from the one row to the other: one is missing in between, was applied twice or in part.
    Impossible { device: String, sent: Vec<u64>, rows: Box<[Row; 2]> },
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost { device, acknowledged, stored } => {
                write!(f, "{device}: {acknowledged} updates were acknowledged before the kill, only {stored} of them are stored after it")
            }
            Self::Impossible { device, sent, rows } => {
                let [before, found] = &**rows;
                write!(f, "{device}: the store cannot have come from {before:?} to {found:?} by the first ones of updates {sent:?}")
            }
        }
    }
}

impl Ledger {
    pub fn new(device: String) -> Self {
        Self { device, stored: Row::default(), sent: Vec::new(), acknowledged: 0, next: 1, lost: HashSet::new() }
    }

    /// The number of the next update, which counts as sent.
    pub fn send(&mut self) -> u64 {
        self.sent.push(self.next);
        self.next += 1;
        self.next - 1
    }

    /// The properties that an update carries.
    pub fn carried(number: u64) -> impl Iterator<Item = usize> {
        (0..PROPERTIES.len()).filter(move |property| number.is_multiple_of(*property as u64 + 1))
    }

    /// A result says that this update, and so each before it, is durable.
    ///
    /// # Panics
    /// When it was not sent since the last kill: a result for what nobody asked.
    pub fn acknowledge(&mut self, number: u64) {
        let place = self.sent.iter().position(|sent| *sent == number);
        let place = place.unwrap_or_else(|| panic!("{}: a result of update {number}, which was not sent", self.device));
        self.acknowledged = self.acknowledged.max(place + 1);
    }

    /// Updates that are on their way.
    pub fn in_flight(&self) -> usize {
        self.sent.len() - self.acknowledged
    }

    /// Compares with what is stored after a kill, and goes on from there.
    ///
    /// # Errors
    /// What must never be.
    pub fn settle(&mut self, found: Row) -> Result<Outcome, Fault> {
        let mut row = self.stored;
        let mut applied = (row == found).then_some(0);
        for (index, number) in self.sent.iter().enumerate() {
            for property in Self::carried(*number) {
                row[property] = Stored { value: *number, version: row[property].version + 1 };
            }
            if row == found {
                applied = Some(index + 1);
            }
        }
        let sent = std::mem::take(&mut self.sent);
        let acknowledged = std::mem::take(&mut self.acknowledged);
        let Some(applied) = applied else {
            return Err(Fault::Impossible { device: self.device.clone(), sent, rows: Box::new([self.stored, found]) });
        };
        if applied < acknowledged {
            return Err(Fault::Lost { device: self.device.clone(), acknowledged, stored: applied });
        }
        self.stored = found;
        self.lost.extend(&sent[applied..]);
        Ok(Outcome { acknowledged, unannounced: applied - acknowledged, forgotten: sent.len() - applied })
    }

    /// What was stored after the last kill.
    pub fn stored(&self) -> &Row {
        &self.stored
    }

    /// Whether a kill took this update, so that nobody may ever have heard of it.
    pub fn is_lost(&self, number: u64) -> bool {
        self.lost.contains(&number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(sent: u64, acknowledged: u64) -> Ledger {
        let mut ledger = Ledger::new("d".into());
        for _ in 0..sent {
            ledger.send();
        }
        (1..=acknowledged).for_each(|number| ledger.acknowledge(number));
        ledger
    }

    fn row(cells: [(u64, u64); 3]) -> Row {
        cells.map(|(value, version)| Stored { value, version })
    }

    #[test]
    fn what_was_sent_and_not_acknowledged_may_be_stored_or_not() {
        let both = Outcome { acknowledged: 4, unannounced: 2, forgotten: 0 };
        assert_eq!(after(6, 4).settle(row([(6, 6), (6, 3), (6, 2)])), Ok(both));
        let mut ledger = after(6, 4);
        assert_eq!(ledger.settle(row([(4, 4), (4, 2), (3, 1)])), Ok(Outcome { acknowledged: 4, unannounced: 0, forgotten: 2 }));
        assert!(ledger.is_lost(5) && ledger.is_lost(6) && !ledger.is_lost(4));
        // The next update has a number of its own.
        assert_eq!(ledger.send(), 7);
        assert_eq!(ledger.settle(row([(7, 5), (4, 2), (3, 1)])), Ok(Outcome { acknowledged: 0, unannounced: 1, forgotten: 0 }));
    }

    #[test]
    fn an_acknowledged_update_that_is_not_stored_is_a_loss() {
        let lost = Fault::Lost { device: "d".into(), acknowledged: 4, stored: 3 };
        assert_eq!(after(6, 4).settle(row([(3, 3), (2, 1), (3, 1)])), Err(lost));
        assert!(matches!(after(1, 1).settle(Row::default()), Err(Fault::Lost { stored: 0, .. })));
    }

    #[test]
    fn an_update_that_was_applied_twice_in_part_or_without_its_predecessor_is_found() {
        for impossible in [[(4, 5), (4, 2), (3, 1)], [(4, 4), (2, 1), (3, 1)], [(4, 3), (4, 2), (3, 1)], [(4, 4), (4, 2), (4, 1)]] {
            assert!(matches!(after(6, 2).settle(row(impossible)), Err(Fault::Impossible { .. })), "{impossible:?}");
        }
    }

    #[test]
    fn a_version_that_goes_back_is_found() {
        let mut ledger = after(6, 4);
        ledger.settle(row([(6, 6), (6, 3), (6, 2)])).unwrap();
        assert!(matches!(ledger.settle(row([(5, 5), (4, 2), (3, 1)])), Err(Fault::Impossible { .. })));
    }
}
