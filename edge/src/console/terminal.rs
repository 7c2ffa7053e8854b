//! The terminal of whoever called: each key goes on as it is pressed, and at the end it is as it was.

use std::io;

use rustix::stdio::stdin;
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};

/// A terminal that hands keys on, until this is dropped: also when the command fails, and when a panic unwinds.
pub struct Raw {
    before: Termios,
}

impl Raw {
    /// Begins; standard input must be a terminal.
    ///
    /// # Errors
    /// The kernel's.
    pub fn begin() -> io::Result<Self> {
        let before = tcgetattr(stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        // Made first: what follows may fail half-way.
        let guard = Self { before };
        tcsetattr(stdin(), OptionalActions::Now, &raw)?;
        Ok(guard)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(stdin(), OptionalActions::Now, &self.before);
    }
}

/// Whether standard input is a terminal.
pub fn is_terminal() -> bool {
    isatty(stdin())
}

/// Rows and columns; `None` without a terminal.
pub fn size() -> Option<(u16, u16)> {
    tcgetwinsize(stdin()).ok().map(|size| (size.ws_row, size.ws_col)).filter(|(rows, columns)| *rows > 0 && *columns > 0)
}
