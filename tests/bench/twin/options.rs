//! Arguments of the scenario: another endpoint, and the devices that exist there.

use super::{DEVICES, daemon};

/// At most so many devices can be named.
const DEVICES_MAX: usize = 100_000;

/// What is measured.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// `HOST:PORT` of an MQTT endpoint to measure in place of a daemon of our own.
    pub endpoint: Option<String>,
    /// Devices that exist there.
    pub devices: Vec<String>,
}

impl Options {
    /// Reads `[--endpoint tcp://HOST:PORT [--devices a,b,c | --devices PREFIX/COUNT]]`.
    ///
    /// # Errors
    /// What is wrong with them, in a sentence.
    pub fn parse(arguments: &[&str]) -> Result<Self, String> {
        let (mut endpoint, mut devices) = (None, None);
        let mut rest = arguments.iter();
        while let Some(name) = rest.next() {
            let value = rest.next().filter(|value| !value.is_empty()).ok_or_else(|| format!("`{name}` needs a value"))?;
            match *name {
                "--endpoint" => endpoint = Some(address(value)?.to_owned()),
                "--devices" => devices = Some(list(value)?),
                _ => {
                    return Err(format!(
                        "scenario `twin` has no option `{name}`; it has --endpoint tcp://HOST:PORT and --devices a,b,c or PREFIX/COUNT"
                    ));
                }
            }
        }
        if endpoint.is_none() && devices.is_some() {
            return Err("`--devices` names devices of another endpoint: give `--endpoint tcp://HOST:PORT` as well".to_owned());
        }
        Ok(Self { endpoint, devices: devices.unwrap_or_else(|| named(daemon::PREFIX, DEVICES)) })
    }
}

/// `<prefix>0` to `<prefix><count - 1>`.
pub fn named(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|number| format!("{prefix}{number}")).collect()
}

fn address(url: &str) -> Result<&str, String> {
    let rest = url.strip_prefix("tcp://").or_else(|| url.strip_prefix("mqtt://"));
    rest.filter(|rest| rest.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok()))
        .ok_or_else(|| format!("`--endpoint {url}`: write tcp://HOST:PORT"))
}

/// Devices by their ids, which may have a namespace (`a,house/lamp`), or by prefix and count (`device-/16`).
fn list(text: &str) -> Result<Vec<String>, String> {
    let by_count = text.rsplit_once('/').and_then(|(prefix, count)| Some((prefix, count.parse::<usize>().ok()?)));
    let devices = match by_count {
        Some((prefix, count)) if !text.contains(',') && count <= DEVICES_MAX => named(prefix, count),
        Some(_) if !text.contains(',') => return Err(format!("`--devices {text}`: at most {DEVICES_MAX}")),
        _ => text.split(',').map(str::to_owned).collect(),
    };
    let is_id = |id: &String| !id.is_empty() && !id.contains(['+', '#', ' ', '"']) && id.split('/').all(|part| !part.is_empty());
    if devices.is_empty() || !devices.iter().all(is_id) {
        return Err(format!("`--devices {text}`: write ids with commas between them, or PREFIX/COUNT"));
    }
    Ok(devices)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    #[test]
    fn devices_are_named_one_by_one_or_by_prefix_and_count() {
        let devices = |text: &str| Options::parse(&["--endpoint", "tcp://h:1", "--devices", text]).unwrap().devices;
        assert_eq!(devices("a,house/lamp,c"), ["a", "house/lamp", "c"]);
        assert_eq!(devices("lamp-/2"), ["lamp-0", "lamp-1"]);
        assert_eq!(devices("house/lamp"), ["house/lamp"]);
        assert_eq!(devices("house/lamp-/2"), ["house/lamp-0", "house/lamp-1"]);
        assert_eq!(Options::parse(&["--endpoint", "tcp://h:1"]).unwrap().devices.len(), DEVICES);
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for wrong in [
            &["--endpoint"][..],
            &["--endpoint", "http://h:1"],
            &["--endpoint", "tcp://h"],
            &["--devices", "a"],
            &["--endpoint", "tcp://h:1", "--devices", "a,,b"],
            &["--endpoint", "tcp://h:1", "--devices", "a/#"],
            &["--endpoint", "tcp://h:1", "--devices", "a/0"],
            &["--fast", "yes"],
        ] {
            assert!(Options::parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
