//! TCPRoute and TLSRoute. Source: spec/gateway-api.md §6.7.

use std::sync::Arc;

use crate::Str;
use crate::input::{L4Route, L4Rule, TcpRoute, TlsRoute};
use crate::object::{Invalid, Parsed};

use super::http_route::{self as http, BareRouteSpec, RouteSpec, RuleReader, common};
use super::read::Doc;

const FIELDS: &[&str] = &[
    "backendRefs",
    "group",
    "hostnames",
    "kind",
    "name",
    "namespace",
    "parentRefs",
    "port",
    "rules",
    "sectionName",
    "weight",
];

pub(super) fn tcp_route(doc: Doc<'_>) -> Arc<Parsed<TcpRoute>> {
    doc.row(|doc| {
        let spec: BareRouteSpec<http::L4Rule> = doc.spec(FIELDS, |_| false)?;
        let spec = RouteSpec {
            parent_refs: spec.parent_refs,
            hostnames: None,
            rules: spec.rules,
            use_default_gateways: spec.use_default_gateways,
        };
        l4_route(doc, spec)
    })
}

pub(super) fn tls_route(doc: Doc<'_>) -> Arc<Parsed<TlsRoute>> {
    doc.row(|doc| {
        let spec = doc.spec(FIELDS, |_| false)?;
        l4_route(doc, spec)
    })
}

fn l4_route(doc: &mut Doc<'_>, spec: RouteSpec<http::L4Rule>) -> Result<L4Route, Invalid> {
    let (head, rules) = common(doc, spec, |_| 0)?;
    let mut out = L4Route {
        parents: head.parents,
        hostnames: head.hostnames,
        rules: Vec::with_capacity(rules.len()),
    };
    for (i, wire) in rules.into_iter().enumerate() {
        let mut reader = RuleReader::of_connections(doc, i);
        let mut backends = reader.plain_backends(wire.backend_refs.unwrap_or_default())?;
        reader.disarm(&mut backends);
        out.rules.push(L4Rule {
            name: wire.name.map(Str::from),
            backends,
        });
    }
    Ok(out)
}
