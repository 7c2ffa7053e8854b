//! Who a node is: the subject of its certificate, on which both ends of the link agree (Kubernetes' node authorizer), and
//! the text form in which certificates lie in files.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use model::NodeName;

/// Organization of every node's certificate.
pub const NODES: &str = "system:nodes";
/// What stands before the node's name in the common name.
const NODE_PREFIX: &str = "system:node:";

/// The common name of a node's certificate: `system:node:<name>`.
#[must_use]
pub fn common_name(node: &NodeName) -> String {
    format!("{NODE_PREFIX}{node}")
}

/// The node that a certificate is for; `None` if it is no node's: its one common name must be `system:node:<name>` and
/// one of its organizations `system:nodes`. Two common names are two identities, so none.
#[must_use]
pub fn node_of<'a>(common_names: impl IntoIterator<Item = &'a str>, organizations: impl IntoIterator<Item = &'a str>) -> Option<NodeName> {
    let mut common_names = common_names.into_iter();
    let name = common_names.next().filter(|_| common_names.next().is_none())?.strip_prefix(NODE_PREFIX)?;
    organizations.into_iter().find(|organization| *organization == NODES)?;
    NodeName::new(name).ok()
}

/// A certificate in PEM form: base64 of its DER bytes, 64 characters a line (RFC 7468).
#[must_use]
pub fn pem(certificate: &[u8]) -> String {
    let text = STANDARD.encode(certificate);
    let lines: Vec<&str> = (0..text.len()).step_by(64).map(|at| &text[at..text.len().min(at + 64)]).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use super::*;

    #[test]
    fn a_node_is_what_its_own_common_name_says() {
        let node = NodeName::new("edge-1").unwrap();
        let name = common_name(&node);
        assert_eq!(name, "system:node:edge-1");
        assert_eq!(node_of([name.as_str()], ["other", NODES]), Some(node));
    }

    #[test]
    fn what_is_no_nodes_subject_is_nobody() {
        assert_eq!(node_of([], [NODES]), None);
        assert_eq!(node_of(["system:node:a", "system:node:b"], [NODES]), None);
        for (name, organization) in
            [("system:node:a", "system:masters"), ("system:node:", NODES), ("system:node:A b", NODES), ("a", NODES), ("system:node:../a", NODES)]
        {
            assert_eq!(node_of([name], [organization]), None, "{name}");
        }
    }

    #[test]
    fn lines_of_pem_have_64_characters() {
        let text = pem(&[7; 100]);
        let lines: Vec<usize> = text.lines().map(str::len).collect();
        assert_eq!(lines, [27, 64, 64, 8, 25]);
    }
}
