#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::future::Future;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use actor::testing::Probe;
use actor::{ChildSpec, Handle, Policy, Running, Supervisor, eventually, mailbox};
use bytes::Bytes;
use model::{DeviceState, NodeName, PropertyName, TwinProperty, TwinValue};
use wire::hub::{Frame, MsgId, Resource, Upstream};
use wire::mqtt::Topic;

use super::testing::{NOW, Workbench, frame, id};
use super::{Communication, CommunicationMessage, Config, Effect, Peers, Shared, UPLOADS_MAX};
use crate::edge_hub::EdgeHubMessage;
use crate::event_bus::EventBusMessage;
use crate::store::{device, pending_report, twin};

const SOON: Duration = Duration::from_secs(10);

/// Communication under its supervisor, between a real store and probes.
struct Scene {
    bench: Workbench,
    own: Handle<CommunicationMessage>,
    event_bus: Probe<EventBusMessage>,
    edge_hub: Probe<EdgeHubMessage>,
    shared: Shared,
    _running: Running,
}

fn config(bench: &Workbench) -> Config {
    Config { clock: bench.clock(), ..Config::new(NodeName::new("edge-1").unwrap()) }
}

fn scene(devices: &[&str], settings: impl FnOnce(&mut Config)) -> Scene {
    scene_with(Workbench::with(devices), Probe::new("event-bus", 64), Probe::new("edge-hub", 64), Shared::default(), settings)
}

fn scene_with(
    bench: Workbench,
    event_bus: Probe<EventBusMessage>,
    edge_hub: Probe<EdgeHubMessage>,
    shared: Shared,
    settings: impl FnOnce(&mut Config),
) -> Scene {
    let own = mailbox::<CommunicationMessage>("communication", 64);
    let mut config = config(&bench);
    settings(&mut config);
    let peers = Peers { event_bus: event_bus.handle(), edge_hub: edge_hub.handle() };
    let (store, of_each) = (bench.store.clone(), shared.clone());
    let make = move || Communication::new(config.clone(), store.clone(), peers.clone(), of_each.clone());
    let running = Supervisor::new("test", Policy::default()).child(ChildSpec::new(&own, make)).start(|why| panic!("{why}"));
    Scene { bench, own, event_bus, edge_hub, shared, _running: running }
}

fn run(test: impl Future<Output = ()>) {
    actix_rt::System::new().block_on(test);
}

impl Scene {
    fn tell(&self, message: CommunicationMessage) {
        self.own.try_send(message).unwrap();
    }

    /// A device changes a property: the rows that Twin would write.
    fn change(&self, device: &str, property: &str, value: &str) {
        change(&self.bench, device, property, value);
        self.tell(effects([Effect::ReportsPending]));
    }

    async fn next_frame(&self) -> Frame<Upstream> {
        match &*self.edge_hub.next(SOON).await.expect("nothing was sent to the cloud") {
            EdgeHubMessage::Send(frame) => frame.clone(),
            other => panic!("{other:?}"),
        }
    }

    /// The next report of a twin: frame, device, and the value of each property.
    async fn next_report(&self) -> (MsgId, String, Vec<(String, String)>) {
        let frame = self.next_frame().await;
        let Upstream::TwinReport { device, report } = frame.body else { panic!("{frame:?}") };
        let value = |(name, property): (&PropertyName, &TwinProperty)| (name.to_string(), property.actual.as_ref().unwrap().value.clone());
        (frame.id, device.to_string(), report.properties.iter().map(value).collect())
    }

    async fn connect(&self) {
        self.tell(CommunicationMessage::CloudConnected);
        assert!(matches!(self.next_frame().await.body, Upstream::MembershipGet { .. }));
        self.tell(effects([Effect::MembershipReceived]));
    }

    fn pending(&self) -> u64 {
        self.bench.read(pending_report::count)
    }

    /// Waits until all messages so far are handled.
    async fn quiet(&self) {
        eventually!(SOON, {
            let view = self.own.observe().view();
            view.depth == 0 && view.in_hand.is_none()
        });
    }
}

