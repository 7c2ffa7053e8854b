//! What both sides of a connection can do beyond KubeEdge's protocol: settled once, in the HTTP upgrade.

/// Name of the header, in the request and in its answer. A peer without it is KubeEdge's, and served in its way.
pub const HEADER: &str = "skep-capabilities";

/// A longer header is taken for one that names nothing.
const BYTES_MAX: usize = 1024;
const DIGEST: &str = "digest";

/// What a peer can do; what both can holds for the session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// The edge says which objects it holds, and the cloud sends the difference, deletions included.
    pub digest: bool,
}

impl Capabilities {
    /// Those of this version.
    pub const OURS: Self = Self { digest: true };

    /// Reads the value of the header: words between commas. A word that this version does not know is passed over.
    pub fn read(value: &str) -> Self {
        if value.len() > BYTES_MAX {
            return Self::default();
        }
        Self { digest: value.split(',').any(|word| word.trim().eq_ignore_ascii_case(DIGEST)) }
    }

    /// The value of the header; `None` for a peer that can nothing beyond the protocol.
    pub fn header(self) -> Option<&'static str> {
        self.digest.then_some(DIGEST)
    }

    /// What both can.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self { digest: self.digest && other.digest }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_words_between_commas_and_what_is_not_known_is_passed_over() {
        for (value, digest) in [("digest", true), ("logs, Digest ,x", true), ("", false), ("digests", false), ("digest=1", false)] {
            assert_eq!(Capabilities::read(value), Capabilities { digest }, "{value}");
        }
        assert_eq!(Capabilities::read(&format!("{}digest", "x,".repeat(BYTES_MAX))), Capabilities::default());
        assert_eq!(Capabilities::OURS.header().map(Capabilities::read), Some(Capabilities::OURS));
        assert_eq!(Capabilities::OURS.and(Capabilities::default()).header(), None);
    }
}
