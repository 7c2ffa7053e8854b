//! Every limit of the embedded broker, with its number.

use std::time::Duration;

use mqtt5::broker::{BrokerConfig, StorageBackendType, StorageConfig};

/// Largest MQTT packet that the embedded broker takes. A larger one ends that client's connection.
pub const PACKET_BYTES_MAX: usize = 1 << 20;

/// Connections at once; a quarter of the file descriptors that this process may open, if
/// that is less.
pub(super) const CONNECTIONS_MAX: usize = 1024;
/// Of these, connections from one address that is not of this machine.
pub(super) const PER_ADDRESS_MAX: usize = 128;
/// Messages that may wait for the daemon itself. It is never behind by more than its clients' credits, but with topics that
/// the cloud has subscribed; then clients wait when so many places are left as there may be clients.
pub(super) const RESIDENT_LANE: usize = 8 * CONNECTIONS_MAX;

/// How long a connection may take to finish the TLS handshake. It then has ten seconds to introduce itself (the library's).
pub(super) const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);

/// Messages that may wait for one connected client before QoS 0 is dropped for it.
///
/// With the library's default (10,000) ten busy publishers lost two thirds of what they sent;
/// with this value nothing was lost at 136,000 messages/s. Memory is taken only while messages wait.
const CLIENT_CHANNEL_CAPACITY: usize = 100_000;
/// QoS 1 and 2 messages that one client may have sent without our acknowledgement.
const RECEIVE_MAX: u16 = 64;
/// Subscriptions of one client.
pub(super) const SUBSCRIPTIONS_MAX: usize = 256;
/// Longest topic, or filter, of a client, in bytes and in levels.
pub(super) const TOPIC_BYTES_MAX: usize = 1024;
pub(super) const TOPIC_LEVELS_MAX: usize = 32;
/// Largest last will.
pub(super) const WILL_BYTES_MAX: usize = 16 << 10;
/// Retained messages, and the largest of them: the library keeps each twice, so that they take 32 MiB at most. One above is
/// delivered and not retained (see `retained`).
pub(super) const RETAINED_MAX: usize = 1_024;
pub(super) const RETAINED_BYTES_MAX: usize = 16 << 10;
/// The same with last wills, of which each connection may add one: the library's limit.
pub(super) const RETAINED_WITH_WILLS_MAX: usize = RETAINED_MAX + CONNECTIONS_MAX;
/// Sessions, of connected clients and of those that are away; when there are so many, no new lasting one is begun.
pub(super) const SESSIONS_MAX: usize = CONNECTIONS_MAX + 256;
/// What waits for one client that is away, or behind with QoS 1 and 2; the oldest goes first.
pub(super) const SESSION_BYTES_MAX: usize = 1 << 20;
/// A session nobody returned to for a day is forgotten, with what was queued for it.
const SESSION_EXPIRY: Duration = Duration::from_secs(24 * 3600);
/// How often sessions are looked through for such.
pub(super) const SWEEP_EVERY: Duration = Duration::from_secs(60);
const TOPIC_ALIASES_MAX: u16 = 64;
/// How long connected clients get to take their goodbye when the daemon stops.
pub(super) const STOP_WITHIN: Duration = Duration::from_secs(2);
/// What was published last has so long to go out before that, to those who go on reading: looked at so often.
pub(super) const LAST_WORDS: Duration = Duration::from_secs(2);
pub(super) const LAST_WORDS_LOOK: Duration = Duration::from_millis(50);

/// What the library is told.
pub(super) fn library_config(session_queue_size: usize) -> BrokerConfig {
    let mut library = BrokerConfig {
        // The door listens, counts and asks who it is.
        bind_addresses: Vec::new(),
        session_expiry_interval: SESSION_EXPIRY,
        max_packet_size: PACKET_BYTES_MAX,
        topic_alias_maximum: TOPIC_ALIASES_MAX,
        server_receive_maximum: Some(RECEIVE_MAX),
        max_subscriptions_per_client: SUBSCRIPTIONS_MAX,
        max_retained_messages: RETAINED_WITH_WILLS_MAX,
        max_retained_message_size: 0,
        client_channel_capacity: CLIENT_CHANNEL_CAPACITY,
        sys_topics_enabled: false,
        // In memory, lasting sessions and retained messages live as long as the daemon; without any storage no absent
        // client gets a queue.
        storage_config: StorageConfig {
            backend: StorageBackendType::Memory,
            enable_persistence: true,
            max_queued_messages_per_client: session_queue_size,
            max_queued_bytes_per_client: SESSION_BYTES_MAX,
            ..StorageConfig::default()
        },
        ..BrokerConfig::default()
    };
    library.auth_config.rate_limit.enabled = false;
    library
}

/// Whether a topic or filter is one that a client may use. Control characters are none of it (MQTT 3.1.1 §1.5.3 lets a
/// receiver refuse them, and mosquitto's clients end a connection on which they come).
pub(super) fn sensible(topic: &str) -> bool {
    topic.len() <= TOPIC_BYTES_MAX && topic.split('/').count() <= TOPIC_LEVELS_MAX && !topic.contains(char::is_control)
}

/// How many connections this process can afford: each takes two file descriptors, and the daemon needs some for itself.
pub(super) fn connections_max() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().next()).and_then(|soft| soft.parse::<usize>().ok());
    soft.map_or(CONNECTIONS_MAX, |soft| CONNECTIONS_MAX.min(soft / 4)).max(16)
}
