//! The listeners of a class of ingress gateways. Source: spec/envoy-config.md §6.1–§6.6.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use flow::{Output, Reads, View};
use model::gateway::{ListenerProtocol, ListenerRow, RouteParents, TlsMode, TlsRow};
use model::labels::{LABEL_GATEWAY_MANAGED, LABEL_GATEWAY_NAME};
use model::{
    Finding, GatewayRow, Kind, Labels, MeshRow, NamespacedHostname, ObjectKey, ProxyClass,
    ServiceRow, Severity, Str, WorkloadRow, WorkloadUid,
};

use super::servers::{self, Hosts, Ports, Served};
use super::{Gateways, ingress};
use crate::attachment::mesh_row;
use crate::authz::{self, Attached, Layer, Place};
use crate::index::{InstanceByNamespace, WorkloadByService};
use crate::ir::{
    ChainFilter, ClassResource, GatewayBody, GatewayChainIr, GatewayListenerIr, ListenerIr,
    Outbound, RouteAt, RouteAtIr, RouteBody, ServerTlsIr,
};
use crate::listeners::{CONNECT_ORIGINATE, ListenerView, bind, tls};
use gateway::index::RouteByListener;

/// Ports below this are for those alone whom the system lets bind them.
/// Source: spec/envoy-config.md §6.1.
const PRIVILEGED_PORTS_END: u16 = 1024;

/// Label of a Gateway's pods with its class.
const LABEL_GATEWAY_CLASS_NAME: &str = "gateway.networking.k8s.io/gateway-class-name";

/// What listeners of ingress gateways are made of, beside what waypoints need too.
#[derive(Clone, Copy)]
pub struct IngressTables<'t> {
    /// Gateways of ours.
    pub gateways: Gateways<'t>,
    /// Services.
    pub services: View<'t, NamespacedHostname, ServiceRow>,
    /// Workloads; indexes [`WorkloadByService`] and [`InstanceByNamespace`].
    pub workloads: View<'t, WorkloadUid, WorkloadRow>,
    /// What became of the parents of routes; index [`RouteByListener`].
    pub route_parents: View<'t, (Kind, ObjectKey), RouteParents>,
    /// What routes do.
    pub routes: View<'t, RouteAt, RouteAtIr>,
}

/// A listener for each port of the pods that has a chain, and the one that opens HBONE.
pub(crate) fn derive(
    class: &ProxyClass,
    view: &ListenerView<'_>,
    reads: &mut Reads,
) -> Output<ClassResource, ListenerIr, Finding> {
    let tables = &view.ingress;
    let Some(gateway) = ingress(tables.gateways, reads, &class.gateway) else {
        return Output::none();
    };
    let mesh = &*mesh_row(view.mesh, reads);
    let instances = instances(gateway, tables.workloads, reads);
    let policies = &view.policies;
    let attached = authz::attached_to_ingress(policies, reads, mesh, &gateway.key, &instances);
    let key = |name: Str| ClassResource::new(class.clone(), name);
    let mut rows = vec![(key(CONNECT_ORIGINATE), ListenerIr::ConnectOriginate)];
    for ir in opened(class, gateway, (mesh, &attached), tables, reads) {
        let name = ir.name.clone();
        rows.push((key(name), ListenerIr::Gateway(Box::new(ir))));
    }
    Output::from(rows).with_notes(left_out(class, gateway, tables, reads))
}

/// Whether proxies of a class may bind a port.
fn may_bind(class: &ProxyClass, port: u16) -> bool {
    !class.is_unprivileged || port >= PRIVILEGED_PORTS_END
}

