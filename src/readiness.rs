//! Whether this replica serves, and what it waits for: `/ready`.
//! Source: spec/control-plane.md §8.1, §8.3.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use authn::Authenticator;
use ca::Authority;
use kube_io::{Health, KindHealth, KindState, Leadership};
use model::Kind;
use tokio::time::Instant;

/// What must be there before this replica is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The first complete snapshot.
    Snapshot,
    /// The CA signs.
    Authority,
    /// xDS is served.
    Xds,
    /// The webhook is served.
    Webhook,
}

impl Part {
    fn as_str(self) -> &'static str {
        match self {
            Self::Snapshot => "snapshot",
            Self::Authority => "certificate authority",
            Self::Xds => "xds",
            Self::Webhook => "webhook",
        }
    }
}

/// Which parts are there. Clones share it.
///
/// Parts that are there stay there: only the end of the process takes readiness back.
#[derive(Clone, Debug)]
pub struct Readiness(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    parts: Vec<Part>,
    waiting: BTreeSet<Part>,
    stopping: bool,
}

// === impl Readiness ===

impl Readiness {
    /// None of these parts is there yet.
    pub fn new(parts: &[Part]) -> Self {
        Self(Arc::new(Mutex::new(State {
            parts: parts.to_vec(),
            waiting: parts.iter().copied().collect(),
            stopping: false,
        })))
    }

    /// A part is there.
    pub fn done(&self, part: Part) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let was_waiting = state.waiting.remove(&part);
        if was_waiting && state.waiting.is_empty() {
            tracing::info!("ready");
        }
    }

    /// The process ends.
    pub fn stop(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.stopping = true;
    }

    /// Whether clients may come.
    pub fn is_ready(&self) -> bool {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.waiting.is_empty() && !state.stopping
    }
}

/// The cluster, as far as this replica sees it.
#[derive(Clone)]
pub struct ClusterView {
    /// How the watches are doing.
    pub health: Health,
    /// Whether this replica writes.
    pub leadership: Leadership,
}

/// What exists only some time after HTTP is served.
#[derive(Default)]
pub struct Late {
    /// Says who is calling.
    pub authenticator: OnceLock<Arc<Authenticator>>,
    /// The CA.
    pub authority: OnceLock<Arc<Authority>>,
    /// The cluster, where there is one.
    pub cluster: OnceLock<ClusterView>,
}

/// The API server cannot be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outage {
    /// Since when nothing was heard of any kind.
    pub since: Instant,
    /// The error of one of them.
    pub error: String,
}

/// Whether the API server is away: no watch works, and at least one says why.
pub fn outage(health: &Health) -> Option<Outage> {
    let mut found: Option<Outage> = None;
    for (_, kind) in health.kinds() {
        match kind.state {
            KindState::Watching => return None,
            KindState::Listing if kind.error.is_empty() => {}
            // These were told so by an API server that answered.
            KindState::Absent | KindState::Forbidden => {}
            KindState::Listing | KindState::Failing => {
                let earlier = found.as_ref().is_none_or(|found| kind.since < found.since);
                if earlier {
                    found = Some(Outage {
                        since: kind.since,
                        error: kind.error,
                    });
                }
            }
        }
    }
    found
}

/// One word for a state.
pub fn state_word(state: &KindState) -> &'static str {
    match state {
        KindState::Listing => "listing",
        KindState::Absent => "absent",
        KindState::Watching => "watching",
        KindState::Forbidden => "forbidden",
        KindState::Failing => "failing",
    }
}

/// `/ready?verbose`: one line for each condition, then what the cluster is like. Errors are told
/// to this host only.
pub fn report(readiness: &Readiness, late: &Late, local: bool) -> String {
    let mut text = String::new();
    {
        let state = readiness.0.lock().unwrap_or_else(PoisonError::into_inner);
        for part in &state.parts {
            let mark = if state.waiting.contains(part) {
                '-'
            } else {
                '+'
            };
            let _ = write!(text, "[{mark}] {}", part.as_str());
            if *part == Part::Authority
                && let Some(line) = late.authority.get().and_then(|ca| not_after(ca))
            {
                text.push_str(&line);
            }
            text.push('\n');
        }
        if state.stopping {
            text.push_str("[-] stopping\n");
        }
    }
    if let Some(cluster) = late.cluster.get() {
        cluster_report(&mut text, cluster, local);
    }
    text.push_str(if readiness.is_ready() {
        "ready\n"
    } else {
        "not ready\n"
    });
    text
}

