//! One cloud, one edge that is killed again and again, and the ledgers of its devices.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

use harness::{CloudUnderTest, EdgeOptions, EdgeUnderTest, eventually, names};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::ledger::{Fault, Ledger, PROPERTIES};
use crate::load;
use crate::witness::{Watch, on_disk};

const DEVICES: usize = 4;
/// Updates of one device that may be on their way.
const IN_FLIGHT_MAX: usize = 16;
/// How long the load lasts before a kill, in milliseconds.
const LOAD_MILLIS: std::ops::RangeInclusive<u64> = 1..=400;

/// What the kills did, in sum.
#[derive(Debug, Default)]
pub struct Sum {
    pub kills: u32,
    /// Kills of a daemon that was starting.
    at_start: u32,
    /// Updates, as in [`crate::ledger::Outcome`].
    acknowledged: usize,
    unannounced: usize,
    forgotten: usize,
    /// States of reported values that the cloud went through.
    reported: usize,
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kills, at_start, acknowledged, unannounced, forgotten, reported } = self;
        write!(
            f,
            "{kills} kills, {at_start} of them at start; {acknowledged} updates acknowledged and {unannounced} more stored, each once; \
             {forgotten} forgotten that nobody was told of; {reported} values seen in the cloud, none of them forgotten, none going back"
        )
    }
}

/// The daemons and what is known of them.
pub struct Rig {
    // The edge first: fields are dropped in order, and it still talks to the cloud.
    edge: EdgeUnderTest,
    watch: Watch,
    _cloud: CloudUnderTest,
    ledgers: Vec<Ledger>,
    /// The last value of each property in the cloud.
    newest: HashMap<(usize, usize), u64>,
    /// Whether unsynced bytes may reach the disk.
    tears: bool,
    random: StdRng,
    pub sum: Sum,
}

impl Rig {
    /// Starts both and binds the devices.
    pub fn start(seed: u64) -> Self {
        let cloud = CloudUnderTest::start();
        let mut edge = EdgeUnderTest::prepare(EdgeOptions { program: "crash-edge".into(), hub_port: cloud.hub_port, ..EdgeOptions::default() });
        let config = std::fs::read_to_string(edge.config()).unwrap();
        // Without containers, so that it starts at once.
        std::fs::write(edge.config(), format!("{config}modules: {{enabled: [eventbus, websocket, metaManager, twin]}}\n")).unwrap();
        edge.join(&cloud);
        edge.run();
        edge.answers();
        let ledgers: Vec<Ledger> = (0..DEVICES).map(|_| Ledger::new(names::unique("device"))).collect();
        let properties: Vec<String> = PROPERTIES.iter().map(|name| format!("{{name: {name}, reportToCloud: true}}")).collect();
        for Ledger { device, .. } in &ledgers {
            cloud.kubectl().apply(&format!(
                "apiVersion: devices.kubeedge.io/v1beta1\nkind: Device\nmetadata: {{name: {device}}}\n\
                 spec: {{nodeName: {}, properties: [{}]}}\n",
                edge.node,
                properties.join(", ")
            ));
            let mut client = load::connect(edge.mqtt_port, device).unwrap();
            eventually!(30, "the edge knows the device", {
                let answer = load::ask(&mut client, device).map_err(|error| error.to_string())?;
                if answer["code"].is_null() { Ok(()) } else { Err(answer.to_string()) }
            });
        }
        edge.kill();
        let watch = Watch::start(&cloud);
        let random = StdRng::seed_from_u64(seed);
        Self { edge, watch, _cloud: cloud, ledgers, newest: HashMap::new(), tears: true, random, sum: Sum::default() }
    }

    /// From now on the daemon's connections have `synchronous=OFF`, on a disk that tears nothing: it would be damaged
    /// besides, which is another failure than the one to be seen.
    pub fn switch_synchronous_off(&mut self) {
        self.tears = false;
        self.edge.set_environment("SKEP_CRASH_SYNCHRONOUS", Some("OFF".into()));
    }

