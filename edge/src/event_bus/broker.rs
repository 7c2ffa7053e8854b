//! The embedded MQTT broker (`mqtt.mode` 0 and 1) on a thread of its own.
//!
//! It is no part of the EventBus actor: an actor that restarts disconnects no device. MQTT 3.1.1 and 5
//! on one port; topics with a leading `$hw` are routed like any other. If the library's accept loop ends
//! unasked, the broker is started again on the same port, with back-off.

use std::cell::Cell;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use log::{error, info, warn};
use mqtt5::broker::{BrokerConfig, MqttBroker, StorageBackendType, StorageConfig};
use tokio::sync::watch;

use crate::backoff::Backoff;

/// Largest MQTT packet that the embedded broker takes. A larger one ends that client's connection.
pub const PACKET_BYTES_MAX: usize = 1 << 20;

/// Messages that may wait for one connected client before QoS 0 is dropped for it.
///
/// With the library's default (10,000) ten busy publishers lost two thirds of what they sent;
/// with this value nothing was lost at 136,000 messages/s. Memory is taken only while messages wait.
const CLIENT_CHANNEL_CAPACITY: usize = 100_000;
const CLIENTS_MAX: usize = 4_096;
const RETAINED_MAX: usize = 4_096;
const RETAINED_BYTES_MAX: usize = 256 << 10;
const SESSION_BYTES_MAX: usize = 8 << 20;
/// A session nobody returned to for a day is forgotten, with what was queued for it.
const SESSION_EXPIRY: Duration = Duration::from_secs(24 * 3600);
const TOPIC_ALIASES_MAX: u16 = 64;
/// How long connected clients get to take their goodbye when the daemon stops.
const STOP_WITHIN: Duration = Duration::from_secs(2);

/// What the embedded broker needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where it listens (`mqtt.internal-server`); port 0 takes a free one.
    pub address: SocketAddr,
    /// Messages kept for one absent client with a lasting session (`mqtt.session-queue-size`).
    pub session_queue_size: usize,
}

/// Why the embedded broker did not start.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// Somebody else listens there, or the address is not one of this machine.
    #[error(
        "the embedded MQTT broker cannot listen on {address}: stop the program that uses this port, \
         set `mqtt.internal-server` to a free address, or set `mqtt.mode` to 2 to use an external broker"
    )]
    Listen {
        /// The address of the configuration.
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
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Broker {
    /// Starts the broker and returns when it accepts connections.
    ///
    /// # Errors
    /// `Listen` if the address cannot be had; `Start` for anything else. Nothing keeps running then.
    pub fn start(config: Config) -> Result<Self, BrokerError> {
        if !config.address.ip().is_loopback() {
            warn!(
                address:% = config.address;
                "the embedded MQTT broker listens beyond this machine: whoever reaches it may publish for any device"
            );
        }
        // The library reports a failed bind as text only. The probe keeps the error's kind; the moment
        // between probe and bind is covered by `Start`.
        let address = TcpListener::bind(config.address)
            .and_then(|probe| probe.local_addr())
            .map_err(|source| BrokerError::Listen { address: config.address, source })?;
        let config = Config { address, ..config };
        let (stop, stopped) = watch::channel(false);
        let (ready, started) = mpsc::sync_channel(1);
        let failed = |reason: String| BrokerError::Start { address, reason };
        let thread = std::thread::Builder::new()
            .name("mqtt-broker".into())
            .spawn(move || run(&config, stopped, &ready))
            .map_err(|error| failed(error.to_string()))?;
        match started.recv() {
            Ok(Ok(())) => Ok(Self { address, stop, thread: Some(thread) }),
            Ok(Err(reason)) => Err(failed(reason)),
            Err(_) => Err(failed("its thread ended at once".into())),
        }
    }

    /// The address it listens on, with the port that was taken.
    pub fn address(&self) -> SocketAddr {
        self.address
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

fn run(config: &Config, mut stopped: watch::Receiver<bool>, ready: &mpsc::SyncSender<Result<(), String>>) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = ready.send(Err(error.to_string()));
            return;
        }
    };
    let mut backoff = Backoff::default();
    let accepted = Cell::new(false);
    loop {
        let wait = backoff.next_wait(&mut rand::rng());
        let life = AssertUnwindSafe(|| {
            runtime.block_on(async {
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    _ = stopped.wait_for(|stopped| *stopped) => return Ok(()),
                }
                serve(config, stopped.clone(), ready, &accepted).await
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
        if !accepted.get() {
            let _ = ready.try_send(Err(reason));
            return;
        }
        error!(address:% = config.address, reason; "the embedded MQTT broker stopped unasked and is started again");
    }
}

/// One life of the broker: from bind to the end of its accept loop.
async fn serve(
    config: &Config,
    mut stopped: watch::Receiver<bool>,
    ready: &mpsc::SyncSender<Result<(), String>>,
    accepted: &Cell<bool>,
) -> Result<(), String> {
    let mut broker = MqttBroker::with_config(library_config(config)).await.map_err(|error| error.to_string())?;
    let handle = broker.shutdown_handle();
    let mut accepting = broker.ready_receiver();
    let tell = async {
        if accepting.wait_for(|accepting| *accepting).await.is_ok() {
            info!(address:% = config.address; "the embedded MQTT broker accepts connections");
            accepted.set(true);
            // Heard during start only; in a later life nobody listens any more.
            let _ = ready.try_send(Ok(()));
        }
        let _ = stopped.wait_for(|stopped| *stopped).await;
        handle.shutdown();
        tokio::time::sleep(STOP_WITHIN).await;
    };
    tokio::select! {
        ended = broker.run() => ended.map_err(|error| error.to_string()),
        () = tell => Ok(()),
    }
}

fn library_config(config: &Config) -> BrokerConfig {
    let mut library = BrokerConfig {
        bind_addresses: vec![config.address],
        max_clients: CLIENTS_MAX,
        session_expiry_interval: SESSION_EXPIRY,
        max_packet_size: PACKET_BYTES_MAX,
        topic_alias_maximum: TOPIC_ALIASES_MAX,
        max_retained_messages: RETAINED_MAX,
        max_retained_message_size: RETAINED_BYTES_MAX,
        client_channel_capacity: CLIENT_CHANNEL_CAPACITY,
        sys_topics_enabled: false,
        // The default backend would write `./mqtt_storage`. In memory, lasting sessions and retained
        // messages live as long as the daemon; without any storage no absent client gets a queue.
        storage_config: StorageConfig {
            backend: StorageBackendType::Memory,
            enable_persistence: true,
            max_queued_messages_per_client: config.session_queue_size,
            max_queued_bytes_per_client: SESSION_BYTES_MAX,
            ..StorageConfig::default()
        },
        ..BrokerConfig::default()
    };
    library.auth_config.allow_anonymous = true;
    library.auth_config.rate_limit.enabled = false;
    library
}
