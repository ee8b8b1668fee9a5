//! Stage `findings::policy`: what of an AuthorizationPolicy is not enforced by waypoints as
//! written. What ztunnel makes of policies without targets is reported where they are made.

mod bypass;
mod custom;
mod ingress;
mod numbers;
mod ports;
mod tokens;
mod untargeted;
mod unverified;

use std::sync::Arc;

use flow::{Output, Reads, View};
use model::census::CensusKey;
use model::input::{
    Action, AuthorizationPolicy, HttpRoute, L4Route, RequestAuthentication, Service, TargetRef,
};
use model::{
    Finding, GatewayRow, Kind, MeshRow, NamespacedHostname, ObjectKey, ObjectRef, Parsed,
    ServiceRow, Severity, Str, WaypointRow, WorkloadRow, WorkloadUid,
};

use crate::attachment::mesh_row;
use crate::authz::{WAYPOINT_CLASS, usage};
use crate::index::{
    ServiceByName, ServiceBySource, ServiceByWaypoint, TargetKind, WaypointByClass, WaypointByName,
};

/// Primary: an AuthorizationPolicy.
pub type P = ObjectKey;

/// What the stage reads.
#[derive(Clone, Copy)]
pub struct PolicyFindingView<'t> {
    /// Policies; indexes [`crate::index::UntargetedPolicyByNamespace`] and
    /// [`crate::index::PolicyByTarget`].
    pub policies: View<'t, ObjectKey, Parsed<AuthorizationPolicy>>,
    /// Services as written.
    pub service_objects: View<'t, ObjectKey, Parsed<Service>>,
    /// Services; indexes [`ServiceByName`], [`ServiceBySource`], [`ServiceByWaypoint`] and
    /// [`crate::index::ServiceByHostname`].
    pub services: View<'t, NamespacedHostname, ServiceRow>,
    /// Workloads; indexes [`crate::index::InstanceByNamespace`] and
    /// [`crate::index::WorkloadByService`].
    pub workloads: View<'t, WorkloadUid, WorkloadRow>,
    /// Waypoints; indexes [`WaypointByClass`], [`WaypointByName`] and
    /// [`crate::index::WaypointByNamespace`].
    pub waypoints: View<'t, ObjectKey, WaypointRow>,
    /// Gateways of ours.
    pub gateways: View<'t, ObjectKey, GatewayRow>,
    /// The census; index [`crate::index::ServedByNamespace`].
    pub census: View<'t, CensusKey, ()>,
    /// Routes; indexes [`crate::index::RouteByBackend`] and
    /// [`crate::index::RouteByBackendHost`].
    pub http_routes: View<'t, ObjectKey, Parsed<HttpRoute>>,
    /// Routes; the same indexes.
    pub grpc_routes: View<'t, ObjectKey, Parsed<HttpRoute>>,
    /// Routes; the same indexes.
    pub tcp_routes: View<'t, ObjectKey, Parsed<L4Route>>,
    /// Routes; the same indexes.
    pub tls_routes: View<'t, ObjectKey, Parsed<L4Route>>,
    /// RequestAuthentications; index [`crate::index::RequestAuthenticationByTarget`].
    pub authentications: View<'t, ObjectKey, Parsed<RequestAuthentication>>,
    /// Mesh settings.
    pub mesh: View<'t, (), MeshRow>,
}

/// Findings as notes; the stage has no rows.
pub fn derive(p: &P, view: &PolicyFindingView<'_>, reads: &mut Reads) -> Output<(), (), Finding> {
    let Some(parsed) = view.policies.get(reads, p) else {
        return Output::gone();
    };
    let Some(policy) = parsed.ok() else {
        return Output::none();
    };
    let mesh = &*mesh_row(view.mesh, reads);
    let mut report = Report {
        view,
        mesh,
        key: p,
        policy,
        object: ObjectRef::new(Kind::AuthorizationPolicy, p.clone()),
        out: Vec::new(),
    };
    if policy.targets.is_empty() {
        report.untargeted(reads);
    } else {
        report.values();
        report.rules();
        let mut reached = Vec::new();
        for (index, target) in policy.targets.iter().enumerate() {
            report.target(reads, index, target, &mut reached);
        }
        report.custom(reads, &reached);
        report.request_principals();
        report.tokens(reads, &reached);
        report.ports(&reached);
        report.pod_ports(&reached);
        report.hosts_without_port(&reached);
        report.tried_out(reads);
        report.bypass(reads, &reached);
        report.ingress(reads, &reached);
    }
    report.unverified(reads);
    report.out.sort();
    report.out.dedup();
    Output::new(Vec::new(), report.out)
}

