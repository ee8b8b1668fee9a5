//! What good tokens were found to be worth, for seconds.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use model::Str;
use parking_lot::Mutex;

use crate::PodRef;

/// How long a review counts: a deleted pod's token lives on for this long.
const TTL: Duration = Duration::from_secs(10);
/// Tokens remembered at once.
pub(crate) const ENTRIES_MAX: usize = 10_000;

/// The account of a good token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) ns: Str,
    pub(crate) sa: Str,
    pub(crate) pod: Option<PodRef>,
}

struct Entry {
    account: Account,
    since: SystemTime,
    until: SystemTime,
}

/// Positive results only: a refusal must be able to become good at once.
#[derive(Default)]
pub(crate) struct Cache(Mutex<HashMap<[u8; 32], Entry>>);

impl Cache {
    pub(crate) fn find(&self, key: &[u8; 32], now: SystemTime) -> Option<Account> {
        let mut entries = self.0.lock();
        let entry = entries.get(key)?;
        // A clock that went back makes no entry younger.
        if entry.since <= now && now < entry.until {
            return Some(entry.account.clone());
        }
        entries.remove(key);
        None
    }

    /// Remembers an account, but not past the end of its token.
    pub(crate) fn keep(
        &self,
        key: [u8; 32],
        account: Account,
        expires: SystemTime,
        now: SystemTime,
    ) {
        let until = expires.min(now + TTL);
        if until <= now {
            return;
        }
        let mut entries = self.0.lock();
        if entries.len() >= ENTRIES_MAX {
            entries.retain(|_, entry| now < entry.until);
        }
        if entries.len() >= ENTRIES_MAX {
            entries.clear();
        }
        let since = now;
        entries.insert(
            key,
            Entry {
                account,
                since,
                until,
            },
        );
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.lock().len()
    }
}
