//! `ambientd serve` of a cluster, as a process of this machine.

#![allow(dead_code, reason = "every test uses its part")]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use base64::Engine as _;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use testkit::ads::{XdsTarget, ztunnel_node};
use testkit::cluster::Cluster;
use testkit::ztunnel::Ztunnel;
use testkit::{http_client, wait};

use super::SOON;

/// The account of ambientd.
pub(crate) const ACCOUNT: &str = "system:serviceaccount:istio-system:istiod";

/// A process; killed when dropped.
pub(crate) struct Replica {
    /// How it is called in the election.
    pub(crate) name: String,
    /// How the API server calls the token that it shows.
    pub(crate) credential: String,
    args: Vec<String>,
    child: Option<Child>,
    /// Where it serves xDS over TLS.
    pub(crate) secure: SocketAddr,
    plaintext: SocketAddr,
    debug: SocketAddr,
    ready: SocketAddr,
    log: PathBuf,
}

/// A kubeconfig for the bearer of what a file holds, or else an administrator's, at another
/// address if there is one.
pub(crate) fn kubeconfig(
    cluster: &Cluster,
    name: &str,
    token: Option<&str>,
    via: Option<SocketAddr>,
) -> anyhow::Result<PathBuf> {
    let mut value: Value = serde_saphyr::from_str(&std::fs::read_to_string(cluster.kubeconfig())?)?;
    if let Some(token) = token {
        let file = cluster.dir().join(format!("{name}.token"));
        std::fs::write(&file, token)?;
        for user in value["users"].as_array_mut().context("users")? {
            user["user"] = serde_json::json!({ "tokenFile": file });
        }
    }
    if let Some(address) = via {
        let cluster = &mut value["clusters"][0]["cluster"];
        cluster["server"] = format!("https://{address}").into();
        cluster["tls-server-name"] = "kubernetes.default.svc".into();
    }
    let path = cluster.dir().join(format!("{name}.kubeconfig"));
    std::fs::write(&path, value.to_string())?;
    Ok(path)
}

/// A new token of ambientd's account.
pub(crate) fn token(cluster: &Cluster, more: &[&str]) -> anyhow::Result<String> {
    let args = [&["create", "token", "istiod", "-n", "istio-system"], more].concat();
    Ok(cluster.kubectl(&args)?.trim().to_owned())
}

/// How the API server calls a token in its audit log.
fn credential(token: &str) -> anyhow::Result<String> {
    let payload = token.split('.').nth(1).context("no token")?;
    let payload = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload)?;
    let payload: Value = serde_json::from_slice(&payload)?;
    Ok(format!(
        "JTI={}",
        payload["jti"].as_str().context("no jti")?
    ))
}

// === impl Replica ===

impl Replica {
    /// Starts one with a token of its own; does not wait.
    pub(crate) fn start(cluster: &Cluster, name: &str, flags: &[&str]) -> anyhow::Result<Self> {
        let token = token(cluster, &[])?;
        Self::start_as(cluster, name, &token, None, flags)
    }

    /// The same with this token, and through this address.
    pub(crate) fn start_as(
        cluster: &Cluster,
        name: &str,
        token: &str,
        via: Option<SocketAddr>,
        flags: &[&str],
    ) -> anyhow::Result<Self> {
        let port = || anyhow::Ok(SocketAddr::from(([127, 0, 0, 1], wait::free_port()?)));
        let (secure, plaintext, debug, ready) = (port()?, port()?, port()?, port()?);
        let kubeconfig = kubeconfig(cluster, name, Some(token), via)?;
        let mut args: Vec<String> = ["serve", "--webhook-addr", "", "--pod-name", name]
            .map(str::to_owned)
            .into();
        for (flag, value) in [
            ("--kubeconfig", kubeconfig.display().to_string()),
            ("--xds-addr", secure.to_string()),
            ("--xds-plaintext-addr", plaintext.to_string()),
            ("--debug-addr", debug.to_string()),
            ("--ready-addr", ready.to_string()),
        ] {
            args.extend([flag.to_owned(), value]);
        }
        args.extend(flags.iter().map(|flag| (*flag).to_owned()));
        let mut replica = Self {
            name: name.to_owned(),
            credential: credential(token)?,
            args,
            child: None,
            secure,
            plaintext,
            debug,
            ready,
            log: cluster.dir().join(format!("{name}.log")),
        };
        replica.spawn()?;
        Ok(replica)
    }

