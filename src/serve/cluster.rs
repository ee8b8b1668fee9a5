//! What `serve` does in a cluster: objects from the API server, and what is written there.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use authn::{SecretReviewer, TokenReviewer};
use ca::Authority;
use kube_io::client::{self, ClientOptions};
use kube_io::deployments::{self, DeploymentWriter};
use kube_io::election::{self, ElectionConfig};
use kube_io::events::{self, EventWriter};
use kube_io::gateway_classes::{self, ClassCreator};
use kube_io::review::{ApiReviewer, ApiSecretReviewer};
use kube_io::root_store::{self, SecretStore};
use kube_io::roots::{self, RootNames, RootWriter, Roots};
use kube_io::source::{self, SourceConfig, SourceMetrics};
use kube_io::status::{self, StatusWriter, WriteLimits, WriteScope};
use kube_io::webhooks::{self, WebhookPatcher};
use kube_io::{Client, Health, Leadership, Observed, Reports, WriteMetrics};
use tokio::sync::{Notify, watch};

use super::listen::bind;
use super::{Tasks, Wires};
use crate::config::ServeArgs;
use crate::identity::TlsConfig;
use crate::readiness::{self, ClusterView, Part};
use crate::webhook;

/// The API server, and what was seen of it.
pub(super) struct Cluster {
    client: Client,
    observed: Observed,
    health: Health,
    leadership: Leadership,
    terms: watch::Sender<Option<kube_io::Term>>,
    reports: Reports,
}

// === impl Cluster ===

impl Cluster {
    /// Begins to read the cluster.
    pub(super) async fn start(
        args: &ServeArgs,
        tasks: &mut Tasks,
        wires: &Wires,
    ) -> anyhow::Result<Self> {
        let client = client::connect(&options(args)).await?;
        let (terms, receiver) = watch::channel(None);
        let health = Health::default();
        let cluster = Self {
            client: client.clone(),
            observed: Observed::default(),
            health: health.clone(),
            leadership: Leadership::new(receiver),
            terms,
            reports: Reports::new(wires.inputs.clone()),
        };
        let _ = wires.late.cluster.set(ClusterView {
            health: health.clone(),
            leadership: cluster.leadership.clone(),
        });
        let config = SourceConfig {
            system_namespace: args.mesh.system_namespace.clone(),
            revision: args.mesh.revision.clone(),
            mesh_config_file: Some(args.mesh_config.clone()),
            shared_mesh_config: args.shared_mesh_config.clone().filter(|it| !it.is_empty()),
            metrics: SourceMetrics::register(&wires.registry)?,
            request_timeout: args.api_request_timeout,
            idle_timeout: args.api_idle_timeout,
            ..SourceConfig::new(client)
        };
        let (inputs, observed) = (wires.inputs.clone(), cluster.observed.clone());
        // Objects are read as long as anybody is served.
        let (watched, stop) = (health.clone(), tasks.ended.clone());
        tasks.spawn(async move {
            source::run(config, inputs, observed, watched, stop)
                .await
                .context("the source of objects")
        });
        tasks.spawn(readiness::tell_outages(health));
        Ok(cluster)
    }

    /// Fills the authority: from a CA that is plugged in, else from our Secret.
    pub(super) async fn fill(
        &self,
        args: &ServeArgs,
        tasks: &mut Tasks,
        authority: &Arc<Authority>,
    ) -> anyhow::Result<()> {
        let ns = &args.mesh.system_namespace;
        let runtime = tokio::runtime::Handle::current();
        let store = SecretStore::new(self.client.clone(), ns, runtime);
        let store = store.with_reports(self.reports.clone());
        let source = ca::Source::select_or(
            Some(&args.root_ca_dir),
            args.enable_ca_crl.is_on(),
            args.multiroot_mesh.is_on(),
            Arc::new(store),
        )
        .with_context(|| format!("--root-ca-dir {}", args.root_ca_dir.display()))?;
        root_store::start(source.clone(), Arc::clone(authority))
            .await
            .context("the certificate authority cannot start")?;
        let followed = Arc::clone(authority);
        if let ca::Source::PluggedIn { ca, .. } = &source {
            let dir = ca.dir().to_owned();
            tasks.spawn(async move {
                ca::watch(source, Some(&dir), followed).await;
                Ok(())
            });
            return Ok(());
        }
        let changed = Arc::new(Notify::new());
        let (client, ns, told) = (self.client.clone(), ns.clone(), Arc::clone(&changed));
        tasks.spawn(async move {
            let secret = root_store::follow(client, &ns, told);
            tokio::join!(secret, ca::follow(source, changed, followed));
            Ok(())
        });
        Ok(())
    }

