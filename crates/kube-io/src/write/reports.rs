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
/// How long after its last repetition a refusal is forgotten that was never believed. Longer than
/// the time between two attempts, which is ten minutes at most: else refusals of requests that
/// rare would never be believed.
const DOUBT_KEPT: Duration = Duration::from_secs(15 * 60);

/// Name under which findings of writers are given to the pipeline.
const SOURCE: &str = "kube-writers";
/// Namespaces that a finding names; of more it says that there are others.
const NAMED_MAX: usize = 3;
/// Namespaces that are remembered for one verb and resource.
const NAMESPACES_MAX: usize = 1_000;
/// Refusals that are remembered before they are believed; a further one is believed at once.
const DOUBTED_MAX: usize = 1_000;

/// Reports which requests the API server refuses, once each. Clones share it.
///
/// Bounded: there are few pairs of verb and resource, each with at most 1,000 namespaces.
#[derive(Clone, Debug, Default)]
pub struct Reports {
    /// By verb and resource.
    reported: Arc<Mutex<BTreeMap<String, Report>>>,
    /// Refusals that are not reported yet, by verb and resource, and by namespace.
    doubted: Arc<Mutex<BTreeMap<(String, String), Doubted>>>,
    findings: Option<mpsc::Sender<Vec<Input>>>,
}

/// What is reported of a verb and resource.
#[derive(Debug)]
enum Report {
    /// It is refused.
    Refused {
        account: ObjectRef,
        /// Where, the first one first; empty text is the cluster.
        namespaces: Vec<String>,
    },
    /// Something else.
    Other(Finding),
}

/// When a request was refused that is not reported yet.
#[derive(Clone, Copy, Debug)]
struct Doubted {
    first: Instant,
    last: Instant,
}

// === impl Report ===

impl Report {
    /// Whether a refusal in a namespace is part of it. Beyond the namespaces that are remembered
    /// every other one is.
    fn has_refusal(&self, ns: &str) -> bool {
        match self {
            Self::Refused { namespaces, .. } => {
                namespaces.len() >= NAMESPACES_MAX || namespaces.iter().any(|known| known == ns)
            }
            Self::Other(_) => false,
        }
    }

