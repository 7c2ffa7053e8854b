//! The connected nodes: what each must still be told, and its one live session.
//!
//! A node is here while it is connected and no longer. What it missed meanwhile is not kept: at its next connection the
//! controllers send what it lacks, from the API. The rules are [`CloudLink`]'s, which is pure.

use std::collections::{HashMap, HashSet};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use model::{Clock as _, NodeName, SystemClock};
use wire::hub::{Downstream, Frame, MsgId, OutboxKey, Upstream};
use wire::link::{Answer, Capabilities, CloudLink, Heard, Held, Pushed, SessionId, Ticked};

use super::link::Link;
use super::page::Backlog;
use super::state::{End, verdict};
use super::totals::Counters;

/// A session that was told to end has so long before its socket is closed under it.
const GRACE: Duration = Duration::from_secs(2);
/// All connected nodes.
#[derive(Debug)]
pub struct Nodes {
    began: Instant,
    map: Mutex<HashMap<NodeName, Arc<Node>>>,
    /// Sessions that were told to end.
    condemned: Mutex<Vec<Arc<Link>>>,
    news: [Mutex<News>; Controller::ALL.len()],
    gaps: Mutex<Gaps>,
    next_session: AtomicU64,
    pub(super) counters: Counters,
}

/// Whom it is told that a node came or went: each by itself, so that one with much to do holds back none of the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Controller {
    Downstream,
    Upstream,
    Devices,
}

impl Controller {
    pub const ALL: [Self; 3] = [Self::Downstream, Self::Upstream, Self::Devices];
}

/// What a controller has been told, and which nodes may differ from it.
#[derive(Debug, Default)]
struct News {
    changed: HashSet<NodeName>,
    told: HashMap<NodeName, SessionId>,
}

/// Nodes that lack something.
#[derive(Debug, Default)]
struct Gaps {
    /// To be brought into step.
    due: HashSet<NodeName>,
    /// Their outbox had run over.
    overrun: HashSet<NodeName>,
}

/// What a controller is to be told about a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Connected(SessionId),
    Disconnected,
}

/// One connected node.
#[derive(Debug)]
pub struct Node {
    desk: Mutex<Desk>,
}

#[derive(Debug)]
struct Desk {
    link: Arc<Link>,
    rules: CloudLink,
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
            news: Default::default(),
            gaps: Mutex::default(),
            next_session: AtomicU64::new(1),
            counters: Counters::default(),
        }
    }
}

