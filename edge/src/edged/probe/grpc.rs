//! gRPC's health service: one call of `grpc.health.v1.Health/Check` over HTTP/2 without TLS.
//!
//! The two messages have one field each and are written and read by hand. Source: `grpc/health/v1/health.proto`, and the
//! kubelet's `pkg/probe/grpc/grpc.go`.

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, select};
use h2::client::Builder;
use http::{HeaderMap, Request};
use tokio::time::{Instant, timeout, timeout_at};

use super::ask::{Outcome, Place, shown};

/// Most bytes of an answer, with the five that stand before a message.
const ANSWER_BYTES_MAX: usize = 4096;
/// Most bytes of an answer's headers.
const HEADERS_BYTES_MAX: u32 = 16 * 1024;
/// `SERVING` in `ServingStatus`.
const SERVING: u64 = 1;
/// gRPC's code for a method that is not there.
const UNIMPLEMENTED: &str = "12";

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum GrpcError {
    #[error("{0}")]
    Http(#[from] h2::Error),
    #[error("{0}")]
    Uri(#[from] http::Error),
    #[error("unexpected HTTP status {0}")]
    Status(u16),
    #[error("the answer is longer than {ANSWER_BYTES_MAX} bytes")]
    TooLong,
    #[error("{0}")]
    Message(#[from] MessageError),
    #[error("code {code}: {message}")]
    Code { code: String, message: String },
    #[error("the connection was closed")]
    Closed,
}

/// Bytes that are no `HealthCheckResponse`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum MessageError {
    #[error("the answer is compressed")]
    Compressed,
    #[error("the answer is no HealthCheckResponse")]
    Malformed,
}

/// Asks the service of that name; empty is the server as a whole.
pub async fn ask(place: &Place, service: &str, limit: Duration) -> Outcome {
    let deadline = Instant::now() + limit;
    let seconds = limit.as_secs_f32();
    let connected = timeout(limit, async {
        let stream = place.connect().await.map_err(|error| error.to_string())?;
        let mut builder = Builder::new();
        builder.enable_push(false).max_header_list_size(HEADERS_BYTES_MAX).initial_window_size(65_535).max_concurrent_reset_streams(0);
        builder.handshake::<_, Bytes>(stream).await.map_err(|error| error.to_string())
    });
    let (client, connection) = match connected.await {
        Ok(Ok(connected)) => connected,
        Ok(Err(error)) => return Outcome::failure(format_args!("error: failed to connect service \"{place}\": {error}")),
        Err(_) => {
            return Outcome::failure(format_args!("timeout: failed to connect service \"{place}\" within {seconds}s: context deadline exceeded"));
        }
    };
    let (call, connection) = (pin!(check(client, place, service)), pin!(connection));
    let answer = match timeout_at(deadline, select(call, connection)).await {
        Ok(Either::Left((answer, _))) => answer,
        // The connection ends when the call has ended, or because the other side ended it.
        Ok(Either::Right((Ok(()), call))) => timeout_at(deadline, call).await.unwrap_or(Err(GrpcError::Closed)),
        Ok(Either::Right((Err(error), _))) => Err(error.into()),
        Err(_) => return Outcome::failure(format_args!("timeout: health rpc did not complete within {seconds}s")),
    };
    match answer {
        Ok(SERVING) => Outcome::Success,
        Ok(status) => Outcome::failure(format_args!("service unhealthy (responded with \"{}\")", name_of(status))),
        Err(GrpcError::Code { code, message }) if code == UNIMPLEMENTED => {
            Outcome::failure(format_args!("error: this server does not implement the grpc health protocol (grpc.health.v1.Health): {message}"))
        }
        Err(error) => Outcome::failure(format_args!("error: health rpc probe failed: {error}")),
    }
}

async fn check(client: h2::client::SendRequest<Bytes>, place: &Place, service: &str) -> Result<u64, GrpcError> {
    let mut client = client.ready().await?;
    let request = Request::post(format!("http://{place}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "skep-probe")
        .body(())?;
    let (response, mut stream) = client.send_request(request, false)?;
    stream.send_data(question(service), true)?;
    let response = response.await?;
    if response.status() != 200 {
        return Err(GrpcError::Status(response.status().as_u16()));
    }
    // An answer without a body has its code in the headers.
    code_of(response.headers())?;
    let mut body = response.into_body();
    let mut answer = Vec::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk?;
        if answer.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(GrpcError::TooLong);
        }
        body.flow_control().release_capacity(chunk.len())?;
        answer.extend_from_slice(&chunk);
    }
    if let Some(trailers) = body.trailers().await? {
        code_of(&trailers)?;
    }
    Ok(status_in(&answer)?)
}

/// `Ok` when there is no `grpc-status`, or 0.
fn code_of(headers: &HeaderMap) -> Result<(), GrpcError> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(shown);
    match text("grpc-status") {
        Some(code) if code != "0" => Err(GrpcError::Code { code, message: text("grpc-message").unwrap_or_default() }),
        Some(_) | None => Ok(()),
    }
}

/// `HealthCheckRequest { service = 1 }` with the five bytes before it.
fn question(service: &str) -> Bytes {
    let mut message = Vec::with_capacity(service.len() + 4);
    if !service.is_empty() {
        message.push(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.push(u8::try_from(length & 0x7f).expect("seven bits fit into eight") | 0x80);
            length >>= 7;
        }
        message.push(u8::try_from(length).expect("less than 128"));
        message.extend_from_slice(service.as_bytes());
    }
    let length = u32::try_from(message.len()).expect("a service's name has at most 1024 bytes");
    [&[0], &length.to_be_bytes()[..], &message].concat().into()
}

/// The status in a `HealthCheckResponse { status = 1 }` with the five bytes before it; 0 when it says none.
fn status_in(answer: &[u8]) -> Result<u64, MessageError> {
    let (flag, rest) = answer.split_first().ok_or(MessageError::Malformed)?;
    let (length, message) = rest.split_first_chunk::<4>().ok_or(MessageError::Malformed)?;
    match *flag {
        0 => {}
        1 => return Err(MessageError::Compressed),
        _ => return Err(MessageError::Malformed),
    }
    if u32::from_be_bytes(*length) as usize != message.len() {
        return Err(MessageError::Malformed);
    }
    fields(message).ok_or(MessageError::Malformed)
}

fn fields(mut message: &[u8]) -> Option<u64> {
    let mut status = 0;
    while !message.is_empty() {
        let tag = varint(&mut message)?;
        let skipped = match tag & 7 {
            0 => {
                let value = varint(&mut message)?;
                if tag >> 3 == 1 {
                    status = value;
                }
                0
            }
            1 => 8,
            2 => usize::try_from(varint(&mut message)?).ok()?,
            5 => 4,
            _ => return None,
        };
        message = message.get(skipped..)?;
    }
    Some(status)
}

fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = message.split_first()?;
        *message = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn name_of(status: u64) -> String {
    match status {
        0 => "UNKNOWN".into(),
        SERVING => "SERVING".into(),
        2 => "NOT_SERVING".into(),
        3 => "SERVICE_UNKNOWN".into(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_written_as_protobuf_has_it() {
        assert_eq!(question("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(question("web")[..], [0, 0, 0, 0, 5, 0x0a, 3, b'w', b'e', b'b']);
        let long = question(&"x".repeat(300));
        assert_eq!((long.len(), &long[..8]), (5 + 303, &[0, 0, 0, 1, 0x2f, 0x0a, 0xac, 0x02][..]));
    }

    #[test]
    fn a_status_is_found_among_fields_that_this_version_does_not_know() {
        for (message, status) in [
            (&[][..], 0),
            (&[0x08, 1], 1),
            (&[0x08, 2], 2),
            (&[0x08, 0x83, 0x01], 131),
            // Fields 2 to 5 of every type, then the status.
            (&[0x12, 2, 8, 8, 0x19, 1, 2, 3, 4, 5, 6, 7, 8, 0x25, 1, 2, 3, 4, 0x28, 9, 0x08, 1], 1),
            // Of several the last one counts.
            (&[0x08, 1, 0x08, 3], 3),
        ] {
            let length = u8::try_from(message.len()).unwrap_or(0);
            assert_eq!(status_in(&[&[0, 0, 0, 0, length], message].concat()), Ok(status), "{message:?}");
        }
    }

    #[test]
    fn what_is_no_status_is_refused() {
        for answer in [
            &[][..],
            &[0, 0, 0, 0],
            &[0, 0, 0, 0, 1],
            &[0, 0, 0, 0, 0, 1],
            &[0, 0xff, 0xff, 0xff, 0xff, 1],
            &[2, 0, 0, 0, 0],
            &[0, 0, 0, 0, 1, 0x08],
            &[0, 0, 0, 0, 2, 0x12, 9],
            &[0, 0, 0, 0, 2, 0x0b, 0],
            &[0, 0, 0, 0, 11, 0x12, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
            &[0, 0, 0, 0, 12, 0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        ] {
            assert_eq!(status_in(answer), Err(MessageError::Malformed), "{answer:?}");
        }
        assert_eq!(status_in(&[1, 0, 0, 0, 0]), Err(MessageError::Compressed));
    }
}
