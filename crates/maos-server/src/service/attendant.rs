//! Attendants: loops beside the service that look after one thing each until they are told to stop.

use std::future::Future;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// A loop that runs.
pub(super) struct Attendant {
    name: &'static str,
    task: JoinHandle<()>,
    stop: CancellationToken,
}

impl Attendant {
    /// Has `work` done from now on. When it is to stop it is dropped where it waits, and the token
    /// says so to what does not end by being dropped.
    pub(super) fn start<Work>(
        name: &'static str,
        work: impl FnOnce(CancellationToken) -> Work,
    ) -> Attendant
    where
        Work: Future<Output = ()> + Send + 'static,
    {
        let stop = CancellationToken::new();
        let (stopped, work) = (stop.clone(), work(stop.clone()));
        let task = tokio::spawn(async move {
            tokio::select! {
                biased;
                () = stopped.cancelled() => {}
                () = work => {}
            }
        });
        Attendant { name, task, stop }
    }

    /// Ends it, and returns when it has ended.
    pub(super) async fn stop(self) {
        self.stop.cancel();
        if let Err(why) = self.task.await {
            warn!("the {} did not end well: {why}", self.name);
        }
    }
}
