//! The service that answers at the moment. When the state goes back to a checkpoint, another one
//! takes its place behind the same door, and whoever holds the door need not know.

use std::sync::{Arc, OnceLock, RwLock};

use maos_api::checkpoint::RestoreAnswer;
use maos_api::error::{ApiError, ErrorCode};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, mpsc, oneshot};
use uuid::Uuid;

use crate::service::Service;

/// Where requests come in. Cheap to clone.
#[derive(Clone)]
pub struct Door {
    behind: Arc<Behind>,
}

struct Behind {
    service: RwLock<Service>,
    /// Who can put another service here.
    restorer: OnceLock<mpsc::Sender<Restore>>,
    /// Every request has a share in it; who puts another service here has it alone. It is fair:
    /// once somebody waits to have it alone, later requests queue behind.
    passage: Arc<tokio::sync::RwLock<()>>,
}

/// Somebody wants the state of a checkpoint back.
pub(crate) struct Restore {
    pub(crate) checkpoint: Uuid,
    pub(crate) reply: oneshot::Sender<Result<RestoreAnswer, ApiError>>,
}

impl From<Service> for Door {
    fn from(service: Service) -> Door {
        let (service, restorer, passage) = (RwLock::new(service), OnceLock::new(), Arc::default());
        Door { behind: Arc::new(Behind { service, restorer, passage }) }
    }
}

impl Door {
    /// The service that answers now.
    #[must_use]
    pub fn service(&self) -> Service {
        self.behind.service.read().expect("nothing panics while it holds this lock").clone()
    }

    /// Waits while another service takes its place; none does before the guard is dropped.
    pub(crate) async fn enter(&self) -> OwnedRwLockReadGuard<()> {
        self.behind.passage.clone().read_owned().await
    }

    /// Waits until all requests under way are answered. Others wait from the first poll of this
    /// until it, or the guard that it gives, is dropped.
    pub(crate) async fn close(&self) -> OwnedRwLockWriteGuard<()> {
        self.behind.passage.clone().write_owned().await
    }

    pub(crate) fn replace(&self, service: Service) {
        *self.behind.service.write().expect("nothing panics while it holds this lock") = service;
    }

    /// Requests to restore go here from now on.
    pub(crate) fn restores(&self) -> mpsc::Receiver<Restore> {
        let (sender, receiver) = mpsc::channel(1);
        // A second one would never be asked: there is one host.
        drop(self.behind.restorer.set(sender));
        receiver
    }

    /// Goes back to a checkpoint; the present state is checkpointed first.
    ///
    /// # Errors
    /// That there is no such checkpoint, that it is damaged, or that this server cannot go back.
    pub async fn restore(&self, checkpoint: Uuid) -> Result<RestoreAnswer, ApiError> {
        let Some(restorer) = self.behind.restorer.get() else {
            let message = "this server is part of another program, which alone could restart it";
            return Err(ApiError::new(ErrorCode::NotRestorable, message));
        };
        let (reply, answer) = oneshot::channel();
        let stopped = || {
            let message = "the server is shutting down";
            ApiError::new(ErrorCode::ShuttingDown, message)
        };
        restorer.send(Restore { checkpoint, reply }).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }
}