    /// Who says what tokens are worth.
    pub(super) fn reviewer(&self) -> Arc<dyn TokenReviewer> {
        Arc::new(ApiReviewer::telling(
            self.client.clone(),
            self.reports.clone(),
        ))
    }

    /// Who says which accounts may read private keys.
    pub(super) fn secret_reviewer(&self) -> Arc<dyn SecretReviewer> {
        Arc::new(ApiSecretReviewer::telling(
            self.client.clone(),
            self.reports.clone(),
        ))
    }

    /// Takes part in the election, and writes what the leader writes.
    pub(super) fn write(
        &self,
        args: &ServeArgs,
        tasks: &mut Tasks,
        wires: &Wires,
        authority: &Arc<Authority>,
    ) -> anyhow::Result<()> {
        let metrics = WriteMetrics::register(&wires.registry)?;
        let reports = self.reports.clone();
        let name = replica_name(args);
        let ns = &args.mesh.system_namespace;
        let config = ElectionConfig {
            lease: args.lease_duration,
            renew_deadline: args.lease_duration / 2,
            retry: args.lease_duration / 4,
            reports: Some(reports.clone()),
            ..ElectionConfig::new(ns.clone(), &args.mesh.revision, name.clone())
        };
        // Writers stop first; the lease is released when the last of them has.
        let writers = tokio_util::task::TaskTracker::new();
        let scope = WriteScope {
            gateway_api: args.write_gateway_api_status.is_on(),
            ambient: args.write_status.is_on(),
        };
        if scope.gateway_api || scope.ambient {
            let writer = StatusWriter {
                client: self.client.clone(),
                leadership: self.leadership.clone(),
                snapshots: wires.snapshots.clone(),
                observed: self.observed.clone(),
                metrics: metrics.clone(),
                reports: reports.clone(),
                limits: WriteLimits::default(),
                scope,
            };
            let stop = tasks.stopping.clone();
            tasks.spawn_finishing(writers.track_future(async move {
                status::run(writer, stop).await;
                Ok(())
            }));
        }
        let writer = EventWriter {
            client: self.client.clone(),
            leadership: self.leadership.clone(),
            snapshots: wires.snapshots.clone(),
            observed: self.observed.clone(),
            identity: name,
            metrics: metrics.clone(),
            reports: reports.clone(),
        };
        let stop = tasks.stopping.clone();
        tasks.spawn_finishing(writers.track_future(async move {
            events::run(writer, stop).await;
            Ok(())
        }));
        if args.mesh.gateways.deploy_gateways.is_on() {
            let writer = DeploymentWriter {
                client: self.client.clone(),
                leadership: self.leadership.clone(),
                snapshots: wires.snapshots.clone(),
                metrics: metrics.clone(),
                reports: reports.clone(),
                findings: wires.inputs.clone(),
            };
            let stop = tasks.stopping.clone();
            tasks.spawn_finishing(writers.track_future(async move {
                deployments::run(writer, stop).await;
                Ok(())
            }));
        }
        let bundles = bundles(tasks, authority, args.enable_ca_crl.is_on());
        let writer = RootWriter {
            client: self.client.clone(),
            leadership: self.leadership.clone(),
            bundles: bundles.clone(),
            snapshots: wires.snapshots.clone(),
            system_namespace: ns.clone(),
            names: RootNames {
                root: args.root_config_map.clone(),
                crl: args.crl_config_map.clone(),
            },
            metrics,
            reports: reports.clone(),
        };
        let stop = tasks.stopping.clone();
        tasks.spawn_finishing(writers.track_future(async move {
            roots::run(writer, stop).await;
            Ok(())
        }));
        let patcher = WebhookPatcher {
            client: self.client.clone(),
            leadership: self.leadership.clone(),
            revision: args.mesh.revision.clone(),
            system_namespace: ns.clone(),
            // As istiod: once it is seen that our answers arrive.
            fail_closed: args.webhook_addr.is_some(),
            roots: root_pem(tasks, bundles),
            reports: Some(reports.clone()),
        };
        let stop = tasks.stopping.clone();
        tasks.spawn_finishing(writers.track_future(async move {
            webhooks::run(patcher, stop).await;
            Ok(())
        }));
        // By every replica, leading or not.
        let creator = ClassCreator {
            client: self.client.clone(),
            observed: self.observed.clone(),
            health: self.health.clone(),
            controllers: args.gateway_classes(),
            reports: reports.clone(),
        };
        let stop = tasks.stopping.clone();
        tasks.spawn_finishing(async move {
            gateway_classes::run(creator, stop).await;
            Ok(())
        });
        let (client, terms) = (self.client.clone(), self.terms.clone());
        let (stop, release) = (
            tasks.stopping.clone(),
            tokio_util::sync::CancellationToken::new(),
        );
        let released = release.clone();
        tasks.spawn_finishing(async move {
            stop.cancelled().await;
            writers.close();
            writers.wait().await;
            released.cancel();
            Ok(())
        });
        tasks.spawn_finishing(async move {
            election::run(client, config, terms, release).await;
            Ok(())
        });
        Ok(())
    }

