//! Which routes a listener of a Gateway takes. Source: spec/gateway-api.md §3.5.

use crate::Str;
use crate::names::Kind;

use super::Listener;

/// Group of every kind of route.
const GROUP: &str = "gateway.networking.k8s.io";

impl Listener {
    /// Kinds of routes that its protocol carries, for HBONE those of a waypoint; `None` when
    /// the protocol is not known.
    pub fn protocol_kinds(&self) -> Option<&'static [Kind]> {
        let passthrough = self.tls.as_ref().is_some_and(|tls| tls.passthrough);
        Some(match self.protocol.as_str() {
            "HTTP" | "HTTPS" | "HBONE" => &[Kind::HttpRoute, Kind::GrpcRoute],
            "TCP" => &[Kind::TcpRoute],
            "TLS" if passthrough => &[Kind::TlsRoute],
            "TLS" => &[Kind::TlsRoute, Kind::TcpRoute],
            _ => return None,
        })
    }

    /// Kinds of routes that it takes: those of its protocol that `allowedRoutes.kinds` names,
    /// all of them when it names none. And what it names in vain.
    pub fn supported_kinds(&self) -> (Vec<Kind>, Vec<&(Str, Str)>) {
        let carried = self.protocol_kinds().unwrap_or_default();
        let is = |kind: &Kind, (group, name): &(Str, Str)| group == GROUP && name == kind.as_str();
        let named = |kind: &&Kind| {
            self.kinds.is_empty() || self.kinds.iter().any(|written| is(kind, written))
        };
        let vain = |written: &&(Str, Str)| !carried.iter().any(|kind| is(kind, written));
        (
            carried.iter().filter(named).copied().collect(),
            self.kinds.iter().filter(vain).collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(protocol: &str, kinds: &[(&str, &str)]) -> Listener {
        let pair = |(group, kind): &(&str, &str)| (Str::from(*group), Str::from(*kind));
        Listener {
            protocol: protocol.into(),
            kinds: kinds.iter().map(pair).collect(),
            ..Listener::default()
        }
    }

    #[test]
    fn kinds_are_those_of_the_protocol_that_are_named() {
        let both = vec![Kind::HttpRoute, Kind::GrpcRoute];
        assert_eq!(listener("HBONE", &[]).supported_kinds(), (both, vec![]));
        let grpc = listener("HBONE", &[(GROUP, "GRPCRoute")]);
        assert_eq!(grpc.supported_kinds(), (vec![Kind::GrpcRoute], vec![]));
        let odd = listener(
            "HBONE",
            &[("example.com", "HTTPRoute"), (GROUP, "TCPRoute")],
        );
        let (kinds, vain) = odd.supported_kinds();
        assert_eq!(kinds, []);
        assert_eq!(vain.len(), 2);
        assert_eq!(listener("hbone", &[]).supported_kinds(), (vec![], vec![]));
    }
}
