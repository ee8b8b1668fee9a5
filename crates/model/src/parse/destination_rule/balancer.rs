//! `loadBalancer`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::Str;
use crate::input::{Balancer, ConsistentHash, HashKey, LoadBalancer, LocalityLb, Warmup};
use crate::object::Invalid;

use super::super::read::{Doc, invalid};
use super::block;
use super::policy::{any_duration, positive};

/// Largest ring that proxies take.
const RING_SIZE_MAX: u64 = 8 * 1024 * 1024;
/// Tables of Maglev are smaller than this.
const TABLE_SIZE_END: u64 = 5_000_011;
/// Longest name and value of an attribute of a cookie that proxies take.
const ATTRIBUTE_BYTES_MAX: usize = 16_384;
/// Most entries of a locality setting.
const LOCALITIES_COUNT_MAX: usize = 256;
/// Labels that `failover` already decides by.
const LOCALITY_LABELS: [&str; 3] = [
    "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone",
    "topology.istio.io/subzone",
];

pub(super) const FIELDS: &[&str] = &[
    "aggression",
    "attributes",
    "consistentHash",
    "distribute",
    "duration",
    "enabled",
    "failover",
    "failoverPriority",
    "from",
    "httpCookie",
    "httpHeaderName",
    "httpQueryParameterName",
    "localityLbSetting",
    "maglev",
    "minClusterSize",
    "minimumPercent",
    "minimumRingSize",
    "name",
    "path",
    "ringHash",
    "simple",
    "tableSize",
    "to",
    "ttl",
    "useSourceIp",
    "value",
    "warmup",
    "warmupDurationSecs",
    "zoneAwareLbSetting",
];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct BalancerWire {
    simple: Option<String>,
    consistent_hash: Option<Value>,
    locality_lb_setting: Option<Value>,
    zone_aware_lb_setting: Option<Value>,
    warmup_duration_secs: Option<String>,
    warmup: Option<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct HashWire {
    http_header_name: Option<String>,
    http_cookie: Option<CookieWire>,
    use_source_ip: Option<bool>,
    http_query_parameter_name: Option<String>,
    ring_hash: Option<RingWire>,
    maglev: Option<MaglevWire>,
    minimum_ring_size: Option<u64>,
}

#[derive(Deserialize)]
struct CookieWire {
    name: Option<String>,
    path: Option<String>,
    ttl: Option<String>,
    attributes: Option<Vec<AttributeWire>>,
}

#[derive(Deserialize)]
struct AttributeWire {
    name: Option<String>,
    value: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RingWire {
    minimum_ring_size: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MaglevWire {
    table_size: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WarmupWire {
    duration: Option<String>,
    minimum_percent: Option<f64>,
    aggression: Option<f64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::parse) struct LocalityWire {
    enabled: Option<bool>,
    distribute: Option<Vec<DistributeWire>>,
    failover: Option<Vec<FailoverWire>>,
    failover_priority: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct DistributeWire {
    from: Option<String>,
    to: Option<BTreeMap<String, u32>>,
}

#[derive(Deserialize)]
struct FailoverWire {
    from: Option<String>,
    to: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ZoneAwareWire {
    enabled: Option<bool>,
    failover: Option<Vec<Value>>,
    failover_priority: Option<Vec<String>>,
    min_cluster_size: Option<Value>,
}

pub(super) fn balancer(
    doc: &mut Doc<'_>,
    wire: BalancerWire,
    at: &str,
) -> Result<LoadBalancer, Invalid> {
    let simple = simple(wire.simple.as_deref(), at)?;
    let at_hash = format!("{at}.consistentHash");
    let hash = block(doc, wire.consistent_hash, &at_hash, FIELDS, hash);
    let balancer = match (simple, hash) {
        (Balancer::Unspecified, Some(hash)) => Balancer::Hash(hash),
        (simple, None) => simple,
        (_, Some(_)) => {
            return Err(invalid(
                at_hash,
                "simple and consistentHash exclude each other",
            ));
        }
    };
    let at_warmup = format!("{at}.warmup");
    let warmup = block(doc, wire.warmup, &at_warmup, FIELDS, |_, wire, at| {
        warmup(&wire, at)
    });
    let bare = positive(wire.warmup_duration_secs.as_ref(), at, "warmupDurationSecs")?;
    let at_zone = format!("{at}.zoneAwareLbSetting");
    let zone_aware = block(
        doc,
        wire.zone_aware_lb_setting,
        &at_zone,
        FIELDS,
        |doc, wire: ZoneAwareWire, at| Ok(zone_aware(doc, &wire, at)),
    );
    let at_locality = format!("{at}.localityLbSetting");
    let locality = block(
        doc,
        wire.locality_lb_setting,
        &at_locality,
        FIELDS,
        |_, wire, at| {
            if zone_aware.is_some() {
                return Err(invalid(at, "zoneAwareLbSetting excludes it"));
            }
            locality(wire, at)
        },
    );
    Ok(LoadBalancer {
        balancer,
        warmup: warmup.or(bare.map(|duration| Warmup {
            duration,
            minimum_percent: 10.0,
            aggression: 1.0,
        })),
        locality,
        zone_aware: zone_aware.unwrap_or_default(),
    })
}

fn simple(word: Option<&str>, at: &str) -> Result<Balancer, Invalid> {
    match word {
        None | Some("" | "UNSPECIFIED") => Ok(Balancer::Unspecified),
        Some("LEAST_REQUEST" | "LEAST_CONN") => Ok(Balancer::LeastRequest),
        Some("ROUND_ROBIN") => Ok(Balancer::RoundRobin),
        Some("RANDOM") => Ok(Balancer::Random),
        Some("PASSTHROUGH") => Ok(Balancer::Passthrough),
        Some(_) => Err(invalid(
            format!("{at}.simple"),
            "not LEAST_REQUEST, ROUND_ROBIN, RANDOM or PASSTHROUGH",
        )),
    }
}

fn hash(_: &mut Doc<'_>, wire: HashWire, at: &str) -> Result<ConsistentHash, Invalid> {
    let mut keys = Vec::new();
    if let Some(name) = wire.http_header_name {
        if !is_token(&name) {
            return Err(invalid(format!("{at}.httpHeaderName"), "not a header name"));
        }
        keys.push(HashKey::Header(Str::from(name.to_ascii_lowercase())));
    }
    if let Some(wire) = wire.http_cookie {
        keys.push(cookie(wire, &format!("{at}.httpCookie"))?);
    }
    if wire.use_source_ip == Some(true) {
        keys.push(HashKey::SourceIp);
    }
    if let Some(name) = wire.http_query_parameter_name {
        if name.is_empty() || name.chars().any(char::is_control) {
            let place = format!("{at}.httpQueryParameterName");
            return Err(invalid(place, "not the name of a parameter"));
        }
        keys.push(HashKey::QueryParameter(Str::from(name)));
    }
    if keys.len() > 1 {
        return Err(invalid(at, "there is more than one key"));
    }
    if wire.ring_hash.is_some() && wire.maglev.is_some() {
        return Err(invalid(at, "ringHash and maglev exclude each other"));
    }
    let explicit = wire.ring_hash.is_some() || wire.maglev.is_some();
    if wire.minimum_ring_size.is_some_and(|size| size > 0) && explicit {
        let reason = "ringHash and maglev replace it";
        return Err(invalid(format!("{at}.minimumRingSize"), reason));
    }
    let ring = wire.ring_hash.map(|ring| ring.minimum_ring_size);
    let ring_size = ring.unwrap_or(wire.minimum_ring_size);
    if ring_size.is_some_and(|size| size > RING_SIZE_MAX) {
        let reason = arcstr::format!("a ring has at most {RING_SIZE_MAX} entries");
        return Err(invalid(at, reason));
    }
    let maglev = wire.maglev.map(|maglev| maglev.table_size);
    if let Some(Some(size)) = maglev
        && (size >= TABLE_SIZE_END || !is_prime(size))
    {
        let reason = arcstr::format!("not a prime below {TABLE_SIZE_END}");
        return Err(invalid(format!("{at}.maglev.tableSize"), reason));
    }
    Ok(ConsistentHash {
        key: keys.pop(),
        maglev,
        ring_size: ring_size.filter(|size| *size > 0),
    })
}

fn cookie(wire: CookieWire, at: &str) -> Result<HashKey, Invalid> {
    let name = wire.name.unwrap_or_default();
    if !is_token(&name) {
        return Err(invalid(format!("{at}.name"), "not the name of a cookie"));
    }
    let is_value = |text: &str| !text.chars().any(|c| c.is_control() || c == ';');
    let path = wire.path.unwrap_or_default();
    if !is_value(&path) {
        return Err(invalid(format!("{at}.path"), "not a path"));
    }
    let mut attributes: Vec<(Str, Str)> = Vec::new();
    for (i, wire) in wire.attributes.into_iter().flatten().enumerate() {
        let place = format!("{at}.attributes[{i}]");
        let name = wire.name.unwrap_or_default();
        let value = wire.value.unwrap_or_default();
        if !is_token(&name) || !is_value(&value) {
            return Err(invalid(place, "not an attribute of a cookie"));
        }
        if name.len().max(value.len()) > ATTRIBUTE_BYTES_MAX {
            let reason = arcstr::format!("longer than {ATTRIBUTE_BYTES_MAX} bytes");
            return Err(invalid(place, reason));
        }
        if attributes.iter().any(|(known, _)| *known == *name) {
            return Err(invalid(place, "an earlier attribute has this name"));
        }
        attributes.push((Str::from(name), Str::from(value)));
    }
    Ok(HashKey::Cookie {
        ttl: any_duration(wire.ttl.as_ref(), at, "ttl")?,
        name: Str::from(name),
        path: Str::from(path),
        attributes,
    })
}

/// As HTTP has names of headers and cookies.
fn is_token(text: &str) -> bool {
    let plain = |c: u8| c.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&c);
    !text.is_empty() && text.bytes().all(plain)
}

/// For numbers below [`TABLE_SIZE_END`].
fn is_prime(number: u64) -> bool {
    let mut divisors = (2..).take_while(|divisor| divisor * divisor <= number);
    number > 1 && divisors.all(|divisor| !number.is_multiple_of(divisor))
}

fn warmup(wire: &WarmupWire, at: &str) -> Result<Warmup, Invalid> {
    let duration = positive(wire.duration.as_ref(), at, "duration")?
        .ok_or_else(|| invalid(format!("{at}.duration"), "a duration is required"))?;
    let minimum_percent = wire.minimum_percent.unwrap_or(10.0);
    if !(0.0..=100.0).contains(&minimum_percent) {
        return Err(invalid(format!("{at}.minimumPercent"), "not a percentage"));
    }
    let aggression = wire.aggression.unwrap_or(1.0);
    if !aggression.is_finite() || aggression <= 0.0 {
        return Err(invalid(format!("{at}.aggression"), "not above 0"));
    }
    Ok(Warmup {
        duration,
        minimum_percent,
        aggression,
    })
}

fn zone_aware(doc: &mut Doc<'_>, wire: &ZoneAwareWire, at: &str) -> bool {
    let given = [
        ("failover", wire.failover.is_some()),
        ("failoverPriority", wire.failover_priority.is_some()),
        ("minClusterSize", wire.min_cluster_size.is_some()),
    ];
    for (name, _) in given.iter().filter(|(_, given)| *given) {
        let effect = "waypoints do not route by zones in this way";
        doc.not_applied(format!("{at}.{name}"), effect);
    }
    wire.enabled.unwrap_or(true)
}

pub(in crate::parse) fn locality(wire: LocalityWire, at: &str) -> Result<LocalityLb, Invalid> {
    let mut distribute = Vec::new();
    for (i, wire) in wire.distribute.into_iter().flatten().enumerate() {
        distribute.push(share(wire, &format!("{at}.distribute[{i}]"))?);
    }
    let froms: Vec<&str> = distribute
        .iter()
        .map(|(from, _): &(Str, _)| from.as_str())
        .collect();
    if let Some(i) = overlap(&froms) {
        let place = format!("{at}.distribute[{i}].from");
        return Err(invalid(place, "it overlaps with another"));
    }
    let mut failover = Vec::new();
    for (i, wire) in wire.failover.into_iter().flatten().enumerate() {
        let (from, to) = (wire.from.unwrap_or_default(), wire.to.unwrap_or_default());
        let is_region = |text: &str| !text.is_empty() && !text.contains(['/', '*']);
        if from == to || !is_region(&from) || !is_region(&to) {
            let place = format!("{at}.failover[{i}]");
            return Err(invalid(place, "from and to are two different regions"));
        }
        failover.push((Str::from(from), Str::from(to)));
    }
    let labels = wire.failover_priority.unwrap_or_default();
    let mut keys = labels
        .iter()
        .map(|label| label.split('=').next().unwrap_or_default());
    let place = |i: usize| format!("{at}.failoverPriority[{i}]");
    if let Some(i) = keys.clone().position(str::is_empty) {
        return Err(invalid(place(i), "not the key of a label"));
    }
    if !distribute.is_empty() && (!failover.is_empty() || !labels.is_empty()) {
        return Err(invalid(at, "distribute and failover exclude each other"));
    }
    if !failover.is_empty()
        && let Some(i) = keys.position(|key| LOCALITY_LABELS.contains(&key))
    {
        return Err(invalid(place(i), "failover already decides by it"));
    }
    let longest = distribute.len().max(failover.len()).max(labels.len());
    if longest > LOCALITIES_COUNT_MAX {
        let reason = arcstr::format!("more than {LOCALITIES_COUNT_MAX} entries");
        return Err(invalid(at, reason));
    }
    Ok(LocalityLb {
        enabled: wire.enabled,
        distribute,
        failover,
        failover_priority: labels.into_iter().map(Str::from).collect(),
    })
}

fn share(wire: DistributeWire, at: &str) -> Result<(Str, BTreeMap<Str, u32>), Invalid> {
    let from = wire.from.unwrap_or_default();
    if from.is_empty() {
        return Err(invalid(format!("{at}.from"), "a locality is required"));
    }
    let to = wire.to.unwrap_or_default();
    let in_range = to.values().all(|weight| (1..=100).contains(weight));
    if !in_range || to.len() > 100 || to.values().sum::<u32>() != 100 {
        let reason = "weights are from 1 to 100 and sum up to 100";
        return Err(invalid(format!("{at}.to"), reason));
    }
    let places: Vec<&str> = to.keys().map(String::as_str).collect();
    if places.iter().any(|place| place.is_empty()) || overlap(&places).is_some() {
        let reason = "localities are not empty and do not overlap";
        return Err(invalid(format!("{at}.to"), reason));
    }
    let to = to
        .into_iter()
        .map(|(place, weight)| (Str::from(place), weight));
    Ok((Str::from(from), to.collect()))
}

/// The first locality that has one before it which covers it or is covered by it.
fn overlap(places: &[&str]) -> Option<usize> {
    let meets = |a: &str, b: &str| {
        let mut pairs = a.split('/').zip(b.split('/'));
        pairs.all(|(a, b)| a == b || a == "*" || b == "*")
    };
    (0..places.len()).find(|i| {
        let (before, rest) = places.split_at(*i);
        let here = rest.first();
        here.is_some_and(|here| before.iter().any(|other| meets(here, other)))
    })
}
