//! The node agent's side of the protocol by which ztunnel learns of pods: one protobuf message
//! per packet on a `SOCK_SEQPACKET` socket, and a pod's network namespace as a file descriptor.

use std::fs::File;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept, bind, listen, recvmsg, sendmsg,
    socket_with,
};

/// A pod that ztunnel shall serve.
#[derive(Debug)]
pub struct PodNetns {
    /// Namespace.
    pub ns: String,
    /// Name.
    pub name: String,
    /// Service account.
    pub service_account: String,
    /// Its network namespace.
    pub netns: File,
}

/// Serves one ztunnel until it is dropped.
#[derive(Debug)]
pub struct NodeAgent {
    path: PathBuf,
    changes: mpsc::Sender<Change>,
    done: mpsc::Receiver<anyhow::Result<()>>,
}

enum Change {
    Add(PodNetns),
    Remove(String),
}

const ANSWER_LIMIT: Duration = Duration::from_secs(20);
/// `WorkloadResponse { ack }`.
const ACK: &[u8] = &[0x0a, 0x00];
/// `ZdsHello { version: V1 }`.
const HELLO: &[u8] = &[0x08, 0x01];
/// `WorkloadRequest { snapshot_sent }`.
const SNAPSHOT_SENT: &[u8] = &[0x1a, 0x00];

/// A length-delimited protobuf field.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let length = u8::try_from(bytes.len()).expect("short names");
    assert!(length < 128, "short names");
    [&[number << 3 | 2, length], bytes].concat()
}

fn uid(ns: &str, name: &str) -> Vec<u8> {
    format!("{ns}.{name}").into_bytes()
}

// === impl NodeAgent ===

impl NodeAgent {
    /// Listens on a socket file. The first ztunnel that connects is told of every pod.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn listen(path: &Path, pods: Vec<PodNetns>) -> anyhow::Result<Self> {
        let socket = socket_with(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        bind(&socket, &SocketAddrUnix::new(path)?)
            .with_context(|| format!("node agent at {}", path.display()))?;
        listen(&socket, 4)?;
        let (changes, changed) = mpsc::channel();
        let (result, done) = mpsc::channel();
        std::thread::spawn(move || {
            let outcome = serve(&socket, pods, &changed, &result);
            let _ = result.send(outcome);
        });
        Ok(Self {
            path: path.to_owned(),
            changes,
            done,
        })
    }

    /// The socket file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits until ztunnel has taken every pod of the beginning.
    ///
    /// # Errors
    /// When it does not.
    pub fn wait_snapshot(&self) -> anyhow::Result<()> {
        self.wait()
    }

    /// Hands over a further pod.
    ///
    /// # Errors
    /// When ztunnel does not take it.
    pub fn add(&self, pod: PodNetns) -> anyhow::Result<()> {
        self.changes
            .send(Change::Add(pod))
            .context("ztunnel left")?;
        self.wait()
    }

    /// Takes a pod away.
    ///
    /// # Errors
    /// When ztunnel does not answer.
    pub fn remove(&self, ns: &str, name: &str) -> anyhow::Result<()> {
        let uid = String::from_utf8(uid(ns, name))?;
        self.changes
            .send(Change::Remove(uid))
            .context("ztunnel left")?;
        self.wait()
    }

    fn wait(&self) -> anyhow::Result<()> {
        self.done
            .recv_timeout(ANSWER_LIMIT)
            .context("ztunnel did not answer the node agent")?
    }
}

fn serve(
    socket: &OwnedFd,
    pods: Vec<PodNetns>,
    changed: &mpsc::Receiver<Change>,
    result: &mpsc::Sender<anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let peer = accept(socket)?;
    ensure!(receive(&peer)? == HELLO, "unknown greeting");
    for pod in &pods {
        add(&peer, pod)?;
    }
    send(&peer, SNAPSHOT_SENT, None)?;
    expect_ack(&peer)?;
    result.send(Ok(()))?;
    while let Ok(change) = changed.recv() {
        let outcome = match change {
            Change::Add(pod) => add(&peer, &pod),
            // WorkloadRequest { del: DelWorkload { uid } }
            Change::Remove(uid) => send(&peer, &field(2, &field(2, uid.as_bytes())), None)
                .and_then(|()| expect_ack(&peer)),
        };
        result.send(outcome)?;
    }
    Ok(())
}

/// `WorkloadRequest { add: AddWorkload { uid, workload_info { name, namespace, service_account } } }`.
fn add(peer: &OwnedFd, pod: &PodNetns) -> anyhow::Result<()> {
    let info = [
        field(1, pod.name.as_bytes()),
        field(2, pod.ns.as_bytes()),
        field(3, pod.service_account.as_bytes()),
    ]
    .concat();
    let add = [field(1, &uid(&pod.ns, &pod.name)), field(2, &info)].concat();
    send(peer, &field(1, &add), Some(&pod.netns))?;
    expect_ack(peer).with_context(|| format!("pod {}/{}", pod.ns, pod.name))
}

fn send(peer: &OwnedFd, message: &[u8], file: Option<&File>) -> anyhow::Result<()> {
    let fds: Vec<_> = file.iter().map(|file| file.as_fd()).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        ensure!(
            ancillary.push(SendAncillaryMessage::ScmRights(&fds)),
            "no room for a file descriptor"
        );
    }
    sendmsg(
        peer,
        &[IoSlice::new(message)],
        &mut ancillary,
        SendFlags::NOSIGNAL,
    )?;
    Ok(())
}

fn receive(peer: &OwnedFd) -> anyhow::Result<Vec<u8>> {
    let mut bytes = [0; 4096];
    let mut nothing = RecvAncillaryBuffer::default();
    let message = recvmsg(
        peer,
        &mut [IoSliceMut::new(&mut bytes)],
        &mut nothing,
        RecvFlags::empty(),
    )?;
    Ok(bytes[..message.bytes].to_vec())
}

fn expect_ack(peer: &OwnedFd) -> anyhow::Result<()> {
    let answer = receive(peer)?;
    if answer == ACK {
        return Ok(());
    }
    bail!("ztunnel answered {}", String::from_utf8_lossy(&answer))
}
