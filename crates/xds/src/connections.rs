//! The streams that are open, for the debug pages.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use authn::{Caller, Peer};
use dashmap::DashMap;
use parking_lot::Mutex;

use crate::client::Client;
use crate::session::{Flavour, Session, TypeStatus};

/// An open stream as it is when it is looked at.
#[derive(Clone, Debug)]
pub struct Connection {
    /// `<pod>-<n>`, unique in the life of the process.
    pub id: String,
    /// Who it is.
    pub client: Client,
    /// Where it comes from.
    pub peer: Peer,
    /// Its verified identity; `None` on the plaintext listener.
    pub caller: Option<Caller>,
    /// When it connected.
    pub since: SystemTime,
    /// Variant of the protocol.
    pub flavour: Flavour,
    /// Subscriptions, by type.
    pub types: Vec<TypeStatus>,
}

/// How one type on one stream stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncState {
    /// Nothing was sent.
    NotSent,
    /// The last response was accepted.
    Synced,
    /// The last response is not yet acknowledged.
    Stale,
    /// The last response was rejected.
    Nack,
}

impl SyncState {
    /// The state of one type.
    pub fn of(status: &TypeStatus) -> Self {
        if status.nonce_sent.is_empty() {
            Self::NotSent
        } else if status.in_flight {
            Self::Stale
        } else if status.last_error.is_some() {
            Self::Nack
        } else {
            Self::Synced
        }
    }

    /// The word of the debug page.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotSent => "NOT SENT",
            Self::Synced => "SYNCED",
            Self::Stale => "STALE",
            Self::Nack => "NACK",
        }
    }
}

/// All open streams.
#[derive(Debug, Default)]
pub struct Connections {
    /// Without its subscriptions, which its session knows.
    open: DashMap<u64, (Connection, Arc<Mutex<Session>>)>,
    next: AtomicU64,
}

impl Connections {
    /// All open streams, by order of their arrival.
    pub fn list(&self) -> Vec<Connection> {
        let mut all: Vec<(u64, Connection)> = self
            .open
            .iter()
            .map(|entry| {
                let (connection, session) = entry.value();
                let types = session.lock().status();
                let connection = connection.clone();
                (
                    *entry.key(),
                    Connection {
                        types,
                        ..connection
                    },
                )
            })
            .collect();
        all.sort_unstable_by_key(|(number, _)| *number);
        all.into_iter().map(|(_, connection)| connection).collect()
    }

    /// Number of open streams.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Whether no stream is open.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// The number of the next stream.
    pub(crate) fn next_number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Adds a stream by its number.
    pub(crate) fn open(
        &self,
        number: u64,
        peer: Peer,
        caller: Option<Caller>,
        session: Arc<Mutex<Session>>,
    ) {
        let (client, flavour) = {
            let session = session.lock();
            (session.client().clone(), session.flavour())
        };
        let id = format!("{}-{number}", client.pod);
        let since = SystemTime::now();
        let connection = Connection {
            id,
            client,
            peer,
            caller,
            since,
            flavour,
            types: Vec::new(),
        };
        self.open.insert(number, (connection, session));
    }

    pub(crate) fn close(&self, number: u64) {
        self.open.remove(&number);
    }
}
