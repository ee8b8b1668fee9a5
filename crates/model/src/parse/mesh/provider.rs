//! `extensionProviders`. One that cannot be read stays, so that policies which name it refuse.
//! Source: spec/policy-and-traffic.md §1.8.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::Str;
use crate::finding::Severity;
use crate::input::{Authorizer, CheckedBody, ExtensionProvider, HttpAuthorizer, ProviderKind};
use crate::object::Invalid;

use super::super::clip;
use super::super::duration;
use super::super::read::{Doc, invalid, port, strs};
use super::super::words::{is_dns_label, is_header_name};

const HTTP: &str = "envoyExtAuthzHttp";
const GRPC: &str = "envoyExtAuthzGrpc";

const FIELDS: &[&str] = &[
    "allowPartialMessage",
    "clearRouteCache",
    "failOpen",
    "headersToDownstreamOnAllow",
    "headersToDownstreamOnDeny",
    "headersToUpstreamOnAllow",
    "includeAdditionalHeadersInCheck",
    "includeRequestBodyInCheck",
    "includeRequestHeadersInCheck",
    "maxRequestBytes",
    "packAsBytes",
    "pathPrefix",
    "port",
    "service",
    "statusOnError",
    "timeout",
];

/// Kinds of providers beside those that authorize.
const OTHERS: &[&str] = &[
    "datadog",
    "envoyFileAccessLog",
    "envoyHttpAls",
    "envoyOtelAls",
    "envoyTcpAls",
    "lightstep",
    "opencensus",
    "opentelemetry",
    "prometheus",
    "sds",
    "skywalking",
    "stackdriver",
    "zipkin",
];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AuthorizerWire {
    service: Option<String>,
    port: Option<i64>,
    timeout: Option<String>,
    #[serde(alias = "fail_open")]
    fail_open: Option<bool>,
    #[serde(alias = "status_on_error")]
    status_on_error: Option<Value>,
    #[serde(alias = "clear_route_cache")]
    clear_route_cache: Option<bool>,
    #[serde(alias = "include_request_body_in_check")]
    include_request_body_in_check: Option<BodyWire>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct HttpWire {
    #[serde(alias = "path_prefix")]
    path_prefix: Option<String>,
    #[serde(alias = "include_request_headers_in_check")]
    include_request_headers_in_check: Option<Vec<String>>,
    #[serde(alias = "include_headers_in_check")]
    include_headers_in_check: Option<Vec<String>>,
    #[serde(alias = "include_additional_headers_in_check")]
    include_additional_headers_in_check: Option<BTreeMap<String, String>>,
    #[serde(alias = "headers_to_upstream_on_allow")]
    headers_to_upstream_on_allow: Option<Vec<String>>,
    #[serde(alias = "headers_to_downstream_on_deny")]
    headers_to_downstream_on_deny: Option<Vec<String>>,
    #[serde(alias = "headers_to_downstream_on_allow")]
    headers_to_downstream_on_allow: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BodyWire {
    #[serde(alias = "max_request_bytes")]
    max_request_bytes: Option<u32>,
    #[serde(alias = "allow_partial_message")]
    allow_partial_message: Option<bool>,
    #[serde(alias = "pack_as_bytes")]
    pack_as_bytes: Option<bool>,
}

/// The providers, in order; of several with one name the first one.
pub(super) fn providers(doc: &mut Doc<'_>, at: &str, wires: Vec<Value>) -> Vec<ExtensionProvider> {
    let mut out: Vec<ExtensionProvider> = Vec::new();
    for (i, wire) in wires.iter().enumerate() {
        let at = format!("{at}[{i}]");
        let name = wire.get("name").and_then(Value::as_str).unwrap_or_default();
        if name.is_empty() {
            doc.note(
                "mesh-provider-invalid",
                Severity::Error,
                format!("{at}.name"),
                "This provider has no name, so nothing can refer to it; it is ignored",
                "Give it a name",
            );
            continue;
        }
        if out.iter().any(|other| other.name == name) {
            doc.note(
                "mesh-provider-duplicate",
                Severity::Error,
                format!("{at}.name"),
                arcstr::format!(
                    "Another provider before this one is named {} too; this one is ignored",
                    clip(name)
                ),
                "Give it a name of its own, and name that in the policies which mean it",
            );
            continue;
        }
        let kind = kind(doc, &at, name, wire);
        if let ProviderKind::Invalid(field, reason) = &kind {
            let dot = if field.is_empty() { "" } else { "." };
            doc.note(
                "mesh-provider-invalid",
                Severity::Error,
                format!("{at}{dot}{field}"),
                arcstr::format!(
                    "Provider {} cannot be read ({reason}); policies that name it deny what they match",
                    clip(name)
                ),
                "Correct the field",
            );
        }
        out.push(ExtensionProvider {
            name: Str::from(name),
            kind,
        });
    }
    out
}

fn kind(doc: &mut Doc<'_>, at: &str, name: &str, wire: &Value) -> ProviderKind {
    let bad = |field: &str, reason: &str| ProviderKind::Invalid(field.into(), reason.into());
    let Value::Object(map) = wire else {
        return bad("", "not a mapping");
    };
    let fields: Vec<(&str, &Value)> = map
        .iter()
        .filter(|(key, value)| *key != "name" && !value.is_null())
        .map(|(key, value)| (key.as_str(), value))
        .collect();
    let (field, body) = match fields.as_slice() {
        [] => return bad("", "it has no kind, such as envoyExtAuthzHttp"),
        [one] => *one,
        [(first, _), (second, _), ..] => {
            let reason = arcstr::format!(
                "it has more than one kind: {} and {}",
                clip(first),
                clip(second)
            );
            return ProviderKind::Invalid(Str::new(), reason);
        }
    };
    let word = camel(field);
    if word != HTTP && word != GRPC {
        if !OTHERS.contains(&word.as_str()) {
            let reason = arcstr::format!("there is no kind of providers {}", clip(field));
            return ProviderKind::Invalid(clip(field), reason);
        }
        let effect = "telemetry is not configured by ambientd yet, so nothing uses this provider";
        doc.not_applied(format!("{at}.{field}"), effect);
        return ProviderKind::Other(Str::from(word));
    }
    if !is_dns_label(name) {
        let reason = "the name of an authorizer is lower-case letters, digits and hyphens, \
                      at most 63, no hyphen at either end";
        return bad("name", reason);
    }
    match authorizer(doc, &format!("{at}.{field}"), body, word == HTTP) {
        Ok(authorizer) => ProviderKind::Authorizer(Box::new(authorizer)),
        Err(Invalid { field, reason, .. }) => {
            let relative = field.strip_prefix(at).unwrap_or(&field);
            ProviderKind::Invalid(relative.trim_start_matches('.').into(), reason)
        }
    }
}

/// `envoy_ext_authz_http` and the like in the other spelling of protobuf.
pub(super) fn camel(field: &str) -> String {
    let mut out = String::with_capacity(field.len());
    let mut up = false;
    for c in field.chars() {
        match c {
            '_' => up = true,
            c if up => {
                out.push(c.to_ascii_uppercase());
                up = false;
            }
            c => out.push(c),
        }
    }
    out
}

fn authorizer(
    doc: &mut Doc<'_>,
    at: &str,
    body: &Value,
    is_http: bool,
) -> Result<Authorizer, Invalid> {
    let wire: AuthorizerWire = doc.fields(body, at, FIELDS, |_| false)?;
    let service = service(at, wire.service)?;
    let number = wire
        .port
        .ok_or_else(|| invalid(format!("{at}.port"), "missing"))?;
    let timeout = wire.timeout.filter(|text| !text.is_empty());
    let timeout = timeout.map(|text| duration::positive(&text)).transpose();
    // What `rest` holds is of HTTP authorizers; of others it is nothing.
    let rest = Value::Object(wire.rest);
    let http = if is_http {
        Some(http(at, doc.fields(&rest, at, FIELDS, |_| false)?)?)
    } else {
        doc.fields::<NoFields>(&rest, at, FIELDS, |_| false)?;
        None
    };
    let checked = wire.include_request_body_in_check;
    Ok(Authorizer {
        service,
        port: port(number, || format!("{at}.port"))?,
        timeout: timeout.map_err(|reason| invalid(format!("{at}.timeout"), reason))?,
        fail_open: wire.fail_open.unwrap_or_default(),
        status_on_error: status(&format!("{at}.statusOnError"), wire.status_on_error)?,
        clear_route_cache: wire.clear_route_cache.unwrap_or_default(),
        body: checked.map(|wire| checked_body(at, &wire)).transpose()?,
        http,
    })
}

#[derive(Deserialize)]
struct NoFields {}

/// `host` or `namespace/host`.
fn service(at: &str, text: Option<String>) -> Result<Str, Invalid> {
    let field = || format!("{at}.service");
    let text = text.unwrap_or_default();
    if text.is_empty() {
        return Err(invalid(field(), "missing or empty"));
    }
    let (ns, host) = text.split_once('/').unwrap_or(("default", &text));
    let is_host = host.len() <= 253 && host.split('.').all(is_dns_label);
    if !is_dns_label(ns) || !is_host {
        return Err(invalid(
            field(),
            "neither a host name nor <namespace>/<host name>",
        ));
    }
    Ok(Str::from(text))
}

/// A status that Envoy knows, as text or number.
fn status(field: &str, value: Option<Value>) -> Result<Option<u16>, Invalid> {
    let code = match &value {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) if text.is_empty() => return Ok(None),
        Some(Value::String(text)) => text.parse().ok(),
        Some(value) => value.as_u64(),
    };
    let code = code.and_then(|code| u16::try_from(code).ok());
    match code {
        Some(
            100
            | 200..=208
            | 226
            | 300..=305
            | 307
            | 308
            | 400..=417
            | 421..=424
            | 426
            | 428
            | 429
            | 431
            | 500..=508
            | 510
            | 511,
        ) => Ok(code),
        _ => Err(invalid(field, "not an HTTP status that proxies know")),
    }
}

fn checked_body(at: &str, wire: &BodyWire) -> Result<CheckedBody, Invalid> {
    let max_bytes = wire.max_request_bytes.unwrap_or_default();
    if max_bytes == 0 {
        return Err(invalid(
            format!("{at}.includeRequestBodyInCheck.maxRequestBytes"),
            "at least 1 is required",
        ));
    }
    Ok(CheckedBody {
        max_bytes,
        allow_partial: wire.allow_partial_message.unwrap_or_default(),
        pack_as_bytes: wire.pack_as_bytes.unwrap_or_default(),
    })
}

fn http(at: &str, wire: HttpWire) -> Result<HttpAuthorizer, Invalid> {
    let path_prefix = wire.path_prefix.unwrap_or_default();
    let is_path = path_prefix.is_empty() || path_prefix.starts_with('/');
    if !is_path || path_prefix.chars().any(|c| c.is_control() || c == ' ') {
        return Err(invalid(
            format!("{at}.pathPrefix"),
            "a path begins with / and holds neither spaces nor control characters",
        ));
    }
    let mut additional = Vec::new();
    for (name, value) in wire
        .include_additional_headers_in_check
        .into_iter()
        .flatten()
    {
        if !is_header_name(&name) || value.chars().any(char::is_control) {
            return Err(invalid(
                format!("{at}.includeAdditionalHeadersInCheck.{}", clip(&name)),
                "not a header: its name has other characters than names of headers, or its value \
                 has control characters",
            ));
        }
        additional.push((Str::from(name), Str::from(value)));
    }
    // The deprecated name of the list counts where the new one is not given.
    let (field, headers) = match wire.include_request_headers_in_check {
        Some(headers) if !headers.is_empty() => ("includeRequestHeadersInCheck", Some(headers)),
        _ => ("includeHeadersInCheck", wire.include_headers_in_check),
    };
    let patterns = |field: &str, list| patterns(&format!("{at}.{field}"), list);
    Ok(HttpAuthorizer {
        path_prefix: Str::from(path_prefix),
        request_headers: patterns(field, headers)?,
        additional_headers: additional,
        upstream_on_allow: patterns(
            "headersToUpstreamOnAllow",
            wire.headers_to_upstream_on_allow,
        )?,
        downstream_on_deny: patterns(
            "headersToDownstreamOnDeny",
            wire.headers_to_downstream_on_deny,
        )?,
        downstream_on_allow: patterns(
            "headersToDownstreamOnAllow",
            wire.headers_to_downstream_on_allow,
        )?,
    })
}

/// Names of headers, each with a `*` at one end at most.
fn patterns(field: &str, list: Option<Vec<String>>) -> Result<Vec<Str>, Invalid> {
    let list = list.unwrap_or_default();
    for (i, pattern) in list.iter().enumerate() {
        let inner = pattern
            .strip_prefix('*')
            .or_else(|| pattern.strip_suffix('*'))
            .unwrap_or(pattern);
        // A name without letters is no name, and `*` alone would be every header.
        if !is_header_name(inner) || inner.contains('*') {
            return Err(invalid(
                format!("{field}[{i}]"),
                "not the name of a header, with one * at its start or end at most",
            ));
        }
    }
    Ok(strs(list))
}
