//! The bootstrap with which stock Envoy joins the mesh as a waypoint or gateway, its
//! certificate in files or from a local agent. Source: spec/envoy-config.md §8.2, §8.4.

use std::collections::BTreeMap;
use std::net::IpAddr;

use model::ObjectKey;
use model::labels::{
    LABEL_GATEWAY_MANAGED, LABEL_GATEWAY_NAME, MANAGED_EAST_WEST, MANAGED_WAYPOINT,
};
use serde_json::{Map, Value, json};

/// Node metadata that asks for `default` and `ROOTCA` of the bootstrap.
pub const METADATA_SECRETS: &str = "AMBIENTD_SECRETS";
/// Node metadata that names the address to bind HBONE on.
pub const METADATA_BIND: &str = "AMBIENTD_BIND";

/// Label value of gateways. Source: spec/envoy-config.md §8.2.
const MANAGED_GATEWAY: &str = "istio.io-gateway-controller";
/// The static cluster of the local agent; generated TLS contexts refer to it by this name.
const AGENT_CLUSTER: &str = "sds-grpc";

/// What the proxy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootstrapRole {
    /// A waypoint.
    Waypoint,
    /// A gateway: node type `router`.
    Router,
    /// A gateway between networks: node type `waypoint`, told apart by its label.
    EastWest,
}

/// Where the certificate and the roots come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BootstrapSecrets {
    /// Files that Envoy reads once, as static secrets.
    Files {
        /// Path of the certificate chain.
        cert_chain: String,
        /// Path of the private key.
        private_key: String,
        /// Path of the roots.
        root: String,
    },
    /// The secret discovery of a local agent, which renews them.
    Agent {
        /// Path of its Unix socket.
        socket: String,
    },
}

/// What a bootstrap says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootstrapOptions {
    /// What the proxy is.
    pub role: BootstrapRole,
    /// The Gateway that the proxy serves.
    pub gateway: ObjectKey,
    /// Name of the proxy's pod, or whatever tells its instances apart.
    pub pod_name: String,
    /// Service account of the certificate.
    pub service_account: String,
    /// Cluster id.
    pub cluster_id: String,
    /// Network, empty for the default one.
    pub network: String,
    /// DNS suffix of the cluster.
    pub domain: String,
    /// Address of the proxy.
    pub ip: IpAddr,
    /// Bind HBONE on that address only.
    pub bind_ip: bool,
    /// Port of the admin interface on loopback.
    pub admin_port: u16,
    /// Host of the control plane: an address or a name.
    pub xds_host: String,
    /// Its port.
    pub xds_port: u16,
    /// DNS name in its certificate.
    pub xds_name: String,
    /// State-of-the-world ADS instead of delta.
    pub sotw: bool,
    /// Where the certificate comes from.
    pub secrets: BootstrapSecrets,
    /// Port of a static listener for `/stats/prometheus` (15090 in clusters); needs a fixed
    /// admin port.
    pub stats_port: Option<u16>,
    /// Further node metadata, such as `ISTIO_META_*` gives; what is said above wins.
    pub metadata: BTreeMap<String, String>,
    /// What is known of the pod besides.
    pub pod: PodInfo,
}

/// What a pod knows of itself by the downward API, as node metadata has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodInfo {
    /// `LABELS`. Those that say what the proxy serves are not taken from here.
    pub labels: BTreeMap<String, String>,
    /// `ANNOTATIONS`.
    pub annotations: BTreeMap<String, String>,
    /// Service cluster of the node; `None` for the Gateway's name and namespace.
    pub cluster: Option<String>,
}

/// The bootstrap as proto-JSON, which is valid YAML too.
pub fn bootstrap(options: &BootstrapOptions) -> Value {
    json!({
        "node": node(options),
        "admin": {"address": socket("127.0.0.1", options.admin_port)},
        "bootstrap_extensions": [{
            "name": "envoy.bootstrap.internal_listener",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.bootstrap.internal_listener.v3.InternalListener",
            },
        }],
        "layered_runtime": {"layers": [{
            "name": "static",
            "static_layer": {
                "re2.max_program_size.error_level": 32768,
                "envoy.reloadable_features.http_reject_path_with_fragment": false,
            },
        }]},
        "dynamic_resources": {
            "lds_config": {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"},
            "cds_config": {"ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s"},
            "ads_config": {
                "api_type": if options.sotw { "GRPC" } else { "DELTA_GRPC" },
                "transport_api_version": "V3",
                "set_node_on_first_message_only": true,
                "grpc_services": [{"envoy_grpc": {"cluster_name": "xds-grpc"}}],
            },
        },
        "static_resources": static_resources(options),
    })
}

