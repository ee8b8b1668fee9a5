//! Stage `service`: host → [`ServiceRow`] of the claim that wins it.
//!
//! Within a namespace a Service beats ServiceEntries and the older ServiceEntry beats the
//! younger. Over all namespaces the same order makes one of them canonical.
//! Source: spec/workload-discovery.md §3.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use flow::{Output, Reads, View};
use model::derived::{Distribution, NeedsWaypoint, PortRow, Vip, Visibility};
use model::input::{
    EntryPort, Resolution, Service, ServiceEntry, ServicePort, TargetPort, Transport,
};
use model::labels::{
    ANNOTATION_CONNECT_STRATEGY, ANNOTATION_EXPORT_TO, CONNECT_STRATEGY_RACE,
    LABEL_PERSISTENT_SESSION,
};
use model::{Finding, Meta, NamespacedHostname, Parsed, ServiceRow, Str};

use crate::allocation::{AllocationRow, AllocationTable};
use crate::claim::{ClaimKey, ClaimRow, ClaimTable, ClaimsByHost, ClaimsByHostname, ServiceSource};
use crate::entry_note;
use crate::protocol::{self, Protocols};
use crate::selector::{self, SelectorAt};
use crate::tables::{self, InputView, MeshTable, warning};

/// The tracked view of service rows.
pub type ServiceTable<'t> = View<'t, NamespacedHostname, ServiceRow>;

/// Index of services by the place of their selector; those that select nothing are absent.
#[derive(Clone, Copy, Debug)]
pub struct ServicesBySelector;

impl flow::Index<NamespacedHostname, ServiceRow> for ServicesBySelector {
    type At = SelectorAt;

    fn keys(key: &NamespacedHostname, row: &ServiceRow, emit: &mut dyn FnMut(&SelectorAt)) {
        if let Some(selector) = row
            .selector
            .as_ref()
            .filter(|selector| !selector.is_empty())
        {
            emit(&selector::place(&key.ns, selector));
        }
    }
}

/// What the stage reads.
#[derive(Clone, Copy)]
pub struct ServiceView<'t> {
    /// Claims, with indexes [`ClaimsByHost`] and [`ClaimsByHostname`].
    pub claims: ClaimTable<'t>,
    /// Services.
    pub services: InputView<'t, Service>,
    /// ServiceEntries.
    pub service_entries: InputView<'t, ServiceEntry>,
    /// Addresses that entries were given.
    pub allocations: AllocationTable<'t>,
    /// The mesh row.
    pub mesh: MeshTable<'t>,
}

/// The primary key that a changed claim concerns.
pub fn primary(claim: &ClaimKey) -> NamespacedHostname {
    claim.0.clone()
}

/// The service of a host.
pub fn derive(
    host: &NamespacedHostname,
    view: &ServiceView<'_>,
    reads: &mut Reads,
) -> Output<NamespacedHostname, ServiceRow, Finding> {
    let mut claims: Vec<_> = view.claims.by::<ClaimsByHost>(reads, host).collect();
    claims.sort_by_key(|(key, row)| precedence(key, row));
    let Some(((winner, row), losers)) = claims
        .split_first()
        .map(|(&(key, row), losers)| ((key, row), losers))
    else {
        return Output::gone();
    };
    let of_host: Vec<_> = view
        .claims
        .by::<ClaimsByHostname>(reads, &host.hostname)
        .collect();
    let first = |public: bool| {
        let all = of_host.iter().copied();
        all.filter(|(_, row)| !public || row.visibility == Visibility::Public)
            .min_by_key(|(key, row)| precedence(key, row))
            .is_some_and(|(best, _)| best == winner)
    };
    let (canonical, first_of_host) = (first(true), first(false));
    let mesh = tables::mesh(view.mesh, reads);
    let network = mesh.network.clone();
    let facts = Facts {
        host,
        source: &winner.1,
        claim: row,
        canonical,
        first_of_host,
        network: &network,
        default_export_to: &mesh.traffic.service_export_to,
    };
    let service = match &winner.1 {
        ServiceSource::Service(key) => view
            .services
            .get(reads, key)
            .and_then(|object| facts.service(object)),
        ServiceSource::ServiceEntry(key) => {
            let allocation = view.allocations.get(reads, key).map(Arc::as_ref);
            let object = view.service_entries.get(reads, key);
            object.and_then(|object| facts.entry(object, allocation))
        }
    };
    let mut notes: Vec<Finding> = losers
        .iter()
        .map(|(key, _)| duplicate(host, &key.1, &winner.1))
        .collect();
    notes.extend(service.as_ref().and_then(entry_note::of_service));
    let rows = service.into_iter().map(|service| (host.clone(), service));
    Output::new(rows.collect(), notes)
}

