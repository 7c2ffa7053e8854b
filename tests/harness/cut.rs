//! A wire with scissors: forwards connections between two parties until it is cut.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A forwarder in this process. While it is cut, open connections are closed and new ones end at once.
#[derive(Debug)]
pub struct Cut {
    shared: Arc<Shared>,
    port: u16,
    path: PathBuf,
}

#[derive(Debug, Default)]
struct Shared {
    cut: AtomicBool,
    open: Mutex<Vec<Stream>>,
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    fn close(&self) {
        let _ = match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Both),
            Self::Unix(stream) => stream.shutdown(Shutdown::Both),
        };
    }

    fn half(&self) -> std::io::Result<Self> {
        Ok(match self {
            Self::Tcp(stream) => Self::Tcp(stream.try_clone()?),
            Self::Unix(stream) => Self::Unix(stream.try_clone()?),
        })
    }
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(into),
            Self::Unix(stream) => stream.read(into),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, from: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(from),
            Self::Unix(stream) => stream.write(from),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Cut {
    /// Listens on a free TCP port of the loopback and forwards to `port`.
    ///
    /// # Panics
    /// When no port can be opened.
    pub fn tcp(to_port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", crate::names::port())).expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let shared = Arc::new(Shared::default());
        let inside = shared.clone();
        std::thread::spawn(move || {
            for from in listener.incoming().map_while(Result::ok) {
                let _ = from.set_nodelay(true);
                inside.forward(Stream::Tcp(from), || TcpStream::connect(("127.0.0.1", to_port)).map(Stream::Tcp));
            }
        });
        Self { shared, port, path: PathBuf::new() }
    }

    /// Listens on the Unix socket `at` and forwards to the Unix socket `to`.
    ///
    /// # Panics
    /// When the socket cannot be made.
    pub fn unix(at: &Path, to: &Path) -> Self {
        let listener = UnixListener::bind(at).expect("the test's directory takes a socket");
        let shared = Arc::new(Shared::default());
        let (inside, to) = (shared.clone(), to.to_owned());
        std::thread::spawn(move || {
            for from in listener.incoming().map_while(Result::ok) {
                inside.forward(Stream::Unix(from), || UnixStream::connect(&to).map(Stream::Unix));
            }
        });
        Self { shared, port: 0, path: at.to_owned() }
    }

    /// The TCP port to connect to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The Unix socket to connect to.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Cuts: nothing passes from now on.
    pub fn cut(&self) {
        self.shared.cut.store(true, Ordering::SeqCst);
        for stream in self.shared.open.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            stream.close();
        }
    }

    /// Mends: new connections pass again.
    pub fn mend(&self) {
        self.shared.cut.store(false, Ordering::SeqCst);
    }
}

impl Shared {
    fn forward(self: &Arc<Self>, from: Stream, connect: impl FnOnce() -> std::io::Result<Stream>) {
        if self.cut.load(Ordering::SeqCst) {
            return from.close();
        }
        let Ok(to) = connect() else { return from.close() };
        let halves = (|| Ok::<_, std::io::Error>([(from.half()?, to.half()?), (to.half()?, from.half()?)]))();
        let Ok(halves) = halves else { return };
        self.open.lock().unwrap_or_else(PoisonError::into_inner).extend([from, to]);
        // A cut between the look above and this line must still close what was opened.
        if self.cut.load(Ordering::SeqCst) {
            for stream in self.open.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
                stream.close();
            }
        }
        for (mut read, mut write) in halves {
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut read, &mut write);
                // Whole, because a Docker or MQTT peer that has gone away will not come back on this connection.
                write.close();
                read.close();
            });
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, missing_docs)] // a failed step is the test's failure

    use super::*;

    /// A server that answers each byte with the next one.
    fn server() -> u16 {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                let mut byte = [0];
                while stream.read_exact(&mut byte).is_ok() && stream.write_all(&[byte[0] + 1]).is_ok() {}
            }
        });
        port
    }

    fn ask(stream: &mut TcpStream, byte: u8) -> std::io::Result<u8> {
        let mut answer = [0];
        stream.write_all(&[byte])?;
        stream.read_exact(&mut answer)?;
        Ok(answer[0])
    }

    #[test]
    fn a_wire_passes_until_it_is_cut_and_again_when_it_is_mended() {
        let wire = Cut::tcp(server());
        let mut open = TcpStream::connect(("127.0.0.1", wire.port())).unwrap();
        assert_eq!(ask(&mut open, 1).unwrap(), 2);
        wire.cut();
        assert!(ask(&mut open, 1).is_err(), "the open connection");
        let mut new = TcpStream::connect(("127.0.0.1", wire.port())).unwrap();
        assert!(ask(&mut new, 1).is_err(), "a new connection");
        wire.mend();
        let mut new = TcpStream::connect(("127.0.0.1", wire.port())).unwrap();
        assert_eq!(ask(&mut new, 7).unwrap(), 8);
    }
}
