//! Listeners that are in each other's way. Source: spec/gateway-api.md §3.6.

use std::collections::BTreeMap;

use model::gateway::{Defect, ListenerProtocol};

use super::Candidate;

/// Which listeners cannot be told apart from one before them. The first one stays, and one that
/// is out of it is in nobody's way.
pub(super) fn of(candidates: &[Candidate<'_>]) -> Vec<Option<Defect>> {
    let mut kept = Kept::default();
    candidates.iter().map(|one| kept.take(one)).collect()
}

/// What connections to a port are told apart by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Mark<'a> {
    /// Nothing: all of them are meant.
    Bytes,
    /// A host, whichever.
    AnyHost,
    /// This host.
    Host(&'a str),
    /// The protocol.
    Protocol(&'a ListenerProtocol),
}

/// The listeners that stay, by what their connections are told apart by. Each is looked for in
/// two places, however many there are.
#[derive(Default)]
struct Kept<'a> {
    by_mark: BTreeMap<(u16, Mark<'a>), &'a Candidate<'a>>,
    #[cfg(test)]
    looks: usize,
}

impl<'a> Kept<'a> {
    fn take(&mut self, one: &'a Candidate<'a>) -> Option<Defect> {
        let (stands, avoids) = if is_l4(one) {
            ([Mark::Bytes, Mark::Bytes], [Mark::Bytes, Mark::AnyHost])
        } else if is_l7(one) {
            let host = Mark::Host(host(one));
            ([Mark::AnyHost, host.clone()], [Mark::Bytes, host])
        } else {
            let protocol = || Mark::Protocol(&one.protocol);
            ([protocol(), protocol()], [protocol(), protocol()])
        };
        for mark in avoids {
            if let Some(other) = self.at(one.port, mark) {
                return Some(conflict(other, one));
            }
        }
        for mark in stands {
            self.by_mark.entry((one.port, mark)).or_insert(one);
        }
        None
    }

    fn at(&mut self, port: u16, mark: Mark<'a>) -> Option<&'a Candidate<'a>> {
        #[cfg(test)]
        {
            self.looks += 1;
        }
        self.by_mark.get(&(port, mark)).copied()
    }
}

fn conflict(other: &Candidate<'_>, one: &Candidate<'_>) -> Defect {
    let port = one.port;
    if is_l4(one) || other.protocol != one.protocol {
        let message = arcstr::format!(
            "Port {port} has {} already, by listener {}",
            other.protocol,
            other.shown()
        );
        return Defect::new("ProtocolConflict", message);
    }
    let message = arcstr::format!(
        "Port {port} has hostname {} already, by listener {}",
        host(other),
        other.shown()
    );
    Defect::new("HostnameConflict", message)
}

fn is_l4(one: &Candidate<'_>) -> bool {
    match &one.protocol {
        ListenerProtocol::Tcp => true,
        ListenerProtocol::Other(word) => word == "UDP",
        _ => false,
    }
}

fn is_l7(one: &Candidate<'_>) -> bool {
    use ListenerProtocol::{Http, Https, Tls};
    matches!(one.protocol, Http | Https | Tls)
}

fn host<'a>(one: &'a Candidate<'_>) -> &'a str {
    one.listener.hostname.as_deref().unwrap_or("*")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use model::input::Listener;
    use model::{Kind, ObjectKey};

    use super::*;

    fn listener(name: String, protocol: &str, port: u16, host: Option<String>) -> Listener {
        Listener {
            name: name.into(),
            protocol: protocol.into(),
            port,
            hostname: host.map(Into::into),
            ..Listener::default()
        }
    }

    /// Whether connections to both can be told apart.
    fn are_distinct(a: &Candidate<'_>, b: &Candidate<'_>) -> bool {
        match (is_l4(a), is_l4(b)) {
            _ if a.port != b.port => true,
            (true, true) => false,
            (true, false) => !is_l7(b),
            (false, true) => !is_l7(a),
            (false, false) if is_l7(a) && is_l7(b) => host(a) != host(b),
            (false, false) => a.protocol != b.protocol,
        }
    }

    #[test]
    fn each_is_looked_for_in_two_places_however_many_there_are() {
        let key = ObjectKey::new("shop", "door");
        let sets: Vec<Vec<Listener>> = (0..100)
            .map(|set| {
                let one = |at: u16| {
                    // Every other one is in the way of that of the set before.
                    let host = if at.is_multiple_of(2) { 0 } else { set };
                    let host = format!("{at}.{host}.example.com");
                    listener(at.to_string(), "HTTPS", 443, Some(host))
                };
                (0..64).map(one).collect()
            })
            .collect();
        let all: Vec<Candidate<'_>> = sets
            .iter()
            .flat_map(|set| Candidate::all(Kind::ListenerSet, &key, set))
            .collect();
        let mut kept = Kept::default();
        let found: Vec<_> = all.iter().map(|one| kept.take(one)).collect();
        let conflicts = found.iter().flatten().count();
        assert_eq!((all.len(), conflicts), (6_400, 99 * 32));
        assert!(kept.looks <= 2 * all.len(), "{}", kept.looks);
    }

    #[test]
    fn the_first_of_those_that_cannot_be_told_apart_stays_as_comparing_all_would_have_it() {
        let protocols = ["HTTP", "HTTPS", "TLS", "TCP", "UDP", "HBONE", "SCTP"];
        let hosts = [None, Some("a.com"), Some("b.com")];
        let mut listeners = Vec::new();
        // A fixed shuffle: three takes of every protocol, host and port.
        for at in 0..3 * protocols.len() * hosts.len() * 2 {
            let pick = at * 37 + at / 7;
            let host = hosts[pick % 3].map(str::to_owned);
            let port = 80 + u16::try_from(pick / 3 % 2).unwrap();
            let protocol = protocols[(pick / 5) % protocols.len()];
            listeners.push(listener(at.to_string(), protocol, port, host));
        }
        let key = ObjectKey::new("shop", "door");
        for start in 0..listeners.len() {
            let all = Candidate::all(Kind::Gateway, &key, &listeners[start..]);
            let mut kept: Vec<&Candidate<'_>> = Vec::new();
            let expected: Vec<Option<Defect>> = all
                .iter()
                .map(|one| {
                    let other = kept.iter().find(|other| !are_distinct(other, one));
                    let defect = other.map(|other| conflict(other, one));
                    if defect.is_none() {
                        kept.push(one);
                    }
                    defect
                })
                .collect();
            assert_eq!(of(&all), expected, "from {start}");
        }
    }
}