fn effects(effects: impl IntoIterator<Item = Effect>) -> CommunicationMessage {
    CommunicationMessage::Effects(effects.into_iter().map(|effect| effect.caused(actor::MsgId::fresh())).collect())
}

/// Returns the message that made the change.
fn change(bench: &Workbench, device: &str, property: &str, value: &str) -> actor::MsgId {
    let cause = actor::MsgId::fresh();
    let (device, name) = (id(device), PropertyName::new(property).unwrap());
    bench.write(|tx| {
        let incarnation = device::incarnation(tx, &device)?.unwrap();
        let actual = Some(TwinValue { value: value.into(), timestamp: NOW });
        twin::put(tx, &device, &name, &TwinProperty { actual, ..TwinProperty::default() })?;
        pending_report::property(tx, &device, incarnation, &name, NOW, cause)
    });
    cause
}

fn publication(number: u32) -> Effect {
    Effect::Publish { topic: Topic::TwinUpdateResult(id("lamp")), payload: Bytes::from(number.to_string()) }
}

#[test]
fn publications_reach_event_bus_in_the_order_of_the_commits() {
    run(async {
        let scene = scene(&[], |_| {});
        // More than EventBus has room for: the rest waits for room and nothing overtakes.
        for batch in 0..20 {
            scene.tell(effects((0..10).map(|n| publication(batch * 10 + n))));
        }
        for expected in 0..200 {
            let taken = scene.event_bus.next(SOON).await.unwrap();
            let EventBusMessage::Publish { payload, .. } = &*taken else { panic!("{:?}", *taken) };
            assert_eq!(payload, &expected.to_string());
        }
    });
}

#[test]
fn publications_that_find_no_room_in_time_are_dropped_and_counted_and_the_rest_goes_on() {
    run(async {
        let scene = scene(&["lamp"], |config| config.publish_within = Duration::from_millis(20));
        scene.connect().await;
        scene.tell(effects((0..70).map(publication)));
        scene.change("lamp", "t", "1");
        scene.next_report().await;
        assert_eq!(scene.shared.figures().publications_dropped.load(Relaxed), 6);
        assert_eq!(scene.event_bus.drain().len(), 64);
    });
}

#[test]
fn what_changed_while_the_cloud_was_away_is_reported_when_it_is_back_each_property_once() {
    run(async {
        let scene = scene(&["lamp", "fan"], |_| {});
        for value in ["1", "2", "3"] {
            scene.change("lamp", "t", value);
        }
        scene.change("fan", "speed", "9");
        scene.change("lamp", "u", "5");
        scene.quiet().await;
        assert!(scene.edge_hub.try_next().is_none());
        scene.connect().await;
        let (first, device, values) = scene.next_report().await;
        assert_eq!((device.as_str(), values), ("lamp", vec![("t".into(), "3".into()), ("u".into(), "5".into())]));
        let (second, device, _) = scene.next_report().await;
        assert_eq!(device, "fan");
        for parent in [first, second] {
            scene.tell(CommunicationMessage::Confirmed { parent });
        }
        eventually!(SOON, scene.pending() == 0);
        assert_eq!(scene.shared.figures().reports_confirmed.load(Relaxed), 2);
    });
}

#[test]
fn a_change_while_its_report_is_on_the_way_is_not_settled_by_the_confirmation_and_is_sent_after_it() {
    run(async {
        let scene = scene(&["lamp"], |_| {});
        scene.connect().await;
        scene.change("lamp", "t", "1");
        let (parent, _, _) = scene.next_report().await;
        scene.change("lamp", "t", "2");
        scene.quiet().await;
        assert!(scene.edge_hub.try_next().is_none(), "one report of a device on its way");
        scene.tell(CommunicationMessage::Confirmed { parent });
        let (parent, _, values) = scene.next_report().await;
        assert_eq!(values, [("t".into(), "2".into())]);
        scene.tell(CommunicationMessage::Confirmed { parent });
        eventually!(SOON, scene.pending() == 0);
    });
}

