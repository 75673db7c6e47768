//! Parts of a request line: ids and query parameters, refused with the contract's error.

use axum::extract::{FromRef, FromRequestParts, Path};
use axum::http::request::Parts;
use maos_api::error::{ApiError, ErrorCode};
use maos_api::worker::AttemptRef;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use super::answer::Failed;
use super::query;
use crate::door::Door;
use crate::service::{Service, parse_id};

impl FromRef<Door> for Service {
    fn from_ref(door: &Door) -> Service {
        door.service()
    }
}

/// The id in the path.
pub(super) struct Id(pub(super) Uuid);

/// The attempt in the path.
pub(super) struct AttemptOf(pub(super) AttemptRef);

/// The word in the path that is somebody's name.
pub(super) struct Name(pub(super) String);

/// The id in the path, and the name behind it.
pub(super) struct Named(pub(super) Uuid, pub(super) String);

/// The query parameters. One that is misspelt would be without effect, in a listing it would let
/// everything through: an unknown one is refused.
pub(super) struct Params<T>(pub(super) T);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Failed;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Id, Failed> {
        match Path::<String>::from_request_parts(parts, state).await {
            Ok(Path(text)) => Ok(Id(parse_id(&text)?)),
            Err(why) => Err(Failed(ApiError::new(ErrorCode::MalformedId, why.body_text()))),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for AttemptOf {
    type Rejection = Failed;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<AttemptOf, Failed> {
        let malformed = |message| Failed(ApiError::new(ErrorCode::MalformedId, message));
        let path = Path::<(String, String)>::from_request_parts(parts, state).await;
        let Path((id, number)) = path.map_err(|why| malformed(why.body_text()))?;
        let task_id = parse_id(&id)?;
        let attempt = number.parse().map_err(|_| {
            malformed("what follows `attempts/` is not the number of an attempt".to_owned())
        })?;
        Ok(AttemptOf(AttemptRef { task_id, attempt }))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Name {
    type Rejection = Failed;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Name, Failed> {
        match Path::<String>::from_request_parts(parts, state).await {
            Ok(Path(name)) => Ok(Name(name)),
            Err(why) => Err(Failed(ApiError::new(ErrorCode::MalformedId, why.body_text()))),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Failed;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Named, Failed> {
        match Path::<(String, String)>::from_request_parts(parts, state).await {
            Ok(Path((id, name))) => Ok(Named(parse_id(&id)?, name)),
            Err(why) => Err(Failed(ApiError::new(ErrorCode::MalformedId, why.body_text()))),
        }
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Failed;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Params<T>, Failed> {
        query::read(&parts.uri).map(Params)
    }
}

pub(super) fn number(name: &str, text: &str, least: u64, most: u64) -> Result<u64, Failed> {
    let parsed = text.parse::<u64>().ok().filter(|number| (least..=most).contains(number));
    parsed.ok_or_else(|| bad_query(name, format!("must be a whole number from {least} to {most}")))
}

pub(super) fn bad_query(name: &str, what: String) -> Failed {
    let message = format!("query parameter `{name}` {what}");
    Failed(ApiError::new(ErrorCode::MalformedQuery, message).with("parameter", name))
}
