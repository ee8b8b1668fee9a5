//! How the watches are doing, for readiness, metrics and the log.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::Kind;
use parking_lot::RwLock;
use serde::Serialize;
use tokio::time::Instant;

/// How the watch of one kind is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum KindState {
    /// Its first list is not complete.
    Listing,
    /// The API server does not serve it; it is an empty list until it does.
    Absent,
    /// Listed and watched.
    Watching,
    /// The API server refuses to let us read it.
    Forbidden,
    /// It cannot be read now; what was read last is in effect.
    Failing,
}

/// One kind.
#[derive(Clone, Debug)]
pub struct KindHealth {
    /// How it is doing.
    pub state: KindState,
    /// The last error, empty when all is well.
    pub error: String,
    /// Since when.
    pub since: Instant,
}

/// How all watches are doing. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<RwLock<BTreeMap<Kind, KindHealth>>>);

// === impl Health ===

impl Health {
    /// Notes how a kind is doing. Returns whether that is news.
    pub fn set(&self, kind: Kind, state: KindState, error: &str) -> bool {
        let mut kinds = self.0.write();
        let known = kinds.get(&kind);
        if known.is_some_and(|known| known.state == state && known.error == error) {
            return false;
        }
        let is_news = known.is_none_or(|known| known.state != state);
        let since = match known {
            Some(known) if !is_news => known.since,
            _ => Instant::now(),
        };
        let error = error.to_owned();
        kinds.insert(
            kind,
            KindHealth {
                state,
                error,
                since,
            },
        );
        is_news
    }

    /// How a kind is doing; `None` for those that nobody watches.
    pub fn state(&self, kind: Kind) -> Option<KindState> {
        self.0.read().get(&kind).map(|health| health.state.clone())
    }

    /// Every kind, in the order of [`Kind`].
    pub fn kinds(&self) -> Vec<(Kind, KindHealth)> {
        let kinds = self.0.read();
        let all = kinds.iter();
        all.map(|(kind, health)| (*kind, health.clone())).collect()
    }
}
