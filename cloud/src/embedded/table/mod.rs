//! Server-side tables: what `kubectl get` prints.

pub mod age;
pub mod columns;
mod node;
mod pod;

use serde_json::{Value, json};

use super::kind::Kind;
use super::object::Object;

/// One column of a kind's table.
#[derive(Debug)]
pub struct Column {
    /// Header; kubectl prints it in capitals.
    pub name: &'static str,
    /// `string`, `integer` or `date`.
    pub kind: &'static str,
    /// 0 is always printed, 1 with `-o wide` only.
    pub priority: u8,
    /// The cell of one object.
    pub cell: fn(&Object, jiff::Timestamp) -> Value,
}

/// How much of each object goes into its row (`includeObject`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RowObject {
    /// Only the metadata: the default.
    #[default]
    Metadata,
    /// Nothing.
    None,
    /// The whole object.
    Whole,
}

/// The `columnDefinitions` of a kind.
pub fn definitions(kind: &Kind) -> Value {
    let columns = kind.columns.iter().map(|column| {
        let format = if column.name == "Name" { "name" } else { "" };
        json!({"name": column.name, "type": column.kind, "format": format, "description": "", "priority": column.priority})
    });
    columns.collect()
}

/// The row of one object.
pub fn row(kind: &Kind, object: &Object, include: RowObject, now: jiff::Timestamp) -> Value {
    let cells: Vec<Value> = kind.columns.iter().map(|column| (column.cell)(object, now)).collect();
    let shown = match include {
        RowObject::None => return json!({"cells": cells}),
        RowObject::Whole => object.value().clone(),
        RowObject::Metadata => json!({
            "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object.value()["metadata"],
        }),
    };
    json!({"cells": cells, "object": shown})
}

/// A table around finished rows; `columns` is left out in the later events of a watch.
pub fn table(metadata: &Value, columns: Option<Value>, rows: Vec<Value>) -> Value {
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
        "columnDefinitions": columns.unwrap_or_else(|| json!([])), "rows": rows,
    })
}

#[cfg(test)]
mod tests;
