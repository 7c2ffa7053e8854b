//! Scenario `page`: the admin page of a process with twelve actors, one of them blocked and one flooded by two senders.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use actix::{Actor, Context, Handler};
use actix_rt::System;
use actor::{ChildSpec, Handle, Lease, Mail, Policy, Supervisor};
use admin::{Access, AdminConfig, serve};

use crate::Outcome;
use crate::figures::{Figures, Goal, quantile};

const RUNS: usize = 9;
/// Requests per run and path; p99 has ten above it.
const REQUESTS: usize = 1000;
const CAPACITY: usize = 1024;
const IDLE: [&str; 10] = ["idle-0", "idle-1", "idle-2", "idle-3", "idle-4", "idle-5", "idle-6", "idle-7", "idle-8", "idle-9"];
/// Body above this size is not a page.
const BODY_BYTES_MAX: usize = 4 << 20;
const DEADLINE: Duration = Duration::from_secs(10);

enum Work {
    /// Blocks the actor's thread until the other end is dropped.
    Block(Mutex<Receiver<()>>),
    Count(u64),
}
impl Mail for Work {
    fn kind(&self) -> &'static str {
        match self {
            Self::Block(_) => "Block",
            Self::Count(_) => "Count",
        }
    }
}

#[derive(Default)]
struct Worker {
    sum: u64,
}
impl Actor for Worker {
    type Context = Context<Self>;
}
impl Handler<Lease<Work>> for Worker {
    type Result = ();
    fn handle(&mut self, lease: Lease<Work>, _: &mut Self::Context) {
        lease.each(|_, work| match work {
            // Ends by the other end's drop: an error that is the signal.
            Work::Block(released) => drop(released.lock().unwrap_or_else(PoisonError::into_inner).recv()),
            Work::Count(number) => self.sum = self.sum.wrapping_add(*number),
        });
    }
}

/// Measures the page.
///
/// # Errors
/// An answer other than 200, an actor that is missing on the page, or a flood that did not flow.
pub fn run(figures: &mut Figures) -> Outcome {
    System::new().block_on(async {
        let (blocked, flooded) = (actor::mailbox("blocked", CAPACITY), actor::mailbox("flooded", CAPACITY));
        let mut supervisor = Supervisor::new("bench", Policy::default())
            .child(ChildSpec::new(&blocked, Worker::default))
            .child(ChildSpec::new(&flooded, Worker::default));
        for name in IDLE {
            supervisor = supervisor.child(ChildSpec::new(&actor::mailbox(name, CAPACITY), Worker::default));
        }
        let running = supervisor.start(|why| panic!("{why}"));
        let (release, released) = channel();
        blocked.try_send(Work::Block(Mutex::new(released))).map_err(|error| error.to_string())?;
        let server = serve(config(), running.clone()).map_err(|error| error.to_string())?;
        let address = server.addresses[0];

        let quiet = requests(address).await?;
        let flood = Flood::start(&flooded);
        let (before, began) = (flooded.observe().view().handled, Instant::now());
        let busy = requests(address).await?;
        let (handled, took) = (flooded.observe().view().handled - before, began.elapsed().as_secs_f64());
        flood.stop()?;
        let view = blocked.observe().view();
        drop(release);
        server.stop().await;
        running.shutdown().await;

        if view.in_hand != Some("Block") {
            return Err("the blocked actor was not blocked".to_owned());
        }
        if handled == 0 {
            return Err("the flooded actor handled nothing".to_owned());
        }
        for (title, times, goal) in [("blocked", quiet, None), ("blocked and flooded", busy, Some(Goal::AtMost(20.0)))] {
            for (path, runs) in PATHS.iter().zip(times) {
                for (name, of) in [("p50", 0.5), ("p99", 0.99), ("max", 1.0)] {
                    let values: Vec<f64> = runs.iter().map(|run| quantile(run, of)).collect();
                    let figure = figures.add(format!("{title}: GET {path} {name}"), "ms", &values);
                    if let Some(goal) = goal.filter(|_| name == "p99") {
                        figure.goal(goal);
                    }
                }
            }
        }
        #[allow(clippy::cast_precision_loss, reason = "a count below 2^52")]
        figures.add("the flood meanwhile", "messages/s", &[handled as f64 / took]);
        Ok(())
    })
}

