//! An edge that asks where its cloud is goes on asking, whatever it is told, and says what was wrong.

use harness::placement::{Answer, PlacementServer};
use harness::{CloudUnderTest, EdgeUnderTest, Line, eventually, http};

use super::{attentive_cloud, attentive_edge};

/// The edge waits longer and longer between two attempts, 30 s at most.
const NEXT_ATTEMPT_SECS: u64 = 40;

/// An edge that asks behind this port, and is told of no other address.
#[track_caller]
fn asking_edge(cloud: &CloudUnderTest, port: u16) -> EdgeUnderTest {
    // Its fixed address leads nowhere.
    let mut options = attentive_edge(1);
    options.environment.extend([
        ("SKEP_EDGEHUB__CONTROLLER__PLACEMENT".to_owned(), "true".to_owned()),
        ("SKEP_EDGEHUB__CONTROLLER__PLACEMENT_URL".to_owned(), format!("https://127.0.0.1:{port}/placement")),
    ]);
    EdgeUnderTest::start_with(cloud, options)
}

fn is_connected(edge: &EdgeUnderTest) -> Result<(), String> {
    let found = http::metric(edge.admin_port, "skep_edge_cloud_connected")?;
    if found == 1.0 { Ok(()) } else { Err(format!("cloud_connected is {found}")) }
}

#[test]
fn an_edge_connects_where_the_placement_server_sends_it_once_it_answers_well() {
    let cloud = CloudUnderTest::start_with(attentive_cloud());
    let server = PlacementServer::start(&cloud.file("pki"), Answer::Silence);
    let line = Line::tcp(server.port);
    line.refuse();
    let mut edge = asking_edge(&cloud, line.port());
    let huge = Answer::Body(format!("wss://{}", "x".repeat(1 << 20)));
    let says = |edge: &mut EdgeUnderTest, words: &str| {
        let log = edge.daemon().output();
        let found = log.lines().any(|line| line.contains("WARN") && line.contains("cannot be reached") && line.contains(words));
        if found { Ok(()) } else { Err(edge.daemon().tail()) }
    };
    eventually!(NEXT_ATTEMPT_SECS, "it says that nobody is there", says(&mut edge, "cannot be asked"));
    line.mend();
    for (answer, words) in [
        (Answer::Silence, "did not answer within 2s"),
        (huge, "it is longer than 16 KiB"),
        (Answer::Raw(b"\x00\xff nonsense".to_vec()), "it is not text"),
        (Answer::Raw(b"HTTP/1.1 503 Busy\r\n\r\n".to_vec()), "refused with HTTP status 503"),
        (Answer::Body("https://127.0.0.1".to_owned()), "it is not of the form wss://host:port"),
    ] {
        server.say(answer);
        eventually!(NEXT_ATTEMPT_SECS, "it says what was wrong", says(&mut edge, words));
        edge.daemon().must_run().unwrap();
        is_connected(&edge).unwrap_err();
    }
    server.say(Answer::Body(format!("wss://127.0.0.1:{}", cloud.hub_port)));
    eventually!(NEXT_ATTEMPT_SECS, "it connects", is_connected(&edge));
    let ready = "{.status.conditions[?(@.type==\"Ready\")].status}";
    eventually!(30, "the node is Ready", cloud.kubectl().value_is("node", &edge.node, ready, "True"));
}

#[test]
fn an_edge_follows_its_cloud_to_where_the_placement_server_says_that_it_is() {
    let cloud = CloudUnderTest::start_with(attentive_cloud());
    let ways = [Line::tcp(cloud.hub_port), Line::tcp(cloud.hub_port)];
    let address = |way: &Line| Answer::Body(format!("wss://127.0.0.1:{}", way.port()));
    let server = PlacementServer::start(&cloud.file("pki"), address(&ways[0]));
    let edge = asking_edge(&cloud, server.port);
    eventually!(20, "it connects", is_connected(&edge));
    assert_eq!(ways[1].made(), 0);
    let asked = server.asked();

    server.say(address(&ways[1]));
    ways[0].refuse();
    eventually!(20, "it connects by the other way", if ways[1].made() == 0 { Err("not yet".to_owned()) } else { is_connected(&edge) });
    assert!(server.asked() > asked, "it asked again");
}
