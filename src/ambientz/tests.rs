#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::sync::Arc;

use model::{ObjectKey, Str};
use proto::workload::{application_tunnel, load_balancing, service};
use proto::{Any, type_url};
use snapshot::{EncodedResource, ResourceMap, ResourceType};

use super::*;

fn ip(text: &str) -> Bytes {
    match text.parse().unwrap() {
        IpAddr::V4(ip) => Bytes::copy_from_slice(&ip.octets()),
        IpAddr::V6(ip) => Bytes::copy_from_slice(&ip.octets()),
    }
}

fn by_ip(text: &str) -> wds::GatewayAddress {
    let address = wds::NetworkAddress {
        network: "n1".to_owned(),
        address: ip(text),
        length: Some(24),
    };
    wds::GatewayAddress {
        destination: Some(gateway_address::Destination::Address(address)),
        hbone_mtls_port: 15008,
    }
}

fn by_host() -> wds::GatewayAddress {
    let host = wds::NamespacedHostname {
        namespace: "ns".to_owned(),
        hostname: "wp.example".to_owned(),
    };
    wds::GatewayAddress {
        destination: Some(gateway_address::Destination::Hostname(host)),
        hbone_mtls_port: 15008,
    }
}

fn port() -> wds::Port {
    wds::Port {
        service_port: 80,
        target_port: 8080,
        app_protocol: wds::AppProtocol::Http2.into(),
    }
}

fn extension() -> wds::Extension {
    wds::Extension {
        name: "e".to_owned(),
        config: Some(Any {
            type_url: "type.googleapis.com/google.protobuf.StringValue".to_owned(),
            value: "x".to_owned().encode_to_vec(),
        }),
    }
}

/// Every field set; without `..`, so that a new field must be thought of here.
fn full_workload() -> wds::Workload {
    wds::Workload {
        uid: "u".to_owned(),
        name: "w".to_owned(),
        namespace: "ns".to_owned(),
        addresses: vec![ip("10.0.0.1"), ip("fd00::1")],
        hostname: "h".to_owned(),
        network: "n1".to_owned(),
        tunnel_protocol: wds::TunnelProtocol::Hbone.into(),
        trust_domain: "td".to_owned(),
        service_account: "sa".to_owned(),
        waypoint: Some(by_ip("10.0.0.2")),
        network_gateway: Some(by_ip("10.0.0.3")),
        node: "node".to_owned(),
        canonical_name: "cn".to_owned(),
        canonical_revision: "cr".to_owned(),
        workload_type: wds::WorkloadType::Pod.into(),
        workload_name: "wn".to_owned(),
        native_tunnel: true,
        application_tunnel: Some(wds::ApplicationTunnel {
            protocol: application_tunnel::Protocol::Proxy.into(),
            port: 15088,
        }),
        services: BTreeMap::from([(
            "ns/host".to_owned(),
            wds::PortList {
                ports: vec![port()],
            },
        )]),
        authorization_policies: vec!["ns/p".to_owned()],
        status: wds::WorkloadStatus::Unhealthy.into(),
        cluster_id: "c".to_owned(),
        locality: Some(wds::Locality {
            region: "r".to_owned(),
            zone: "z".to_owned(),
            subzone: "s".to_owned(),
        }),
        network_mode: wds::NetworkMode::HostNetwork.into(),
        extensions: vec![extension()],
        capacity: Some(7),
    }
}

fn full_service() -> wds::Service {
    wds::Service {
        name: "s".to_owned(),
        namespace: "ns".to_owned(),
        hostname: "host".to_owned(),
        addresses: vec![wds::NetworkAddress {
            network: "n1".to_owned(),
            address: ip("10.0.0.1"),
            length: Some(0),
        }],
        ports: vec![port()],
        subject_alt_names: vec!["san".to_owned()],
        waypoint: Some(by_host()),
        load_balancing: Some(wds::LoadBalancing {
            routing_preference: vec![load_balancing::Scope::Zone.into()],
            mode: load_balancing::Mode::Failover.into(),
            health_policy: load_balancing::HealthPolicy::AllowAll.into(),
        }),
        ip_families: wds::IpFamilies::Dual.into(),
        extensions: vec![extension()],
        canonical: true,
        ingress_use_waypoint: true,
        weighted_waypoints: vec![wds::WeightedWaypoint {
            destination: Some(by_ip("10.0.0.2")),
            weight: 30,
        }],
        visibility: service::Visibility::Namespace.into(),
    }
}

