//! Which requests the API server refuses, and where.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kube::core::ApiResource;
use model::object::Input;
use model::{Finding, ObjectKey, ObjectRef, Severity, Str};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{info, warn};

use super::{Failure, account};

/// For how long refusals are not believed: an API server that starts refuses for a moment what its
/// roles allow, since it has not read them yet.
const REFUSALS_DOUBTED: Duration = Duration::from_secs(3);

/// Name under which findings of writers are given to the pipeline.
const SOURCE: &str = "kube-writers";
/// Namespaces that a finding names; of more it says that there are others.
const NAMED_MAX: usize = 3;
/// Namespaces that are remembered for one sort of request, and requests that are doubted.
const NAMESPACES_MAX: usize = 1_000;

/// Tells which requests the API server refuses, once each. Clones share it.
///
/// Bounded: there are few sorts of requests, each with at most 1,000 namespaces.
#[derive(Clone, Debug, Default)]
pub struct Reports {
    /// By sort of the request.
    told: Arc<Mutex<BTreeMap<String, Told>>>,
    /// Since when requests are refused that are not told of yet, by sort and namespace.
    doubted: Arc<Mutex<BTreeMap<(String, String), Instant>>>,
    findings: Option<mpsc::Sender<Vec<Input>>>,
}

/// What is told of a sort of request.
#[derive(Debug)]
enum Told {
    /// It is refused.
    Refused {
        account: ObjectRef,
        /// Where, the first one first; empty text is the cluster.
        namespaces: Vec<String>,
    },
    /// Something else.
    Other(Finding),
}

// === impl Told ===

impl Told {
    fn finding(&self, what: &str) -> Finding {
        let (account, namespaces) = match self {
            Self::Refused {
                account,
                namespaces,
            } => (account, namespaces),
            Self::Other(finding) => return finding.clone(),
        };
        let place = place(namespaces);
        let bound = if place.is_empty() {
            ""
        } else {
            ". Where other namespaces do not refuse, a RoleBinding is missing there"
        };
        Finding::new(
            "kube-write-forbidden",
            Severity::Error,
            account.clone(),
            format!("The API server lets us not {what}{place}; what belongs there is not written"),
            format!(
                "Add a rule with {what} to the ClusterRole of ambientd, or to its Role for leases{bound}"
            ),
        )
    }
}

/// Where requests are refused, as findings say it; empty when it is the cluster.
fn place(namespaces: &[String]) -> String {
    let mut all = namespaces.iter().filter(|ns| !ns.is_empty());
    let mut named: Vec<&str> = all.by_ref().take(NAMED_MAX).map(String::as_str).collect();
    let last = if all.next().is_some() {
        Some("others")
    } else {
        named.pop()
    };
    match (named.as_slice(), last) {
        (_, None) => String::new(),
        ([], Some(ns)) => format!(" in namespace {ns}"),
        (first, Some(last)) => format!(" in namespaces {} and {last}", first.join(", ")),
    }
}

// === impl Reports ===

impl Reports {
    /// Reports that go to the pipeline as findings too.
    pub fn new(findings: mpsc::Sender<Vec<Input>>) -> Self {
        Self {
            told: Arc::default(),
            doubted: Arc::default(),
            findings: Some(findings),
        }
    }

    /// A request in a namespace was refused for lack of a right: `what` is `<verb> <resource>`, the
    /// namespace empty for what every replica asks of the cluster or of its own namespace. Returns
    /// what that means: at first only that it failed.
    pub(crate) fn refused(&self, what: &str, ns: &str, message: &str) -> Failure {
        if self.doubts(what, ns) {
            return Failure::Other(message.to_owned());
        }
        let mut told = self.told.lock();
        let is_news = !told.contains_key(what);
        let entry = told
            .entry(what.to_owned())
            .or_insert_with(|| Told::Refused {
                account: account(message),
                namespaces: Vec::new(),
            });
        let before = entry.finding(what);
        if let Told::Refused { namespaces, .. } = entry {
            let is_known = namespaces.iter().any(|known| known == ns);
            if !is_known && namespaces.len() < NAMESPACES_MAX {
                namespaces.push(ns.to_owned());
            }
        }
        let is_changed = is_news || before != entry.finding(what);
        drop(told);
        if is_changed {
            warn!(
                what,
                namespace = ns,
                message,
                "the API server does not let us write"
            );
            self.send();
        }
        Failure::Refused(message.to_owned())
    }

