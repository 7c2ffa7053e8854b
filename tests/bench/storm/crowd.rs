//! All hollow nodes: threads that carry them, and what is seen of each.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use model::{NodeName, ResourceKind};
use tokio::sync::watch;
use wire::hub::{Downstream, Frame};

use crate::hollow::{self, Authority, Greeting, Manner, Node, Sight};

/// Each node has to be sent two objects: the ConfigMap, and the pod that needs it. A bit for each.
const CONFIG_MAP: u64 = 1;
const POD: u64 = 2;
/// Between two looks at the whole crowd.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Faults that are kept.
const FAULTS_MAX: usize = 100;

/// Name of a node and of its pod.
pub fn name(index: usize) -> String {
    format!("hollow-{index}")
}

/// Name of the ConfigMap that all pods need.
pub const SHARED: &str = "shared";

/// When a node's present session came so far, in µs of the crowd's clock; 0: not yet.
#[derive(Debug, Default)]
struct Marks {
    connected: AtomicU64,
    /// Bits of what came, and of what has been acknowledged.
    came: AtomicU64,
    acknowledged: AtomicU64,
    in_sync: AtomicU64,
    greeted: AtomicU64,
}

/// How far nodes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The session stands.
    Connected,
    /// The objects have been acknowledged.
    InSync,
    /// Registration, status and the question for devices have been answered.
    Greeted,
}

/// What is seen of all nodes.
pub struct Seen {
    began: Instant,
    marks: Vec<Marks>,
    sessions: AtomicU64,
    failures: AtomicU64,
    objects: AtomicU64,
    reasons: Mutex<BTreeMap<String, u64>>,
    wrong: Mutex<Vec<String>>,
}

impl Seen {
    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX).max(1)
    }

    fn mark(&self, node: usize, stage: Stage) -> &AtomicU64 {
        let marks = &self.marks[node];
        match stage {
            Stage::Connected => &marks.connected,
            Stage::InSync => &marks.in_sync,
            Stage::Greeted => &marks.greeted,
        }
    }

    fn forget(&self, node: usize) {
        for stage in [Stage::Connected, Stage::InSync, Stage::Greeted] {
            self.mark(node, stage).store(0, Ordering::Relaxed);
        }
        self.marks[node].came.store(0, Ordering::Relaxed);
        self.marks[node].acknowledged.store(0, Ordering::Relaxed);
    }
}

impl Sight for Seen {
    fn connected(&self, node: usize) {
        self.forget(node);
        self.sessions.fetch_add(1, Ordering::Relaxed);
        self.marks[node].connected.store(self.now(), Ordering::Relaxed);
    }

    fn received(&self, node: usize, frame: &Frame<Downstream>) -> u64 {
        self.objects.fetch_add(1, Ordering::Relaxed);
        let bit = match &frame.body {
            Downstream::Object { key, .. } => match (key.kind, key.name.as_ref()) {
                (ResourceKind::ConfigMap, Some(of)) if of.as_str() == SHARED => CONFIG_MAP,
                (ResourceKind::Pod, Some(of)) if of.as_str() == name(node) => POD,
                _ => 0,
            },
            _ => 0,
        };
        let came = self.marks[node].came.fetch_or(bit, Ordering::Relaxed);
        if bit == 0 || (bit == POD && came & CONFIG_MAP == 0) {
            let after = if came & CONFIG_MAP == 0 { "before" } else { "after" };
            self.wrong(node, format!("node {} was sent {} {} {after} its ConfigMap", name(node), frame.body.kind(), frame.body.resource()));
        }
        bit
    }

    fn acknowledged(&self, node: usize, bit: u64) {
        let marks = &self.marks[node];
        let before = marks.acknowledged.fetch_or(bit, Ordering::Relaxed);
        if before != CONFIG_MAP | POD && before | bit == CONFIG_MAP | POD {
            marks.in_sync.store(self.now(), Ordering::Relaxed);
        }
    }

    fn greeted(&self, node: usize) {
        self.marks[node].greeted.store(self.now(), Ordering::Relaxed);
    }

    fn failed(&self, _: usize, why: &str) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        *self.reasons.lock().unwrap_or_else(PoisonError::into_inner).entry(why.to_owned()).or_default() += 1;
    }

    fn lost(&self, node: usize, _: &str) {
        self.forget(node);
    }

    fn wrong(&self, _: usize, what: String) {
        let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        if wrong.len() < FAULTS_MAX {
            wrong.push(what);
        }
    }
}

