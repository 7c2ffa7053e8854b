//! One golden example of each message, as it stands on the wire.
//!
//! For the tests of this crate and of both daemons: what the edge writes, the cloud must read, and the other way
//! round. Envelopes are in the form that Skep writes (newer KubeEdge); names that end in `_v0` are the same message in
//! the form of KubeEdge 0.x, which is read and never written.

macro_rules! fixtures {
    ($(#[$doc:meta])* $list:ident, $folder:literal: $($name:ident = $file:literal,)*) => {
        $(
            #[doc = concat!("`", $folder, "/", $file, ".json`")]
            pub const $name: &str = include_str!(concat!("../fixtures/", $folder, "/", $file, ".json"));
        )*
        $(#[$doc])*
        pub const $list: &[(&str, &str)] = &[$(($file, $name),)*];
    };
}

fixtures! {
    /// Every message from edge to cloud, by name.
    UPSTREAM, "upstream":
    KEEPALIVE = "keepalive",
    KEEPALIVE_V0 = "keepalive_v0",
    NODE_REGISTER = "node_register",
    NODE_STATUS = "node_status",
    POD_STATUS = "pod_status",
    POD_STATUS_V0 = "pod_status_v0",
    EVENT = "event",
    EVENT_UPDATE = "event_update",
    QUERY = "query",
    MEMBERSHIP_GET = "membership_get",
    TWIN_REPORT = "twin_report",
    TWIN_REPORT_NAMESPACED = "twin_report_namespaced",
    DEVICE_STATE_REPORT = "device_state_report",
    DEVICE_STATE_REPORT_NAMESPACED = "device_state_report_namespaced",
    UPLOAD = "upload",
    UPLOAD_V0 = "upload_v0",
    HELD = "held",
    ACK = "ack",
    ACK_TWIN = "ack_twin",
    UPSTREAM_REFUSAL = "refusal",
}

fixtures! {
    /// Every message from cloud to edge, by name.
    DOWNSTREAM, "downstream":
    POD_INSERT = "pod_insert",
    POD_INSERT_V0 = "pod_insert_v0",
    POD_DELETE = "pod_delete",
    CONFIGMAP_INSERT = "configmap_insert",
    SECRET_UPDATE = "secret_update",
    DEVICE_INSERT = "device_insert",
    QUERY_ANSWER = "query_answer",
    QUERY_ANSWER_ERROR = "query_answer_error",
    NODE_ANSWER = "node_answer",
    MEMBERSHIP_DETAIL = "membership_detail",
    MEMBERSHIP_DETAIL_EMPTY = "membership_detail_empty",
    MEMBERSHIP_UPDATE = "membership_update",
    TWIN_SYNC = "twin_sync",
    ATTRIBUTES = "attributes",
    PUBLISH = "publish",
    SUBSCRIBE = "subscribe",
    UNSUBSCRIBE = "unsubscribe",
    HELD_GET = "held_get",
    CONFIRM = "confirm",
    CONFIRM_OBJECT = "confirm_object",
    DOWNSTREAM_REFUSAL = "refusal",
}

fixtures! {
    /// Every body on MQTT, by name.
    MQTT, "mqtt":
    GET = "get",
    TWIN_UPDATE = "twin_update",
    TWIN_UPDATE_RESULT = "twin_update_result",
    TWIN_UPDATE_DOCUMENT = "twin_update_document",
    TWIN_UPDATE_DELTA = "twin_update_delta",
    TWIN_GET_RESULT = "twin_get_result",
    ERROR_RESULT = "error_result",
    MEMBERSHIP_GET_RESULT = "membership_get_result",
    MEMBERSHIP_ADDED = "membership_added",
    MEMBERSHIP_REMOVED = "membership_removed",
    STATE_UPDATE = "state_update",
    STATE_UPDATE_RESULT = "state_update_result",
    DEVICE_UPDATED = "device_updated",
}
