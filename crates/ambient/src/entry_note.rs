//! What of a ServiceEntry does not do what it says.
//!
//! Kubernetes refuses some shapes that files can hold; here they have the effect that their
//! finding names. Source: spec/policy-and-traffic.md §8, §9.4, §10.6.

use model::derived::{AppProtocol, NeedsWaypoint};
use model::input::{Resolution, ServiceEntry};
use model::{Finding, Kind, ObjectKey, ObjectRef, ServiceRow, Severity, Str};

use crate::protocol;
use crate::service::{is_wildcard, parse_vip};
use crate::tables::{error, warning};

/// What the hosts, endpoints and ports of an entry get wrong among themselves.
pub(crate) fn of_entry(key: &ObjectKey, entry: &ServiceEntry) -> Vec<Finding> {
    let object = ObjectRef::new(Kind::ServiceEntry, key.clone());
    let refused = |field: String, what: String, fix: &str| {
        let what = format!("{what}; Kubernetes would refuse this entry");
        warning("se-not-admissible", object.clone(), what, fix).at(field)
    };
    let mut notes = Vec::new();
    shape(entry, &mut |field: &str, what: &str, fix: &str| {
        notes.push(refused(field.to_owned(), what.to_owned(), fix));
    });
    let by_ip = matches!(entry.resolution, Resolution::None | Resolution::Static);
    if !by_ip {
        let is_block = |text: &Str| parse_vip(text).is_some_and(|(_, prefix)| prefix.is_some());
        for (i, text) in entry.addresses.iter().enumerate() {
            if is_block(text) {
                let what = format!(
                    "{text} is a block, and whatever is sent to it goes to what the host resolves to"
                );
                let fix = "Use single addresses, or resolution NONE or STATIC";
                notes.push(refused(format!("spec.addresses[{i}]"), what, fix));
            }
        }
    }
    for (i, endpoint) in entry.endpoints.iter().enumerate() {
        let address = &endpoint.address;
        if address.starts_with("unix:") {
            let note = error(
                "se-endpoint-unusable",
                object.clone(),
                format!(
                    "ztunnel cannot connect to the socket {address}; the endpoint gets no traffic"
                ),
                "Use an endpoint with an IP address",
            );
            notes.push(note.at(format!("spec.endpoints[{i}].address")));
        } else if entry.resolution == Resolution::Static
            && address.parse::<std::net::IpAddr>().is_err()
        {
            let what = format!("{address:?} is no IP address, and is resolved all the same");
            let fix = "Use an IP address, or resolution DNS";
            notes.push(refused(format!("spec.endpoints[{i}].address"), what, fix));
        }
    }
    let is_static = entry.resolution == Resolution::Static;
    if is_static && entry.endpoints.is_empty() && entry.selector.is_none() {
        let note = error(
            "se-no-endpoints",
            object.clone(),
            "Resolution STATIC without endpoints: connections to the hosts fail",
            "Add endpoints or a workloadSelector, or use resolution DNS",
        );
        notes.push(note.at("spec.endpoints"));
    }
    notes.extend(protocols(&object, entry));
    notes
}

/// Parts that exclude each other.
fn shape(entry: &ServiceEntry, refuse: &mut dyn FnMut(&str, &str, &str)) {
    let has_endpoints = !entry.endpoints.is_empty();
    if has_endpoints && entry.selector.is_some() {
        refuse(
            "spec.workloadSelector",
            "Both the endpoints and the workloads that the selector finds are used",
            "Keep either endpoints or workloadSelector",
        );
    }
    if entry.selector.as_ref().is_some_and(|all| all.is_empty()) {
        refuse(
            "spec.workloadSelector",
            "An empty selector selects no workload",
            "Name labels, or remove the selector",
        );
    }
    if has_endpoints && entry.resolution == Resolution::None {
        refuse(
            "spec.endpoints",
            "With resolution NONE traffic goes to the address that the client chose and the endpoints are unused",
            "Use resolution STATIC or DNS, or remove the endpoints",
        );
    }
    if entry.resolution == Resolution::DnsRoundRobin && entry.endpoints.len() > 1 {
        refuse(
            "spec.endpoints",
            "DNS_ROUND_ROBIN takes one endpoint; ztunnel uses all of them",
            "Keep one endpoint, or use resolution DNS",
        );
    }
    if entry.resolution == Resolution::DynamicDns {
        if has_endpoints || !entry.addresses.is_empty() {
            refuse(
                "spec.resolution",
                "DYNAMIC_DNS takes neither addresses nor endpoints",
                "Remove them, or use resolution DNS",
            );
        }
        if let Some(i) = entry.hosts.iter().position(|host| !is_wildcard(host)) {
            refuse(
                &format!("spec.hosts[{i}]"),
                "DYNAMIC_DNS is for wildcard hosts",
                "Use resolution DNS for this host",
            );
        }
    }
    if let Some(i) = entry.hosts.iter().position(|host| host == "*") {
        refuse(
            &format!("spec.hosts[{i}]"),
            "The host * stands for every host and ztunnel matches it to names of one label only",
            "Name a domain",
        );
    }
}

