//! What is shipped beside the programs says the same as the programs.

use std::process::Command;

use harness::{program, top};

fn read(path: &str) -> String {
    std::fs::read_to_string(top().join(path)).unwrap()
}

#[test]
fn the_shipped_edge_configuration_is_what_the_program_prints() {
    let output = Command::new(program("skep-edge")).arg("config").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), read("deploy/edge/edge.yaml"));
}

#[test]
fn the_unit_does_not_restart_on_a_configuration_error_and_is_the_one_systemd_understands() {
    let unit = read("deploy/edge/skep-edge.service");
    for line in
        ["Type=notify", "RestartPreventExitStatus=78", "Environment=MALLOC_ARENA_MAX=8", "Restart=on-failure", "ExecReload=/bin/kill -HUP $MAINPID"]
    {
        assert!(unit.lines().any(|found| found == line), "{line} is not in the unit");
    }
    assert!(unit.contains("WatchdogSec="));
}

#[test]
fn the_cloud_manifests_are_valid_for_kustomize() {
    let output = Command::new("kubectl").args(["kustomize", "deploy/cloud"]).current_dir(top()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for kind in ["Deployment", "Service", "ClusterRole", "CustomResourceDefinition"] {
        assert!(text.contains(&format!("kind: {kind}")), "no {kind}");
    }
}
