//! The quarantine: what is kept, for how long, and how it enters again.

use bytes::Bytes;

use super::*;
use crate::quarantine::{PER_ACTOR_MAX, TOTAL_MAX};
use crate::{Ingress, Meta, Quarantine, Quarantined, Registry, RetryError};

fn entry(actor: &str, at_ms: u64, payload: &[u8]) -> Quarantined {
    Quarantined {
        id: MsgId::fresh().to_string(),
        parent: None,
        actor: actor.to_owned(),
        kind: "Update".to_owned(),
        source: "outside".to_owned(),
        text: "an update".to_owned(),
        last_words: "index out of bounds".to_owned(),
        at_ms,
        ingress: Some(Ingress { border: "outside".into(), address: "a/b".to_owned(), payload: Some(Bytes::copy_from_slice(payload)) }),
    }
}

#[test]
fn what_is_in_quarantine_survives_a_restart_of_the_process_in_order_and_byte_for_byte() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("quarantine");
    let (text, raw) = (entry("clerk", 1, "21 °C \"x\"\n".as_bytes()), entry("clerk", 2, &[0, 159, 146, 150, 255]));
    let first = Quarantine::open(&at).unwrap();
    first.put(text.clone());
    first.put(raw.clone());
    first.flush();
    drop(first);
    let second = Quarantine::open(&at).unwrap();
    assert_eq!(second.list(), [text.clone(), raw.clone()]);
    assert_eq!(second.of("clerk").len(), 2);
    second.remove(&text.id).unwrap();
    second.flush();
    assert_eq!(Quarantine::open(&at).unwrap().list(), [raw]);
    use std::os::unix::fs::PermissionsExt as _;
    assert_eq!(std::fs::metadata(&at).unwrap().permissions().mode() & 0o777, 0o700, "for this user alone");
}

#[test]
fn files_that_are_none_of_ours_are_left_alone_and_half_written_ones_go() {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in [("x.json", "{"), ("y.json", "[]"), ("note.txt", "hello"), ("z.tmp", "{\"id\"")] {
        std::fs::write(dir.path().join(name), content).unwrap();
    }
    std::fs::write(dir.path().join("huge.json"), vec![b' '; 2 << 20]).unwrap();
    let mut stray = entry("clerk", 1, b"x");
    stray.id = "../../escape".to_owned();
    std::fs::write(dir.path().join("stray.json"), serde_json::to_vec(&stray).unwrap()).unwrap();
    let quarantine = Quarantine::open(dir.path()).unwrap();
    assert!(quarantine.list().is_empty());
    let mut left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap()).collect();
    left.sort();
    assert_eq!(left, ["huge.json", "note.txt", "stray.json", "x.json", "y.json"]);
}

#[test]
fn it_is_bounded_by_actor_in_total_and_in_each_message() {
    let dir = tempfile::tempdir().unwrap();
    let quarantine = Quarantine::open(dir.path()).unwrap();
    let mut large = entry("chatty", 0, &vec![b'x'; Quarantined::PAYLOAD_MAX + 1]);
    large.text = "é".repeat(Quarantined::TEXT_MAX);
    let told = Arc::new(Mutex::new(0));
    let theirs = told.clone();
    quarantine.on_buried(move |entry| {
        *theirs.lock().unwrap() = entry.ingress.as_ref().and_then(|i| i.payload.as_ref()).map_or(0, Bytes::len);
    });
    quarantine.put(large);
    assert_eq!(*told.lock().unwrap(), Quarantined::PAYLOAD_MAX + 1, "its sender can be answered");
    let kept = quarantine.list().remove(0);
    assert!(kept.ingress.as_ref().is_some_and(|i| i.payload.is_none() && i.address == "a/b") && kept.text.len() == Quarantined::TEXT_MAX);
    assert_eq!(quarantine.retry(&kept.id), Err(RetryError::Internal(kept.id.clone())));
    for n in 1..=2 * PER_ACTOR_MAX as u64 {
        quarantine.put(entry("chatty", n, b"x"));
    }
    assert_eq!(quarantine.count("chatty"), PER_ACTOR_MAX);
    assert_eq!(quarantine.of("chatty").last().unwrap().at_ms, 2 * PER_ACTOR_MAX as u64, "the newest are kept");
    for actor in 0..20 {
        for n in 0..PER_ACTOR_MAX as u64 {
            quarantine.put(entry(&format!("actor-{actor}"), n, b"x"));
        }
    }
    assert_eq!(quarantine.list().len(), TOTAL_MAX);
    quarantine.flush();
    assert!(std::fs::read_dir(dir.path()).unwrap().count() <= TOTAL_MAX);
}

