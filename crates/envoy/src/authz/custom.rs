//! Authorizers of CUSTOM policies: providers of mesh config, checked and resolved. What Envoy
//! would refuse is found here, since it would cost the whole listener.
//! Source: spec/policy-and-traffic.md §1.8.

use std::time::Duration;

use flow::Reads;
use model::derived::PortRow;
use model::input::{Authorizer, ExtensionProvider, HttpAuthorizer, ProviderKind, Transport};
use model::{MeshRow, NamespacedHostname, ServiceRow, Str};

use crate::attachment::outbound_name;
use crate::index::ServiceByHostname;
use crate::ir::{ExtAuthzIr, HttpAuthorizerIr, Outbound, StrMatch};

use super::Services;

const TIMEOUT_DEFAULT: Duration = Duration::from_secs(600);
const TIMEOUT_MAX: Duration = Duration::from_secs(365 * 24 * 3600);
const NAME_CHARS_MAX: usize = 63;
/// Longest name and value of a header that Envoy takes in its configuration.
const HEADER_BYTES_MAX: usize = 16_384;
/// Statuses that Envoy has a name for.
const STATUSES: [u16; 56] = [
    100, 200, 201, 202, 203, 204, 205, 206, 207, 208, 226, 300, 301, 302, 303, 304, 305, 307, 308,
    400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 413, 414, 415, 416, 417, 421,
    422, 423, 424, 426, 428, 429, 431, 500, 501, 502, 503, 504, 505, 506, 507, 508, 510, 511,
];

/// An authorizer that can be asked.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// The filter.
    pub(crate) filter: ExtAuthzIr,
    /// Its service.
    pub(crate) outbound: Outbound,
}

/// The authorizer of this name.
///
/// # Errors
/// Why there is none that can be asked, as a clause.
pub(crate) fn authorizer(
    name: &str,
    mesh: &MeshRow,
    services: Services<'_>,
    reads: &mut Reads,
) -> Result<Asked, String> {
    let provider = provider(name, &mesh.traffic.providers)?;
    let (service, port) = destination(provider, services, reads)?;
    let host = &service.key.hostname;
    let status = provider.status_on_error;
    if status.is_some_and(|code| !STATUSES.contains(&code)) {
        return Err("statusOnError is not a status that Envoy knows".into());
    }
    let timeout = provider.timeout.unwrap_or(TIMEOUT_DEFAULT);
    if timeout < Duration::from_millis(1) || timeout > TIMEOUT_MAX {
        return Err("its timeout is out of range".into());
    }
    if provider.body.is_some_and(|body| body.max_bytes == 0) {
        return Err("maxRequestBytes must be above 0".into());
    }
    let http = provider.http.as_ref();
    let http = http.map(|http| http_authorizer(http, host)).transpose()?;
    Ok(Asked {
        filter: ExtAuthzIr {
            provider: name.into(),
            cluster: outbound_name(port.port, "", &service.wire_host()),
            host: host.clone(),
            timeout,
            fail_open: provider.fail_open,
            status_on_error: status,
            clear_route_cache: provider.clear_route_cache,
            body: provider.body,
            http,
        },
        outbound: Outbound {
            service: service.key.clone(),
            port: port.port,
            subset: Str::new(),
        },
    })
}

fn provider<'p>(name: &str, all: &'p [ExtensionProvider]) -> Result<&'p Authorizer, String> {
    let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if name.len() > NAME_CHARS_MAX
        || !name.bytes().all(letter)
        || name.starts_with('-')
        || name.ends_with('-')
    {
        return Err("its name is no DNS label".into());
    }
    let mut named = all.iter().filter(|provider| provider.name == name);
    let found = named.next();
    if named.next().is_some() {
        return Err("mesh config has several of this name".into());
    }
    match found.map(|provider| &provider.kind) {
        None => Err("mesh config has no provider of this name".into()),
        Some(ProviderKind::Authorizer(authorizer)) => Ok(authorizer),
        Some(ProviderKind::Other(kind)) => {
            Err(format!("it is of kind {kind}, which decides nothing"))
        }
        Some(ProviderKind::Invalid(field, reason)) => Err(format!("{field}: {reason}")),
    }
}

/// The service and the port of an authorizer.
fn destination<'t>(
    provider: &Authorizer,
    services: Services<'t>,
    reads: &mut Reads,
) -> Result<(&'t ServiceRow, &'t PortRow), String> {
    let text = &provider.service;
    let service = if let Some((ns, host)) = text.split_once('/') {
        let key = NamespacedHostname::new(ns, host);
        services.get(reads, &key)
    } else {
        let mut all = services.by::<ServiceByHostname>(reads, text.as_str());
        let first = all.next();
        if all.next().is_some() {
            return Err(format!(
                "several namespaces have the host {text}; write <namespace>/{text}"
            ));
        }
        first.map(|(_, row)| row)
    };
    let Some(service) = service else {
        return Err(format!("there is no service {text}"));
    };
    let mut ports = service.ports.iter();
    let port = ports.find(|port| port.port == provider.port && port.transport == Transport::Tcp);
    let Some(port) = port else {
        return Err(format!("service {text} has no port {}", provider.port));
    };
    if service.resolution == model::input::Resolution::DynamicDns {
        return Err(format!("the host of {text} is resolved per request"));
    }
    Ok((service, port))
}

fn http_authorizer(http: &HttpAuthorizer, host: &str) -> Result<HttpAuthorizerIr, String> {
    let prefix = &http.path_prefix;
    let plain = |byte: u8| byte.is_ascii_graphic();
    if !(prefix.is_empty() || prefix.starts_with('/') && prefix.bytes().all(plain)) {
        return Err("pathPrefix does not begin with / or holds spaces".into());
    }
    let mut additional = Vec::with_capacity(http.additional_headers.len());
    for (name, value) in &http.additional_headers {
        let own = name.eq_ignore_ascii_case("host");
        if !is_header_name(name) || own || value.contains(['\0', '\r', '\n']) {
            return Err(format!("header {name:?} cannot be added to its requests"));
        }
        // Envoy reads commands between percent signs, and values are meant as they are.
        let value = value.replace('%', "%%");
        if name.len().max(value.len()) > HEADER_BYTES_MAX {
            return Err("a header of includeAdditionalHeadersInCheck is too long".into());
        }
        additional.push((name.clone(), value.into()));
    }
    Ok(HttpAuthorizerIr {
        uri: arcstr::format!("http://{host}"),
        path_prefix: prefix.clone(),
        request_headers: patterns(&http.request_headers)?,
        additional_headers: additional,
        upstream_on_allow: patterns(&http.upstream_on_allow)?,
        downstream_on_deny: patterns(&http.downstream_on_deny)?,
        downstream_on_allow: patterns(&http.downstream_on_allow)?,
    })
}

/// Names of headers, a star at one end allowed.
fn patterns(list: &[Str]) -> Result<Vec<StrMatch>, String> {
    list.iter()
        .map(|text| {
            let inner = text.strip_prefix('*').or(text.strip_suffix('*'));
            if !is_header_name(inner.unwrap_or(text)) {
                return Err(format!("{text:?} is no name of headers"));
            }
            Ok(super::conditions::string(text))
        })
        .collect()
}

/// Whether it is a name that a header can have.
pub(crate) fn is_header_name(name: &str) -> bool {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !name.is_empty() && name.bytes().all(token)
}

#[cfg(test)]
mod tests;
