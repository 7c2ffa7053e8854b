//! What the types cannot say: values that are well-formed and still cannot work.

use admin::keys::Invalid;
use model::{Namespace, NodeName};

use super::{EdgeConfig, Module};

impl EdgeConfig {
    /// The first value that cannot work.
    pub(super) fn check(&self) -> Result<(), Invalid> {
        let invalid = |key, value: &dyn std::fmt::Display, advice: &str| Err(Invalid::new(key, value, advice));
        let node = &self.edgehub.controller.node_id;
        if let Err(e) = NodeName::try_from(node.as_str()) {
            return invalid("edgehub.controller.node-id", node, &format!("set the node's name as Kubernetes writes it ({e})"));
        }
        if !self.edged.hostname_override.is_empty() && self.edged.hostname_override != *node {
            return invalid("edged.hostname-override", &self.edged.hostname_override, "it must be the same as edgehub.controller.node-id, or empty");
        }
        if let Err(e) = Namespace::try_from(self.edged.register_node_namespace.as_str()) {
            return invalid("edged.register-node-namespace", &self.edged.register_node_namespace, &format!("write a namespace ({e})"));
        }
        if self.mqtt.mode > 2 {
            return invalid("mqtt.mode", &self.mqtt.mode, "write 0 (embedded broker), 1 (both) or 2 (external broker)");
        }
        for (key, qos) in [("mqtt.qos", self.mqtt.qos), ("mqtt.external-qos", self.mqtt.external_qos)] {
            if qos > 2 {
                return invalid(key, &qos, "write 0, 1 or 2");
            }
        }
        if self.mqtt.session_queue_size == 0 {
            return invalid("mqtt.session-queue-size", &0, "write a number above 0");
        }
        if !self.edgehub.websocket.url.starts_with("wss://") {
            return invalid("edgehub.websocket.url", &self.edgehub.websocket.url, "write wss://HOST:PORT");
        }
        if self.edgehub.controller.placement && !self.edgehub.controller.placement_url.starts_with("https://") {
            return invalid("edgehub.controller.placement-url", &self.edgehub.controller.placement_url, "write https://… or set placement: false");
        }
        for (key, seconds) in [
            ("edgehub.controller.heartbeat", self.edgehub.controller.heartbeat),
            ("edgehub.websocket.handshake-timeout", self.edgehub.websocket.handshake_timeout),
            ("edgehub.websocket.write-deadline", self.edgehub.websocket.write_deadline),
            ("edged.node-status-update-frequency", self.edged.node_status_update_frequency),
            ("meta.sync.podstatus.interval", self.meta.sync.podstatus.interval),
        ] {
            if seconds == 0 || seconds > 86_400 {
                return invalid(key, &seconds, "write seconds between 1 and 86400");
            }
        }
        let statics = &self.edged.static_pod_path;
        if !statics.as_os_str().is_empty() && !statics.is_absolute() {
            return invalid("edged.static-pod-path", &statics.display(), "write an absolute path, or leave it empty");
        }
        if !self.edged.docker_address.starts_with("unix:///") {
            return invalid("edged.docker-address", &self.edged.docker_address, "write unix:///path/of/the.sock");
        }
        if !matches!(self.database.driver.as_str(), "" | "sqlite3") {
            return invalid("database.driver", &self.database.driver, "sqlite3 is the only one");
        }
        if !(16..=1 << 20).contains(&self.database.max_size) {
            return invalid("database.max-size", &self.database.max_size, "write MiB between 16 and 1048576");
        }
        for (key, on) in
            [("edged.device-plugin-enabled", self.edged.device_plugin_enabled), ("edged.gpu-plugin-enabled", self.edged.gpu_plugin_enabled)]
        {
            if on {
                return invalid(key, &on, "there is no such plugin in this version; write false");
            }
        }
        if !self.edged.read_only_address.is_loopback() {
            let advice = "this endpoint has no authentication; write a loopback address such as 127.0.0.1";
            return invalid("edged.read-only-address", &self.edged.read_only_address, advice);
        }
        self.edged.check_node()?;
        for (key, value, (least, most)) in
            [("mailbox.messages", self.mailbox.messages, (16, 65_536)), ("mailbox.bytes", self.mailbox.bytes, (1, 1024))]
        {
            if !(least..=most).contains(&value) {
                return invalid(key, &value, &format!("write a number between {least} and {most}"));
            }
        }
        if self.runs(Module::Edged) && !self.runs(Module::MetaManager) {
            let advice = "edged stores and reports through metaManager: enable both, or leave out edged too";
            return invalid("modules.enabled", &"edged without metaManager", advice);
        }
        self.supervision.check()?;
        self.admin.check()?;
        self.log.check()?;
        if !self.data_dir.is_absolute() && self.data_dir.as_os_str().is_empty() {
            return invalid("data-dir", &self.data_dir.display(), "name a directory");
        }
        Ok(())
    }
}