#[test]
fn no_more_devices_than_the_window_are_on_their_way_and_confirmations_make_room() {
    run(async {
        let names: Vec<_> = (0..10).map(|n| format!("d{n}")).collect();
        let bench = Workbench::with(&names.iter().map(String::as_str).collect::<Vec<_>>());
        for name in &names {
            change(&bench, name, "t", "1");
        }
        let scene = scene_with(bench, Probe::new("event-bus", 8), Probe::new("edge-hub", 64), Shared::default(), |config| {
            config.window = 3;
        });
        scene.connect().await;
        scene.quiet().await;
        let mut open: Vec<_> = Vec::new();
        for _ in 0..3 {
            open.push(scene.next_report().await.0);
        }
        for _ in 0..7 {
            scene.quiet().await;
            assert!(scene.edge_hub.try_next().is_none());
            scene.tell(CommunicationMessage::Confirmed { parent: open.remove(0) });
            open.push(scene.next_report().await.0);
        }
        assert_eq!(scene.pending(), 3);
    });
}

#[test]
fn a_state_is_reported_beside_the_twin_and_each_is_settled_by_its_own_confirmation() {
    run(async {
        let bench = Workbench::with(&["lamp"]);
        change(&bench, "lamp", "t", "1");
        bench.write(|tx| {
            device::set_state(tx, &id("lamp"), &DeviceState::new("online").unwrap(), "2026-01-01T00:00:00Z")?;
            let incarnation = device::incarnation(tx, &id("lamp"))?.unwrap();
            pending_report::state(tx, &id("lamp"), incarnation, NOW, actor::MsgId::fresh())
        });
        let scene = scene_with(bench, Probe::new("event-bus", 8), Probe::new("edge-hub", 8), Shared::default(), |_| {});
        scene.connect().await;
        scene.next_report().await;
        let state = scene.next_frame().await;
        let Upstream::DeviceStateReport { device, report } = state.body else { panic!("{state:?}") };
        assert_eq!((device, report.name.as_str()), (id("lamp"), "Lamp"));
        assert_eq!((report.state.as_str(), report.last_online.as_str()), ("online", "2026-01-01T00:00:00Z"));
        scene.tell(CommunicationMessage::Confirmed { parent: state.id });
        eventually!(SOON, scene.bench.pending("lamp") == ["t"]);
    });
}

#[test]
fn what_is_not_confirmed_is_sent_again_though_other_traffic_goes_on() {
    run(async {
        let scene = scene(&["lamp", "fan"], |config| config.resend_every = Duration::from_millis(30));
        scene.connect().await;
        scene.change("lamp", "t", "1");
        let (first, _, _) = scene.next_report().await;
        let again = loop {
            scene.tell(CommunicationMessage::Effects(Vec::new()));
            if let Some(taken) = scene.edge_hub.next(Duration::from_millis(3)).await {
                let EdgeHubMessage::Send(frame) = &*taken else { panic!("{:?}", *taken) };
                break frame.clone();
            }
        };
        assert_ne!(again.id, first);
        assert!(matches!(again.body, Upstream::TwinReport { .. }));
        // The late confirmation of the first settles it all the same: it said the same.
        scene.tell(CommunicationMessage::Confirmed { parent: first });
        eventually!(SOON, scene.pending() == 0);
        assert!(scene.shared.figures().reports_overdue.load(Relaxed) >= 1);
    });
}

