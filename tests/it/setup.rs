//! What a newcomer meets before anything is built.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use harness::top;

/// A PATH with the shell's own tools and nothing that Skep needs.
fn bare_path(dir: &Path) -> String {
    for tool in ["bash", "sed", "head", "tail", "sort", "awk", "id", "cat", "dirname", "timeout", "uname", "grep", "env"] {
        let found = ["/usr/bin", "/bin"].iter().map(|dir| Path::new(dir).join(tool)).find(|path| path.exists()).unwrap();
        symlink(found, dir.join(tool)).unwrap();
    }
    dir.display().to_string()
}

#[test]
fn with_skep_setup_no_nothing_is_installed_and_what_is_missing_is_listed() {
    let dir = tempfile::tempdir().unwrap();
    let bin = dir.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    let output = Command::new("/bin/bash")
        .arg(top().join("deploy/setup.sh"))
        .args(["--for", "ci"])
        .env_clear()
        .env("PATH", bare_path(&bin))
        .env("HOME", dir.path())
        // The script looks in the system's directories for daemons; `apt-get` there must not be used.
        .env("SKEP_SETUP", "no")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    for missing in ["cmake", "Rust", "kubectl", "mosquitto-clients", "Docker engine", "sqlite3", "shellcheck", "cargo-deny"] {
        assert!(said.contains(missing), "`{missing}` is not listed:\n{said}");
    }
    assert!(said.contains("SKEP_SETUP=no"), "{said}");
    assert!(said.contains("no Chromium") && said.contains("tests of the admin page will be skipped"), "{said}");
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["bin"], "something was written to the home directory");
}

#[test]
fn an_unknown_scope_is_a_usage_error() {
    let output = Command::new(top().join("deploy/setup.sh")).args(["--for", "everything"]).output().unwrap();
    assert_eq!(output.status.code(), Some(64));
}

#[test]
fn the_commands_of_the_manual_exist() {
    for target in ["demo", "test", "edge_test", "edge_integration_test", "lint", "dist", "bench"] {
        let output = Command::new("make").args(["--dry-run", target]).current_dir(top()).output().unwrap();
        assert!(output.status.success(), "make {target}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
