//! A waypoint configuration written by hand: what an Envoy without control plane needs
//! to pass one service's traffic on. Source: spec/envoy-config.md §2, §3.

use std::net::IpAddr;

use ca::WorkloadFiles;
use serde_json::{Value, json};

/// What the waypoint serves.
pub(crate) struct Waypoint<'a> {
    pub(crate) ip: IpAddr,
    pub(crate) files: &'a WorkloadFiles,
    pub(crate) vip: IpAddr,
    pub(crate) port: u16,
    /// `ip:port` of the only endpoint.
    pub(crate) endpoint: String,
    /// The only principal that may call.
    pub(crate) allowed: String,
}

const T: &str = "type.googleapis.com/envoy.extensions.";

fn ext(name: &str, type_name: &str, fields: Value) -> Value {
    let mut config = json!({"@type": format!("{T}{type_name}")});
    let target = config.as_object_mut().unwrap();
    target.extend(fields.as_object().unwrap().clone());
    json!({"name": name, "typed_config": config})
}

fn router() -> Value {
    ext(
        "envoy.filters.http.router",
        "filters.http.router.v3.Router",
        json!({}),
    )
}

fn original_dst() -> Value {
    ext(
        "envoy.filters.listener.original_dst",
        "filters.listener.original_dst.v3.OriginalDst",
        json!({}),
    )
}

fn hcm(fields: Value) -> Value {
    ext(
        "envoy.filters.network.http_connection_manager",
        "filters.network.http_connection_manager.v3.HttpConnectionManager",
        fields,
    )
}

fn filter_state(key: &str, factory: Option<&str>, format: &str) -> Value {
    let mut value = json!({
        "object_key": key,
        "format_string": {"text_format_source": {"inline_string": format}},
        "shared_with_upstream": "ONCE",
    });
    if let Some(factory) = factory {
        value["factory_key"] = json!(factory);
    }
    value
}

fn raw_buffer() -> Value {
    ext(
        "envoy.transport_sockets.raw_buffer",
        "transport_sockets.raw_buffer.v3.RawBuffer",
        json!({}),
    )
}

fn internal_upstream(passthrough: Value) -> Value {
    ext(
        "envoy.transport_sockets.internal_upstream",
        "transport_sockets.internal_upstream.v3.InternalUpstreamTransport",
        json!({"passthrough_metadata": passthrough, "transport_socket": raw_buffer()}),
    )
}

