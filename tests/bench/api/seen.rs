//! What the hollow edge holds.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use serde_json::Value;
use wire::hub::{Downstream, Frame, ObjectOperation};

use crate::hollow::Sight;

/// The objects by `<kind>/<name>`; what went wrong.
#[derive(Default)]
pub struct Seen {
    objects: Mutex<HashMap<String, Value>>,
    wrong: Mutex<Vec<String>>,
}

impl Seen {
    /// The object, if the edge has it.
    pub fn object(&self, name: &str) -> Option<Value> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// The first thing that went wrong.
    pub fn fault(&self) -> Option<String> {
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner).first().cloned()
    }
}

impl Sight for Seen {
    fn received(&self, _: usize, frame: &Frame<Downstream>) -> u64 {
        if let Downstream::Object { operation, key, object } = &frame.body {
            let name = format!("{}/{}", key.kind.as_str(), key.name.as_ref().map(model::ObjectName::as_str).unwrap_or_default());
            let mut objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
            match operation {
                ObjectOperation::Insert | ObjectOperation::Update => objects.insert(name, object.to().unwrap_or_default()),
                ObjectOperation::Delete => objects.remove(&name),
            };
        }
        0
    }

    fn lost(&self, _: usize, why: &str) {
        self.wrong(0, format!("the hollow edge lost its connection: {why}"));
    }

    fn wrong(&self, _: usize, what: String) {
        self.wrong.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }
}
