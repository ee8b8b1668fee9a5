//! `trafficPolicy` and the blocks of it that are not load balancing or TLS.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::Str;
use crate::finding::Severity;
use crate::input::{
    ConnectionPool, H2Upgrade, Http2Keepalive, OutlierDetection, PortPolicy, RetryBudget,
    TcpKeepalive, TrafficPolicy, TunnelSettings,
};
use crate::object::Invalid;

use super::super::duration;
use super::super::read::{Doc, invalid, port};
use super::{balancer, block, is_host, items, refused, tls};

pub(super) const FIELDS: &[&str] = &[
    "baseEjectionTime",
    "budgetInterval",
    "connectTimeout",
    "connectionPool",
    "consecutive5xxErrors",
    "consecutiveGatewayErrors",
    "consecutiveLocalOriginFailures",
    "h2UpgradePolicy",
    "http",
    "http1MaxPendingRequests",
    "http2KeepAlive",
    "http2MaxRequests",
    "idleTimeout",
    "interval",
    "loadBalancer",
    "maxConcurrentStreams",
    "maxConnectionDuration",
    "maxConnections",
    "maxEjectionPercent",
    "maxRequestsPerConnection",
    "maxRetries",
    "minHealthPercent",
    "minRetryConcurrency",
    "number",
    "outlierDetection",
    "outlierDetectionHttpErrorCodes",
    "percent",
    "port",
    "portLevelSettings",
    "probes",
    "protocol",
    "proxyProtocol",
    "retryBudget",
    "splitExternalLocalOriginErrors",
    "targetHost",
    "targetPort",
    "tcp",
    "tcpKeepalive",
    "time",
    "timeout",
    "tls",
    "tunnel",
    "useClientProtocol",
    "version",
];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PolicyWire {
    load_balancer: Option<Value>,
    connection_pool: Option<Value>,
    outlier_detection: Option<Value>,
    tls: Option<Value>,
    port_level_settings: Option<Value>,
    tunnel: Option<Value>,
    proxy_protocol: Option<Value>,
    retry_budget: Option<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PortWire {
    port: Option<Value>,
    load_balancer: Option<Value>,
    connection_pool: Option<Value>,
    outlier_detection: Option<Value>,
    tls: Option<Value>,
}

#[derive(Deserialize)]
struct PortNumberWire {
    number: Option<i64>,
}

#[derive(Deserialize)]
struct PoolWire {
    tcp: Option<TcpWire>,
    http: Option<HttpWire>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct TcpWire {
    max_connections: Option<i64>,
    connect_timeout: Option<String>,
    tcp_keepalive: Option<KeepaliveWire>,
    max_connection_duration: Option<String>,
    idle_timeout: Option<String>,
}

#[derive(Deserialize)]
struct KeepaliveWire {
    probes: Option<u32>,
    time: Option<String>,
    interval: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct HttpWire {
    http1_max_pending_requests: Option<i64>,
    http2_max_requests: Option<i64>,
    max_requests_per_connection: Option<i64>,
    max_retries: Option<i64>,
    idle_timeout: Option<String>,
    h2_upgrade_policy: Option<String>,
    use_client_protocol: Option<bool>,
    max_concurrent_streams: Option<i64>,
    http2_keep_alive: Option<Http2KeepaliveWire>,
}

#[derive(Deserialize)]
struct Http2KeepaliveWire {
    interval: Option<String>,
    timeout: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OutlierWire {
    consecutive_errors: Option<i64>,
    split_external_local_origin_errors: Option<bool>,
    consecutive_local_origin_failures: Option<u32>,
    consecutive_gateway_errors: Option<u32>,
    consecutive_5xx_errors: Option<u32>,
    interval: Option<String>,
    base_ejection_time: Option<String>,
    max_ejection_percent: Option<i64>,
    min_health_percent: Option<i64>,
    outlier_detection_http_error_codes: Option<Vec<u32>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TunnelWire {
    protocol: Option<String>,
    target_host: Option<String>,
    target_port: Option<i64>,
}

#[derive(Deserialize)]
struct ProxyProtocolWire {
    version: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BudgetWire {
    percent: Option<f64>,
    min_retry_concurrency: Option<u32>,
    budget_interval: Option<Value>,
}

/// The four blocks that a rule, a subset and a port have in common.
struct Blocks {
    balancer: Option<Value>,
    pool: Option<Value>,
    outlier: Option<Value>,
    tls: Option<Value>,
}

#[allow(
    clippy::unnecessary_wraps,
    reason = "blocks are read by functions that may refuse them"
)]
pub(super) fn policy(
    doc: &mut Doc<'_>,
    wire: PolicyWire,
    at: &str,
) -> Result<TrafficPolicy, Invalid> {
    let blocks = Blocks {
        balancer: wire.load_balancer,
        pool: wire.connection_pool,
        outlier: wire.outlier_detection,
        tls: wire.tls,
    };
    let mut base = blocks_of(doc, blocks, at);
    let mut ports = BTreeMap::new();
    let settings = items(
        doc,
        wire.port_level_settings,
        &format!("{at}.portLevelSettings"),
    );
    for (i, value) in settings.into_iter().enumerate() {
        let at = format!("{at}.portLevelSettings[{i}]");
        let has_tls = value.get("tls").is_some_and(|tls| !tls.is_null());
        let read = block(doc, Some(value), &at, FIELDS, |doc, wire: PortWire, at| {
            port_policy(doc, wire, at, &ports)
        });
        match read {
            Some((number, policy)) => {
                ports.insert(number, policy);
            }
            // For which port TLS was meant, nobody knows: it could be any without settings.
            None if has_tls => base.tls = Some(tls::refusing()),
            None => {}
        }
    }
    let tunnel = block(doc, wire.tunnel, &format!("{at}.tunnel"), FIELDS, tunnel);
    let at_version = format!("{at}.proxyProtocol");
    let proxy_protocol = block(doc, wire.proxy_protocol, &at_version, FIELDS, version);
    if tunnel.is_some() && proxy_protocol.is_some() {
        let reason = "tunnel and proxyProtocol exclude each other";
        refused(doc, invalid(at_version, reason));
    }
    let at_budget = format!("{at}.retryBudget");
    Ok(TrafficPolicy {
        base,
        ports,
        proxy_protocol: proxy_protocol.filter(|_| tunnel.is_none()),
        tunnel,
        retry_budget: block(doc, wire.retry_budget, &at_budget, FIELDS, budget),
    })
}

fn port_policy(
    doc: &mut Doc<'_>,
    wire: PortWire,
    at: &str,
    before: &BTreeMap<u16, PortPolicy>,
) -> Result<(u16, PortPolicy), Invalid> {
    let place = || format!("{at}.port.number");
    let number = wire.port.map(serde_json::from_value::<PortNumberWire>);
    let number = match number {
        Some(Ok(PortNumberWire {
            number: Some(number),
        })) => port(number, place)?,
        _ => return Err(invalid(place(), "a port number is required")),
    };
    if before.contains_key(&number) {
        return Err(invalid(place(), "earlier settings are for this port"));
    }
    let blocks = Blocks {
        balancer: wire.load_balancer,
        pool: wire.connection_pool,
        outlier: wire.outlier_detection,
        tls: wire.tls,
    };
    Ok((number, blocks_of(doc, blocks, at)))
}

fn blocks_of(doc: &mut Doc<'_>, blocks: Blocks, at: &str) -> PortPolicy {
    let place = |name: &str| format!("{at}.{name}");
    PortPolicy {
        balancer: block(
            doc,
            blocks.balancer,
            &place("loadBalancer"),
            balancer::FIELDS,
            balancer::balancer,
        ),
        pool: block(
            doc,
            blocks.pool,
            &place("connectionPool"),
            FIELDS,
            connection_pool,
        ),
        outlier: block(
            doc,
            blocks.outlier,
            &place("outlierDetection"),
            FIELDS,
            outlier,
        ),
        tls: tls::tls(doc, blocks.tls, &place("tls")),
    }
}

/// A duration of at least a millisecond.
pub(super) fn positive(
    text: Option<&String>,
    at: &str,
    name: &str,
) -> Result<Option<Duration>, Invalid> {
    let read = text.map(|text| duration::positive(text));
    read.transpose()
        .map_err(|reason| invalid(format!("{at}.{name}"), reason))
}

/// A duration, where zero has a meaning.
pub(super) fn any_duration(
    text: Option<&String>,
    at: &str,
    name: &str,
) -> Result<Option<Duration>, Invalid> {
    let read = text.map(|text| duration::duration(text));
    read.transpose()
        .map_err(|reason| invalid(format!("{at}.{name}"), reason))
}

/// A limit; 0 is none, which hardly anybody means who writes it.
fn limit(
    doc: &mut Doc<'_>,
    value: Option<i64>,
    at: &str,
    name: &str,
) -> Result<Option<u32>, Invalid> {
    let Some(value) = value else {
        return Ok(None);
    };
    let at = format!("{at}.{name}");
    match i32::try_from(value) {
        Ok(0) => {
            doc.note(
                "dr-max-zero",
                Severity::Warning,
                at,
                "0 counts as not set: there is no limit",
                "Write 1 or more, or remove it",
            );
            Ok(None)
        }
        Ok(value) if value > 0 => Ok(Some(value.unsigned_abs())),
        _ => Err(invalid(at, "not a number from 0 to 2147483647")),
    }
}

fn connection_pool(doc: &mut Doc<'_>, wire: PoolWire, at: &str) -> Result<ConnectionPool, Invalid> {
    let (tcp_at, http_at) = (format!("{at}.tcp"), format!("{at}.http"));
    let tcp = wire.tcp.unwrap_or_default();
    let http = wire.http.unwrap_or_default();
    let h2_upgrade = match http.h2_upgrade_policy.as_deref() {
        None | Some("" | "DEFAULT") => H2Upgrade::Default,
        Some("DO_NOT_UPGRADE") => H2Upgrade::Never,
        Some("UPGRADE") => H2Upgrade::Upgrade,
        Some(_) => {
            let reason = "not DEFAULT, DO_NOT_UPGRADE or UPGRADE";
            return Err(invalid(format!("{http_at}.h2UpgradePolicy"), reason));
        }
    };
    let use_client_protocol = http.use_client_protocol.unwrap_or_default();
    if use_client_protocol && h2_upgrade == H2Upgrade::Upgrade {
        let reason = "useClientProtocol and UPGRADE exclude each other";
        return Err(invalid(format!("{http_at}.useClientProtocol"), reason));
    }
    let mut at_most = |value, at, name| limit(doc, value, at, name);
    Ok(ConnectionPool {
        max_connections: at_most(tcp.max_connections, &tcp_at, "maxConnections")?,
        connect_timeout: positive(tcp.connect_timeout.as_ref(), &tcp_at, "connectTimeout")?,
        keepalive: tcp
            .tcp_keepalive
            .map(|wire| keepalive(&wire, &format!("{tcp_at}.tcpKeepalive")))
            .transpose()?,
        max_connection_duration: positive(
            tcp.max_connection_duration.as_ref(),
            &tcp_at,
            "maxConnectionDuration",
        )?,
        tcp_idle_timeout: any_duration(tcp.idle_timeout.as_ref(), &tcp_at, "idleTimeout")?,
        max_pending_requests: at_most(
            http.http1_max_pending_requests,
            &http_at,
            "http1MaxPendingRequests",
        )?,
        max_requests: at_most(http.http2_max_requests, &http_at, "http2MaxRequests")?,
        // 0 is documented as no limit here and next, so nothing is said.
        max_requests_per_connection: unlimited(
            http.max_requests_per_connection,
            &http_at,
            "maxRequestsPerConnection",
        )?,
        max_retries: at_most(http.max_retries, &http_at, "maxRetries")?,
        http_idle_timeout: any_duration(http.idle_timeout.as_ref(), &http_at, "idleTimeout")?,
        h2_upgrade,
        use_client_protocol,
        max_concurrent_streams: unlimited(
            http.max_concurrent_streams,
            &http_at,
            "maxConcurrentStreams",
        )?,
        h2_keepalive: http
            .http2_keep_alive
            .map(|wire| h2_keepalive(&wire, &format!("{http_at}.http2KeepAlive")))
            .transpose()?,
    })
}

fn unlimited(value: Option<i64>, at: &str, name: &str) -> Result<Option<u32>, Invalid> {
    match value.map(i32::try_from) {
        None | Some(Ok(0)) => Ok(None),
        Some(Ok(value)) if value > 0 => Ok(Some(value.unsigned_abs())),
        Some(_) => Err(invalid(
            format!("{at}.{name}"),
            "not a number from 0 to 2147483647",
        )),
    }
}

fn keepalive(wire: &KeepaliveWire, at: &str) -> Result<TcpKeepalive, Invalid> {
    Ok(TcpKeepalive {
        probes: wire.probes.filter(|probes| *probes > 0),
        time: positive(wire.time.as_ref(), at, "time")?,
        interval: positive(wire.interval.as_ref(), at, "interval")?,
    })
}

fn h2_keepalive(wire: &Http2KeepaliveWire, at: &str) -> Result<Http2Keepalive, Invalid> {
    let interval = positive(wire.interval.as_ref(), at, "interval")?;
    let timeout = positive(wire.timeout.as_ref(), at, "timeout")?;
    if interval.is_none() || timeout.is_none() {
        return Err(invalid(at, "interval and timeout are both required"));
    }
    Ok(Http2Keepalive { interval, timeout })
}

fn percent(value: Option<i64>, at: &str, name: &str) -> Result<Option<u32>, Invalid> {
    let read = value.map(|value| u32::try_from(value).ok().filter(|value| *value <= 100));
    match read {
        Some(None) => Err(invalid(format!("{at}.{name}"), "not a percentage")),
        read => Ok(read.flatten()),
    }
}

fn outlier(doc: &mut Doc<'_>, wire: OutlierWire, at: &str) -> Result<OutlierDetection, Invalid> {
    const EACH_MAX: u32 = i32::MAX as u32;
    let split = wire.split_external_local_origin_errors.unwrap_or_default();
    let counts = [
        (
            "consecutiveLocalOriginFailures",
            wire.consecutive_local_origin_failures,
        ),
        ("consecutiveGatewayErrors", wire.consecutive_gateway_errors),
        ("consecutive5xxErrors", wire.consecutive_5xx_errors),
    ];
    if let Some((name, _)) = counts.iter().find(|(_, n)| n.is_some_and(|n| n > EACH_MAX)) {
        return Err(invalid(format!("{at}.{name}"), "too large"));
    }
    if wire
        .consecutive_local_origin_failures
        .is_some_and(|n| n > 0)
        && !split
    {
        let place = format!("{at}.consecutiveLocalOriginFailures");
        let reason = "counts only with splitExternalLocalOriginErrors";
        return Err(invalid(place, reason));
    }
    let mut error_codes = Vec::new();
    let codes = wire.outlier_detection_http_error_codes;
    for (i, code) in codes.into_iter().flatten().enumerate() {
        let Some(code) = u16::try_from(code)
            .ok()
            .filter(|code| (100..=599).contains(code))
        else {
            let place = format!("{at}.outlierDetectionHttpErrorCodes[{i}]");
            return Err(invalid(place, "not a status from 100 to 599"));
        };
        error_codes.push(code);
    }
    if wire.consecutive_errors.is_some_and(|n| n != 0) {
        doc.not_applied(
            format!("{at}.consecutiveErrors"),
            "it was replaced by consecutive5xxErrors and consecutiveGatewayErrors",
        );
    }
    Ok(OutlierDetection {
        split_local_origin: split,
        consecutive_local_origin: wire.consecutive_local_origin_failures,
        consecutive_gateway: wire.consecutive_gateway_errors,
        consecutive_5xx: wire.consecutive_5xx_errors,
        interval: positive(wire.interval.as_ref(), at, "interval")?,
        base_ejection: positive(wire.base_ejection_time.as_ref(), at, "baseEjectionTime")?,
        max_ejection_percent: percent(wire.max_ejection_percent, at, "maxEjectionPercent")?
            .filter(|percent| *percent > 0),
        min_health_percent: percent(wire.min_health_percent, at, "minHealthPercent")?,
        error_codes,
    })
}

fn tunnel(_: &mut Doc<'_>, wire: TunnelWire, at: &str) -> Result<TunnelSettings, Invalid> {
    let post = match wire.protocol.as_deref() {
        None | Some("" | "CONNECT") => false,
        Some("POST") => true,
        Some(_) => return Err(invalid(format!("{at}.protocol"), "not CONNECT or POST")),
    };
    let host = wire.target_host.unwrap_or_default();
    let is_ip = host.parse::<std::net::IpAddr>().is_ok();
    if !is_ip && (!is_host(&host) || host.starts_with('*')) {
        return Err(invalid(format!("{at}.targetHost"), "not a host or address"));
    }
    Ok(TunnelSettings {
        post,
        host: Str::from(host),
        port: port(wire.target_port.unwrap_or_default(), || {
            format!("{at}.targetPort")
        })?,
    })
}

fn version(_: &mut Doc<'_>, wire: ProxyProtocolWire, at: &str) -> Result<u8, Invalid> {
    match wire.version.as_deref() {
        None | Some("" | "V1") => Ok(1),
        Some("V2") => Ok(2),
        Some(_) => Err(invalid(format!("{at}.version"), "not V1 or V2")),
    }
}

fn budget(doc: &mut Doc<'_>, wire: BudgetWire, at: &str) -> Result<RetryBudget, Invalid> {
    let percent = wire.percent.unwrap_or(20.0);
    if !(0.0..=100.0).contains(&percent) {
        return Err(invalid(format!("{at}.percent"), "not a percentage"));
    }
    if wire.budget_interval.is_some_and(|value| !value.is_null()) {
        doc.not_applied(
            format!("{at}.budgetInterval"),
            "the budget is taken of the requests under way",
        );
    }
    Ok(RetryBudget {
        percent,
        // 0 is what an unset number looks like on the wire.
        min_concurrency: wire.min_retry_concurrency.filter(|n| *n > 0).unwrap_or(3),
    })
}
