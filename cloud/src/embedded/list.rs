//! Lists: pages from the store, streamed so that a large one is never in memory as a whole.

use std::pin::Pin;

use actix_web::HttpResponse;
use actix_web::http::header::ContentType;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream;
use serde_json::{Value, json};

use super::form::Form;
use super::kind::Kind;
use super::object::Object;
use super::request::Query;
use super::selector::{Selector, Traits};
use super::status_error::StatusError;
use super::store::{Page, Store, StoreError};

/// Objects per page when the client does not say.
const PAGE: usize = 500;

/// Which objects, in which form.
#[derive(Clone, Debug)]
pub struct Listing {
    /// Their kind.
    pub kind: &'static Kind,
    /// Their namespace; empty for all.
    pub namespace: String,
    /// Which of them.
    pub selector: Selector,
    /// How they are answered.
    pub form: Form,
}

/// The texts of the selected objects of a page.
pub fn selected(listing: &Listing, page: Page) -> Result<Vec<String>, StoreError> {
    let mut texts = Vec::with_capacity(page.items.len());
    for (namespace, name, text) in page.items {
        if listing.selector.is_empty() {
            texts.push(text);
            continue;
        }
        let object = serde_json::from_str::<Value>(&text).map_err(|error| error.to_string()).and_then(Object::new);
        let object = object.map_err(|why| StoreError::Corrupt { kind: listing.kind.plural, namespace, name, why })?;
        if listing.selector.matches(&Traits::of(listing.kind, &object)) {
            texts.push(text);
        }
    }
    Ok(texts)
}

/// Reads one page of a listing.
pub async fn page(store: &Store, listing: &Listing, after: Option<(String, String)>, limit: usize) -> Result<Page, StoreError> {
    let (kind, namespace) = (listing.kind, listing.namespace.clone());
    // `metadata.name=x` in one namespace needs no scan.
    let one = listing.selector.name().filter(|_| !kind.namespaced || !namespace.is_empty()).map(str::to_owned);
    store
        .read_async(move |snapshot| match one {
            Some(name) => {
                let key = super::store::Key { kind, namespace: namespace.clone(), name };
                let revision = snapshot.revision()?;
                let found = snapshot.text(&key)?;
                Ok(Page { revision, items: found.map(|text| (namespace, key.name, text)).into_iter().collect(), next: None })
            }
            None => snapshot.page(kind, &namespace, after.as_ref(), limit),
        })
        .await
}

/// Answers a list request.
///
/// # Errors
/// 400 for a malformed `limit` or `continue`.
pub async fn answer(store: Store, listing: Listing, query: &Query) -> Result<HttpResponse, StatusError> {
    let limit = query.number("limit")?.and_then(|limit| usize::try_from(limit).ok()).filter(|limit| *limit > 0);
    let token = match query.get("continue") {
        "" => None,
        text => Some(Token::decode(text).ok_or_else(|| StatusError::bad_request("continue key is not valid"))?),
    };
    // With a selector a page of the store may hold few selected objects, so the limit is not worth the round trips.
    let limited = limit.filter(|_| listing.selector.is_empty());
    let after = token.as_ref().map(|token| token.after.clone());
    let first = page(&store, &listing, after, limited.unwrap_or(PAGE)).await?;
    // All pages carry the version of the first one: a watch from there repeats what the later pages saw too early.
    let revision = token.map_or(first.revision, |token| token.revision);
    let mut metadata = json!({"resourceVersion": revision.to_string()});
    let next = first.next.clone();
    if let (Some(_), Some(after)) = (limited, &next) {
        metadata["continue"] = Token { revision, after: after.clone() }.encode().into();
    }
    let (head, tail) = listing.form.frame(listing.kind, &metadata);
    let mut text = head;
    append(&mut text, &listing, selected(&listing, first)?, &mut true);
    let mut response = HttpResponse::Ok();
    response.content_type(ContentType::json());
    if limited.is_some() || next.is_none() {
        text.push_str(tail);
        return Ok(response.body(text));
    }
    Ok(response.streaming(rest(store, listing, text, next, tail)))
}

fn append(text: &mut String, listing: &Listing, entries: Vec<String>, first: &mut bool) {
    let now = jiff::Timestamp::now();
    for entry in entries {
        if !std::mem::take(first) {
            text.push(',');
        }
        text.push_str(&listing.form.entry(listing.kind, &entry, now));
    }
}

type Chunks = Pin<Box<dyn Stream<Item = Result<Bytes, StatusError>>>>;

fn rest(store: Store, listing: Listing, head: String, next: Option<(String, String)>, tail: &'static str) -> Chunks {
    let empty = head.ends_with('[');
    let state = (store, listing, Some(head), next, empty, false);
    Box::pin(stream::try_unfold(state, move |(store, listing, head, next, mut empty, done)| async move {
        if let Some(head) = head {
            return Ok(Some((Bytes::from(head), (store, listing, None, next, empty, false))));
        }
        if done {
            return Ok(None);
        }
        let Some(after) = next else {
            return Ok(Some((Bytes::from_static(tail.as_bytes()), (store, listing, None, None, empty, true))));
        };
        let page = page(&store, &listing, Some(after), PAGE).await?;
        let next = page.next.clone();
        let mut text = String::new();
        append(&mut text, &listing, selected(&listing, page)?, &mut empty);
        Ok::<_, StatusError>(Some((Bytes::from(text), (store, listing, None, next, empty, false))))
    }))
}

/// Where a limited list goes on.
#[derive(Debug, PartialEq, Eq)]
struct Token {
    revision: i64,
    after: (String, String),
}

impl Token {
    fn encode(&self) -> String {
        let text = json!([self.revision, self.after.0, self.after.1]).to_string();
        URL_SAFE_NO_PAD.encode(text)
    }

    fn decode(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (revision, namespace, name) = serde_json::from_slice(&bytes).ok()?;
        Some(Self { revision, after: (namespace, name) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_continue_token_survives_its_way_and_garbage_does_not() {
        let token = Token { revision: 7, after: ("default".to_owned(), "x".to_owned()) };
        assert_eq!(Token::decode(&token.encode()), Some(token));
        for garbage in ["", "x", "e30", "!!", "WzFd"] {
            assert_eq!(Token::decode(garbage), None);
        }
    }
}
