//! Makes Cargo notice a new migration: `embed_migrations!` alone does not.

#[allow(clippy::print_stdout, reason = "this is how a build script talks to Cargo")]
fn main() {
    println!("cargo:rerun-if-changed=../migrations/edge");
}
