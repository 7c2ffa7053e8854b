//! Label and field selectors, and the traits of an object on which they decide.

use std::collections::BTreeMap;

use serde_json::Value;

use super::kind::Kind;
use super::object::Object;
use super::status_error::StatusError;

/// What selectors can see of an object. Kept beside each event so that a watch needs no parsing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Traits {
    labels: BTreeMap<String, String>,
    /// In the order of `Kind::fields`, after name and namespace.
    fields: Vec<String>,
}

impl Traits {
    /// Reads labels and selectable fields.
    pub fn of(kind: &Kind, object: &Object) -> Self {
        let labels = object.meta().get("labels").and_then(Value::as_object);
        let labels = labels.into_iter().flatten();
        let labels = labels.map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned())).collect();
        let mut fields = vec![object.name().to_owned(), object.namespace().to_owned()];
        fields.extend(kind.fields.iter().map(|(_, pointer)| text_at(object, pointer)));
        Self { labels, fields }
    }

    /// The value of a selectable field of this kind, empty when the object has none.
    pub fn field(&self, kind: &Kind, label: &str) -> &str {
        position(kind, label).and_then(|index| self.fields.get(index)).map_or("", String::as_str)
    }

    /// Bytes held, roughly: for the limit of the history.
    pub fn bytes(&self) -> usize {
        let labels: usize = self.labels.iter().map(|(key, value)| key.len() + value.len() + 64).sum();
        let fields: usize = self.fields.iter().map(|field| field.len() + 24).sum();
        labels + fields
    }
}

fn text_at(object: &Object, pointer: &str) -> String {
    match object.value().pointer(pointer) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Bool(flag)) => flag.to_string(),
        Some(Value::Number(number)) => number.to_string(),
        // An unset boolean selects as false, as in Kubernetes.
        _ if pointer.ends_with("unschedulable") || pointer.ends_with("hostNetwork") => "false".to_owned(),
        _ => String::new(),
    }
}

fn position(kind: &Kind, label: &str) -> Option<usize> {
    match label {
        "metadata.name" => Some(0),
        "metadata.namespace" => Some(1),
        _ => kind.fields.iter().position(|(known, _)| *known == label).map(|index| index + 2),
    }
}

/// One requirement on labels; also the form of `matchExpressions`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// Label key.
    pub key: String,
    /// What must hold.
    pub test: Test,
}

/// What a requirement asks of a label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Test {
    /// The value is one of these.
    In(Vec<String>),
    /// The label is absent or its value is none of these.
    NotIn(Vec<String>),
    /// The label is there.
    Exists,
    /// The label is absent.
    Absent,
    /// The value is an integer above this one.
    Above(i64),
    /// The value is an integer below this one.
    Below(i64),
}

impl Requirement {
    /// Whether these labels satisfy the requirement.
    pub fn holds(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.key);
        let number = || value.and_then(|value| value.parse::<i64>().ok());
        match &self.test {
            Test::In(values) => value.is_some_and(|value| values.contains(value)),
            Test::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
            Test::Exists => value.is_some(),
            Test::Absent => value.is_none(),
            Test::Above(limit) => number().is_some_and(|number| number > *limit),
            Test::Below(limit) => number().is_some_and(|number| number < *limit),
        }
    }
}

/// The label and field selectors of one request.
#[derive(Clone, Debug, Default)]
pub struct Selector {
    labels: Vec<Requirement>,
    /// Index into the traits' fields, value, whether they must be equal.
    fields: Vec<(usize, String, bool)>,
}

impl Selector {
    /// Parses `labelSelector` and `fieldSelector`.
    ///
    /// # Errors
    /// 400 with the reason when one of them does not parse or names a field that cannot be selected.
    pub fn parse(kind: &Kind, labels: &str, fields: &str) -> Result<Self, StatusError> {
        let labels = parse_labels(labels)
            .map_err(|why| StatusError::bad_request(format!("unable to parse requirement: {why} in labelSelector {labels:?}")))?;
        let fields = parse_fields(kind, fields)?;
        Ok(Self { labels, fields })
    }

    /// Whether everything is selected.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// The one name that is selected, when the selector asks for `metadata.name=x`.
    pub fn name(&self) -> Option<&str> {
        self.fields.iter().find(|(index, _, equal)| *index == 0 && *equal).map(|(_, value, _)| value.as_str())
    }

    /// Whether an object with these traits is selected.
    pub fn matches(&self, traits: &Traits) -> bool {
        self.labels.iter().all(|requirement| requirement.holds(&traits.labels))
            && self.fields.iter().all(|(index, value, equal)| (traits.fields.get(*index).is_some_and(|is| is == value)) == *equal)
    }
}

