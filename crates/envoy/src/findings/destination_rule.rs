//! Stage `findings::destination_rule`: DestinationRules that nobody consumes, and what of the
//! others has no effect or another one. Rules with a wildcard host are judged by what they say
//! alone, not by the services that they fit. Source: spec/policy-and-traffic.md §10.6.

mod effect;
mod subset;

use flow::{Output, Reads, View};
use model::input::{
    DestinationRule, GrpcRoute, HttpRoute, PortPolicy, TlsMode, TrafficPolicy, VirtualService,
};
use model::secret::{Material, MaterialKey};
use model::{
    Finding, Kind, MeshRow, NamespacedHostname, ObjectKey, ObjectRef, Parsed, ServiceRow, Severity,
    Str, WorkloadRow, WorkloadUid,
};

use crate::attachment::{mesh_row, waypoints_of};
use crate::index::VirtualServiceByDestination;
use crate::index::{RouteByBackend, RuleHost, ServiceByHostname, ServiceByName, Target};
use crate::traffic::{self, Resolved, Seen, TrafficTables};

/// Primary: a DestinationRule.
pub type P = ObjectKey;

/// What the stage reads.
#[derive(Clone, Copy)]
pub struct DestinationRuleFindingView<'t> {
    /// Rules; index [`crate::index::DestinationRuleByHost`].
    pub destination_rules: View<'t, ObjectKey, Parsed<DestinationRule>>,
    /// Services; indexes [`ServiceByHostname`] and [`ServiceByName`].
    pub services: View<'t, NamespacedHostname, ServiceRow>,
    /// Workloads; index [`crate::index::WorkloadByService`].
    pub workloads: View<'t, WorkloadUid, WorkloadRow>,
    /// Routes; indexes [`RouteByBackend`] and [`crate::index::RouteByParent`].
    pub http_routes: View<'t, ObjectKey, Parsed<HttpRoute>>,
    /// Routes; index [`RouteByBackend`].
    pub grpc_routes: View<'t, ObjectKey, Parsed<GrpcRoute>>,
    /// VirtualServices; index [`VirtualServiceByDestination`].
    pub virtual_services: View<'t, ObjectKey, Parsed<VirtualService>>,
    /// What Secrets have to serve.
    pub materials: View<'t, MaterialKey, Material>,
    /// Mesh settings.
    pub mesh: View<'t, (), MeshRow>,
}

/// Findings as notes; the stage has no rows.
pub fn derive(
    p: &P,
    view: &DestinationRuleFindingView<'_>,
    reads: &mut Reads,
) -> Output<(), (), Finding> {
    let Some(parsed) = view.destination_rules.get(reads, p) else {
        return Output::gone();
    };
    let Some(rule) = parsed.ok() else {
        return Output::none();
    };
    let mesh = &*mesh_row(view.mesh, reads);
    let mut report = Report {
        view,
        mesh,
        key: p,
        rule,
        host: traffic::rule_host(p, rule, &mesh.domain),
        out: Vec::new(),
    };
    report.written();
    if report.host.starts_with('*') {
        report.files_elsewhere();
    } else {
        report.services(reads);
    }
    report.out.sort();
    report.out.dedup();
    Output::new(Vec::new(), report.out)
}

struct Report<'a, 't> {
    view: &'a DestinationRuleFindingView<'t>,
    mesh: &'a MeshRow,
    key: &'a ObjectKey,
    rule: &'a DestinationRule,
    /// Host in full.
    host: Str,
    out: Vec<Finding>,
}

/// Settings and the path of the block that they stand in.
struct Place<'a> {
    at: String,
    /// The port that they are for; `None` is every port.
    port: Option<u16>,
    policy: &'a PortPolicy,
}

