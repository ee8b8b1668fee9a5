//! The bootstrap with which stock Envoy joins the mesh as a waypoint, its certificate in
//! files. Source: spec/envoy-config.md §8.2, §8.4.

use std::net::IpAddr;

use model::ObjectKey;
use model::labels::{LABEL_GATEWAY_MANAGED, LABEL_GATEWAY_NAME, MANAGED_WAYPOINT};
use serde_json::{Map, Value, json};

/// Node metadata that asks for `default` and `ROOTCA` of the bootstrap.
pub const METADATA_SECRETS: &str = "AMBIENTD_SECRETS";
/// Node metadata that names the address to bind HBONE on.
pub const METADATA_BIND: &str = "AMBIENTD_BIND";

/// What a bootstrap says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootstrapOptions {
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
    /// Path of the certificate chain.
    pub cert_chain: String,
    /// Path of the private key.
    pub private_key: String,
    /// Path of the roots.
    pub root: String,
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
        "static_resources": {"secrets": secrets(options), "clusters": [control_plane(options)]},
    })
}

fn node(options: &BootstrapOptions) -> Value {
    let ObjectKey { ns, name } = &options.gateway;
    let mut metadata = Map::new();
    let mut set = |key: &str, value: Value| metadata.insert(key.to_owned(), value);
    set("NAME", json!(options.pod_name));
    set("NAMESPACE", json!(ns.as_str()));
    set("SERVICE_ACCOUNT", json!(options.service_account));
    set("CLUSTER_ID", json!(options.cluster_id));
    set("INSTANCE_IPS", json!(options.ip.to_string()));
    set(METADATA_SECRETS, json!("static"));
    set(
        "LABELS",
        json!({LABEL_GATEWAY_NAME: name.as_str(), LABEL_GATEWAY_MANAGED: MANAGED_WAYPOINT}),
    );
    if !options.network.is_empty() {
        set("NETWORK", json!(options.network));
    }
    if options.bind_ip {
        set(METADATA_BIND, json!(options.ip.to_string()));
    }
    let id = format!(
        "waypoint~{}~{}.{ns}~{ns}.svc.{}",
        options.ip, options.pod_name, options.domain
    );
    json!({"id": id, "cluster": format!("{name}.{ns}"), "metadata": metadata})
}

fn secrets(options: &BootstrapOptions) -> Value {
    json!([
        {"name": "default", "tls_certificate": {
            "certificate_chain": {"filename": options.cert_chain},
            "private_key": {"filename": options.private_key},
        }},
        {"name": "ROOTCA", "validation_context": {
            "trusted_ca": {"filename": options.root},
        }},
    ])
}

fn control_plane(options: &BootstrapOptions) -> Value {
    let is_address = options.xds_host.parse::<IpAddr>().is_ok();
    let endpoint = json!({"endpoint": {"address": socket(&options.xds_host, options.xds_port)}});
    json!({
        "name": "xds-grpc",
        "type": if is_address { "STATIC" } else { "STRICT_DNS" },
        "connect_timeout": "5s",
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {
                    "connection_keepalive": {"interval": "30s", "timeout": "10s"},
                }},
            },
        },
        "load_assignment": {
            "cluster_name": "xds-grpc",
            "endpoints": [{"lb_endpoints": [endpoint]}],
        },
        "transport_socket": {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "sni": options.xds_name,
                "common_tls_context": {
                    "alpn_protocols": ["h2"],
                    "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
                    "tls_certificate_sds_secret_configs": [{"name": "default"}],
                    "combined_validation_context": {
                        "default_validation_context": {"match_typed_subject_alt_names": [
                            {"san_type": "DNS", "matcher": {"exact": options.xds_name}},
                        ]},
                        "validation_context_sds_secret_config": {"name": "ROOTCA"},
                    },
                },
            },
        },
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
            cert_chain: "/certs/chain.pem".into(),
            private_key: "/certs/key.pem".into(),
            root: "/certs/root.pem".into(),
        }
    }

    #[test]
    fn the_bootstrap_is_a_bootstrap_message() {
        for (sotw, host) in [(true, "127.0.0.1"), (false, "istiod.istio-system.svc")] {
            let value = bootstrap(&BootstrapOptions {
                sotw,
                xds_host: host.into(),
                ..options()
            });
            proto::json::from_json(proto::type_url::BOOTSTRAP, value).unwrap();
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
}
