//! Key sets of token issuers: from what snapshots say is needed to rows of the pipeline.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use anyhow::Context as _;
use jwks::{AddressRule, Client, Fetcher, Metrics, SystemResolver};
use model::Str;
use model::jwks::Wanted;
use model::object::Input;
use prometheus::Registry;
use snapshot::Snapshot;
use tokio::sync::{mpsc, watch};

use crate::config::ServeArgs;
use crate::identity::Snapshots;

type Wants = BTreeMap<Str, Arc<Wanted>>;

/// Makes what [`follow`] runs, with the key sets that the last process knew.
///
/// # Errors
/// When counters or TLS cannot be set up.
pub fn fetcher(args: &ServeArgs, registry: &Registry) -> anyhow::Result<Fetcher> {
    let rule = AddressRule {
        blocked: args.jwks_blocked_cidrs.iter().flatten().copied().collect(),
        allowed: args.jwks_allow.clone(),
        api_server: api_server(args.kubernetes_service_host.as_deref()),
    };
    let roots = Some(args.jwks_extra_roots.as_path());
    let client = Client::new(rule, Arc::new(SystemResolver), roots)
        .context("key sets of issuers cannot be fetched")?;
    // In a cluster nothing is written to disk.
    let state = args.config_dir.is_some();
    let state = state.then(|| args.state_dir.join("jwks.json"));
    let metrics = Metrics::register(registry)?;
    Ok(Fetcher::new(
        Arc::new(client),
        metrics,
        args.jwks_refresh,
        state,
    ))
}

/// The API server as Kubernetes tells it to every pod, an address nearly always.
fn api_server(host: Option<&str>) -> Vec<IpAddr> {
    let host = host.map(|host| host.trim_matches(['[', ']']));
    host.and_then(|host| host.parse().ok())
        .into_iter()
        .collect()
}

/// Fetches what snapshots name, until they end.
///
/// # Errors
/// Never; it ends with the process.
pub async fn follow(
    fetcher: Fetcher,
    mut snapshots: Snapshots,
    inputs: mpsc::Sender<Vec<Input>>,
) -> anyhow::Result<()> {
    let (wanted, receiver) = watch::channel(Wants::new());
    let told = async move {
        loop {
            let now = snapshots.borrow_and_update().as_deref().map(wants);
            if let Some(now) = now {
                wanted.send_if_modified(|before| {
                    let changed = *before != now;
                    *before = now;
                    changed
                });
            }
            if snapshots.changed().await.is_err() {
                return;
            }
        }
    };
    tokio::join!(told, fetcher.run(receiver, inputs));
    Ok(())
}

fn wants(snapshot: &Snapshot) -> Wants {
    let wanted = snapshot.jwks_wanted.iter();
    wanted
        .map(|(key, wanted)| (key.clone(), Arc::clone(wanted)))
        .collect()
}
