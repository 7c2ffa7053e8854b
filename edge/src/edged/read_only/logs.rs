//! `GET /containerLogs/{namespace}/{pod}/{container}`: what a container wrote, while it writes if that is asked for.

use std::sync::Arc;
use std::time::Duration;

use actix_web::http::{ConnectionType, Version};
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use jiff::Timestamp;
use tokio::sync::mpsc::error::SendTimeoutError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::super::runtime::{LogQuery, LogStream, RuntimeError, Summary, label};
use super::{ReadError, Reading, Source, all_pods};
use crate::store::Store;

/// Pieces between the engine and a reader: a reader that does not read stops the engine's sending.
const PIECES_MAX: usize = 4;
/// A reader that takes none of them for this long has lost its place: others wait for it.
const STUCK_AFTER: Duration = Duration::from_secs(60);

/// What was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// Which lines.
    pub query: LogQuery,
    /// Of the run before this one.
    pub previous: bool,
}

/// Reads the parameters of a request.
///
/// # Errors
/// [`ReadError::Parameter`], also for a parameter that is not known: a wrong name would give a wrong answer.
pub fn parse(parameters: &[(String, String)], now: Timestamp) -> Result<Asked, ReadError> {
    let mut asked = Asked::default();
    let mut is_since = false;
    for (name, value) in parameters {
        let wrong = |why| ReadError::Parameter { name: name.chars().take(64).collect(), why };
        let flag = || match value.as_str() {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err(wrong("must be true or false")),
        };
        match name.as_str() {
            "follow" => asked.query.follow = flag()?,
            "timestamps" => asked.query.timestamps = flag()?,
            "previous" => asked.previous = flag()?,
            "tailLines" => asked.query.tail = Some(value.parse::<u32>().map_err(|_| wrong("must be a number of lines"))?.into()),
            "sinceSeconds" | "sinceTime" if is_since => return Err(wrong("cannot be beside another one of sinceSeconds and sinceTime")),
            "sinceSeconds" => {
                let seconds = value.parse::<u32>().ok().filter(|seconds| *seconds > 0).ok_or_else(|| wrong("must be a number of seconds above 0"))?;
                // Before the epoch nothing was written.
                asked.query.since = Some(now.as_second().saturating_sub(seconds.into()).max(0));
                is_since = true;
            }
            "sinceTime" => {
                let time: Timestamp = value.parse().map_err(|_| wrong("must be a time like 2026-01-31T12:00:00Z"))?;
                asked.query.since = Some(time.as_second().max(0));
                is_since = true;
            }
            _ => return Err(wrong("is not known: there are follow, previous, sinceSeconds, sinceTime, tailLines and timestamps")),
        }
    }
    Ok(asked)
}

/// The run whose log is wanted, out of all containers of one name and pod.
fn choose(mut found: Vec<Summary>, previous: bool) -> Option<Summary> {
    let attempt = |one: &Summary| one.labels.get(label::RESTARTS).and_then(|text| text.parse::<u32>().ok()).unwrap_or(0);
    found.sort_by_key(|one| std::cmp::Reverse(attempt(one)));
    found.into_iter().nth(usize::from(previous))
}

/// Id of the container.
async fn find(
    source: &Source,
    reading: &Reading,
    store: web::Data<Store>,
    path: &(String, String, String),
    previous: bool,
) -> Result<String, ReadError> {
    let (namespace, name, container) = path;
    let list = all_pods(store, reading).await?;
    let named = |pod: &serde_json::Value| {
        let (namespace, name) = (pod["metadata"]["namespace"].as_str(), pod["metadata"]["name"].as_str());
        format!("{}/{}", namespace.unwrap_or("default"), name.unwrap_or_default())
    };
    let wanted = format!("{namespace}/{name}");
    let pods = list["items"].as_array().map_or(&[][..], Vec::as_slice);
    let uid = pods.iter().find(|pod| named(pod) == wanted).and_then(|pod| pod["metadata"]["uid"].as_str());
    // One that was deleted and still ends is no longer stored, but its log is there.
    let mut labels = vec![(label::NODE, source.node.as_str()), (label::POD_NAMESPACE, namespace), (label::POD_NAME, name)];
    labels.extend(uid.map(|uid| (label::POD_UID, uid)));
    let listed = source.runtime.list(&labels).await?;
    let name_of = |one: &Summary| one.labels.get(label::CONTAINER).cloned().unwrap_or_default();
    if uid.is_none() && listed.is_empty() {
        return Err(ReadError::Pod { wanted, known: pods.iter().map(named).collect() });
    }
    let (of_it, others): (Vec<Summary>, Vec<Summary>) =
        listed.into_iter().partition(|one| name_of(one) == *container && container != label::SANDBOX_NAME);
    if of_it.is_empty() {
        let mut known: Vec<String> = others.iter().map(name_of).filter(|name| name != label::SANDBOX_NAME).collect();
        known.sort();
        known.dedup();
        return Err(ReadError::Container { pod: wanted, wanted: container.clone(), known });
    }
    let chosen = choose(of_it, previous).ok_or_else(|| ReadError::Previous { pod: wanted, container: container.clone() })?;
    Ok(chosen.id)
}

