//! The connected nodes: what each must still be told, and its one live session.
//!
//! A node is here while it is connected and no longer. What it missed meanwhile is not kept: at its next connection the
//! controllers send everything it should have, from the API.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use model::NodeName;
use serde::Serialize;
use wire::hub::outbox::{Limits, Outgoing as _};
use wire::hub::{Downstream, Envelope, Frame, MsgId, Outbox, OutboxKey};

use super::link::Link;
use super::message::SessionId;
use super::page::Backlog;
use super::state::{End, verdict};

/// Most answers that wait for one node.
pub const ANSWERS_MAX: usize = 256;
/// Most bytes of answers that wait for one node; one answer alone may be larger.
pub const ANSWERS_BYTES_MAX: usize = 16 << 20;
/// A session that was told to end has so long before its socket is closed under it.
const GRACE: Duration = Duration::from_secs(2);
/// A node whose outbox ran over is sent everything anew, but not more often than this.
const RESYNC_EVERY: Duration = Duration::from_secs(30);

/// All connected nodes.
#[derive(Debug)]
pub struct Nodes {
    began: Instant,
    map: Mutex<HashMap<NodeName, Arc<Node>>>,
    /// Sessions that were told to end.
    condemned: Mutex<Vec<Arc<Link>>>,
    news: Mutex<News>,
    next_session: AtomicU64,
    pub(super) counters: Counters,
}

/// What the controllers have been told, and which nodes may differ from it.
#[derive(Debug, Default)]
struct News {
    changed: HashSet<NodeName>,
    told: HashMap<NodeName, SessionId>,
}

/// What the controllers are to be told about a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Connected(SessionId),
    Disconnected,
}

/// Only grow.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) sessions: AtomicU64,
    pub(super) replaced: AtomicU64,
    pub(super) silent: AtomicU64,
    pub(super) stuck: AtomicU64,
    pub(super) refused_full: AtomicU64,
    pub(super) refused_identity: AtomicU64,
    pub(super) frames_in: AtomicU64,
    pub(super) frames_out: AtomicU64,
    pub(super) garbage: AtomicU64,
    pub(super) acknowledged: AtomicU64,
    pub(super) refusals: AtomicU64,
    pub(super) not_connected: AtomicU64,
    pub(super) outbox_full: AtomicU64,
    pub(super) answers_dropped: AtomicU64,
    pub(super) uploads_dropped: AtomicU64,
}

/// Figures over all nodes; `_total` of a metric where nothing else is said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Nodes connected now.
    pub connected: u64,
    /// Frames in outboxes now, unsent or unacknowledged.
    pub waiting: u64,
    /// Bytes of them now.
    pub waiting_bytes: u64,
    /// Keys now whose last frame a node refused.
    pub parked: u64,
    /// Sessions that began.
    pub sessions: u64,
    /// Sessions that a newer one of the same node replaced.
    pub replaced: u64,
    /// Sessions cut because nothing came.
    pub silent: u64,
    /// Sessions cut because nothing could be written.
    pub stuck: u64,
    /// Connections refused because of the node limit.
    pub refused_full: u64,
    /// Connections refused because of their certificate, path or header.
    pub refused_identity: u64,
    /// Text frames received.
    pub frames_in: u64,
    /// Text frames handed to sockets.
    pub frames_out: u64,
    /// Text frames that were no message.
    pub garbage: u64,
    /// Frames that nodes acknowledged.
    pub acknowledged: u64,
    /// Frames that nodes refused.
    pub refusals: u64,
    /// Messages dropped because their node was not connected.
    pub not_connected: u64,
    /// Messages that found the node's outbox full; the node is sent everything anew.
    pub outbox_full: u64,
    /// Answers dropped because too many waited.
    pub answers_dropped: u64,
    /// Uploads of devices, which nothing takes yet.
    pub uploads_dropped: u64,
}

/// One connected node.
#[derive(Debug)]
pub struct Node {
    desk: Mutex<Desk>,
}

