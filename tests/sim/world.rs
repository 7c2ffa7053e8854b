//! The world of one seed: what happens next, and how it heals.

mod heal;

use std::collections::BTreeMap;
use std::fmt;

use model::{DeviceId, NodeName, Origin, PropertyChange, PropertyName, PropertySet, ResourceKey, ResourceKind, SideChange, TwinChange};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use wire::hub::MsgId;
use wire::link::{Capabilities, HELD_KINDS};

use crate::api::{Api, WATCHED};
use crate::checks::{Checker, Checks};
use crate::cloud::{self, Cloud};
use crate::edge::{self, Edge, Mail};
use crate::net::{Connection, ON_THE_WAY_MAX};

/// A rule that is broken on purpose, to see that a checker finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    AcknowledgedBeforeTheCommit,
    ConfirmedBeforeTheApiHasIt,
    ReportsOvertakeEachOther,
    FramesOfBeforeAreHandledLater,
    OlderSessionsCount,
    AKeyForEachFrame,
    DifferenceWithoutDeletions,
    DigestsOfEarlierSessions,
    ForgottenWhenSent,
    AConfirmationSettlesEverything,
    TimersWaitForQuiet,
}

impl Broken {
    /// Each, and who finds it.
    pub const ALL: &[(Self, Checker)] = &[
        (Self::AcknowledgedBeforeTheCommit, Checker::Durable),
        (Self::ConfirmedBeforeTheApiHasIt, Checker::Durable),
        (Self::ReportsOvertakeEachOther, Checker::Order),
        (Self::FramesOfBeforeAreHandledLater, Checker::Deleted),
        (Self::OlderSessionsCount, Checker::OneSession),
        (Self::AKeyForEachFrame, Checker::Bounded),
        (Self::DifferenceWithoutDeletions, Checker::Agree),
        (Self::DigestsOfEarlierSessions, Checker::Agree),
        (Self::ForgottenWhenSent, Checker::Agree),
        (Self::AConfirmationSettlesEverything, Checker::Agree),
        (Self::TimersWaitForQuiet, Checker::Progress),
    ];
}

/// Identities of frames, the same for the same seed.
#[derive(Default)]
pub struct Ids(u64);

impl Ids {
    pub fn next(&mut self) -> MsgId {
        self.0 += 1;
        MsgId::new(&format!("m{}", self.0)).unwrap()
    }
}

macro_rules! tally {
    ($($name:ident),*) => {
        /// How often what happened.
        #[derive(Clone, Copy, Default)]
        pub struct Tally { $(pub $name: u64),* }

        impl Tally {
            pub fn add(&mut self, other: Self) {
                $(self.$name += other.$name;)*
            }

            /// Whether everything happened at least once.
            pub fn is_varied(&self) -> bool {
                [$(self.$name),*].iter().all(|count| *count > 0)
            }
        }

        impl fmt::Display for Tally {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                $(write!(f, "{} {}, ", self.$name, stringify!($name).replace('_', " "))?;)*
                Ok(())
            }
        }
    };
}

tally!(
    runs,
    steps,
    connects,
    cuts,
    cuts_one_way,
    edges_killed,
    clouds_killed,
    downstreams_killed,
    disks_failed,
    apis_failed,
    frames_down,
    frames_up,
    lists
);

const EDGES: usize = 3;
const NAMES: usize = 4;
const PROPERTIES: [&str; 2] = ["speed", "mode"];
pub struct World {
    rng: StdRng,
    ids: Ids,
    now: u64,
    api: Api,
    cloud: Cloud,
    edges: Vec<Edge>,
    /// Connections that their edge has left and the cloud has not.
    left: Vec<(usize, Connection)>,
    /// In the breaking: frames of connections that ended, handled all the same.
    late: BTreeMap<usize, Vec<String>>,
    sessions: u64,
    counter: u64,
    wanted: BTreeMap<usize, BTreeMap<String, u64>>,
    healing: bool,
    pub checks: Checks,
    pub tally: Tally,
    broken: Option<Broken>,
}

fn node(index: usize) -> NodeName {
    NodeName::new(&format!("edge-{index}")).unwrap()
}

