//! Any sequence of discovery requests: no panic, no name that there is not, nothing after the
//! end, no secret for nobody, and answers that a client can read.
//!
//! The first byte says which client and protocol. Then follow steps: a byte that says what
//! happens besides, the length of a message, and the message, which is decoded as a request.

use std::collections::BTreeSet;
use std::sync::Arc;

use model::{ObjectKey, ProxyClass};
use prost::Message as _;
use proto::discovery::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use snapshot::ResourceType::{Address, Authorization, Cluster, Endpoint, Listener, Route};
use snapshot::{EncodedResource, ProxyResources, ResourceMap, ResourceType, Snapshot};
use xds::{Client, ClientKind, Effect, Flavour, Session};

const STEPS_MAX: usize = 64;
const ACKNOWLEDGE: u8 = 1;
const PUBLISH: u8 = 2;
const TICK: u8 = 4;

pub fn run(bytes: &[u8]) {
    let Some((kind, mut rest)) = bytes.split_first() else {
        return;
    };
    let flavour = match kind & 1 {
        0 => Flavour::Delta,
        _ => Flavour::Sotw,
    };
    let mut stream = Stream {
        session: Session::new(client(kind & 2 == 0), flavour, Arc::default(), "n-"),
        flavour,
        snapshots: [snapshot("a b", "p"), snapshot("b=2 c", "p=2 q")],
        now: 0,
        nonces: BTreeSet::new(),
        nonce: String::new(),
        closed: false,
    };
    for step in 0..STEPS_MAX {
        let [what, high, low, after @ ..] = rest else {
            return;
        };
        let bytes = usize::from(u16::from_be_bytes([*high, *low])).min(after.len());
        let (message, after) = after.split_at(bytes);
        rest = after;
        stream.step(step as u64, *what, message);
    }
}

struct Stream {
    session: Session,
    flavour: Flavour,
    snapshots: [Arc<Snapshot>; 2],
    now: usize,
    nonces: BTreeSet<String>,
    nonce: String,
    closed: bool,
}

impl Stream {
    fn step(&mut self, now_ms: u64, what: u8, message: &[u8]) {
        if what & PUBLISH != 0 {
            self.now = 1 - self.now;
            let effects = self.session.on_snapshot(now_ms, &self.snapshots[self.now]);
            self.take(effects);
        }
        if what & TICK != 0 {
            let at = self.session.deadline().unwrap_or(now_ms);
            let effects = self.session.on_tick(at, &self.snapshots[self.now]);
            self.take(effects);
        }
        let nonce = (what & ACKNOWLEDGE != 0).then(|| self.nonce.clone());
        let request = match self.flavour {
            Flavour::Delta => DeltaDiscoveryRequest::decode(message).map(|mut request| {
                request.response_nonce = nonce.unwrap_or(request.response_nonce);
                request.into()
            }),
            Flavour::Sotw => DiscoveryRequest::decode(message).map(|mut request| {
                request.response_nonce = nonce.unwrap_or(request.response_nonce);
                request.into()
            }),
        };
        if let Ok(request) = request {
            let effects = self
                .session
                .on_request(now_ms, request, &self.snapshots[self.now]);
            self.take(effects);
        }
        let _ = self.session.status();
    }

    fn take(&mut self, effects: xds::Effects) {
        for effect in effects {
            assert!(!self.closed, "{effect:?} after the end");
            match effect {
                Effect::Send(response) => self.read(&response),
                Effect::Close(..) => self.closed = true,
                Effect::Interest(_) | Effect::Observe(_) => {}
            }
        }
    }

    fn read(&mut self, response: &xds::Response) {
        let mut bytes = Vec::new();
        response.encode(&mut bytes);
        assert_eq!(bytes.len(), response.encoded_bytes());
        let (type_url, nonce) = match self.flavour {
            Flavour::Delta => {
                let decoded = DeltaDiscoveryResponse::decode(&*bytes).unwrap();
                let names: BTreeSet<_> = decoded.resources.iter().map(|r| &r.name).collect();
                assert_eq!(names.len(), decoded.resources.len(), "a name twice");
                for name in names {
                    assert!(["a", "b", "c", "p", "q"].contains(&name.as_str()), "{name}");
                    assert!(!decoded.removed_resources.contains(name), "{name}");
                }
                (decoded.type_url, decoded.nonce)
            }
            Flavour::Sotw => {
                let decoded = DiscoveryResponse::decode(&*bytes).unwrap();
                (decoded.type_url, decoded.nonce)
            }
        };
        if response.resources_count() > 0 {
            assert!(!type_url.contains("Secret"));
        }
        assert!(self.nonces.insert(nonce.clone()), "{nonce} twice");
        self.nonce = nonce;
    }
}

fn client(is_ztunnel: bool) -> Client {
    let class = ProxyClass::waypoint(ObjectKey::new("app", "wp"));
    Client {
        kind: if is_ztunnel {
            ClientKind::Ztunnel
        } else {
            ClientKind::Envoy
        },
        ip: [10, 0, 0, 1].into(),
        pod: "x.app".into(),
        ns: "app".into(),
        service_account: None,
        node_name: "node".into(),
        cluster_id: "Kubernetes".into(),
        version: model::Str::new(),
        class: (!is_ztunnel).then_some(class),
        identity: None,
    }
}

/// `name=content` pairs as a map.
fn map(ty: ResourceType, items: &str) -> ResourceMap {
    let item = |item: &str| {
        let (name, content) = item.split_once('=').unwrap_or((item, "1"));
        let aliases = vec!["/ip".into()];
        EncodedResource::new(name.into(), ty.type_url(), content.as_bytes(), aliases)
    };
    items.split_whitespace().map(item).collect()
}

fn snapshot(names: &str, policies: &str) -> Arc<Snapshot> {
    let resources = ProxyResources {
        clusters: map(Cluster, names),
        endpoints: map(Endpoint, names),
        listeners: map(Listener, names),
        routes: map(Route, names),
    };
    let class = ProxyClass::waypoint(ObjectKey::new("app", "wp"));
    Arc::new(Snapshot {
        generation: names.len() as u64,
        addresses: map(Address, names),
        authorizations: map(Authorization, policies),
        proxies: [(class, Arc::new(resources))].into_iter().collect(),
        ..Snapshot::default()
    })
}
