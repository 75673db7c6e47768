//! A worker in Rust: counts the words of a text, for tasks that ask for `count_words`.
//!
//! ```sh
//! maos serve &
//! cargo run -p maos-api --features client --example worker &
//! maos task submit --name count --capability count_words --param text='to be or not to be' --wait
//! ```
#![expect(clippy::print_stderr, reason = "an example says why it ends")]

use std::process::ExitCode;
use std::time::Duration;

use maos_api::client::worker::{Given, Verdict, Worker};
use maos_api::client::{Client, ClientError, URL_DEFAULT};
use maos_api::logs::LogLevel;
use serde::Deserialize;

#[derive(Deserialize)]
struct Parameters {
    text: String,
}

async fn count_words(given: Given) -> Verdict {
    let parameters: Parameters = match given.parameters() {
        Ok(parameters) => parameters,
        Err(refused) => return refused,
    };
    let count = parameters.text.split_whitespace().count();
    given.log(LogLevel::Info, format!("`{}` has {count} words", given.task.name));
    Verdict::completed(&count)
}

/// Does such tasks, four at a time, until `stop` is there; then what runs has half a minute.
pub(crate) async fn serve(url: &str, stop: impl Future<Output = ()>) -> Result<(), ClientError> {
    let client = Client::new(url)?;
    let worker = Worker::new(client, "counter", vec!["count_words".to_owned()], 4);
    worker.run(count_words, stop, Duration::from_secs(30)).await
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let stop = async { drop(tokio::signal::ctrl_c().await) };
    match serve(URL_DEFAULT, stop).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}
