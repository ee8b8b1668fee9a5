//! Thousands of ztunnels in one thread: each subscribes to addresses and policies on one delta
//! stream, acknowledges every response, and comes back with the versions that it held.
//!
//! They are cheap, for on one machine what they cost is missing elsewhere: the frames of
//! HTTP/2 and the outermost fields of responses are looked at where they are, no resource is
//! decoded, and what all of them hold, the first one keeps for all. Windows and frames are
//! those that ztunnel announces.

mod http2;
mod link;
mod message;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mio::{Events, Interest, Poll, Token, Waker};
use prost::Message as _;
use proto::discovery::DeltaDiscoveryRequest;
use proto::type_url::{ADDRESS, AUTHORIZATION};
use rustls::ClientConfig;

use crate::ads::ztunnel_node;
use http2::Stream;
pub(crate) use link::Link;
use message::{Looks, Response};

const WAKE: Token = Token(usize::MAX);
const EVENTS: usize = 1024;
const TYPES: [&str; 2] = [ADDRESS, AUTHORIZATION];

/// Nanoseconds since the epoch: the clock that processes of one machine share.
pub fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_nanos()).unwrap_or(u64::MAX)
}

/// Whom to connect to, and how.
#[derive(Clone)]
pub struct To {
    /// Where.
    pub addr: SocketAddr,
    /// The name that the server's certificate must carry.
    pub server_name: String,
    /// TLS with or without a certificate of the client's.
    pub tls: Arc<ClientConfig>,
    /// A bearer token, where there is no certificate.
    pub token: Option<String>,
    /// Names of nodes to be on, in turn.
    pub nodes: usize,
}

/// What all clients together have received.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Clients whose stream is open.
    pub open: u64,
    /// Streams that ended without being asked to.
    pub lost: u64,
    /// Responses, all acknowledged.
    pub responses: u64,
    /// Resources in them.
    pub resources: u64,
    /// Names in them that are gone.
    pub removed: u64,
    /// Bytes of HTTP/2, inside TLS.
    pub bytes: u64,
}

/// Something that was waited for and has happened to all clients.
#[derive(Clone, Debug)]
pub struct Seen {
    /// What was waited for: the number of the event, or 0 for the first answers.
    pub event: u32,
    /// When each client had acknowledged it, nanoseconds as of [`now_ns`].
    pub at_ns: Vec<u64>,
}

struct Client {
    link: Link,
    stream: Stream,
    answered: [bool; 2],
    began_ns: u64,
    ready_ns: Option<u64>,
    /// Of the events that are waited for, the names not yet seen, as bits.
    missing: Vec<(u32, u64)>,
}

struct Awaited {
    event: u32,
    all: u64,
    at_ns: Vec<u64>,
}

/// Clients, and the thread's means to wait for them.
pub struct Fleet {
    to: To,
    poll: Poll,
    events: Events,
    clients: Vec<Option<Client>>,
    connected_ever: usize,
    /// What every client holds: by type, versions by name.
    held: [BTreeMap<String, String>; 2],
    names: HashMap<Vec<u8>, (u32, u64)>,
    awaited: Vec<Awaited>,
    totals: Totals,
    seen: Vec<Seen>,
    scratch: Vec<u8>,
}

impl Fleet {
    /// No clients yet.
    ///
    /// # Errors
    /// When the system has no means to wait.
    pub fn new(to: To) -> io::Result<Self> {
        Ok(Self {
            to,
            poll: Poll::new()?,
            events: Events::with_capacity(EVENTS),
            clients: Vec::new(),
            connected_ever: 0,
            held: Default::default(),
            names: HashMap::new(),
            awaited: Vec::new(),
            totals: Totals::default(),
            seen: Vec::new(),
            scratch: vec![0; 256 << 10],
        })
    }