/// Protocol words that nobody knows, and port names that say something else.
fn protocols<'a>(
    object: &'a ObjectRef,
    entry: &'a ServiceEntry,
) -> impl Iterator<Item = Finding> + 'a {
    entry.ports.iter().enumerate().filter_map(|(i, port)| {
        if !port.protocol.is_empty() && !protocol::is_known(&port.protocol) {
            let note = warning(
                "se-protocol",
                object.clone(),
                format!(
                    "{:?} is no protocol: the port is treated as if none were declared",
                    port.protocol
                ),
                "Use HTTP, HTTP2, GRPC, HTTPS, TLS, TCP or another word of the API",
            );
            return Some(note.at(format!("spec.ports[{i}].protocol")));
        }
        let named = protocol::of_name(&port.name)?;
        let declared = protocol::of_entry_port(&port.protocol);
        (class(named.app) != class(declared.app)).then(|| {
            let note = warning(
                "se-protocol",
                object.clone(),
                format!(
                    "The port is named {:?} but declared {:?}; what is declared counts",
                    port.name, port.protocol
                ),
                "Make protocol and name agree",
            );
            note.at(format!("spec.ports[{i}].protocol"))
        })
    })
}

/// What a protocol means to a waypoint: whether it reads requests, forwards bytes, or guesses.
fn class(app: AppProtocol) -> (bool, bool) {
    (app.is_http(), app.is_tcp())
}

/// What a host of an entry does not get. At most one finding, the one that explains the most.
pub(crate) fn of_service(row: &ServiceRow) -> Option<Finding> {
    if row.source.kind != Kind::ServiceEntry.as_str() {
        return None;
    }
    let host = &row.key.hostname;
    let object = || row.source.clone();
    if row.waypoint.is_none() && row.needs_waypoint == Some(NeedsWaypoint::RacingConnect) {
        let what = format!(
            "No waypoint is bound to {host}, and only a waypoint follows istio.io/connect-strategy: ztunnel takes any one of its addresses"
        );
        let fix = "Bind the entry to a waypoint with istio.io/use-waypoint";
        let note = warning("se-needs-waypoint", object(), what, fix);
        return Some(note.at("metadata.annotations[istio.io/connect-strategy]"));
    }
    if is_wildcard(host) {
        return wildcard(row);
    }
    if !row.vips.is_empty() {
        return None;
    }
    let is_none = row.resolution == Resolution::None;
    if let Some(waypoint) = row.waypoint.as_ref().filter(|_| is_none) {
        let what = format!(
            "{host} has resolution NONE and no address by which its traffic could be known: it does not pass waypoint {}",
            waypoint.key
        );
        let fix = "Set addresses, or resolution DNS";
        let note = error("se-passthrough-policy", object(), what, fix);
        return Some(note.at("spec.addresses"));
    }
    let fix = if is_none {
        "Set addresses, or resolution DNS"
    } else {
        "Set addresses, or allow automatic ones"
    };
    let what = format!(
        "{host} has no address: ztunnel cannot tell its traffic from any other and lets it through unmanaged"
    );
    let note = warning("se-tcp-no-address", object(), what, fix);
    Some(note.at("spec.addresses"))
}

fn wildcard(row: &ServiceRow) -> Option<Finding> {
    let host = &row.key.hostname;
    let is_dynamic = row.resolution == Resolution::DynamicDns;
    let what = if is_dynamic && row.waypoint.is_none() {
        format!(
            "No waypoint is bound to {host}, and only a waypoint can tell which host is meant: it is not reached"
        )
    } else if !is_dynamic && row.vips.is_empty() {
        format!("{host} is a wildcard without addresses, so no traffic is matched to it")
    } else {
        return None;
    };
    let fix = "Use resolution DYNAMIC_DNS and bind the entry to a waypoint";
    let note = warning("se-wildcard-no-waypoint", row.source.clone(), what, fix);
    Some(note.at("spec.hosts"))
}

/// An entry that mesh config hides from everybody.
pub(crate) fn hidden(key: &ObjectKey) -> Finding {
    Finding::new(
        "se-hidden",
        Severity::Info,
        ObjectRef::new(Kind::ServiceEntry, key.clone()),
        "serviceEntryVisibility of the mesh config hides the entries of this namespace: it has no effect",
        "Ask whoever runs the mesh, or move the entry",
    )
}