/// Answers the request.
///
/// # Errors
/// See [`ReadError`].
pub async fn answer(
    reading: web::Data<Reading>,
    store: web::Data<Store>,
    path: web::Path<(String, String, String)>,
    request: HttpRequest,
) -> Result<HttpResponse, ReadError> {
    let parameters = web::Query::<Vec<(String, String)>>::from_query(request.query_string());
    let parameters = parameters.map_err(|_| ReadError::Parameter { name: "?".into(), why: "is not a query of names and values" })?;
    let asked = parse(&parameters, Timestamp::now())?;
    let source = reading.source()?;
    let id = find(&source, &reading, store, &path, asked.previous).await?;
    let (room, what) = if asked.query.follow { (&reading.following, "followed") } else { (&reading.reading, "read") };
    let permit = take(room, what)?;
    let pieces = pump(source, id, asked.query, permit);
    let body = stream::unfold(pieces, |mut pieces| async move { pieces.recv().await.map(|piece| (piece, pieces)) });
    let mut answer = HttpResponse::Ok().content_type("text/plain; charset=utf-8").streaming(body);
    if request.version() < Version::HTTP_11 {
        // Such a reader knows no chunks (RFC 9112 §6.1): the end of the connection is the end of the log.
        answer.head_mut().no_chunking(true);
        answer.head_mut().set_connection_type(ConnectionType::Close);
    }
    Ok(answer)
}

fn take(room: &Arc<Semaphore>, what: &'static str) -> Result<OwnedSemaphorePermit, ReadError> {
    room.clone().try_acquire_owned().map_err(|_| ReadError::Busy(what))
}

/// Carries a log from the engine until it ends or the reader has gone. At most [`PIECES_MAX`] pieces wait between them. An
/// error ends the answer without its last chunk, so that the reader knows that something is missing.
fn pump(source: Source, id: String, query: LogQuery, permit: OwnedSemaphorePermit) -> mpsc::Receiver<Result<Bytes, RuntimeError>> {
    // One more, for the word that something is missing.
    let (send, receive) = mpsc::channel(PIECES_MAX + 1);
    actix_web::rt::spawn(async move {
        let _permit = permit;
        carry(source.runtime.logs(&id, &query), send).await;
    });
    receive
}

async fn carry(mut lines: LogStream<'_>, send: mpsc::Sender<Result<Bytes, RuntimeError>>) {
    let Ok(last) = send.clone().try_reserve_owned() else { return };
    loop {
        let piece = tokio::select! {
            piece = lines.next() => piece,
            // A container that says nothing would otherwise keep the place of a reader who has left.
            () = send.closed() => None,
        };
        match piece {
            Some(Ok(piece)) => match send.send_timeout(Ok(piece.into()), STUCK_AFTER).await {
                Ok(()) => {}
                Err(SendTimeoutError::Closed(_)) => return,
                Err(SendTimeoutError::Timeout(_)) => {
                    last.send(Err(RuntimeError::TimedOut { what: "the reader of a log", limit: STUCK_AFTER }));
                    return;
                }
            },
            Some(Err(error)) => {
                last.send(Err(error));
                return;
            }
            None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

    use tokio::time::{Instant, sleep};

    use super::*;

    fn line() -> Result<Vec<u8>, RuntimeError> {
        Ok(b"line".to_vec())
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_takes_nothing_loses_its_place_and_knows_that_something_is_missing() {
        let (send, mut receive) = mpsc::channel(PIECES_MAX + 1);
        let began = Instant::now();
        carry(Box::pin(stream::repeat_with(line)), send).await;
        assert_eq!(began.elapsed().as_secs(), STUCK_AFTER.as_secs());
        for _ in 0..PIECES_MAX {
            assert_eq!(receive.recv().await.unwrap().unwrap(), "line");
        }
        assert!(matches!(receive.recv().await, Some(Err(RuntimeError::TimedOut { .. }))));
        assert!(receive.recv().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_container_may_be_silent_and_a_reader_slow() {
        let (send, mut receive) = mpsc::channel::<Result<Bytes, RuntimeError>>(PIECES_MAX + 1);
        // An hour of silence before its first line.
        let silence = stream::once(async { sleep(Duration::from_secs(3600)).await }).map(|()| line());
        let lines = silence.chain(stream::repeat_with(line).take(2 * PIECES_MAX));
        let read = async {
            let mut count = 0;
            while let Some(piece) = receive.recv().await {
                assert_eq!(piece.unwrap(), "line");
                count += 1;
                sleep(STUCK_AFTER - Duration::from_secs(1)).await;
            }
            count
        };
        let ((), count) = tokio::join!(carry(Box::pin(lines), send), read);
        assert_eq!(count, 1 + 2 * PIECES_MAX);
    }
}