fn key(kind: ResourceKind, name: &str) -> ResourceKey {
    format!("default/{kind}/{name}").parse().unwrap()
}

fn lamp(edge: usize) -> DeviceId {
    DeviceId::new(&format!("lamp-{edge}")).unwrap()
}

impl World {
    pub fn new(seed: u64, broken: Option<Broken>) -> Self {
        let mut api = Api::default();
        for edge in 0..EDGES {
            api.put(&key(ResourceKind::Node, node(edge).as_str()), json!({ "metadata": { "labels": { "node-role.kubernetes.io/edge": "" } } }));
            api.put_device(lamp(edge).as_str(), node(edge).as_str(), &PROPERTIES, &BTreeMap::new());
        }
        let cloud = Cloud::start(&api, broken);
        let edges = (0..EDGES).map(|edge| Edge::new(node(edge), broken)).collect();
        Self {
            rng: StdRng::seed_from_u64(seed),
            ids: Ids::default(),
            now: 0,
            api,
            cloud,
            edges,
            left: Vec::new(),
            late: BTreeMap::new(),
            sessions: 0,
            counter: 0,
            wanted: BTreeMap::new(),
            healing: false,
            checks: Checks::default(),
            tally: Tally { runs: 1, ..Tally::default() },
            broken,
        }
    }

    fn chance(&mut self, one_in: u32) -> bool {
        self.rng.random_range(0..one_in) == 0
    }