/// In virtual time: the timer is this actor's own, and a mailbox that is full at each tick does not hold it up.
#[test]
fn what_is_not_confirmed_is_sent_again_though_the_mailbox_is_never_empty() {
    let paused = || tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    actix_rt::System::with_tokio_rt(paused).block_on(async {
        let bench = Workbench::with(&["lamp"]);
        change(&bench, "lamp", "t", "1");
        let shared = Shared::default();
        shared.connected.store(true, Relaxed);
        let (event_bus, edge_hub) = (Probe::<EventBusMessage>::new("event-bus", 8), Probe::<EdgeHubMessage>::new("edge-hub", 64));
        let own = mailbox::<CommunicationMessage>("communication", 4);
        let peers = Peers { event_bus: event_bus.handle(), edge_hub: edge_hub.handle() };
        let config = Config { membership_asks: 0, ..config(&bench) };
        let (period, traffic) = (config.resend_every + Duration::from_millis(1), own.clone());
        actor::testing::start_here(&own, Communication::new(config, bench.store.clone(), peers, shared));
        // More senders than there is room: whoever asks for room without waiting gets none.
        for _ in 0..16 {
            let traffic = traffic.clone();
            actix_rt::spawn(async move { while traffic.send(effects([])).await.is_ok() {} });
        }
        let next_report = async || {
            for _ in 0..10_000 {
                if let Some(taken) = edge_hub.try_next() {
                    let EdgeHubMessage::Send(frame) = &*taken else { panic!("{:?}", *taken) };
                    if matches!(frame.body, Upstream::TwinReport { .. }) {
                        return frame.clone();
                    }
                }
                tokio::task::yield_now().await;
            }
            panic!("nothing was sent to the cloud");
        };
        let mut ids = vec![next_report().await.id];
        for _ in 0..5 {
            assert!(traffic.try_send(effects([])).is_err(), "the mailbox is full");
            tokio::time::advance(period).await;
            ids.push(next_report().await.id);
        }
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 6, "each sending has an identity of its own");
    });
}

#[test]
fn after_a_week_without_the_cloud_there_is_one_row_for_each_property_and_one_report_for_each_device() {
    run(async {
        let scene = scene(&["lamp", "fan", "door"], |_| {});
        for round in 0..40 {
            for device in ["lamp", "fan", "door"] {
                for property in ["t", "u"] {
                    change(&scene.bench, device, property, &round.to_string());
                }
            }
            scene.bench.clock.advance(4 * 3_600_000);
        }
        assert_eq!(scene.pending(), 6);
        scene.connect().await;
        for _ in 0..3 {
            let (parent, _, values) = scene.next_report().await;
            assert_eq!(values, [("t".into(), "39".into()), ("u".into(), "39".into())]);
            scene.tell(CommunicationMessage::Confirmed { parent });
        }
        eventually!(SOON, scene.pending() == 0);
        assert!(scene.edge_hub.try_next().is_none());
    });
}

#[test]
fn a_report_of_a_device_that_was_created_again_meanwhile_settles_nothing_of_the_new_one() {
    run(async {
        let scene = scene(&["lamp"], |config| config.window = 8);
        scene.bench.write(|tx| device::set_uid(tx, &id("lamp"), "first"));
        scene.connect().await;
        scene.change("lamp", "t", "old");
        let old = scene.next_frame().await;
        // Two more changes, of which the cloud has heard nothing when the device goes.
        change(&scene.bench, "lamp", "u", "old");
        scene.bench.write(|tx| {
            device::remove(tx, &id("lamp"))?;
            device::insert(tx, &super::testing::named("lamp"))?;
            device::set_uid(tx, &id("lamp"), "second")
        });
        assert_eq!(scene.pending(), 0, "what was to be told of the old one goes with it");
        scene.change("lamp", "t", "new");
        // The cloud refuses what is of the old one; or confirms it, because it has not heard of the change.
        scene.tell(CommunicationMessage::Refused { parent: old.id.clone(), reason: "created again since".into() });
        scene.tell(CommunicationMessage::Confirmed { parent: old.id });
        let new = scene.next_frame().await;
        let Upstream::TwinReport { report, .. } = &new.body else { panic!("{new:?}") };
        let values: Vec<_> = report.properties.values().map(|property| property.actual.as_ref().unwrap().value.as_str()).collect();
        assert_eq!((report.uid.as_str(), values), ("second", vec!["new"]));
        assert_eq!(scene.bench.pending("lamp"), ["t"]);
        scene.tell(CommunicationMessage::Confirmed { parent: new.id });
        eventually!(SOON, scene.pending() == 0);
    });
}