    /// The webhook that validates objects.
    pub(super) async fn webhook(
        args: &ServeArgs,
        tasks: &mut Tasks,
        wires: &Wires,
        tls: TlsConfig,
    ) -> anyhow::Result<()> {
        let Some(addr) = args.webhook_addr else {
            return Ok(());
        };
        let listener = bind("--webhook-addr", addr).await?;
        let metrics = webhook::Metrics::register(&wires.registry)?;
        let stop = tasks.ended.clone();
        tasks.spawn(async move {
            webhook::serve(listener, tls, metrics, stop)
                .await
                .context("webhook")
        });
        wires.readiness.done(Part::Webhook);
        Ok(())
    }
}

fn options(args: &ServeArgs) -> ClientOptions {
    ClientOptions {
        kubeconfig: kubeconfig(args),
        context: args.context.clone(),
        request_timeout: args.api_request_timeout,
        idle_timeout: args.api_idle_timeout,
    }
}

/// Image of the pod that this process runs in, where deployed proxies are to have it and it is
/// not said; `None` where there is no such pod. Waits for the API server, without which there is
/// nothing to deploy for.
pub(super) fn own_image(args: &ServeArgs) -> impl Future<Output = Option<String>> + use<> {
    let gateways = &args.mesh.gateways;
    let is_needed = args.config_dir.is_none()
        && gateways.deploy_gateways.is_on()
        && gateways.gateway_agent_image.is_none();
    let pod = args.pod_name.clone().filter(|name| !name.is_empty());
    let asked = pod.filter(|_| is_needed);
    let (options, ns) = (options(args), args.mesh.system_namespace.clone());
    async move {
        let pod = asked?;
        // What is wrong with the configuration is told by who reads the cluster with it.
        let client = client::connect(&options).await.ok()?;
        deployments::image_of_pod(&client, &ns, &pod).await
    }
}

/// The kubeconfig of the flag, or that of the environment if it exists.
fn kubeconfig(args: &ServeArgs) -> Option<PathBuf> {
    let from_env = args.kubeconfig_if_exists.as_ref();
    let from_env = from_env.filter(|path| path.is_file());
    args.kubeconfig.as_ref().or(from_env).cloned()
}

/// How this replica is called where replicas choose a leader.
fn replica_name(args: &ServeArgs) -> String {
    let given = args.pod_name.clone().filter(|name| !name.is_empty());
    given.unwrap_or_else(|| {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname");
        let host = host.unwrap_or_default();
        // Several may run on one host.
        format!("{}-{}", host.trim(), std::process::id())
    })
}

/// What the authority hands out, followed.
fn bundles(tasks: &mut Tasks, authority: &Arc<Authority>, crl: bool) -> watch::Receiver<Roots> {
    let (mut signers, mut lists) = (authority.watch(), authority.watch_crl());
    let mut now = move || {
        let signer = signers.borrow_and_update().clone();
        let list = lists.borrow_and_update().to_string();
        Roots {
            root_pem: signer.map_or_else(String::new, |signer| signer.bundle().pem().to_owned()),
            crl_pem: crl.then_some(list),
        }
    };
    let (sender, receiver) = watch::channel(now());
    let (mut signers, mut lists) = (authority.watch(), authority.watch_crl());
    tasks.spawn(async move {
        loop {
            let changed = tokio::select! {
                changed = signers.changed() => changed,
                changed = lists.changed() => changed,
            };
            if changed.is_err() {
                std::future::pending::<()>().await;
            }
            replace(&sender, now());
        }
    });
    receiver
}

/// The roots alone.
fn root_pem(tasks: &mut Tasks, mut bundles: watch::Receiver<Roots>) -> watch::Receiver<String> {
    let (sender, receiver) = watch::channel(bundles.borrow_and_update().root_pem.clone());
    tasks.spawn(async move {
        while bundles.changed().await.is_ok() {
            replace(&sender, bundles.borrow_and_update().root_pem.clone());
        }
        std::future::pending().await
    });
    receiver
}

fn replace<T: PartialEq>(sender: &watch::Sender<T>, now: T) {
    sender.send_if_modified(|before| {
        let changed = *before != now;
        *before = now;
        changed
    });
}