    /// A resource is not there although objects of its kind are: the kind has no such subresource.
    /// That too is doubted at first.
    pub(crate) fn not_served(&self, what: &str, of: &ApiResource, message: &str) {
        let name = format!("{}.{}", of.plural, of.group);
        let finding = Finding::new(
            "kube-status-not-served",
            Severity::Warning,
            ObjectRef {
                kind: Str::from("CustomResourceDefinition"),
                key: ObjectKey::cluster(name.trim_end_matches('.')),
            },
            format!(
                "Version {} of {} has no status subresource; statuses are not written, everything else works",
                of.version, of.kind
            ),
            "Install the CRD as it is published, with subresources.status",
        );
        self.tell(what, message, finding);
    }

    /// Tells a finding until [`Self::allowed`], unless it is doubted.
    pub(crate) fn tell(&self, what: &str, message: &str, finding: Finding) {
        if self.doubts(what, "") {
            return;
        }
        let mut told = self.told.lock();
        let old = told.insert(what.to_owned(), Told::Other(finding.clone()));
        drop(told);
        if old.is_none_or(|old| old.finding(what) != finding) {
            warn!(what, message, "the API server does not do as we ask");
            self.send();
        }
    }

    /// Whether a refusal is too young to be believed.
    fn doubts(&self, what: &str, ns: &str) -> bool {
        let is_told = match self.told.lock().get(what) {
            Some(Told::Refused { namespaces, .. }) => namespaces.iter().any(|known| known == ns),
            Some(Told::Other(_)) => true,
            None => false,
        };
        if is_told {
            return false;
        }
        let key = (what.to_owned(), ns.to_owned());
        let mut doubted = self.doubted.lock();
        let now = Instant::now();
        if !doubted.contains_key(&key) && doubted.len() >= NAMESPACES_MAX {
            return true;
        }
        let since = *doubted.entry(key.clone()).or_insert(now);
        if since.elapsed() < REFUSALS_DOUBTED {
            return true;
        }
        doubted.remove(&key);
        false
    }

    /// A request of this sort went through in this namespace.
    pub(crate) fn allowed(&self, what: &str, ns: &str) {
        if self.withdraw(what, ns) {
            info!(what, namespace = ns, "the API server does as we ask again");
        }
    }

    /// Nothing of this sort is asked for in this namespace any more.
    pub(crate) fn moot(&self, what: &str, ns: &str) {
        let is_refused = matches!(self.told.lock().get(what), Some(Told::Refused { .. }));
        if is_refused {
            self.withdraw(what, ns);
        }
    }

    /// Returns whether something was told of it.
    fn withdraw(&self, what: &str, ns: &str) -> bool {
        let mut doubted = self.doubted.lock();
        if !doubted.is_empty() {
            // A resource that is served is served everywhere.
            for ns in [ns, ""] {
                doubted.remove(&(what.to_owned(), ns.to_owned()));
            }
        }
        drop(doubted);
        let mut told = self.told.lock();
        let Some(entry) = told.get_mut(what) else {
            return false;
        };
        let before = entry.finding(what);
        let was_told = match entry {
            Told::Refused { namespaces, .. } => {
                let at = namespaces.iter().position(|known| known == ns);
                at.map(|at| namespaces.remove(at)).is_some()
            }
            Told::Other(_) => true,
        };
        let is_over = match entry {
            Told::Refused { namespaces, .. } => namespaces.is_empty(),
            Told::Other(_) => true,
        };
        let is_changed = is_over || before != entry.finding(what);
        if is_over {
            told.remove(what);
        }
        drop(told);
        if is_changed {
            self.send();
        }
        was_told
    }