#[test]
fn an_old_confirmation_settles_only_the_version_that_its_report_had() {
    run(async {
        let scene = scene(&["lamp"], |config| config.resend_every = Duration::from_millis(20));
        scene.connect().await;
        scene.change("lamp", "t", "1");
        let (first, _, _) = scene.next_report().await;
        scene.change("lamp", "t", "2");
        // The first is overdue, and the second says the newer value.
        let second = loop {
            let (frame, _, values) = scene.next_report().await;
            if values == [("t".to_owned(), "2".to_owned())] {
                break frame;
            }
        };
        scene.tell(CommunicationMessage::Confirmed { parent: first });
        scene.quiet().await;
        assert_eq!(scene.pending(), 1, "the cloud has not confirmed the newer one");
        scene.tell(CommunicationMessage::Confirmed { parent: second });
        eventually!(SOON, scene.pending() == 0);
    });
}

#[test]
fn a_refused_report_is_dropped() {
    run(async {
        let scene = scene(&["lamp"], |_| {});
        scene.connect().await;
        scene.change("lamp", "t", "1");
        let (parent, _, _) = scene.next_report().await;
        scene.tell(CommunicationMessage::Refused { parent, reason: "no such device".into() });
        scene.tell(CommunicationMessage::Refused { parent: frame("of somebody else"), reason: "?".into() });
        eventually!(SOON, scene.pending() == 0);
        assert_eq!(scene.shared.figures().reports_refused.load(Relaxed), 1);
    });
}

#[test]
fn a_new_incarnation_knows_that_the_cloud_is_there_and_sends_what_was_on_its_way() {
    run(async {
        let bench = Workbench::with(&["lamp"]);
        change(&bench, "lamp", "t", "1");
        let shared = Shared::default();
        shared.connected.store(true, Relaxed);
        let scene = scene_with(bench, Probe::new("event-bus", 8), Probe::new("edge-hub", 8), shared, |_| {});
        assert!(matches!(scene.next_frame().await.body, Upstream::MembershipGet { .. }));
        scene.next_report().await;
    });
}

#[test]
fn reports_go_on_when_edge_hub_has_room_again() {
    run(async {
        let names: Vec<_> = (0..9).map(|n| format!("d{n}")).collect();
        let bench = Workbench::with(&names.iter().map(String::as_str).collect::<Vec<_>>());
        for name in &names {
            change(&bench, name, "t", "1");
        }
        let shared = Shared::default();
        shared.connected.store(true, Relaxed);
        let scene = scene_with(bench, Probe::new("event-bus", 8), Probe::new("edge-hub", 2), shared, |config| {
            config.membership_asks = 1;
        });
        assert!(matches!(scene.next_frame().await.body, Upstream::MembershipGet { .. }));
        let mut devices = Vec::new();
        for _ in 0..9 {
            devices.push(scene.next_report().await.1);
        }
        devices.sort();
        assert_eq!(devices, names, "each once");
    });
}

#[test]
fn the_list_of_devices_is_asked_for_until_it_came_but_not_for_ever() {
    run(async {
        let fast = |config: &mut Config| {
            config.resend_every = Duration::from_millis(10);
            config.membership_asks = 3;
        };
        let unanswered = scene(&[], fast);
        unanswered.tell(CommunicationMessage::CloudConnected);
        for _ in 0..3 {
            let Upstream::MembershipGet { node, .. } = unanswered.next_frame().await.body else { panic!() };
            assert_eq!(node.as_str(), "edge-1");
        }
        assert!(unanswered.edge_hub.next(Duration::from_millis(50)).await.is_none());
        let answered = scene(&[], fast);
        answered.connect().await;
        answered.quiet().await;
        let _ = answered.edge_hub.drain();
        assert!(answered.edge_hub.next(Duration::from_millis(50)).await.is_none());
    });
}