/// Listeners that proxies of a class cannot open.
fn left_out(
    class: &ProxyClass,
    gateway: &GatewayRow,
    tables: &IngressTables<'_>,
    reads: &mut Reads,
) -> Vec<Finding> {
    if !class.is_unprivileged {
        return Vec::new();
    }
    let ports = Ports {
        services: tables.services,
        workloads: tables.workloads,
    };
    let all = servers::of(gateway, ports, reads);
    let closed = all.iter().filter(|one| !may_bind(class, one.port));
    closed
        .map(|Served { listener, port }| {
            Finding::new(
                "gw-port-privileged",
                Severity::Error,
                listener.owner.clone(),
                arcstr::format!(
                    "Listener {} is at port {port} of pods that say they may not bind ports below {PRIVILEGED_PORTS_END}: they do not open it",
                    listener.name
                ),
                "Give the port of the Service a targetPort of 1024 or above, or let the pods bind low ports",
            )
            .at(arcstr::format!("spec.listeners[{}].port", listener.index))
        })
        .collect()
}

/// The listeners of a Gateway, at a class of its proxies, for the ports of the pods that have a
/// chain.
pub(crate) fn opened(
    class: &ProxyClass,
    gateway: &GatewayRow,
    (mesh, attached): (&MeshRow, &Attached<'_>),
    tables: &IngressTables<'_>,
    reads: &mut Reads,
) -> Vec<GatewayListenerIr> {
    let ports = Ports {
        services: tables.services,
        workloads: tables.workloads,
    };
    let mut open: BTreeMap<u16, Vec<&ListenerRow>> = BTreeMap::new();
    for Served { listener, port } in servers::of(gateway, ports, reads) {
        if may_bind(class, port) {
            open.entry(port).or_default().push(listener);
        }
    }
    let site = Site {
        class,
        gateway,
        mesh,
        attached,
        tables,
        alike: Hosts::grouped(&gateway.listeners, |one| {
            (one.is_built && one.protocol.has_tls()).then_some(one.port)
        }),
    };
    let mut out = Vec::new();
    for (port, listeners) in open {
        let chains = site.chains(port, &listeners, reads);
        if chains.is_empty() {
            continue;
        }
        out.push(GatewayListenerIr {
            name: arcstr::format!("0.0.0.0_{port}"),
            bind: bind(class),
            port,
            topology: class.topology,
            is_inbound: false,
            chains,
        });
    }
    out
}

/// Labels of the Gateway's pods; while none is known, those that they will have.
pub(crate) fn instances(
    gateway: &GatewayRow,
    workloads: View<'_, WorkloadUid, WorkloadRow>,
    reads: &mut Reads,
) -> Vec<Labels> {
    let mut found: BTreeSet<Labels> = BTreeSet::new();
    if gateway.is_managed {
        let pods = workloads.by::<InstanceByNamespace>(reads, &gateway.key.ns);
        let own = pods.filter(|(_, row)| {
            let name = row.labels.get(LABEL_GATEWAY_NAME);
            row.ns == gateway.key.ns && name.is_some_and(|name| *name == gateway.key.name)
        });
        found.extend(own.map(|(_, row)| row.labels.clone()));
    } else {
        for host in &gateway.targets {
            let pods = workloads.by::<WorkloadByService>(reads, host);
            found.extend(pods.map(|(_, row)| row.labels.clone()));
        }
    }
    if found.is_empty() {
        let labels = [
            (LABEL_GATEWAY_NAME, gateway.key.name.clone()),
            (LABEL_GATEWAY_CLASS_NAME, gateway.class.clone()),
            (
                LABEL_GATEWAY_MANAGED,
                Str::from(gateway.controller.managed_label().unwrap_or_default()),
            ),
        ];
        found.insert(
            labels
                .into_iter()
                .map(|(key, value)| (Str::from(key), value))
                .collect(),
        );
    }
    found.into_iter().collect()
}

/// A Gateway at a class of its proxies.
struct Site<'a, 't> {
    class: &'a ProxyClass,
    gateway: &'a GatewayRow,
    mesh: &'a MeshRow,
    attached: &'a Attached<'t>,
    tables: &'a IngressTables<'t>,
    /// Hosts of the listeners that begin with TLS, by port. As for requests, one with defects
    /// keeps its hosts.
    alike: BTreeMap<u16, Hosts>,
}

impl Site<'_, '_> {
    /// The chains of a port. Of several that would be chosen alike the first counts; Envoy would
    /// refuse them all.
    fn chains(
        &self,
        port: u16,
        listeners: &[&ListenerRow],
        reads: &mut Reads,
    ) -> Vec<GatewayChainIr> {
        let mut out: Vec<GatewayChainIr> = Vec::new();
        let mut named: BTreeSet<Str> = BTreeSet::new();
        // Without names: in the clear and with TLS.
        let mut nameless: BTreeSet<bool> = BTreeSet::new();
        for listener in listeners {
            let candidates = match &listener.protocol {
                ListenerProtocol::Http => vec![self.requests(listener, port, None)],
                ListenerProtocol::Https => {
                    let tls = listener.tls.as_ref().filter(|tls| tls.mode.terminates());
                    let chain = |tls| self.requests(listener, port, Some(tls));
                    tls.map(chain).into_iter().collect()
                }
                ListenerProtocol::Tcp | ListenerProtocol::Tls => self.connections(listener, reads),
                ListenerProtocol::Hbone | ListenerProtocol::Other(_) => Vec::new(),
            };
            for mut chain in candidates {
                let is_new = if chain.server_names.is_empty() {
                    nameless.insert(chain.is_tls)
                } else {
                    chain.server_names.retain(|name| named.insert(name.clone()));
                    !chain.server_names.is_empty()
                };
                if is_new {
                    out.push(chain);
                }
            }
        }
        out
    }

    /// The chain of HTTP or HTTPS.
    fn requests(&self, listener: &ListenerRow, port: u16, row: Option<&TlsRow>) -> GatewayChainIr {
        let (filters, outbound) = self.policies(Layer::Http, row);
        let normalization =
            ChainFilter::normalization(&filters, self.mesh.traffic.path_normalization);
        let name = servers::config_name(Served { listener, port });
        GatewayChainIr {
            name: name.clone(),
            server_names: row.map_or_else(Vec::new, |_| own_names(listener)),
            is_tls: row.is_some(),
            tls: row.map(|row| self.server_tls(row)),
            filters,
            body: GatewayBody::Http(name, normalization),
            outbound,
        }
    }

    /// The chains of TLS and TCP: for each TLSRoute one, then the oldest TCPRoute.
    fn connections(&self, listener: &ListenerRow, reads: &mut Reads) -> Vec<GatewayChainIr> {
        let tls = listener.tls.as_ref();
        let is_tls = listener.protocol == ListenerProtocol::Tls;
        // Where the SNI names the service, no route leads anywhere.
        if is_tls && tls.is_none_or(|tls| tls.mode == TlsMode::AutoPassthrough) {
            return Vec::new();
        }
        let tls = tls.filter(|tls| tls.mode.terminates());
        let alike = self.alike.get(&listener.port);
        let mut out = Vec::new();
        for (kind, hosts, row) in self.routes_of(listener, reads) {
            let mut server_names = Vec::new();
            if kind == Kind::TlsRoute {
                let own = hosts.iter();
                let own = own.filter(|host| alike.is_none_or(|all| all.give(listener, host)));
                server_names.extend(own.filter_map(server_name));
                let any = hosts.iter().any(|host| host == "*");
                if server_names.is_empty() && !any {
                    continue;
                }
                if any {
                    server_names.clear();
                }
            } else if is_tls {
                server_names = own_names(listener);
            }
            server_names.sort();
            server_names.dedup();
            let name = chain_name(listener, kind, &row.age.1);
            out.push(self.connection(name, server_names, (is_tls, tls), &row));
            if kind == Kind::TcpRoute {
                break;
            }
        }
        out
    }

    fn connection(
        &self,
        name: Str,
        server_names: Vec<Str>,
        (is_tls, tls): (bool, Option<&TlsRow>),
        row: &RouteAtIr,
    ) -> GatewayChainIr {
        let (filters, mut outbound) = self.policies(Layer::Tcp, tls);
        outbound.extend(row.outbound.iter().cloned());
        let body = match &row.body {
            RouteBody::Connections(to) => to.clone(),
            RouteBody::Requests(_) => crate::ir::TcpIr::to(crate::routes::UNKNOWN),
        };
        GatewayChainIr {
            name,
            server_names,
            is_tls,
            tls: tls.map(|row| self.server_tls(row)),
            filters,
            body: GatewayBody::Tcp(body),
            outbound,
        }
    }

    /// Routes of connections that a listener takes: TLSRoutes before TCPRoutes, the oldest first.
    fn routes_of(
        &self,
        listener: &ListenerRow,
        reads: &mut Reads,
    ) -> Vec<(Kind, Vec<Str>, Arc<RouteAtIr>)> {
        let id = (listener.owner.clone(), listener.name.clone());
        let found: Vec<_> = self
            .tables
            .route_parents
            .by::<RouteByListener>(reads, &id)
            .collect();
        let mut out = Vec::new();
        for (route, parents) in found {
            let at = RouteAt {
                gateway: self.gateway.key.clone(),
                route: route.clone(),
                port: None,
            };
            let Some(row) = self.tables.routes.get(reads, &at) else {
                continue;
            };
            let taken = parents.parents.iter().flat_map(|parent| &parent.taken);
            let here = taken.filter(|one| one.owner == id.0 && one.listener == id.1);
            let hosts: BTreeSet<Str> = here.flat_map(|one| one.hostnames.iter().cloned()).collect();
            out.push((route.0, hosts.into_iter().collect(), Arc::clone(row)));
        }
        out.sort_by(|a: &(Kind, Vec<Str>, Arc<RouteAtIr>), b| {
            let order = |kind: Kind| kind != Kind::TlsRoute;
            (order(a.0), &a.2.age).cmp(&(order(b.0), &b.2.age))
        });
        out
    }

    /// Filters of policies of a chain that ends this TLS, if any.
    fn policies(
        &self,
        layer: Layer,
        tls: Option<&TlsRow>,
    ) -> (Vec<ChainFilter>, BTreeSet<Outbound>) {
        let place = Place {
            accepts_untrusted: tls.is_some_and(|tls| tls.accepts_untrusted),
            ..Place::of(layer)
        };
        self.attached.filters(self.mesh, place)
    }

    fn server_tls(&self, row: &TlsRow) -> ServerTlsIr {
        ServerTlsIr {
            mode: row.mode,
            credentials: row.credentials.clone(),
            authority: row.authority.clone(),
            accepts_untrusted: row.accepts_untrusted,
            cipher_suites: row.cipher_suites.clone(),
            mesh: tls(self.class, self.mesh),
        }
    }
}

fn chain_name(listener: &ListenerRow, kind: Kind, route: &ObjectKey) -> Str {
    let ListenerRow {
        port, name, owner, ..
    } = listener;
    arcstr::format!("{kind}/{route}.{port}.{}/{}.{name}", owner.kind, owner.key)
}

/// The server names of a listener's own hostname; none for every one.
fn own_names(listener: &ListenerRow) -> Vec<Str> {
    listener
        .hostname
        .as_ref()
        .and_then(server_name)
        .into_iter()
        .collect()
}

/// A host as Envoy compares it with the SNI; `None` for every host, and for one that Envoy does
/// not take, which would cost the listener.
fn server_name(host: &Str) -> Option<Str> {
    let rest = host.strip_prefix("*.").unwrap_or(host);
    let is_good = !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_graphic() && b != b'*');
    is_good.then(|| Str::from(host.to_ascii_lowercase()))
}
