//! One message of the link, typed: what both sides handle after decoding.

use model::{NameError, Timestamp};

use super::envelope::{CAUSES_MAX, Envelope, Header, MsgId, MsgIdError, Operation, Route};
use super::resource::{Resource, ResourceError};
use super::{Downstream, RawJson, Upstream};
use crate::mqtt::payload::Rejection;

/// A body with its header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame<B> {
    /// Identity.
    pub id: MsgId,
    /// Identity of the question that this answers.
    pub parent: Option<MsgId>,
    /// When it was made.
    pub timestamp: Timestamp,
    /// Version of the object that it carries; compared for equality only.
    pub resource_version: Option<String>,
    /// Somebody waits for the answer.
    pub sync: bool,
    /// The messages that led to this one, the latest last; see [`Header::cause`].
    pub cause: Vec<MsgId>,
    /// What it says.
    pub body: B,
}

impl<B> Frame<B> {
    /// A message of its own.
    pub fn new(id: MsgId, timestamp: Timestamp, body: B) -> Self {
        Self { id, parent: None, timestamp, resource_version: None, sync: false, cause: Vec::new(), body }
    }

    /// An answer to the message `parent`.
    pub fn answer(id: MsgId, parent: MsgId, timestamp: Timestamp, body: B) -> Self {
        Self { parent: Some(parent), ..Self::new(id, timestamp, body) }
    }

    /// The same with the version of the object that it carries.
    #[must_use]
    pub fn with_resource_version(self, resource_version: impl Into<String>) -> Self {
        Self { resource_version: Some(resource_version.into()), ..self }
    }

    /// The same with what led to it, the latest last; of more than [`CAUSES_MAX`] the latest.
    #[must_use]
    pub fn with_cause(self, cause: impl IntoIterator<Item = MsgId>) -> Self {
        let mut cause: Vec<MsgId> = cause.into_iter().collect();
        cause.drain(..cause.len().saturating_sub(CAUSES_MAX));
        Self { cause, ..self }
    }

    /// The same, marked as one whose sender waits.
    #[must_use]
    pub fn with_sync(self) -> Self {
        Self { sync: true, ..self }
    }
}

impl Frame<Downstream> {
    /// The edge's acknowledgement of this message: send it after the commit, never before.
    pub fn ack(&self, id: MsgId, at: Timestamp) -> Frame<Upstream> {
        Frame::answer(id, self.id.clone(), at, Upstream::Ack { resource: self.body.resource() })
    }

    /// The edge's refusal of this message; the cloud does not send it again until the thing changes.
    pub fn refusal(&self, id: MsgId, at: Timestamp, reason: impl Into<String>) -> Frame<Upstream> {
        let body = Upstream::Refusal { resource: self.body.resource(), reason: reason.into() };
        Frame::answer(id, self.id.clone(), at, body)
    }
}

impl Frame<Upstream> {
    /// What it weighs in memory, about, in bytes: never less than the text that it carries.
    pub fn bytes(&self) -> usize {
        self.body.bytes() + self.resource_version.as_ref().map_or(0, String::len)
    }

    /// The cloud's confirmation of this message: what it says is in the API server.
    pub fn confirm(&self, id: MsgId, at: Timestamp) -> Frame<Downstream> {
        Frame::answer(id, self.id.clone(), at, Downstream::Confirm { resource: self.body.confirmed_as() })
    }

    /// The cloud's refusal of this message.
    pub fn refusal(&self, id: MsgId, at: Timestamp, reason: impl Into<String>) -> Frame<Downstream> {
        let body = Downstream::Refusal { resource: self.body.confirmed_as(), reason: reason.into() };
        Frame::answer(id, self.id.clone(), at, body)
    }
}

/// What a body puts into the envelope besides the header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    /// Module that makes it.
    pub source: &'static str,
    /// Group that it is for.
    pub group: &'static str,
    /// What it does.
    pub operation: Operation,
    /// Which thing it is about.
    pub resource: Resource,
    /// What it carries.
    pub content: RawJson,
}

