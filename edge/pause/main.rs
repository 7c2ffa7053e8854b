//! The process of a pod's sandbox: it holds the namespaces that the containers share, and does nothing.
//!
//! Built for itself, static and small, by the edge's build script; the daemon carries the result and makes the image of it.

fn main() {
    loop {
        std::thread::park();
    }
}