/// Sort key of claims to one host name, the winner first.
fn precedence<'a>(key: &'a ClaimKey, row: &ClaimRow) -> (bool, i64, &'a ClaimKey) {
    let is_entry = matches!(key.1, ServiceSource::ServiceEntry(_));
    (is_entry, row.created_s.unwrap_or(i64::MAX), key)
}

fn duplicate(host: &NamespacedHostname, loser: &ServiceSource, winner: &ServiceSource) -> Finding {
    let owner = winner.object_ref();
    warning(
        "se-duplicate-host",
        loser.object_ref(),
        format!(
            "{} is already provided by {} {}; ports and endpoints of this entry are unused for it",
            host.hostname, owner.kind, owner.key
        ),
        "Remove the host from one of them",
    )
    .at("spec.hosts")
}

/// Annotation `networking.istio.io/exportTo`: names separated by commas.
fn annotated_export_to(object: &Parsed<Service>) -> Vec<Str> {
    let text = object.meta.annotation(ANNOTATION_EXPORT_TO);
    let words = text.into_iter().flat_map(|text| text.split(','));
    words
        .map(str::trim)
        .filter(|word| !word.is_empty())
        .map(Str::from)
        .collect()
}

/// Whether sessions of an object stick to their endpoints. The value of the label names the
/// cookie, so any value says yes.
fn is_sticky(meta: &Meta) -> bool {
    meta.labels.contains_key(LABEL_PERSISTENT_SESSION)
}

/// What the rows of both sources share.
struct Facts<'a> {
    host: &'a NamespacedHostname,
    source: &'a ServiceSource,
    claim: &'a ClaimRow,
    canonical: bool,
    first_of_host: bool,
    network: &'a Str,
    default_export_to: &'a [Str],
}

// === impl Facts ===

impl Facts<'_> {
    fn service(&self, object: &Parsed<Service>) -> Option<ServiceRow> {
        let service = object.ok()?;
        let vips = service.cluster_ips.iter().map(|ip| self.vip(*ip, None));
        Some(ServiceRow {
            vips: vips.collect(),
            ports: service.ports.iter().map(service_port).collect(),
            selector: Some(service.selector.clone()).filter(|selector| !selector.is_empty()),
            resolution: Resolution::Static,
            external: false,
            publish_not_ready: service.publish_not_ready,
            persistent_session: is_sticky(&object.meta),
            ip_families: service.ip_families.clone(),
            export_to: self.export_to(&annotated_export_to(object)),
            ..self.common()
        })
    }

    fn entry(
        &self,
        object: &Parsed<ServiceEntry>,
        allocation: Option<&AllocationRow>,
    ) -> Option<ServiceRow> {
        let entry = object.ok()?;
        Some(ServiceRow {
            vips: self.entry_vips(entry, allocation),
            needs_waypoint: self.needs_waypoint(object),
            ports: entry.ports.iter().map(entry_port).collect(),
            selector: entry.selector.clone(),
            resolution: entry.resolution,
            external: entry.external,
            subject_alt_names: entry.subject_alt_names.clone(),
            persistent_session: is_sticky(&object.meta),
            export_to: self.export_to(&entry.export_to),
            ..self.common()
        })
    }

    fn export_to(&self, written: &[Str]) -> Vec<Str> {
        if written.is_empty() {
            self.default_export_to.to_vec()
        } else {
            written.to_vec()
        }
    }

    fn common(&self) -> ServiceRow {
        ServiceRow {
            key: self.host.clone(),
            source: self.source.object_ref(),
            name: self.source.key().name.clone(),
            created_s: self.claim.created_s,
            vips: Vec::new(),
            ports: Vec::new(),
            selector: None,
            resolution: Resolution::Static,
            external: false,
            waypoint: self.claim.attachment.bound.clone(),
            blocked: self.claim.attachment.blocked.clone(),
            weighted_waypoints: self.claim.attachment.weighted(),
            visibility: self.claim.visibility,
            needs_waypoint: None,
            ingress_use_waypoint: self.claim.ingress_use_waypoint,
            distribution: self.claim.distribution,
            publish_not_ready: false,
            persistent_session: false,
            ip_families: Vec::new(),
            subject_alt_names: Vec::new(),
            export_to: self.default_export_to.to_vec(),
            canonical: self.canonical,
            first_of_host: self.first_of_host,
            is_global: self.claim.is_global,
        }
    }

    fn vip(&self, ip: IpAddr, prefix: Option<u8>) -> Vip {
        Vip {
            network: self.network.clone(),
            ip,
            prefix,
        }
    }

    /// The addresses written, else those allocated for this host.
    fn entry_vips(&self, entry: &ServiceEntry, allocation: Option<&AllocationRow>) -> Vec<Vip> {
        if !entry.addresses.is_empty() {
            let written = entry.addresses.iter().filter_map(|text| parse_vip(text));
            return written.map(|(ip, prefix)| self.vip(ip, prefix)).collect();
        }
        let given = allocation.map(|row| row.of(&self.host.hostname));
        let given = given.unwrap_or_default().iter();
        given.map(|ip| self.vip(*ip, None)).collect()
    }

    fn needs_waypoint(&self, object: &Parsed<ServiceEntry>) -> Option<NeedsWaypoint> {
        let strategy = object.meta.annotation(ANNOTATION_CONNECT_STRATEGY);
        if strategy.is_some_and(|word| word.eq_ignore_ascii_case(CONNECT_STRATEGY_RACE)) {
            return Some(NeedsWaypoint::RacingConnect);
        }
        is_wildcard(&self.host.hostname).then_some(NeedsWaypoint::Wildcard)
    }
}

