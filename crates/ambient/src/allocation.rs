//! Stages `allocation_claim` and `allocation`: addresses for hosts of ServiceEntries that have
//! none.
//!
//! The first is a projection: what of one ServiceEntry matters here. Nothing else of it, and no
//! other kind of object, makes the second run. The second has one primary, for every address that
//! is taken narrows what the others can get; its rows are per ServiceEntry, so that only entries
//! whose addresses changed go on.
//!
//! Who gets what, a function of the entries alone:
//! 1. addresses that users wrote are taken;
//! 2. an entry keeps those of its status, unless one of them is taken by a user or by an older
//!    entry; then it moves, with all its hosts;
//! 3. the other hosts, those of the oldest entry first, take the next free address at or after a
//!    place that the hash of namespace, name and host gives.
//!
//! So an entry moves only for a user's address or an older entry, and mostly for neither, also
//! where no status is kept. Source: spec/workload-discovery.md §3.4.

mod range;

use std::collections::BTreeSet;
use std::net::IpAddr;

use flow::{Output, Reads, View};
use model::derived::Features;
use model::input::{Resolution, ServiceEntry};
use model::{Finding, Kind, ObjectKey, ObjectRef, Parsed, Str};
use xxhash_rust::xxh64::Xxh64;

use crate::keys;
use crate::service::{is_wildcard, parse_block};
use crate::tables::{self, InputView, MeshTable, error};
use range::Range;

/// What of a ServiceEntry decides about addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllocationClaim {
    /// Creation time.
    pub created_s: Option<i64>,
    /// Hosts that get addresses: distinct, in the order of the spec.
    pub hosts: Vec<Str>,
    /// Addresses and blocks that the user wrote, as base and prefix length.
    pub written: Vec<(IpAddr, u8)>,
    /// `status.addresses` as it stands: value and host.
    pub status: Vec<(Str, Str)>,
}

/// The tracked view of claims.
pub type AllocationClaimTable<'t> = View<'t, ObjectKey, AllocationClaim>;

/// The addresses of one ServiceEntry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllocationRow {
    /// Hosts in the order of the spec with their addresses, IPv4 first; empty for one that is not
    /// eligible.
    pub hosts: Vec<(Str, Vec<IpAddr>)>,
    /// What `status.addresses` is to hold: value and host. Equal to what it holds when there is
    /// nothing to write; empty when what it holds must go.
    pub status: Vec<(Str, Str)>,
}

impl AllocationRow {
    /// Addresses of a host.
    pub fn of(&self, host: &str) -> &[IpAddr] {
        let found = self.hosts.iter().find(|(other, _)| other == host);
        found.map(|(_, ips)| ips.as_slice()).unwrap_or_default()
    }
}

/// The tracked view of allocations. An entry without a row has no address of this kind, and
/// nothing of them is to be written.
pub type AllocationTable<'t> = View<'t, ObjectKey, AllocationRow>;

/// What stage `allocation_claim` reads.
#[derive(Clone, Copy)]
pub struct AllocationClaimView<'t> {
    /// ServiceEntries.
    pub service_entries: InputView<'t, ServiceEntry>,
    /// The mesh row.
    pub mesh: MeshTable<'t>,
}

/// The claim of a ServiceEntry; no row when it neither wants, writes nor holds addresses.
pub fn claim(
    key: &ObjectKey,
    view: &AllocationClaimView<'_>,
    reads: &mut Reads,
) -> Output<ObjectKey, AllocationClaim, Finding> {
    let Some(object) = view.service_entries.get(reads, key) else {
        return Output::gone();
    };
    let Ok(entry) = &object.body else {
        return Output::none();
    };
    if !tables::mesh(view.mesh, reads).features.ip_autoallocate {
        return Output::none();
    }
    let row = AllocationClaim {
        created_s: object.meta.created_s,
        hosts: eligible_hosts(object, entry),
        written: entry
            .addresses
            .iter()
            .filter_map(|text| parse_block(text))
            .collect(),
        status: entry.allocated.clone(),
    };
    if row.hosts.is_empty() && row.written.is_empty() && row.status.is_empty() {
        return Output::none();
    }
    Output::one(key.clone(), row)
}

fn eligible_hosts(object: &Parsed<ServiceEntry>, entry: &ServiceEntry) -> Vec<Str> {
    let is_refused = object
        .meta
        .label(keys::LABEL_AUTOALLOCATE)
        .is_some_and(|value| value.eq_ignore_ascii_case("false"));
    if is_refused || entry.resolution == Resolution::None || !entry.addresses.is_empty() {
        return Vec::new();
    }
    let mut seen = BTreeSet::new();
    let hosts = entry.hosts.iter().filter(|host| {
        (!is_wildcard(host) || entry.resolution == Resolution::DynamicDns) && seen.insert(*host)
    });
    hosts.cloned().collect()
}

/// What stage `allocation` reads.
#[derive(Clone, Copy)]
pub struct AllocationView<'t> {
    /// Claims.
    pub claims: AllocationClaimTable<'t>,
    /// The mesh row.
    pub mesh: MeshTable<'t>,
}

