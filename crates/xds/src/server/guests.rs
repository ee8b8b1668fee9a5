//! Who may be connected: guests, and how many of one address.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// Connections that have proven nothing yet, handshakes included. When there are too
/// many, the oldest goes: somebody who dawdles never keeps others out.
#[derive(Debug)]
pub(super) struct Guests {
    max: usize,
    all: Mutex<(u64, BTreeMap<u64, CancellationToken>)>,
}

/// One of them; gone when dropped or proven.
#[derive(Debug)]
pub(super) struct Guest {
    number: u64,
    evicted: CancellationToken,
    guests: Arc<Guests>,
}

impl Guests {
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            max: max.max(1),
            all: Mutex::default(),
        })
    }

    pub(super) fn admit(self: &Arc<Self>) -> Guest {
        let evicted = CancellationToken::new();
        let mut all = self.all.lock();
        while all.1.len() >= self.max {
            evict(&mut all.1);
        }
        all.0 += 1;
        let number = all.0;
        all.1.insert(number, evicted.clone());
        Guest {
            number,
            evicted,
            guests: Arc::clone(self),
        }
    }

    /// Makes room, for instance when the system has no more file descriptors.
    pub(super) fn evict_oldest(&self) {
        evict(&mut self.all.lock().1);
    }
}

fn evict(all: &mut BTreeMap<u64, CancellationToken>) {
    if let Some((_, oldest)) = all.pop_first() {
        oldest.cancel();
    }
}

impl Guest {
    /// From now on nobody's arrival ends this connection.
    pub(super) fn prove(&self) {
        self.guests.all.lock().1.remove(&self.number);
    }

    pub(super) fn is_proven(&self) -> bool {
        !self.guests.all.lock().1.contains_key(&self.number)
    }

    pub(super) async fn evicted(&self) {
        self.evicted.cancelled().await;
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.prove();
    }
}

/// Connections by address; those of this host are not counted.
#[derive(Debug)]
pub(super) struct Addresses {
    max: usize,
    open: Mutex<HashMap<IpAddr, usize>>,
}

/// A connection that counts; no longer when dropped.
#[derive(Debug)]
pub(super) struct Place {
    at: Option<(IpAddr, Arc<Addresses>)>,
}

impl Addresses {
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            max,
            open: Mutex::default(),
        })
    }

    /// A place for one more connection of this address, if it may have one.
    pub(super) fn place(self: &Arc<Self>, ip: IpAddr) -> Option<Place> {
        let ip = group(ip);
        if ip.is_loopback() {
            return Some(Place { at: None });
        }
        let mut open = self.open.lock();
        let count = open.entry(ip).or_default();
        if *count >= self.max {
            return None;
        }
        *count += 1;
        Some(Place {
            at: Some((ip, Arc::clone(self))),
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some((ip, addresses)) = self.at.take() else {
            return;
        };
        let mut open = addresses.open.lock();
        if let Some(count) = open.get_mut(&ip) {
            *count -= 1;
            if *count == 0 {
                open.remove(&ip);
            }
        }
    }
}

/// Who has one IPv6 address commonly has all of its /64.
fn group(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(v6) if !v6.is_loopback() => IpAddr::V6((u128::from(v6) >> 64 << 64).into()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn oldest_guest_leaves_for_the_newest_and_the_proven_stay() {
        let guests = Guests::new(2);
        let first = guests.admit();
        first.prove();
        let second = guests.admit();
        let third = guests.admit();
        let fourth = guests.admit();
        let gone = |guest: &Guest| guest.evicted.is_cancelled();
        assert_eq!(
            [gone(&first), gone(&second), gone(&third), gone(&fourth)],
            [false, true, false, false]
        );
        drop(third);
        let _fifth = guests.admit();
        assert!(!gone(&fourth));
        guests.evict_oldest();
        assert!(gone(&fourth));
    }

    #[test]
    fn one_address_has_a_bounded_number_of_places_and_loopback_is_exempt() {
        let addresses = Addresses::new(2);
        let place = |ip: &str| addresses.place(ip.parse().unwrap());
        let kept = (
            place("10.0.0.1").unwrap(),
            place("::ffff:10.0.0.1").unwrap(),
        );
        assert!(place("10.0.0.1").is_none());
        assert!(place("10.0.0.2").is_some());
        drop(kept);
        assert!(place("10.0.0.1").is_some());
        let _kept = (place("2001:db8::1").unwrap(), place("2001:db8::2").unwrap());
        assert!(place("2001:db8::3").is_none());
        assert!(place("2001:db8:0:1::3").is_some());
        let local: Vec<_> = (0..10).map(|_| place("127.0.0.1")).collect();
        assert!(local.iter().all(Option::is_some));
    }
}
