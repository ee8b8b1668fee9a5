//! How many streams one caller may have open.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use authn::{Caller, Peer};
use model::{SpiffeId, Str};
use parking_lot::Mutex;

/// Streams that one caller may have; proxies use one or two.
const STREAMS_PER_CALLER_MAX: usize = 32;

/// All pods of an account share its identity, so a caller is its pod, or else its address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Pod(SpiffeId, Str),
    Address(SpiffeId, IpAddr),
}

/// Open streams by caller. Callers on this host are not counted: several proxies of one account
/// may share its addresses.
#[derive(Debug, Default)]
pub(super) struct Shares {
    open: Mutex<HashMap<Key, usize>>,
}

/// A place of one stream; free again when dropped.
#[derive(Debug)]
pub(super) struct Share {
    key: Option<Key>,
    shares: Arc<Shares>,
}

impl Shares {
    /// A place for one more stream, or `None` when the caller has enough of them.
    pub(super) fn take(self: &Arc<Self>, peer: &Peer, caller: Option<&Caller>) -> Option<Share> {
        let ip = peer.addr.ip().to_canonical();
        let key = caller
            .filter(|_| !ip.is_loopback())
            .map(|caller| match caller.pod() {
                Some(pod) => Key::Pod(caller.identity.clone(), pod.uid.clone()),
                None => Key::Address(caller.identity.clone(), network(ip)),
            });
        if let Some(key) = &key {
            let mut open = self.open.lock();
            let count = open.entry(key.clone()).or_default();
            if *count >= STREAMS_PER_CALLER_MAX {
                return None;
            }
            *count += 1;
        }
        Some(Share {
            key,
            shares: Arc::clone(self),
        })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let Some(key) = &self.key else { return };
        let mut open = self.shares.open.lock();
        if let Some(count) = open.get_mut(key) {
            *count -= 1;
            if *count == 0 {
                open.remove(key);
            }
        }
    }
}

/// An IPv6 host has a whole /64 to call from.
fn network(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(_) => ip,
        IpAddr::V6(ip) => IpAddr::V6((ip.to_bits() & !u128::from(u64::MAX)).into()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use authn::{PodRef, Proof};

    use super::*;

    fn peer(addr: &str) -> Peer {
        Peer {
            addr: addr.parse().unwrap(),
            identity: None,
            secure: true,
        }
    }

    fn caller(uid: Option<&str>) -> Caller {
        let pod = uid.map(|uid| PodRef {
            name: Str::from("p"),
            uid: Str::from(uid),
        });
        Caller {
            identity: SpiffeId::new("cluster.local", "a", "b"),
            proof: Proof::Token { pod },
        }
    }

    #[test]
    fn a_caller_has_its_share_and_nobody_elses() {
        let shares = Arc::new(Shares::default());
        let far = peer("10.0.0.1:1");
        let mut held: Vec<Share> = (0..STREAMS_PER_CALLER_MAX)
            .filter_map(|_| shares.take(&far, Some(&caller(Some("u")))))
            .collect();
        assert_eq!(held.len(), STREAMS_PER_CALLER_MAX);
        assert!(shares.take(&far, Some(&caller(Some("u")))).is_none());
        assert!(shares.take(&far, Some(&caller(Some("v")))).is_some());
        held.pop();
        assert!(shares.take(&far, Some(&caller(Some("u")))).is_some());
        drop(held);
        assert!(shares.open.lock().is_empty());
    }

    #[test]
    fn without_pod_an_address_is_a_caller_and_this_host_none() {
        let shares = Arc::new(Shares::default());
        let take = |addr: &str| shares.take(&peer(addr), Some(&caller(None)));
        let held: Vec<_> = (0..STREAMS_PER_CALLER_MAX)
            .map(|i| take(&format!("[2001:db8::{i:x}]:1")))
            .collect();
        assert!(held.iter().all(Option::is_some));
        assert!(take("[2001:db8::ffff]:1").is_none());
        assert!(take("[2001:db8:0:1::1]:1").is_some());
        let local: Vec<_> = (0..=STREAMS_PER_CALLER_MAX)
            .map(|_| take("127.0.0.1:1"))
            .collect();
        assert!(local.iter().all(Option::is_some));
    }
}
