//! The image of the pods' sandboxes: made of a program that this one carries, so that no registry is needed.

use std::io::Cursor;
use std::sync::OnceLock;

use serde_json::json;

/// See `pause/main.rs`.
const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/pause"));
/// Before the image's tag. Images of this name are never collected: every sandbox is made of one, and no registry has them.
pub const REPOSITORY: &str = "skep-pause";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sha256(bytes: &[u8]) -> String {
    hex(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref())
}

/// Name of the image: its tag is of its content, so that sandboxes of an earlier version of this program stay what they are.
pub fn image() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| format!("{REPOSITORY}:{}", &sha256(PROGRAM)[..12]))
}

/// The image as an archive in the form of `docker save`: always the same bytes for the same program.
///
/// # Errors
/// Writing to memory failed.
pub fn archive() -> std::io::Result<Vec<u8>> {
    let layer = tar(&[("pause", PROGRAM, 0o755)])?;
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "created": "1970-01-01T00:00:00Z",
        "config": {"Entrypoint": ["/pause"], "Labels": {"io.skep.managed": "true"}},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", sha256(&layer))]},
        "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "skep-edge"}],
    })
    .to_string();
    let config_name = format!("{}.json", sha256(config.as_bytes()));
    let manifest = json!([{"Config": config_name, "RepoTags": [image()], "Layers": ["layer.tar"]}]).to_string();
    tar(&[(&config_name, config.as_bytes(), 0o644), ("layer.tar", &layer, 0o644), ("manifest.json", manifest.as_bytes(), 0o644)])
}

fn tar(files: &[(&str, &[u8], u32)]) -> std::io::Result<Vec<u8>> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes, mode) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(*mode);
        builder.append_data(&mut header, name, Cursor::new(bytes))?;
    }
    builder.into_inner()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::super::runtime::ContainerRuntime;
    use super::super::runtime::testing::engine;
    use super::*;

    #[test]
    fn the_program_is_small_and_needs_nothing() {
        assert!(PROGRAM.starts_with(b"\x7fELF") && PROGRAM.len() < 2 << 20, "{} bytes", PROGRAM.len());
        assert_eq!(archive().unwrap(), archive().unwrap());
    }

    #[actix_rt::test]
    async fn the_engine_takes_the_image_and_runs_it() {
        let Some(engine) = engine().await else { return };
        engine.runtime.load_image(archive().unwrap()).await.unwrap();
        engine.runtime.load_image(archive().unwrap()).await.unwrap();
        assert!(engine.runtime.image(image()).await.unwrap().unwrap().names.contains(&image().to_owned()));
        let mut spec = engine.spec("u-pause", &[]);
        (spec.image, spec.command) = (image().to_owned(), Vec::new());
        let id = engine.runtime.create(&spec).await.unwrap();
        engine.runtime.start(&id).await.unwrap();
        let state = engine.runtime.inspect(&id).await.unwrap().unwrap().state;
        assert!(matches!(state, super::super::runtime::ContainerState::Running { .. }), "{state:?}");
    }
}
