//! `maos task artifacts`: the files of a task, listed or fetched.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use maos_api::artifacts::Artifact;
use maos_api::client::Client;
use uuid::Uuid;

use crate::layout::{Screen, moment};
use crate::values::task_id;
use crate::words;

#[derive(Args)]
pub(super) struct Artifacts {
    /// The task's id
    #[arg(value_parser = task_id)]
    id: Uuid,
    /// Fetch the file of this name
    #[arg(long, value_name = "NAME")]
    get: Option<String>,
    /// Where it goes [default: standard output]
    #[arg(short, long, value_name = "FILE", requires = "get")]
    output: Option<PathBuf>,
}

pub(super) async fn run(client: &Client, json: bool, wanted: &Artifacts) -> anyhow::Result<()> {
    if let Some(name) = &wanted.get {
        return fetch(client, wanted.id, name, wanted.output.as_deref()).await;
    }
    let list = client.artifacts(wanted.id).await?;
    if json {
        return Ok(words::print_raw(&list.raw)?);
    }
    let rows: Vec<[String; 5]> = list.items.iter().map(row).collect();
    let titles = ["NAME", "BYTES", "CHECKSUM", "KEPT", "TYPE"];
    Ok(words::print(&Screen::stdout().table(titles, &rows))?)
}

fn row(artifact: &Artifact) -> [String; 5] {
    let checksum: String = artifact.checksum.chars().take(16).collect();
    [
        words::one_line(&artifact.name),
        artifact.size_bytes.to_string(),
        checksum,
        moment(artifact.created_at),
        words::one_line(&artifact.media_type),
    ]
}

/// Fetches a file as it is, also with --json: it is the data.
async fn fetch(client: &Client, id: Uuid, name: &str, to: Option<&Path>) -> anyhow::Result<()> {
    let mut download = client.artifact(id, name).await?;
    let mut hasher = blake3::Hasher::new();
    let mut target: Box<dyn Write> = match to {
        Some(path) => {
            let file = File::create(path);
            Box::new(file.with_context(|| format!("`{}` cannot be written", path.display()))?)
        }
        None => Box::new(std::io::stdout().lock()),
    };
    while let Some(piece) = download.next_piece().await? {
        hasher.update(&piece);
        target.write_all(&piece)?;
    }
    target.flush()?;
    let found = hasher.finalize().to_hex();
    anyhow::ensure!(
        found.as_str() == download.checksum,
        "the file came with the checksum {found}, {} is wanted",
        download.checksum
    );
    Ok(())
}
