//! When an object is durable at the edge, as another program sees it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use super::PATIENCE;
use crate::hollow;

/// Between two questions: they must not take the processor from who is measured.
const ASK_EVERY: Duration = Duration::from_micros(200);

/// One `sqlite3` that reads the database and is asked over and over. SQLite shows a transaction to other readers once it is
/// written and synced, so the first answer with the row is the moment of durability, some tenths of a ms late at the most.
pub struct Durable {
    child: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Durable {
    /// Opens the database, which the edge has made.
    ///
    /// # Errors
    /// There is no `sqlite3`.
    pub fn open(database: &Path) -> Result<Self, String> {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM", "sqlite3", "-batch", "-readonly", "-cmd", ".timeout 2000"]).arg(database);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn();
        let mut child = child.map_err(|error| format!("cannot start sqlite3: {error}; run deploy/setup.sh --for bench"))?;
        let (questions, answers) = (child.stdin.take().expect("it is piped"), child.stdout.take().expect("it is piped"));
        Ok(Self { child, questions, answers: BufReader::new(answers) })
    }

    /// Waits until the pod is there.
    ///
    /// # Errors
    /// It does not come; `sqlite3` ended.
    pub fn pod(&mut self, name: &str) -> Result<Instant, String> {
        let (began, mut line) = (Instant::now(), String::new());
        loop {
            writeln!(self.questions, "SELECT count(*) FROM meta WHERE key = 'default/pod/{name}';").map_err(words)?;
            line.clear();
            self.answers.read_line(&mut line).map_err(words)?;
            match line.trim() {
                "1" => return Ok(Instant::now()),
                "0" if began.elapsed() < PATIENCE => hollow::pause(ASK_EVERY),
                "0" => return Err(format!("pod {name} is not in the edge's database within {} s", PATIENCE.as_secs())),
                other => return Err(format!("sqlite3 answered `{other}`")),
            }
        }
    }
}

impl Drop for Durable {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn words(error: std::io::Error) -> String {
    format!("sqlite3: {error}")
}