fn config() -> AdminConfig {
    AdminConfig {
        listen: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
        title: "bench".to_owned(),
        prefix: "skep_bench",
        extra: Arc::new(Vec::new),
        read_only: Vec::new(),
        hosts: Vec::new(),
        access: Access::Loopback,
        checks: Arc::new(Vec::new),
        fault_injection: false,
        log: None,
        routes: |_| {},
        data: Arc::new(|_| {}),
    }
}

/// Two threads that send as fast as there is room.
struct Flood {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Outcome>>,
}

impl Flood {
    fn start(handle: &Handle<Work>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..2).map(|_| {
            let (handle, stop) = (handle.clone(), stop.clone());
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
                runtime.block_on(async {
                    let mut number = 0;
                    while !stop.load(Ordering::Relaxed) {
                        number += 1;
                        handle.send(Work::Count(number)).await.map_err(|error| error.to_string())?;
                    }
                    Ok(())
                })
            })
        });
        Self { threads: threads.collect(), stop }
    }

    fn stop(self) -> Outcome {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| "a sender died".to_owned())?)
    }
}

const PATHS: [&str; 2] = ["/", "/api/actors"];

/// Latencies in ms: per path, per run, per request.
type Latencies = [Vec<Vec<f64>>; PATHS.len()];

/// Asks for both paths in turn over one connection, from a thread that does nothing else.
async fn requests(address: SocketAddr) -> Result<Latencies, String> {
    let ask = move || {
        let mut browser = Browser::connect(address)?;
        let mut latencies = Latencies::default();
        for _ in 0..RUNS {
            let mut run = [Vec::with_capacity(REQUESTS), Vec::with_capacity(REQUESTS)];
            for _ in 0..REQUESTS {
                for (path, times) in PATHS.iter().zip(&mut run) {
                    let began = Instant::now();
                    let body = browser.get(path)?;
                    times.push(began.elapsed().as_secs_f64() * 1e3);
                    if *path != "/" && !IDLE.iter().chain(&["blocked", "flooded"]).all(|name| body.contains(&format!("\"{name}\""))) {
                        return Err(format!("{path} does not show every actor: {body}"));
                    }
                }
            }
            for (all, times) in latencies.iter_mut().zip(run) {
                all.push(times);
            }
        }
        Ok(latencies)
    };
    actix_rt::task::spawn_blocking(ask).await.map_err(|error| error.to_string())?
}

/// One keep-alive connection.
struct Browser {
    stream: BufReader<TcpStream>,
    host: SocketAddr,
}

impl Browser {
    fn connect(host: SocketAddr) -> Result<Self, String> {
        let connect = || {
            let stream = TcpStream::connect(host)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(DEADLINE))?;
            Ok(BufReader::new(stream))
        };
        Ok(Self { stream: connect().map_err(|error: std::io::Error| format!("{host}: {error}"))?, host })
    }

    /// The body of `GET path`, which must have a length.
    fn get(&mut self, path: &str) -> Result<String, String> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.host);
        let answer = self.stream.get_mut().write_all(request.as_bytes()).and_then(|()| self.answer());
        let (head, body) = answer.map_err(|error| format!("GET {path}: {error}"))?;
        if !head.starts_with("HTTP/1.1 200 ") || body.is_empty() {
            return Err(format!("GET {path} was answered by {head}{body}"));
        }
        Ok(body)
    }

    fn answer(&mut self) -> std::io::Result<(String, String)> {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if self.stream.read_line(&mut head)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
        let length = head.lines().filter_map(|line| line.split_once(':')).find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
        let length = length.and_then(|(_, value)| value.trim().parse().ok()).filter(|length| *length <= BODY_BYTES_MAX);
        let mut body = vec![0; length.ok_or(std::io::ErrorKind::InvalidData)?];
        self.stream.read_exact(&mut body)?;
        Ok((head, String::from_utf8_lossy(&body).into_owned()))
    }
}
