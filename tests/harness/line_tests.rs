//! The line does to bytes what it is told, measured at both of its ends.
#![allow(clippy::unwrap_used, missing_docs)] // a failed step is the test's failure

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::line::{Fault, Line, Way};

/// Longer than an answer takes on a machine that is busy.
const LONG: Duration = Duration::from_secs(10);

/// A server that answers each byte with the next one.
fn server(step: u8) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut byte = [0];
                while stream.read_exact(&mut byte).is_ok() && stream.write_all(&[byte[0] + step]).is_ok() {}
            });
        }
    });
    port
}

fn connect(line: &Line) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", line.port())).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream
}

fn ask(stream: &mut TcpStream, byte: u8) -> std::io::Result<u8> {
    let mut answer = [0];
    stream.write_all(&[byte])?;
    stream.read_exact(&mut answer)?;
    Ok(answer[0])
}

#[test]
fn a_line_passes_until_it_is_cut_and_again_when_it_is_mended() {
    let line = Line::tcp(server(1));
    let mut open = connect(&line);
    assert_eq!(ask(&mut open, 1).unwrap(), 2);
    line.cut();
    assert!(ask(&mut open, 1).is_err(), "the open connection");
    assert!(ask(&mut connect(&line), 1).is_err(), "a new connection");
    line.mend();
    assert_eq!(ask(&mut connect(&line), 7).unwrap(), 8);
    line.refuse();
    assert_eq!(TcpStream::connect(("127.0.0.1", line.port())).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    line.mend();
    let mut open = connect(&line);
    assert_eq!(ask(&mut open, 8).unwrap(), 9);
    line.lead_to(server(2));
    assert_eq!(ask(&mut open, 8).unwrap(), 9, "the open connection stays");
    assert_eq!(ask(&mut connect(&line), 8).unwrap(), 10);
}

#[test]
fn what_meets_a_black_hole_waits_in_front_of_it_and_so_does_the_end() {
    let line = Line::tcp(server(1));
    let mut open = connect(&line);
    assert_eq!(ask(&mut open, 1).unwrap(), 2);
    for hole in [
        Fault { up: Way { is_hole: true, ..Way::default() }, ..Fault::default() },
        Fault { down: Way { is_hole: true, ..Way::default() }, ..Fault::default() },
        Fault::hole(),
    ] {
        line.set(hole);
        open.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        assert_eq!(ask(&mut open, 5).unwrap_err().kind(), ErrorKind::WouldBlock, "{hole:?}");
        open.set_read_timeout(Some(LONG)).unwrap();
        line.mend();
        let mut answer = [0];
        open.read_exact(&mut answer).unwrap();
        assert_eq!(answer, [6], "{hole:?}");
    }
}

#[test]
fn a_far_line_is_late_by_its_delays_and_a_slow_one_by_its_rate() {
    let line = Line::tcp(server(1));
    let mut open = connect(&line);
    // From here on the line waits for bytes of this connection, in both directions.
    assert_eq!(ask(&mut open, 4).unwrap(), 5);
    let late = Way { delay: Duration::from_millis(60), ..Way::default() };
    line.set(Fault { up: late, down: late });
    let began = Instant::now();
    assert_eq!(ask(&mut open, 1).unwrap(), 2);
    assert!(began.elapsed() >= Duration::from_millis(120), "{:?}", began.elapsed());

    line.mend();
    line.set(Fault { up: Way { bytes_per_second: 1_000, ..Way::default() }, ..Fault::default() });
    let began = Instant::now();
    for _ in 0..3 {
        open.write_all(&[1; 100]).unwrap();
    }
    open.read_exact(&mut [0; 300]).unwrap();
    assert!(began.elapsed() >= Duration::from_millis(300), "{:?}", began.elapsed());
}
