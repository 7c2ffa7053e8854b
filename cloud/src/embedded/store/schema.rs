//! The tables of `migrations/cloud`, as Diesel sees them.

diesel::table! {
    object (id) {
        id -> BigInt,
        kind -> Text,
        namespace -> Text,
        name -> Text,
        uid -> Text,
        resource_version -> BigInt,
        body -> Text,
    }
}

diesel::table! {
    owner (uid, object) {
        uid -> Text,
        object -> BigInt,
    }
}

diesel::table! {
    revision (id) {
        id -> Integer,
        value -> BigInt,
    }
}

diesel::joinable!(owner -> object (object));
diesel::allow_tables_to_appear_in_same_query!(object, owner);
