//! Stage `findings::policy`: what of an AuthorizationPolicy with targets is not enforced as
//! written. Policies without targets are ztunnel's and reported there.

use std::sync::Arc;

use flow::{Output, Reads, View};
use model::input::{Action, AuthorizationPolicy, TargetRef};
use model::{
    Finding, Kind, MeshRow, NamespacedHostname, ObjectKey, ObjectRef, Parsed, ServiceRow, Severity,
    Str, WaypointRow, WorkloadRow, WorkloadUid,
};

use crate::attachment::port_chains;
use crate::authz::{WAYPOINT_CLASS, usage};
use crate::index::{
    ServiceBySource, ServiceByWaypoint, TargetKind, UntargetedPolicyByNamespace, WaypointByClass,
    WorkloadByService,
};

/// Primary: an AuthorizationPolicy.
pub type P = ObjectKey;

/// What the stage reads.
#[derive(Clone, Copy)]
pub struct PolicyFindingView<'t> {
    /// Policies; index [`UntargetedPolicyByNamespace`].
    pub policies: View<'t, ObjectKey, Parsed<AuthorizationPolicy>>,
    /// Services; indexes [`ServiceBySource`] and [`ServiceByWaypoint`].
    pub services: View<'t, NamespacedHostname, ServiceRow>,
    /// Workloads; index [`WorkloadByService`].
    pub workloads: View<'t, WorkloadUid, WorkloadRow>,
    /// Waypoints; index [`WaypointByClass`].
    pub waypoints: View<'t, ObjectKey, WaypointRow>,
    /// Mesh settings.
    pub mesh: View<'t, (), MeshRow>,
}

/// Findings as notes; the stage has no rows.
pub fn derive(p: &P, view: &PolicyFindingView<'_>, reads: &mut Reads) -> Output<(), (), Finding> {
    let Some(parsed) = view.policies.get(reads, p) else {
        return Output::gone();
    };
    let Some(policy) = parsed.ok().filter(|policy| !policy.targets.is_empty()) else {
        return Output::none();
    };
    let default_mesh = MeshRow::default();
    let mesh = view
        .mesh
        .get(reads, &())
        .map_or(&default_mesh, |row| &**row);
    let mut report = Report {
        view,
        mesh,
        key: p,
        policy,
        object: ObjectRef::new(Kind::AuthorizationPolicy, p.clone()),
        out: Vec::new(),
    };
    report.values();
    report.rules();
    for (index, target) in policy.targets.iter().enumerate() {
        report.target(reads, index, target);
    }
    report.out.sort();
    report.out.dedup();
    Output::new(Vec::new(), report.out)
}

struct Report<'a, 't> {
    view: &'a PolicyFindingView<'t>,
    mesh: &'a MeshRow,
    key: &'a ObjectKey,
    policy: &'a AuthorizationPolicy,
    object: ObjectRef,
    out: Vec<Finding>,
}

impl Report<'_, '_> {
    fn push(&mut self, code: &'static str, severity: Severity, at: &str, what: String, fix: &str) {
        let finding = Finding::new(code, severity, self.object.clone(), what, fix);
        self.out.push(finding.at(at));
    }

    fn rules(&mut self) {
        if self.policy.action == Action::Custom {
            let name = self.policy.provider.as_deref().unwrap_or_default();
            let what = format!(
                "External authorizers are not supported (provider {name:?}); every request that the rules match is refused"
            );
            let fix = "Use ALLOW or DENY";
            self.push(
                "authz-custom-provider",
                Severity::Error,
                "spec.provider",
                what,
                fix,
            );
        }
        let effect = if self.policy.action == Action::Allow {
            "so the rule allows nothing"
        } else {
            "so the rule applies without that condition"
        };
        for (index, rule) in self.policy.rules.iter().enumerate() {
            let at = format!("spec.rules[{index}]");
            let used = usage(rule);
            if used.jwt {
                let what =
                    format!("Request principals and token claims are not supported, {effect}");
                let fix = "Use principals of the workload certificate";
                self.push("authz-jwt-not-supported", Severity::Error, &at, what, fix);
            }
            if used.unknown {
                let what = format!("A condition of the rule cannot be evaluated, {effect}");
                self.push(
                    "field-not-applied",
                    Severity::Error,
                    &at,
                    what,
                    "Rewrite the condition",
                );
            }
        }
    }

