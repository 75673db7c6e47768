//! The socket between server and supervisor: packets of JSON, some with file descriptors.

use std::ffi::OsString;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, Shutdown, SocketFlags, SocketType,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::SUPERVISOR_MARKER;
use super::message::{Event, Request};
use crate::process::open_as_before;

/// Most bytes of a packet.
const PACKET_BYTES_MAX: usize = 128 << 10;

/// The server's end.
pub(super) struct Link {
    socket: OwnedFd,
    child: Mutex<Child>,
}

impl Link {
    /// Starts a supervisor and connects to it.
    pub(super) fn open(command: &[OsString], marker: &str) -> io::Result<Link> {
        let (ours, theirs) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        let (name, arguments) =
            command.split_first().ok_or_else(|| io::Error::other("no program is named"))?;
        let child = Command::new(name)
            .args(arguments)
            .env(SUPERVISOR_MARKER, marker)
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .spawn()?;
        open_as_before(child.id());
        Ok(Link { socket: ours, child: Mutex::new(child) })
    }

    pub(super) fn send(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        send(self.socket.as_fd(), request, fds)
    }

    /// The next event; `None` when the supervisor is gone.
    pub(super) fn hear(&self) -> Option<Event> {
        match receive(self.socket.as_fd()) {
            Ok(Some((event, _))) => Some(event),
            Ok(None) | Err(_) => None,
        }
    }

    /// Tells the supervisor to end everything, by hanging up.
    pub(super) fn close(&self) {
        // One that is gone already needs no telling.
        let _ = rustix::net::shutdown(&self.socket, Shutdown::Write);
    }

    /// Waits for the supervisor's end; says whether it came in time.
    pub(super) fn wait(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let mut child = self.child.lock().expect("nothing panics while it holds this lock");
        loop {
            match child.try_wait() {
                Ok(Some(_)) => return true,
                Ok(None) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Ok(None) | Err(_) => return false,
            }
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // Reaped if it has ended; it ends by itself when the socket closes.
        if let Ok(mut child) = self.child.lock() {
            drop(child.try_wait());
        }
    }
}

pub(super) fn send(
    socket: BorrowedFd<'_>,
    message: &impl Serialize,
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let packet = serde_json::to_vec(message)?;
    if packet.len() > PACKET_BYTES_MAX {
        let message = format!("a packet of {} bytes, at most {PACKET_BYTES_MAX}", packet.len());
        return Err(io::Error::other(message));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        let fits = control.push(SendAncillaryMessage::ScmRights(fds));
        assert!(fits, "three descriptors are the most that is sent");
    }
    rustix::net::sendmsg(socket, &[IoSlice::new(&packet)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// The next packet and its file descriptors; `None` when the other end has hung up.
pub(super) fn receive<T: DeserializeOwned>(
    socket: BorrowedFd<'_>,
) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut packet = vec![0; PACKET_BYTES_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let mut into = [IoSliceMut::new(&mut packet)];
        match rustix::net::recvmsg(socket, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other?,
        }
    };
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            fds.extend(received);
        }
    }
    if received.bytes == 0 {
        return Ok(None);
    }
    let message = serde_json::from_slice(&packet[..received.bytes])?;
    Ok(Some((message, fds)))
}
