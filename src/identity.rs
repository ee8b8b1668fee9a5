//! Identities of a running server: the authority, the serving certificate, who is
//! calling, and who may speak for whom.
//!
//! Source: spec/control-plane.md §1.2, §3, §4.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use authn::{Authenticator, AuthenticatorConfig, DevIssuer, PodCheck, PodRef, TokenReviewer};
use ca::Authority;
use ca::service::NodeAuthorizer;
use model::{ObjectKey, Str};
use prometheus::Registry;
use snapshot::Snapshot;
use tokio::sync::watch;

use crate::config::{ServeArgs, TlsLimits};

/// The published snapshot, `None` until the first one.
pub type Snapshots = watch::Receiver<Option<Arc<Snapshot>>>;

/// Pause after a serving certificate that could not be issued.
const RETRY: Duration = Duration::from_secs(60);
/// The serving certificate is renewed at half its life, but looked at this often.
const CHECK_MAX: Duration = Duration::from_secs(24 * 3600);

/// A DNS name.
const HOST_BYTES_MAX: usize = 253;

/// The configuration of new TLS connections, as of now.
pub type TlsConfig = watch::Receiver<Arc<rustls::ServerConfig>>;

/// The development issuer, which reviews the tokens that it made.
///
/// # Errors
/// When its key cannot be read or made.
pub fn issuer(args: &ServeArgs, snapshots: &Snapshots) -> anyhow::Result<DevIssuer> {
    let issuer = DevIssuer::load_or_create(&args.state_dir, Arc::new(SystemTime::now))
        .with_context(|| format!("--state-dir {}", args.state_dir.display()))?;
    Ok(issuer.with_pods(pod_check(snapshots.clone())))
}

/// Says who is calling: by certificate, or by a token that the reviewer knows.
///
/// # Errors
/// When no audience is named, or a metric's name is taken.
pub fn authenticator(
    args: &ServeArgs,
    reviewer: Arc<dyn TokenReviewer>,
    trust_domain: &str,
    snapshots: &Snapshots,
    registry: &Registry,
) -> anyhow::Result<Authenticator> {
    let clock: authn::Clock = Arc::new(SystemTime::now);
    let initial = Str::from(trust_domain);
    let snapshots = snapshots.clone();
    let config = AuthenticatorConfig {
        reviewer,
        cluster_ids: args.cluster_ids(),
        remotes: Default::default(),
        audiences: audiences(args)?,
        trust_domain: Arc::new(move || {
            let snapshot = snapshots.borrow();
            let mesh = snapshot.as_ref().map(|snapshot| &snapshot.mesh);
            mesh.map_or_else(|| initial.clone(), |mesh| mesh.trust_domain.clone())
        }),
        clock,
    };
    let metrics = authn::Metrics::register(registry)?;
    Ok(Authenticator::new(config, metrics))
}

/// What tokens must be made for. A reviewer that is asked for no audience vouches for any.
fn audiences(args: &ServeArgs) -> anyhow::Result<Vec<String>> {
    let texts = args.token_audiences.iter().map(|text| text.trim());
    let audiences: Vec<String> = texts
        .filter(|text| !text.is_empty())
        .map(str::to_owned)
        .collect();
    anyhow::ensure!(
        !audiences.is_empty(),
        "--token-audiences is empty: name what tokens must be made for, such as {}",
        authn::DEFAULT_AUDIENCE
    );
    Ok(audiences)
}

/// A pod's token is good while the pod is there, is the same, and has the same account.
fn pod_check(snapshots: Snapshots) -> PodCheck {
    Arc::new(move |ns, sa, pod| {
        snapshots
            .borrow()
            .as_ref()
            .is_some_and(|snapshot| is_pod(snapshot, ns, sa, pod))
    })
}

fn is_pod(snapshot: &Snapshot, ns: &str, sa: &str, pod: &PodRef) -> bool {
    let key = ObjectKey::new(ns, pod.name.clone());
    let fact = snapshot.pods.get(&key);
    fact.is_some_and(|fact| fact.uid == pod.uid && fact.service_account == sa)
}

/// What runs where, by the newest snapshot.
#[derive(Clone)]
pub struct SnapshotNodes(pub Snapshots);

impl NodeAuthorizer for SnapshotNodes {
    fn pod(&self, ns: &str, name: &str) -> Option<ca::service::PodFacts> {
        let snapshot = self.0.borrow();
        let fact = snapshot.as_ref()?.pods.get(&ObjectKey::new(ns, name))?;
        Some(ca::service::PodFacts {
            uid: fact.uid.clone(),
            service_account: fact.service_account.clone(),
            node: fact.node.clone(),
        })
    }

    fn runs(&self, ns: &str, service_account: &str, node: &str) -> bool {
        let snapshot = self.0.borrow();
        let at = [ns, service_account, node].map(Str::from);
        let [ns, service_account, node] = &at;
        snapshot
            .as_ref()
            .is_some_and(|snapshot| snapshot.pods.runs_on(ns, service_account, node))
    }
}

