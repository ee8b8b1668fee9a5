//! Whether this replica may write now.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A time for which this replica holds a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Term {
    /// `leaseTransitions` of the lease: grows with every change of its holder.
    pub transitions: i32,
    /// When the right ends unless the lease is renewed; measured from before the request that
    /// renewed it, so it ends here before it ends for anybody else.
    pub until: Instant,
}

/// The right to write, as of now. Clones share it.
#[derive(Clone, Debug)]
pub struct Leadership {
    terms: watch::Receiver<Option<Term>>,
    /// Of the term that [`Leadership::changed`] last told of.
    told: Option<i32>,
}

// === impl Leadership ===

impl Leadership {
    /// The right that an election grants and takes away.
    pub fn new(terms: watch::Receiver<Option<Term>>) -> Self {
        Self { terms, told: None }
    }

    /// The term of now; `None` when another replica leads, or the lease was not renewed in time.
    pub fn term(&self) -> Option<Term> {
        let term = *self.terms.borrow();
        term.filter(|term| Instant::now() < term.until)
    }

    /// The term of now, if it lasts at least as long as a request may take.
    pub fn term_for(&self, request: Duration) -> Option<Term> {
        self.term()
            .filter(|term| Instant::now() + request < term.until)
    }

    /// Waits until leadership is gained or lost since the last call, at first since nobody had
    /// it; renewals are not told. Returns `false` when there will be no more changes.
    pub async fn changed(&mut self) -> bool {
        loop {
            let now = self.terms.borrow_and_update().map(|term| term.transitions);
            if now != self.told {
                self.told = now;
                return true;
            }
            if self.terms.changed().await.is_err() {
                return false;
            }
        }
    }

    /// Waits until this replica leads; `false` when it is to stop.
    pub(crate) async fn begins(&mut self, stop: &CancellationToken) -> bool {
        loop {
            tokio::select! {
                () = stop.cancelled() => return false,
                goes_on = self.changed() => if !goes_on {
                    return false;
                }
            }
            if self.term().is_some() {
                return true;
            }
        }
    }

    /// Does something while this replica leads, anew in each term; with the term it is dropped.
    /// `false` when the replica is to stop, or nothing is left to do.
    pub(crate) async fn during<F: Future<Output = ()>>(
        &mut self,
        stop: &CancellationToken,
        lead: impl Fn() -> F,
    ) -> bool {
        while self.term().is_some() {
            tokio::select! {
                () = stop.cancelled() => return false,
                goes_on = self.changed() => if !goes_on {
                    return false;
                },
                () = lead() => return false,
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_term_ends_by_itself_when_it_is_not_renewed() {
        let term = |transitions, seconds| Term {
            transitions,
            until: Instant::now() + Duration::from_secs(seconds),
        };
        let (sender, receiver) = watch::channel(None);
        let mut leadership = Leadership::new(receiver);
        assert_eq!(leadership.term(), None);
        sender.send_replace(Some(term(1, 15)));
        assert!(leadership.changed().await);
        assert!(leadership.term_for(Duration::from_secs(10)).is_some());
        assert_eq!(leadership.term_for(Duration::from_secs(20)), None);
        tokio::time::advance(Duration::from_secs(15)).await;
        assert_eq!(leadership.term(), None);
        // A renewal of the same term is no change of leadership.
        sender.send_replace(Some(term(1, 15)));
        let change = tokio::time::timeout(Duration::from_secs(1), leadership.changed());
        assert!(change.await.is_err());
        assert!(leadership.term().is_some());
    }
}