    /// Values that can never match.
    fn values(&mut self) {
        let policy = self.policy;
        for (r, rule) in policy.rules.iter().enumerate() {
            for (i, from) in rule.from.iter().enumerate() {
                let lists = [
                    ("principals", &from.principals.values),
                    ("notPrincipals", &from.principals.not_values),
                ];
                for (name, list) in lists {
                    let at = format!("spec.rules[{r}].from[{i}].source.{name}");
                    self.principals(&at, list);
                }
            }
            for (i, to) in rule.to.iter().enumerate() {
                let lists = [
                    ("paths", &to.paths.values),
                    ("notPaths", &to.paths.not_values),
                ];
                for (name, list) in lists {
                    let at = format!("spec.rules[{r}].to[{i}].operation.{name}");
                    self.paths(&at, list);
                }
            }
            for (i, (key, values)) in rule.when.iter().enumerate() {
                if key == "source.principal" {
                    self.principals(&format!("spec.rules[{r}].when[{i}].values"), &values.values);
                    let at = format!("spec.rules[{r}].when[{i}].notValues");
                    self.principals(&at, &values.not_values);
                }
            }
        }
    }

    fn principals(&mut self, at: &str, list: &[Str]) {
        if let Some(value) = list.iter().find(|value| value.starts_with("spiffe://")) {
            let what = format!("{value:?} never matches: principals are written without spiffe://");
            let fix = "Remove the prefix";
            self.push("authz-principal-scheme", Severity::Error, at, what, fix);
        }
    }

    fn paths(&mut self, at: &str, list: &[Str]) {
        let odd = |path: &&Str| path.contains(['?', '#']) || !path.starts_with(['/', '*']);
        if let Some(path) = list.iter().find(odd) {
            let what = format!(
                "{path:?} never matches: paths begin with / and are compared without query"
            );
            self.push(
                "authz-path-query",
                Severity::Error,
                at,
                what,
                "Write the path alone",
            );
        }
    }

    fn target(&mut self, reads: &mut Reads, index: usize, target: &TargetRef) {
        let at = format!("spec.targetRefs[{index}]");
        let other_ns = target
            .ns
            .as_ref()
            .filter(|ns| !ns.is_empty() && **ns != self.key.ns);
        let kind = TargetKind::of(&target.group, &target.kind).filter(|_| other_ns.is_none());
        match kind {
            Some(TargetKind::GatewayClass) => self.class(reads, &at, target),
            Some(TargetKind::Gateway) => self.gateway(reads, &at, target),
            Some(TargetKind::Service) => self.service(reads, &at, Kind::Service, target),
            Some(TargetKind::ServiceEntry) => self.service(reads, &at, Kind::ServiceEntry, target),
            None => self.missing(
                &at,
                target,
                "a policy can only name objects of its own namespace",
            ),
        }
    }

    fn missing(&mut self, at: &str, target: &TargetRef, why: &str) {
        let what = format!(
            "{} {} is no target in namespace {}: {why}; the policy is not enforced there",
            target.kind, target.name, self.key.ns
        );
        let fix = "Correct the name, or move the policy next to its target";
        self.push("authz-target-missing", Severity::Error, at, what, fix);
    }

    fn class(&mut self, reads: &mut Reads, at: &str, target: &TargetRef) {
        let root = &self.mesh.root_namespace;
        let name = target.name.as_str();
        let mut of_class = self.view.waypoints.by::<WaypointByClass>(reads, name);
        let known = name == WAYPOINT_CLASS || of_class.any(|(_, row)| row.is_mesh_class);
        if self.key.ns != *root || !known {
            let what = format!(
                "A GatewayClass target needs a policy in namespace {root} and the class of a waypoint, so the policy is not enforced"
            );
            let fix = format!("Move it to {root} and name {WAYPOINT_CLASS}");
            self.push("authz-gatewayclass-scope", Severity::Error, at, what, &fix);
        }
    }

