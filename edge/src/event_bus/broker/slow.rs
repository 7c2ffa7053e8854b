//! Clients that do not read what they subscribed.
//!
//! The library's queue towards a connected client is bounded in messages only, and with large ones that is no bound: a
//! subscriber that stopped reading took 480 MB. So the door looks: a connection that had unread bytes in the kernel at
//! each look while [`BEHIND_MAX`] were published, and that took less than half of that, is ended. What it had not read is
//! freed, its session stays, and if it has died its will is published.
//!
//! A look costs a read of `/proc/net/tcp`, and there is one for each [`LOOK_EVERY`] published: none on a quiet broker.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use log::warn;
use mqtt5::broker::sys_topics::BrokerStats;

/// What may be published, in bytes, while a client reads less than half of it and never all of it.
pub const BEHIND_MAX: u64 = 32 << 20;
/// How much is published between two looks, in bytes.
const LOOK_EVERY: u64 = 4 << 20;
/// What a message takes beside its payload, in bytes.
const MESSAGE_BYTES: u64 = 600;

/// All connections, and how far each is behind.
#[derive(Debug, Default)]
pub struct Readers {
    published: AtomicU64,
    next_look: AtomicU64,
    connections: Mutex<HashMap<SocketAddr, Reader>>,
}

/// One connection.
#[derive(Debug)]
struct Reader {
    /// A second handle of its socket: the library keeps the first.
    socket: TcpStream,
    stats: Arc<BrokerStats>,
    /// How much had been published, and how much it had taken, when it was last known to keep up.
    well: Mark,
}

#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    published: u64,
    taken: u64,
}

/// A connection that is looked at until this is dropped.
#[derive(Debug)]
pub struct Watched {
    readers: Arc<Readers>,
    peer: SocketAddr,
}

impl Readers {
    /// Begins to look at a connection.
    pub fn watch(self: &Arc<Self>, peer: SocketAddr, socket: TcpStream, stats: Arc<BrokerStats>) -> Watched {
        let well = Mark { published: self.published.load(Ordering::Relaxed), taken: 0 };
        self.connections().insert(peer, Reader { socket, stats, well });
        Watched { readers: self.clone(), peer }
    }

    /// Counts a publication, and looks when it is time to.
    pub fn published(&self, payload: usize) {
        let published = self.published.fetch_add(payload as u64 + MESSAGE_BYTES, Ordering::Relaxed);
        let next = self.next_look.load(Ordering::Relaxed);
        if published < next || self.next_look.compare_exchange(next, published + LOOK_EVERY, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return;
        }
        let table = [read("/proc/net/tcp"), read("/proc/net/tcp6")].concat();
        let unread = unread(&table);
        for (peer, reader) in self.connections().iter_mut() {
            let now = Mark { published, taken: taken(&reader.stats) };
            if reader.falls_behind(now, unread.contains(kernel_form(*peer).as_str())) {
                warn!(peer:% = peer, bytes = now.published - reader.well.published; "an MQTT client does not read what it subscribed and is disconnected");
                let _ = reader.socket.shutdown(Shutdown::Both);
                reader.well = now;
            }
        }
    }

    /// Resolves when between two looks nobody has taken anything more.
    pub async fn all_has_gone_out(&self, look: Duration) {
        let gone_out = || self.connections().values().map(|reader| taken(&reader.stats)).sum::<u64>();
        let mut before = gone_out();
        loop {
            tokio::time::sleep(look).await;
            let now = gone_out();
            if now == before {
                return;
            }
            before = now;
        }
    }

    fn connections(&self) -> std::sync::MutexGuard<'_, HashMap<SocketAddr, Reader>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reader {
    /// Whether it is to be ended, at a look that found unread bytes or none.
    fn falls_behind(&mut self, now: Mark, unread: bool) -> bool {
        let (published, taken) = (now.published - self.well.published, now.taken - self.well.taken);
        if !unread || taken >= published.max(LOOK_EVERY) / 2 {
            self.well = now;
            return false;
        }
        published >= BEHIND_MAX
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.readers.connections().remove(&self.peer);
    }
}

fn taken(stats: &BrokerStats) -> u64 {
    stats.bytes_sent.load(Ordering::Relaxed) + MESSAGE_BYTES * stats.publish_sent.load(Ordering::Relaxed)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// Peers for whom the kernel holds bytes that they have not taken.
fn unread(table: &str) -> HashSet<&str> {
    let mut found = HashSet::new();
    for line in table.lines() {
        let mut columns = line.split_ascii_whitespace().skip(2);
        if let (Some(peer), Some(_state), Some(queues)) = (columns.next(), columns.next(), columns.next())
            && queues.split(':').next().is_some_and(|sending| sending.bytes().any(|digit| digit != b'0'))
        {
            found.insert(peer);
        }
    }
    found
}

/// An address as `/proc/net/tcp` writes it: words in the machine's order, in hexadecimal.
fn kernel_form(address: SocketAddr) -> String {
    let words: String = match address.ip() {
        IpAddr::V4(v4) => format!("{:08X}", u32::from_ne_bytes(v4.octets())),
        IpAddr::V6(v6) => {
            v6.octets().chunks_exact(4).filter_map(|word| word.try_into().ok()).map(|word| format!("{:08X}", u32::from_ne_bytes(word))).collect()
        }
    };
    format!("{words}:{:04X}", address.port())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    #[test]
    fn a_peer_with_unread_bytes_is_found_in_the_kernel_s_table() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue\n   \
                     0: 0100007F:075C 0100007F:C350 01 00000010:00000000 00:00000000\n   \
                     1: 0100007F:075C 0100007F:C351 01 00000000:00000010 00:00000000\n   \
                     2: 00000000000000000000000001000000:075C 00000000000000000000000001000000:C352 01 0000A000:00000000\n";
        let found = unread(table);
        assert!(found.contains(kernel_form("127.0.0.1:50000".parse().unwrap()).as_str()));
        assert!(!found.contains(kernel_form("127.0.0.1:50001".parse().unwrap()).as_str()));
        assert!(found.contains(kernel_form("[::1]:50002".parse().unwrap()).as_str()));
    }

    fn reader() -> Reader {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        Reader { socket, stats: Arc::default(), well: Mark::default() }
    }

    #[test]
    fn a_client_is_behind_when_it_was_never_seen_to_keep_up() {
        let ended = |looks: &[(u64, u64, bool)]| {
            let mut reader = reader();
            looks.iter().position(|&(published, taken, unread)| reader.falls_behind(Mark { published: published << 20, taken: taken << 20 }, unread))
        };
        assert_eq!(ended(&[(4, 0, true), (16, 0, true), (31, 0, true), (32, 0, true)]), Some(3), "it reads nothing");
        assert_eq!(ended(&[(16, 0, true), (31, 0, false), (40, 0, true), (62, 0, true)]), None, "it had read all in between");
        assert_eq!(ended(&[(16, 8, true), (32, 16, true), (64, 32, true)]), None, "it takes half");
        assert_eq!(ended(&[(16, 1, true), (32, 2, true)]), Some(1), "it takes a little");
    }
}