#[test]
fn uploads_wait_for_the_cloud_in_order() {
    run(async {
        let scene = scene(&[], |_| {});
        for payload in [&b"one"[..], b"\xfftwo"] {
            let payload = Bytes::copy_from_slice(payload);
            scene.tell(CommunicationMessage::Upload { topic: "SYS/dis/upload_records".into(), payload });
        }
        scene.quiet().await;
        assert!(scene.edge_hub.try_next().is_none());
        scene.connect().await;
        for expected in ["one", "\u{fffd}two"] {
            let Upstream::Upload { topic, payload } = scene.next_frame().await.body else { panic!() };
            assert_eq!((topic.as_str(), payload.as_str()), ("SYS/dis/upload_records", expected));
        }
        scene.tell(CommunicationMessage::CloudDisconnected);
        scene.tell(CommunicationMessage::Upload { topic: "a/user/b".into(), payload: Bytes::new() });
        scene.quiet().await;
        assert!(scene.edge_hub.try_next().is_none());
    });
}

#[test]
fn uploads_that_wait_for_the_cloud_are_the_newest_within_the_bounds_and_what_went_is_counted() {
    run(async {
        let hub = Probe::new("edge-hub", 2 * UPLOADS_MAX);
        let scene = scene_with(Workbench::with(&[]), Probe::new("event-bus", 64), hub, Shared::default(), |_| {});
        let upload = |text: String| CommunicationMessage::Upload { topic: "house/user/x".into(), payload: text.into() };
        for number in 0..UPLOADS_MAX + 50 {
            scene.tell(upload(number.to_string()));
            scene.quiet().await;
        }
        assert_eq!(scene.shared.figures().uploads_dropped.load(Relaxed), 50);
        scene.connect().await;
        for number in 50..UPLOADS_MAX + 50 {
            let Upstream::Upload { payload, .. } = scene.next_frame().await.body else { panic!() };
            assert_eq!(payload, number.to_string());
        }

        scene.tell(CommunicationMessage::CloudDisconnected);
        // Five of a megabyte: four megabytes are kept, and the names of their topics count.
        for number in 0..5 {
            scene.tell(upload(format!("{number}{}", "x".repeat(1 << 20))));
            scene.quiet().await;
        }
        assert_eq!(scene.shared.figures().uploads_dropped.load(Relaxed), 52);
        scene.connect().await;
        let Upstream::Upload { payload, .. } = scene.next_frame().await.body else { panic!() };
        assert!(payload.starts_with('2'));
    });
}

#[test]
fn what_the_cloud_sent_is_answered_with_its_own_frame_as_parent() {
    run(async {
        let scene = scene(&[], |_| {});
        scene.tell(effects([
            Effect::Acknowledge { frame: frame("f1"), resource: Resource::Membership },
            Effect::Refuse { frame: frame("f2"), resource: Resource::Device(id("x")), reason: "why".into() },
        ]));
        let (ack, refusal) = (scene.next_frame().await, scene.next_frame().await);
        assert_eq!((ack.parent, ack.body), (Some(frame("f1")), Upstream::Ack { resource: Resource::Membership }));
        assert_eq!(refusal.parent, Some(frame("f2")));
        assert!(matches!(refusal.body, Upstream::Refusal { reason, .. } if reason == "why"));
    });
}

#[test]
fn a_report_names_the_messages_that_led_to_it_each_once_and_the_latest_of_many() {
    run(async {
        let scene = scene(&["lamp"], |_| {});
        scene.connect().await;
        let causes: Vec<_> = (0..20).map(|n| change(&scene.bench, "lamp", &format!("p{n}"), "1")).collect();
        // The first property changes once more: its earlier cause is told no more.
        let last = change(&scene.bench, "lamp", "p0", "2");
        scene.tell(effects([Effect::ReportsPending]));
        let frame = scene.next_frame().await;
        let expected: Vec<_> = causes[5..].iter().chain([&last]).map(|id| MsgId::new(&id.to_string()).unwrap()).collect();
        assert_eq!(frame.cause, expected);
        assert_eq!(frame.parent, None, "for KubeEdge a parent marks an answer");
    });
}

#[test]
fn a_publication_carries_the_message_that_it_answers() {
    run(async {
        let scene = scene(&[], |_| {});
        let by = actor::MsgId::fresh();
        scene.tell(CommunicationMessage::Effects(vec![publication(1).caused(by)]));
        assert_eq!(scene.event_bus.next(SOON).await.unwrap().meta().parent, Some(by));
    });
}
