//! What an administrator can do, by a form of the page or a call of the API. Each is logged and noted in the diary.

use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::{rt, web};
use actor::{ControlError, Drill, EventKind, MsgId, RetryError};

use crate::logging::BadFilter;
use crate::server::Shared;

/// Longest name of an actor that is looked up, in bytes.
const NAME_BYTES_MAX: usize = 128;
/// How long a supervisor may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// One of them, with everything that was checked at the border.
#[derive(Debug)]
pub(crate) enum Action {
    Restart(String),
    Retry(MsgId),
    Drop(MsgId),
    LogLevel(String),
    Drill(String, Drill),
}

/// What was done, and to whom.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) actor: String,
    pub(crate) what: String,
}

/// Why it was not done. The text is a sentence for the administrator.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ActionError {
    #[error("no actor and no supervisor is called that: see /api/actors")]
    UnknownActor,
    #[error("this is no identity of a message: it has the form of a UUID, see /api/quarantine")]
    NoId,
    #[error("{0}")]
    Control(#[from] ControlError),
    #[error("{0}")]
    Retry(#[from] RetryError),
    #[error("{0}")]
    Filter(#[from] BadFilter),
    #[error("the log of this daemon was not set up to be changed while it runs")]
    NoLog,
    #[error("fault drills are off: set `admin.fault-injection: true` and restart, on a machine that may fail")]
    DrillsOff,
    #[error("{0}")]
    Malformed(String),
    #[error("the supervisor did not answer within {} s", ANSWER_WITHIN.as_secs())]
    Late,
}

impl ActionError {
    pub(crate) const fn status(&self) -> StatusCode {
        match self {
            Self::UnknownActor | Self::Control(ControlError::Unknown(_)) | Self::Retry(RetryError::Unknown(_)) | Self::NoLog | Self::DrillsOff => {
                StatusCode::NOT_FOUND
            }
            Self::NoId | Self::Filter(_) | Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::Control(ControlError::Taken(_) | ControlError::NotAnActor(_))
            | Self::Retry(RetryError::Internal(_) | RetryError::Refused { .. }) => StatusCode::CONFLICT,
            Self::Control(ControlError::Stopping) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Late => StatusCode::GATEWAY_TIMEOUT,
        }
    }
}

/// Reads the identity of a quarantined message.
pub(crate) fn message_id(text: &str) -> Result<MsgId, ActionError> {
    text.parse().map_err(|_| ActionError::NoId)
}

/// Does it, and tells the log and the diary.
pub(crate) async fn act(shared: &Shared, action: Action) -> Result<Done, ActionError> {
    // The supervisor notes a drill itself, when it begins.
    let noted = !matches!(action, Action::Drill(..));
    let done = perform(shared, action).await.inspect_err(|why| log::warn!(why:% = why; "an administrator's action was not done"))?;
    log::warn!(actor = done.actor.as_str(), what = done.what.as_str(); "an administrator acted");
    if noted {
        shared.registry.note(&done.actor, EventKind::Operator, done.what.clone());
    }
    Ok(done)
}

async fn perform(shared: &Shared, action: Action) -> Result<Done, ActionError> {
    match action {
        Action::Restart(name) => {
            known(shared, &name)?;
            in_time(shared.running.restart(&name)).await?;
            Ok(Done { actor: name, what: "restart".to_owned() })
        }
        Action::Drill(name, drill) => {
            if !shared.config.fault_injection {
                return Err(ActionError::DrillsOff);
            }
            known(shared, &name)?;
            let drill = drill.bounded();
            in_time(shared.running.drill(&name, drill)).await?;
            Ok(Done { actor: name, what: format!("fault drill: {drill:?}") })
        }
        Action::Retry(id) => {
            let quarantine = shared.registry.quarantine().clone();
            // The border's own code runs in it.
            let entered = web::block(move || quarantine.retry(&id.to_string())).await;
            let entered = entered.map_err(|_| RetryError::Refused { id: id.to_string(), reason: "the border failed; see the log".to_owned() })??;
            Ok(Done { actor: entered.actor, what: format!("let message {id} ({}) in again", entered.kind) })
        }
        Action::Drop(id) => {
            let dropped = shared.registry.quarantine().remove(&id.to_string())?;
            Ok(Done { actor: dropped.actor, what: format!("drop message {id} ({})", dropped.kind) })
        }
        Action::LogLevel(filter) => {
            let log = shared.config.log.as_ref().ok_or(ActionError::NoLog)?;
            let before = log.current();
            log.set(&filter)?;
            Ok(Done { actor: "log".to_owned(), what: format!("level {} in place of {before}", log.current()) })
        }
    }
}

fn known(shared: &Shared, name: &str) -> Result<(), ActionError> {
    let registry = &shared.registry;
    let found = name.len() <= NAME_BYTES_MAX && (registry.views().iter().any(|v| v.name == name) || registry.trees().iter().any(|t| t.name == name));
    if found { Ok(()) } else { Err(ActionError::UnknownActor) }
}

async fn in_time(answer: impl Future<Output = Result<(), ControlError>>) -> Result<(), ActionError> {
    rt::time::timeout(ANSWER_WITHIN, answer).await.map_err(|_| ActionError::Late)?.map_err(ActionError::from)
}
