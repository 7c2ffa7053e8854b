//! Bad input over MQTT: each is answered on the topic of its own device with code and reason, or passed over, and none costs
//! another client a message.

use std::fs;

use harness::mqtt::Listener;
use harness::{EdgeOptions, EdgeUnderTest, RawClient, eventually, sqlite};
use serde_json::{Value, json};

const BODY: &str = "Unmarshal update request body failed, please check the request";
const KEY: &str = "The key of twin must only include";
const VALUE: &str = "The value of twin must only include";
/// Ids that stand in the topics' own words.
const ODD_IDS: &[&str] = &["device", "hw", "events", "d", "twin", "$hw", "state", "update", "twin/update", "hw/events", "device/twin"];

/// An edge with devices and no cloud, a client that behaves, one that does not, and somebody who hears all results.
struct Scene {
    edge: EdgeUnderTest,
    good: RawClient,
    bad: RawClient,
    heard: Listener,
    count: u32,
}

impl Scene {
    fn start() -> Self {
        let mut edge = EdgeUnderTest::prepare(EdgeOptions { hub_port: 1, ..EdgeOptions::default() });
        let base = fs::read_to_string(edge.config()).unwrap();
        fs::write(edge.config(), format!("{base}modules: {{enabled: [eventbus, metaManager, twin]}}\n")).unwrap();
        edge.run();
        edge.answers();
        edge.stop();
        let rows: Vec<String> = ["good", "bad"].iter().chain(ODD_IDS).map(|id| format!("('{id}', '{id}', '', '', '')")).collect();
        let columns = "id, name, description, state, last_online";
        sqlite::execute(&edge.database(), &format!("INSERT INTO device ({columns}) VALUES {}", rows.join(", ")));
        edge.run();
        edge.answers();
        let port = edge.mqtt_port;
        let heard = Listener::subscribe(port, "$hw/events/#");
        let (mut good, bad) = (RawClient::connect(port, "good"), RawClient::connect(port, "bad"));
        // EventBus may connect after the broker listens: until then nobody is there to take a message.
        eventually!(30, "an update is answered", {
            good.publish(b"$hw/events/device/good/twin/update", br#"{"event_id":"first","twin":{}}"#)?;
            heard.find("$hw/events/device/good/twin/update/result", |body| body["event_id"] == "first")
        });
        Self { edge, good, bad, heard, count: 0 }
    }

    /// The client that behaves is answered, on the connection that it had all the time.
    #[track_caller]
    fn others_are_served(&mut self, after: &str) {
        self.count += 1;
        let (event, value) = (format!("good-{}", self.count), self.count.to_string());
        let body = json!({"event_id": event, "timestamp": 1, "twin": {"t": {"actual": {"value": value}}}}).to_string();
        self.good.publish(b"$hw/events/device/good/twin/update", body.as_bytes()).unwrap_or_else(|error| panic!("after {after}: {error}"));
        let result = "$hw/events/device/good/twin/update/result";
        let answer = eventually!(
            30,
            &format!("the other client is answered after {after}"),
            self.heard.find(result, |body| body["event_id"] == event.as_str())
        );
        assert_eq!(answer["twin"]["t"]["actual"]["value"], value.as_str(), "after {after}");
        self.edge.daemon().must_run().unwrap();
    }

    /// What the client that does not behave says, and the answer that it gets on the topic `result`.
    #[track_caller]
    fn answer(&mut self, what: &str, topic: &str, payload: &[u8], result: &str) -> Value {
        let before = self.on(result).len();
        self.bad.publish(topic.as_bytes(), payload).unwrap_or_else(|error| panic!("{what}: {error}"));
        let answer = eventually!(30, &format!("{what} is answered on {result}"), {
            let answers = self.on(result);
            answers.get(before).cloned().ok_or_else(|| format!("{} answers", answers.len()))
        });
        self.others_are_served(what);
        assert_eq!(self.on(result).len(), before + 1, "{what} is answered once");
        serde_json::from_str(&answer).unwrap()
    }

    /// It is passed over: no answer anywhere, to the end of an answer to somebody who asked later.
    #[track_caller]
    fn no_answer(&mut self, what: &str, topic: &[u8], payload: &[u8]) {
        let before = self.results().len();
        self.bad.publish_unconfirmed(topic, payload).unwrap_or_else(|error| panic!("{what}: {error}"));
        // Its own connection is in order, or the broker has ended it; both are no answer of ours.
        if self.bad.publish(b"any/topic", b"").is_err() {
            self.bad = RawClient::connect(self.edge.mqtt_port, "bad");
        }
        self.others_are_served(what);
        let answers: Vec<String> = self.results().into_iter().skip(before).filter(|topic| !topic.contains("/good/")).collect();
        assert!(answers.is_empty(), "{what}: {answers:?}");
    }

    fn on(&self, topic: &str) -> Vec<String> {
        self.heard.all().into_iter().filter(|heard| heard.topic == topic).map(|heard| heard.payload).collect()
    }

    fn results(&self) -> Vec<String> {
        self.heard.all().into_iter().map(|heard| heard.topic).filter(|topic| topic.ends_with("/result")).collect()
    }

    /// Everything else is as it was: no actor died, nothing was set aside.
    fn ends_unharmed(mut self) {
        self.others_are_served("all of it");
        let output = self.edge.daemon().output();
        assert!(!output.contains("panicked") && !output.contains("set aside"), "{output}");
    }
}

fn twin_update(event: &str, twin: &str) -> Vec<u8> {
    format!(r#"{{"event_id":"{event}","timestamp":1,"twin":{twin}}}"#).into_bytes()
}

#[test]
fn what_is_no_request_is_refused_on_the_topic_of_its_own_device() {
    let mut scene = Scene::start();
    let (topic, result) = ("$hw/events/device/bad/twin/update", "$hw/events/device/bad/twin/update/result");
    let deep = "[".repeat(100_000);
    let deep_inside = format!(r#"{{"event_id":"e","twin":{{"t":{deep}"#);
    for (what, payload, event, reason) in [
        ("nothing at all", &b""[..], "", BODY),
        ("no JSON", b"hello", "", BODY),
        ("half of a request", br#"{"event_id":"e","twin":{"#, "", BODY),
        ("null", b"null", "", BODY),
        ("a list", b"[]", "", BODY),
        ("a deep list", deep.as_bytes(), "", BODY),
        ("a list deep inside", deep_inside.as_bytes(), "", BODY),
        ("bytes that are no text", b"\xff\xfe{\"twin\":{}}", "", BODY),
        ("no twin", br#"{"event_id":"e"}"#, "e", "Update twin error, key:twin does not exist"),
        ("a twin of null", br#"{"event_id":"e","twin":null}"#, "e", "Update twin error, key:twin does not exist"),
        ("a number where the value belongs", br#"{"event_id":"e","twin":{"t":{"actual":{"value":19}}}}"#, "e", BODY),
        ("a text where optional belongs", br#"{"event_id":"e","twin":{"t":{"optional":"true"}}}"#, "e", BODY),
        ("a number where the type belongs", br#"{"event_id":"e","twin":{"t":{"metadata":{"type":7}}}}"#, "e", BODY),
        ("a number where the event id belongs", br#"{"event_id":7,"twin":{"t":{}}}"#, "", BODY),
        ("a text where the time belongs", br#"{"event_id":"e","timestamp":"now","twin":{}}"#, "e", BODY),
        ("a time beyond 64 bits", br#"{"event_id":"e","timestamp":9223372036854775808,"twin":{}}"#, "e", BODY),
        ("twin twice", br#"{"event_id":"e","twin":{},"twin":{}}"#, "e", BODY),
        ("a value with a blank", br#"{"event_id":"e","twin":{"t":{"actual":{"value":"1 2"}}}}"#, "e", VALUE),
        (
            "a type that there is not",
            br#"{"event_id":"e","twin":{"t":{"actual":{"value":"1"},"metadata":{"type":"double"}}}}"#,
            "e",
            "the value type is not allowed",
        ),
        ("deleting what is not there", br#"{"event_id":"e","twin":{"never":null}}"#, "e", "the request body is wrong"),
    ] {
        let answer = scene.answer(what, topic, payload, result);
        assert_eq!((&answer["code"], &answer["event_id"]), (&json!(400), &json!(event)), "{what}: {answer}");
        assert!(answer["reason"].as_str().unwrap().starts_with(reason), "{what}: {answer}");
        assert!(answer.to_string().len() < 2048, "{what}: the answer does not repeat what was sent");
    }
    let (topic, result) = ("$hw/events/device/bad/twin/get", "$hw/events/device/bad/twin/get/result");
    let answer = scene.answer("a question that is no JSON", topic, deep.as_bytes(), result);
    assert_eq!(answer["code"], 400);
    assert!(answer["reason"].as_str().unwrap().starts_with("Unmarshal twin info [[["), "{answer}");
    let result = format!("$hw/events/node/{}/membership/get/result", scene.edge.node);
    let answer = scene.answer("a question for the list that is no JSON", "$hw/events/node/any/membership/get", b"{", &result);
    assert_eq!(answer["code"], 400);
    // KubeEdge answers no state that it cannot read, and of no device that it does not know.
    scene.no_answer("a state that is none", b"$hw/events/device/bad/state/update", br#"{"state":"dancing"}"#);
    scene.no_answer("a state that is no JSON", b"$hw/events/device/bad/state/update", deep.as_bytes());
    scene.no_answer("the state of nobody", b"$hw/events/device/nobody/state/update", br#"{"state":"online"}"#);
    assert_eq!(sqlite::query(&scene.edge.database(), "SELECT count(*) FROM device_twin WHERE deviceid = 'bad'").unwrap(), "0");
    scene.ends_unharmed();
}

#[test]
fn a_payload_above_the_limit_ends_its_own_connection_and_no_other() {
    let mut scene = Scene::start();
    for (what, bytes) in [("10 MB", 10 << 20), ("a little too much", 1 << 20)] {
        let mut large = RawClient::connect(scene.edge.mqtt_port, "large");
        // The broker may end the connection while this is still being written.
        let _ = large.publish_unconfirmed(b"$hw/events/device/bad/twin/update", &vec![b' '; bytes]);
        scene.others_are_served(what);
        large.ends().unwrap_or_else(|error| panic!("{what}: {error}"));
        scene.others_are_served(what);
    }
    assert!(scene.on("$hw/events/device/bad/twin/update/result").is_empty());
    scene.bad.publish(b"any/topic", b"").unwrap();
    scene.ends_unharmed();
}

#[test]
fn of_a_property_named_twice_the_last_counts_and_a_hundred_thousand_are_too_many() {
    let mut scene = Scene::start();
    let (topic, result) = ("$hw/events/device/bad/twin/update", "$hw/events/device/bad/twin/update/result");
    let twice = twin_update("e", r#"{"t":{"actual":{"value":"1"},"expected":{"value":"9"}},"t":{"actual":{"value":"2"}}}"#);
    let answer = scene.answer("a property named twice", topic, &twice, result);
    assert_eq!(answer["twin"]["t"]["actual"]["value"], "2", "{answer}");
    assert_eq!(answer["twin"]["t"]["expected"], Value::Null, "nothing of the first is left");
    scene.edge.twin_is("bad", "t", "actual", "2").unwrap();

    let letters: Vec<char> = ('0'..='9').chain('a'..='z').chain('A'..='Z').collect();
    let name = |n: usize| [n / 3844, n / 62 % 62, n % 62].map(|digit| letters[digit]).iter().collect::<String>();
    let many: Vec<String> = (0..100_000).map(|n| format!(r#""{}":{{}}"#, name(n))).collect();
    let answer = scene.answer("100,000 properties", topic, &twin_update("many", &format!("{{{}}}", many.join(","))), result);
    assert_eq!(
        (&answer["code"], &answer["event_id"], &answer["reason"]),
        (&json!(400), &json!("many"), &json!("a device has at most 1024 twin properties"))
    );
    let rows = sqlite::query(&scene.edge.database(), "SELECT count(*) FROM device_twin WHERE deviceid = 'bad'").unwrap();
    assert_eq!(rows, "1", "nothing of it was stored");
    scene.ends_unharmed();
}

#[test]
fn property_names_are_kept_as_they_are_or_refused() {
    let mut scene = Scene::start();
    let (topic, result) = ("$hw/events/device/bad/twin/update", "$hw/events/device/bad/twin/update/result");
    // KubeEdge's alphabet has these; they never become a topic or a file name here.
    for name in ["#", "/", "..", "../../etc/passwd", "a/#", "@", ":", "-", "."] {
        let answer = scene.answer(name, topic, &twin_update(name, &format!(r#"{{"{name}":{{"actual":{{"value":"1"}}}}}}"#)), result);
        assert_eq!(answer["twin"][name]["actual"]["value"], "1", "{answer}");
        scene.edge.twin_is("bad", name, "actual", "1").unwrap();
    }
    for name in ["+", "a+b", r"\u0000", r"a\u0000b", r#"\""#, "'", r"\n", r"\u2028", "ä", " ", "", &"x".repeat(129), "'; DROP TABLE device_twin; --"]
    {
        let answer = scene.answer(name, topic, &twin_update("e", &format!(r#"{{"{name}":{{"actual":{{"value":"1"}}}}}}"#)), result);
        assert_eq!((&answer["code"], &answer["event_id"]), (&json!(400), &json!("e")), "{name:?}: {answer}");
        assert!(answer["reason"].as_str().unwrap().starts_with(KEY), "{name:?}: {answer}");
    }
    let rows = sqlite::query(&scene.edge.database(), "SELECT count(*) FROM device_twin WHERE deviceid = 'bad'").unwrap();
    assert_eq!(rows, "9");
    scene.ends_unharmed();
}

#[test]
fn a_device_whose_id_is_a_part_of_its_topic_is_served_like_any_other() {
    let mut scene = Scene::start();
    for (number, id) in ODD_IDS.iter().enumerate() {
        let (topic, value) = (format!("$hw/events/device/{id}/twin/update"), number.to_string());
        let body = twin_update("e", &format!(r#"{{"t":{{"actual":{{"value":"{value}"}}}}}}"#));
        let answer = scene.answer(id, &topic, &body, &format!("{topic}/result"));
        assert_eq!(answer["twin"]["t"]["actual"]["value"], value.as_str(), "{id}: {answer}");
        scene.edge.twin_is(id, "t", "actual", &value).unwrap();
        let bad = scene.answer(id, &topic, b"{", &format!("{topic}/result"));
        assert_eq!(bad["code"], 400, "{id}: {bad}");
        let get = format!("$hw/events/device/{id}/twin/get");
        let answer = scene.answer(id, &get, br#"{"event_id":"g"}"#, &format!("{get}/result"));
        assert_eq!((&answer["event_id"], &answer["twin"]["t"]["actual"]["value"]), (&json!("g"), &json!(value)), "{id}: {answer}");
        let state = format!("$hw/events/device/{id}/state/update");
        let answer = scene.answer(id, &state, br#"{"state":"online"}"#, &format!("{state}/result"));
        assert_eq!((&answer["device"]["name"], &answer["device"]["state"]), (&json!(id), &json!("online")), "{answer}");
    }
    // One of the same kind that is not there hears so, on its own topic.
    let topic = "$hw/events/device/result/twin/update";
    let answer = scene.answer("nobody", topic, &twin_update("e", "{}"), &format!("{topic}/result"));
    assert_eq!((&answer["code"], &answer["reason"]), (&json!(404), &json!("update rejected due to the device is not existed")));
    scene.ends_unharmed();
}

#[test]
fn a_topic_with_a_wildcard_or_without_a_device_reaches_nobody() {
    let mut scene = Scene::start();
    let body = twin_update("e", r#"{"t":{"actual":{"value":"666"}}}"#);
    let long = format!("$hw/events/device/{}/twin/update", "x".repeat(300));
    for (what, topic) in [
        ("+ for the device", &b"$hw/events/device/+/twin/update"[..]),
        ("# at the end", b"$hw/events/device/#"),
        ("+ in a name", b"$hw/events/device/b+d/twin/update"),
        ("no device", b"$hw/events/device//twin/update"),
        ("no device and no namespace", b"$hw/events/device///twin/update"),
        ("a level too many", b"$hw/events/device/a/b/c/twin/update"),
        ("an unknown word", b"$hw/events/device/bad/twin/undo"),
        ("NUL in the topic", b"$hw/events/device/ba\0d/twin/update"),
        ("a line feed in the topic", b"$hw/events/device/ba\nd/twin/update"),
        ("a topic that is no text", b"$hw/events/device/\xff\xfe/twin/update"),
        ("no topic", b""),
        ("a name without end", long.as_bytes()),
        ("a false result", b"$hw/events/device/bad/twin/update/document"),
    ] {
        scene.no_answer(what, topic, &body);
    }
    let rows = sqlite::query(&scene.edge.database(), "SELECT count(*) FROM device_twin WHERE actual = '666'").unwrap();
    assert_eq!(rows, "0");
    scene.ends_unharmed();
}

#[test]
fn the_times_of_a_request_are_not_used() {
    let mut scene = Scene::start();
    let (topic, result) = ("$hw/events/device/bad/twin/update", "$hw/events/device/bad/twin/update/result");
    let now = || i64::try_from(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis()).unwrap();
    for (number, time) in [i64::MAX, i64::MIN, -1, 0, 253_402_300_800_000].into_iter().enumerate() {
        let side = |value: usize| json!({"value": value.to_string(), "metadata": {"timestamp": time}});
        let body = json!({"event_id": "e", "timestamp": time, "twin": {"t": {"expected": side(number + 1), "actual": side(number)}}});
        let before = now();
        let answer = scene.answer(&time.to_string(), topic, body.to_string().as_bytes(), result);
        let time_of = |value: &Value| value.as_i64().unwrap_or_else(|| panic!("{time}: {answer}"));
        for given in
            [&answer["timestamp"], &answer["twin"]["t"]["actual"]["metadata"]["timestamp"], &answer["twin"]["t"]["expected"]["metadata"]["timestamp"]]
        {
            assert!((before - 10..=now()).contains(&time_of(given)), "{time}: {answer}");
        }
        let stored: Value = serde_json::from_str(&scene.edge.twin("bad", "t", "actual_meta").unwrap()).unwrap();
        assert_eq!(stored["timestamp"], answer["twin"]["t"]["actual"]["metadata"]["timestamp"]);
    }
    scene.ends_unharmed();
}
