//! GRPCRoute, read as the HTTPRoute that does the same. Source: spec/gateway-api.md §6.2;
//! spec/envoy-config.md §5.3.

use std::sync::Arc;

use crate::Str;
use crate::input::{GrpcRoute, HttpMatch, HttpRule, PathMatch};
use crate::object::{Invalid, Parsed};

use super::http_route::{
    FIELDS, GrpcMatch, GrpcRule, RouteSpec, RuleReader, common, headers_match,
};
use super::read::Doc;

pub(super) fn grpc_route(doc: Doc<'_>) -> Arc<Parsed<GrpcRoute>> {
    doc.row(|doc| {
        let spec: RouteSpec<GrpcRule> = doc.spec(FIELDS, |_| false)?;
        let count = |rule: &GrpcRule| rule.matches.as_ref().map_or(0, Vec::len);
        let (mut out, rules) = common(doc, spec, count)?;
        for (i, wire) in rules.into_iter().enumerate() {
            out.rules.push(grpc_rule(doc, i, wire)?);
        }
        Ok(out)
    })
}

fn grpc_rule(doc: &mut Doc<'_>, i: usize, wire: GrpcRule) -> Result<HttpRule, Invalid> {
    let mut reader = RuleReader::new(doc, i, true);
    let mut rule = HttpRule {
        name: wire.name.map(Str::from),
        ..HttpRule::default()
    };
    for (j, m) in wire.matches.unwrap_or_default().into_iter().enumerate() {
        let found = grpc_match(&mut reader, j, m, &mut rule.unsupported)?;
        rule.matches.push(found);
    }
    rule.filters = reader.filters(wire.filters.unwrap_or_default())?;
    rule.backends = reader.backends(wire.backend_refs.unwrap_or_default())?;
    rule.session = wire.session_persistence.map(|wire| reader.session(wire));
    Ok(reader.finish(rule))
}

fn grpc_match(
    reader: &mut RuleReader<'_, '_>,
    index: usize,
    wire: GrpcMatch,
    unsupported: &mut Vec<Str>,
) -> Result<HttpMatch, Invalid> {
    let at = format!("matches[{index}]");
    let mut path = None;
    if let Some(method) = wire.method {
        // An empty text says as little as none.
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        let (service, name) = (given(method.service), given(method.method));
        match (method.r#type.as_deref(), service, name) {
            (_, None, None) => unsupported.push(arcstr::format!("{at}.method")),
            (None | Some("Exact"), service, name) => path = exact(service, name),
            (Some("RegularExpression"), service, name) => path = Some(regex(service, name)),
            _ => unsupported.push(arcstr::format!("{at}.method.type")),
        }
    }
    let headers = wire.headers.unwrap_or_default();
    Ok(HttpMatch {
        path,
        headers: headers_match(reader, &at, headers, unsupported)?,
        ..HttpMatch::default()
    })
}

fn exact(service: Option<String>, method: Option<String>) -> Option<PathMatch> {
    match (service, method) {
        (Some(service), Some(method)) => {
            Some(PathMatch::Exact(arcstr::format!("/{service}/{method}")))
        }
        (Some(service), None) => Some(PathMatch::Prefix(arcstr::format!("/{service}"))),
        (None, Some(method)) => Some(PathMatch::AnyServiceMethod(Str::from(method))),
        (None, None) => None,
    }
}

/// Both fields are regular expressions by definition; an alternative in one of them stays within
/// its part of the path.
fn regex(service: Option<String>, method: Option<String>) -> PathMatch {
    let part = |text: Option<String>, any: &str| match text {
        None => any.to_owned(),
        Some(text) if text.contains('|') => format!("(?:{text})"),
        Some(text) => text,
    };
    let service = part(service, "[^/]+");
    let method = part(method, ".+");
    PathMatch::Regex(arcstr::format!("/{service}/{method}"))
}
