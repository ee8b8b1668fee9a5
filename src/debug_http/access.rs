//! Who may ask for what. Source: spec/control-plane.md §6.1.

use std::net::{IpAddr, SocketAddr};

use authn::Peer;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::DebugState;

/// What of the mesh a caller may see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// Everything.
    All,
    /// Proxies of one namespace.
    Namespace(model::Str),
}

/// Lets through with the [`Scope`] of the caller, or answers why not.
pub(super) async fn access(
    State(state): State<DebugState>,
    ConnectInfo(addr): ConnectInfo<SocketAddr>,
    mut request: Request,
    next: Next,
) -> Response {
    match scope(&state, addr, request.headers(), request.uri().path()).await {
        Ok(scope) => {
            request.extensions_mut().insert(scope);
            next.run(request).await
        }
        Err(status) => status.into_response(),
    }
}

async fn scope(
    state: &DebugState,
    addr: SocketAddr,
    headers: &HeaderMap,
    path: &str,
) -> Result<Scope, StatusCode> {
    if is_loopback(addr.ip()) {
        return Ok(Scope::All);
    }
    let authenticator = state
        .late
        .authenticator
        .get()
        .ok_or(StatusCode::UNAUTHORIZED)?;
    let peer = Peer {
        addr,
        identity: None,
        secure: false,
    };
    let caller = authenticator
        .authenticate_http(&peer, headers)
        .await
        .map_err(|error| {
            tracing::info!(peer = %addr, reason = error.reason(), %error, "debug request refused");
            StatusCode::UNAUTHORIZED
        })?;
    let snapshot = state.snapshot();
    let root = snapshot.map(|snapshot| snapshot.mesh.root_namespace.clone());
    let ns = caller.identity.ns;
    if root.as_ref() == Some(&ns) || state.namespaces.iter().any(|allowed| *ns == **allowed) {
        Ok(Scope::All)
    } else if path == "/debug/config_dump" {
        Ok(Scope::Namespace(ns))
    } else {
        Err(StatusCode::FORBIDDEN)
    }
}

/// A dual-stack listener shows loopback peers as `::ffff:127.0.0.1`.
pub(super) fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::time::{Duration, SystemTime};

    use authn::{Authenticator, AuthenticatorConfig, DevIssuer, TokenRequest};
    use prometheus::Registry;
    use snapshot::Snapshot;
    use tokio::sync::watch;

    use super::*;
    use crate::metrics::ProcessMetrics;
    use crate::readiness::{Late, Readiness};

    #[test]
    fn mapped_loopback_addresses_are_loopback() {
        for ip in ["127.0.0.1", "127.8.0.1", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(ip.parse().map(is_loopback), Ok(true), "{ip}");
        }
        assert_eq!("10.0.0.1".parse().map(is_loopback), Ok(false));
    }

    fn state(issuer: Arc<DevIssuer>) -> DebugState {
        let registry = Registry::new();
        let config = AuthenticatorConfig {
            reviewer: issuer,
            cluster_ids: vec!["Kubernetes".to_owned()],
            remotes: BTreeMap::new(),
            audiences: vec!["istio-ca".to_owned()],
            trust_domain: Arc::new(|| "cluster.local".into()),
            clock: Arc::new(SystemTime::now),
        };
        let metrics = authn::Metrics::register(&registry).unwrap();
        let snapshot = Snapshot {
            mesh: Arc::new(model::MeshRow {
                root_namespace: "root".into(),
                ..model::MeshRow::default()
            }),
            ..Snapshot::default()
        };
        let late = Late::default();
        let authenticator = Arc::new(Authenticator::new(config, metrics));
        assert!(late.authenticator.set(authenticator).is_ok());
        DebugState {
            snapshots: watch::channel(Some(Arc::new(snapshot))).1,
            connections: Arc::default(),
            metrics: ProcessMetrics::register(registry, std::time::Instant::now()).unwrap(),
            config: Arc::default(),
            readiness: Readiness::new(&[]),
            late: Arc::new(late),
            local_metrics: true,
            namespaces: Arc::from(["ops".to_owned()]),
        }
    }

    #[tokio::test]
    async fn callers_from_elsewhere_need_a_token_and_see_what_is_theirs() {
        let dir = tempfile::tempdir().unwrap();
        let issuer = DevIssuer::load_or_create(dir.path(), Arc::new(SystemTime::now)).unwrap();
        let issuer = Arc::new(issuer);
        let token = |scheme: &str, ns: &str| {
            let request = TokenRequest {
                ns,
                sa: "x",
                pod: None,
                audience: "istio-ca",
                ttl: Duration::from_secs(60),
            };
            format!("{scheme} {}", issuer.issue(&request).unwrap().expose())
        };
        let state = state(Arc::clone(&issuer));
        let (syncz, dump) = ("/debug/syncz", "/debug/config_dump");
        let app = || Ok(Scope::Namespace("app".into()));
        let cases = [
            ("127.0.0.1", String::new(), syncz, Ok(Scope::All)),
            ("::ffff:127.0.0.1", String::new(), syncz, Ok(Scope::All)),
            (
                "10.0.0.1",
                String::new(),
                syncz,
                Err(StatusCode::UNAUTHORIZED),
            ),
            (
                "10.0.0.1",
                "Bearer x".to_owned(),
                dump,
                Err(StatusCode::UNAUTHORIZED),
            ),
            (
                "10.0.0.1",
                token("Basic", "root"),
                syncz,
                Err(StatusCode::UNAUTHORIZED),
            ),
            ("10.0.0.1", token("Bearer", "root"), syncz, Ok(Scope::All)),
            ("10.0.0.1", token("Istio", "ops"), syncz, Ok(Scope::All)),
            (
                "10.0.0.1",
                token("Bearer", "app"),
                syncz,
                Err(StatusCode::FORBIDDEN),
            ),
            ("10.0.0.1", token("Bearer", "app"), dump, app()),
        ];
        for (ip, authorization, path, expected) in cases {
            let mut headers = HeaderMap::new();
            headers.insert("authorization", authorization.parse().unwrap());
            // Never consulted.
            headers.insert("x-forwarded-for", "127.0.0.1".parse().unwrap());
            let addr = SocketAddr::new(ip.parse().unwrap(), 1);
            let found = scope(&state, addr, &headers, path).await;
            let scheme = authorization.split(' ').next();
            assert_eq!(found, expected, "{ip} {scheme:?} {path}");
        }
    }
}
