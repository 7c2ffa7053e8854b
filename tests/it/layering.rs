//! The arrows between packages and the two rules inside them, read from the sources.

use std::collections::BTreeMap;

use harness::sources::{Source, rust_files};
use harness::top;

/// What each package may use of the workspace. Cargo refuses cycles; this refuses arrows that point the wrong way.
const MAY_USE: &[(&str, &[&str])] = &[
    ("shared/model", &[]),
    ("shared/wire", &["model"]),
    ("shared/actor", &[]),
    ("shared/admin", &["actor"]),
    ("edge", &["model", "wire", "actor", "admin"]),
    ("cloud", &["model", "wire", "actor", "admin"]),
    ("tests", &["model", "wire", "skep-edge", "skep-cloud", "actor", "admin"]),
];

/// Crates that one package must not have, with the reason.
const NEVER: &[(&str, &[&str])] = &[
    ("shared/model", &["actix", "tokio", "diesel", "kube", "reqwest"]),
    ("shared/wire", &["actix", "tokio", "diesel", "kube", "tokio-tungstenite"]),
    ("shared/actor", &["diesel", "kube", "paho-mqtt"]),
    ("edge", &["kube", "k8s-openapi"]),
    ("cloud", &["paho-mqtt", "docker-api", "mqtt5"]),
];

/// Names of the normal dependencies in a package's Cargo.toml.
fn dependencies(package: &str) -> Vec<String> {
    let text = std::fs::read_to_string(top().join(package).join("Cargo.toml")).unwrap();
    let mut inside = false;
    let mut names = Vec::new();
    for line in text.lines() {
        if line.starts_with('[') {
            inside = line == "[dependencies]";
        } else if inside && let Some((name, _)) = line.split_once(['=', '.']) {
            names.push(name.trim().to_owned());
        }
    }
    names
}

#[test]
fn packages_point_in_one_direction() {
    let own = ["model", "wire", "actor", "admin", "skep-edge", "skep-cloud", "skep-tests"];
    for (package, allowed) in MAY_USE {
        for name in dependencies(package) {
            assert!(!own.contains(&name.as_str()) || allowed.contains(&name.as_str()), "{package} must not depend on {name}");
        }
    }
    for (package, never) in NEVER {
        for name in dependencies(package) {
            assert!(!never.contains(&name.as_str()), "{package} must not depend on {name}");
        }
    }
}

#[test]
fn diesel_is_known_in_two_folders_only() {
    let folders = ["edge/src/store/", "cloud/src/embedded/"];
    let strangers: Vec<String> = ["edge/src", "cloud/src", "shared"]
        .iter()
        .flat_map(|dir| rust_files(dir))
        .filter(|source| uses_crate(source, "diesel") || uses_crate(source, "diesel_migrations"))
        .map(|source| source.path.display().to_string())
        .filter(|path| !folders.iter().any(|folder| path.starts_with(folder)))
        .collect();
    assert!(strangers.is_empty(), "diesel outside {folders:?}: {strangers:?}");
}

#[test]
fn the_actor_package_knows_no_word_of_the_domain() {
    let words = ["twin", "mqtt", "kube", "device", "websocket"];
    for source in rust_files("shared/actor/src") {
        let code = source.code.to_lowercase();
        for word in words {
            assert!(!code.contains(word), "{} says `{word}`", source.path.display());
        }
    }
}

#[test]
fn no_module_reads_another_modules_state() {
    for daemon in ["edge/src", "cloud/src"] {
        for source in rust_files(daemon) {
            let path = source.path.to_string_lossy().into_owned();
            for module in modules_with_state(daemon) {
                if path.starts_with(&format!("{daemon}/{module}/")) {
                    continue;
                }
                let forbidden = [format!("{module}::state::"), format!("{module}::handlers::")];
                for word in forbidden {
                    assert!(!source.code.contains(&word), "{path} reaches into {word}");
                }
            }
        }
    }
}

/// Nested, `use crate::{twin::{state::X}}`, a path would be found by no search, and by no test above.
#[test]
fn a_use_names_one_module() {
    for dir in ["edge/src", "cloud/src", "shared", "tests"] {
        for source in rust_files(dir) {
            for (at, _) in source.code.match_indices("use ").filter(|(at, _)| *at == 0 || source.code[..*at].ends_with(['\n', ' '])) {
                let statement = source.code[at..].split(';').next().unwrap_or_default();
                let nested = statement.split_once('{').is_some_and(|(path, names)| path.ends_with("::") && names.contains("::"));
                assert!(!nested, "{}: {statement}", source.path.display());
            }
        }
    }
}

fn modules_with_state(daemon: &str) -> Vec<String> {
    let mut modules: BTreeMap<String, ()> = BTreeMap::new();
    for source in rust_files(daemon) {
        let path = source.path.strip_prefix(daemon).unwrap();
        if path.file_name().is_some_and(|name| name == "state.rs" || name == "handlers.rs") {
            modules.insert(path.parent().unwrap().display().to_string().replace('/', "::"), ());
        }
    }
    modules.into_keys().collect()
}

/// A path that begins with the crate's name: `diesel::x`, `use diesel;`, but not `my_diesel::x`.
fn uses_crate(source: &Source, name: &str) -> bool {
    source.code.match_indices(name).any(|(at, _)| {
        let before = source.code[..at].chars().next_back();
        let after = &source.code[at + name.len()..];
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '"') && (after.starts_with("::") || after.starts_with(';'))
    })
}