fn full_policy() -> security::Authorization {
    use security::string_match::MatchType;
    let text = |match_type| security::StringMatch {
        match_type: Some(match_type),
    };
    let block = |text| security::Address {
        address: ip(text),
        length: 8,
    };
    let account = || security::ServiceAccountMatch {
        namespace: "ns".to_owned(),
        service_account: "sa".to_owned(),
    };
    let one = security::Match {
        namespaces: vec![text(MatchType::Exact("a".to_owned()))],
        not_namespaces: vec![text(MatchType::Prefix("b".to_owned()))],
        principals: vec![text(MatchType::Suffix("c".to_owned()))],
        not_principals: vec![text(MatchType::Presence(()))],
        source_ips: vec![block("10.0.0.1")],
        not_source_ips: vec![block("10.0.0.2")],
        destination_ips: vec![block("10.0.0.3")],
        not_destination_ips: vec![block("10.0.0.4")],
        destination_ports: vec![80],
        not_destination_ports: vec![81],
        service_accounts: vec![account()],
        not_service_accounts: vec![account()],
        extensions: vec![extension()],
    };
    security::Authorization {
        name: "p".to_owned(),
        namespace: "ns".to_owned(),
        scope: security::Scope::Namespace.into(),
        action: security::Action::Deny.into(),
        groups: vec![security::Group {
            rules: vec![security::Rules { matches: vec![one] }],
        }],
        dry_run: true,
        extensions: vec![extension()],
    }
}

fn extension_json() -> Value {
    json!([{
        "name": "e",
        "config": {"@type": "type.googleapis.com/google.protobuf.StringValue", "value": "x"},
    }])
}

/// As [`full_workload`], with these words for its addresses.
fn workload_json(own: [&str; 2], waypoint: &str, gateway: &str) -> Value {
    let by_ip = |ip: &str| json!({"address": {"network": "n1", "address": ip, "length": 24}, "hboneMtlsPort": 15008});
    json!({
        "uid": "u", "name": "w", "namespace": "ns",
        "addresses": own,
        "hostname": "h", "network": "n1", "tunnelProtocol": "HBONE", "trustDomain": "td",
        "serviceAccount": "sa",
        "waypoint": by_ip(waypoint),
        "networkGateway": by_ip(gateway),
        "node": "node", "canonicalName": "cn", "canonicalRevision": "cr", "workloadType": "POD",
        "workloadName": "wn", "nativeTunnel": true,
        "applicationTunnel": {"protocol": "PROXY", "port": 15088},
        "services": {"ns/host": {"ports": [
            {"servicePort": 80, "targetPort": 8080, "appProtocol": "HTTP2"},
        ]}},
        "authorizationPolicies": ["ns/p"], "status": "UNHEALTHY", "clusterId": "c",
        "locality": {"region": "r", "zone": "z", "subzone": "s"},
        "networkMode": "HOST_NETWORK", "extensions": extension_json(), "capacity": 7,
    })
}

fn service_json(own: &str, canary: &str) -> Value {
    json!({
        "name": "s", "namespace": "ns", "hostname": "host",
        "addresses": [{"network": "n1", "address": own, "length": 0}],
        "ports": [{"servicePort": 80, "targetPort": 8080, "appProtocol": "HTTP2"}],
        "subjectAltNames": ["san"],
        "waypoint": {
            "hostname": {"namespace": "ns", "hostname": "wp.example"}, "hboneMtlsPort": 15008,
        },
        "loadBalancing": {
            "routingPreference": ["ZONE"], "mode": "FAILOVER", "healthPolicy": "ALLOW_ALL",
        },
        "ipFamilies": "DUAL", "extensions": extension_json(), "canonical": true,
        "ingressUseWaypoint": true,
        "weightedWaypoints": [{
            "destination": {
                "address": {"network": "n1", "address": canary, "length": 24},
                "hboneMtlsPort": 15008,
            },
            "weight": 30,
        }],
        "visibility": "NAMESPACE",
    })
}

