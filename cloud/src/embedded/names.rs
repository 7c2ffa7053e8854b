//! The rules for names, label keys and label values (RFC 1123, Kubernetes "Object Names and IDs").

const SUBDOMAIN_RULE: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', \
     and must start and end with an alphanumeric character (e.g. 'example.com')";
const LABEL_RULE: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', \
     and must start and end with an alphanumeric character (e.g. 'my-name', or '123-abc')";
const QUALIFIED_RULE: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', \
     and must start and end with an alphanumeric character (e.g. 'MyName')";
const VALUE_RULE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', \
     and must start and end with an alphanumeric character (e.g. 'MyValue')";

/// A DNS label: at most 63 characters.
///
/// # Errors
/// The rule that is broken, as a sentence for the client.
pub fn dns_label(text: &str) -> Result<(), String> {
    if text.len() > 63 {
        return Err("must be no more than 63 characters".to_owned());
    }
    if is_label(text) { Ok(()) } else { Err(LABEL_RULE.to_owned()) }
}

/// A DNS subdomain: labels joined by dots, at most 253 characters.
///
/// # Errors
/// The rule that is broken, as a sentence for the client.
pub fn dns_subdomain(text: &str) -> Result<(), String> {
    if text.len() > 253 {
        return Err("must be no more than 253 characters".to_owned());
    }
    if text.split('.').all(is_label) { Ok(()) } else { Err(SUBDOMAIN_RULE.to_owned()) }
}

fn is_label(text: &str) -> bool {
    let plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    bytes.first().is_some_and(plain) && bytes.last().is_some_and(plain) && bytes.iter().all(|byte| plain(byte) || *byte == b'-')
}

/// A label or annotation key: `name` or `subdomain/name`.
///
/// # Errors
/// The rule that is broken, as a sentence for the client.
pub fn label_key(text: &str) -> Result<(), String> {
    let name = match text.split_once('/') {
        Some((prefix, name)) => {
            dns_subdomain(prefix).map_err(|why| format!("prefix part {why}"))?;
            name
        }
        None => text,
    };
    if name.is_empty() {
        return Err("name part must be non-empty".to_owned());
    }
    if name.len() > 63 {
        return Err("name part must be no more than 63 characters".to_owned());
    }
    if is_qualified(name) { Ok(()) } else { Err(QUALIFIED_RULE.to_owned()) }
}

/// A label value: empty, or at most 63 characters.
///
/// # Errors
/// The rule that is broken, as a sentence for the client.
pub fn label_value(text: &str) -> Result<(), String> {
    if text.len() > 63 {
        return Err("must be no more than 63 characters".to_owned());
    }
    if text.is_empty() || is_qualified(text) { Ok(()) } else { Err(VALUE_RULE.to_owned()) }
}

fn is_qualified(text: &str) -> bool {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric();
    let bytes = text.as_bytes();
    bytes.first().is_some_and(plain) && bytes.last().is_some_and(plain) && bytes.iter().all(|byte| plain(byte) || matches!(byte, b'-' | b'_' | b'.'))
}

/// A key of a ConfigMap or Secret: alphanumerics, `-`, `_`, `.`, at most 253, not `.` or `..`.
///
/// # Errors
/// The rule that is broken, as a sentence for the client.
pub fn data_key(text: &str) -> Result<(), String> {
    if text.len() > 253 {
        return Err("must be no more than 253 characters".to_owned());
    }
    if text == "." || text.starts_with("..") {
        return Err("must not be '.' or start with '..'".to_owned());
    }
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if !text.is_empty() && text.bytes().all(plain) {
        Ok(())
    } else {
        Err("a valid config key must consist of alphanumeric characters, '-', '_' or '.'".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_rfc_1123() {
        for good in ["a", "web-1", "a.b.c", "0"] {
            assert!(dns_subdomain(good).is_ok(), "{good}");
        }
        for bad in ["", "..", "a..b", "-a", "a-", "A", "a_b", "a/b", "ä", &"a".repeat(254)] {
            assert!(dns_subdomain(bad).is_err(), "{bad}");
        }
        assert!(dns_label("a.b").is_err());
        assert!(dns_label(&"a".repeat(64)).is_err());
    }

    #[test]
    fn label_keys_may_have_a_prefix_and_values_may_be_empty() {
        assert!(label_key("node-role.kubernetes.io/edge").is_ok());
        assert!(label_key("a/b/c").is_err());
        assert!(label_key("/b").is_err());
        assert!(label_value("").is_ok());
        assert!(label_value("a b").is_err());
    }

    #[test]
    fn data_keys_cannot_leave_their_directory() {
        assert!(data_key("app.conf").is_ok());
        for bad in ["", ".", "..", "../x", "a/b", "..data"] {
            assert!(data_key(bad).is_err(), "{bad}");
        }
    }
}
