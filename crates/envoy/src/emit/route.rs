//! Route configurations. Source: spec/envoy-config.md §5.1–§5.4.

mod action;
mod condition;
mod cors;
mod fault;
mod headers;
mod retry;
mod session;

use std::collections::BTreeMap;

use envoy_types::pb::envoy::config::route::v3 as route;
use envoy_types::pb::google::protobuf::Any;

pub(super) use session::FILTER as SESSION_FILTER;

use super::origin;
use super::wire::{any, boolean, data, uint32};
use crate::ir::{RouteAction, RouteIr, RoutesIr};

/// Largest body of a direct response.
pub(super) const DIRECT_RESPONSE_BYTES_MAX: u32 = 1_048_576;

/// The configuration of one chain.
pub(super) fn configuration(ir: &RoutesIr) -> route::RouteConfiguration {
    let host = route::VirtualHost {
        name: format!("inbound|http|{}", ir.port),
        domains: domains(ir),
        routes: ir.routes.iter().map(message).collect(),
        ..Default::default()
    };
    route::RouteConfiguration {
        name: ir.name.to_string(),
        virtual_hosts: vec![host],
        validate_clusters: Some(boolean(false)),
        max_direct_response_body_size_bytes: Some(uint32(DIRECT_RESPONSE_BYTES_MAX)),
        ..Default::default()
    }
}

/// Clients name the port of a host beside the usual one, and Envoy compares it.
fn domains(ir: &RoutesIr) -> Vec<String> {
    let mut out = vec![ir.domain.to_string()];
    if ir.domain != "*" && ir.port != 80 {
        out.push(format!("{}:{}", ir.domain, ir.port));
    }
    out
}

/// A route.
pub(super) fn message(ir: &RouteIr) -> route::Route {
    use route::route::Action;
    let levels = headers::levels(ir);
    let action = match &ir.action {
        RouteAction::Forward(to) => Action::Route(action::forward(to, &levels)),
        RouteAction::Redirect(to) => Action::Redirect(action::redirect(to)),
        RouteAction::Respond(status, body) => Action::DirectResponse(respond(*status, body)),
    };
    let mut out = route::Route {
        name: ir.name.to_string(),
        r#match: Some(condition::message(ir)),
        decorator: Some(route::Decorator {
            operation: ir.operation.to_string(),
            ..Default::default()
        }),
        action: Some(action),
        metadata: ir.origin.as_ref().map(origin::metadata),
        typed_per_filter_config: per_filter(ir).into_iter().collect(),
        stat_prefix: ir.stat_prefix.to_string(),
        ..Default::default()
    };
    (out.request_headers_to_add, out.request_headers_to_remove) = levels.route_request();
    (out.response_headers_to_add, out.response_headers_to_remove) = levels.route_response();
    out
}

/// What the filters of the chain do for this route; each has its own entry, so that one never
/// displaces another.
fn per_filter(ir: &RouteIr) -> BTreeMap<String, Any> {
    let mut out = BTreeMap::new();
    if let Some(cors) = &ir.cors {
        out.insert("envoy.filters.http.cors".into(), any(&cors::policy(cors)));
    }
    if let Some(fault) = &ir.fault {
        out.insert("envoy.filters.http.fault".into(), any(&fault::http(fault)));
    }
    if let Some(session) = &ir.session {
        out.insert(SESSION_FILTER.into(), any(&session::per_route(session)));
    }
    out
}

/// An answer of the proxy itself; a body that is text is shown as text.
fn respond(status: u16, body: &[u8]) -> route::DirectResponseAction {
    use envoy_types::pb::envoy::config::core::v3::data_source::Specifier;
    let specifier = match std::str::from_utf8(body) {
        Ok(text) => Specifier::InlineString(text.into()),
        Err(_) => Specifier::InlineBytes(body.to_vec()),
    };
    route::DirectResponseAction {
        status: u32::from(status),
        body: (!body.is_empty()).then(|| data(specifier)),
        ..Default::default()
    }
}
