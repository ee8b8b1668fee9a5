//! The floor: what it costs to write bytes to TLS sockets and nothing else, and clients that
//! do nothing with them.

use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use anyhow::Context as _;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};
use rustls::{ClientConfig, ServerConfig, ServerConnection};

use super::ztunnel::{Link, now_ns};

const WAKE: Token = Token(usize::MAX);
const LISTEN: Token = Token(usize::MAX - 1);
const EVENTS: usize = 1024;
/// What is written over and over, from one place in memory. A multiple of TLS records.
static SOURCE: [u8; 64 << 10] = [0x5a; 64 << 10];
/// As long as an acknowledgement of a ztunnel, with its frame.
const ANSWER: [u8; 96] = [0; 96];

/// Writes what it is told to all connections, from one thread for each processor as the server
/// has them.
pub struct Writer {
    addrs: Vec<SocketAddr>,
    threads: Vec<(Sender<u64>, Arc<Waker>)>,
}

struct Peer {
    socket: TcpStream,
    tls: ServerConnection,
    left: u64,
}

impl Writer {
    /// Listens on loopback; each thread has its own port.
    ///
    /// # Errors
    /// When the system has no means.
    pub fn start(tls: &Arc<ServerConfig>, threads: usize) -> anyhow::Result<Self> {
        let mut writer = Self {
            addrs: Vec::new(),
            threads: Vec::new(),
        };
        for _ in 0..threads {
            let poll = Poll::new()?;
            let mut listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
            let registry = poll.registry();
            registry.register(&mut listener, LISTEN, Interest::READABLE)?;
            writer.addrs.push(listener.local_addr()?);
            let (orders, ordered) = channel();
            let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
            let tls = Arc::clone(tls);
            std::thread::spawn(move || serve(poll, &listener, &tls, &ordered));
            writer.threads.push((orders, waker));
        }
        Ok(writer)
    }

    /// Where to connect, in turn.
    pub fn addrs(&self) -> &[SocketAddr] {
        &self.addrs
    }

    /// Writes so many bytes to every connection.
    ///
    /// # Errors
    /// When a thread has ended.
    pub fn write(&self, bytes: u64) -> anyhow::Result<()> {
        for (orders, waker) in &self.threads {
            orders.send(bytes).ok().context("a writer has ended")?;
            waker.wake()?;
        }
        Ok(())
    }
}

fn serve(
    mut poll: Poll,
    listener: &TcpListener,
    tls: &Arc<ServerConfig>,
    orders: &Receiver<u64>,
) -> io::Result<()> {
    let mut events = Events::with_capacity(EVENTS);
    let mut peers: Vec<Option<Peer>> = Vec::new();
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            polled => polled?,
        }
        for event in &events {
            match event.token() {
                LISTEN => {
                    while let Ok((mut socket, _)) = listener.accept() {
                        socket.set_nodelay(true)?;
                        let interest = Interest::READABLE | Interest::WRITABLE;
                        let registry = poll.registry();
                        registry.register(&mut socket, Token(peers.len()), interest)?;
                        let tls = ServerConnection::new(Arc::clone(tls));
                        let tls = tls.map_err(io::Error::other)?;
                        let left = 0;
                        peers.push(Some(Peer { socket, tls, left }));
                    }
                }
                WAKE => {
                    for bytes in orders.try_iter() {
                        for place in &mut peers {
                            if let Some(peer) = place {
                                peer.left += bytes;
                                if peer.write().is_err() {
                                    *place = None;
                                }
                            }
                        }
                    }
                }
                Token(at) => {
                    if let Some(peer) = &mut peers[at]
                        && peer.read().and_then(|()| peer.write()).is_err()
                    {
                        peers[at] = None;
                    }
                }
            }
        }
    }
}

impl Peer {
    fn read(&mut self) -> io::Result<()> {
        let mut plain = [0; 4096];
        loop {
            match self.tls.read_tls(&mut self.socket) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
            self.tls.process_new_packets().map_err(io::Error::other)?;
            while self
                .tls
                .reader()
                .read(&mut plain)
                .is_ok_and(|read| read > 0)
            {}
        }
    }

    fn write(&mut self) -> io::Result<()> {
        loop {
            while self.tls.wants_write() {
                match self.tls.write_tls(&mut self.socket) {
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                    Err(error) => return Err(error),
                }
            }
            if self.left == 0 || self.tls.is_handshaking() {
                return Ok(());
            }
            let bytes = usize::try_from(self.left).map_or(SOURCE.len(), |it| it.min(SOURCE.len()));
            let taken = self.tls.writer().write(&SOURCE[..bytes])?;
            self.left -= taken as u64;
        }
    }
}

/// Connections that read and forget.
pub struct Readers {
    poll: Poll,
    events: Events,
    links: Vec<Option<(Link, u64, bool)>>,
    scratch: Vec<u8>,
    /// Each answers once it has received so many more bytes, if it answers at all.
    answer_every: Option<u64>,
}

impl Readers {
    /// Connects to the addresses in turn.
    ///
    /// # Errors
    /// When a socket cannot be made.
    pub fn connect(
        addrs: &[SocketAddr],
        server_name: &str,
        tls: &Arc<ClientConfig>,
        count: usize,
    ) -> anyhow::Result<Self> {
        let poll = Poll::new()?;
        let mut links = Vec::new();
        for at in 0..count {
            let mut link = Link::connect(addrs[at % addrs.len()], server_name, tls)?;
            let interest = Interest::READABLE | Interest::WRITABLE;
            let registry = poll.registry();
            registry.register(link.socket(), Token(at), interest)?;
            links.push(Some((link, 0, false)));
        }
        Ok(Self {
            poll,
            events: Events::with_capacity(EVENTS),
            links,
            scratch: vec![0; 256 << 10],
            answer_every: None,
        })
    }

    /// Reads until every connection has received so many bytes since it was asked last, each
    /// answering then if it shall. Returns when, nanoseconds as of [`now_ns`]. Of 0 bytes: until
    /// every connection is there.
    ///
    /// # Errors
    /// When a connection is lost, or nothing comes for a minute.
    pub fn read(&mut self, bytes: u64, answer: bool) -> anyhow::Result<u64> {
        self.answer_every = answer.then_some(bytes);
        let is_done = |(_, read, up): &(Link, u64, bool)| *up && *read >= bytes;
        let mut waiting = self
            .links
            .iter()
            .flatten()
            .filter(|it| !is_done(it))
            .count();
        while waiting > 0 {
            self.poll
                .poll(&mut self.events, Some(Duration::from_secs(60)))?;
            anyhow::ensure!(!self.events.is_empty(), "nothing came for a minute");
            for event in &self.events {
                let Token(at) = event.token();
                let Some(link) = &mut self.links[at] else {
                    continue;
                };
                let was_done = is_done(link);
                let (tls, read, up) = link;
                tls.read(&mut self.scratch, |plain| {
                    *read += plain.len() as u64;
                    Ok(())
                })?;
                let before = *up;
                *up = tls.flush()?;
                if before != *up || *read >= bytes {
                    if !was_done && self.answer_every.is_some() && *read >= bytes {
                        tls.write(&ANSWER)?;
                    }
                    tls.flush()?;
                }
                if !was_done && is_done(link) {
                    waiting -= 1;
                }
            }
        }
        for (_, read, _) in self.links.iter_mut().flatten() {
            *read -= bytes;
        }
        Ok(now_ns())
    }
}