fn h2(fields: Value) -> Value {
    let options = ext(
        "",
        "upstreams.http.v3.HttpProtocolOptions",
        json!({"explicit_http_config": {"http2_protocol_options": fields}}),
    );
    json!({"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options["typed_config"]})
}

impl Waypoint<'_> {
    /// The whole bootstrap. JSON is YAML, so Envoy reads it under either name.
    pub(crate) fn bootstrap(&self) -> Value {
        json!({
            "node": {"id": "static-waypoint", "cluster": "waypoint"},
            "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
            "bootstrap_extensions": [ext(
                "envoy.bootstrap.internal_listener",
                "bootstrap.internal_listener.v3.InternalListener",
                json!({}),
            )],
            "static_resources": {
                "listeners": [self.terminate(), self.inner(), Self::originate()],
                "clusters": self.clusters(),
            },
        })
    }

    fn tls(&self) -> Value {
        json!({
            "tls_params": {
                "tls_minimum_protocol_version": "TLSv1_3",
                "tls_maximum_protocol_version": "TLSv1_3",
            },
            "alpn_protocols": ["h2"],
            "tls_certificates": [{
                "certificate_chain": {"filename": self.files.cert_chain},
                "private_key": {"filename": self.files.key},
            }],
            "validation_context": {
                "trusted_ca": {"filename": self.files.root},
                "match_typed_subject_alt_names":
                    [{"san_type": "URI", "matcher": {"prefix": "spiffe://cluster.local/"}}],
            },
        })
    }

    fn terminate(&self) -> Value {
        json!({
            "name": "connect_terminate",
            "address": {"socket_address": {"address": self.ip, "port_value": 15008}},
            "filter_chains": [{
                "transport_socket": ext(
                    "envoy.transport_sockets.tls",
                    "transport_sockets.tls.v3.DownstreamTlsContext",
                    json!({"require_client_certificate": true, "common_tls_context": self.tls()}),
                ),
                "filters": [hcm(json!({
                    "stat_prefix": "connect_terminate",
                    "codec_type": "HTTP2",
                    "stream_idle_timeout": "0s",
                    "http2_protocol_options": {"allow_connect": true},
                    "upgrade_configs": [{"upgrade_type": "CONNECT"}],
                    "http_filters": [
                        ext(
                            "connect_authority",
                            "filters.http.set_filter_state.v3.Config",
                            json!({"on_request_headers": [
                                filter_state(
                                    "envoy.filters.listener.original_dst.local_ip",
                                    None,
                                    "%REQ(:AUTHORITY)%",
                                ),
                                filter_state(
                                    "io.istio.peer_principal",
                                    Some("envoy.hashable_string"),
                                    "%DOWNSTREAM_PEER_URI_SAN%",
                                ),
                            ]}),
                        ),
                        router(),
                    ],
                    "route_config": {"virtual_hosts": [{
                        "name": "default",
                        "domains": ["*"],
                        "routes": [{
                            "match": {"connect_matcher": {}},
                            "route": {
                                "cluster": "main_internal",
                                "upgrade_configs":
                                    [{"upgrade_type": "CONNECT", "connect_config": {}}],
                            },
                        }],
                    }]},
                }))],
            }],
        })
    }

    fn inner(&self) -> Value {
        let string = |value: &str| {
            json!({"name": value, "typed_config":
                {"@type": "type.googleapis.com/google.protobuf.StringValue", "value": value}})
        };
        let by_port = ext(
            "port",
            "matching.common_inputs.network.v3.DestinationPortInput",
            json!({}),
        );
        let by_ip = ext(
            "ip",
            "matching.common_inputs.network.v3.DestinationIPInput",
            json!({}),
        );
        json!({
            "name": "main_internal",
            "internal_listener": {},
            "listener_filters": [original_dst()],
            "filter_chain_matcher": {"matcher_tree": {
                "input": by_ip,
                "custom_match": {"name": "ip", "typed_config": {
                    "@type": "type.googleapis.com/xds.type.matcher.v3.IPMatcher",
                    "range_matchers": [{
                        "ranges": [{"address_prefix": self.vip, "prefix_len": 32}],
                        "on_match": {"matcher": {"matcher_tree": {
                            "input": by_port,
                            "exact_match_map": {"map":
                                {self.port.to_string(): {"action": string("service")}}},
                        }}},
                    }],
                }},
            }},
            "filter_chains": [{"name": "service", "filters": [hcm(json!({
                "stat_prefix": "service",
                "http_filters": [
                    ext("envoy.filters.http.rbac", "filters.http.rbac.v3.RBAC", json!({
                        "rules": {"action": "ALLOW", "policies": {"only": {
                            "permissions": [{"any": true}],
                            "principals": [{"filter_state": {
                                "key": "io.istio.peer_principal",
                                "string_match": {"exact": self.allowed},
                            }}],
                        }}},
                    })),
                    router(),
                ],
                "route_config": {"virtual_hosts": [{
                    "name": "service",
                    "domains": ["*"],
                    "response_headers_to_add":
                        [{"header": {"key": "x-via-waypoint", "value": "yes"}}],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "service"}}],
                }]},
            }))]}],
        })
    }

    fn originate() -> Value {
        json!({
            "name": "connect_originate",
            "internal_listener": {},
            "listener_filters": [original_dst()],
            "filter_chains": [{"filters": [ext(
                "envoy.filters.network.tcp_proxy",
                "filters.network.tcp_proxy.v3.TcpProxy",
                json!({
                    "stat_prefix": "connect_originate",
                    "cluster": "connect_originate",
                    "tunneling_config": {"hostname": "%DOWNSTREAM_LOCAL_ADDRESS%"},
                }),
            )]}],
        })
    }

    fn clusters(&self) -> Value {
        let internal = |listener: &str, endpoint: &str| {
            json!({"address": {"envoy_internal_address":
                {"server_listener_name": listener, "endpoint_id": endpoint}}})
        };
        json!([
            {
                "name": "main_internal",
                "transport_socket": internal_upstream(json!([])),
                "load_assignment": {"cluster_name": "main_internal", "endpoints": [
                    {"lb_endpoints": [{"endpoint": internal("main_internal", "")}]}]},
            },
            {
                "name": "service",
                "transport_socket": internal_upstream(json!(
                    [{"kind": {"host": {}}, "name": "envoy.filters.listener.original_dst"}])),
                "load_assignment": {"cluster_name": "service", "endpoints": [{"lb_endpoints": [{
                    "endpoint": internal("connect_originate", &self.endpoint),
                    "metadata": {"filter_metadata": {"envoy.filters.listener.original_dst":
                        {"local": self.endpoint}}},
                }]}]},
            },
            {
                "name": "connect_originate",
                "type": "ORIGINAL_DST",
                "lb_policy": "CLUSTER_PROVIDED",
                "original_dst_lb_config": {"upstream_port_override": 15008},
                "typed_extension_protocol_options": h2(json!({"allow_connect": true})),
                "transport_socket": ext(
                    "envoy.transport_sockets.tls",
                    "transport_sockets.tls.v3.UpstreamTlsContext",
                    json!({"common_tls_context": self.tls()}),
                ),
            },
        ])
    }
}
