//! What is listened on, and under which names.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use ca::Authority;
use model::Str;
use prometheus::Registry;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::service::Routes;
use xds::{AdsService, IdentityPolicy, Limits, ServerConfig};

use super::tasks::END_MIN;
use crate::config::{ServeArgs, TlsLimits};
use crate::identity::{self, ServingNames, SnapshotNodes};

/// A request for a certificate, bytes: twice the longest CSR.
const CSR_MESSAGE_BYTES_MAX: usize = 128 << 10;
/// Of the time for the end, the share over which clients are sent away, percent.
const DRAIN_PERCENT: u32 = 70;
/// As above, the share after which nobody is waited for; what is left is for the end of the rest.
const LAST_PERCENT: u32 = 95;

/// Listens; on every IPv4 address where every address is meant and there is no IPv6.
pub(super) async fn bind(flag: &str, addr: SocketAddr) -> anyhow::Result<TcpListener> {
    let bound = match TcpListener::bind(addr).await {
        Err(error) if addr.is_ipv6() && addr.ip().is_unspecified() && !in_use(&error) => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, addr.port())).await
        }
        bound => bound,
    };
    bound.with_context(|| format!("{flag} {addr}: cannot listen there"))
}

fn in_use(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::AddrInUse
}

/// The service that hands out workload certificates.
pub(super) fn certificates(
    args: &ServeArgs,
    authority: &Arc<Authority>,
    authenticator: Arc<authn::Authenticator>,
    snapshots: identity::Snapshots,
    registry: &Registry,
) -> anyhow::Result<ca::CertificateService> {
    let trusted = args.trusted_node_account.join(",").parse();
    let clock: authn::Clock = Arc::new(SystemTime::now);
    let followed = Arc::clone(authority);
    ca::service::ExpiryMetrics::register(registry, followed, Arc::clone(&clock))?;
    Ok(ca::CertificateService::new(ca::ServiceConfig {
        authority: Arc::clone(authority),
        authenticator,
        trusted: trusted.context("--trusted-node-account")?,
        nodes: Arc::new(SnapshotNodes(snapshots)),
        limits: ca::service::Limits::default(),
        metrics: ca::service::CaMetrics::register(registry)?,
        clock,
    }))
}

/// The listeners of xDS, and the task that renews their certificate.
pub(super) async fn listeners(
    args: &ServeArgs,
    authority: &Arc<Authority>,
    ads: AdsService,
    certificates: ca::CertificateService,
    snapshots: identity::Snapshots,
) -> anyhow::Result<(
    ServerConfig,
    watch::Receiver<Arc<rustls::ServerConfig>>,
    impl Future<Output = ()> + Send + 'static,
)> {
    let plaintext = match args.plaintext_addr() {
        Some(addr) if !addr.ip().is_loopback() => bail!(
            "--xds-plaintext-addr {addr}: plain text has no authentication and is served on \
             loopback addresses only; use --xds-addr for others"
        ),
        Some(addr) => Some((
            bind("--xds-plaintext-addr", addr).await?,
            Routes::new(ads.clone()),
        )),
        None => None,
    };
    let (names, ips) = serving_names(args);
    let version = args.tls_min_version.as_deref();
    let (tls, _) = TlsLimits::read(version, &args.tls_cipher_suites);
    let names = ServingNames { names, ips, tls };
    let (tls, config) = watch::channel(identity::serving(authority, &names)?);
    let renewal = identity::renew(Arc::clone(authority), names, snapshots, tls);
    // What is decoded before the caller is known must be small.
    let certificates = certificates
        .into_server()
        .max_decoding_message_size(CSR_MESSAGE_BYTES_MAX);
    let server = ServerConfig {
        tls: Some((
            bind("--xds-addr", args.xds_addr).await?,
            config.clone(),
            Routes::new(ads).add_service(certificates),
        )),
        plaintext,
        limits: Limits {
            age_max: args.connection_age_max,
            connections_per_address_max: args.connections_per_address_max,
            ..at_the_end(args.shutdown_duration())
        },
    };
    Ok((server, config, renewal))
}

/// How the time for the end is shared by those who are sent away and those who are answered last.
fn at_the_end(within: Duration) -> Limits {
    let drain = within * DRAIN_PERCENT / 100;
    Limits {
        drain,
        last_answers: (within.max(END_MIN) * LAST_PERCENT / 100).saturating_sub(drain),
        ..Limits::default()
    }
}

