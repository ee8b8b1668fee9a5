//! Settings that waypoints and gateways follow. One that cannot be read costs itself alone: the
//! default stays in force. Source: spec/policy-and-traffic.md §0.2, §6, §7, spec/control-plane.md §5.3.

use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::Str;
use crate::finding::Severity;
use crate::input::{LocalityLb, MeshConfig, PathNormalization, Retries, TcpKeepalive};
use crate::object::Invalid;

use super::super::read::{Doc, invalid};
use super::super::words::is_dns_label;
use super::super::{clip, destination_rule, duration};
use super::provider;

/// The settings as they stand; each is read on its own.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TrafficWire {
    #[serde(alias = "extension_providers")]
    extension_providers: Option<Value>,
    #[serde(alias = "path_normalization")]
    path_normalization: Option<Value>,
    #[serde(alias = "default_http_retry_policy")]
    default_http_retry_policy: Option<Value>,
    #[serde(alias = "connect_timeout")]
    connect_timeout: Option<Value>,
    #[serde(alias = "tcp_keepalive")]
    tcp_keepalive: Option<Value>,
    #[serde(alias = "h2_upgrade_policy")]
    h2_upgrade_policy: Option<Value>,
    #[serde(alias = "locality_lb_setting")]
    locality_lb_setting: Option<Value>,
    #[serde(alias = "hbone_idle_timeout")]
    hbone_idle_timeout: Option<Value>,
    #[serde(alias = "default_virtual_service_export_to")]
    default_virtual_service_export_to: Option<Value>,
    #[serde(alias = "default_destination_rule_export_to")]
    default_destination_rule_export_to: Option<Value>,
    #[serde(alias = "default_service_export_to")]
    default_service_export_to: Option<Value>,
}

/// Names of [`TrafficWire`]'s fields.
pub(super) const SETTINGS: &[&str] = &[
    "connectTimeout",
    "defaultDestinationRuleExportTo",
    "defaultHttpRetryPolicy",
    "defaultServiceExportTo",
    "defaultVirtualServiceExportTo",
    "extensionProviders",
    "h2UpgradePolicy",
    "hboneIdleTimeout",
    "localityLbSetting",
    "pathNormalization",
    "tcpKeepalive",
];

const FIELDS: &[&str] = &[
    "attempts",
    "backoff",
    "distribute",
    "enabled",
    "failover",
    "failoverPriority",
    "from",
    "interval",
    "normalization",
    "perTryTimeout",
    "probes",
    "retryIgnorePreviousHosts",
    "retryOn",
    "retryRemoteLocalities",
    "time",
    "to",
];