fn static_resources(options: &BootstrapOptions) -> Value {
    let (mut clusters, mut listeners) = (vec![control_plane(options)], Vec::new());
    let secrets = match &options.secrets {
        BootstrapSecrets::Files {
            cert_chain,
            private_key,
            root,
        } => static_secrets(cert_chain, private_key, root),
        BootstrapSecrets::Agent { socket } => {
            let pipe = json!({"pipe": {"path": socket}});
            clusters.push(cluster(AGENT_CLUSTER, "STATIC", pipe, true));
            json!([])
        }
    };
    if let Some(port) = options.stats_port {
        let admin = socket("127.0.0.1", options.admin_port);
        clusters.push(cluster("prometheus_stats", "STATIC", admin, false));
        listeners.push(stats_listener(options, port));
    }
    json!({"secrets": secrets, "clusters": clusters, "listeners": listeners})
}

fn node(options: &BootstrapOptions) -> Value {
    let ObjectKey { ns, name } = &options.gateway;
    let mut metadata: Map<String, Value> = options
        .metadata
        .iter()
        .map(|(key, value)| (key.clone(), json!(value)))
        .collect();
    let mut set = |key: &str, value: Value| metadata.insert(key.to_owned(), value);
    let (kind, managed) = match options.role {
        BootstrapRole::Waypoint => ("waypoint", MANAGED_WAYPOINT),
        BootstrapRole::Router => ("router", MANAGED_GATEWAY),
        BootstrapRole::EastWest => ("waypoint", MANAGED_EAST_WEST),
    };
    set("NAME", json!(options.pod_name));
    set("NAMESPACE", json!(ns.as_str()));
    set("SERVICE_ACCOUNT", json!(options.service_account));
    set("CLUSTER_ID", json!(options.cluster_id));
    set("INSTANCE_IPS", json!(options.ip.to_string()));
    let secrets = match options.secrets {
        BootstrapSecrets::Files { .. } => "static",
        BootstrapSecrets::Agent { .. } => "sds",
    };
    set(METADATA_SECRETS, json!(secrets));
    let mut labels = options.pod.labels.clone();
    labels.insert(LABEL_GATEWAY_NAME.to_owned(), name.to_string());
    labels.insert(LABEL_GATEWAY_MANAGED.to_owned(), managed.to_owned());
    set("LABELS", json!(labels));
    if !options.pod.annotations.is_empty() {
        set("ANNOTATIONS", json!(options.pod.annotations));
    }
    if !options.network.is_empty() {
        set("NETWORK", json!(options.network));
    }
    if options.bind_ip {
        set(METADATA_BIND, json!(options.ip.to_string()));
    }
    let id = format!(
        "{kind}~{}~{}.{ns}~{ns}.svc.{}",
        options.ip, options.pod_name, options.domain
    );
    let own = || format!("{name}.{ns}");
    let cluster = options.pod.cluster.clone().unwrap_or_else(own);
    json!({"id": id, "cluster": cluster, "metadata": metadata})
}

fn static_secrets(cert_chain: &str, private_key: &str, root: &str) -> Value {
    json!([
        {"name": "default", "tls_certificate": {
            "certificate_chain": {"filename": cert_chain},
            "private_key": {"filename": private_key},
        }},
        {"name": "ROOTCA", "validation_context": {
            "trusted_ca": {"filename": root},
        }},
    ])
}

/// A reference to a secret: a static one of the bootstrap, or one of the local agent.
fn secret(name: &str, secrets: &BootstrapSecrets) -> Value {
    match secrets {
        BootstrapSecrets::Files { .. } => json!({"name": name}),
        BootstrapSecrets::Agent { .. } => json!({"name": name, "sds_config": {
            "resource_api_version": "V3",
            "initial_fetch_timeout": "0s",
            "api_config_source": {
                "api_type": "GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": true,
                "grpc_services": [{"envoy_grpc": {"cluster_name": AGENT_CLUSTER}}],
            },
        }}),
    }
}