impl<'a> Report<'a, '_> {
    fn push(
        &mut self,
        code: &'static str,
        severity: Severity,
        at: &str,
        what: String,
        fix: impl Into<Str>,
    ) {
        let object = ObjectRef::new(Kind::DestinationRule, self.key.clone());
        let finding = Finding::new(code, severity, object, what, fix);
        self.out.push(finding.at(at));
    }

    /// Every policy that is written, with its path.
    fn policies(&self) -> Vec<(String, &'a TrafficPolicy)> {
        let top = self.rule.policy.as_ref();
        let top = top.map(|policy| ("spec.trafficPolicy".to_owned(), policy));
        let subsets = self.rule.subsets.iter().enumerate();
        let subsets = subsets.filter_map(|(i, subset)| {
            let policy = subset.policy.as_ref()?;
            Some((format!("spec.subsets[{i}].trafficPolicy"), policy))
        });
        top.into_iter().chain(subsets).collect()
    }

    /// Every block of settings that is written.
    fn places(&self) -> Vec<Place<'a>> {
        let mut out = Vec::new();
        for (at, policy) in self.policies() {
            for (port, settings) in &policy.ports {
                out.push(Place {
                    at: format!("{at}.portLevelSettings"),
                    port: Some(*port),
                    policy: settings,
                });
            }
            out.push(Place {
                at,
                port: None,
                policy: &policy.base,
            });
        }
        out
    }

    fn opens_tls(&self) -> bool {
        self.places().iter().any(|place| {
            let mode = place.policy.tls.as_ref().map(|tls| tls.mode);
            matches!(mode, Some(TlsMode::Simple | TlsMode::Mutual))
        })
    }

    /// Whose rule this is: the services of its host and the waypoints that they are behind.
    fn services(&mut self, reads: &mut Reads) {
        let view = self.view;
        let rows = view.services.by::<ServiceByHostname>(reads, &self.host);
        let rows: Vec<_> = rows.map(|(_, row)| row).collect();
        if rows.is_empty() {
            self.unknown_host(reads);
            return;
        }
        let mut is_applied = false;
        let mut is_considered = false;
        for service in &rows {
            for waypoint in waypoints_of(service) {
                is_considered = true;
                is_applied |= self.at_waypoint(reads, service, waypoint);
            }
        }
        if is_applied {
            self.subsets(reads, &rows);
            return;
        }
        if is_considered {
            return;
        }
        if self.is_routed_to(reads, &rows) {
            self.files_elsewhere();
            return;
        }
        let severity = if self.opens_tls() {
            Severity::Error
        } else {
            Severity::Warning
        };
        let what = format!(
            "No waypoint serves {}, so nobody consumes this DestinationRule: its traffic goes on as if it did not exist",
            self.host
        );
        let fix = "Bind the service to a waypoint with istio.io/use-waypoint";
        self.push("dr-no-waypoint", severity, "spec.host", what, fix);
    }

    fn unknown_host(&mut self, reads: &mut Reads) {
        let short = &self.rule.host;
        if !short.contains('.') {
            let named = self.view.services.by::<ServiceByName>(reads, short);
            let other = named.map(|(key, _)| &key.hostname).min();
            if let Some(other) = other {
                let what = format!(
                    "{short} means {}, which does not exist; the rule has no effect on {other}",
                    self.host
                );
                let fix = arcstr::format!("Write {other}");
                self.push("dr-shortname", Severity::Warning, "spec.host", what, fix);
                return;
            }
        }
        let what = format!(
            "There is no service {}, so this DestinationRule has no effect",
            self.host
        );
        let fix = "Correct the host, or add the Service or ServiceEntry";
        self.push("dr-host-unknown", Severity::Warning, "spec.host", what, fix);
    }

    /// Whether routes lead to a host, which a waypoint elsewhere may then consume the rule for.
    fn is_routed_to(&self, reads: &mut Reads, rows: &[&std::sync::Arc<ServiceRow>]) -> bool {
        let view = self.view;
        let targets = rows.iter().filter_map(|row| Target::of_service(row));
        for target in targets {
            let mut routes = view.http_routes.by::<RouteByBackend>(reads, &target);
            if routes.next().is_some() {
                return true;
            }
            let mut routes = view.grpc_routes.by::<RouteByBackend>(reads, &target);
            if routes.next().is_some() {
                return true;
            }
        }
        !self.destinations(reads).is_empty()
    }

    /// Subsets that VirtualServices lead to, the empty one for all of the host.
    fn destinations(&self, reads: &mut Reads) -> Vec<Str> {
        let head = RuleHost::of(&Str::new(), &self.host).head;
        let found = self.view.virtual_services;
        let found = found.by::<VirtualServiceByDestination>(reads, &head);
        let mut out = Vec::new();
        for (key, parsed) in found {
            let Some(row) = parsed.ok() else { continue };
            for to in crate::index::destinations(row) {
                let full = if to.host.contains('.') {
                    to.host.clone()
                } else {
                    arcstr::format!("{}.{}.svc.{}", to.host, key.ns, self.mesh.domain)
                };
                if full.eq_ignore_ascii_case(&self.host) {
                    out.push(to.subset.clone());
                }
            }
        }
        out.sort();
        out.dedup();
        out
    }

    /// What becomes of the rule at a waypoint of the service; whether it applies there.
    fn at_waypoint(
        &mut self,
        reads: &mut Reads,
        service: &ServiceRow,
        waypoint: &ObjectKey,
    ) -> bool {
        let tables = TrafficTables {
            destination_rules: self.view.destination_rules,
        };
        let seen = Seen::from(waypoint, service, self.mesh);
        let resolved = traffic::resolve(tables, reads, &seen);
        let found = resolved.as_ref();
        if !found.is_some_and(|found| found.keys().any(|key| key == self.key)) {
            self.unconsumed(service, waypoint, found);
            return false;
        }
        if traffic::claims_foreign_host(self.key, &service.key, self.mesh) {
            let what = format!(
                "This rule of namespace {} decides for {} of namespace {}, at waypoint {waypoint}",
                self.key.ns, self.host, service.key.ns
            );
            let fix = "Keep it with its service, or run with --allow-foreign-hosts=false";
            self.push("dr-foreign-host", Severity::Warning, "spec.host", what, fix);
        }
        if let Some(found) = found.filter(|found| found.key() != self.key) {
            let what = format!(
                "{} is for the same host: its traffic policy is used{}",
                found.key(),
                if self.rule.policy.is_some() {
                    " and that of this rule is not"
                } else {
                    ", with the subsets of both"
                }
            );
            let fix = "Merge the two rules";
            self.push("dr-duplicate", Severity::Warning, "spec.host", what, fix);
        }
        self.effects(reads, service, waypoint);
        true
    }

    /// Why the rule does not apply at a waypoint of its service.
    fn unconsumed(
        &mut self,
        service: &ServiceRow,
        waypoint: &ObjectKey,
        winner: Option<&Resolved<'_>>,
    ) {
        let (from, own, root) = (&waypoint.ns, &self.key.ns, &self.mesh.root_namespace);
        if self.rule.workload_selector.is_some() {
            let what = format!(
                "Rules with workloadSelector do not configure waypoints: at {waypoint} this one has no effect"
            );
            let fix = "Remove workloadSelector";
            let at = "spec.workloadSelector";
            self.push("dr-selector-waypoint", Severity::Warning, at, what, fix);
            return;
        }
        let is_looked_at = own == from || *own == service.key.ns || own == root;
        if !is_looked_at {
            let what = format!(
                "For {} only rules of the namespaces {from} (its waypoint's), {} and {root} are consulted, not this one",
                self.host, service.key.ns
            );
            let fix = arcstr::format!("Move the rule to namespace {}", service.key.ns);
            self.push(
                "dr-foreign-namespace",
                Severity::Warning,
                "metadata.namespace",
                what,
                fix,
            );
            return;
        }
        if !self.mesh.features.foreign_hosts
            && traffic::claims_foreign_host(self.key, &service.key, self.mesh)
        {
            let what = format!(
                "{} is of namespace {}, and rules must not claim hosts of other namespaces here: this one is not applied",
                self.host, service.key.ns
            );
            let fix = arcstr::format!("Move the rule to namespace {}", service.key.ns);
            self.push("dr-foreign-host", Severity::Error, "spec.host", what, fix);
            return;
        }
        let sees_service = traffic::is_visible(&service.export_to, &service.key.ns, from);
        let sees_rule = traffic::is_visible(traffic::export_to(self.rule, self.mesh), own, from);
        if let Some(winner) = winner.filter(|_| sees_rule) {
            let what = format!(
                "At waypoint {waypoint} DestinationRule {} takes precedence, and nothing of this one is merged into it",
                winner.key()
            );
            let fix = arcstr::format!("Merge it into {}", winner.key());
            self.push("dr-shadowed", Severity::Warning, "spec.host", what, fix);
            return;
        }
        let what = if sees_service {
            format!(
                "This rule is not exported to namespace {from} of waypoint {waypoint}, so it has no effect there"
            )
        } else {
            format!(
                "{} is not exported to namespace {from} of waypoint {waypoint}, which therefore applies no rule to it",
                self.host
            )
        };
        let fix = arcstr::format!("Add {from} to exportTo");
        self.push(
            "dr-not-exported",
            Severity::Warning,
            "spec.exportTo",
            what,
            fix,
        );
    }
}