/// Keeps the trust domain of the authority, and the aliases whose certificates it accepts,
/// as mesh config has them.
///
/// # Errors
/// Never; without snapshots it waits for ever.
pub async fn follow_trust_domains(
    authority: Arc<Authority>,
    mut snapshots: Snapshots,
) -> anyhow::Result<()> {
    loop {
        let mesh = snapshots
            .borrow_and_update()
            .as_ref()
            .map(|snapshot| Arc::clone(&snapshot.mesh));
        if let Some(mesh) = mesh {
            let (own, aliases) = (&mesh.trust_domain, &mesh.trust_domain_aliases);
            match authority.set_trust_domains(own, aliases) {
                Ok(true) => tracing::info!(%own, ?aliases, "trust domains"),
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, "the trust domains stay as they are"),
            }
        }
        if snapshots.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Names on the serving certificate.
#[derive(Clone, Debug, Default)]
pub struct ServingNames {
    /// DNS names.
    pub names: Vec<String>,
    /// Addresses.
    pub ips: Vec<std::net::IpAddr>,
    /// What connections may use.
    pub tls: TlsLimits,
}

impl ServingNames {
    /// The same, and the host by which mesh config has proxies call; one that is no host adds
    /// nothing, and costs no other name its certificate.
    fn with_discovery(&self, host: &str) -> Self {
        let mut all = self.clone();
        let is_of_host = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        match host.parse() {
            Ok(ip) if !all.ips.contains(&ip) => all.ips.push(ip),
            Ok(_) => {}
            Err(_) if host.is_empty() || all.names.iter().any(|name| name == host) => {}
            Err(_) if host.len() <= HOST_BYTES_MAX && host.chars().all(is_of_host) => {
                all.names.push(host.to_owned());
                all.names.sort_unstable();
            }
            Err(_) => {
                tracing::warn!(
                    host,
                    "defaultConfig.discoveryAddress of mesh config names no host"
                );
            }
        }
        all
    }
}

/// Host of `defaultConfig.discoveryAddress`, as of now.
fn discovery_host(snapshots: &Snapshots) -> Str {
    let snapshot = snapshots.borrow();
    let mesh = snapshot.as_ref().map(|snapshot| &snapshot.mesh);
    mesh.map_or_else(Str::new, |mesh| mesh.discovery_host.clone())
}

/// Issues the serving certificate of now.
///
/// # Errors
/// When the authority is not ready or refuses a name.
pub fn serving(
    authority: &Authority,
    names: &ServingNames,
) -> anyhow::Result<Arc<rustls::ServerConfig>> {
    let dns: Vec<&str> = names.names.iter().map(String::as_str).collect();
    let issued = authority
        .issue_server(&dns, &names.ips, SystemTime::now())
        .context("cannot issue the serving certificate")?;
    Ok(xds::tls_config_of(
        authority,
        &issued,
        names.tls.provider(),
    )?)
}

/// Issues the serving certificate anew whenever the authority changes, or the host by which mesh
/// config has proxies call, and at half of its life. Streams that are open are not touched.
pub async fn renew(
    authority: Arc<Authority>,
    names: ServingNames,
    mut snapshots: Snapshots,
    tls: watch::Sender<Arc<rustls::ServerConfig>>,
) {
    let mut signers = authority.watch();
    signers.mark_unchanged();
    snapshots.mark_changed();
    let mut host = Str::new();
    let mut since = SystemTime::now();
    let mut has_failed = false;
    loop {
        let life_left = || {
            let signer = authority.signer().ok()?;
            let life = signer.not_after().duration_since(since).unwrap_or_default();
            let age = since.elapsed().unwrap_or_default();
            Some((life / 2).saturating_sub(age))
        };
        // After a failure nothing else would bring a new try before half of a long life.
        let due = if has_failed { None } else { life_left() }.unwrap_or_default();
        let is_due = due.is_zero();
        let changed = tokio::select! {
            changed = signers.changed() => changed.is_ok(),
            Ok(()) = snapshots.changed() => {
                discovery_host(&snapshots) != host
            }
            () = tokio::time::sleep(due.clamp(RETRY, CHECK_MAX)) => is_due,
        };
        if !changed {
            continue;
        }
        host = discovery_host(&snapshots);
        match serving(&authority, &names.with_discovery(&host)) {
            Ok(config) => {
                tls.send_replace(config);
                since = SystemTime::now();
                has_failed = false;
                tracing::info!("the serving certificate is renewed");
            }
            Err(error) => {
                has_failed = true;
                tracing::warn!(error = %format!("{error:#}"), "the serving certificate stays as it is");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used)]

    use model::PodFact;

    use super::*;

    #[test]
    fn pods_of_the_snapshot_say_who_runs_where_and_whose_token_is_good() {
        let mut snapshot = Snapshot::default();
        let fact = PodFact {
            uid: Str::from("u1"),
            service_account: Str::from("web"),
            node: Str::from("n1"),
            gateway: None,
        };
        let key = ObjectKey::new("app", "a");
        snapshot.pods.set(&key, Some(Arc::new(fact)));
        let (sender, snapshots) = watch::channel(None);
        let nodes = SnapshotNodes(snapshots.clone());
        let check = pod_check(snapshots);
        let good = |ns: &str, sa: &str, name: &str, uid: &str| {
            let pod = PodRef {
                name: Str::from(name),
                uid: Str::from(uid),
            };
            check(ns, sa, &pod)
        };
        // Before the first snapshot nothing is known, and so nothing allowed.
        assert!(nodes.pod("app", "a").is_none() && !nodes.runs("app", "web", "n1"));
        assert!(!good("app", "web", "a", "u1"));
        sender.send_replace(Some(Arc::new(snapshot)));
        assert_eq!(
            nodes.pod("app", "a").map(|pod| pod.uid),
            Some(Str::from("u1"))
        );
        assert!(nodes.pod("b", "a").is_none());
        for (ns, sa, node, expected) in [
            ("app", "web", "n1", true),
            ("app", "web", "n2", false),
            ("app", "db", "n1", false),
            ("b", "web", "n1", false),
            ("app", "web", "", false),
        ] {
            assert_eq!(nodes.runs(ns, sa, node), expected, "{ns}/{sa} {node}");
        }
        for (ns, sa, name, uid, expected) in [
            ("app", "web", "a", "u1", true),
            ("app", "web", "a", "u2", false),
            ("app", "web", "b", "u1", false),
            ("app", "db", "a", "u1", false),
            ("b", "web", "a", "u1", false),
        ] {
            assert_eq!(good(ns, sa, name, uid), expected, "{ns}/{sa} {name} {uid}");
        }
    }

    #[test]
    fn the_host_of_the_discovery_address_is_a_name_beside_the_others() {
        let own = ServingNames {
            names: vec!["istiod.istio-system.svc".to_owned()],
            ips: vec![[127, 0, 0, 1].into()],
            ..ServingNames::default()
        };
        let counts = |host: &str| {
            let all = own.with_discovery(host);
            (all.names.len(), all.ips.len())
        };
        let long = "a".repeat(254);
        for (host, expected) in [
            ("", (1, 1)),
            ("istiod.istio-system.svc", (1, 1)),
            ("127.0.0.1", (1, 1)),
            ("cp.example", (2, 1)),
            ("192.0.2.1", (1, 2)),
            ("fd00::1", (1, 2)),
            ("no host", (1, 1)),
            ("*", (1, 1)),
            (long.as_str(), (1, 1)),
        ] {
            assert_eq!(counts(host), expected, "{host}");
        }
    }

    #[tokio::test]
    async fn an_edit_of_the_discovery_address_brings_another_certificate_and_no_other_edit_does() {
        let dir = tempfile::tempdir().expect("a directory");
        let now = SystemTime::now();
        let ca = ca::DevCa::load_or_create(dir.path(), "cluster.local", now).expect("a CA");
        let authority = Arc::clone(ca.authority());
        let names = ServingNames {
            names: vec!["localhost".to_owned()],
            ..ServingNames::default()
        };
        let first = serving(&authority, &names).expect("a certificate");
        let (tls, mut config) = watch::channel(first);
        let (sender, snapshots) = watch::channel(None);
        let renewal = tokio::spawn(renew(authority, names, snapshots, tls));
        let publish = |host: &str| {
            let mut snapshot = Snapshot::default();
            Arc::make_mut(&mut snapshot.mesh).discovery_host = Str::from(host);
            sender.send_replace(Some(Arc::new(snapshot)));
        };
        publish("cp.example");
        config.changed().await.expect("a certificate");
        config.mark_unchanged();
        publish("cp.example");
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
        assert!(!config.has_changed().expect("renewal goes on"));
        publish("other.example");
        config.changed().await.expect("a certificate");
        renewal.abort();
    }

    #[tokio::test]
    async fn trust_domains_of_the_mesh_reach_the_authority_unless_they_are_none() {
        let authority = ca::Authority::new("cluster.local", ca::TtlPolicy::default());
        let authority = Arc::new(authority.expect("a trust domain"));
        let (sender, snapshots) = watch::channel(None);
        let following = tokio::spawn(follow_trust_domains(Arc::clone(&authority), snapshots));
        let publish = |own: &str, alias: &str| {
            let mut snapshot = Snapshot::default();
            let mesh = Arc::make_mut(&mut snapshot.mesh);
            mesh.trust_domain = Str::from(own);
            mesh.trust_domain_aliases = vec![Str::from(alias)];
            sender.send_replace(Some(Arc::new(snapshot)));
        };
        let mut domains = authority.watch_trust_domains();
        publish("cluster.local", "old.example");
        domains.changed().await.expect("a change");
        assert!(domains.borrow_and_update().accepts("old.example"));
        // What is no trust domain changes nothing; what comes after it does.
        publish("not a domain", "x");
        publish("new.example", "newer.example");
        domains.changed().await.expect("a change");
        assert_eq!(authority.trust_domain(), "new.example");
        assert!(!domains.borrow().accepts("old.example"));
        following.abort();
    }
}
