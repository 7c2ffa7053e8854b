//! A device that reports as fast as it is answered, until its daemon dies.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::client::Client;
use crate::ledger::{Ledger, PROPERTIES};

/// How long a question goes unanswered before it is asked again: the broker takes messages before the daemon has subscribed,
/// and has nobody to give them to.
const ASK_AGAIN: Duration = Duration::from_millis(100);

fn topic(device: &str, suffix: &str) -> String {
    format!("$hw/events/device/{device}/twin/{suffix}")
}

/// Connects as a device that hears the answers to it.
pub fn connect(port: u16, device: &str) -> io::Result<Client> {
    Client::connect(port, device, &[topic(device, "get/result"), topic(device, "update/result")])
}

/// The twin as the daemon answers it, or the error.
pub fn ask(client: &mut Client, device: &str) -> io::Result<Value> {
    loop {
        client.publish(&topic(device, "get"), &json!({"event_id": "", "timestamp": 1}))?;
        if let Some(answer) = client.next_within(ASK_AGAIN)? {
            return Ok(answer.body);
        }
    }
}

/// Keeps `in_flight` updates on their way until the connection ends, which is a failure before `killed`.
///
/// First it looks whether the daemon answers what is stored, and says `ready`.
pub fn run(ledger: &mut Ledger, port: u16, in_flight: usize, ready: &Sender<()>, killed: &AtomicBool) {
    let Err(error) = report(ledger, port, in_flight, ready);
    assert!(killed.load(Ordering::SeqCst), "{}: {error}, and nobody has killed the daemon", ledger.device);
}

fn report(ledger: &mut Ledger, port: u16, in_flight: usize, ready: &Sender<()>) -> io::Result<std::convert::Infallible> {
    let mut client = connect(port, &ledger.device)?;
    let twin = ask(&mut client, &ledger.device)?;
    for (property, stored) in PROPERTIES.iter().zip(ledger.stored()) {
        let answered = twin["twin"][property]["actual"]["value"].as_str().unwrap_or("0");
        assert_eq!(answered, stored.value.to_string(), "{}: {property} as the daemon answers it after the kill: {twin}", ledger.device);
    }
    ready.send(()).expect("who waits for it is there");
    let update = topic(&ledger.device, "update");
    let result = topic(&ledger.device, "update/result");
    loop {
        while ledger.in_flight() < in_flight {
            let number = ledger.send();
            let actual = json!({"actual": {"value": number.to_string()}});
            let twin: Map<String, Value> = Ledger::carried(number).map(|property| (PROPERTIES[property].to_owned(), actual.clone())).collect();
            client.publish(&update, &json!({"event_id": number.to_string(), "timestamp": 1, "twin": twin}))?;
        }
        let message = client.next()?;
        // A question that was asked twice is answered twice.
        if message.topic == result {
            let number = message.body["event_id"].as_str().and_then(|number| number.parse().ok());
            let done = number.filter(|_| message.body["code"].is_null());
            ledger.acknowledge(done.unwrap_or_else(|| panic!("{}: {}", ledger.device, message.body)));
        }
    }
}
