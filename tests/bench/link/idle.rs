//! What the real `skep-edge` at its default settings and its cloud say to each other when nothing happens.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use model::NodeName;

use crate::Outcome;
use crate::figures::{Figures, Goal};
use crate::hollow::{self, Cloud, Edge};

/// What is said at the beginning is over after so long.
const SETTLED_AFTER: Duration = Duration::from_secs(15);
/// Long enough for the slowest thing that repeats (statuses: a minute), several times.
const WATCHED_FOR: Duration = Duration::from_secs(320);
const DAY: f64 = 86_400.0;
const MB: f64 = 1e6;

/// Bytes that passed, to the cloud and from it.
#[derive(Debug, Default)]
struct Passed {
    up: AtomicU64,
    down: AtomicU64,
    connections: AtomicU64,
}

impl Passed {
    fn read(&self) -> [u64; 2] {
        [self.up.load(Ordering::Relaxed), self.down.load(Ordering::Relaxed)]
    }
}

/// An edge behind a forwarder that counts; it is left alone.
pub struct Idle {
    edge: Edge,
    passed: Arc<Passed>,
    began: Instant,
}

impl Idle {
    /// Starts the edge.
    ///
    /// # Errors
    /// It does not connect.
    pub fn begin(cloud: &Cloud) -> Result<Self, String> {
        let passed = Arc::new(Passed::default());
        let port = forward(cloud.hub_port(), passed.clone()).map_err(|error| format!("no forwarder: {error}"))?;
        let edge = Edge::start(&NodeName::new("idle").expect("a valid name"), &cloud.authority()?, port)?;
        Ok(Self { edge, passed, began: Instant::now() })
    }

    /// Waits until it has been quiet, and counts.
    ///
    /// # Errors
    /// The edge ended, or lost its connection.
    pub fn finish(mut self, figures: &mut Figures) -> Outcome {
        hollow::pause(SETTLED_AFTER.saturating_sub(self.began.elapsed()));
        let (before, began) = (self.passed.read(), Instant::now());
        hollow::pause(WATCHED_FOR);
        let (after, seconds) = (self.passed.read(), began.elapsed().as_secs_f64());
        self.edge.connected()?;
        if self.passed.connections.load(Ordering::Relaxed) != 1 {
            return Err(self.edge.with_log("the idle edge lost its connection"));
        }
        #[allow(clippy::cast_precision_loss, reason = "bytes of five minutes")]
        let [up, down] = [0, 1].map(|at| (after[at] - before[at]) as f64 / seconds * DAY / MB);
        figures.add("idle skep-edge: traffic a day", "MB", &[up + down]).goal(Goal::AtMost(5.0));
        figures.add("idle skep-edge: to the cloud", "MB", &[up]);
        figures.add("idle skep-edge: from the cloud", "MB", &[down]);
        Ok(())
    }
}

/// Forwards each connection to `port`; returns its own.
fn forward(port: u16, passed: Arc<Passed>) -> std::io::Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let own = listener.local_addr()?.port();
    std::thread::spawn(move || {
        for edge in listener.incoming().map_while(Result::ok) {
            passed.connections.fetch_add(1, Ordering::Relaxed);
            let Ok(cloud) = TcpStream::connect(("127.0.0.1", port)) else { continue };
            let (Ok(edge_too), Ok(cloud_too)) = (edge.try_clone(), cloud.try_clone()) else { continue };
            for (from, to, is_up) in [(edge, cloud, true), (cloud_too, edge_too, false)] {
                let passed = passed.clone();
                std::thread::spawn(move || pass(from, to, if is_up { &passed.up } else { &passed.down }));
            }
        }
    });
    Ok(own)
}

fn pass(mut from: TcpStream, mut to: TcpStream, count: &AtomicU64) {
    let _ = to.set_nodelay(true);
    let mut buffer = vec![0; 64 << 10];
    while let Ok(bytes @ 1..) = from.read(&mut buffer) {
        count.fetch_add(bytes as u64, Ordering::Relaxed);
        if to.write_all(&buffer[..bytes]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}