    fn gateway(&mut self, reads: &mut Reads, at: &str, target: &TargetRef) {
        let key = ObjectKey::new(self.key.ns.clone(), target.name.clone());
        if self.view.waypoints.get(reads, &key).is_none() {
            self.missing(at, target, "it does not exist or is no waypoint");
            return;
        }
        let services: Vec<_> = self
            .view
            .services
            .by::<ServiceByWaypoint>(reads, &key)
            .collect();
        for (_, service) in services {
            self.ports(at, service);
        }
    }

    fn service(&mut self, reads: &mut Reads, at: &str, kind: Kind, target: &TargetRef) {
        let key = ObjectKey::new(self.key.ns.clone(), target.name.clone());
        let source = ObjectRef::new(kind, key);
        let services: Vec<_> = self
            .view
            .services
            .by::<ServiceBySource>(reads, &source)
            .collect();
        if services.is_empty() {
            self.missing(at, target, "it does not exist");
            return;
        }
        if services.iter().all(|(_, row)| row.waypoint.is_none()) {
            let what = format!(
                "{kind} {} has no waypoint; the policy is not enforced",
                target.name
            );
            let fix = "Label it with istio.io/use-waypoint";
            self.push(
                "authz-service-without-waypoint",
                Severity::Error,
                at,
                what,
                fix,
            );
            return;
        }
        for (_, service) in services {
            self.ports(at, service);
            self.bypass(reads, at, service);
        }
    }

    /// HTTP conditions on ports that are no HTTP.
    fn ports(&mut self, at: &str, service: &ServiceRow) {
        let http = |rule: &model::input::AuthzRule| usage(rule).http;
        let Some(index) = self.policy.rules.iter().position(http) else {
            return;
        };
        let opaque =
            |port: &&model::derived::PortRow| port.protocol.is_tcp() && port_chains(port).is_some();
        let Some(port) = service.ports.iter().find(opaque) else {
            return;
        };
        let at = format!("{at}/spec.rules[{index}]");
        let place = format!("port {} of {}", port.port, service.key.hostname);
        match self.policy.action {
            Action::Allow => {
                let what = format!(
                    "Rule {index} has HTTP conditions and {place} is not HTTP, so the rule allows nothing there"
                );
                let fix = "Set appProtocol of the port, or add a rule without HTTP conditions";
                self.push("authz-http-on-tcp-allow", Severity::Warning, &at, what, fix);
            }
            Action::Deny | Action::Custom => {
                let what = format!(
                    "Rule {index} has HTTP conditions and {place} is not HTTP, so it refuses there without them"
                );
                let fix = "Add the HTTP ports to the rule";
                self.push("authz-http-on-tcp-deny", Severity::Warning, &at, what, fix);
            }
            Action::Audit => {}
        }
    }

    /// Whether nothing keeps clients from going to the pods directly.
    fn bypass(&mut self, reads: &mut Reads, at: &str, service: &ServiceRow) {
        if service.waypoint.is_none() {
            return;
        }
        let workloads: Vec<&Arc<WorkloadRow>> = self
            .view
            .workloads
            .by::<WorkloadByService>(reads, &service.key)
            .map(|(_, row)| row)
            .collect();
        let listed = |workload: &Arc<WorkloadRow>| {
            workload
                .policies
                .iter()
                .any(|name| !name.contains("/istio_converted_"))
        };
        let Some(open) = workloads.iter().find(|workload| !listed(workload)) else {
            return;
        };
        for ns in [&open.ns, &self.mesh.root_namespace] {
            let mut wide = self
                .view
                .policies
                .by::<UntargetedPolicyByNamespace>(reads, ns);
            let whole = |policy: &AuthorizationPolicy| {
                policy
                    .selector
                    .as_ref()
                    .is_none_or(std::collections::BTreeMap::is_empty)
            };
            if wide.any(|(_, parsed)| parsed.ok().is_some_and(whole)) {
                return;
            }
        }
        let what = format!(
            "Clients that connect to the pods of {} directly are not subject to this policy",
            service.key.hostname
        );
        let fix = "Add a policy for the pods that allows only the waypoint's service account";
        self.push("authz-bypass-direct-pod", Severity::Info, at, what, fix);
    }
}