/// Why an envelope is no message of this direction.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// No id, or one that is too long.
    #[error(transparent)]
    Id(#[from] MsgIdError),
    /// The resource means nothing.
    #[error(transparent)]
    Resource(#[from] ResourceError),
    /// Known parts in a combination that this version does not know. The sender is answered with a refusal and the
    /// connection stays.
    #[error("no message is `{operation}` of `{resource}` for group `{group}` from `{source_module}`")]
    UnknownKind {
        /// `route.operation`.
        operation: String,
        /// `route.resource`.
        resource: String,
        /// `route.group`.
        group: String,
        /// `route.source`.
        source_module: String,
    },
    /// An answer without the question's id.
    #[error("an answer has no parent_msg_id")]
    Orphan,
    /// The content has not the form that the message has.
    #[error("failed to read the content of `{resource}`")]
    Content {
        /// `route.resource`.
        resource: String,
        /// What the parser says.
        #[source]
        source: serde_json::Error,
    },
    /// The content is JSON of the right form with something that is refused.
    #[error("failed to take the content of `{resource}`")]
    Rejected {
        /// `route.resource`.
        resource: String,
        /// Why, with KubeEdge's code and reason.
        #[source]
        source: Rejection,
    },
    /// A list that is longer than any that an honest peer sends.
    #[error("the content of `{resource}` lists {count}, at most {max} are taken")]
    TooMany {
        /// The resource.
        resource: String,
        /// How many there are.
        count: usize,
        /// How many may be.
        max: usize,
    },
    /// A content that is longer than any that an honest peer sends.
    #[error("the content of `{resource}` has {bytes} bytes, at most {max} are taken")]
    TooLarge {
        /// The resource.
        resource: String,
        /// How many there are.
        bytes: usize,
        /// How many may be.
        max: usize,
    },
    /// The content is another object than the resource says.
    #[error("the content of `{resource}` names itself `{found}`")]
    Misnamed {
        /// The resource.
        resource: String,
        /// Namespace and name in the content, shortened.
        found: String,
    },
    /// A name in the resource is not valid.
    #[error(transparent)]
    Name(#[from] NameError),
}

impl BodyError {
    pub(super) fn unknown(envelope: &Envelope) -> Self {
        let route = &envelope.route;
        Self::UnknownKind {
            operation: shown(route.operation.as_str()),
            resource: shown(&route.resource),
            group: shown(&route.group),
            source_module: shown(&route.source),
        }
    }
}

/// A text from outside for an error: short, without control characters.
pub(super) fn shown(text: &str) -> String {
    text.chars().take(128).flat_map(char::escape_debug).collect()
}

/// A direction of the link.
pub trait Body: Sized {
    /// What goes into the envelope.
    fn parts(&self) -> Parts;

    /// Reads the body of an envelope.
    ///
    /// # Errors
    /// [`BodyError`] when it is no message of this direction.
    fn read(envelope: &Envelope, resource: Resource) -> Result<Self, BodyError>;
}

impl<B: Body> Frame<B> {
    /// The envelope of this message.
    pub fn to_envelope(&self) -> Envelope {
        let Parts { source, group, operation, resource, content } = self.body.parts();
        let header = Header {
            msg_id: self.id.to_string(),
            parent_msg_id: self.parent.as_ref().map(MsgId::to_string).unwrap_or_default(),
            timestamp: self.timestamp,
            resourceversion: self.resource_version.clone().unwrap_or_default(),
            sync: self.sync,
            cause: self.cause.iter().map(MsgId::to_string).collect(),
        };
        let route = Route { source: source.into(), group: group.into(), operation, resource: resource.to_string() };
        Envelope { header, route, content }
    }

    /// Reads an envelope as a message of this direction.
    ///
    /// # Errors
    /// [`BodyError`] when it is none.
    pub fn from_envelope(envelope: &Envelope) -> Result<Self, BodyError> {
        let header = &envelope.header;
        let parent = match header.parent_msg_id.as_str() {
            "" => None,
            text => Some(MsgId::new(text)?),
        };
        if parent.is_none() && matches!(envelope.route.operation, Operation::Response | Operation::Error) && envelope.route.group != "user" {
            return Err(BodyError::Orphan);
        }
        Ok(Self {
            id: MsgId::new(&header.msg_id)?,
            parent,
            timestamp: header.timestamp,
            resource_version: Some(header.resourceversion.clone()).filter(|version| !version.is_empty()),
            sync: header.sync,
            // Only for the log: one that is none is no reason to refuse the message.
            cause: header.cause.iter().filter_map(|cause| MsgId::new(cause).ok()).collect(),
            body: B::read(envelope, Resource::of(&envelope.route)?)?,
        })
    }
}