/// Whether a host stands for many.
pub(crate) fn is_wildcard(host: &str) -> bool {
    host.starts_with('*')
}

fn service_port(port: &ServicePort) -> PortRow {
    let app_protocol = port.app_protocol.as_ref().map(Str::as_str);
    let Protocols { app, wds } =
        protocol::of_service_port(port.transport, app_protocol, &port.name, port.port);
    PortRow {
        name: port.name.clone(),
        port: port.port,
        target: port.target.clone(),
        transport: port.transport,
        protocol: app,
        wds_protocol: wds,
    }
}

fn entry_port(port: &EntryPort) -> PortRow {
    let Protocols { app, wds } = protocol::of_entry_port(&port.protocol);
    let is_udp = port.protocol.eq_ignore_ascii_case("udp");
    PortRow {
        name: port.name.clone(),
        port: port.number,
        target: TargetPort::Number(port.target.unwrap_or(port.number)),
        transport: if is_udp {
            Transport::Udp
        } else {
            Transport::Tcp
        },
        protocol: app,
        wds_protocol: wds,
    }
}

/// An IP, or the masked base and prefix length of a CIDR; a full-length prefix is a host.
pub(crate) fn parse_vip(text: &str) -> Option<(IpAddr, Option<u8>)> {
    let (base, prefix) = parse_block(text)?;
    let host_bits = u32::from(bits_max(base) - prefix);
    let masked = match base {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(host_bits).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(ip.to_bits() & mask))
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & mask))
        }
    };
    Some((masked, Some(prefix).filter(|_| host_bits > 0)))
}

/// An IP with its full length, or a CIDR with its base as written.
pub(crate) fn parse_block(text: &str) -> Option<(IpAddr, u8)> {
    let Some((base, prefix)) = text.split_once('/') else {
        let ip: IpAddr = text.parse().ok()?;
        return Some((ip, bits_max(ip)));
    };
    let base: IpAddr = base.parse().ok()?;
    let digits = prefix.bytes().all(|byte| byte.is_ascii_digit());
    let prefix: u8 = prefix.parse().ok().filter(|_| digits)?;
    (prefix <= bits_max(base)).then_some((base, prefix))
}

fn bits_max(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

/// Whether endpoints of the service are kept whatever their health.
pub(crate) fn allows_all_health(row: &ServiceRow) -> bool {
    row.publish_not_ready || row.distribution == Distribution::Passthrough
}