    fn number(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    /// One thing happens.
    pub fn step(&mut self) {
        self.tally.steps += 1;
        let edge = self.rng.random_range(0..EDGES);
        match self.rng.random_range(0..200) {
            0..16 => self.change_an_object(),
            16..22 => self.want_something(edge),
            22..30 => self.device_speaks(edge),
            30..36 => self.pod_is_looked_at(edge),
            36..62 => {
                let watched = WATCHED[self.rng.random_range(0..WATCHED.len())];
                if self.chance(60) {
                    self.tally.lists += 1;
                    self.cloud.list(&self.api, watched);
                } else {
                    self.cloud.watch(&self.api, watched);
                }
            }
            62..90 => drop(self.control()),
            90..116 => drop(self.pull(edge)),
            116..142 => drop(self.arrive_at_edge(edge)),
            142..158 => drop(self.handle(edge)),
            158..184 => drop(self.arrive_at_cloud(edge)),
            184..188 => self.pass(1_000),
            188 => {
                let long = self.rng.random_range(2_000..40_000);
                self.pass(long);
            }
            189..195 => self.connect(edge),
            195 | 196 => self.cut(edge),
            197 | 198 => self.old_connections(),
            _ => self.misfortune(edge),
        }
    }

    fn misfortune(&mut self, edge: usize) {
        match self.rng.random_range(0..6) {
            0 | 1 => {
                self.tally.edges_killed += 1;
                self.edges[edge].kill(self.now);
                self.leave(edge);
            }
            2 => self.kill_cloud(),
            3 => {
                self.tally.downstreams_killed += 1;
                self.with_cloud(|cloud, around| cloud.restart_downstream(around));
            }
            _ => {
                self.tally.cuts_one_way += 1;
                let down = self.chance(2);
                if let Some(connection) = &mut self.edges[edge].connection {
                    if down { connection.down_is_black = true } else { connection.up_is_black = true }
                }
            }
        }
    }

    fn kill_cloud(&mut self) {
        self.tally.clouds_killed += 1;
        self.cloud = Cloud::start(&self.api, self.broken);
        self.left.clear();
        // Its sockets are closed by the kernel, which the edges see or not.
        for edge in 0..EDGES {
            if let Some(connection) = &mut self.edges[edge].connection {
                connection.cloud_holds = false;
                connection.up.clear();
            }
            if self.chance(2) {
                self.leave(edge);
            }
        }
    }

    fn with_cloud<T>(&mut self, body: impl FnOnce(&mut Cloud, &mut cloud::Around<'_>) -> T) -> T {
        let api_fails = !self.healing && self.rng.random_range(0..8) == 0;
        self.tally.apis_failed += u64::from(api_fails);
        let mut around = cloud::Around { api: &mut self.api, checks: &mut self.checks, ids: &mut self.ids, now: self.now, api_fails };
        body(&mut self.cloud, &mut around)
    }

    fn with_edge<T>(&mut self, edge: usize, body: impl FnOnce(&mut Edge, &mut edge::Around<'_>) -> T) -> T {
        let disk_fails = !self.healing && self.rng.random_range(0..8) == 0;
        self.tally.disks_failed += u64::from(disk_fails);
        let mut around = edge::Around { checks: &mut self.checks, ids: &mut self.ids, now: self.now, disk_fails };
        body(&mut self.edges[edge], &mut around)
    }

    // What people and devices do.

    fn change_an_object(&mut self) {
        let kind = if self.chance(2) { ResourceKind::Pod } else { HELD_KINDS[self.rng.random_range(0..HELD_KINDS.len())] };
        let name = format!("{kind}-{}", self.rng.random_range(0..NAMES));
        if self.chance(4) {
            return self.api.delete(&key(kind, &name));
        }
        let number = self.number();
        let object = match kind {
            ResourceKind::Pod => {
                let on = self.rng.random_range(0..EDGES);
                let (config, secret) = (self.rng.random_range(0..NAMES), self.rng.random_range(0..NAMES));
                // The node of a pod does not change, but another one may come under its name.
                if self.api.objects.contains_key(&key(kind, &name)) {
                    return;
                }
                json!({ "spec": { "nodeName": node(on).as_str(), "containers": [{ "name": "c", "image": number.to_string() }],
                    "volumes": [{ "name": "v", "configMap": { "name": format!("configmap-{config}") } }, { "name": "s", "secret": { "secretName": format!("secret-{secret}") } }] } })
            }
            _ => json!({ "data": { "k": number.to_string() } }),
        };
        self.api.put(&key(kind, &name), object);
    }

    fn want_something(&mut self, edge: usize) {
        let number = self.number();
        let property = PROPERTIES[self.rng.random_range(0..PROPERTIES.len())];
        let wanted = self.wanted.entry(edge).or_default();
        wanted.insert(property.to_owned(), number);
        self.api.put_device(lamp(edge).as_str(), node(edge).as_str(), &PROPERTIES, wanted);
    }

    fn device_speaks(&mut self, edge: usize) {
        let number = self.number();
        let property = PROPERTIES[self.rng.random_range(0..PROPERTIES.len())];
        let set = PropertySet { actual: Some(SideChange { value: number.to_string() }), ..PropertySet::default() };
        let mut change = TwinChange::default();
        change.properties.insert(PropertyName::new(property).unwrap(), PropertyChange::Set(set));
        let told = self.with_edge(edge, |edge, around| edge.merge(&lamp_of(&edge.name), &change, Origin::Device, around));
        // It is told so, and may rely on it.
        if told == Some(true) {
            self.edges[edge].promised.insert(format!("{}/{property}", lamp(edge)), number);
            self.with_edge(edge, |edge, around| edge.send_reports(around));
        }
    }

    fn pod_is_looked_at(&mut self, edge: usize) {
        let (which, state) = (self.rng.random_range(0..NAMES), self.number());
        self.with_edge(edge, |edge, around| edge.look_at_a_pod(which, state, around));
    }

    // What moves by itself. Each says whether anything did.

    fn control(&mut self) -> bool {
        self.with_cloud(|cloud, around| cloud.control(around))
    }

    /// The session of an edge's connection takes what there is to send.
    fn pull(&mut self, edge: usize) -> bool {
        let Some(connection) = &mut self.edges[edge].connection else { return false };
        if !connection.cloud_holds || connection.down.len() >= ON_THE_WAY_MAX {
            return false;
        }
        let Some(text) = self.cloud.next(&node(edge), connection.session, self.now) else { return false };
        connection.down.push_back(text);
        true
    }

    fn arrive_at_edge(&mut self, edge: usize) -> bool {
        if self.chance(6)
            && let Some(late) = self.late.get_mut(&edge).and_then(Vec::pop)
        {
            self.edges[edge].inbox.push_back(Mail::Frame { session: 0, text: late });
        }
        let this = &mut self.edges[edge];
        let Some(connection) = this.connection.as_mut().filter(|connection| !connection.down_is_black) else { return false };
        let (Some(text), session) = (connection.down.pop_front(), connection.session) else { return false };
        this.inbox.push_back(Mail::Frame { session, text });
        self.tally.frames_down += 1;
        true
    }

    fn handle(&mut self, edge: usize) -> bool {
        self.with_edge(edge, |edge, around| edge.handle(around))
    }

    fn arrive_at_cloud(&mut self, edge: usize) -> bool {
        let swaps = self.broken == Some(Broken::ReportsOvertakeEachOther) && self.chance(2);
        let Some(connection) = self.edges[edge].connection.as_mut().filter(|connection| !connection.up_is_black && connection.cloud_holds) else {
            return false;
        };
        if swaps && connection.up.len() > 1 {
            connection.up.swap(0, 1);
        }
        let (Some(text), session) = (connection.up.pop_front(), connection.session) else { return false };
        self.tally.frames_up += 1;
        self.with_cloud(|cloud, around| cloud.heard(&node(edge), session, &text, around));
        true
    }

    /// What an edge wrote into a connection that it has left may still arrive; then the cloud sees its end.
    fn old_connections(&mut self) {
        if self.left.is_empty() {
            return;
        }
        let which = self.rng.random_range(0..self.left.len());
        let (edge, connection) = &mut self.left[which];
        let (edge, session) = (*edge, connection.session);
        match connection.up.pop_front().filter(|_| !connection.up_is_black) {
            Some(text) => self.with_cloud(|cloud, around| cloud.heard(&node(edge), session, &text, around)),
            None => {
                self.left.remove(which);
                self.cloud.down(&node(edge), session);
            }
        }
    }

    fn pass(&mut self, millis: u64) {
        self.now += millis;
        if self.broken == Some(Broken::TimersWaitForQuiet) && self.is_busy() {
            return;
        }
        self.with_cloud(|cloud, around| cloud.tick(around));
        for edge in 0..EDGES {
            self.with_edge(edge, |edge, around| edge.tick(around));
        }
    }

    fn is_busy(&self) -> bool {
        !self.cloud.inbox.is_empty() || WATCHED.iter().any(|watched| self.api.log_len(*watched) > 0)
    }

    fn connect(&mut self, edge: usize) {
        let stands = self.edges[edge].connection.as_ref().is_some_and(|connection| connection.cloud_holds);
        if stands && !self.chance(10) {
            return;
        }
        self.leave(edge);
        self.tally.connects += 1;
        self.sessions += 1;
        let session = self.sessions;
        self.with_cloud(|cloud, around| cloud.up(&node(edge), session, around));
        let this = &mut self.edges[edge];
        this.connection = Some(Connection::new(session));
        this.inbox.push_back(Mail::Connected { session, capabilities: Capabilities::OURS });
    }

    /// The edge gives its connection up. What is on its way to the cloud may still arrive, what is on its way to it is lost.
    fn leave(&mut self, edge: usize) {
        let this = &mut self.edges[edge];
        let Some(mut connection) = this.connection.take() else { return };
        if self.broken == Some(Broken::FramesOfBeforeAreHandledLater) {
            // In the breaking: they are kept, and handled behind what the next session brings.
            self.late.entry(edge).or_default().extend(connection.down.drain(..));
        }
        self.edges[edge].inbox.push_back(Mail::Disconnected);
        connection.edge_holds = false;
        connection.down.clear();
        if connection.cloud_holds {
            self.left.push((edge, connection));
        }
    }

    fn cut(&mut self, edge: usize) {
        self.tally.cuts += 1;
        if let Some(connection) = &mut self.edges[edge].connection {
            // Of what is on its way a part is lost.
            let keeps = if connection.up.is_empty() { 0 } else { self.rng.random_range(0..connection.up.len()) };
            connection.up.truncate(keeps);
        }
        self.leave(edge);
    }
}

fn lamp_of(node: &NodeName) -> DeviceId {
    DeviceId::new(&node.as_str().replace("edge", "lamp")).unwrap()
}
