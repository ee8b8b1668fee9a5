//! The world that all cases share: callers, workloads, the control plane, one Envoy.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use model::ObjectKey;
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::daemon::Daemon;
use testkit::echo::{Echo, EchoLog};
use testkit::envoy::{AgentRequest, Envoy};
use testkit::hbone::{HBONE_PORT, HboneClient, HboneServer, Verdict};
use testkit::wait;
use tokio::task::JoinSet;

use super::case::{Call, Case, HOME};
use super::token::Keys;
use crate::common::{self, Held};

const WAYPOINT: [u8; 4] = [127, 70, 0, 30];
const HTTP_PORT: u16 = 8080;
const BYTES_PORT: u16 = 9090;
/// The configuration of some hundred services.
const LIMIT: Duration = Duration::from_secs(60);
const MIRROR_LIMIT: Duration = Duration::from_secs(5);
/// How long a copy that must not come is waited for.
const NO_MIRROR: Duration = Duration::from_millis(400);
const AWAY: &str = "elsewhere";

/// Callers: name, namespace, account and last byte of the address.
const CALLERS: [(&str, &str, &str, u8); 3] = [
    ("client", HOME, "client", 1),
    ("other", HOME, "other", 2),
    ("stranger", AWAY, "stranger", 3),
];
/// Shared workloads: version, namespace, last byte, whether HBONE leads to them.
const PODS: [(&str, &str, u8, bool); 4] = [
    ("v1", HOME, 11, true),
    ("v2", HOME, 12, true),
    ("v3", HOME, 13, false),
    ("far", AWAY, 14, false),
];

/// Everything that runs.
pub(crate) struct World {
    pub(crate) clients: BTreeMap<String, HboneClient>,
    pub(crate) keys: Keys,
    log: EchoLog,
    envoy: Envoy,
    daemon: Daemon,
    key: AtomicUsize,
    _workloads: Vec<Echo>,
    _servers: Vec<HboneServer>,
    _dir: TempDir,
}

/// The address of a shared service, which has the name of its workload's version.
pub(crate) fn shared_vip(name: &str) -> String {
    let at = PODS.iter().position(|(version, ..)| *version == name);
    let at = at.unwrap_or_else(|| panic!("no shared service {name}"));
    format!("10.97.0.{}", at + 10)
}

fn ip(last: u8) -> IpAddr {
    [127, 70, 0, last].into()
}

/// The address of the workload of a case with a namespace of its own.
fn own_ip(case: &Case) -> IpAddr {
    let vip: std::net::Ipv4Addr = case.vip().parse().unwrap();
    let [.., block, last] = vip.octets();
    [127, 71, block, last].into()
}

fn pod(ns: &str, name: &str, ip: IpAddr, account: &str, labels: Value, hbone: bool) -> Value {
    let mut meta = json!({ "name": name, "namespace": ns, "labels": labels });
    if hbone {
        meta["annotations"] = json!({ "ambient.istio.io/redirection": "enabled" });
    }
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": meta,
        "spec": { "serviceAccountName": account, "nodeName": "node-a", "containers": [{ "name": "app" }] },
        "status": {
            "phase": "Running", "podIP": ip, "podIPs": [{ "ip": ip }],
            "conditions": [{ "type": "Ready", "status": "True" }],
        },
    })
}