/// A cluster with one endpoint.
fn cluster(name: &str, kind: &str, address: Value, is_http2: bool) -> Value {
    let mut cluster = json!({
        "name": name,
        "type": kind,
        "connect_timeout": "5s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    });
    if let Some(fields) = cluster.as_object_mut().filter(|_| is_http2) {
        fields.insert("typed_extension_protocol_options".to_owned(), json!({
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {
                    "connection_keepalive": {"interval": "30s", "timeout": "10s"},
                }},
            },
        }));
    }
    cluster
}

fn control_plane(options: &BootstrapOptions) -> Value {
    let is_address = options.xds_host.parse::<IpAddr>().is_ok();
    let kind = if is_address { "STATIC" } else { "STRICT_DNS" };
    let address = socket(&options.xds_host, options.xds_port);
    let mut cluster = cluster("xds-grpc", kind, address, true);
    let tls = json!({
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
            "sni": options.xds_name,
            "common_tls_context": {
                "alpn_protocols": ["h2"],
                "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
                "tls_certificate_sds_secret_configs": [secret("default", &options.secrets)],
                "combined_validation_context": {
                    "default_validation_context": {"match_typed_subject_alt_names": [
                        {"san_type": "DNS", "matcher": {"exact": options.xds_name}},
                    ]},
                    "validation_context_sds_secret_config": secret("ROOTCA", &options.secrets),
                },
            },
        },
    });
    if let Some(fields) = cluster.as_object_mut() {
        fields.insert("transport_socket".to_owned(), tls);
    }
    cluster
}

/// `/stats/prometheus` for scrapers, and nothing else of the admin interface.
fn stats_listener(options: &BootstrapOptions, port: u16) -> Value {
    let host = match (options.bind_ip, options.ip) {
        (true, ip) => ip.to_string(),
        (false, IpAddr::V4(_)) => "0.0.0.0".to_owned(),
        (false, IpAddr::V6(_)) => "::".to_owned(),
    };
    json!({
        "name": "stats",
        "address": socket(&host, port),
        "bypass_overload_manager": true,
        "filter_chains": [{"filters": [{
            "name": "envoy.filters.network.http_connection_manager",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                "stat_prefix": "stats",
                "http_filters": [{
                    "name": "envoy.filters.http.router",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
                    },
                }],
                "route_config": {"name": "stats", "virtual_hosts": [{
                    "name": "stats",
                    "domains": ["*"],
                    "routes": [{
                        "match": {"path": "/stats/prometheus"},
                        "route": {"cluster": "prometheus_stats"},
                    }],
                }]},
            },
        }]}],
    })
}

