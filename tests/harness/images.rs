//! Images made on this machine; no test needs a registry.

use std::process::Command;
use std::sync::OnceLock;

use crate::{program, top};

/// The thermometer of `deploy/examples` as an image, built once in a test run.
///
/// # Panics
/// When it cannot be built.
pub fn thermometer() -> &'static str {
    const IMAGE: &str = "skep/thermometer:test";
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| {
        let script = top().join("deploy/examples/build-image.sh");
        let output = Command::new(script).arg(program("thermometer")).arg(IMAGE).output().expect("bash is there");
        assert!(output.status.success(), "build-image.sh: {}", String::from_utf8_lossy(&output.stderr));
    });
    IMAGE
}
