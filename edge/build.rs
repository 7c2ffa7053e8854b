//! Builds the process of the pods' sandboxes, and makes Cargo notice a new migration: `embed_migrations!` alone does not.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is how a build script talks to Cargo")]

use std::path::PathBuf;
use std::process::{Command, ExitCode};

const PAUSE: &str = "pause/main.rs";

fn main() -> ExitCode {
    println!("cargo:rerun-if-changed=../migrations/edge");
    println!("cargo:rerun-if-changed={PAUSE}");
    match pause() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("the pods' sandbox process ({PAUSE}) cannot be built: {why}");
            ExitCode::FAILURE
        }
    }
}

/// A program without libraries, since its image holds nothing else.
fn pause() -> Result<(), String> {
    let var = |name: &str| std::env::var(name).map_err(|_| format!("Cargo did not set {name}"));
    let out = PathBuf::from(var("OUT_DIR")?).join("pause");
    let mut command = Command::new(var("RUSTC")?);
    command.args(["--edition=2024", "--crate-name=pause", "--crate-type=bin", "--target", &var("TARGET")?, "-o"]).arg(out).arg(PAUSE);
    let small = ["opt-level=z", "panic=abort", "strip=symbols", "codegen-units=1", "lto=fat", "relocation-model=static"];
    for option in small.into_iter().chain(["target-feature=+crt-static"]) {
        command.args(["-C", option]);
    }
    if let Ok(linker) = var("RUSTC_LINKER") {
        command.arg(format!("-Clinker={linker}"));
    }
    let built = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    let words = String::from_utf8_lossy(&built.stderr);
    // Debian has it in libc6-dev, which the C compiler brings.
    if built.status.success() { Ok(()) } else { Err(format!("{words}\n(a static C library is needed: libc.a)")) }
}