fn socket(host: &str, port: u16) -> Value {
    json!({"socket_address": {"address": host, "port_value": port}})
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use super::*;

    fn options() -> BootstrapOptions {
        BootstrapOptions {
            role: BootstrapRole::Waypoint,
            gateway: ObjectKey::new("app", "wp"),
            pod_name: "wp-0".into(),
            service_account: "wp".into(),
            cluster_id: "Kubernetes".into(),
            network: String::new(),
            domain: "cluster.local".into(),
            ip: "10.1.2.3".parse().unwrap(),
            bind_ip: true,
            admin_port: 15000,
            xds_host: "istiod.istio-system.svc".into(),
            xds_port: 15012,
            xds_name: "istiod.istio-system.svc".into(),
            sotw: false,
            secrets: BootstrapSecrets::Files {
                cert_chain: "/certs/chain.pem".into(),
                private_key: "/certs/key.pem".into(),
                root: "/certs/root.pem".into(),
            },
            stats_port: None,
            metadata: BTreeMap::new(),
            pod: PodInfo::default(),
        }
    }

    fn agent() -> BootstrapOptions {
        BootstrapOptions {
            secrets: BootstrapSecrets::Agent {
                socket: "/run/sds/socket".into(),
            },
            stats_port: Some(15090),
            metadata: [
                ("NODE_NAME".to_owned(), "node-a".to_owned()),
                ("NAMESPACE".to_owned(), "elsewhere".to_owned()),
            ]
            .into(),
            ..options()
        }
    }

    #[test]
    fn the_bootstrap_is_a_bootstrap_message() {
        for (sotw, host) in [(true, "127.0.0.1"), (false, "istiod.istio-system.svc")] {
            for base in [options(), agent()] {
                let value = bootstrap(&BootstrapOptions {
                    sotw,
                    xds_host: host.into(),
                    ..base
                });
                proto::json::from_json(proto::type_url::BOOTSTRAP, value).unwrap();
            }
        }
    }

    #[test]
    fn the_node_of_the_bootstrap_is_read_back_as_its_class() {
        let value = bootstrap(&options());
        let id = value["node"]["id"].as_str().unwrap();
        assert_eq!(id, "waypoint~10.1.2.3~wp-0.app~app.svc.cluster.local");
        let node = crate::node::tests::node(id, value["node"]["metadata"].clone());
        let info = crate::node::class_from_node(&node).unwrap();
        let class = info.class.unwrap();
        assert_eq!(class.gateway, ObjectKey::new("app", "wp"));
        assert_eq!(class.secrets, model::proxy::SecretSource::Bootstrap);
        assert_eq!(class.bind, Some("10.1.2.3".parse().unwrap()));
        assert_eq!(info.service_account, "wp");
    }

    #[test]
    fn with_an_agent_every_secret_comes_over_its_socket() {
        let value = bootstrap(&agent());
        let clusters = value["static_resources"]["clusters"].as_array().unwrap();
        let names: Vec<&str> = clusters.iter().filter_map(|c| c["name"].as_str()).collect();
        assert_eq!(names, ["xds-grpc", "sds-grpc", "prometheus_stats"]);
        assert_eq!(
            clusters[1]["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"],
            json!({"pipe": {"path": "/run/sds/socket"}})
        );
        assert_eq!(value["static_resources"]["secrets"], json!([]));
        let text = value.to_string();
        assert_eq!(text.matches("\"cluster_name\":\"sds-grpc\"").count(), 3);
        assert!(!text.contains("filename"));

        let id = value["node"]["id"].as_str().unwrap();
        let node = crate::node::tests::node(id, value["node"]["metadata"].clone());
        let info = crate::node::class_from_node(&node).unwrap();
        assert_eq!(info.ns, "app", "what the flags say wins");
        assert_eq!(info.node_name, "node-a");
        let class = info.class.unwrap();
        assert_eq!(class.secrets, model::proxy::SecretSource::SdsGrpc);
    }

    #[test]
    fn a_gateway_is_a_router_with_the_label_of_gateways() {
        let value = bootstrap(&BootstrapOptions {
            role: BootstrapRole::Router,
            ..agent()
        });
        let id = value["node"]["id"].as_str().unwrap();
        assert_eq!(id, "router~10.1.2.3~wp-0.app~app.svc.cluster.local");
        assert_eq!(
            value["node"]["metadata"]["LABELS"][LABEL_GATEWAY_MANAGED],
            MANAGED_GATEWAY
        );
    }

    #[test]
    fn what_the_pod_knows_of_itself_is_said_save_what_it_serves() {
        let text = |pairs: &[(&str, &str)]| {
            let pairs = pairs.iter();
            pairs.map(|(k, v)| ((*k).into(), (*v).into())).collect()
        };
        let value = bootstrap(&BootstrapOptions {
            role: BootstrapRole::EastWest,
            pod: PodInfo {
                labels: text(&[("app", "edge"), (LABEL_GATEWAY_NAME, "another")]),
                annotations: text(&[("istio.io/rev", "default")]),
                cluster: Some("edge.app".into()),
            },
            ..agent()
        });
        let node = &value["node"];
        let id = node["id"].as_str().unwrap();
        assert!(id.starts_with("waypoint~"), "{id}");
        assert_eq!(node["cluster"], "edge.app");
        assert_eq!(
            node["metadata"]["LABELS"],
            json!({
                "app": "edge",
                LABEL_GATEWAY_NAME: "wp",
                LABEL_GATEWAY_MANAGED: MANAGED_EAST_WEST,
            })
        );
        assert_eq!(
            node["metadata"]["ANNOTATIONS"],
            json!({"istio.io/rev": "default"})
        );
        assert_eq!(bootstrap(&agent())["node"]["cluster"], "wp.app");
    }
}
