//! `skep-edge logs`.

use std::io::Write;

use clap::Args;
use containers_api::conn::hyper::body::HttpBody as _;
use serde_json::Value;

use super::client::{get, pod_list, segment};
use super::{ConsoleError, NAMESPACE_DEFAULT, Place, endpoint, name_of, note};
use crate::config::EdgeConfig;

/// The annotation by which kubectl chooses a container.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// Arguments of `skep-edge logs`.
#[derive(Clone, Debug, Default, Args)]
pub struct LogsArgs {
    /// The pod.
    pub pod: String,
    /// Its namespace.
    #[arg(short, long, value_name = "NAMESPACE", default_value = NAMESPACE_DEFAULT)]
    pub namespace: String,
    /// Which container; the first if none is named.
    #[arg(short, long, value_name = "NAME")]
    pub container: Option<String>,
    /// Go on with what is written later.
    #[arg(short, long)]
    pub follow: bool,
    /// Only so many lines at the end.
    #[arg(long, value_name = "LINES")]
    pub tail: Option<u32>,
    /// Only what is younger, e.g. 45s, 10m, 1h30m.
    #[arg(long, value_name = "TIME", value_parser = parse_since)]
    pub since: Option<u32>,
    /// The time before each line.
    #[arg(long)]
    pub timestamps: bool,
    /// Of the run before this one.
    #[arg(short, long)]
    pub previous: bool,
    /// Where the daemon is.
    #[command(flatten)]
    pub place: Place,
}

/// Reads `1h30m` as seconds.
///
/// # Errors
/// What to write instead.
pub fn parse_since(text: &str) -> Result<u32, String> {
    let wrong = || format!("`{text}` is no length of time above 0: write e.g. 45s, 10m or 1h30m");
    let (mut seconds, mut number) = (0_u32, String::new());
    for c in text.chars() {
        let unit = match c {
            '0'..='9' => {
                number.push(c);
                continue;
            }
            's' => 1,
            'm' => 60,
            'h' => 3600,
            _ => return Err(wrong()),
        };
        let part = number.parse::<u32>().ok().and_then(|number| number.checked_mul(unit)).ok_or_else(wrong)?;
        seconds = seconds.checked_add(part).ok_or_else(wrong)?;
        number.clear();
    }
    if number.is_empty() && seconds > 0 { Ok(seconds) } else { Err(wrong()) }
}

/// The container that is meant where none is named, and all names.
pub fn default_container(pod: &Value) -> Option<(String, Vec<String>)> {
    let names =
        |list: &str| pod["spec"][list].as_array().into_iter().flatten().filter_map(|one| one["name"].as_str().map(str::to_owned)).collect::<Vec<_>>();
    let (containers, inits) = (names("containers"), names("initContainers"));
    let annotated = pod["metadata"]["annotations"][DEFAULT_CONTAINER].as_str().filter(|name| containers.iter().any(|one| one == name));
    let chosen = annotated.map(str::to_owned).or_else(|| containers.first().cloned())?;
    Some((chosen, containers.into_iter().chain(inits).collect()))
}

/// The path that is asked for.
pub fn path(args: &LogsArgs, container: &str) -> String {
    let mut query = Vec::new();
    for (name, is) in [("follow", args.follow), ("timestamps", args.timestamps), ("previous", args.previous)] {
        query.extend(is.then(|| format!("{name}=true")));
    }
    query.extend(args.tail.map(|lines| format!("tailLines={lines}")));
    query.extend(args.since.map(|seconds| format!("sinceSeconds={seconds}")));
    let query = if query.is_empty() { String::new() } else { format!("?{}", query.join("&")) };
    format!("/containerLogs/{}/{}/{}{query}", segment(&args.namespace), segment(&args.pod), segment(container))
}

/// Prints what a container wrote.
///
/// # Errors
/// See [`ConsoleError`].
pub async fn logs(args: &LogsArgs, config: &EdgeConfig, out: &mut impl Write) -> Result<(), ConsoleError> {
    let address = endpoint(config)?;
    let container = match &args.container {
        Some(container) => container.clone(),
        None => {
            let list = pod_list(address).await?;
            let pods = list["items"].as_array().map_or(&[][..], Vec::as_slice);
            let pod = pods.iter().find(|pod| name_of(pod) == (args.namespace.as_str(), args.pod.as_str()));
            let missing = || {
                let elsewhere =
                    pods.iter().find(|pod| name_of(pod).1 == args.pod).map(|pod| format!("; there is one in namespace {}: add -n", name_of(pod).0));
                let advice = elsewhere.unwrap_or_else(|| "; see `skep-edge pods`".to_owned());
                ConsoleError::NotFound(format!("there is no pod {}/{} on this node{advice}", args.namespace, args.pod))
            };
            let (chosen, all) = pod.and_then(default_container).ok_or_else(missing)?;
            if all.len() > 1 {
                note(&format!("container {chosen} of {}; -c names another one", all.join(", ")));
            }
            chosen
        }
    };
    let mut body = get(address, &path(args, &container)).await?;
    let failed = |error| ConsoleError::Stream("write the log", error);
    while let Some(piece) = body.data().await {
        let piece = piece.map_err(|error| ConsoleError::BrokenOff { address, source: error.into() })?;
        out.write_all(&piece).and_then(|()| out.flush()).map_err(failed)?;
    }
    Ok(())
}
