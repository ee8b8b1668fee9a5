//! What is spoken on a service port: at waypoints and in WDS.
//!
//! Source: spec/workload-discovery.md §3.3, spec/envoy-config.md §2.3.

use model::derived::{AppProtocol, WdsProtocol};
use model::input::Transport;

/// Both readings of one port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Protocols {
    /// At waypoints.
    pub(crate) app: AppProtocol,
    /// In WDS.
    pub(crate) wds: WdsProtocol,
}

const UNKNOWN: Protocols = both(AppProtocol::Unknown, WdsProtocol::Unknown);
const DATAGRAMS: Protocols = both(AppProtocol::Udp, WdsProtocol::Unknown);

/// Ports taken as TCP when nothing else is said: server-first protocols.
const WELL_KNOWN_TCP: [u16; 4] = [25, 53, 3306, 27017];

const fn both(app: AppProtocol, wds: WdsProtocol) -> Protocols {
    Protocols { app, wds }
}

/// Protocols of a Service port: `appProtocol` if set, else the prefix of the port name.
pub(crate) fn of_service_port(
    transport: Transport,
    app_protocol: Option<&str>,
    name: &str,
    port: u16,
) -> Protocols {
    if transport == Transport::Udp {
        return DATAGRAMS;
    }
    let named = recognise(app_protocol.unwrap_or(name));
    let protocols = named.unwrap_or_else(|| {
        if WELL_KNOWN_TCP.contains(&port) {
            both(AppProtocol::Tcp, WdsProtocol::Tcp)
        } else {
            UNKNOWN
        }
    });
    match transport {
        Transport::Sctp => both(AppProtocol::Udp, protocols.wds),
        _ => protocols,
    }
}

/// Protocols of a ServiceEntry port: its whole protocol word.
pub(crate) fn of_entry_port(protocol: &str) -> Protocols {
    word(&protocol.to_ascii_lowercase()).unwrap_or(UNKNOWN)
}

/// Whether a ServiceEntry's protocol word is one of the API.
pub(crate) fn is_known(protocol: &str) -> bool {
    word(&protocol.to_ascii_lowercase()).is_some()
}

/// What the name of a port says by its prefix, if anything.
pub(crate) fn of_name(name: &str) -> Option<Protocols> {
    recognise(name)
}

fn recognise(text: &str) -> Option<Protocols> {
    match text {
        "kubernetes.io/h2c" => return word("http2"),
        "kubernetes.io/ws" => return word("http"),
        "kubernetes.io/wss" => return word("https"),
        _ => {}
    }
    let text = text.to_ascii_lowercase();
    if text.starts_with("grpc-web") {
        return word("grpc-web");
    }
    word(text.split('-').next().unwrap_or_default())
}

fn word(word: &str) -> Option<Protocols> {
    Some(match word {
        "http" => both(AppProtocol::Http, WdsProtocol::Http11),
        "http2" => both(AppProtocol::Http2, WdsProtocol::Http2),
        "grpc" => both(AppProtocol::Grpc, WdsProtocol::Grpc),
        "grpc-web" => both(AppProtocol::GrpcWeb, WdsProtocol::Unknown),
        "http_proxy" => both(AppProtocol::Http, WdsProtocol::Unknown),
        "https" => both(AppProtocol::Https, WdsProtocol::Tls),
        "tls" => both(AppProtocol::Tls, WdsProtocol::Tls),
        "tcp" => both(AppProtocol::Tcp, WdsProtocol::Tcp),
        "mongo" | "redis" | "mysql" => both(AppProtocol::Tcp, WdsProtocol::Unknown),
        "udp" => DATAGRAMS,
        _ => return None,
    })
}
