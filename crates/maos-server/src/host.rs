//! A whole server from its settings: configuration, logs, everything below HTTP, HTTP, and an
//! orderly end. What `maos serve` is, for any program that wants one.

use std::ffi::OsString;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use futures_util::future;
use thiserror::Error;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::config::Config;
use crate::door::{Door, Restore};
use crate::http;
use crate::service::{self, Server, Setup, StartError};

/// Time for open connections to be finished when the server stops.
const CONNECTIONS_GRACE: Duration = Duration::from_secs(2);

/// Time for requests under way to be answered before another service takes their place.
const REQUESTS_GRACE: Duration = Duration::from_secs(2);

/// Why a server did not run to an orderly end.
#[derive(Debug, Error)]
pub enum HostError {
    /// It could not be started.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Its address could not be had.
    #[error(
        "cannot listen on {address}: {source}\nhint: choose another --port, or stop what has it"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The fault.
        #[source]
        source: io::Error,
    },
}

/// A server that listens.
pub struct Host {
    /// Where it listens.
    pub address: SocketAddr,
    door: Door,
    grace: Duration,
    /// Gives the server back once `retire` is cancelled; `None`: there is none any more.
    keeping: JoinHandle<Option<Server>>,
    serving: JoinHandle<()>,
    retire: CancellationToken,
    stop: CancellationToken,
    /// Cancelled when there is no server any more.
    broken: CancellationToken,
}

/// The settings of a server in this data directory, which is run by this very program: `program`
/// must take the hidden words `supervisor` and `data-worker`.
#[must_use]
pub fn setup(program: PathBuf, data_dir: PathBuf, default_root: PathBuf) -> Setup {
    let word = |word: &str| vec![program.clone().into_os_string(), OsString::from(word)];
    let (supervisor, data_worker) = (word("supervisor"), word("data-worker"));
    Setup { data_dir, default_root, supervisor, data_worker, base_url: None }
}

/// Starts a server and listens. The address is taken first: a second server is told before anything
/// else happens.
///
/// # Errors
/// What could not be opened, recovered, set up or listened on.
pub async fn open(config: Config, setup: Setup) -> Result<Host, HostError> {
    let address = SocketAddr::new(config.api.host, config.api.port);
    let listener =
        http::listen(address).await.map_err(|source| HostError::Listen { address, source })?;
    let address = listener.local_addr().unwrap_or(address);
    let grace = Duration::from_secs(config.api.shutdown_grace);
    let setup = Setup { base_url: Some(base_url(address)), ..setup };
    let server = service::start(config.clone(), setup.clone()).await?;
    let (retire, stop) = (CancellationToken::new(), CancellationToken::new());
    let broken = CancellationToken::new();
    let door = Door::from(server.service.clone());
    let house = House { config, setup, door: door.clone(), broken: broken.clone() };
    let keeping = tokio::spawn(house.keep(server, retire.clone()));
    let serving = tokio::spawn(http::serve(listener, door.clone(), stop.clone()));
    Ok(Host { address, door, grace, keeping, serving, retire, stop, broken })
}

/// Where a program on this machine finds the server.
fn base_url(address: SocketAddr) -> String {
    let here = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::from(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::from(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    format!("http://{}", SocketAddr::new(here, address.port()))
}

impl Host {
    /// Stops in order: nothing new comes in, running attempts get their time, everything decided is
    /// durable when this returns.
    pub async fn stop(self) {
        self.door.service().stop_intake();
        self.retire.cancel();
        if let Ok(Some(server)) = self.keeping.await {
            server.wind_down(self.grace).await;
            self.stop.cancel();
            // Whoever still waits for something is cut off: what it asked for is kept.
            drop(tokio::time::timeout(CONNECTIONS_GRACE, self.serving).await);
            server.stop(Duration::ZERO).await;
        }
    }

    /// Waits until there is no server any more though nobody stopped it: the log says why.
    pub async fn broken(&self) {
        self.broken.cancelled().await;
    }
}

/// What is needed to put another server in the place of the one that runs.
struct House {
    config: Config,
    setup: Setup,
    door: Door,
    broken: CancellationToken,
}

impl House {
    async fn keep(self, mut server: Server, retire: CancellationToken) -> Option<Server> {
        let mut requests = self.door.restores();
        loop {
            let request = tokio::select! {
                biased;
                () = retire.cancelled() => return Some(server),
                Some(request) = requests.recv() => request,
            };
            server = match self.restore(server, request).await {
                Ok(server) => server,
                Err(why) => {
                    error!("the server could not be started again: {why}");
                    self.broken.cancel();
                    return None;
                }
            };
        }
    }

    /// Goes back to a checkpoint. Whatever fails on the way, the server runs again, as it was.
    async fn restore(&self, server: Server, request: Restore) -> Result<Server, StartError> {
        let id = request.checkpoint;
        let expanded = server.service.expand_checkpoint(id).await;
        let target = match expanded {
            Ok(target) => target,
            Err(why) => {
                drop(request.reply.send(Err(why)));
                return Ok(server);
            }
        };
        info!(checkpoint.id = %id, "the state goes back to a checkpoint");
        let service = server.service.clone();
        // Until this function returns, requests wait for whoever answers then.
        let mut closed = pin!(self.door.close());
        // Its place in the queue is taken first: who is answered now does not come back to this
        // service.
        let answered = future::join(&mut closed, async { service.end_waits() });
        let answered = tokio::time::timeout(REQUESTS_GRACE, answered);
        let _guard = answered.await.inspect_err(|_| warn!("a request under way is cut off"));
        server.stop(Duration::ZERO).await;
        let marked = service.begin_restore(&target).await;
        let (config, setup) = (self.config.clone(), self.setup.clone());
        let server = service::start_under(service.reign(), config, setup).await?;
        self.door.replace(server.service.clone());
        drop(request.reply.send(marked));
        Ok(server)
    }
}
