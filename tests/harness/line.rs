//! A line between two parties that can be made bad: cut, refused, half-open, slow, far.
//!
//! It forwards bytes, so what goes over it may be encrypted. `up` is the way from who connects to who listens, `down` the
//! way back.
//!
//! Invariant: nothing is lost on a connection that stands, as TCP loses nothing: what meets a black hole waits in front of it.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::wait::eventually;

/// Largest piece that is read at a time.
const PIECE_BYTES_MAX: usize = 16 << 10;
/// Pieces that are on their way at a time, in each direction of each connection.
const PIECES_MAX: usize = 64;
/// What the kernel holds between the line and who listens: as little as a radio link does, so that a slow reader is felt.
const SOCKET_BYTES: u32 = 64 << 10;

/// What is wrong with one direction; nothing by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Way {
    /// How long each byte is on its way.
    pub delay: Duration,
    /// How many bytes pass in a second; 0: as many as come.
    pub bytes_per_second: u32,
    /// The connection stands and nothing passes, not even its end.
    pub is_hole: bool,
}

/// What is wrong with a line; nothing by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fault {
    /// From who connects to who listens.
    pub up: Way,
    /// Back.
    pub down: Way,
}

impl Fault {
    /// Half-open in both directions.
    pub fn hole() -> Self {
        Self { up: Way { is_hole: true, ..Way::default() }, down: Way { is_hole: true, ..Way::default() } }
    }
}

/// Who may connect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Door {
    /// Everybody.
    #[default]
    Open,
    /// Who connects is hung up on.
    Cut,
    /// Nobody listens.
    Closed,
}

#[derive(Clone, Copy, Debug, Default)]
struct Orders {
    fault: Fault,
    door: Door,
    to_port: u16,
    /// Connections of an earlier number end.
    cuts: u64,
    /// Counts the orders.
    number: u64,
}

/// A forwarder in this process, on a thread of its own that goes with it.
#[derive(Debug)]
pub struct Line {
    orders: watch::Sender<Orders>,
    done: Arc<Done>,
    port: u16,
    path: PathBuf,
}

/// What the thread has done, for orders that return when they are carried out.
#[derive(Debug, Default)]
struct Done {
    /// The last order that the listener has followed.
    followed: AtomicU64,
    /// Connections that stand.
    open: AtomicU64,
    /// Connections that were made.
    made: AtomicU64,
}

impl Line {
    /// Listens on a free TCP port of the loopback and forwards to `to_port`.
    ///
    /// # Panics
    /// When no port can be opened.
    pub fn tcp(to_port: u16) -> Self {
        Self::start(Orders { to_port, ..Orders::default() }, crate::names::port(), PathBuf::new(), PathBuf::new())
    }

    /// Listens on the Unix socket `at` and forwards to the Unix socket `to`.
    ///
    /// # Panics
    /// When the socket cannot be made.
    pub fn unix(at: &Path, to: &Path) -> Self {
        Self::start(Orders::default(), 0, at.to_owned(), to.to_owned())
    }

    fn start(first: Orders, port: u16, path: PathBuf, to: PathBuf) -> Self {
        let (orders, followed) = watch::channel(Orders { number: 1, ..first });
        let done = Arc::new(Done::default());
        let inside = done.clone();
        let at = path.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a thread can wait");
            runtime.block_on(async move {
                let over = followed.clone();
                tokio::select! {
                    () = async { if port == 0 { listen_unix(&at, &to, followed, &inside).await } else { listen_tcp(port, followed, &inside).await } } => {}
                    () = gone(over) => {}
                }
            });
        });
        let line = Self { orders, done, port, path };
        line.wait();
        line
    }

    /// The TCP port to connect to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The Unix socket to connect to.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many connections were made so far.
    pub fn made(&self) -> u64 {
        self.done.made.load(Ordering::SeqCst)
    }

    /// Cuts: open connections are closed, and new ones end at once.
    pub fn cut(&self) {
        self.order(|orders| {
            orders.door = Door::Cut;
            orders.cuts += 1;
        });
    }

    /// Cuts open connections once; new ones pass.
    pub fn snap(&self) {
        self.order(|orders| orders.cuts += 1);
    }

    /// Cuts, and nobody listens any more: who connects is told so by the system.
    pub fn refuse(&self) {
        self.order(|orders| {
            orders.door = Door::Closed;
            orders.cuts += 1;
        });
    }

    /// Makes connections that stand, and new ones, bad in this way.
    pub fn set(&self, fault: Fault) {
        self.order(|orders| orders.fault = fault);
    }

    /// Leads new connections to another port; open ones stay.
    pub fn lead_to(&self, port: u16) {
        self.order(|orders| orders.to_port = port);
    }

    /// Mends everything: what waits goes on, and new connections pass.
    pub fn mend(&self) {
        self.order(|orders| {
            orders.door = Door::Open;
            orders.fault = Fault::default();
        });
    }

    fn order(&self, change: impl FnOnce(&mut Orders)) {
        let before = self.orders.borrow().cuts;
        self.orders.send_modify(|orders| {
            change(orders);
            orders.number += 1;
        });
        self.wait();
        if self.orders.borrow().cuts != before && self.orders.borrow().door != Door::Open {
            eventually("the line's connections are closed", Duration::from_secs(10), || match self.done.open.load(Ordering::SeqCst) {
                0 => Ok(()),
                open => Err(format!("{open} are open")),
            });
        }
    }

    fn wait(&self) {
        let number = self.orders.borrow().number;
        eventually("the line follows", Duration::from_secs(10), || match self.done.followed.load(Ordering::SeqCst) {
            followed if followed >= number => Ok(()),
            followed => Err(format!("order {followed} of {number}; is port {} taken?", self.port)),
        });
    }
}

