//! Listeners that are in each other's way. Source: spec/gateway-api.md §3.6.

use model::gateway::{Defect, ListenerProtocol};

use super::Candidate;

/// Which listeners cannot be told apart from one before them. The first one stays, and one that
/// is out of it is in nobody's way.
pub(super) fn of(candidates: &[Candidate<'_>]) -> Vec<Option<Defect>> {
    let mut kept: Vec<&Candidate<'_>> = Vec::new();
    candidates
        .iter()
        .map(|one| {
            let other = kept.iter().find(|other| !are_distinct(other, one));
            let defect = other.map(|other| conflict(other, one));
            if defect.is_none() {
                kept.push(one);
            }
            defect
        })
        .collect()
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

/// Whether connections to both can be told apart.
fn are_distinct(a: &Candidate<'_>, b: &Candidate<'_>) -> bool {
    if a.port != b.port {
        return true;
    }
    match (is_l4(a), is_l4(b)) {
        (true, true) => false,
        (true, false) => !is_l7(b),
        (false, true) => !is_l7(a),
        (false, false) if is_l7(a) && is_l7(b) => host(a) != host(b),
        (false, false) => a.protocol != b.protocol,
    }
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