/// What all cases share.
fn base() -> Vec<Value> {
    let mut all = vec![
        json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "istio-system" } }),
    ];
    for name in [HOME, AWAY] {
        let labels = json!({ "istio.io/dataplane-mode": "ambient" });
        all.push(json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name, "labels": labels } }));
    }
    let from = json!({ "namespaces": { "from": "All" } });
    all.push(json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": { "name": "gate", "namespace": HOME, "labels": { "istio.io/waypoint-for": "service" } },
        "spec": { "gatewayClassName": "istio-waypoint", "listeners": [
            { "name": "mesh", "port": 15008, "protocol": "HBONE", "allowedRoutes": from },
        ] },
        "status": { "addresses": [{ "type": "IPAddress", "value": "10.97.0.2" }] },
    }));
    for (name, ns, account, last) in CALLERS {
        all.push(pod(
            ns,
            name,
            ip(last),
            account,
            json!({ "app": name }),
            true,
        ));
    }
    for (version, ns, last, hbone) in PODS {
        let app = if ["v1", "v2"].contains(&version) {
            "echo"
        } else {
            version
        };
        let labels = json!({ "app": app, "version": version });
        all.push(pod(ns, version, ip(last), "echo", labels.clone(), hbone));
        let mut meta = json!({ "name": version, "namespace": ns });
        if ns == HOME {
            meta["labels"] = json!({ "istio.io/use-waypoint": "gate" });
        }
        let vip = shared_vip(version);
        let ports = json!([
            { "name": "http", "port": 80, "targetPort": HTTP_PORT },
            { "name": "http-b", "port": 8080, "targetPort": HTTP_PORT },
            { "name": "grpc", "port": 50, "targetPort": HTTP_PORT },
            { "name": "tcp", "port": 9000, "targetPort": BYTES_PORT },
        ]);
        let spec = json!({ "clusterIP": vip, "clusterIPs": [vip], "ipFamilies": ["IPv4"], "selector": labels, "ports": ports });
        all.push(json!({ "apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec }));
    }
    all
}

fn documents(all: &[Value]) -> String {
    let all: Vec<_> = all.iter().map(|one| format!("---\n{one}\n")).collect();
    all.concat()
}

impl World {
    /// Starts everything and waits until Envoy holds all of it.
    pub(crate) async fn start(cases: &[Arc<Case>]) -> anyhow::Result<Self> {
        testkit::envoy::binary()?;
        let keys = Keys::new();
        let dir = TempDir::with_prefix("ambientd-tables-")?;
        let config = dir.path().join("config");
        std::fs::create_dir(&config)?;
        std::fs::write(config.join("base.yaml"), documents(&base()))?;
        for case in cases {
            let mut objects = case.objects(&[("$jwks", &keys.jwks())])?;
            if case.own_namespace() {
                let labels = json!({ "app": "echo", "version": "v1" });
                objects.push(pod(&case.ns(), "own", own_ip(case), "echo", labels, false));
            }
            let file = config.join(format!("{}.yaml", case.service()));
            std::fs::write(file, documents(&objects))?;
        }
        let gateway = ObjectKey::new(HOME, "gate");
        let want = Held::rendered(&config, &gateway)?;
        let daemon = Daemon::start(&config, &dir.path().join("state")).await?;
        let log = EchoLog::default();
        let (workloads, servers) = workloads(cases, &daemon, &log).await?;
        let mut clients = BTreeMap::new();
        for (name, ns, account, last) in CALLERS {
            let identity = Arc::new(daemon.identity(ns, account)?);
            clients.insert(name.to_owned(), HboneClient::new(identity, Some(ip(last)))?);
        }
        let request = AgentRequest {
            ns: HOME.to_owned(),
            name: "gate".to_owned(),
            service_account: "gate".to_owned(),
            ip: IpAddr::from(WAYPOINT).to_string(),
            sotw: false,
            ttl_seconds: 24 * 3600,
        };
        let mut envoy = Envoy::start_with_agent(&daemon, &request).await?;
        envoy
            .wait_ready(LIMIT)
            .await
            .with_context(|| daemon.log_tail())?;
        let held = wait::until("Envoy to hold what was rendered", LIMIT, || async {
            envoy.assert_no_nacks().await?;
            want.ensure_held_by(&Held::dumped(&envoy.config_dump().await?)?)
        })
        .await;
        if let Err(error) = held {
            // The cases say what comes of it, and the end of the run fails.
            eprintln!("{error:#}");
        }
        Ok(Self {
            clients,
            keys,
            log,
            envoy,
            daemon,
            key: AtomicUsize::new(0),
            _workloads: workloads,
            _servers: servers,
            _dir: dir,
        })
    }

    /// Where the waypoint accepts tunnels.
    pub(crate) fn waypoint() -> SocketAddr {
        SocketAddr::new(WAYPOINT.into(), HBONE_PORT)
    }

    pub(crate) fn next_key(&self) -> String {
        format!("key-{}", self.key.fetch_add(1, Ordering::Relaxed))
    }

    /// All requests of a case, one after the other.
    pub(crate) async fn play(self: &Arc<Self>, case: &Arc<Case>) -> anyhow::Result<()> {
        for (at, call) in case.requests.iter().enumerate() {
            self.one(case, call).await.with_context(|| {
                format!("request {} of {} ({})", at + 1, case.name, case.service())
            })?;
        }
        Ok(())
    }

    async fn one(self: &Arc<Self>, case: &Arc<Case>, call: &Call) -> anyhow::Result<()> {
        let mut outcomes = Vec::new();
        if call.at_once {
            let mut tasks = JoinSet::new();
            for _ in 0..call.times {
                let (world, case, call) = (Arc::clone(self), Arc::clone(case), call.clone());
                tasks.spawn(async move { world.call(&case, &call).await });
            }
            while let Some(outcome) = tasks.join_next().await {
                outcomes.push(outcome??);
            }
        } else {
            for _ in 0..call.times {
                outcomes.push(self.call(case, call).await?);
            }
        }
        let mut all = Vec::new();
        for (outcome, key) in outcomes {
            self.mirrors(call, &key).await?;
            call.expect.check(&outcome, &self.log.of(&key))?;
            all.push(outcome);
        }
        call.expect.check_all(&all)
    }

    async fn mirrors(&self, call: &Call, key: &str) -> anyhow::Result<()> {
        if let Some(to) = &call.expect.mirrored_to {
            wait::until(&format!("a copy at {to}"), MIRROR_LIMIT, || async {
                let seen = self.log.of(key);
                ensure!(seen.contains(to), "asked: {seen:?}");
                Ok(())
            })
            .await?;
        }
        if call.expect.not_mirrored {
            tokio::time::sleep(NO_MIRROR).await;
            let seen = self.log.of(key);
            ensure!(seen.len() == 1, "asked: {seen:?}");
        }
        Ok(())
    }

    /// That Envoy took everything.
    pub(crate) async fn nothing_refused(&self) -> anyhow::Result<()> {
        self.envoy.assert_no_nacks().await?;
        let rejected = common::rejections(&self.daemon.debug("/metrics").await?);
        ensure!(
            rejected.is_empty(),
            "ambientd counted rejections: {rejected:?}"
        );
        Ok(())
    }
}

async fn workloads(
    cases: &[Arc<Case>],
    daemon: &Daemon,
    log: &EchoLog,
) -> anyhow::Result<(Vec<Echo>, Vec<HboneServer>)> {
    let (mut workloads, mut servers) = (Vec::new(), Vec::new());
    let at = |ip| {
        (
            SocketAddr::new(ip, HTTP_PORT),
            SocketAddr::new(ip, BYTES_PORT),
        )
    };
    for (version, ns, last, hbone) in PODS {
        let (http, bytes) = at(ip(last));
        workloads.push(Echo::start(http, bytes, version, log).await?);
        if hbone {
            let identity = daemon.identity(ns, "echo")?;
            let everybody = Arc::new(|_: &_| Verdict::Allow);
            servers.push(HboneServer::start(ip(last), &identity, everybody).await?);
        }
    }
    for case in cases.iter().filter(|case| case.own_namespace()) {
        let (http, bytes) = at(own_ip(case));
        workloads.push(Echo::start(http, bytes, "v1", log).await?);
    }
    Ok((workloads, servers))
}