async fn gone(mut orders: watch::Receiver<Orders>) {
    while orders.changed().await.is_ok() {}
}

/// Accepts until the line is dropped. A port that is closed is let go, and bound again when it is opened.
async fn listen_tcp(port: u16, mut orders: watch::Receiver<Orders>, done: &Arc<Done>) {
    let mut connections = JoinSet::new();
    loop {
        let now = *orders.borrow_and_update();
        if now.door == Door::Closed {
            done.followed.store(now.number, Ordering::SeqCst);
            if orders.changed().await.is_err() {
                return;
            }
            continue;
        }
        let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await else {
            sleep(Duration::from_millis(50)).await;
            continue;
        };
        while orders.borrow().door != Door::Closed {
            done.followed.store(orders.borrow_and_update().number, Ordering::SeqCst);
            tokio::select! {
                biased;
                changed = orders.changed() => if changed.is_err() { return },
                accepted = listener.accept() => {
                    let (Ok((from, _)), now) = (accepted, *orders.borrow()) else { continue };
                    let _ = from.set_nodelay(true);
                    if now.door == Door::Open {
                        connections.spawn(carry(from, connect(now.to_port), orders.clone(), now.cuts, done.clone()));
                    }
                }
            }
        }
    }
}

async fn listen_unix(at: &Path, to: &Path, mut orders: watch::Receiver<Orders>, done: &Arc<Done>) {
    let listener = UnixListener::bind(at).expect("the test's directory takes a socket");
    let mut connections = JoinSet::new();
    loop {
        done.followed.store(orders.borrow_and_update().number, Ordering::SeqCst);
        tokio::select! {
            biased;
            changed = orders.changed() => if changed.is_err() { return },
            accepted = listener.accept() => {
                let (Ok((from, _)), now) = (accepted, *orders.borrow()) else { continue };
                if now.door == Door::Open {
                    let to = to.to_owned();
                    connections.spawn(carry(from, async move { UnixStream::connect(to).await }, orders.clone(), now.cuts, done.clone()));
                }
            }
        }
    }
}

async fn connect(port: u16) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(SOCKET_BYTES)?;
    let stream = socket.connect((Ipv4Addr::LOCALHOST, port).into()).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Carries one connection until one side ends it, or it is cut.
async fn carry<S: AsyncRead + AsyncWrite>(
    from: S,
    to: impl Future<Output = std::io::Result<S>>,
    orders: watch::Receiver<Orders>,
    cuts: u64,
    done: Arc<Done>,
) {
    done.made.fetch_add(1, Ordering::SeqCst);
    done.open.fetch_add(1, Ordering::SeqCst);
    let mut cut = orders.clone();
    tokio::select! {
        _ = cut.wait_for(|orders| orders.cuts != cuts) => {}
        () = async {
            let Ok(to) = to.await else { return };
            let ((from_read, from_write), (to_read, to_write)) = (tokio::io::split(from), tokio::io::split(to));
            // Whole when either way has ended, because a peer that has gone away will not come back on this connection.
            tokio::select! {
                () = pump(from_read, to_write, orders.clone(), |fault| fault.up) => {}
                () = pump(to_read, from_write, orders.clone(), |fault| fault.down) => {}
            }
        } => {}
    }
    // Both streams are dropped by now.
    done.open.fetch_sub(1, Ordering::SeqCst);
}

/// Forwards one direction until it ends.
async fn pump(mut read: impl AsyncRead + Unpin, mut write: impl AsyncWrite + Unpin, orders: watch::Receiver<Orders>, way: fn(&Fault) -> Way) {
    let (pieces, mut arrived) = mpsc::channel::<(Instant, Vec<u8>)>(PIECES_MAX);
    let ahead = orders.clone();
    let reader = async move {
        let mut buffer = vec![0; PIECE_BYTES_MAX];
        loop {
            let bytes_per_second = way(&ahead.borrow().fault).bytes_per_second;
            // A slow way takes a tenth of a second's bytes at a time, and holds few of them.
            let most = if bytes_per_second == 0 { PIECE_BYTES_MAX } else { (bytes_per_second as usize / 10).clamp(1, PIECE_BYTES_MAX) };
            // An end is a piece without bytes: it, too, is late and meets holes.
            let count = read.read(&mut buffer[..most]).await.unwrap_or(0);
            // As the line is now, not as it was when this piece began to be waited for.
            let delay = way(&ahead.borrow().fault).delay;
            if pieces.send((Instant::now() + delay, buffer[..count].to_vec())).await.is_err() || count == 0 {
                break;
            }
        }
    };
    let mut behind = orders;
    let writer = async move {
        while let Some((due, bytes)) = arrived.recv().await {
            sleep_until(due).await;
            let rate = way(&behind.borrow().fault).bytes_per_second;
            if rate > 0 {
                sleep(Duration::from_secs_f64(bytes.len() as f64 / f64::from(rate))).await;
            }
            if behind.wait_for(|orders| !way(&orders.fault).is_hole).await.is_err() || bytes.is_empty() || write.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = writer => {}
        // It ends before the writer has written what it read.
        () = async { reader.await; std::future::pending().await } => {}
    }
}
