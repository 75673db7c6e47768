//! A `maos serve` for one test; killed with its test.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Longer than anything here takes; a condition that does not come by then never will.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A running server.
pub(crate) struct House {
    pub(crate) folder: PathBuf,
    pub(crate) address: SocketAddr,
    pub(crate) child: Child,
}

impl House {
    /// Starts a server on the data directory and configuration in `folder`.
    pub(crate) fn open(folder: &Path) -> House {
        open_on(folder, 0)
    }

    /// The same on a server that survives a write beyond the size that its files may have.
    pub(crate) fn open_on_a_disk_that_may_fill(folder: &Path) -> House {
        let plain = command_on(folder, 0);
        let mut shell = Command::new("sh");
        shell.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""]).arg(plain.get_program());
        shell.args(plain.get_args()).current_dir(folder);
        shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        House::start(shell, folder)
    }

    /// The same on a server that is started with so many open files allowed as `most`, and may
    /// raise that.
    pub(crate) fn open_with_files(folder: &Path, most: u32) -> House {
        let plain = command_on(folder, 0);
        let mut shell = Command::new("sh");
        shell.args(["-c", "ulimit -Sn \"$0\"; exec \"$@\"", &most.to_string()]);
        shell.arg(plain.get_program()).args(plain.get_args()).current_dir(folder);
        shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        House::start(shell, folder)
    }

    fn start(mut command: Command, folder: &Path) -> House {
        let mut child = command.spawn().unwrap();
        let stderr = child.stderr.take().unwrap();
        let (told, heard) = std::sync::mpsc::channel();
        // Reads to the end, so that the server never waits for a reader.
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if let Some(rest) = line.strip_prefix("maos listens on http://") {
                    let address = rest.split(',').next().unwrap_or_default().to_owned();
                    drop(told.send(address));
                }
            }
        });
        let address = heard.recv_timeout(PATIENCE).expect("the server says where it listens");
        House { folder: folder.to_owned(), address: address.parse().unwrap(), child }
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// One request on a connection of its own; `None` if the server is gone.
    pub(crate) fn try_call(&self, method: &str, path: &str, body: &str) -> Option<(u16, Value)> {
        call_at(self.address, method, path, body)
    }

    pub(crate) fn call(&self, method: &str, path: &str, body: &str) -> Value {
        let (status, answer) = self.try_call(method, path, body).expect("the server answers");
        assert_eq!(status, 200, "{method} {path}: {answer}");
        answer
    }

    pub(crate) fn submit(&self, body: &Value) -> String {
        let answer = self.call("POST", "/api/v1/tasks", &body.to_string());
        answer["task"]["id"].as_str().unwrap().to_owned()
    }

    pub(crate) fn task(&self, id: &str) -> Value {
        self.call("GET", &format!("/api/v1/tasks/{id}"), "")["task"].clone()
    }

    /// The task once it has ended.
    pub(crate) fn ended(&self, id: &str) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let path = format!("/api/v1/tasks/{id}?wait_seconds=10");
            let task = self.call("GET", &path, "")["task"].clone();
            if !task["completed_at"].is_null() {
                return task;
            }
            assert!(Instant::now() < deadline, "task has not ended: {task}");
        }
    }
}

impl Drop for House {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The same on a port of one's own.
pub(crate) fn open_on(folder: &Path, port: u16) -> House {
    House::start(command_on(folder, port), folder)
}

/// A port that nobody listens on.
pub(crate) fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

pub(crate) fn command(folder: &Path) -> Command {
    command_on(folder, 0)
}

fn command_on(folder: &Path, port: u16) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_maos"));
    command
        .args(["serve", "--port", &port.to_string(), "--data-dir"])
        .arg(folder.join("data"))
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

/// One request on a connection of its own; `None` if nobody answers.
pub(crate) fn call_at(
    address: SocketAddr,
    method: &str,
    path: &str,
    body: &str,
) -> Option<(u16, Value)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: maos\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, serde_json::from_str(body).ok()?))
}

/// A folder with programs, and a configuration that makes them agents.
pub(crate) fn folder(programs: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut toml = String::new();
    for (name, script) in programs {
        fs::write(folder.path().join(format!("{name}.sh")), script).unwrap();
        toml.push_str(&format!(
            "[commands.{name}]\ncommand = [\"sh\", \"{name}.sh\"]\ncapabilities = [\"{name}\"]\n"
        ));
    }
    fs::write(folder.path().join("maos.toml"), toml).unwrap();
    folder
}

/// So long after the end of a server nothing that it started may be left.
pub(crate) const GONE_WITHIN: Duration = Duration::from_secs(2);

/// Processes that carry `marker` in their command line or environment.
pub(crate) fn marked(marker: &str) -> Vec<i32> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| {
        let holds = |what: &str| {
            let bytes = fs::read(format!("/proc/{pid}/{what}")).unwrap_or_default();
            bytes.windows(marker.len()).any(|window| window == marker.as_bytes())
        };
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let zombie = stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('Z'));
        !zombie && (holds("cmdline") || holds("environ"))
    })
    .collect()
}

/// Waits for a condition; fails when it does not come.
pub(crate) fn eventually(what: &str, patience: Duration, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + patience;
    while !holds() {
        assert!(Instant::now() < deadline, "in vain waited for: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
