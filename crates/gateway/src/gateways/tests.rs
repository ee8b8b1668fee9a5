#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::fmt::Write as _;

use model::Kind;

use crate::testworld::World;

mod edge_cases;
mod head;
mod listener_sets;
mod listeners;
mod tls;

/// A listener; what it does with TLS follows.
const HTTPS: &str = "name: l, port: 443, protocol: HTTPS, tls:";

fn pem() -> (String, String) {
    let pair = rcgen::generate_simple_self_signed(vec!["a.example".to_owned()]).unwrap();
    (pair.cert.pem(), pair.signing_key.serialize_pem())
}

fn literal(text: &str) -> String {
    format!("{:?}", text.replace("\r\n", "\n"))
}

/// Secrets `good`, `opaque` and `ca` of `gw`, `far` of `certs`, and `broken`; ConfigMaps `roots`
/// and `bad-roots`.
fn certificates() -> String {
    let (cert, key) = pem();
    let (cert, key) = (literal(&cert), literal(&key));
    format!(
        "
apiVersion: v1
kind: Secret
metadata: {{namespace: gw, name: good}}
type: kubernetes.io/tls
stringData: {{tls.crt: {cert}, tls.key: {key}}}
---
apiVersion: v1
kind: Secret
metadata: {{namespace: gw, name: opaque}}
type: Opaque
stringData: {{cert: {cert}, key: {key}}}
---
apiVersion: v1
kind: Secret
metadata: {{namespace: certs, name: far}}
stringData: {{tls.crt: {cert}, tls.key: {key}}}
---
apiVersion: v1
kind: Secret
metadata: {{namespace: gw, name: broken}}
stringData: {{tls.crt: nothing, tls.key: {key}}}
---
apiVersion: v1
kind: Secret
metadata: {{namespace: gw, name: ca}}
stringData: {{ca.crt: {cert}}}
---
apiVersion: v1
kind: ConfigMap
metadata: {{namespace: gw, name: roots}}
data: {{ca.crt: {cert}}}
---
apiVersion: v1
kind: ConfigMap
metadata: {{namespace: gw, name: bad-roots}}
data: {{ca.crt: nothing}}
"
    )
}

/// A Gateway of a class with listeners in flow style, one a line, and further lines of its spec.
fn gateway(class: &str, listeners: &str, more: &str) -> String {
    let mut out = format!(
        "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {{namespace: gw, name: web, generation: 3}}
spec:
  gatewayClassName: {class}
{more}
  listeners:
"
    );
    for line in listeners.trim().lines() {
        writeln!(out, "  - {{{}}}", line.trim()).unwrap();
    }
    out
}

fn join(parts: &[&str]) -> String {
    parts.join("\n---\n")
}

/// What is said of the listeners of a Gateway, the good conditions left out.
fn listeners(world: &World) -> Vec<String> {
    world.listeners(Kind::Gateway, "gw/web")
}

fn accepted(world: &World) -> String {
    let all = world.conditions(Kind::Gateway, "gw/web");
    all.into_iter()
        .find(|one| one.starts_with("Accepted"))
        .unwrap()
}
