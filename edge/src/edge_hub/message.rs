//! What EdgeHub is told.

use std::time::Duration;

use actor::{Mail, Reply, brief};
use wire::hub::codec::{self, Head};
use wire::hub::{Downstream, Frame, Upstream};
use wire::link::Capabilities;

/// The answer to [`EdgeHubMessage::Request`].
pub type Answer = Result<Frame<Downstream>, RequestError>;

/// Everything that can make EdgeHub act.
#[derive(Debug)]
pub enum EdgeHubMessage {
    /// From MetaManager, Edged and Communication: goes to the cloud if it is there, else it is dropped and
    /// counted. Who must be heard asks the store again on `CloudConnected` or on its own timer.
    Send(Frame<Upstream>),
    /// From MetaManager: as `Send`, but only while this session stands: in a later one it would not be true any more.
    SendIn {
        /// The session.
        session: u64,
        /// What to send.
        frame: Frame<Upstream>,
    },
    /// From MetaManager and Edged: as `Send`, and the frame that names this one as its parent is the answer.
    /// Answered exactly once; at once with `Disconnected` when the connection is not there or breaks.
    Request {
        /// The question.
        frame: Frame<Upstream>,
        /// How long the answer may take.
        within: Duration,
        /// Who asked.
        reply: Reply<Answer>,
    },
    /// From the socket: a session stands. Followed by a notice to Communication, MetaManager and Edged.
    Connected {
        /// Grows with each session of this process.
        session: u64,
        /// What both sides of it can.
        capabilities: Capabilities,
    },
    /// From the socket: the session is over. Followed by the same notice; open requests fail.
    Disconnected {
        /// Which session.
        session: u64,
        /// Why.
        reason: String,
    },
    /// From the socket: one text frame of the cloud.
    Received {
        /// In which session; 0 for one that enters again out of the quarantine.
        session: u64,
        /// The frame, not decoded.
        text: String,
    },
    /// From EdgeHub's own timer: requests whose time is over are answered with `Deadline`.
    RequestsDue,
}

/// Why a request was not answered by the cloud.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The cloud is not there, or the connection broke before it answered.
    #[error("the cloud is not connected")]
    Disconnected,
    /// No answer in time. One that comes later is treated like any other message.
    #[error("the cloud did not answer within {0:?}")]
    Deadline(Duration),
    /// Too many requests are open, or too much waits to be written.
    #[error("too much waits for the cloud already")]
    Busy,
    /// The cloud answered with something that is no answer.
    #[error("the cloud's answer cannot be read: {0}")]
    Unreadable(String),
    /// The frame is larger than the cloud takes.
    #[error("the request has {bytes} bytes, more than the cloud takes")]
    TooLarge {
        /// Size of the frame.
        bytes: usize,
    },
}

impl Mail for EdgeHubMessage {
    fn kind(&self) -> &'static str {
        match self {
            Self::Send(_) => "Send",
            Self::SendIn { .. } => "SendIn",
            Self::Request { .. } => "Request",
            Self::Connected { .. } => "Connected",
            Self::Disconnected { .. } => "Disconnected",
            Self::Received { .. } => "Received",
            Self::RequestsDue => "RequestsDue",
        }
    }

    /// Never shows a content: it may be a Secret.
    fn describe(&self) -> String {
        match self {
            Self::Send(frame) | Self::SendIn { frame, .. } | Self::Request { frame, .. } => {
                format!("{} {} {}", self.kind(), frame.body.kind(), brief(frame.id.as_str()))
            }
            Self::Connected { session, .. } => format!("Connected: session {session}"),
            Self::Disconnected { session, reason } => format!("Disconnected: session {session}: {}", brief(reason)),
            Self::Received { text, .. } => match codec::head(text) {
                Some(Head { header, route, .. }) => {
                    format!("Received {} {}, frame {}", brief(route.operation.as_str()), brief(&route.resource), brief(&header.msg_id))
                }
                None => format!("Received {} bytes that are no message", text.len()),
            },
            Self::RequestsDue => self.kind().into(),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Send(frame) | Self::SendIn { frame, .. } | Self::Request { frame, .. } => frame.body.bytes(),
            Self::Received { text, .. } => 256 + text.len(),
            Self::Connected { .. } | Self::Disconnected { .. } | Self::RequestsDue => 256,
        }
    }
}