fn not_after(authority: &Authority) -> Option<String> {
    let signer = authority.signer().ok()?;
    let left = signer.not_after().duration_since(SystemTime::now());
    let days = left.unwrap_or_default().as_secs() / (24 * 3600);
    Some(format!(": signs for {days} more days"))
}

fn cluster_report(text: &mut String, cluster: &ClusterView, local: bool) {
    let since = |since: Instant| span(since.elapsed());
    let error = |error: &str| match error {
        "" => String::new(),
        _ if !local => String::new(),
        error => format!(": {}", error.replace(['\n', '\r'], " ")),
    };
    let _ = match outage(&cluster.health) {
        Some(outage) => writeln!(
            text,
            "api server: unreachable for {}; serving what was read last{}",
            since(outage.since),
            error(&outage.error)
        ),
        None => writeln!(text, "api server: reachable"),
    };
    let _ = match cluster.leadership.term() {
        Some(term) => writeln!(text, "leader: this replica (term {})", term.transitions),
        None => writeln!(text, "leader: not this replica"),
    };
    for (kind, health) in cluster.health.kinds() {
        let KindHealth {
            state, since: at, ..
        } = &health;
        let _ = writeln!(
            text,
            "{}: {} for {}{}",
            kind_word(kind),
            state_word(state),
            since(*at),
            error(&health.error)
        );
    }
}

fn kind_word(kind: Kind) -> &'static str {
    kind.as_str()
}

fn span(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}

/// Says in the log when the API server goes away and when it is back; ends with the process.
///
/// # Errors
/// Never.
pub async fn tell_outages(health: Health) -> anyhow::Result<()> {
    const LOOK: Duration = Duration::from_secs(1);
    let mut since: Option<Instant> = None;
    loop {
        tokio::time::sleep(LOOK).await;
        match (outage(&health), since) {
            (Some(outage), None) => {
                tracing::warn!(
                    error = outage.error,
                    "the API server cannot be reached: serving goes on with what was read last"
                );
                since = Some(outage.since);
            }
            (None, Some(began)) => {
                let seconds = began.elapsed().as_secs();
                tracing::info!(seconds, "the API server is back");
                since = None;
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tokio::sync::watch;

    use super::*;

    #[test]
    fn readiness_is_taken_back_by_the_end_alone() {
        let readiness = Readiness::new(&[Part::Snapshot, Part::Xds]);
        readiness.done(Part::Xds);
        assert!(!readiness.is_ready());
        readiness.done(Part::Snapshot);
        readiness.done(Part::Snapshot);
        assert!(readiness.is_ready());
        readiness.stop();
        assert!(!readiness.is_ready());
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_is_when_no_watch_works() {
        let health = Health::default();
        assert_eq!(outage(&health), None);
        health.set(Kind::Pod, KindState::Listing, "");
        health.set(Kind::TcpRoute, KindState::Absent, "");
        health.set(Kind::Secret, KindState::Forbidden, "no");
        assert_eq!(outage(&health), None);
        health.set(Kind::Pod, KindState::Failing, "refused");
        let since = Instant::now();
        tokio::time::advance(Duration::from_secs(5)).await;
        health.set(Kind::Node, KindState::Failing, "late");
        let error = "refused".to_owned();
        assert_eq!(outage(&health), Some(Outage { since, error }));
        health.set(Kind::Node, KindState::Watching, "");
        assert_eq!(outage(&health), None);
    }

    #[tokio::test(start_paused = true)]
    async fn the_report_says_what_is_waited_for_and_errors_to_this_host_alone() {
        let readiness = Readiness::new(&[Part::Snapshot, Part::Authority]);
        readiness.done(Part::Snapshot);
        let late = Late::default();
        let health = Health::default();
        health.set(Kind::Pod, KindState::Failing, "refused");
        let view = ClusterView {
            health,
            leadership: Leadership::new(watch::channel(None).1),
        };
        assert!(late.cluster.set(view).is_ok());
        tokio::time::advance(Duration::from_secs(130)).await;
        let head = "[+] snapshot\n[-] certificate authority\n";
        assert_eq!(
            report(&readiness, &late, true),
            format!(
                "{head}api server: unreachable for 2 min; serving what was read last: refused\n\
                 leader: not this replica\nPod: failing for 2 min: refused\nnot ready\n"
            )
        );
        assert!(!report(&readiness, &late, false).contains("refused"));
    }
}
