//! The quarantine: messages that killed their actor three times, kept until an operator retries or drops them.
//!
//! One per process. With a [directory](Quarantine::open) it survives a restart of the process: each entry is a file,
//! written by a thread of its own, so that a slow disk holds up neither an actor nor its supervisor.

use std::borrow::Cow;
use std::collections::{HashSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use std::{fs, io, thread};

use bytes::Bytes;

use crate::cell::lock;

/// A message as it entered the process, kept beside what became of it, so that it can enter again.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Ingress {
    /// Which border it crossed: `mqtt`, `cloud`, `node`.
    pub border: Cow<'static, str>,
    /// Where exactly: a topic, the name of a peer.
    pub address: String,
    /// The bytes as they came. `None` where the border keeps them to itself (a secret) or they are too many: such a
    /// message can only be dropped, but its sender can be answered.
    #[serde(with = "as_text")]
    pub payload: Option<Bytes>,
}

impl Ingress {
    /// Bytes that it holds.
    pub(crate) fn bytes(&self) -> usize {
        self.payload.as_ref().map_or(0, Bytes::len)
    }
}

/// A message that was in hand at three deaths of its actor.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Quarantined {
    /// Identity of the message.
    pub id: String,
    /// The message that caused it, if there was one.
    pub parent: Option<String>,
    /// The actor that died of it.
    pub actor: String,
    /// Its variant.
    pub kind: String,
    /// Who sent it.
    pub source: String,
    /// Readable form, cut at [`Self::TEXT_MAX`] bytes.
    pub text: String,
    /// What the actor said when it died of it for the last time.
    pub last_words: String,
    /// When it was put here, in ms since 1970.
    pub at_ms: u64,
    /// The form in which it can enter again; a message without one, or without its bytes, can only be dropped.
    pub ingress: Option<Ingress>,
}

impl Quarantined {
    /// Longest readable form and longest last words that are kept, in bytes.
    pub const TEXT_MAX: usize = 4096;
    /// Longest payload that is kept for a retry, in bytes; a longer one can only be dropped.
    pub const PAYLOAD_MAX: usize = 128 * 1024;
}

/// Messages kept for one actor; the oldest goes first.
pub const PER_ACTOR_MAX: usize = 64;
/// Messages kept in one process; the oldest goes first.
pub const TOTAL_MAX: usize = 512;
/// Largest file that is read back, in bytes. A larger one is none of ours.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// How long after a failure the disk is tried again.
const TRY_AGAIN: Duration = Duration::from_secs(30);

/// Why a quarantined message did not enter again.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum RetryError {
    /// There is none of this identity.
    #[error("no message `{0}` is in quarantine: it was retried, dropped or pushed out by newer ones; see the list")]
    Unknown(String),
    /// It was made inside the process, was too large to keep, or holds a secret.
    #[error(
        "message `{0}` did not come from outside in a form that was kept, so it cannot enter again; drop it: what it asked for is asked again from the store"
    )]
    Internal(String),
    /// The border did not take it; it stays.
    #[error("message `{id}` stays in quarantine: {reason}")]
    Refused {
        /// The message.
        id: String,
        /// What the border said.
        reason: String,
    },
}

type Reentry = dyn Fn(&Ingress) -> Result<(), String> + Send + Sync;
type OnBuried = dyn Fn(&Quarantined) + Send + Sync;

/// The quarantine of a process. Cheap to clone.
#[derive(Clone, Default)]
pub struct Quarantine(Arc<Inner>);

type Entries = Arc<Mutex<VecDeque<Quarantined>>>;

#[derive(Default)]
struct Inner {
    entries: Entries,
    disk: Option<SyncSender<Look>>,
    reentry: OnceLock<Box<Reentry>>,
    on_buried: OnceLock<Box<OnBuried>>,
}

/// Tells the disk's thread to compare what is there with what should be. One look sees all changes before it, so one
/// that waits is enough.
#[derive(Debug)]
enum Look {
    Soon,
    Now(SyncSender<()>),
}

impl Quarantine {
    /// One that ends with the process.
    #[must_use]
    pub fn in_memory() -> Self {
        Self::default()
    }

    /// One that is kept in `directory`, with what an earlier process left there. A file that cannot be read back is
    /// logged and left alone.
    ///
    /// # Errors
    /// When the directory cannot be made or listed, or the writing thread not started.
    pub fn open(directory: &Path) -> io::Result<Self> {
        make_private(directory)?;
        let mut found: Vec<Quarantined> = Vec::new();
        for file in fs::read_dir(directory)? {
            let path = file?.path();
            match path.extension().and_then(|e| e.to_str()) {
                Some("json") => match read(&path) {
                    Ok(entry) => found.push(entry),
                    Err(error) => {
                        log::warn!(file:% = path.display(), error:% = error; "a quarantined message cannot be read back and is left alone");
                    }
                },
                // What a cut of power left half written.
                Some("tmp") => fs::remove_file(&path)?,
                _ => {}
            }
        }
        found.sort_by(|a, b| (a.at_ms, &a.id).cmp(&(b.at_ms, &b.id)));
        let (disk, looks) = sync_channel(1);
        let quarantine = Self(Arc::new(Inner { disk: Some(disk), ..Inner::default() }));
        let on_disk = found.iter().map(|entry| entry.id.clone()).collect();
        for entry in found {
            quarantine.insert(entry);
        }
        let keeper = Keeper { directory: directory.to_owned(), entries: quarantine.0.entries.clone(), on_disk };
        thread::Builder::new().name("quarantine".into()).stack_size(128 * 1024).spawn(move || keeper.run(&looks))?;
        quarantine.look();
        Ok(quarantine)
    }