#[derive(Debug)]
struct Desk {
    link: Arc<Link>,
    outbox: Outbox<OutboxKey, Frame<Downstream>>,
    answers: VecDeque<Answer>,
    answers_bytes: usize,
    /// Since when something is missing from the outbox because it was full.
    lagging_ms: Option<u64>,
}

/// What goes out once, before the outbox.
#[derive(Debug)]
pub enum Answer {
    Frame(Frame<Downstream>),
    /// The refusal of an envelope that was no message.
    Envelope(Envelope),
}

/// The node limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany;

impl Default for Nodes {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            map: Mutex::default(),
            condemned: Mutex::default(),
            news: Mutex::default(),
            next_session: AtomicU64::new(1),
            counters: Counters::default(),
        }
    }
}

impl Nodes {
    /// Makes a session for `name` the live one. An older one is told to end and can change nothing any more; what was on
    /// its way in it is sent again.
    pub fn attach(&self, name: &NodeName, socket: Option<Arc<TcpStream>>, limit: usize) -> Result<(Arc<Node>, Arc<Link>), TooMany> {
        let mut map = lock(&self.map);
        let known = map.get(name).cloned();
        if known.is_none() && map.len() >= limit {
            self.counters.refused_full.fetch_add(1, Ordering::Relaxed);
            return Err(TooMany);
        }
        let session = self.next_session.fetch_add(1, Ordering::Relaxed);
        let link = Arc::new(Link::new(session, name.clone(), self.began, socket));
        let node = match known {
            Some(node) => {
                let older = node.replace(link.clone());
                self.counters.replaced.fetch_add(1, Ordering::Relaxed);
                self.condemn(older, End::Replaced);
                node
            }
            None => {
                let node = Arc::new(Node::new(link.clone()));
                map.insert(name.clone(), node.clone());
                node
            }
        };
        drop(map);
        self.counters.sessions.fetch_add(1, Ordering::Relaxed);
        self.note_change(name);
        Ok((node, link))
    }

    /// The session's actor is no more. Whether it was the live one.
    pub fn detach(&self, link: &Link) -> bool {
        link.set_gone();
        let mut map = lock(&self.map);
        let live = map.get(&link.node).is_some_and(|node| node.is_live(link.session));
        if live {
            map.remove(&link.node);
        }
        drop(map);
        if live {
            self.note_change(&link.node);
        }
        live
    }

    /// The node, if it is connected.
    pub fn get(&self, name: &NodeName) -> Option<Arc<Node>> {
        lock(&self.map).get(name).cloned()
    }

    /// Tells a session to end; its socket is closed if it does not.
    pub fn condemn(&self, link: Arc<Link>, end: End) {
        link.cut(end);
        lock(&self.condemned).push(link);
    }

    /// Ends every session.
    pub fn cut_all(&self, end: &End) {
        let links: Vec<Arc<Link>> = lock(&self.map).values().map(|node| node.link()).collect();
        for link in links {
            self.condemn(link, end.clone());
        }
    }

    /// Looks at every session: cuts the silent and the stuck, lets frames without an answer become due, and finds nodes
    /// that have to be sent everything anew.
    pub fn sweep(&self, keepalive: Duration, write_timeout: Duration) {
        let now_ms = self.now_ms();
        let nodes: Vec<Arc<Node>> = lock(&self.map).values().cloned().collect();
        for node in nodes {
            let link = node.link();
            if link.end().is_none()
                && let Some(end) = verdict(now_ms, link.vitals(), keepalive, write_timeout)
            {
                let counter = if end == End::Stuck { &self.counters.stuck } else { &self.counters.silent };
                counter.fetch_add(1, Ordering::Relaxed);
                self.condemn(link, end);
                continue;
            }
            if node.tick(now_ms) {
                link.wake();
            }
            if node.caught_up(now_ms) {
                lock(&self.news).told.remove(&link.node);
                self.note_change(&link.node);
            }
        }
        lock(&self.condemned).retain(|link| {
            if !link.is_gone() && u128::from(now_ms.saturating_sub(link.ended_ms())) > GRACE.as_millis() {
                link.close_socket();
            }
            !link.is_gone()
        });
    }