    /// Starts it again after [`Self::kill`].
    pub(crate) fn spawn(&mut self) -> anyhow::Result<()> {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(&self.log)?;
        let child = Command::new(env!("CARGO_BIN_EXE_ambientd"))
            .args(&self.args)
            .env_remove("KUBECONFIG")
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        self.child = Some(child);
        Ok(())
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        let mut child = self.child.take().context("it does not run")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Asks it to end.
    pub(crate) fn terminate(&self) -> anyhow::Result<()> {
        self.signal(Signal::TERM)
    }

    /// Waits until it has ended by itself.
    pub(crate) async fn ended(&mut self, limit: Duration) -> anyhow::Result<ExitStatus> {
        let mut child = self.child.take().context("it does not run")?;
        let what = format!("{} to end", self.name);
        let ended = wait::until(&what, limit, || {
            let status = child.try_wait();
            async move { status?.context("it runs") }
        });
        let ended = ended.await.with_context(|| self.log_tail());
        if ended.is_err() {
            child.kill()?;
            child.wait()?;
        }
        ended
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let child = self.child.as_ref().context("it does not run")?;
        let id = Pid::from_raw(i32::try_from(child.id())?).context("no id")?;
        Ok(kill_process(id, signal)?)
    }

    /// Stops it where it is.
    pub(crate) fn freeze(&self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    /// Status and text of `/ready?verbose`.
    pub(crate) async fn ready(&self) -> anyhow::Result<(u16, String)> {
        let answer = http_client::get(self.ready, "/ready?verbose").await?;
        Ok((answer.status.as_u16(), answer.text()))
    }

    /// Waits until it is ready and every kind is watched.
    pub(crate) async fn wait_well(&self, limit: Duration) -> anyhow::Result<()> {
        let what = format!("{} to be well", self.name);
        let well = wait::until(&what, limit, || async {
            let (status, text) = self.ready().await?;
            ensure!(status == 200, "{text}");
            let bad = ["unreachable", ": failing", ": forbidden", ": listing"];
            ensure!(!bad.iter().any(|bad| text.contains(bad)), "{text}");
            Ok(())
        });
        well.await.with_context(|| self.log_tail())
    }

    /// A debug page.
    pub(crate) async fn page(&self, path: &str) -> anyhow::Result<String> {
        let answer = http_client::get(self.debug, path).await?;
        ensure!(answer.status == 200, "{path}: {}", answer.text());
        Ok(answer.text())
    }

    /// A metric without labels.
    pub(crate) async fn metric(&self, name: &str) -> anyhow::Result<u64> {
        let metrics = self.page("/metrics").await?;
        let line = |line: &str| {
            line.strip_prefix(name)?
                .strip_prefix(' ')
                .map(str::to_owned)
        };
        let value = metrics.lines().find_map(line);
        Ok(value.with_context(|| format!("no {name}"))?.parse()?)
    }

    /// Waits until it says that it hears nothing new, and that it serves on.
    pub(crate) async fn outage_is_told(&self) -> anyhow::Result<()> {
        wait::until("the outage to be told", SOON, || async {
            let (status, text) = self.ready().await?;
            let is_told = text.contains("api server: unreachable");
            ensure!(status == 200 && is_told, "{status} {text}");
            Ok(())
        })
        .await
    }

    /// Whether it writes.
    pub(crate) async fn leads(&self) -> anyhow::Result<bool> {
        let metrics = self.page("/metrics").await?;
        Ok(metrics.lines().any(|line| line == "ambientd_leader 1"))
    }

    /// A ztunnel's subscription in plain text.
    pub(crate) fn subscribe(&self) -> Ztunnel {
        Ztunnel::start(XdsTarget::Plain(self.plaintext), ztunnel_node("n1"))
    }

    /// Everything that it has said.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn log_tail(&self) -> String {
        let text = self.log();
        let lines: Vec<&str> = text.lines().collect();
        let from = lines.len().saturating_sub(30);
        format!(
            "{}'s log ends with:\n{}",
            self.name,
            lines[from..].join("\n")
        )
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}
