//! The store's own thread: one portion, one transaction, one fsync, in order.
//!
//! Its law: a portion that could not be written is tried again until it is, or until the store is
//! closed; nothing behind it overtakes it.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use maos_core::ids::Position;
use rusqlite::Connection;
use tokio::sync::watch;
use tracing::{error, info};

use super::backlog::Shared;
use super::table;
use crate::data_dir::DataDir;
use crate::process;

const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

pub(super) fn start(
    mut db: Connection,
    path: PathBuf,
    shared: Arc<Shared>,
    reached: watch::Sender<Position>,
    dir: Arc<DataDir>,
) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("maos-store".into()).spawn(move || {
        process::yield_to_others();
        while let Some(portion) = shared.take() {
            let mut pause = RETRY_FIRST;
            while let Err(fault) = table::write(&mut db, &portion) {
                let fault = super::sqlite_fault(&path, fault);
                if pause == RETRY_FIRST {
                    error!("{fault}; it is tried again, and nothing is lost meanwhile");
                }
                if !shared.failed(fault.to_string(), pause) {
                    return;
                }
                pause = (pause * 2).min(RETRY_MAX);
            }
            if pause > RETRY_FIRST {
                info!("the store writes again");
            }
            let position = portion.engine.position;
            drop(portion);
            shared.written();
            reached.send_replace(position);
        }
        drop(db);
        drop(dir);
    })
}
