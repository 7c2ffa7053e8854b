//! Reads a YAML file and the process environment into a typed configuration.
//!
//! Nothing here knows what is configured: `T` brings the keys, the types and the defaults.
//!
//! | layer | wins over | errors name |
//! |---|---|---|
//! | `T::default()` | | |
//! | the YAML file | the defaults | file, line, column, key |
//! | environment `<PREFIX>_A__B_C` for the key `a.b-c` | the file | the variable |
//!
//! Unknown keys are errors when `T` says `deny_unknown_fields`. A variable whose first level is no key of
//! `T` is left alone, because two programs may share one environment; below a known first level it is an error.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Largest configuration file that is read, in bytes. A real one has less than ten thousand.
pub const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Why a configuration could not be used. Each text says what, where, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file does not exist or may not be read.
    #[error("cannot read the configuration file `{path}`: {source}; name another file with --config, or correct its path and rights", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is larger than [`FILE_BYTES_MAX`].
    #[error("the configuration file `{path}` has {bytes} bytes, more than the {FILE_BYTES_MAX} allowed; name a configuration file with --config", path = path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// The text is not YAML, has an unknown key, or a value of another type.
    #[error("configuration file `{path}`, line {line}, column {column}{key}: {reason}; correct the line, `config` prints every key with its default", path = path.display(), key = key.as_ref().map(|key| format!(", key `{key}`")).unwrap_or_default())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Line, from 1; 0 when the parser gave none.
        line: u64,
        /// Column, from 1.
        column: u64,
        /// The key that stands on that line, where there is one.
        key: Option<String>,
        /// What is wrong with it.
        reason: String,
    },
    /// A variable names no key, or its value has another type.
    #[error("environment variable `{variable}`: {reason}; correct or unset it")]
    Variable {
        /// Name of the variable.
        variable: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Reads `file` (defaults alone when `None`) and lays the variables that start with `prefix` + `_` over it.
///
/// # Errors
/// See [`LoadError`]; nothing is opened or written besides reading `file`.
pub fn load<T>(file: Option<&Path>, prefix: &str, environment: impl IntoIterator<Item = (String, String)>) -> Result<T, LoadError>
where
    T: Serialize + DeserializeOwned + Default,
{
    let typed: T = match file {
        Some(path) => parse(path, &read(path)?)?,
        None => T::default(),
    };
    let mut value = tree(&typed);
    let mut variables: Vec<(String, String)> =
        environment.into_iter().filter(|(name, _)| name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('_'))).collect();
    // A fixed order, so that two wrong variables give the same error each time.
    variables.sort();
    let mut result = typed;
    for (name, text) in variables {
        let path: Vec<String> = name[prefix.len() + 1..].split("__").map(normal).collect();
        if value.get_mut_normal(&path[0]).is_none() {
            continue;
        }
        (value, result) = overlay(value, &name, &path, &text)?;
    }
    Ok(result)
}

/// The dotted keys whose values differ, in alphabetical order.
pub fn differences<T: Serialize>(one: &T, other: &T) -> Vec<String> {
    fn walk(one: &Value, other: &Value, path: &str, into: &mut Vec<String>) {
        match (one, other) {
            (Value::Object(one), Value::Object(other)) => {
                for key in one.keys().chain(other.keys().filter(|key| !one.contains_key(*key))) {
                    let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    walk(one.get(key).unwrap_or(&Value::Null), other.get(key).unwrap_or(&Value::Null), &path, into);
                }
            }
            _ if one != other => into.push(path.to_owned()),
            _ => {}
        }
    }
    let mut found = Vec::new();
    walk(&tree(one), &tree(other), "", &mut found);
    found.sort();
    found
}

fn read(path: &Path) -> Result<String, LoadError> {
    let failed = |source| LoadError::Read { path: path.to_owned(), source };
    let bytes = std::fs::metadata(path).map_err(failed)?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(LoadError::TooLarge { path: path.to_owned(), bytes });
    }
    std::fs::read_to_string(path).map_err(failed)
}