    /// Says how a message enters the process again; the border's own checks apply to it as to any other. Once per
    /// process; a second call is ignored.
    pub fn on_retry(&self, reentry: impl Fn(&Ingress) -> Result<(), String> + Send + Sync + 'static) {
        let _ = self.0.reentry.set(Box::new(reentry));
    }

    /// Says who is told of each message that comes here, to answer its sender; it sees the payload also where that is too
    /// large to be kept. It runs on the thread of the dying actor or of the supervisor and must not wait; a panic in it is
    /// logged and goes no further. Once per process; a second call is ignored.
    pub fn on_buried(&self, tell: impl Fn(&Quarantined) + Send + Sync + 'static) {
        let _ = self.0.on_buried.set(Box::new(tell));
    }

    /// What is here, oldest first.
    #[must_use]
    pub fn list(&self) -> Vec<Quarantined> {
        lock(&self.0.entries).iter().cloned().collect()
    }

    /// What one actor died of, oldest first.
    #[must_use]
    pub fn of(&self, actor: &str) -> Vec<Quarantined> {
        lock(&self.0.entries).iter().filter(|q| q.actor == actor).cloned().collect()
    }

    /// How many there are of one actor.
    #[must_use]
    pub fn count(&self, actor: &str) -> usize {
        lock(&self.0.entries).iter().filter(|q| q.actor == actor).count()
    }

    /// Forgets a message for good.
    ///
    /// # Errors
    /// [`RetryError::Unknown`].
    pub fn remove(&self, id: &str) -> Result<Quarantined, RetryError> {
        self.take(|q| q.id == id).ok_or_else(|| RetryError::Unknown(id.to_owned()))
    }

    fn take(&self, which: impl Fn(&Quarantined) -> bool) -> Option<Quarantined> {
        let taken = {
            let mut entries = lock(&self.0.entries);
            entries.iter().position(which).and_then(|at| entries.remove(at))
        };
        if taken.is_some() {
            self.look();
        }
        taken
    }

    /// Lets a message enter again at its border. It leaves the quarantine when the border has taken it; if it kills
    /// three times more it comes back.
    ///
    /// # Errors
    /// See [`RetryError`]; the message stays.
    pub fn retry(&self, id: &str) -> Result<Quarantined, RetryError> {
        let found = lock(&self.0.entries).iter().find(|q| q.id == id).cloned();
        let found = found.ok_or_else(|| RetryError::Unknown(id.to_owned()))?;
        let whole = found.ingress.as_ref().filter(|ingress| ingress.payload.is_some());
        let (Some(ingress), Some(reentry)) = (whole, self.0.reentry.get()) else {
            return Err(RetryError::Internal(id.to_owned()));
        };
        reentry(ingress).map_err(|reason| RetryError::Refused { id: id.to_owned(), reason })?;
        // Not one of the same identity that came here since: it may have killed again already.
        self.take(|q| (&q.id, q.at_ms) == (&found.id, found.at_ms));
        Ok(found)
    }

    /// Waits until the disk has everything that was put here before. For an orderly end.
    pub fn flush(&self) {
        let (done, wait) = sync_channel(1);
        if let Some(disk) = &self.0.disk
            && disk.send(Look::Now(done)).is_ok()
        {
            let _ = wait.recv_timeout(Duration::from_secs(2));
        }
    }

    pub(crate) fn put(&self, mut entry: Quarantined) {
        cut(&mut entry.text);
        cut(&mut entry.last_words);
        let mut kept = entry.clone();
        if let Some(ingress) = &mut kept.ingress
            && ingress.bytes() > Quarantined::PAYLOAD_MAX
        {
            ingress.payload = None;
        }
        self.insert(kept);
        self.look();
        if let Some(tell) = self.0.on_buried.get()
            && catch_unwind(AssertUnwindSafe(|| tell(&entry))).is_err()
        {
            // It looks at bytes of which an actor died before.
            log::error!(actor = entry.actor.as_str(), id = entry.id.as_str(); "the sender of a quarantined message is not answered: that panicked, too");
        }
    }