    /// Nodes about which the controllers may have to be told.
    pub fn changed(&self) -> Vec<NodeName> {
        lock(&self.news).changed.iter().cloned().collect()
    }

    /// What the controllers are to be told about `name`, by the difference between what is and what they were told.
    pub fn change_of(&self, name: &NodeName) -> Option<Change> {
        let current = self.get(name).map(|node| node.link().session);
        let told = lock(&self.news).told.get(name).copied();
        match (current, told) {
            (Some(session), told) if told != Some(session) => Some(Change::Connected(session)),
            (None, Some(_)) => Some(Change::Disconnected),
            _ => None,
        }
    }

    /// The controllers have been told, or need not be.
    pub fn told(&self, name: &NodeName, change: Option<Change>) {
        let mut news = lock(&self.news);
        news.changed.remove(name);
        match change {
            Some(Change::Connected(session)) => {
                news.told.insert(name.clone(), session);
            }
            Some(Change::Disconnected) => {
                news.told.remove(name);
            }
            None => {}
        }
    }

    fn note_change(&self, name: &NodeName) {
        lock(&self.news).changed.insert(name.clone());
    }

    /// Milliseconds since these nodes were made.
    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// The `most` nodes that have most to take, worst first; only those that have anything.
    pub fn worst(&self, most: usize) -> Vec<Backlog> {
        let nodes: Vec<(NodeName, Arc<Node>)> = lock(&self.map).iter().map(|(name, node)| (name.clone(), node.clone())).collect();
        let backlogs = nodes.into_iter().map(|(name, node)| node.backlog(name));
        let mut worst: Vec<Backlog> = backlogs.filter(|backlog| backlog.waiting + backlog.parked > 0 || backlog.lagging).collect();
        worst.sort_by_key(|backlog| std::cmp::Reverse((backlog.bytes, backlog.waiting, backlog.parked)));
        worst.truncate(most);
        worst
    }

    /// Figures over all nodes.
    pub fn totals(&self) -> Totals {
        let nodes: Vec<Arc<Node>> = lock(&self.map).values().cloned().collect();
        let (mut waiting, mut bytes, mut parked) = (0, 0, 0);
        for node in &nodes {
            let desk = lock(&node.desk);
            let parked_here = desk.outbox.parked().count();
            waiting += desk.outbox.len() - parked_here;
            bytes += desk.outbox.bytes();
            parked += parked_here;
        }
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let c = &self.counters;
        Totals {
            connected: nodes.len() as u64,
            waiting: waiting as u64,
            waiting_bytes: bytes as u64,
            parked: parked as u64,
            sessions: read(&c.sessions),
            replaced: read(&c.replaced),
            silent: read(&c.silent),
            stuck: read(&c.stuck),
            refused_full: read(&c.refused_full),
            refused_identity: read(&c.refused_identity),
            frames_in: read(&c.frames_in),
            frames_out: read(&c.frames_out),
            garbage: read(&c.garbage),
            acknowledged: read(&c.acknowledged),
            refusals: read(&c.refusals),
            not_connected: read(&c.not_connected),
            outbox_full: read(&c.outbox_full),
            answers_dropped: read(&c.answers_dropped),
            uploads_dropped: read(&c.uploads_dropped),
        }
    }
}

impl Node {
    fn new(link: Arc<Link>) -> Self {
        let outbox = Outbox::new(Limits::default());
        Self { desk: Mutex::new(Desk { link, outbox, answers: VecDeque::new(), answers_bytes: 0, lagging_ms: None }) }
    }

    /// Puts a newer session in place and returns the older.
    fn replace(&self, link: Arc<Link>) -> Arc<Link> {
        let mut desk = lock(&self.desk);
        desk.outbox.reset();
        // What they answer was asked in the older session, and will be asked again.
        desk.answers.clear();
        desk.answers_bytes = 0;
        std::mem::replace(&mut desk.link, link)
    }