#[test]
fn a_poison_message_is_answered_for_retried_at_the_border_and_dropped() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let quarantine = Quarantine::open(dir.path()).unwrap();
        let registry = Registry::with_quarantine(quarantine.clone());
        let handle = mailbox("clerk", 100);
        let notes = Notes::default();
        let theirs = notes.clone();
        let (told, border) = (Arc::new(Mutex::new(Vec::new())), handle.clone());
        let answered = told.clone();
        quarantine.on_buried(move |entry| answered.lock().unwrap().push(entry.id.clone()));
        quarantine.on_retry(move |ingress| match ingress.payload.as_deref().unwrap_or_default() {
            b"good now" => border.try_send(Do::Note(7)).map(drop).map_err(|error| error.to_string()),
            _ => Err("the border does not know this form".to_owned()),
        });
        let running = Supervisor::new("test", quick())
            .registered(&registry)
            .child(ChildSpec::new(&handle, move || Clerk { notes: theirs.clone() }))
            .start(|why| panic!("{why}"));
        for payload in ["good now", "never good"] {
            let ingress = Ingress { border: "outside".into(), address: "a/b".into(), payload: Some(payload.into()) };
            handle.try_post(Meta::new("outside").entered(ingress), Do::PanicAlways).unwrap();
        }
        handle.try_send(Do::PanicAlways).unwrap();
        eventually!(SOON, quarantine.list().len() == 3 && handle.observe().view().state == State::Up);
        let [good, bad, internal] = quarantine.list().try_into().unwrap();
        assert_eq!(*told.lock().unwrap(), [good.id.clone(), bad.id.clone(), internal.id.clone()], "the sender is answered");
        assert_eq!((good.source.as_str(), good.ingress.as_ref().map(|i| i.address.as_str())), ("outside", Some("a/b")));
        assert_eq!(handle.observe().view().in_quarantine, 3);

        quarantine.retry(&good.id).unwrap();
        eventually!(SOON, *notes.lock().unwrap() == [7]);
        assert_eq!(quarantine.retry(&good.id), Err(RetryError::Unknown(good.id)), "it enters again once");
        assert!(matches!(quarantine.retry(&bad.id), Err(RetryError::Refused { reason, .. }) if reason.contains("does not know")));
        assert_eq!(quarantine.retry(&internal.id), Err(RetryError::Internal(internal.id.clone())));
        quarantine.remove(&internal.id).unwrap();
        assert_eq!(quarantine.list(), [bad]);
        running.shutdown().await;
        quarantine.flush();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    });
}

#[test]
fn the_same_message_has_one_place_and_a_border_that_panics_harms_nobody() {
    let quarantine = Quarantine::in_memory();
    quarantine.on_buried(|_| panic!("the bytes are poison for the border, too"));
    let mut first = entry("clerk", 1, b"x");
    quarantine.put(first.clone());
    first.at_ms = 2;
    quarantine.put(first.clone());
    assert_eq!(quarantine.list(), [first]);
}

#[test]
fn what_the_border_keeps_to_itself_can_only_be_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let quarantine = Quarantine::open(dir.path()).unwrap();
    quarantine.on_retry(|_| Ok(()));
    let mut secret = entry("clerk", 1, b"");
    secret.ingress = Some(Ingress { border: "elsewhere".into(), address: "a/secret".into(), payload: None });
    quarantine.put(secret.clone());
    quarantine.flush();
    let again = Quarantine::open(dir.path()).unwrap();
    assert_eq!(again.list(), [secret.clone()]);
    assert_eq!(quarantine.retry(&secret.id), Err(RetryError::Internal(secret.id.clone())));
    quarantine.remove(&secret.id).unwrap();
    assert!(quarantine.list().is_empty());
}

#[test]
fn a_message_id_is_read_as_it_is_printed_and_in_no_other_form() {
    let id = MsgId::fresh();
    assert_eq!(id.to_string().parse::<MsgId>().unwrap(), id);
    assert_eq!("A1b2c3d4-e5f6-4711-8abc-0123456789AB".parse::<MsgId>().unwrap().to_string(), "a1b2c3d4-e5f6-4711-8abc-0123456789ab");
    for text in [
        "",
        "t1",
        "a1b2c3d4e5f647118abc0123456789ab",
        "a1b2c3d4-e5f6-4711-8abc-0123456789ag",
        "a1b2c3d4-e5f6-47118-abc-0123456789ab",
        "éé2c3d4-e5f6-4711-8abc-0123456789ab",
    ] {
        assert!(text.parse::<MsgId>().is_err(), "{text}");
    }
}

#[test]
fn the_limits_of_a_mailbox_change_while_it_is_in_use() {
    let handle = mailbox::<Do>("shrinking", 4);
    let probe = Probe::of(&handle);
    for n in 0..4 {
        handle.try_send(Do::Note(n)).unwrap();
    }
    handle.set_limits(2, 1 << 20);
    assert_eq!((handle.observe().view().capacity, handle.observe().view().depth), (2, 4), "what is there stays");
    for _ in 0..2 {
        assert!(probe.try_next().is_some());
        assert!(matches!(handle.try_send(Do::Note(9)), Err(SendError::Full(_))));
    }
    assert!(probe.try_next().is_some());
    handle.try_send(Do::Note(4)).unwrap();
    assert!(handle.try_send(Do::Note(9)).is_err());
    handle.set_limits(3, 1 << 20);
    handle.try_send(Do::Note(5)).unwrap();
    assert!(handle.try_send(Do::Note(9)).is_err());
    let rest: Vec<_> = probe.drain().iter().map(|m| if let Do::Note(n) = **m { n } else { 0 }).collect();
    assert_eq!(rest, [3, 4, 5]);
    for n in 0..3 {
        handle.try_send(Do::Note(n)).unwrap();
    }
    assert!(handle.try_send(Do::Note(9)).is_err());
}