    fn insert(&self, entry: Quarantined) {
        let mut pushed_out = Vec::new();
        {
            let mut entries = lock(&self.0.entries);
            // A peer that sends the same message again gets no second place.
            entries.retain(|q| (&q.actor, &q.id) != (&entry.actor, &entry.id));
            if entries.iter().filter(|q| q.actor == entry.actor).count() >= PER_ACTOR_MAX
                && let Some(oldest) = entries.iter().position(|q| q.actor == entry.actor)
            {
                pushed_out.extend(entries.remove(oldest));
            }
            while entries.len() >= TOTAL_MAX {
                pushed_out.extend(entries.pop_front());
            }
            entries.push_back(entry);
        }
        for old in pushed_out {
            log::warn!(actor = old.actor.as_str(), id = old.id.as_str(); "the quarantine is full: its oldest message is dropped");
        }
    }

    fn look(&self) {
        if let Some(disk) = &self.0.disk {
            // Full: a look that was asked for before sees this change, too.
            let _ = disk.try_send(Look::Soon);
        }
    }
}

fn cut(text: &mut String) {
    if text.len() > Quarantined::TEXT_MAX {
        let at = (0..=Quarantined::TEXT_MAX).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
        text.truncate(at);
    }
}

// ---- the disk --------------------------------------------------------------------------------------------------------

fn make_private(directory: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    // What devices and the cloud sent is for this daemon's user alone.
    match fs::DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// Makes the directory what the memory is.
struct Keeper {
    directory: PathBuf,
    entries: Entries,
    on_disk: HashSet<String>,
}

impl Keeper {
    fn run(mut self, looks: &Receiver<Look>) {
        let mut failed = false;
        loop {
            let look = if failed { looks.recv_timeout(TRY_AGAIN) } else { looks.recv().map_err(|_| RecvTimeoutError::Disconnected) };
            if matches!(look, Err(RecvTimeoutError::Disconnected)) {
                return;
            }
            failed = self.compare().inspect_err(|error| {
                log::error!(directory:% = self.directory.display(), error:% = error; "the quarantine cannot be written: what changed since does not survive a restart");
            }).is_err();
            if let Ok(Look::Now(done)) = look {
                let _ = done.send(());
            }
        }
    }

    fn compare(&mut self) -> io::Result<()> {
        let wanted: HashSet<String> = lock(&self.entries).iter().map(|entry| entry.id.clone()).collect();
        for id in self.on_disk.difference(&wanted).cloned().collect::<Vec<_>>() {
            match fs::remove_file(file_of(&self.directory, &id)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => self.on_disk.remove(&id),
            };
        }
        for id in wanted.difference(&self.on_disk).cloned().collect::<Vec<_>>() {
            // Gone meanwhile: the next look sees it.
            let entry = lock(&self.entries).iter().find(|entry| entry.id == id).cloned();
            if let Some(entry) = entry {
                put(&self.directory, &entry)?;
                self.on_disk.insert(id);
            }
        }
        Ok(())
    }
}

fn put(directory: &Path, entry: &Quarantined) -> io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let path = file_of(directory, &entry.id);
    let half = path.with_extension("tmp");
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&half)?;
    file.write_all(&serde_json::to_vec(entry)?)?;
    file.sync_all()?;
    fs::rename(&half, &path)?;
    fs::File::open(directory)?.sync_all()
}

/// Only what a [`crate::MsgId`] prints becomes part of a path.
fn file_of(directory: &Path, id: &str) -> PathBuf {
    let name: String = id.chars().filter(|c| c.is_ascii_hexdigit() || *c == '-').collect();
    directory.join(format!("{name}.json"))
}

fn read(path: &Path) -> io::Result<Quarantined> {
    let bytes = fs::metadata(path)?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("it has {bytes} bytes, more than the {FILE_BYTES_MAX} allowed")));
    }
    let entry: Quarantined = serde_json::from_slice(&fs::read(path)?)?;
    // A file under another name could never be removed again.
    if Some(path) != path.parent().map(|d| file_of(d, &entry.id)).as_deref() {
        return Err(io::Error::other("its name is not the identity of the message in it"));
    }
    Ok(entry)
}

/// Payloads in JSON: as text where they are UTF-8, else as numbers; `null` where they are not kept.
mod as_text {
    use bytes::Bytes;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "kebab-case")]
    enum Form<'a> {
        Text(std::borrow::Cow<'a, str>),
        Bytes(std::borrow::Cow<'a, [u8]>),
    }

    pub(super) fn serialize<S: Serializer>(payload: &Option<Bytes>, to: S) -> Result<S::Ok, S::Error> {
        let form = payload.as_ref().map(|payload| match std::str::from_utf8(payload) {
            Ok(text) => Form::Text(text.into()),
            Err(_) => Form::Bytes(payload.as_ref().into()),
        });
        form.serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Bytes>, D::Error> {
        Ok(Option::deserialize(from)?.map(|form| match form {
            Form::Text(text) => Bytes::from(text.into_owned()),
            Form::Bytes(bytes) => Bytes::from(bytes.into_owned()),
        }))
    }
}
