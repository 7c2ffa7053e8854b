//! One transaction for a whole batch of messages.

use actor::{Lease, Mail, Meta};

use super::{Store, StoreError, Tx};

/// What [`Store::write_batch`] did.
#[derive(Debug)]
pub struct Batch<E> {
    /// What is to be told, in the order of the messages; everything behind it is durable.
    pub effects: Vec<E>,
    /// How many messages are done, by success or by a final error; the rest has to wait.
    pub handled: usize,
    /// All was done in one transaction, the first.
    pub is_whole: bool,
}

impl Store {
    /// Applies a leased batch in one transaction; if that fails, each message in one of its own,
    /// so that a bad one costs only itself.
    ///
    /// `apply` gets a part of the batch, writes what follows from it and pushes effects. It
    /// returns how many messages it took; the others wait. It is called again with the same
    /// messages after an error, so it must keep nothing between two calls.
    /// `give_up` makes the effect, if any, of a message that failed alone; it was counted and logged.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] alone: nothing may be told, the successor has the messages already.
    pub fn write_batch<M: Mail, E>(
        &self,
        lease: &Lease<M>,
        mut apply: impl FnMut(&mut Tx<'_>, &[(&Meta, &M)], &mut Vec<E>) -> Result<usize, StoreError>,
        mut give_up: impl FnMut(&Meta, &M, &StoreError) -> Option<E>,
    ) -> Result<Batch<E>, StoreError> {
        let messages: Vec<(&Meta, &M)> = lease.iter().collect();
        let fence = lease.fence();
        let mut attempt = |part: &[(&Meta, &M)]| {
            self.write(&fence, |tx| {
                let mut effects = Vec::new();
                let handled = apply(tx, part, &mut effects)?;
                Ok(Batch { effects, handled, is_whole: true })
            })
        };
        let whole = match attempt(&messages) {
            Err(error) if messages.len() > 1 && !matches!(error, StoreError::Fenced) => error,
            Err(StoreError::Fenced) => return Err(StoreError::Fenced),
            Err(error) => {
                lease.fail(0, &error);
                let effects = give_up(messages[0].0, messages[0].1, &error).into_iter().collect();
                return Ok(Batch { effects, handled: 1, is_whole: false });
            }
            Ok(batch) => return Ok(batch),
        };
        let mut done = Batch { effects: Vec::new(), handled: 0, is_whole: false };
        for (index, message) in messages.iter().enumerate() {
            // A disk that is full or gone fails them all alike; one attempt is enough.
            let result = if whole.is_of_the_whole_store() { Err(None) } else { attempt(&[*message]).map_err(Some) };
            match result {
                Ok(single) if single.handled == 0 => break,
                Ok(single) => done.effects.extend(single.effects),
                Err(Some(StoreError::Fenced)) => return Err(StoreError::Fenced),
                Err(error) => {
                    let error = error.as_ref().unwrap_or(&whole);
                    lease.fail(index, error);
                    done.effects.extend(give_up(message.0, message.1, error));
                }
            }
            done.handled += 1;
        }
        Ok(done)
    }
}
