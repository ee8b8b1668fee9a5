//! What a ztunnel must hold, in the form of its own `/config_dump`, made of what
//! `ambientd render --for ztunnel` says.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use serde_json::{Map, Value, json};

/// Workloads, services and policies by resource name.
pub type Dump = BTreeMap<String, Value>;

/// What the rendered resources look like once ztunnel holds them.
///
/// # Errors
/// When the rendered text is not what `render` prints.
pub fn expected(rendered: &Value) -> anyhow::Result<Dump> {
    let of_type = |name: &str| {
        let types = rendered.as_object().into_iter().flatten();
        let found = types
            .into_iter()
            .find(|(url, _)| url.ends_with(name))
            .and_then(|(_, resources)| resources.as_object());
        found.cloned().unwrap_or_default()
    };
    let addresses = of_type("istio.workload.Address");
    let workloads = addresses.values().filter_map(|one| one.get("workload"));
    let workloads: Vec<&Value> = workloads.collect();
    let mut dump = Dump::new();
    for (name, address) in &addresses {
        let value = match (address.get("workload"), address.get("service")) {
            (Some(one), _) => workload(one)?,
            (_, Some(one)) => service(name, one, &workloads)?,
            _ => continue,
        };
        dump.insert(name.clone(), value);
    }
    for (name, one) in of_type("istio.security.Authorization") {
        dump.insert(format!("policy {name}"), policy(&one)?);
    }
    Ok(dump)
}

/// The same of a `/config_dump`. ztunnel drops unhealthy endpoints of services unless told not to.
///
/// # Errors
/// When the dump has another form.
pub fn held(dump: &Value) -> anyhow::Result<Dump> {
    let list = |key: &str| -> anyhow::Result<Vec<Value>> {
        let list = dump[key].as_array().with_context(|| format!("no {key}"))?;
        Ok(list.clone())
    };
    let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let mut held = Dump::new();
    for one in list("workloads")? {
        held.insert(text(&one, "uid"), sorted(one));
    }
    for one in list("services")? {
        let name = format!("{}/{}", text(&one, "namespace"), text(&one, "hostname"));
        held.insert(name, sorted(one));
    }
    for one in list("policies")? {
        let name = format!("policy {}/{}", text(&one, "namespace"), text(&one, "name"));
        held.insert(name, sorted(one));
    }
    let staged = &dump["stagedServices"];
    ensure!(
        staged.as_object().is_none_or(Map::is_empty),
        "endpoints wait for their services: {staged}"
    );
    Ok(held)
}

/// The differences of two dumps, a line each.
pub fn differences(held: &Dump, expected: &Dump) -> Vec<String> {
    let names = held.keys().chain(expected.keys());
    let names: std::collections::BTreeSet<_> = names.collect();
    let differ = names.into_iter().filter_map(|name| {
        let (held, expected) = (held.get(name), expected.get(name));
        (held != expected).then(|| format!("{name}:\n  held     {held:?}\n  expected {expected:?}"))
    });
    differ.collect()
}

