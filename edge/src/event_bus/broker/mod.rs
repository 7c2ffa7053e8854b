//! The embedded MQTT broker (`mqtt.mode` 0 and 1) on a thread of its own.
//!
//! Protocol, sessions and routing are the library's; who comes in, and how much of each, is decided at our own
//! [door], because the library limits and names connections only after they have introduced themselves. The daemon itself
//! comes through none: it is [resident].
//!
//! It is no part of the EventBus actor: an actor that restarts disconnects no device. MQTT 3.1.1 and 5
//! on one port; topics with a leading `$hw` are routed like any other. If its accept loop ends unasked, the broker is
//! started again on the same port, with back-off.

mod access;
mod door;
mod entrances;
mod files;
mod gate;
mod limits;
mod resident;
mod retained;
mod slow;
mod tls;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use log::{error, info};
use tokio::sync::watch;

use super::credits::Credits;
use crate::backoff::Backoff;
pub use access::{PASSWORD_BYTES_MAX, check_name};
use door::{Entry, House};
pub use entrances::Entrances;
pub use files::FILE_BYTES_MAX;
pub use limits::PACKET_BYTES_MAX;
pub use resident::Resident;

/// Requests of all clients that may be on their way at once, where nobody says how much the mailboxes hold.
pub(super) const IN_HAND: usize = 768;

/// What the embedded broker needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where it listens (`mqtt.internal-server`); port 0 takes a free one.
    pub address: SocketAddr,
    /// Messages kept for one absent client with a lasting session (`mqtt.session-queue-size`).
    pub session_queue_size: usize,
}

/// Who is at home, who may come in, and how much of each.
#[derive(Clone, Debug)]
pub struct Guard {
    /// The daemon itself. The doors open when it has subscribed: what a client published earlier would be acknowledged and
    /// reach no module. `None`: nobody is at home.
    pub resident: Option<Resident>,
    /// What clients may have on its way to the modules.
    pub credits: Arc<Credits>,
    /// The entrances, and who may come in through which.
    pub entrances: Arc<Entrances>,
}

impl Default for Guard {
    fn default() -> Self {
        Self { resident: None, credits: Credits::new(IN_HAND), entrances: Arc::default() }
    }
}

/// Why the embedded broker did not start.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// Somebody else listens there, or the address is not one of this machine.
    #[error(
        "the embedded MQTT broker cannot listen on {address}: stop the program that uses this port, \
         set `{key}` to a free address, or set `mqtt.mode` to 2 to use an external broker"
    )]
    Listen {
        /// The key of the configuration.
        key: &'static str,
        /// Its address.
        address: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
    /// The operating system gave no thread, or the library refused its configuration.
    #[error("the embedded MQTT broker on {address} did not start: {reason}")]
    Start {
        /// The address of the configuration.
        address: SocketAddr,
        /// What the library or the operating system said.
        reason: String,
    },
}

/// The running broker. Dropping it stops the broker and waits for its thread, two seconds at most.
#[derive(Debug)]
pub struct Broker {
    address: SocketAddr,
    secure: Option<SocketAddr>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Broker {
    /// Starts a broker that lets everybody in.
    #[cfg(test)]
    pub fn start(config: Config) -> Result<Self, BrokerError> {
        Self::open(config, Guard::default())
    }

    /// Starts the broker and returns when it accepts connections.
    ///
    /// # Errors
    /// `Listen` if an address cannot be had; `Start` for anything else. Nothing keeps running then.
    pub fn open(config: Config, guard: Guard) -> Result<Self, BrokerError> {
        let open = |entry, key, address: SocketAddr| -> Result<_, BrokerError> {
            let bound = TcpListener::bind(address).and_then(|listener| {
                listener.set_nonblocking(true)?;
                Ok((listener.local_addr()?, listener))
            });
            let (bound, listener) = bound.map_err(|source| BrokerError::Listen { key, address, source })?;
            Ok((bound, (entry, listener)))
        };
        let (address, plain) = open(Entry::Plain, "mqtt.internal-server", config.address)?;
        let mut listeners = vec![plain];
        let mut secure = None;
        if let Some(tls) = &guard.entrances.secure {
            let (bound, listener) = open(Entry::Tls, "mqtt.internal-tls-server", tls.address)?;
            secure = Some(bound);
            listeners.push(listener);
        }
        let (stop, stopped) = watch::channel(false);
        let (ready, started) = mpsc::sync_channel(1);
        let failed = |reason: String| BrokerError::Start { address, reason };
        let plan = Plan { address, session_queue_size: config.session_queue_size, guard, listeners };
        let thread = std::thread::Builder::new()
            .name("mqtt-broker".into())
            .spawn(move || run(&plan, stopped, &ready))
            .map_err(|error| failed(error.to_string()))?;
        match started.recv() {
            Ok(Ok(())) => Ok(Self { address, secure, stop, thread: Some(thread) }),
            Ok(Err(reason)) => Err(failed(reason)),
            Err(_) => Err(failed("its thread ended at once".into())),
        }
    }

    /// The address it listens on, with the port that was taken.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address of the TLS listener, if there is one.
    pub fn tls_address(&self) -> Option<SocketAddr> {
        self.secure
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            error!(address:% = self.address; "the embedded MQTT broker's thread had panicked");
        }
    }
}

/// What each life of the broker begins with.
struct Plan {
    address: SocketAddr,
    session_queue_size: usize,
    guard: Guard,
    /// Bound once, so that no life finds its port taken by another program.
    listeners: Vec<(Entry, TcpListener)>,
}

fn run(plan: &Plan, mut stopped: watch::Receiver<bool>, ready: &mpsc::SyncSender<Result<(), String>>) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = ready.send(Err(error.to_string()));
            return;
        }
    };
    let mut backoff = Backoff::default();
    let mut accepted = false;
    loop {
        let wait = backoff.next_wait(&mut rand::rng());
        let life = AssertUnwindSafe(|| {
            runtime.block_on(async {
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    _ = stopped.wait_for(|stopped| *stopped) => return Ok(()),
                }
                let (house, doors) = House::build(plan)?;
                info!(address:% = plan.address; "the embedded MQTT broker accepts connections");
                accepted = true;
                // Heard during start only; in a later life nobody listens any more.
                let _ = ready.try_send(Ok(()));
                house.keep_open(doors, stopped.clone()).await;
                Ok(())
            })
        });
        let ended = catch_unwind(life).unwrap_or_else(|_| Err("it panicked; see the log above".to_owned()));
        if *stopped.borrow() {
            return;
        }
        let reason = match ended {
            Ok(()) => "its accept loop ended".to_owned(),
            Err(reason) => reason,
        };
        if !accepted {
            let _ = ready.try_send(Err(reason));
            return;
        }
        error!(address:% = plan.address, reason; "the embedded MQTT broker stopped unasked and is started again");
    }
}