impl Nodes {
    /// Makes a session for `name` the live one. An older one is told to end and can change nothing any more; what was on
    /// its way in it is sent again.
    ///
    /// `capabilities` are what both sides of its connection can.
    pub fn attach(
        &self,
        name: &NodeName,
        socket: Option<Arc<TcpStream>>,
        limit: usize,
        capabilities: Capabilities,
    ) -> Result<(Arc<Node>, Arc<Link>), TooMany> {
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
                let older = node.replace(link.clone(), capabilities);
                self.counters.replaced.fetch_add(1, Ordering::Relaxed);
                self.condemn(older, End::Replaced);
                node
            }
            None => {
                let node = Arc::new(Node::new(link.clone(), capabilities));
                map.insert(name.clone(), node.clone());
                node
            }
        };
        drop(map);
        self.counters.sessions.fetch_add(1, Ordering::Relaxed);
        self.note_change(name);
        if !capabilities.digest {
            self.note_due(name);
        }
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
            let Ticked { resend, ask, due, again } = node.tick(now_ms);
            if ask {
                node.ask_what_it_holds();
            }
            if again {
                lock(&self.gaps).overrun.insert(link.node.clone());
            }
            if due {
                self.note_due(&link.node);
            }
            if resend {
                link.wake();
            }
        }
        lock(&self.condemned).retain(|link| {
            if !link.is_gone() && u128::from(now_ms.saturating_sub(link.ended_ms())) > GRACE.as_millis() {
                link.close_socket();
            }
            !link.is_gone()
        });
    }

    /// Nodes about which a controller may have to be told.
    pub fn changed(&self, controller: Controller) -> Vec<NodeName> {
        lock(self.news_of(controller)).changed.iter().cloned().collect()
    }

    /// What a controller is to be told about `name`, by the difference between what is and what it was told.
    pub fn change_of(&self, controller: Controller, name: &NodeName) -> Option<Change> {
        let current = self.get(name).map(|node| node.link().session);
        let told = lock(self.news_of(controller)).told.get(name).copied();
        match (current, told) {
            (Some(session), told) if told != Some(session) => Some(Change::Connected(session)),
            (None, Some(_)) => Some(Change::Disconnected),
            _ => None,
        }
    }

    /// A controller has been told, or need not be.
    pub fn told(&self, controller: Controller, name: &NodeName, change: Option<Change>) {
        let mut news = lock(self.news_of(controller));
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

    fn news_of(&self, controller: Controller) -> &Mutex<News> {
        &self.news[controller as usize]
    }

    fn note_change(&self, name: &NodeName) {
        for news in &self.news {
            lock(news).changed.insert(name.clone());
        }
    }

    /// The controllers are to bring the node into step.
    pub fn note_due(&self, name: &NodeName) {
        lock(&self.gaps).due.insert(name.clone());
    }

    /// Nodes that the controllers may have to bring into step.
    pub fn due(&self) -> Vec<NodeName> {
        lock(&self.gaps).due.iter().cloned().collect()
    }

    /// Who knew what the nodes have been told knows it no more: each is asked what it holds, or is sent everything.
    pub fn out_of_step(&self) {
        let nodes: Vec<Arc<Node>> = lock(&self.map).values().cloned().collect();
        for node in nodes {
            if node.out_of_step() {
                node.ask_what_it_holds();
            } else {
                self.note_due(&node.link().node);
            }
        }
    }

    /// Nodes whose outbox had run over and has room again.
    pub fn overrun(&self) -> Vec<NodeName> {
        lock(&self.gaps).overrun.iter().cloned().collect()
    }

    /// The controllers have been told of that.
    pub fn overrun_told(&self, name: &NodeName) {
        lock(&self.gaps).overrun.remove(name);
    }

    /// What the controllers are to send `name`; they have been told afterwards.
    pub fn take_due(&self, name: &NodeName) -> Option<Held> {
        lock(&self.gaps).due.remove(name);
        self.get(name)?.take_due()
    }

    /// Milliseconds since these nodes were made.
    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// How many nodes are connected, and what they all have to take.
    pub(super) fn backlogs(&self) -> (usize, wire::link::Backlog) {
        let nodes: Vec<Arc<Node>> = lock(&self.map).values().cloned().collect();
        let sum = nodes.iter().fold(wire::link::Backlog::default(), |sum, node| {
            let backlog = lock(&node.desk).rules.backlog();
            wire::link::Backlog {
                waiting: sum.waiting + backlog.waiting,
                parked: sum.parked + backlog.parked,
                bytes: sum.bytes + backlog.bytes,
                answers: sum.answers + backlog.answers,
                lagging: sum.lagging || backlog.lagging,
            }
        });
        (nodes.len(), sum)
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
}

impl Node {
    fn new(link: Arc<Link>, capabilities: Capabilities) -> Self {
        let rules = CloudLink::new(link.session, capabilities, link.now_ms());
        Self { desk: Mutex::new(Desk { link, rules }) }
    }

    /// Puts a newer session in place and returns the older.
    fn replace(&self, link: Arc<Link>, capabilities: Capabilities) -> Arc<Link> {
        let mut desk = lock(&self.desk);
        desk.rules.up(link.session, capabilities, link.now_ms());
        std::mem::replace(&mut desk.link, link)
    }

    fn backlog(&self, node: NodeName) -> Backlog {
        let desk = lock(&self.desk);
        let wire::link::Backlog { waiting, parked, bytes, answers, lagging } = desk.rules.backlog();
        Backlog { node: node.to_string(), session: desk.link.session, waiting, parked, bytes, answers, lagging }
    }

    fn is_live(&self, session: SessionId) -> bool {
        lock(&self.desk).rules.session() == session
    }

    /// Its live session.
    pub fn link(&self) -> Arc<Link> {
        lock(&self.desk).link.clone()
    }

    /// Keeps a frame until the node has acknowledged it, if there is room.
    pub fn push(&self, key: OutboxKey, frame: Frame<Downstream>) -> Pushed {
        let mut desk = lock(&self.desk);
        let now_ms = desk.link.now_ms();
        let pushed = desk.rules.push(key, frame, now_ms);
        let link = desk.link.clone();
        drop(desk);
        link.wake();
        pushed
    }

    /// Puts an answer into the lane. `false` if too many wait there.
    pub fn answer(&self, answer: Answer) -> bool {
        let mut desk = lock(&self.desk);
        let taken = desk.rules.answer(answer);
        let link = desk.link.clone();
        drop(desk);
        if taken {
            link.wake();
        }
        taken
    }

    /// The next thing to send in this session; `None` when there is nothing, the window is full, or the session is not
    /// the live one.
    pub fn next(&self, session: SessionId, now_ms: u64) -> Option<Answer> {
        lock(&self.desk).rules.next(session, now_ms)
    }

    /// The node said something in this session.
    pub fn heard(&self, session: SessionId, frame: &Frame<Upstream>, now_ms: u64) -> Heard {
        lock(&self.desk).rules.heard(session, frame, now_ms)
    }

    /// `parent` cannot be sent: its key is silent until something new is pushed for it.
    pub fn unsendable(&self, parent: &MsgId, reason: &str) {
        lock(&self.desk).rules.refused(parent, reason);
    }

    fn out_of_step(&self) -> bool {
        let mut desk = lock(&self.desk);
        let now_ms = desk.link.now_ms();
        desk.rules.out_of_step(now_ms)
    }

    /// If there is no room among the answers everything is sent instead, a little later.
    fn ask_what_it_holds(&self) {
        self.answer(Answer::Frame(Frame::new(MsgId::random(), SystemClock.now(), Downstream::HeldGet)));
    }

    fn tick(&self, now_ms: u64) -> Ticked {
        lock(&self.desk).rules.tick(now_ms)
    }

    fn take_due(&self) -> Option<Held> {
        lock(&self.desk).rules.take_due()
    }
}

/// What a lock guards here is changed in single steps, so it is whole after a panic, too.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