/// A service behind a waypoint that a policy reaches, with the path of the target.
struct Reached<'t> {
    at: String,
    service: &'t Arc<ServiceRow>,
}

struct Report<'a, 't> {
    view: &'a PolicyFindingView<'t>,
    mesh: &'a MeshRow,
    key: &'a ObjectKey,
    policy: &'a AuthorizationPolicy,
    object: ObjectRef,
    out: Vec<Finding>,
}

impl<'t> Report<'_, 't> {
    fn push(&mut self, code: &'static str, severity: Severity, at: &str, what: String, fix: &str) {
        let finding = Finding::new(code, severity, self.object.clone(), what, fix);
        self.out.push(finding.at(at));
    }

    fn rules(&mut self) {
        let effect = if self.policy.action == Action::Allow {
            "so the rule allows nothing"
        } else {
            "so the rule applies without that condition"
        };
        for (index, rule) in self.policy.rules.iter().enumerate() {
            let at = format!("spec.rules[{index}]");
            let used = usage(rule);
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

    /// Values that can never match; principals are checked where ztunnel's policies are made.
    fn values(&mut self) {
        let policy = self.policy;
        for (r, rule) in policy.rules.iter().enumerate() {
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

    fn target(
        &mut self,
        reads: &mut Reads,
        index: usize,
        target: &TargetRef,
        reached: &mut Vec<Reached<'t>>,
    ) {
        let at = format!("spec.targetRefs[{index}]");
        let named = target.ns.as_ref().filter(|ns| !ns.is_empty());
        if named.is_some_and(|ns| *ns != self.key.ns) {
            self.missing(reads, &at, target);
            return;
        }
        let key = ObjectKey::new(self.key.ns.clone(), target.name.clone());
        let found = match TargetKind::of(&target.group, &target.kind) {
            Some(TargetKind::GatewayClass) => {
                self.class(reads, &at, target);
                Vec::new()
            }
            Some(TargetKind::Gateway) if self.view.waypoints.get(reads, &key).is_some() => {
                self.behind(reads, &key)
            }
            Some(TargetKind::Service) => self.service(reads, &at, Kind::Service, target),
            Some(TargetKind::ServiceEntry) => self.service(reads, &at, Kind::ServiceEntry, target),
            Some(TargetKind::Gateway) | None => {
                self.missing(reads, &at, target);
                return;
            }
        };
        let at = |service| Reached {
            at: at.clone(),
            service,
        };
        reached.extend(found.into_iter().map(at));
    }

    /// A target that names nothing in the policy's namespace.
    fn missing(&mut self, reads: &mut Reads, at: &str, target: &TargetRef) {
        let ns = &self.key.ns;
        let TargetRef { kind, name, .. } = target;
        let Some(other) = self.elsewhere(reads, target) else {
            if matches!(kind.as_str(), "Service" | "ServiceEntry") && name.contains('.') {
                let what = format!(
                    "No {kind} has the name {name}: targetRefs uses the name of the object, not its host; the policy is not enforced there"
                );
                let fix = "Write the metadata.name of the object";
                self.push("authz-se-by-hostname", Severity::Error, at, what, fix);
                return;
            }
            let what = format!(
                "{kind} {name} does not exist in namespace {ns}, or cannot be a target; the policy is not enforced there"
            );
            let fix = "Correct the name, or move the policy next to its target";
            self.push("authz-target-missing", Severity::Error, at, what, fix);
            return;
        };
        let what = format!(
            "{kind} {name} exists in namespace {other} and a policy can only target its own, {ns}; the policy is not enforced there"
        );
        let fix = format!("Move the policy to {other}, next to its target");
        let code = "authz-target-other-namespace";
        self.push(code, Severity::Error, at, what, &fix);
    }

    /// Another namespace with an object that a target may mean: the one it names, else the
    /// first one.
    fn elsewhere(&self, reads: &mut Reads, target: &TargetRef) -> Option<Str> {
        let ns = target.ns.as_ref().filter(|ns| !ns.is_empty());
        let fits = |key: &ObjectKey| match ns {
            Some(ns) => key.ns == *ns,
            None => key.ns != self.key.ns,
        };
        let name = target.name.as_str();
        let kind = match TargetKind::of(&target.group, &target.kind)? {
            TargetKind::Service => Kind::Service,
            TargetKind::ServiceEntry => Kind::ServiceEntry,
            TargetKind::GatewayClass => return None,
            TargetKind::Gateway => {
                let mut named = self.view.waypoints.by::<WaypointByName>(reads, name);
                return named
                    .find(|(key, row)| row.is_mesh_class() && fits(key))
                    .map(|(key, _)| key.ns.clone());
            }
        };
        let named = self.view.services.by::<ServiceByName>(reads, name);
        let mut sources = named.map(|(_, row)| &row.source);
        sources
            .find(|source| source.kind == kind.as_str() && fits(&source.key))
            .map(|source| source.key.ns.clone())
    }

    /// The services behind a waypoint.
    fn behind(&self, reads: &mut Reads, waypoint: &ObjectKey) -> Vec<&'t Arc<ServiceRow>> {
        let services = self.view.services.by::<ServiceByWaypoint>(reads, waypoint);
        services.map(|(_, row)| row).collect()
    }

    /// A class; the services of the whole mesh behind it are not looked at one by one.
    fn class(&mut self, reads: &mut Reads, at: &str, target: &TargetRef) {
        let root = &self.mesh.root_namespace;
        let name = target.name.as_str();
        let mut of_class = self.view.waypoints.by::<WaypointByClass>(reads, name);
        let known = name == WAYPOINT_CLASS || of_class.any(|(_, row)| row.is_mesh_class());
        if self.key.ns == *root && known {
            return;
        }
        let what = format!(
            "A GatewayClass target needs a policy in namespace {root} and the class of a waypoint, so the policy is not enforced"
        );
        let fix = format!("Move it to {root} and name {WAYPOINT_CLASS}");
        self.push("authz-gatewayclass-scope", Severity::Error, at, what, &fix);
    }

    fn service(
        &mut self,
        reads: &mut Reads,
        at: &str,
        kind: Kind,
        target: &TargetRef,
    ) -> Vec<&'t Arc<ServiceRow>> {
        let key = ObjectKey::new(self.key.ns.clone(), target.name.clone());
        let source = ObjectRef::new(kind, key.clone());
        let found = self.view.services.by::<ServiceBySource>(reads, &source);
        let services: Vec<_> = found.map(|(_, row)| row).collect();
        if services.is_empty() && kind == Kind::Service && self.is_external_name(reads, &key) {
            self.external_name(at, source);
        } else if services.is_empty() {
            self.missing(reads, at, target);
        } else if services.iter().all(|row| row.waypoint.is_none()) {
            let refused = if services.iter().any(|row| row.blocked.is_some()) {
                ", but its traffic is refused until the waypoint that it names can be used"
            } else {
                ""
            };
            let what = format!(
                "{kind} {} has no waypoint; the policy is not enforced{refused}",
                target.name
            );
            let fix = "Label it with istio.io/use-waypoint";
            let code = "authz-service-without-waypoint";
            self.push(code, Severity::Error, at, what, fix);
        }
        services
    }

    fn is_external_name(&self, reads: &mut Reads, key: &ObjectKey) -> bool {
        let object = self.view.service_objects.get(reads, key);
        object.is_some_and(|row| row.ok().is_some_and(|service| service.external_name))
    }

    /// A target that has no place in the mesh: said of the policy and of the Service.
    fn external_name(&mut self, at: &str, service: ObjectRef) {
        let what = format!(
            "Service {} is of type ExternalName and has no part in the mesh; the policy is not enforced there",
            service.key.name
        );
        let fix = "Use a ServiceEntry for the external host";
        self.push("authz-target-missing", Severity::Error, at, what, fix);
        let what = format!(
            "ExternalName Services are not part of the ambient mesh; AuthorizationPolicy {}, which targets this one, is not enforced on it",
            self.key
        );
        let note = Finding::new("wp-externalname", Severity::Warning, service, what, fix);
        self.out.push(note.at("spec.type"));
    }
}
