//! The join token: what an operator copies to a new edge machine.
//!
//! `hex(sha256(CA certificate, DER))` + `.` + a JSON Web Token, HS256, keyed with the DER bytes of the
//! authority's private key, whose only claim is `exp` (KubeEdge `edge.crt` bootstrap). The first part lets
//! the edge check a certificate authority that it downloaded over an unverified connection; the rest
//! lets the cloud check the edge.

use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::{digest, hmac};
use serde::{Deserialize, Serialize};

/// A longer bearer token than this is refused unread, bytes.
pub const TOKEN_BYTES_MAX: usize = 4096;

/// Why a token proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// No `Authorization: Bearer` header.
    #[error("there is none")]
    Missing,
    /// Above [`TOKEN_BYTES_MAX`], not three parts, not base64url, not JSON.
    #[error("it is not a JSON Web Token")]
    Malformed,
    /// The header names another algorithm than HS256; "none" among them.
    #[error("its algorithm is not HS256")]
    Algorithm,
    /// Made by another authority, or changed on the way.
    #[error("it was not made by this cloud")]
    Signature,
    /// `exp` has passed.
    #[error("it has expired")]
    Expired,
}

#[derive(Serialize, Deserialize)]
struct Header {
    alg: String,
    typ: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    exp: u64,
}

/// Lower-case hexadecimal SHA-256 of a certificate in DER form: how an edge recognises its cloud.
pub fn fingerprint(ca_der: &[u8]) -> String {
    digest::digest(&digest::SHA256, ca_der).as_ref().iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Makes the token that is valid from `now` for `valid_for`.
pub fn issue(ca_der: &[u8], key: &[u8], now: SystemTime, valid_for: Duration) -> String {
    let header = Header { alg: "HS256".into(), typ: Some("JWT".into()) };
    let claims = Claims { exp: unix_seconds(now).saturating_add(valid_for.as_secs()) };
    let signed = format!("{}.{}", encode(&header), encode(&claims));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), signed.as_bytes());
    format!("{}.{signed}.{}", fingerprint(ca_der), URL_SAFE_NO_PAD.encode(tag))
}

/// Checks the three JWT parts that an edge presents as bearer (without the fingerprint).
///
/// The signature is compared in constant time, and before the claims are looked at.
///
/// # Errors
/// One variant per reason; see [`TokenError`].
pub fn verify(bearer: &str, key: &[u8], now: SystemTime) -> Result<(), TokenError> {
    if bearer.len() > TOKEN_BYTES_MAX {
        return Err(TokenError::Malformed);
    }
    let (signed, tag) = bearer.rsplit_once('.').ok_or(TokenError::Malformed)?;
    let (header, claims) = signed.split_once('.').ok_or(TokenError::Malformed)?;
    // The algorithm is ours to choose, never the token's: "none" and RS256 confusion end here.
    if decode::<Header>(header)?.alg != "HS256" {
        return Err(TokenError::Algorithm);
    }
    let tag = URL_SAFE_NO_PAD.decode(tag).map_err(|_| TokenError::Malformed)?;
    hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, key), signed.as_bytes(), &tag).map_err(|_| TokenError::Signature)?;
    if decode::<Claims>(claims)?.exp <= unix_seconds(now) {
        return Err(TokenError::Expired);
    }
    Ok(())
}

fn encode<T: Serialize>(part: &T) -> String {
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(part).expect("a struct of text and numbers always serialises"))
}

fn decode<T: for<'de> Deserialize<'de>>(part: &str) -> Result<T, TokenError> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed)?;
    serde_json::from_slice(&bytes).map_err(|_| TokenError::Malformed)
}

fn unix_seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
