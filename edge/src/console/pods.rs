//! `skep-edge pods`.

use std::io::Write;

use clap::Args;
use jiff::Timestamp;
use serde_json::Value;

use super::display::{Row, row};
use super::{ConsoleError, Place, client, endpoint, name_of, plain};
use crate::config::EdgeConfig;

/// Arguments of `skep-edge pods`.
#[derive(Clone, Debug, Default, Args)]
pub struct PodsArgs {
    /// Only this namespace.
    #[arg(short, long, value_name = "NAMESPACE")]
    pub namespace: Option<String>,
    /// `text`, or `json` (a PodList).
    #[arg(short, long, value_name = "FORM", default_value = "text", value_parser = ["text", "json"])]
    pub output: String,
    /// Where the daemon is.
    #[command(flatten)]
    pub place: Place,
}

/// Prints the pods of this node with the status that the daemon reported last.
///
/// # Errors
/// See [`ConsoleError`].
pub async fn pods(args: &PodsArgs, config: &EdgeConfig, out: &mut impl Write) -> Result<(), ConsoleError> {
    let mut list = client::pod_list(endpoint(config)?).await?;
    if let (Some(namespace), Some(items)) = (&args.namespace, list["items"].as_array_mut()) {
        items.retain(|pod| name_of(pod).0 == namespace);
    }
    let text = if args.output == "json" { format!("{list:#}\n") } else { table(&list, Timestamp::now()) };
    out.write_all(text.as_bytes()).map_err(|error| ConsoleError::Stream("write the pods", error))
}

/// The table, by namespace and name.
pub fn table(list: &Value, now: Timestamp) -> String {
    let mut rows: Vec<Row> = list["items"].as_array().into_iter().flatten().map(|pod| row(pod, now)).collect();
    if rows.is_empty() {
        return "no pods on this node\n".to_owned();
    }
    rows.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    let head = ["NAMESPACE", "NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP"].map(str::to_owned);
    let cells = |row: Row| [row.namespace, row.name, row.ready, row.status, row.restarts, row.age, row.ip].map(|cell| plain(&cell));
    let lines: Vec<[String; 7]> = std::iter::once(head).chain(rows.into_iter().map(cells)).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..7).map(width).collect();
    let mut text = String::new();
    for line in &lines {
        let padded = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect::<Vec<_>>().join("   ");
        text.push_str(padded.trim_end());
        text.push('\n');
    }
    text
}
