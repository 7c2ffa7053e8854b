//! Which field of an object a decoder could not take.
//!
//! A crate that follows the decoder doubles the code of every decoded type; the text and the place where it stopped say as much.

/// Most bytes of a field's path, and of the words about it.
const TEXT_BYTES_MAX: usize = 512;

/// A list or map that is open.
enum Open {
    Map(String),
    /// How many of its items have begun.
    List(usize),
}

/// A decoder's error in the words of a person who does not see the text: the field, such as `spec.containers[0].image`, and
/// what is wrong with it. The field is empty where it is the whole, or the text is no JSON; then the words have line and column.
pub fn explain(json: &str, error: &serde_json::Error) -> (String, String) {
    let words = error.to_string();
    let field = if error.is_data() { field_at(json, error.line(), error.column()) } else { String::new() };
    match words.rfind(" at line ").filter(|_| !field.is_empty()) {
        Some(end) => (short(&field), short(&words[..end])),
        None => (String::new(), short(&words)),
    }
}

/// A key and a value may be as long as the whole text, and both are told on.
fn short(text: &str) -> String {
    let end = text.floor_char_boundary(TEXT_BYTES_MAX);
    if end < text.len() { format!("{}…", &text[..end]) } else { text.to_owned() }
}

/// The field that ends or is under way at a place of a text that is JSON up to there. Lines count from 1, columns are bytes.
fn field_at(json: &str, line: usize, column: usize) -> String {
    let before: usize = json.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    let text = json.as_bytes().get(..before + column).unwrap_or(json.as_bytes());
    let mut open: Vec<Open> = Vec::new();
    // Whether the next text in a map is a key.
    let (mut is_key, mut at) = (false, 0);
    while let Some(byte) = text.get(at) {
        // In a list, whatever is neither its end nor a blank begins an item, unless one is under way.
        if let Some(Open::List(begun @ 0)) = open.last_mut()
            && !matches!(byte, b']' | b' ' | b'\t' | b'\r' | b'\n')
        {
            *begun = 1;
        }
        at += 1;
        match byte {
            b'{' => {
                open.push(Open::Map(String::new()));
                is_key = true;
            }
            b'[' => open.push(Open::List(0)),
            b'}' | b']' => {
                open.pop();
                is_key = false;
            }
            b',' => match open.last_mut() {
                Some(Open::List(begun)) => *begun += 1,
                _ => is_key = true,
            },
            b'"' => {
                let began = at;
                while let Some(byte) = text.get(at).filter(|byte| **byte != b'"') {
                    at += if *byte == b'\\' { 2 } else { 1 };
                }
                if let (true, Some(Open::Map(key))) = (is_key, open.last_mut()) {
                    *key = String::from_utf8_lossy(&text[began..at.min(text.len())]).into_owned();
                    is_key = false;
                }
                at += 1;
            }
            _ => {}
        }
    }
    let mut path = String::new();
    for one in open {
        match one {
            Open::Map(key) if key.is_empty() => {}
            Open::Map(key) if path.is_empty() => path = key,
            Open::Map(key) => path = format!("{path}.{key}"),
            Open::List(0) => {}
            Open::List(begun) => path = format!("{path}[{}]", begun - 1),
        }
    }
    path
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, Deserialize)]
    #[serde(default)]
    #[allow(dead_code, reason = "only decoded")]
    struct Node {
        n: u16,
        s: String,
        list: Vec<Node>,
        map: std::collections::BTreeMap<String, u8>,
        next: Option<Box<Node>>,
        must: Option<Must>,
    }

    #[derive(Debug, Deserialize)]
    #[allow(dead_code, reason = "only decoded")]
    struct Must {
        name: String,
    }

    fn field(text: &str) -> String {
        explain(text, &serde_json::from_str::<Node>(text).unwrap_err()).0
    }

    #[test]
    fn a_value_of_the_wrong_type_is_named_by_its_field() {
        for (text, wanted) in [
            (r#"{"n": "x"}"#, "n"),
            (r#"{"n": 70000, "s": ""}"#, "n"),
            (r#"{"s": {"a": 1}}"#, "s"),
            (r#"{"s": []}"#, "s"),
            (r#"{"list": "none"}"#, "list"),
            (r#"{"list": {}}"#, "list"),
            (r#"{"list": [{"n": 1}, {"n": true}]}"#, "list[1].n"),
            (r#"{"list": [{}, 3]}"#, "list[1]"),
            (r#"{"next": {"list": [{"list": [{}, {}, {"map": {"a\"b": 1, "c": -1}}]}]}}"#, "next.list[0].list[2].map.c"),
            (r#"{"s": "a [ { \" , b", "map": {"\\": 1, "x,y": 300}}"#, "map.x,y"),
            (r#"{"must": {"other": [1, 2]}}"#, "must"),
            ("{\n  \"s\": \"é\",\n  \"list\": [\n    {},\n    {\"n\": \"é\"}\n  ]\n}", "list[1].n"),
            ("3", ""),
            (r#"{"n": 1"#, ""),
            (r#"{"n": nonsense}"#, ""),
        ] {
            assert_eq!(field(text), wanted, "{text}");
        }
    }

    #[test]
    fn the_words_have_a_place_only_where_there_is_no_field() {
        let explained = |text: &str| explain(text, &serde_json::from_str::<Node>(text).unwrap_err()).1;
        assert_eq!(explained(r#"{"n": "x"}"#), r#"invalid type: string "x", expected u16"#);
        assert!(explained(r#"{"n": "#).contains(" at line 1 column "));
    }

    #[test]
    fn a_key_and_a_value_as_long_as_the_text_are_cut() {
        let long = "é".repeat(1 << 20);
        let text = format!(r#"{{"map": {{"{long}": "{long}"}}}}"#);
        let (field, words) = explain(&text, &serde_json::from_str::<Node>(&text).unwrap_err());
        assert!(field.starts_with("map.é") && field.ends_with('…') && field.len() <= TEXT_BYTES_MAX + 3, "{}", field.len());
        assert!(words.starts_with("invalid type: string") && words.len() <= TEXT_BYTES_MAX + 3, "{}", words.len());
        let text = format!(r#"{{"{long}": 1"#);
        assert!(explain(&text, &serde_json::from_str::<Node>(&text).unwrap_err()).1.len() <= TEXT_BYTES_MAX + 3);
    }

    #[test]
    fn a_place_that_is_not_in_the_text_is_no_panic() {
        for (line, column) in [(0, 0), (1, 0), (1, 2), (1, 99), (9, 9), (usize::MAX, 1)] {
            let _ = field_at(r#"{"a": ["#, line, column);
        }
        let _ = field_at("]]}},,\"\\", 1, 8);
    }
}