/// The addresses of every ServiceEntry that wants some, or holds some that it must not.
pub fn derive(
    _: &(),
    view: &AllocationView<'_>,
    reads: &mut Reads,
) -> Output<ObjectKey, AllocationRow, Finding> {
    let features = tables::mesh(view.mesh, reads).features;
    let mut claims: Vec<_> = view.claims.scan(reads).collect();
    claims.sort_by_key(|(key, claim)| (claim.created_s.unwrap_or(i64::MAX), *key));
    let mut pool = Pool::new(&features);
    for (_, claim) in &claims {
        for (base, prefix) in &claim.written {
            pool.occupy(*base, *prefix);
        }
    }
    let kept: Vec<_> = claims
        .iter()
        .map(|(_, claim)| keep(claim, &mut pool))
        .collect();
    let mut notes = Vec::new();
    let mut rows = Vec::new();
    for ((key, claim), kept) in claims.into_iter().zip(kept) {
        if claim.hosts.is_empty() && claim.status.is_empty() {
            continue;
        }
        let hosts: Vec<_> = (claim.hosts.iter().zip(kept))
            .map(|(host, kept)| {
                if !kept.is_empty() {
                    return (host.clone(), kept);
                }
                let ips = pool.take(key, host);
                notes.extend(exhausted(key, host, &ips, &features));
                (host.clone(), ips)
            })
            .collect();
        let status = status(claim, &hosts);
        rows.push((key.clone(), AllocationRow { hosts, status }));
    }
    Output::new(rows, notes)
}

/// What each host keeps of the status: everything, unless one address is taken.
fn keep(claim: &AllocationClaim, pool: &mut Pool) -> Vec<Vec<IpAddr>> {
    let of_host = |host: &Str| -> Vec<IpAddr> {
        let own = claim.status.iter().filter(|(_, of)| of == host);
        let ips: BTreeSet<IpAddr> = own
            .filter_map(|(value, _)| Some(value.parse::<IpAddr>().ok()?.to_canonical()))
            .collect();
        ips.into_iter().collect()
    };
    let kept: Vec<Vec<IpAddr>> = claim.hosts.iter().map(of_host).collect();
    let all: Vec<IpAddr> = kept.iter().flatten().copied().collect();
    let distinct = all.iter().collect::<BTreeSet<_>>().len() == all.len();
    if !distinct || all.iter().any(|ip| pool.is_taken(*ip)) {
        return vec![Vec::new(); claim.hosts.len()];
    }
    for ip in all {
        pool.occupy(ip, if ip.is_ipv4() { 32 } else { 128 });
    }
    kept
}

/// What is to be written: the status as it is if it says the same of the same hosts.
fn status(claim: &AllocationClaim, hosts: &[(Str, Vec<IpAddr>)]) -> Vec<(Str, Str)> {
    let says = |status: &[(Str, Str)]| -> BTreeSet<(Option<IpAddr>, Str)> {
        let pairs = status.iter();
        pairs
            .map(|(value, host)| {
                let ip = value.parse::<IpAddr>().ok();
                (ip.map(|ip| ip.to_canonical()), host.clone())
            })
            .collect()
    };
    let pairs = hosts.iter().flat_map(|(host, ips)| {
        ips.iter()
            .map(|ip| (Str::from(ip.to_string()), host.clone()))
    });
    let wanted: Vec<(Str, Str)> = pairs.collect();
    if says(&claim.status) == says(&wanted) {
        return claim.status.clone();
    }
    wanted
}

fn exhausted(key: &ObjectKey, host: &Str, ips: &[IpAddr], features: &Features) -> Option<Finding> {
    if !ips.is_empty() {
        return None;
    }
    let ((v4, v4_length), (v6, v6_length)) = (features.allocation_v4, features.allocation_v6);
    Some(
        error(
            "se-allocation-exhausted",
            ObjectRef::new(Kind::ServiceEntry, key.clone()),
            format!(
                "No address is free in {v4}/{v4_length} or {v6}/{v6_length} for {host}: clients reach it past the mesh"
            ),
            "Write addresses, or configure a larger range",
        )
        .at("spec.hosts"),
    )
}

/// Both ranges and what of them is taken, and what is taken outside.
struct Pool {
    v4: Range,
    v6: Range,
    outside: BTreeSet<IpAddr>,
}

// === impl Pool ===

impl Pool {
    fn new(features: &Features) -> Self {
        let (v4, v4_length) = features.allocation_v4;
        let (v6, v6_length) = features.allocation_v6;
        Self {
            v4: Range::new(IpAddr::V4(v4), v4_length),
            v6: Range::new(IpAddr::V6(v6), v6_length),
            outside: BTreeSet::new(),
        }
    }

    fn range(&mut self, ip: IpAddr) -> &mut Range {
        if ip.is_ipv4() {
            &mut self.v4
        } else {
            &mut self.v6
        }
    }

    fn is_taken(&mut self, ip: IpAddr) -> bool {
        self.range(ip).is_taken(ip) || self.outside.contains(&ip)
    }

    fn occupy(&mut self, base: IpAddr, prefix: u8) {
        self.range(base).occupy(base, prefix);
        self.outside.insert(base);
    }

    /// One address of each range that has one left.
    fn take(&mut self, key: &ObjectKey, host: &Str) -> Vec<IpAddr> {
        let hash = place(key, host);
        let taken = [self.v4.take(hash), self.v6.take(hash)];
        taken.into_iter().flatten().collect()
    }
}

/// Equal on every replica and after every restart. No part holds the separator.
fn place(key: &ObjectKey, host: &str) -> u64 {
    let mut hash = Xxh64::new(0);
    for part in [key.ns.as_str(), "\0", key.name.as_str(), "\0", host] {
        hash.update(part.as_bytes());
    }
    hash.digest()
}
