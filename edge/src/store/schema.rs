//! The tables as Diesel sees them; the SQL and its comments are in `migrations/edge`.

#![allow(missing_docs, reason = "diesel::table! generates undocumented items")]

diesel::table! {
    counter (name) {
        name -> Text,
        value -> BigInt,
    }
}

diesel::table! {
    device (id) {
        id -> Text,
        name -> Nullable<Text>,
        description -> Nullable<Text>,
        state -> Nullable<Text>,
        last_online -> Nullable<Text>,
        incarnation -> BigInt,
        uid -> Text,
    }
}

diesel::table! {
    device_attr (id) {
        id -> BigInt,
        deviceid -> Text,
        name -> Text,
        description -> Nullable<Text>,
        value -> Nullable<Text>,
        optional -> Bool,
        attr_type -> Nullable<Text>,
        metadata -> Nullable<Text>,
    }
}

diesel::table! {
    device_twin (id) {
        id -> BigInt,
        deviceid -> Text,
        name -> Text,
        description -> Nullable<Text>,
        expected -> Nullable<Text>,
        actual -> Nullable<Text>,
        expected_meta -> Nullable<Text>,
        actual_meta -> Nullable<Text>,
        expected_version -> Nullable<Text>,
        actual_version -> Nullable<Text>,
        optional -> Bool,
        attr_type -> Nullable<Text>,
        metadata -> Nullable<Text>,
    }
}

diesel::table! {
    meta (key) {
        key -> Text,
        #[sql_name = "type"]
        kind -> Text,
        value -> Nullable<Text>,
        uid -> Nullable<Text>,
        resource_version -> Nullable<Text>,
        stored_at -> BigInt,
    }
}

diesel::table! {
    pending_report (seq) {
        seq -> BigInt,
        deviceid -> Text,
        incarnation -> BigInt,
        property -> Text,
        queued_at -> BigInt,
        cause -> Nullable<Text>,
    }
}

diesel::table! {
    sub_topics (topic) {
        topic -> Text,
    }
}

diesel::allow_tables_to_appear_in_same_query!(counter, device, device_attr, device_twin, meta, pending_report, sub_topics,);
