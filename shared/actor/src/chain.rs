//! An error and what caused it, in one line.

use std::error::Error;

/// The error's text and those of its causes, outermost first, joined by `: `. A cause whose text is already there (a
/// wrapper that prints its source) is not said twice.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let said = cause.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Failed {
        #[error("cannot open `{path}`")]
        Open {
            path: &'static str,
            #[source]
            source: std::io::Error,
        },
        #[error("the start failed: {0}")]
        Start(#[source] Box<Failed>),
    }

    #[test]
    fn causes_follow_in_order_and_none_is_said_twice() {
        let open = Failed::Open { path: "/x", source: std::io::Error::other("disk on fire") };
        assert_eq!(chain(&open), "cannot open `/x`: disk on fire");
        assert_eq!(chain(&Failed::Start(Box::new(open))), "the start failed: cannot open `/x`: disk on fire");
    }
}
