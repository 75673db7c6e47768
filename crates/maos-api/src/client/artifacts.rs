//! Files that are kept with a task: sent and fetched piece by piece.

use http_body_util::BodyExt;
use hyper::Method;
use hyper::body::Bytes;
use uuid::Uuid;

use super::content::Content;
use super::url::{Query, escaped};
use super::wire::{Exchange, Opened};
use super::{Answer, Client, ClientError, path_of};
use crate::artifacts::{ArtifactEnvelope, ArtifactList};
use crate::paths;

/// A file on its way here.
#[derive(Debug)]
pub struct Download {
    opened: Opened,
    url: String,
    /// Its MIME type.
    pub media_type: String,
    /// Its size.
    pub size_bytes: Option<u64>,
    /// BLAKE3 of it, in hexadecimal digits.
    pub checksum: String,
}

impl Download {
    /// The next piece; `None` at its end.
    ///
    /// # Errors
    /// That it broke off: it is damaged at the server, or the connection was lost.
    pub async fn next_piece(&mut self) -> Result<Option<Bytes>, ClientError> {
        while let Some(frame) = self.opened.body.frame().await {
            let frame = frame.map_err(|source| {
                let url = self.url.clone();
                ClientError::Broken { url, source }
            })?;
            if let Ok(piece) = frame.into_data() {
                return Ok(Some(piece));
            }
        }
        Ok(None)
    }

    /// All of it.
    ///
    /// # Errors
    /// As [`Download::next_piece`].
    pub async fn whole(mut self) -> Result<Vec<u8>, ClientError> {
        let mut whole = Vec::new();
        while let Some(piece) = self.next_piece().await? {
            whole.extend_from_slice(&piece);
        }
        Ok(whole)
    }
}

impl Client {
    /// Keeps a file with a task that has not ended, in the place of one of this name; with an
    /// attempt, only while that one runs.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn put_artifact(
        &self,
        task: Uuid,
        name: &str,
        media_type: Option<&str>,
        attempt: Option<u32>,
        content: impl Into<Content>,
    ) -> Result<Answer<ArtifactEnvelope>, ClientError> {
        let attempt = attempt.map(|attempt| attempt.to_string());
        let query = Query::default().with("attempt", attempt.as_deref());
        let exchange = Exchange::new(Method::PUT, query.after(&artifact_path(task, name)));
        let media_type = Some(media_type.unwrap_or(crate::artifacts::MEDIA_TYPE_DEFAULT));
        let body = content.into();
        self.call(Exchange { body, media_type, harmless: true, ..exchange }).await
    }

    /// The files of a task.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn artifacts(&self, task: Uuid) -> Result<Answer<ArtifactList>, ClientError> {
        self.read(path_of(paths::TASK_ARTIFACTS, task)).await
    }

    /// One of them, to be read piece by piece.
    ///
    /// # Errors
    /// Any [`ClientError`].
    pub async fn artifact(&self, task: Uuid, name: &str) -> Result<Download, ClientError> {
        let opened = self.opened(&Exchange::new(Method::GET, artifact_path(task, name))).await?;
        let header = |name: &str| {
            let value = opened.headers.get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        let (media_type, size_bytes) = (header("content-type"), header("content-length"));
        let checksum = header("etag").trim_matches('"').to_owned();
        let (size_bytes, url) = (size_bytes.parse().ok(), self.url().to_owned());
        Ok(Download { opened, url, media_type, size_bytes, checksum })
    }
}

fn artifact_path(task: Uuid, name: &str) -> String {
    // Dots alone would be taken for folders on the way.
    let name = escaped(name).replace('.', "%2E");
    path_of(paths::TASK_ARTIFACT, task).replace("{name}", &name)
}
