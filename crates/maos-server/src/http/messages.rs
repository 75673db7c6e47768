//! The paths of messages.

use axum::extract::{Request, State};
use maos_api::messages::{
    AckAnswer, MailboxPage, MailboxQuery, MessagePage, REQUEST_BYTES_MAX, RawMailboxQuery,
    RawMessageQuery, Receipt,
};

use super::answer::{Answered, Json};
use super::parts::Params;
use super::routes::{body_of, submission_of};
use crate::service::Service;

pub(super) async fn send(State(service): State<Service>, request: Request) -> Answered<Receipt> {
    let (options, body) = submission_of(request, REQUEST_BYTES_MAX).await?;
    Ok(Json(service.send_message(&body, options).await?))
}

pub(super) async fn read(
    State(service): State<Service>,
    Params(query): Params<RawMessageQuery>,
) -> Answered<MessagePage> {
    Ok(Json(service.messages(&query.read()?).await?))
}

pub(super) async fn acknowledge(
    State(service): State<Service>,
    request: Request,
) -> Answered<AckAnswer> {
    let body = body_of(request, REQUEST_BYTES_MAX).await?;
    Ok(Json(service.acknowledge_messages(&body).await?))
}

pub(super) async fn mailboxes(
    State(service): State<Service>,
    Params(query): Params<RawMailboxQuery>,
) -> Answered<MailboxPage> {
    let MailboxQuery { prefix, after, limit } = query.read()?;
    Ok(Json(service.mailboxes(prefix, after, limit).await?))
}
