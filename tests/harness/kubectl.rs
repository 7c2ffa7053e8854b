//! An unchanged `kubectl`, whatever version is on the PATH.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

/// `kubectl` with one kubeconfig.
#[derive(Clone, Debug)]
pub struct Kubectl {
    kubeconfig: PathBuf,
    cache: PathBuf,
}

impl Kubectl {
    /// Uses `kubeconfig`; what kubectl caches goes into `dir`, because ports are used again by other tests.
    pub fn new(kubeconfig: &Path, dir: &Path) -> Self {
        Self { kubeconfig: kubeconfig.to_owned(), cache: dir.join("kube-cache") }
    }

    /// Whose kubeconfig it uses.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command.arg("--kubeconfig").arg(&self.kubeconfig).arg("--cache-dir").arg(&self.cache).args(["--request-timeout", "10s"]);
        command.args(arguments).env_remove("KUBECONFIG");
        command
    }

    /// Runs it.
    ///
    /// # Errors
    /// What it wrote to its standard error.
    pub fn run(&self, arguments: &[&str]) -> Result<String, String> {
        finish(self.command(arguments).stdin(Stdio::null()).output())
    }

    /// Runs it with `input` on its standard input.
    ///
    /// # Errors
    /// What it wrote to its standard error.
    pub fn run_with(&self, arguments: &[&str], input: &str) -> Result<String, String> {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot start kubectl: {error}"))?;
        let mut stdin = child.stdin.take().ok_or("no standard input")?;
        stdin.write_all(input.as_bytes()).map_err(|error| error.to_string())?;
        drop(stdin);
        finish(child.wait_with_output())
    }

    /// `kubectl apply -f -`.
    ///
    /// # Panics
    /// When kubectl refuses.
    #[track_caller]
    pub fn apply(&self, manifest: &str) {
        if let Err(error) = self.run_with(&["apply", "-f", "-"], manifest) {
            panic!("kubectl apply: {error}\n{manifest}");
        }
    }

    /// The object as JSON.
    ///
    /// # Errors
    /// kubectl's words, for an object that does not exist too.
    pub fn get(&self, kind: &str, name: &str) -> Result<Value, String> {
        let text = self.run(&["get", kind, name, "-o", "json"])?;
        serde_json::from_str(&text).map_err(|error| error.to_string())
    }

    /// One value by kubectl's JSONPath.
    ///
    /// # Errors
    /// kubectl's words.
    pub fn value(&self, kind: &str, name: &str, jsonpath: &str) -> Result<String, String> {
        self.run(&["get", kind, name, "-o", &format!("jsonpath={jsonpath}")])
    }

    /// `Ok` when the value is `wanted`.
    ///
    /// # Errors
    /// What it is instead.
    pub fn value_is(&self, kind: &str, name: &str, jsonpath: &str, wanted: &str) -> Result<(), String> {
        let found = self.value(kind, name, jsonpath)?;
        if found == wanted { Ok(()) } else { Err(format!("{jsonpath} of {kind} {name} is `{found}`, not `{wanted}`")) }
    }

    /// `Ok` when the API says NotFound.
    ///
    /// # Errors
    /// That it is there, or why that could not be asked.
    pub fn is_gone(&self, kind: &str, name: &str) -> Result<(), String> {
        match self.run(&["get", kind, name, "-o", "name"]) {
            Ok(found) => Err(format!("{found} is there")),
            Err(words) if words.contains("NotFound") => Ok(()),
            Err(words) => Err(words),
        }
    }

    /// Sets the desired value of a device's only property.
    ///
    /// # Panics
    /// When kubectl refuses.
    #[track_caller]
    pub fn desire(&self, device: &str, property: &str, value: &str) {
        let patch = serde_json::json!({"spec": {"properties": [{"name": property, "reportToCloud": true, "desired": {"value": value}}]}});
        if let Err(error) = self.run(&["patch", "device", device, "--type=merge", "-p", &patch.to_string()]) {
            panic!("kubectl patch device: {error}");
        }
    }

    /// What the DeviceStatus says was reported.
    ///
    /// # Errors
    /// kubectl's words.
    pub fn reported(&self, device: &str, property: &str) -> Result<String, String> {
        self.value("devicestatus", device, &format!("{{.status.twins[?(@.propertyName==\"{property}\")].reported.value}}"))
    }
}

fn finish(output: std::io::Result<std::process::Output>) -> Result<String, String> {
    let output = output.map_err(|error| format!("cannot start kubectl: {error}; run deploy/setup.sh --for test"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}
