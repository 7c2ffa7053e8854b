//! The kubeconfig of the embedded API: everything embedded, so the file can be copied alone.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::error::PkiError;
use super::files;

/// First line of every kubeconfig that is ours to replace.
const MARK: &str = "# Written by skep-cloud at each start; changes are lost.";

/// What a kubeconfig says.
pub struct Kubeconfig<'a> {
    /// `https://127.0.0.1:10443`
    pub server: &'a str,
    /// Certificate authority, PEM.
    pub ca: &'a str,
    /// Client certificate, PEM.
    pub certificate: &'a str,
    /// Client key, PEM.
    pub key: &'a str,
}

impl Kubeconfig<'_> {
    /// Writes the file, mode 0600, whole or not at all.
    ///
    /// # Errors
    /// `ForeignKubeconfig` if a file that we did not write stands there: it may be the operator's own.
    pub fn write(&self, path: &Path) -> Result<(), PkiError> {
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            std::fs::create_dir_all(parent).map_err(|source| files::failed("create", parent, source))?;
        }
        if files::read(path)?.is_some_and(|text| !text.starts_with(MARK)) {
            return Err(PkiError::ForeignKubeconfig { path: path.to_owned() });
        }
        files::write(path, &self.render(), 0o600)
    }

    fn render(&self) -> String {
        // JSON strings are YAML strings, so the address needs no quoting rules of its own.
        let server = serde_json::Value::from(self.server);
        let (ca, certificate, key) = (STANDARD.encode(self.ca), STANDARD.encode(self.certificate), STANDARD.encode(self.key));
        format!(
            "{MARK}\napiVersion: v1\nkind: Config\ncurrent-context: skep\nclusters:\n- name: skep\n  cluster:\n    server: {server}\n    \
             certificate-authority-data: {ca}\nusers:\n- name: skep-admin\n  user:\n    client-certificate-data: {certificate}\n    \
             client-key-data: {key}\ncontexts:\n- name: skep\n  context:\n    cluster: skep\n    user: skep-admin\n"
        )
    }
}