    fn backlog(&self, node: NodeName) -> Backlog {
        let desk = lock(&self.desk);
        let parked = desk.outbox.parked().count();
        Backlog {
            node: node.to_string(),
            session: desk.link.session,
            waiting: desk.outbox.len() - parked,
            parked,
            bytes: desk.outbox.bytes(),
            answers: desk.answers.len(),
            lagging: desk.lagging_ms.is_some(),
        }
    }

    fn is_live(&self, session: SessionId) -> bool {
        lock(&self.desk).link.session == session
    }

    /// Its live session.
    pub fn link(&self) -> Arc<Link> {
        lock(&self.desk).link.clone()
    }

    /// Keeps a frame until the node has acknowledged it. `false` if the outbox is full: everything is sent anew later.
    pub fn push(&self, key: OutboxKey, frame: Frame<Downstream>) -> bool {
        let mut desk = lock(&self.desk);
        let taken = desk.outbox.push(key, frame).is_ok();
        if !taken && desk.lagging_ms.is_none() {
            desk.lagging_ms = Some(desk.link.now_ms());
        }
        let link = desk.link.clone();
        drop(desk);
        link.wake();
        taken
    }

    /// Puts an answer into the lane. `false` if too many wait there.
    pub fn answer(&self, answer: Answer) -> bool {
        let bytes = answer.bytes();
        let mut desk = lock(&self.desk);
        let room = desk.answers.is_empty() || desk.answers_bytes + bytes <= ANSWERS_BYTES_MAX;
        if !room || desk.answers.len() >= ANSWERS_MAX {
            return false;
        }
        desk.answers_bytes += bytes;
        desk.answers.push_back(answer);
        let link = desk.link.clone();
        drop(desk);
        link.wake();
        true
    }

    /// The next thing to send in this session; `None` when there is nothing, the window is full, or the session is not
    /// the live one.
    pub fn next(&self, session: SessionId, now_ms: u64) -> Option<Answer> {
        let mut desk = lock(&self.desk);
        if desk.link.session != session {
            return None;
        }
        if let Some(answer) = desk.answers.pop_front() {
            desk.answers_bytes -= answer.bytes();
            return Some(answer);
        }
        desk.outbox.next(now_ms).cloned().map(Answer::Frame)
    }

    /// The node has stored `parent`. The key it was sent under, if it was on its way in this session.
    pub fn acknowledged(&self, session: SessionId, parent: &MsgId) -> Option<OutboxKey> {
        let mut desk = lock(&self.desk);
        if desk.link.session == session { desk.outbox.acknowledged(parent) } else { None }
    }

    /// The node refuses `parent`: its key is silent until something new is pushed for it.
    pub fn refused(&self, session: SessionId, parent: &MsgId, reason: &str) -> Option<OutboxKey> {
        let mut desk = lock(&self.desk);
        if desk.link.session == session { desk.outbox.refused(parent, reason) } else { None }
    }

    fn tick(&self, now_ms: u64) -> bool {
        lock(&self.desk).outbox.tick(now_ms) > 0
    }

    /// Whether the outbox, once full, has room enough to be filled anew.
    fn caught_up(&self, now_ms: u64) -> bool {
        let mut desk = lock(&self.desk);
        let waited = desk.lagging_ms.is_some_and(|since| u128::from(now_ms.saturating_sub(since)) > RESYNC_EVERY.as_millis());
        let room = desk.outbox.len() <= Limits::default().keys_max / 2 && desk.outbox.bytes() <= Limits::default().bytes_max / 2;
        if waited && room {
            desk.lagging_ms = None;
        }
        waited && room
    }
}

impl Answer {
    fn bytes(&self) -> usize {
        match self {
            Answer::Frame(frame) => frame.bytes(),
            Answer::Envelope(envelope) => 256 + envelope.route.resource.len() + envelope.content.len(),
        }
    }
}

/// What a lock guards here is changed in single steps, so it is whole after a panic, too.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
