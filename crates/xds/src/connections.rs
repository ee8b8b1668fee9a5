//! The streams that are open, for the debug pages.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use authn::{Caller, Peer};
use dashmap::DashMap;

use crate::client::Client;
use crate::session::{Flavour, TypeStatus};

/// An open stream as it was after its last event.
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
    open: DashMap<u64, Connection>,
    next: AtomicU64,
}

impl Connections {
    /// All open streams, by order of their arrival.
    pub fn list(&self) -> Vec<Connection> {
        let mut all: Vec<(u64, Connection)> = self
            .open
            .iter()
            .map(|entry| (*entry.key(), entry.value().clone()))
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

    /// Adds a stream; its number is the handle for the other methods.
    pub(crate) fn open(
        &self,
        client: Client,
        peer: Peer,
        caller: Option<Caller>,
        flavour: Flavour,
    ) -> u64 {
        let number = self.next.fetch_add(1, Ordering::Relaxed) + 1;
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
        self.open.insert(number, connection);
        number
    }

    pub(crate) fn update(&self, number: u64, types: Vec<TypeStatus>) {
        if let Some(mut connection) = self.open.get_mut(&number) {
            connection.types = types;
        }
    }

    pub(crate) fn close(&self, number: u64) {
        self.open.remove(&number);
    }
}