    fn finding(&self, request: &str) -> Finding {
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
            format!(
                "The API server lets us not {request}{place}; what belongs there is not written"
            ),
            format!(
                "Add a rule with {request} to the ClusterRole of ambientd, or to its Role for leases{bound}"
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

/// Whether a finding of namespaces says something else when one comes or goes behind these.
fn is_shown_behind(before: &[String]) -> bool {
    before.iter().filter(|ns| !ns.is_empty()).count() <= NAMED_MAX
}

// === impl Reports ===

impl Reports {
    /// Reports that go to the pipeline as findings too.
    pub fn new(findings: mpsc::Sender<Vec<Input>>) -> Self {
        Self {
            reported: Arc::default(),
            doubted: Arc::default(),
            findings: Some(findings),
        }
    }

    /// A request in a namespace was refused for lack of a right: `request` is `<verb> <resource>`,
    /// the namespace empty for what every replica asks of the cluster or of its own namespace.
    /// Returns what that means: at first only that it failed.
    pub(crate) fn refused(&self, request: &str, ns: &str, message: &str) -> Failure {
        let is_reported = {
            let reported = self.reported.lock();
            let report = reported.get(request);
            report.is_some_and(|report| report.has_refusal(ns))
        };
        if !is_reported {
            if self.doubts(request, ns) {
                return Failure::Other(message.to_owned());
            }
            if self.add_refusal(request, ns, message) {
                warn!(
                    code = "kube-write-forbidden",
                    request,
                    namespace = ns,
                    message,
                    "the API server does not let us write"
                );
                self.send();
            }
        }
        Failure::Refused(message.to_owned())
    }

    /// Returns whether the finding of it changes.
    fn add_refusal(&self, request: &str, ns: &str, message: &str) -> bool {
        let first = || Report::Refused {
            account: account(message),
            namespaces: vec![ns.to_owned()],
        };
        let mut reported = self.reported.lock();
        match reported.get_mut(request) {
            Some(Report::Refused { namespaces, .. }) => {
                let is_known = namespaces.iter().any(|known| known == ns);
                if is_known || namespaces.len() >= NAMESPACES_MAX {
                    return false;
                }
                let is_shown = is_shown_behind(namespaces);
                namespaces.push(ns.to_owned());
                is_shown
            }
            // What was reported before is over: we are not even let so far.
            Some(report @ Report::Other(_)) => {
                *report = first();
                true
            }
            None => {
                reported.insert(request.to_owned(), first());
                true
            }
        }
    }

    /// A resource is not there although objects of its kind are: the kind has no such subresource.
    /// That too is doubted at first.
    pub(crate) fn not_served(&self, request: &str, of: &ApiResource, message: &str) {
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
        self.report(request, message, finding);
    }

    /// Reports a finding until [`Self::allowed`], unless it is doubted.
    pub(crate) fn report(&self, request: &str, message: &str, finding: Finding) {
        let is_reported = matches!(self.reported.lock().get(request), Some(Report::Other(_)));
        if !is_reported && self.doubts(request, "") {
            return;
        }
        let code = finding.code;
        let mut reported = self.reported.lock();
        let is_same = matches!(reported.get(request), Some(Report::Other(old)) if *old == finding);
        if !is_same {
            reported.insert(request.to_owned(), Report::Other(finding));
        }
        drop(reported);
        if !is_same {
            warn!(
                code,
                request, message, "the API server does not do as we ask"
            );
            self.send();
        }
    }

    /// Whether a refusal that is not reported is too young to be believed.
    fn doubts(&self, request: &str, ns: &str) -> bool {
        let now = Instant::now();
        let key = (request.to_owned(), ns.to_owned());
        let mut doubted = self.doubted.lock();
        doubted.retain(|_, it| now - it.last < DOUBT_KEPT);
        if doubted.len() >= DOUBTED_MAX && !doubted.contains_key(&key) {
            return false;
        }
        let it = doubted.entry(key.clone()).or_insert(Doubted {
            first: now,
            last: now,
        });
        it.last = now;
        let is_young = now - it.first < REFUSALS_DOUBTED;
        if !is_young {
            doubted.remove(&key);
        }
        is_young
    }

    /// A request went through in this namespace.
    pub(crate) fn allowed(&self, request: &str, ns: &str) {
        self.believe(request, ns);
        // A resource that is served is served everywhere.
        self.believe(request, "");
        let mut reported = self.reported.lock();
        let is_other = matches!(reported.get(request), Some(Report::Other(_)));
        if is_other {
            reported.remove(request);
        }
        drop(reported);
        let was_reported = if is_other {
            self.send();
            true
        } else {
            self.remove_refusal(request, ns)
        };
        if was_reported {
            info!(
                request,
                namespace = ns,
                "the API server does as we ask again"
            );
        }
    }

    /// Nothing of this verb and resource is asked for in this namespace any more.
    pub(crate) fn forget(&self, request: &str, ns: &str) {
        self.believe(request, ns);
        self.remove_refusal(request, ns);
    }

    /// Ends a doubt.
    fn believe(&self, request: &str, ns: &str) {
        let mut doubted = self.doubted.lock();
        if !doubted.is_empty() {
            doubted.remove(&(request.to_owned(), ns.to_owned()));
        }
    }

    /// Returns whether a refusal was reported there.
    fn remove_refusal(&self, request: &str, ns: &str) -> bool {
        let mut reported = self.reported.lock();
        let Some(Report::Refused { namespaces, .. }) = reported.get_mut(request) else {
            return false;
        };
        let Some(at) = namespaces.iter().position(|known| known == ns) else {
            return false;
        };
        namespaces.remove(at);
        let is_over = namespaces.is_empty();
        let is_shown = namespaces.get(..at).is_none_or(is_shown_behind);
        if is_over {
            reported.remove(request);
        }
        drop(reported);
        if is_over || is_shown {
            self.send();
        }
        true
    }

    fn send(&self) {
        let Some(findings) = self.findings.clone() else {
            return;
        };
        let reported = Arc::clone(&self.reported);
        // The list of the time of sending, so that the last one sent is the last one true.
        tokio::spawn(async move {
            let Ok(permit) = findings.reserve().await else {
                return;
            };
            let reported = reported.lock();
            let all = reported
                .iter()
                .map(|(request, report)| report.finding(request));
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
        let request = "patch services/status";
        let refused = |ns: &str| reports.refused(request, ns, "no");
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
        reports.allowed(request, "e");
        tokio::time::advance(REFUSALS_DOUBTED).await;
        assert_eq!(refused("d"), Failure::Refused("no".to_owned()));
        let text = |place| {
            format!(
                "The API server lets us not {request} in {place}; what belongs there is not written"
            )
        };
        assert_eq!(said().await, Some(text("namespace d")));
        for ns in names {
            refused(ns);
        }
        assert_eq!(said().await, Some(text("namespaces d, c, b and others")));
        reports.allowed(request, "c");
        assert_eq!(said().await, Some(text("namespaces d, b and a")));
        reports.forget(request, "b");
        reports.allowed(request, "e");
        assert_eq!(said().await, Some(text("namespaces d and a")));
        reports.allowed(request, "d");
        reports.allowed(request, "a");
        assert_eq!(said().await, None);
        reports.allowed(request, "a");
        assert_eq!(said().await, Some("nothing new".to_owned()));
    }

    const REQUEST: &str = "patch services/status";

    fn is_believed(reports: &Reports, ns: &str) -> bool {
        matches!(reports.refused(REQUEST, ns, "no"), Failure::Refused(_))
    }

    #[tokio::test(start_paused = true)]
    async fn a_doubt_ends_with_its_request_or_when_it_is_old() {
        let reports = Reports::default();
        assert!(!is_believed(&reports, "a") && !is_believed(&reports, "b"));
        reports.forget(REQUEST, "a");
        assert_eq!(reports.doubted.lock().len(), 1);
        tokio::time::advance(Duration::from_secs(600)).await;
        // It is tried every ten minutes.
        assert!(!is_believed(&reports, "a") && is_believed(&reports, "b"));
        assert!(!is_believed(&reports, "c"));
        tokio::time::advance(DOUBT_KEPT).await;
        assert!(!is_believed(&reports, "c"));
        assert_eq!(reports.doubted.lock().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn refusals_beyond_the_bounds_are_believed_at_once_and_stay_so() {
        let reports = Reports::default();
        let names: Vec<String> = (0..DOUBTED_MAX + 2).map(|it| it.to_string()).collect();
        let believed = || names.iter().filter(|ns| is_believed(&reports, ns)).count();
        assert_eq!(believed(), 2);
        tokio::time::advance(REFUSALS_DOUBTED).await;
        for _ in 0..3 {
            assert_eq!(believed(), names.len());
        }
        assert!(reports.doubted.lock().len() <= 2);
        let reported = reports.reported.lock();
        let Some(Report::Refused { namespaces, .. }) = reported.get(REQUEST) else {
            unreachable!()
        };
        assert_eq!(namespaces.len(), NAMESPACES_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_takes_the_place_of_what_was_reported_otherwise() {
        let (sender, mut receiver) = mpsc::channel(4);
        let reports = Reports::new(sender);
        let services = ApiResource::erase::<k8s_openapi::api::core::v1::Service>(&());
        let not_served = || reports.not_served(REQUEST, &services, "not found");
        let mut code = async || match receiver.recv().await.as_deref() {
            Some([Input::SourceFindings(_, all)]) => all.first().map(|it| it.code),
            _ => unreachable!(),
        };
        not_served();
        tokio::time::advance(REFUSALS_DOUBTED).await;
        not_served();
        assert_eq!(code().await, Some("kube-status-not-served"));
        assert!(!is_believed(&reports, "a"));
        tokio::time::advance(REFUSALS_DOUBTED).await;
        assert!(is_believed(&reports, "a"));
        assert_eq!(code().await, Some("kube-write-forbidden"));
        reports.allowed(REQUEST, "a");
        assert_eq!(code().await, None);
    }
}