    /// Makes [`Self::turn`] return, from another thread.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn waker(&self) -> io::Result<Arc<Waker>> {
        Waker::new(self.poll.registry(), WAKE).map(Arc::new)
    }

    /// Connects so many more clients, at once. With `resume` each says the versions that the
    /// fleet held.
    ///
    /// # Errors
    /// When a socket cannot be made.
    pub fn connect(&mut self, count: usize, resume: bool) -> anyhow::Result<()> {
        let versions: [Arc<[u8]>; 2] = [0, 1].map(|ty| {
            let request = DeltaDiscoveryRequest {
                type_url: TYPES[ty].to_owned(),
                initial_resource_versions: if resume {
                    self.held[ty].clone().into_iter().collect()
                } else {
                    BTreeMap::default()
                },
                ..DeltaDiscoveryRequest::default()
            };
            request.encode_to_vec().into()
        });
        for _ in 0..count {
            let at = self.clients.len();
            let node = ztunnel_node(&format!("node-{}", at % self.to.nodes.max(1)));
            let node = DeltaDiscoveryRequest {
                node: Some(node),
                ..DeltaDiscoveryRequest::default()
            };
            let mut link = Link::connect(self.to.addr, &self.to.server_name, &self.to.tls)?;
            let interest = Interest::READABLE | Interest::WRITABLE;
            let registry = self.poll.registry();
            registry.register(link.socket(), Token(at), interest)?;
            let mut stream = Stream::open(&self.to.server_name, self.to.token.as_deref());
            // Messages are concatenated as their fields are: the node, then what is shared.
            stream.send(&node.encode_to_vec(), Some(&versions[0]));
            stream.send(&[], Some(&versions[1]));
            self.clients.push(Some(Client {
                link,
                stream,
                answered: [false; 2],
                began_ns: now_ns(),
                ready_ns: None,
                missing: Vec::new(),
            }));
            self.connected_ever += 1;
            self.totals.open += 1;
        }
        Ok(())
    }

    /// Closes all connections.
    pub fn leave(&mut self) {
        self.clients.clear();
        self.totals.open = 0;
        self.awaited.clear();
        self.names.clear();
    }

    /// Waits until every client has acknowledged a response with each of these names.
    ///
    /// # Panics
    /// With more than 64 names.
    pub fn expect(&mut self, event: u32, names: &[&str]) {
        assert!(names.len() <= 64, "too many names for one event");
        let mut all = 0;
        for (at, name) in names.iter().enumerate() {
            all |= 1 << at;
            self.names
                .insert(name.as_bytes().to_vec(), (event, 1 << at));
        }
        self.awaited.push(Awaited {
            event,
            all,
            at_ns: Vec::new(),
        });
        for client in self.clients.iter_mut().flatten() {
            client.missing.push((event, all));
        }
    }

    /// What has come so far.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Whether every client has had its first answers.
    pub fn is_ready(&self) -> bool {
        self.clients
            .iter()
            .flatten()
            .all(|it| it.ready_ns.is_some())
    }

    /// How long each client took from connecting to acknowledging its first answers,
    /// nanoseconds, and when the last one had.
    pub fn ready(&self) -> (Vec<u64>, u64) {
        let clients = || self.clients.iter().flatten();
        let took = clients().filter_map(|it| Some(it.ready_ns? - it.began_ns));
        let last = clients().filter_map(|it| it.ready_ns).max();
        (took.collect(), last.unwrap_or_default())
    }

    /// Resources that the clients hold, of both types.
    pub fn held_count(&self) -> [usize; 2] {
        [self.held[0].len(), self.held[1].len()]
    }

    /// Does what is to do, after waiting no longer than this for it. Returns what every client
    /// has seen meanwhile.
    ///
    /// # Errors
    /// When waiting fails. A connection that fails is counted as lost.
    pub fn turn(&mut self, limit: Option<Duration>) -> io::Result<Vec<Seen>> {
        match self.poll.poll(&mut self.events, limit) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            polled => polled?,
        }
        let tokens: Vec<Token> = self.events.iter().map(|event| event.token()).collect();
        for Token(at) in tokens {
            if self.clients.get(at).is_some_and(Option::is_some)
                && let Err(error) = self.serve(at)
            {
                tracing::debug!(client = at, %error, "lost");
                eprintln!("client {at} is lost: {error}");
                self.clients[at] = None;
                self.totals.lost += 1;
                self.totals.open -= 1;
            }
        }
        Ok(std::mem::take(&mut self.seen))
    }

    fn serve(&mut self, at: usize) -> io::Result<()> {
        let Some(client) = &mut self.clients[at] else {
            return Ok(());
        };
        let looks = match (at == 0, self.names.is_empty()) {
            (true, _) => Looks::AtNamesAndVersions,
            (false, false) => Looks::AtNames,
            (false, true) => Looks::Away,
        };
        let mut finished: Vec<u32> = Vec::new();
        let (totals, names, held) = (&mut self.totals, &self.names, &mut self.held);
        let Client {
            link,
            stream,
            answered,
            missing,
            ..
        } = client;
        let mut on_response = |response: Response<'_>| {
            totals.responses += 1;
            totals.resources += response.resources;
            totals.removed += response.removed;
            let Some(ty) = TYPES
                .iter()
                .position(|it| it.as_bytes() == response.type_url)
            else {
                return;
            };
            answered[ty] = true;
            for (name, version) in response.changed {
                if at == 0 {
                    let text = |it: &[u8]| String::from_utf8_lossy(it).into_owned();
                    held[ty].insert(text(name), text(version));
                }
                let Some((event, bit)) = names.get(name) else {
                    continue;
                };
                if let Some((_, left)) = missing.iter_mut().find(|(it, _)| it == event) {
                    *left &= !bit;
                    if *left == 0 {
                        finished.push(*event);
                        missing.retain(|(it, _)| it != event);
                    }
                }
            }
            for name in response.gone {
                held[ty].remove(&*String::from_utf8_lossy(name));
            }
        };
        let mut bytes = 0;
        let read = link.read(&mut self.scratch, |plain| {
            bytes += plain.len() as u64;
            stream.receive(plain, looks, &mut on_response)
        });
        totals.bytes += bytes;
        read?;
        stream.flush(link)?;
        let is_ready = client.answered == [true; 2] && client.ready_ns.is_none();
        if is_ready {
            client.ready_ns = Some(now_ns());
        }
        if !finished.is_empty() {
            self.note(&finished);
        }
        Ok(())
    }

    /// Another client has seen these events, and said so.
    fn note(&mut self, finished: &[u32]) {
        let now = now_ns();
        for event in finished {
            if let Some(awaited) = self.awaited.iter_mut().find(|it| it.event == *event) {
                awaited.at_ns.push(now);
            }
        }
        let open = usize::try_from(self.totals.open).unwrap_or(usize::MAX);
        let (done, waiting) = std::mem::take(&mut self.awaited)
            .into_iter()
            .partition(|it| it.at_ns.len() >= open);
        self.awaited = waiting;
        for Awaited { event, at_ns, all } in done {
            debug_assert!(all != 0);
            self.names.retain(|_, (it, _)| *it != event);
            self.seen.push(Seen { event, at_ns });
        }
    }
}