fn parse_fields(kind: &Kind, text: &str) -> Result<Vec<(usize, String, bool)>, StatusError> {
    let mut terms = Vec::new();
    for term in text.split(',').map(str::trim).filter(|term| !term.is_empty()) {
        let (label, value, equal) = if let Some((label, value)) = term.split_once("!=") {
            (label, value, false)
        } else if let Some((label, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
            (label, value, true)
        } else {
            return Err(StatusError::bad_request(format!("invalid field selector: {term:?}; can't understand it")));
        };
        let label = label.trim();
        let Some(index) = position(kind, label) else {
            return Err(StatusError::bad_request(format!(
                "Unable to find {:?} that match label selector \"\", field selector {text:?}: field label not supported: {label}",
                kind.api_version() + ", Resource=" + kind.plural
            )));
        };
        terms.push((index, value.trim().to_owned(), equal));
    }
    Ok(terms)
}

/// Parses the label selector language: `a=b,a!=b,a in (x,y),a notin (x),a,!a,a>1,a<1`.
fn parse_labels(text: &str) -> Result<Vec<Requirement>, String> {
    split_outside_parentheses(text)?.into_iter().filter(|term| !term.is_empty()).map(parse_label).collect()
}

fn split_outside_parentheses(text: &str) -> Result<Vec<&str>, String> {
    let (mut terms, mut start, mut open) = (Vec::new(), 0, false);
    for (index, sign) in text.char_indices() {
        match sign {
            '(' if !open => open = true,
            ')' if open => open = false,
            '(' | ')' => return Err("unbalanced parentheses".to_owned()),
            ',' if !open => {
                terms.push(text[start..index].trim());
                start = index + 1;
            }
            _ => {}
        }
    }
    if open {
        return Err("unbalanced parentheses".to_owned());
    }
    terms.push(text[start..].trim());
    Ok(terms)
}

fn parse_label(term: &str) -> Result<Requirement, String> {
    if let Some(key) = term.strip_prefix('!') {
        return requirement(key, Test::Absent);
    }
    for (word, negative) in [(" notin ", true), (" notin(", true), (" in ", false), (" in(", false)] {
        if let Some((key, rest)) = term.split_once(word) {
            let inner = rest.trim().trim_start_matches('(').trim_end_matches(')');
            let values: Vec<String> = inner.split(',').map(|value| value.trim().to_owned()).collect();
            values.iter().try_for_each(|value| check_value(value))?;
            return requirement(key, if negative { Test::NotIn(values) } else { Test::In(values) });
        }
    }
    let number = |text: &str| text.trim().parse::<i64>().map_err(|_| format!("{text:?} is not an integer"));
    if let Some((key, value)) = term.split_once("!=") {
        check_value(value.trim())?;
        return requirement(key, Test::NotIn(vec![value.trim().to_owned()]));
    }
    if let Some((key, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
        check_value(value.trim())?;
        return requirement(key, Test::In(vec![value.trim().to_owned()]));
    }
    if let Some((key, value)) = term.split_once('>') {
        return requirement(key, Test::Above(number(value)?));
    }
    if let Some((key, value)) = term.split_once('<') {
        return requirement(key, Test::Below(number(value)?));
    }
    requirement(term, Test::Exists)
}

fn requirement(key: &str, test: Test) -> Result<Requirement, String> {
    let key = key.trim();
    match super::names::label_key(key) {
        Ok(()) => Ok(Requirement { key: key.to_owned(), test }),
        Err(why) => Err(format!("key {key:?}: {why}")),
    }
}

fn check_value(value: &str) -> Result<(), String> {
    super::names::label_value(value).map_err(|why| format!("value {value:?}: {why}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use serde_json::json;

    use super::*;
    use crate::embedded::kind;

    fn pod() -> Traits {
        let object = Object::new(json!({
            "metadata": {"name": "web", "namespace": "shop", "labels": {"app": "web", "tier": "2"}},
            "spec": {"nodeName": "edge-1"}, "status": {"phase": "Running"},
        }));
        Traits::of(&kind::PODS, &object.unwrap())
    }

    fn selects(labels: &str, fields: &str) -> bool {
        Selector::parse(&kind::PODS, labels, fields).unwrap().matches(&pod())
    }

    #[test]
    fn a_label_selector_understands_every_operator() {
        for yes in [
            "",
            "app=web",
            "app==web",
            "app!=db",
            "app in (db,web)",
            "app in(web)",
            "other notin (x)",
            "app",
            "!other",
            "tier>1",
            "tier<3",
            "app=web,tier=2",
        ] {
            assert!(selects(yes, ""), "{yes} should select");
        }
        for no in ["app=db", "app!=web", "app in (db)", "app notin (web)", "other", "!app", "tier>2", "app=web,tier=3"] {
            assert!(!selects(no, ""), "{no} should not select");
        }
    }

    #[test]
    fn a_field_selector_sees_the_fields_of_its_kind() {
        assert!(selects("", "spec.nodeName=edge-1,status.phase!=Failed"));
        assert!(!selects("", "metadata.name=db"));
        assert!(selects("", "spec.hostNetwork=false"));
        assert_eq!(Selector::parse(&kind::PODS, "", "metadata.name=p").unwrap().name(), Some("p"));
    }

    #[test]
    fn a_selector_that_does_not_parse_is_a_bad_request() {
        for (labels, fields) in [("a in (b", ""), ("a)", ""), ("=x", ""), ("a=b c", ""), ("tier>x", ""), ("", "spec.unknown=1"), ("", "name")] {
            let error = Selector::parse(&kind::PODS, labels, fields).unwrap_err();
            assert_eq!(error.code(), 400, "{labels} {fields}");
        }
    }
}