    /// Starts the edge, lets its devices report, kills it, and compares what is stored with what was said.
    ///
    /// # Errors
    /// What must never be.
    ///
    /// # Panics
    /// When the database is damaged, a device is refused or hears what is not stored, or the cloud has what the edge has
    /// not.
    pub fn round(&mut self) -> Result<(), Fault> {
        let tear = (self.tears && self.random.random_ratio(3, 4)).then(|| self.random.random::<u64>().to_string());
        self.edge.set_environment("SKEP_CRASH_TEAR", tear);
        self.edge.run();
        if self.random.random_ratio(1, 8) {
            self.sum.at_start += 1;
            pause(self.random.random_range(0..=300));
            self.edge.kill();
        } else {
            self.edge.answers();
            self.load_and_kill();
        }
        self.sum.kills += 1;
        self.settle()
    }

    fn load_and_kill(&mut self) {
        let Self { edge, ledgers, random, .. } = self;
        let (port, killed) = (edge.mqtt_port, AtomicBool::new(false));
        let (ready, readiness) = channel();
        std::thread::scope(|scope| {
            let devices = ledgers.len();
            for ledger in ledgers {
                let (ready, killed, in_flight) = (ready.clone(), &killed, random.random_range(1..=IN_FLIGHT_MAX));
                scope.spawn(move || load::run(ledger, port, in_flight, &ready, killed));
            }
            for _ in 0..devices {
                readiness.recv_timeout(Duration::from_secs(60)).expect("every device is answered");
            }
            pause(random.random_range(LOAD_MILLIS));
            edge.daemon().must_run().unwrap();
            killed.store(true, Ordering::SeqCst);
            edge.kill();
        });
    }

    fn settle(&mut self) -> Result<(), Fault> {
        let devices: Vec<String> = self.ledgers.iter().map(|ledger| ledger.device.clone()).collect();
        let rows = on_disk(&self.edge.database(), &devices).unwrap_or_else(|words| panic!("after kill {}: {words}", self.sum.kills));
        for (ledger, row) in self.ledgers.iter_mut().zip(rows) {
            let outcome = ledger.settle(row)?;
            self.sum.acknowledged += outcome.acknowledged;
            self.sum.unannounced += outcome.unannounced;
            self.sum.forgotten += outcome.forgotten;
        }
        self.look_at_the_cloud();
        Ok(())
    }

    /// The cloud may lag, but must not know what the edge has forgotten, nor go back.
    fn look_at_the_cloud(&mut self) {
        for reported in self.watch.seen() {
            let device = self.ledgers.iter().position(|ledger| ledger.device == reported.device).expect("one of ours");
            let newest = self.newest.entry((device, reported.property)).or_default();
            assert!(!self.ledgers[device].is_lost(reported.value), "the cloud was told what a kill took: {reported:?}");
            assert!(reported.value >= *newest, "the cloud went back from {newest}: {reported:?}");
            self.sum.reported += usize::from(reported.value > *newest);
            *newest = reported.value;
        }
    }

    /// Starts the edge for the last time, without load, and waits until the cloud has what is stored.
    ///
    /// # Panics
    /// When it has not within a minute, or when anything changes without an update.
    pub fn finish(mut self) -> Sum {
        self.edge.set_environment("SKEP_CRASH_TEAR", None);
        self.edge.run();
        self.edge.answers();
        eventually!(60, "the cloud has what is stored", {
            self.look_at_the_cloud();
            for (device, ledger) in self.ledgers.iter().enumerate() {
                for (property, stored) in ledger.stored().iter().enumerate() {
                    let newest = self.newest.get(&(device, property)).copied().unwrap_or_default();
                    if newest != stored.value {
                        return Err(format!("{}: {} is {newest}, not {stored:?}", ledger.device, PROPERTIES[property]));
                    }
                }
            }
            Ok(())
        });
        self.edge.stop();
        self.settle().unwrap();
        self.sum
    }

    /// Whether the kills interrupted enough to prove something.
    pub fn proves_something(&self) -> bool {
        self.sum.acknowledged > 0 && self.sum.forgotten > 0
    }
}

#[allow(clippy::disallowed_methods, reason = "the moment of the kill is random")]
fn pause(millis: u64) {
    std::thread::sleep(Duration::from_millis(millis));
}