    fn send(&self) {
        let Some(findings) = self.findings.clone() else {
            return;
        };
        let told = Arc::clone(&self.told);
        // The list of the time of sending, so that the last one sent is the last one true.
        tokio::spawn(async move {
            let Ok(permit) = findings.reserve().await else {
                return;
            };
            let told = told.lock();
            let all = told.iter().map(|(what, told)| told.finding(what));
            permit.send(vec![Input::SourceFindings(SOURCE, all.collect())]);
        });
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_refusal_that_lasts_is_told_once_and_withdrawn() {
        let (sender, mut receiver) = mpsc::channel(4);
        let reports = Reports::new(sender);
        let refused = || reports.refused("patch services/status", "", "no");
        assert_eq!(refused(), Failure::Other("no".to_owned()));
        tokio::time::advance(REFUSALS_DOUBTED / 2).await;
        reports.allowed("patch services/status", "");
        tokio::time::advance(REFUSALS_DOUBTED).await;
        assert_eq!(refused(), Failure::Other("no".to_owned()));
        tokio::time::advance(REFUSALS_DOUBTED).await;
        assert_eq!(refused(), Failure::Refused("no".to_owned()));
        assert_eq!(refused(), Failure::Refused("no".to_owned()));
        let Some(first) = receiver.recv().await else {
            unreachable!()
        };
        assert!(matches!(&first[..], [Input::SourceFindings(_, all)] if all.len() == 1));
        reports.allowed("patch services/status", "");
        let last = receiver.recv().await.unwrap();
        assert!(matches!(&last[..], [Input::SourceFindings(_, all)] if all.is_empty()));
        assert!(receiver.try_recv().is_err());
    }
    #[tokio::test(start_paused = true)]
    async fn a_finding_names_the_namespaces_that_refuse_as_long_as_they_do() {
        let (sender, mut receiver) = mpsc::channel(64);
        let reports = Reports::new(sender);
        let what = "patch services/status";
        let refused = |ns: &str| reports.refused(what, ns, "no");
        let mut said = async || {
            let mut last = None;
            while let Ok(Some(all)) =
                tokio::time::timeout(Duration::from_millis(1), receiver.recv()).await
            {
                last = Some(all);
            }
            match last.as_deref() {
                Some([Input::SourceFindings(_, all)]) => {
                    all.first().map(|it| it.message.to_string())
                }
                _ => Some("nothing new".to_owned()),
            }
        };
        let names = ["d", "c", "b", "a"];
        assert!(
            names
                .map(refused)
                .iter()
                .all(|it| matches!(it, Failure::Other(_)))
        );
        // What goes through elsewhere casts no doubt on it.
        reports.allowed(what, "e");
        tokio::time::advance(REFUSALS_DOUBTED).await;
        assert_eq!(refused("d"), Failure::Refused("no".to_owned()));
        let text = |place| {
            format!(
                "The API server lets us not {what} in {place}; what belongs there is not written"
            )
        };
        assert_eq!(said().await, Some(text("namespace d")));
        for ns in names {
            refused(ns);
        }
        assert_eq!(said().await, Some(text("namespaces d, c, b and others")));
        reports.allowed(what, "c");
        assert_eq!(said().await, Some(text("namespaces d, b and a")));
        reports.moot(what, "b");
        reports.allowed(what, "e");
        assert_eq!(said().await, Some(text("namespaces d and a")));
        reports.allowed(what, "d");
        reports.allowed(what, "a");
        assert_eq!(said().await, None);
        reports.allowed(what, "a");
        assert_eq!(said().await, Some("nothing new".to_owned()));
    }
}