/// DNS names and addresses of the serving certificate.
/// Source: spec/control-plane.md §1.2; loopback names besides, for file mode.
pub(super) fn serving_names(args: &ServeArgs) -> (Vec<String>, Vec<IpAddr>) {
    let ns = &args.mesh.system_namespace;
    let mut names = vec!["localhost".to_owned()];
    // The Service of a revision that is not the default one has its name.
    match args.mesh.revision.as_str() {
        "" | "default" => {}
        revision => names.push(format!("istiod-{revision}.{ns}.svc")),
    }
    names.extend(["istiod", "istiod-remote", "istio-pilot"].map(|name| format!("{name}.{ns}.svc")));
    let mut ips = vec![
        IpAddr::from([127, 0, 0, 1]),
        IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
    ];
    if !args.xds_addr.ip().is_unspecified() {
        ips.push(args.xds_addr.ip());
    }
    for name in args
        .serving_name
        .iter()
        .map(|name| name.trim())
        .filter(|name| !name.is_empty())
    {
        match name.parse() {
            Ok(ip) => ips.push(ip),
            Err(_) => names.push(name.to_owned()),
        }
    }
    names.sort_unstable();
    names.dedup();
    ips.sort_unstable();
    ips.dedup();
    (names, ips)
}

pub(super) fn identity_policy(args: &ServeArgs) -> anyhow::Result<IdentityPolicy> {
    let mut accounts = Vec::new();
    let texts = args.trusted_node_account.iter().map(|text| text.trim());
    // An empty variable trusts nobody.
    for text in texts.filter(|text| !text.is_empty()) {
        let (ns, name) = text
            .split_once('/')
            .filter(|(ns, name)| !ns.is_empty() && !name.is_empty() && !name.contains('/'))
            .with_context(|| format!("--trusted-node-account {text:?} is not NAMESPACE/ACCOUNT"))?;
        accounts.push((Str::from(ns), Str::from(name)));
    }
    Ok(IdentityPolicy {
        ztunnel_accounts: accounts,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use clap::Parser as _;

    use super::*;
    use crate::config::{Cli, Command};

    fn args(flags: &[&str]) -> ServeArgs {
        let words = ["ambientd", "serve", "--config-dir", "x"];
        match Cli::try_parse_from(words.iter().chain(flags))
            .unwrap()
            .command
        {
            Command::Serve(args) => *args,
            other => unreachable!("{other:?}"),
        }
    }

    #[test]
    fn clients_and_their_last_answers_end_within_the_time_for_the_end() {
        for millis in [0, 1_000, 2_000, 10_000, 600_000] {
            let within = Duration::from_millis(millis);
            let limits = at_the_end(within);
            let end = within.max(END_MIN);
            let all = limits.drain + limits.last_answers;
            assert!(all < end && all >= end * 9 / 10, "{within:?}: {all:?}");
        }
        let usual = at_the_end(Duration::from_secs(10));
        assert_eq!(usual.drain, Duration::from_secs(7));
        assert_eq!(usual.last_answers, Duration::from_millis(2_500));
    }

    #[test]
    fn node_accounts_may_be_none_and_are_names_alone() {
        let accounts = |text: &str| {
            let policy = identity_policy(&args(&["--trusted-node-account", text]));
            policy.map(|policy| policy.ztunnel_accounts).ok()
        };
        let ztunnel = (Str::from("istio-system"), Str::from("ztunnel"));
        assert_eq!(accounts(""), Some(Vec::new()));
        assert_eq!(accounts("istio-system/ztunnel, "), Some(vec![ztunnel]));
        for bad in ["ztunnel", "a/", "/b", "a/b/c"] {
            assert_eq!(accounts(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_serving_certificate_names_the_service_of_its_revision() {
        let names = |flags: &[&str]| serving_names(&args(flags)).0;
        let usual = [
            "istio-pilot.istio-system.svc",
            "istiod-remote.istio-system.svc",
            "istiod.istio-system.svc",
            "localhost",
        ];
        assert_eq!(names(&[]), usual);
        assert_eq!(names(&["--revision", "default"]), usual);
        let canary = names(&["--revision", "canary"]);
        assert!(canary.contains(&"istiod-canary.istio-system.svc".to_owned()));
        assert_eq!(canary.len(), usual.len() + 1);
    }
}