fn policy_json(ips: [&str; 4]) -> Value {
    let block = |ip: &str| json!([{"address": ip, "length": 8}]);
    let account = json!([{"namespace": "ns", "serviceAccount": "sa"}]);
    json!({
        "name": "p", "namespace": "ns", "scope": "NAMESPACE", "action": "DENY",
        "groups": [{"rules": [{"matches": [{
            "namespaces": [{"exact": "a"}], "notNamespaces": [{"prefix": "b"}],
            "principals": [{"suffix": "c"}], "notPrincipals": [{"presence": {}}],
            "sourceIps": block(ips[0]), "notSourceIps": block(ips[1]),
            "destinationIps": block(ips[2]), "notDestinationIps": block(ips[3]),
            "destinationPorts": [80], "notDestinationPorts": [81],
            "serviceAccounts": account, "notServiceAccounts": account,
            "extensions": extension_json(),
        }]}]}],
        "dryRun": true, "extensions": extension_json(),
    })
}

fn map<M: Message>(ty: ResourceType, resources: &[(&str, M)]) -> ResourceMap {
    let encoded = resources.iter().map(|(name, message)| {
        let bytes = message.encode_to_vec();
        EncodedResource::new(Str::from(*name), ty.type_url(), &bytes, Vec::new())
    });
    encoded.collect()
}

fn snapshot() -> Snapshot {
    let of = |r#type| wds::Address {
        r#type: Some(r#type),
    };
    let addresses = [
        ("u", of(address::Type::Workload(full_workload()))),
        ("ns/host", of(address::Type::Service(full_service()))),
    ];
    let row = |name: &str| WaypointRow {
        key: ObjectKey::new("ns", name),
        class: Str::from("istio-waypoint"),
        controller: Some(model::GatewayController::Waypoint),
        ready: name != "starting",
        address: Some(GatewayAddress::Ip {
            network: Str::new(),
            ip: "10.0.0.1".parse().unwrap(),
        }),
        serves: WaypointFor::All,
        allowed: AllowedNamespaces::Same,
        listener: None,
        takes: Vec::new(),
        service_accounts: vec![Str::from("wp")],
        forwards_identity: false,
        binding: Some(InboundBinding {
            proxy: true,
            port: 15088,
        }),
    };
    let waypoints = ["starting", "wp"].into_iter().map(row);
    Snapshot {
        addresses: map(ResourceType::Address, &addresses),
        authorizations: map(ResourceType::Authorization, &[("ns/p", full_policy())]),
        waypoints: waypoints
            .map(|row| (row.key.clone(), Arc::new(row)))
            .collect(),
        ..Snapshot::default()
    }
}

#[test]
fn addresses_are_base64_of_text_and_every_field_is_there() {
    let waypoint = json!({
        "key": "ns/wp",
        "address": {"address": {"address": "MTAuMC4wLjE="}, "hboneMtlsPort": 15008},
        "trafficType": "all", "serviceAccounts": ["wp"], "allowedNamespaces": "Same",
        "inboundBinding": {"protocol": "PROXY", "port": 15088},
    });
    assert_eq!(
        view(&snapshot()).unwrap(),
        json!({
            "workloads": [workload_json(
                ["MTAuMC4wLjE=", "ZmQwMDo6MQ=="], "MTAuMC4wLjI=", "MTAuMC4wLjM=",
            )],
            "services": [service_json("MTAuMC4wLjE=", "MTAuMC4wLjI=")],
            "policies": [policy_json(
                ["MTAuMC4wLjE=", "MTAuMC4wLjI=", "MTAuMC4wLjM=", "MTAuMC4wLjQ="],
            )],
            "waypoints": [waypoint],
        })
    );
}

#[test]
fn render_shows_every_field_of_what_ztunnel_receives() {
    let rendered =
        crate::render::render(&snapshot(), &crate::target::Target::Ztunnel, &[]).unwrap();
    let workload = workload_json(
        ["CgAAAQ==", "/QAAAAAAAAAAAAAAAAAAAQ=="],
        "CgAAAg==",
        "CgAAAw==",
    );
    assert_eq!(
        rendered,
        json!({
            type_url::ADDRESS: {
                "u": {"workload": workload},
                "ns/host": {"service": service_json("CgAAAQ==", "CgAAAg==")},
            },
            type_url::AUTHORIZATION: {
                "ns/p": policy_json(["CgAAAQ==", "CgAAAg==", "CgAAAw==", "CgAABA=="]),
            },
        })
    );
}
