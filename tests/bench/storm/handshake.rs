//! What a TLS handshake costs on this machine, without a socket: the floor under a storm.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};

const WINDOW: Duration = Duration::from_secs(2);

/// Mutual handshakes a second, of as many threads as there are processors; client and server are counted as one.
///
/// # Errors
/// rustls' words.
pub fn rate(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> Result<f64, String> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let count = || {
        let (began, mut count) = (Instant::now(), 0_u32);
        while began.elapsed() < WINDOW {
            handshake(client, server).map_err(|error| format!("handshake: {error}"))?;
            count += 1;
        }
        Ok::<_, String>(f64::from(count) / began.elapsed().as_secs_f64())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(count)).collect();
        threads.into_iter().map(|thread| thread.join().map_err(|_| "a thread panicked".to_owned())?).sum()
    })
}

fn handshake(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> std::io::Result<()> {
    let name = ServerName::try_from("localhost").expect("a DNS name");
    let mut client = ClientConnection::new(client.clone(), name).map_err(std::io::Error::other)?;
    let mut server = ServerConnection::new(server.clone()).map_err(std::io::Error::other)?;
    while client.is_handshaking() || server.is_handshaking() || client.wants_write() || server.wants_write() {
        let mut buffer = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut buffer)?;
        }
        let mut bytes = buffer.as_slice();
        while !bytes.is_empty() {
            server.read_tls(&mut bytes)?;
            server.process_new_packets().map_err(std::io::Error::other)?;
        }
        buffer.clear();
        while server.wants_write() {
            server.write_tls(&mut buffer)?;
        }
        let mut bytes = buffer.as_slice();
        while !bytes.is_empty() {
            client.read_tls(&mut bytes)?;
            client.process_new_packets().map_err(std::io::Error::other)?;
        }
    }
    Ok(())
}