#[derive(Deserialize)]
struct NormalizationWire {
    normalization: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RetryWire {
    attempts: Option<i64>,
    #[serde(alias = "per_try_timeout")]
    per_try_timeout: Option<String>,
    #[serde(alias = "retry_on")]
    retry_on: Option<String>,
    #[serde(alias = "retry_remote_localities")]
    retry_remote_localities: Option<bool>,
    #[serde(alias = "retry_ignore_previous_hosts")]
    retry_ignore_previous_hosts: Option<bool>,
    backoff: Option<String>,
}

#[derive(Deserialize)]
struct KeepaliveWire {
    probes: Option<u32>,
    time: Option<String>,
    interval: Option<String>,
}

/// Puts the settings into the config. `at` gives the path of a field.
pub(super) fn read(
    doc: &mut Doc<'_>,
    at: &dyn Fn(&str) -> String,
    wire: TrafficWire,
    into: &mut MeshConfig,
) {
    let providers = setting(
        doc,
        &at("extensionProviders"),
        wire.extension_providers,
        whole,
    );
    into.providers = providers
        .map(|wires| provider::providers(doc, &at("extensionProviders"), wires))
        .unwrap_or_default();
    let field = at("pathNormalization");
    into.path_normalization = setting(doc, &field, wire.path_normalization, normalization);
    let field = at("defaultHttpRetryPolicy");
    into.default_retries = setting(doc, &field, wire.default_http_retry_policy, retries);
    let field = at("connectTimeout");
    into.connect_timeout = setting(doc, &field, wire.connect_timeout, positive);
    into.tcp_keepalive = setting(doc, &at("tcpKeepalive"), wire.tcp_keepalive, keepalive);
    let field = at("h2UpgradePolicy");
    into.h2_upgrade = setting(doc, &field, wire.h2_upgrade_policy, upgrade).unwrap_or_default();
    let field = at("localityLbSetting");
    into.locality_lb = setting(doc, &field, wire.locality_lb_setting, locality);
    let field = at("hboneIdleTimeout");
    into.hbone_idle_timeout = setting(doc, &field, wire.hbone_idle_timeout, any_duration);
    for (field, value, into) in [
        (
            at("defaultVirtualServiceExportTo"),
            wire.default_virtual_service_export_to,
            &mut into.virtual_service_export_to,
        ),
        (
            at("defaultDestinationRuleExportTo"),
            wire.default_destination_rule_export_to,
            &mut into.destination_rule_export_to,
        ),
        (
            at("defaultServiceExportTo"),
            wire.default_service_export_to,
            &mut into.service_export_to,
        ),
    ] {
        *into = setting(doc, &field, value, export_to).unwrap_or_default();
    }
}

/// One setting; `None` when it is not given or, with a note, when it cannot be read.
fn setting<W: DeserializeOwned, T>(
    doc: &mut Doc<'_>,
    at: &str,
    value: Option<Value>,
    build: impl FnOnce(W, &str) -> Result<T, Invalid>,
) -> Option<T> {
    let value = value.filter(|value| !value.is_null())?;
    let read = doc.fields::<W>(&value, at, FIELDS, |_| false);
    match read.and_then(|wire| build(wire, at)) {
        Ok(read) => Some(read),
        Err(Invalid { field, reason, .. }) => {
            doc.note(
                "mesh-setting-invalid",
                Severity::Error,
                field,
                arcstr::format!("{reason}; of this setting the default stays in force"),
                "Correct the field",
            );
            None
        }
    }
}

#[expect(clippy::unnecessary_wraps, reason = "one shape with its neighbours")]
fn whole<T>(wire: T, _: &str) -> Result<T, Invalid> {
    Ok(wire)
}

fn any_duration(text: String, at: &str) -> Result<Duration, Invalid> {
    duration::duration(&text).map_err(|reason| invalid(at, reason))
}

fn positive(text: String, at: &str) -> Result<Duration, Invalid> {
    duration::positive(&text).map_err(|reason| invalid(at, reason))
}

fn part(text: Option<String>, at: &str, name: &str) -> Result<Option<Duration>, Invalid> {
    text.map(|text| positive(text, &format!("{at}.{name}")))
        .transpose()
}

fn normalization(wire: NormalizationWire, at: &str) -> Result<PathNormalization, Invalid> {
    match wire.normalization.as_deref() {
        None | Some("" | "DEFAULT" | "BASE") => Ok(PathNormalization::Base),
        Some("NONE") => Ok(PathNormalization::None),
        Some("MERGE_SLASHES") => Ok(PathNormalization::MergeSlashes),
        Some("DECODE_AND_MERGE_SLASHES") => Ok(PathNormalization::DecodeAndMergeSlashes),
        Some(word) => Err(unknown(
            format!("{at}.normalization"),
            word,
            "NONE, BASE, MERGE_SLASHES or DECODE_AND_MERGE_SLASHES",
        )),
    }
}

fn upgrade(word: String, at: &str) -> Result<bool, Invalid> {
    match word.as_str() {
        "" | "DO_NOT_UPGRADE" => Ok(false),
        "UPGRADE" => Ok(true),
        word => Err(unknown(at, word, "UPGRADE or DO_NOT_UPGRADE")),
    }
}

fn unknown(at: impl Into<Str>, word: &str, words: &str) -> Invalid {
    invalid(at, arcstr::format!("{:?} is not {words}", clip(word)))
}

fn keepalive(wire: KeepaliveWire, at: &str) -> Result<TcpKeepalive, Invalid> {
    Ok(TcpKeepalive {
        probes: wire.probes.filter(|probes| *probes > 0),
        time: part(wire.time, at, "time")?,
        interval: part(wire.interval, at, "interval")?,
    })
}

fn locality(wire: destination_rule::LocalityWire, at: &str) -> Result<LocalityLb, Invalid> {
    destination_rule::locality(wire, at)
}

fn retries(wire: RetryWire, at: &str) -> Result<Retries, Invalid> {
    let attempts = wire.attempts.unwrap_or_default();
    let attempts = u32::try_from(attempts)
        .ok()
        .filter(|attempts| i32::try_from(*attempts).is_ok())
        .ok_or_else(|| {
            let reason = arcstr::format!("{attempts} is not a number of attempts");
            invalid(format!("{at}.attempts"), reason)
        })?;
    let given = [
        ("perTryTimeout", wire.per_try_timeout.is_some()),
        ("retryOn", wire.retry_on.is_some()),
        (
            "retryRemoteLocalities",
            wire.retry_remote_localities.is_some(),
        ),
    ];
    if attempts == 0
        && let Some((name, _)) = given.iter().find(|(_, given)| *given)
    {
        let reason = "retries are off when attempts is 0, so this cannot be given with it";
        return Err(invalid(format!("{at}.{name}"), reason));
    }
    Ok(Retries {
        attempts,
        per_try_timeout: part(wire.per_try_timeout, at, "perTryTimeout")?,
        retry_on: retry_on(wire.retry_on.unwrap_or_default(), at)?,
        remote_localities: wire.retry_remote_localities.unwrap_or_default(),
        ignore_previous_hosts: wire.retry_ignore_previous_hosts,
        backoff: part(wire.backoff, at, "backoff")?,
    })
}

/// Conditions, or statuses. They are not trimmed, as istiod does not trim them either.
fn retry_on(text: String, at: &str) -> Result<Vec<Str>, Invalid> {
    const CONDITIONS: [&str; 16] = [
        "5xx",
        "cancelled",
        "connect-failure",
        "deadline-exceeded",
        "envoy-ratelimited",
        "gateway-error",
        "http3-post-connect-failure",
        "internal",
        "refused-stream",
        "reset",
        "reset-before-request",
        "resource-exhausted",
        "retriable-4xx",
        "retriable-headers",
        "retriable-status-codes",
        "unavailable",
    ];
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let mut out = Vec::new();
    for word in text.split(',') {
        let status = word.parse::<u16>().ok();
        let is_status = status.is_some_and(|status| (100..600).contains(&status));
        if !is_status && !CONDITIONS.contains(&word) {
            return Err(unknown(
                format!("{at}.retryOn"),
                word,
                "a condition of retries or an HTTP status (there are no spaces between them)",
            ));
        }
        out.push(Str::from(word));
    }
    Ok(out)
}

/// Namespaces that see what says nothing of it.
fn export_to(list: Vec<String>, at: &str) -> Result<Vec<Str>, Invalid> {
    for (i, ns) in list.iter().enumerate() {
        let at = || format!("{at}[{i}]");
        if !matches!(ns.as_str(), "." | "*" | "~") && !is_dns_label(ns) {
            return Err(unknown(at(), ns, "a namespace, . or *"));
        }
        if list.len() > 1 && matches!(ns.as_str(), "*" | "~") {
            return Err(invalid(at(), "it stands alone or not at all"));
        }
        if list.iter().take(i).any(|other| other == ns) {
            return Err(invalid(at(), "it is given twice"));
        }
    }
    Ok(list.into_iter().map(Str::from).collect())
}