fn parse<T: DeserializeOwned + Default>(path: &Path, text: &str) -> Result<T, LoadError> {
    // A file of comments only is the default configuration, not a null.
    if text.lines().all(|line| {
        let line = line.trim();
        line.is_empty() || line.starts_with('#') || line == "---"
    }) {
        return Ok(T::default());
    }
    serde_saphyr::from_str(text).map_err(|error| {
        let error = error.without_snippet();
        let (line, column) = error.location().map_or((0, 0), |at| (at.line(), at.column()));
        LoadError::Malformed {
            path: path.to_owned(),
            line,
            column,
            key: usize::try_from(line).ok().and_then(|line| key_on_line(text, line)),
            reason: first_line(&error.to_string()),
        }
    })
}

/// The key of a `key: value` line; `None` for anything else.
fn key_on_line(text: &str, line: usize) -> Option<String> {
    let line = text.lines().nth(line.checked_sub(1)?)?;
    let (key, _) = line.trim_start_matches([' ', '-']).split_once(':')?;
    (!key.is_empty() && !key.contains([' ', '#', '"'])).then(|| key.to_owned())
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

fn tree<T: Serialize>(typed: &T) -> Value {
    serde_json::to_value(typed).expect("a configuration has string keys and finite numbers only")
}

/// `A_B` in the environment is the key `a-b` (or `a_b`) in the file.
fn normal(segment: &str) -> String {
    segment.to_ascii_lowercase().replace('_', "-")
}

trait NormalKeys {
    fn get_mut_normal(&mut self, key: &str) -> Option<&mut Value>;
}

impl NormalKeys for Value {
    fn get_mut_normal(&mut self, key: &str) -> Option<&mut Value> {
        self.as_object_mut()?.iter_mut().find(|(name, _)| normal(name) == key).map(|(_, value)| value)
    }
}

fn overlay<T: Serialize + DeserializeOwned>(value: Value, variable: &str, path: &[String], text: &str) -> Result<(Value, T), LoadError> {
    let wrong = |reason: String| LoadError::Variable { variable: variable.to_owned(), reason };
    let mut base = value;
    let mut place = &mut base;
    for (level, key) in path.iter().enumerate() {
        let known: Vec<String> = place.as_object().map(|map| map.keys().cloned().collect()).unwrap_or_default();
        place = place
            .get_mut_normal(key)
            .ok_or_else(|| wrong(format!("there is no key `{}`, known here are {}", path[..=level].join("."), known.join(", "))))?;
    }
    if place.is_object() {
        return Err(wrong(format!("`{}` is a group of keys, not a value", path.join("."))));
    }
    let mut reason = String::new();
    for candidate in candidates(place, text) {
        *at(&mut base, path) = candidate;
        // Parsed from text, so that a wrong type is reported as for the file.
        match serde_json::from_value::<T>(base.clone()) {
            Ok(typed) => return Ok((tree(&typed), typed)),
            Err(error) => reason = error.to_string(),
        }
    }
    Err(wrong(format!("`{text}` does not fit the key `{}`: {reason}", path.join("."))))
}

fn at<'a>(base: &'a mut Value, path: &[String]) -> &'a mut Value {
    path.iter().fold(base, |place, key| place.get_mut_normal(key).expect("the caller walked this path before"))
}