/// The nodes, as long as this lives.
pub struct Crowd {
    seen: Arc<Seen>,
    stop: watch::Sender<bool>,
    threads: Vec<JoinHandle<()>>,
}

impl Crowd {
    /// Lets `count` nodes connect, `rate` in a second.
    ///
    /// # Errors
    /// A certificate or a thread cannot be made.
    pub fn connect(count: usize, rate: u32, authority: &Authority, port: u16) -> Result<Self, String> {
        let marks = (0..count).map(|_| Marks::default()).collect();
        let [sessions, failures, objects] = std::array::from_fn(|_| AtomicU64::new(0));
        let seen = Arc::new(Seen { began: Instant::now(), marks, sessions, failures, objects, reasons: Mutex::default(), wrong: Mutex::default() });
        let manner = Arc::new(Manner { port, one_way: Duration::ZERO, greeting: Greeting::Whole });
        let (stop, stopped) = watch::channel(false);
        let threads = std::thread::available_parallelism().map_or(2, usize::from).min(8);
        let mut shares: Vec<Vec<(usize, Node)>> = (0..threads).map(|_| Vec::new()).collect();
        for index in 0..count {
            let name = NodeName::new(&name(index)).expect("a valid name");
            let tls = authority.of_node(&name)?;
            shares[index % threads].push((index, Node::new(index, name, tls)));
        }
        let began = tokio::time::Instant::now();
        let carry = |nodes: Vec<(usize, Node)>| {
            let (seen, manner, mut stopped) = (seen.clone(), manner.clone(), stopped.clone());
            let runtime = hollow::runtime()?;
            Ok::<_, String>(std::thread::spawn(move || {
                runtime.block_on(async move {
                    for (index, node) in nodes {
                        let at = began + Duration::from_secs(1) / rate * u32::try_from(index).unwrap_or(u32::MAX);
                        let (seen, manner) = (seen.clone(), manner.clone());
                        tokio::spawn(async move {
                            tokio::time::sleep_until(at).await;
                            node.run(manner, seen).await;
                        });
                    }
                    let _ = stopped.wait_for(|stopped| *stopped).await;
                });
            }))
        };
        let threads = shares.into_iter().map(carry).collect::<Result<_, _>>()?;
        Ok(Self { seen, stop, threads })
    }

    /// µs of the crowd's clock.
    pub fn now(&self) -> u64 {
        self.seen.now()
    }

    /// Waits until every node is at `stage`; for each how many seconds after `since` that was, in ascending order.
    ///
    /// # Errors
    /// A node was sent what it must not be sent, or is not there within `within`.
    pub fn wait_for(&self, stage: Stage, since: u64, within: Duration, mut must_run: impl FnMut() -> Result<(), String>) -> Result<Vec<f64>, String> {
        let began = Instant::now();
        loop {
            must_run()?;
            if let Some(wrong) = self.seen.wrong.lock().unwrap_or_else(PoisonError::into_inner).first() {
                return Err(wrong.clone());
            }
            let mut at: Vec<u64> = (0..self.seen.marks.len()).map(|node| self.seen.mark(node, stage).load(Ordering::Relaxed)).collect();
            let missing = at.iter().filter(|at| **at <= since).count();
            if missing == 0 {
                at.sort_unstable();
                #[allow(clippy::cast_precision_loss, reason = "µs of minutes")]
                return Ok(at.into_iter().map(|at| (at - since) as f64 / 1e6).collect());
            }
            if began.elapsed() > within {
                return Err(format!("{missing} of {} nodes are not {stage:?} within {} s", at.len(), within.as_secs()));
            }
            hollow::pause(LOOK_EVERY);
        }
    }

    /// Why attempts failed since this was asked last, and how often.
    pub fn reasons(&self) -> BTreeMap<String, u64> {
        std::mem::take(&mut *self.seen.reasons.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Sessions that began, attempts that failed, and objects that came, so far.
    pub fn counts(&self) -> [u64; 3] {
        [&self.seen.sessions, &self.seen.failures, &self.seen.objects].map(|count| count.load(Ordering::Relaxed))
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
