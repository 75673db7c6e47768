//! `maos serve`: the server until a signal ends it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use maos_server::config::{self, Layers};
use maos_server::{host, process, telemetry};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{settings, words};

/// What the command line said.
pub(crate) struct Serve {
    pub(crate) host: Option<String>,
    pub(crate) port: Option<u16>,
    pub(crate) data_dir: PathBuf,
    pub(crate) config: Option<PathBuf>,
    pub(crate) debug: bool,
    pub(crate) log_file: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Serve) -> anyhow::Result<ExitCode> {
    let folder = std::env::current_dir().context("the working directory cannot be read")?;
    let mut layers = Layers {
        file: config::file_in(&folder, arguments.config.as_deref()),
        environment: std::env::vars_os().collect(),
        flags: Vec::new(),
    };
    if let Some(host) = &arguments.host {
        layers.flags.push(("api.host", host.clone().into(), "--host"));
    }
    if let Some(port) = arguments.port {
        layers.flags.push(("api.port", i64::from(port).into(), "--port"));
    }
    if arguments.debug {
        layers.flags.push(("log.level", "DEBUG".into(), "--debug"));
    }
    let (config, _) = settings::load(&layers)?;
    let own_log = arguments.debug.then_some(Path::new("maos_api.log"));
    let log_files: Vec<&Path> = own_log.into_iter().chain(arguments.log_file.as_deref()).collect();
    telemetry::start(&config.log, &log_files)?;
    let program = std::env::current_exe().context("this program's path cannot be read")?;
    let data_dir = settings::data_dir(&arguments.data_dir)?;
    let files = data_dir.join("files");
    process::use_huge_pages(false);
    process::open_many();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        // Before anything is started: from here on a signal means an orderly end.
        let mut signals = Signals::listen()?;
        let host = host::open(config, host::setup(program, data_dir.clone(), files)).await?;
        let address = host.address;
        words::say(&format!(
            "maos listens on http://{address}, data in {}\n\
             try: curl -s http://{address}/api/v1/tasks --json \
             '{{\"name\":\"hello\",\"parameters\":{{\"action\":\"noop\"}}}}'",
            data_dir.display()
        ));
        tokio::select! {
            () = signals.next() => {}
            () = host.broken() => anyhow::bail!("the server ended by itself; its log says why"),
        }
        words::say("stopping: running work gets its time; once more to stop at once");
        tokio::select! {
            () = host.stop() => Ok(ExitCode::SUCCESS),
            () = signals.next() => Ok(ExitCode::from(2)),
        }
    })
}

/// SIGTERM and SIGINT.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(crate) fn listen() -> anyhow::Result<Signals> {
        let listen = |kind| signal(kind).context("signals cannot be listened for");
        let (terminate, interrupt) = (SignalKind::terminate(), SignalKind::interrupt());
        Ok(Signals { terminate: listen(terminate)?, interrupt: listen(interrupt)? })
    }

    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