/// What the text of a variable may mean; the first that fits the key wins.
fn candidates(current: &Value, text: &str) -> Vec<Value> {
    let verbatim = Value::String(text.to_owned());
    let parsed = serde_saphyr::from_str::<Value>(text).unwrap_or_else(|_| verbatim.clone());
    match current {
        Value::String(_) => vec![verbatim],
        Value::Array(_) if !text.trim_start().starts_with('[') => {
            vec![Value::Array(text.split(',').map(|part| Value::String(part.trim().to_owned())).collect())]
        }
        _ => vec![parsed, verbatim],
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, missing_docs)] // a failed step is the test's failure

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
    #[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
    struct Sample {
        node_limit: u32,
        name: String,
        enabled: Option<bool>,
        inner: Inner,
    }

    #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
    #[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
    struct Inner {
        port: u16,
        names: Vec<String>,
        file: Option<String>,
    }

    fn written(text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sample.yaml");
        std::fs::write(&path, text).unwrap();
        (dir, path)
    }

    fn from(text: &str, environment: &[(&str, &str)]) -> Result<Sample, LoadError> {
        let (_dir, path) = written(text);
        load(Some(&path), "SKEP", environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())))
    }

    #[test]
    fn a_file_overrides_the_defaults_and_the_environment_overrides_the_file() {
        let read = from(
            "node-limit: 5\ninner:\n  port: 1\n  names: [a]\n",
            &[
                ("SKEP_INNER__PORT", "7"),
                ("SKEP_NAME", "123"),
                ("SKEP_INNER__NAMES", "x, y"),
                ("SKEP_ENABLED", "true"),
                ("SKEP_INNER__FILE", "12"),
                ("OTHER_INNER__PORT", "9"),
            ],
        )
        .unwrap();
        assert_eq!(
            read,
            Sample {
                node_limit: 5,
                name: "123".into(),
                enabled: Some(true),
                inner: Inner { port: 7, names: vec!["x".into(), "y".into()], file: Some("12".into()) },
            }
        );
    }

    #[test]
    fn an_empty_file_and_a_file_of_comments_are_the_defaults() {
        assert_eq!(from("", &[]).unwrap(), Sample::default());
        assert_eq!(from("# nothing\n---\n", &[]).unwrap(), Sample::default());
    }

    #[test]
    fn an_unknown_key_is_refused_with_file_line_and_key() {
        let error = from("node-limit: 5\ninner:\n  prot: 1\n", &[]).unwrap_err();
        let text = error.to_string();
        assert!(matches!(&error, LoadError::Malformed { line: 3, key: Some(key), .. } if key == "prot"), "{text}");
        assert!(text.contains("sample.yaml") && text.contains("line 3") && text.contains("`prot`"), "{text}");
    }

    #[test]
    fn a_value_of_another_type_is_refused_with_line_and_key() {
        let error = from("inner:\n  port: many\n", &[]).unwrap_err();
        assert!(matches!(&error, LoadError::Malformed { line: 2, key: Some(key), .. } if key == "port"), "{error}");
    }

    #[test]
    fn a_number_out_of_range_is_refused() {
        assert!(matches!(from("inner:\n  port: 70000\n", &[]), Err(LoadError::Malformed { line: 2, .. })));
    }

    #[test]
    fn malformed_yaml_is_refused_with_its_line() {
        for text in ["inner:\n  port: [1\n", "a: b: c\n", "- a\n- b\n", "node-limit: 1\nnode-limit: 2\n"] {
            assert!(matches!(from(text, &[]), Err(LoadError::Malformed { .. })), "{text:?}");
        }
    }

    #[test]
    fn a_missing_and_an_oversized_file_are_refused() {
        let missing = load::<Sample>(Some(Path::new("/nonexistent/x.yaml")), "SKEP", []).unwrap_err();
        assert!(missing.to_string().contains("/nonexistent/x.yaml"));
        let (_dir, path) = written(&"#".repeat(usize::try_from(FILE_BYTES_MAX).unwrap() + 1));
        assert!(matches!(load::<Sample>(Some(&path), "SKEP", []), Err(LoadError::TooLarge { .. })));
    }

    #[test]
    fn a_variable_below_a_known_group_must_name_a_key_and_one_of_another_program_is_left_alone() {
        let error = from("", &[("SKEP_INNER__PROT", "1")]).unwrap_err();
        assert!(error.to_string().contains("SKEP_INNER__PROT") && error.to_string().contains("port"), "{error}");
        assert_eq!(from("", &[("SKEP_MQTT__MODE", "0"), ("SKEP_SETUP", "no")]).unwrap(), Sample::default());
        assert!(from("", &[("SKEP_INNER", "1")]).is_err());
    }

    #[test]
    fn what_differs_is_named_by_its_key() {
        let (one, other) = (from("node-limit: 5\n", &[]).unwrap(), from("name: x\ninner:\n  names: [a]\n", &[]).unwrap());
        assert_eq!(differences(&one, &other), ["inner.names", "name", "node-limit"]);
        assert!(differences(&one, &one).is_empty());
    }

    #[test]
    fn a_variable_of_another_type_is_refused_with_its_name() {
        let error = from("", &[("SKEP_INNER__PORT", "many")]).unwrap_err();
        assert!(matches!(&error, LoadError::Variable { variable, .. } if variable == "SKEP_INNER__PORT"), "{error}");
    }
}