/// Sets in the order of their text, since ztunnel prints them in any order.
fn sorted(mut value: Value) -> Value {
    if let Some(map) = value.as_object_mut() {
        for key in ["vips", "cidrVips", "services"] {
            if let Some(Value::Array(list)) = map.get_mut(key) {
                list.sort_by_key(Value::to_string);
            }
        }
    }
    value
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn or_default<'a>(text: &'a str, default: &'a str) -> &'a str {
    if text.is_empty() { default } else { text }
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn ip(value: &Value) -> anyhow::Result<IpAddr> {
    let bytes =
        base64::engine::general_purpose::STANDARD.decode(value.as_str().context("no address")?)?;
    match bytes[..] {
        [a, b, c, d] => Ok(IpAddr::from([a, b, c, d])),
        _ => Ok(IpAddr::from(<[u8; 16]>::try_from(bytes.as_slice())?)),
    }
}

fn network_address(value: &Value) -> anyhow::Result<String> {
    Ok(format!(
        "{}/{}",
        text(value, "network"),
        ip(&value["address"])?
    ))
}

fn gateway(value: &Value) -> anyhow::Result<Value> {
    let destination = match (value.get("hostname"), value.get("address")) {
        (Some(name), _) => format!("{}/{}", text(name, "namespace"), text(name, "hostname")),
        (_, Some(address)) => network_address(address)?,
        _ => String::new(),
    };
    Ok(json!({"destination": destination, "hboneMtlsPort": value["hboneMtlsPort"]}))
}

/// An object without the fields that ztunnel leaves out when they say nothing.
fn object(fields: impl IntoIterator<Item = (&'static str, Value)>) -> Value {
    let says_something = |value: &Value| match value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Bool(flag) => *flag,
        _ => true,
    };
    let kept = fields
        .into_iter()
        .filter(|(_, value)| says_something(value));
    Value::Object(kept.map(|(key, value)| (key.to_owned(), value)).collect())
}

fn health(value: &Value) -> &'static str {
    if text(value, "status") == "UNHEALTHY" {
        "Unhealthy"
    } else {
        "Healthy"
    }
}

fn workload(one: &Value) -> anyhow::Result<Value> {
    let ips = list(one, "addresses").iter().map(ip);
    let ips: Vec<String> = ips
        .map(|ip| ip.map(|ip| ip.to_string()))
        .collect::<Result<_, _>>()?;
    let optional = |key: &str| one.get(key).map(gateway).transpose();
    let tunnel = one.get("applicationTunnel").map(|tunnel| {
        let protocol = or_default(text(tunnel, "protocol"), "NONE").to_owned();
        json!({"protocol": protocol, "port": tunnel.get("port")})
    });
    let services = one["services"].as_object().into_iter().flatten();
    let services = services.map(|(key, _)| key);
    let locality = one.get("locality").map(|locality| {
        let part = |key: &str| text(locality, key).to_owned();
        json!({"region": part("region"), "zone": part("zone"), "subzone": part("subzone")})
    });
    let mut row = object([
        ("uid", one["uid"].clone()),
        ("namespace", one["namespace"].clone()),
        (
            "trustDomain",
            json!(or_default(text(one, "trustDomain"), "cluster.local")),
        ),
        (
            "serviceAccount",
            json!(or_default(text(one, "serviceAccount"), "default")),
        ),
        ("network", json!(text(one, "network"))),
        ("workloadName", json!(text(one, "workloadName"))),
        (
            "workloadType",
            json!(or_default(text(one, "workloadType"), "DEPLOYMENT").to_lowercase()),
        ),
        ("canonicalName", json!(text(one, "canonicalName"))),
        ("canonicalRevision", json!(text(one, "canonicalRevision"))),
        ("hostname", json!(text(one, "hostname"))),
        ("node", json!(text(one, "node"))),
        ("nativeTunnel", json!(one["nativeTunnel"] == true)),
        (
            "authorizationPolicies",
            json!(list(one, "authorizationPolicies")),
        ),
        ("services", json!(services.collect::<Vec<_>>())),
        ("waypoint", optional("waypoint")?.unwrap_or_default()),
        (
            "networkGateway",
            optional("networkGateway")?.unwrap_or_default(),
        ),
        ("applicationTunnel", tunnel.unwrap_or_default()),
        ("locality", locality.unwrap_or_default()),
    ]);
    let hbone = text(one, "tunnelProtocol") == "HBONE";
    let host = text(one, "networkMode") == "HOST_NETWORK";
    row["name"] = one["name"].clone();
    row["workloadIps"] = json!(ips);
    row["protocol"] = json!(if hbone { "HBONE" } else { "TCP" });
    row["networkMode"] = json!(if host { "HostNetwork" } else { "Standard" });
    row["status"] = json!(health(one));
    row["clusterId"] = json!(or_default(text(one, "clusterId"), "Kubernetes"));
    row["capacity"] = one.get("capacity").cloned().unwrap_or(json!(1));
    Ok(sorted(row))
}

fn ports(ports: &[Value]) -> Value {
    let entries = ports.iter().map(|port| {
        let target = port.get("targetPort").cloned().unwrap_or(json!(0));
        (port["servicePort"].to_string(), target)
    });
    Value::Object(entries.collect())
}

fn service(name: &str, one: &Value, workloads: &[&Value]) -> anyhow::Result<Value> {
    let (mut vips, mut blocks) = (Vec::new(), Vec::new());
    for address in list(one, "addresses") {
        let text = network_address(address)?;
        match address.get("length") {
            Some(length) => blocks.push(json!(format!("{text}/{length}"))),
            None => vips.push(json!(text)),
        }
    }
    let balancing = one.get("loadBalancing");
    let all = balancing.is_some_and(|one| text(one, "healthPolicy") == "ALLOW_ALL");
    let endpoints = workloads.iter().filter_map(|workload| {
        let list_of_ports = list(workload["services"].get(name)?, "ports");
        let status = health(workload);
        let uid = workload["uid"].as_str()?;
        let row = json!({"port": ports(list_of_ports), "status": status, "workloadUid": uid});
        (all || status == "Healthy").then(|| (uid.to_owned(), row))
    });
    let endpoints = Value::Object(endpoints.collect());
    let weighted: Vec<Value> = list(one, "weightedWaypoints")
        .iter()
        .map(|share| {
            let weight = share.get("weight").cloned().unwrap_or(json!(0));
            Ok(json!({"destination": gateway(&share["destination"])?, "weight": weight}))
        })
        .collect::<anyhow::Result<_>>()?;
    let families = match text(one, "ipFamilies") {
        "IPV4_ONLY" => json!("IPv4"),
        "IPV6_ONLY" => json!("IPv6"),
        "DUAL" => json!("Dual"),
        _ => Value::Null,
    };
    let waypoint = one.get("waypoint").map(gateway).transpose()?;
    let mut row = object([
        ("cidrVips", json!(blocks)),
        ("waypoint", waypoint.unwrap_or_default()),
        ("weightedWaypoints", json!(weighted)),
        (
            "loadBalancer",
            balancing.map(load_balancer).unwrap_or_default(),
        ),
        ("ipFamilies", families),
    ]);
    for key in ["name", "namespace", "hostname"] {
        row[key] = json!(text(one, key));
    }
    let private = text(one, "visibility") == "NAMESPACE";
    row["vips"] = json!(vips);
    row["ports"] = ports(list(one, "ports"));
    row["endpoints"] = endpoints;
    row["subjectAltNames"] = json!(list(one, "subjectAltNames"));
    row["canonical"] = json!(one["canonical"] == true);
    row["visibility"] = json!(if private { "Namespace" } else { "Public" });
    Ok(sorted(row))
}

fn capitalised(word: &str) -> String {
    let mut letters = word.chars();
    let first = letters.next().map(|letter| letter.to_ascii_uppercase());
    first
        .into_iter()
        .chain(letters.map(|letter| letter.to_ascii_lowercase()))
        .collect()
}

fn load_balancer(one: &Value) -> Value {
    let scopes = list(one, "routingPreference")
        .iter()
        .filter_map(|scope| Some(capitalised(scope.as_str()?)));
    let mode = match text(one, "mode") {
        "" | "UNSPECIFIED_MODE" => "Standard".to_owned(),
        word => capitalised(word),
    };
    let all = text(one, "healthPolicy") == "ALLOW_ALL";
    json!({
        "routingPreferences": scopes.collect::<Vec<_>>(),
        "mode": mode,
        "healthPolicy": if all { "AllowAll" } else { "OnlyHealthy" },
    })
}

fn policy(one: &Value) -> anyhow::Result<Value> {
    let rules = list(one, "groups").iter().map(|group| {
        let clauses = list(group, "rules").iter().map(|rule| {
            let matches = list(rule, "matches").iter().map(policy_match);
            matches.collect::<anyhow::Result<Vec<_>>>()
        });
        clauses.collect::<anyhow::Result<Vec<_>>>()
    });
    let rules = rules.collect::<anyhow::Result<Vec<_>>>()?;
    let scope = match text(one, "scope") {
        "WORKLOAD_SELECTOR" => "WorkloadSelector",
        "NAMESPACE" => "Namespace",
        _ => "Global",
    };
    let deny = text(one, "action") == "DENY";
    Ok(json!({
        "name": text(one, "name"),
        "namespace": text(one, "namespace"),
        "scope": scope,
        "action": if deny { "Deny" } else { "Allow" },
        "rules": rules,
        "dryRun": one["dryRun"] == true,
    }))
}

fn policy_match(one: &Value) -> anyhow::Result<Value> {
    let mut out = Map::new();
    for (key, values) in one.as_object().context("a match")? {
        let values = values.as_array().context("values")?.iter().map(|value| {
            let text_of = |kind: &str| value.get(kind).cloned();
            Ok(
                match key.trim_start_matches("not").to_lowercase().as_str() {
                    "principals" | "namespaces" => {
                        if let Some(text) = text_of("exact") {
                            json!({"Exact": text})
                        } else if let Some(text) = text_of("prefix") {
                            json!({"Prefix": text})
                        } else if let Some(text) = text_of("suffix") {
                            json!({"Suffix": text})
                        } else {
                            json!({"Presence": []})
                        }
                    }
                    "sourceips" | "destinationips" => {
                        let length = value.get("length").cloned().unwrap_or(json!(0));
                        json!(format!("{}/{length}", ip(&value["address"])?))
                    }
                    _ => value.clone(),
                },
            )
        });
        let values = values.collect::<anyhow::Result<Vec<_>>>()?;
        out.insert(key.clone(), json!(values));
    }
    Ok(Value::Object(out))
}
