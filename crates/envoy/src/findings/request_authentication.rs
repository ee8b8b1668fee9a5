//! Stage `findings::request_authentication`: what of a RequestAuthentication waypoints do not do
//! as written. Source: spec/policy-and-traffic.md §10.2.

mod keys;

use std::collections::BTreeMap;
use std::sync::Arc;

use flow::{Output, Reads, View};
use model::input::{AuthorizationPolicy, RequestAuthentication, TargetRef};
use model::jwks::Jwks;
use model::{
    Finding, GatewayRow, Kind, MeshRow, NamespacedHostname, ObjectKey, ObjectRef, Parsed,
    ServiceRow, Severity, Str, WaypointRow, WorkloadRow, WorkloadUid,
};

use crate::attachment::{mesh_row, port_chains};
use crate::authn;
use crate::authz::{self, WAYPOINT_CLASS, token_fields};
use crate::findings::selected::IngressTables;
use crate::index::{
    PolicyByTarget, ServiceByName, ServiceBySource, ServiceByWaypoint, Target, TargetKind,
    WaypointByClass, WaypointByName,
};

/// Primary: a RequestAuthentication.
pub type P = ObjectKey;

/// What the stage reads.
#[derive(Clone, Copy)]
pub struct RequestAuthenticationFindingView<'t> {
    /// RequestAuthentications; index [`crate::index::RequestAuthenticationByTarget`].
    pub authentications: View<'t, ObjectKey, Parsed<RequestAuthentication>>,
    /// AuthorizationPolicies; index [`PolicyByTarget`].
    pub policies: View<'t, ObjectKey, Parsed<AuthorizationPolicy>>,
    /// Services; indexes [`ServiceByName`], [`ServiceBySource`] and [`ServiceByWaypoint`].
    pub services: View<'t, NamespacedHostname, ServiceRow>,
    /// Waypoints; indexes [`WaypointByClass`], [`WaypointByName`] and
    /// [`crate::index::WaypointByNamespace`].
    pub waypoints: View<'t, ObjectKey, WaypointRow>,
    /// Gateways of ours.
    pub gateways: View<'t, ObjectKey, GatewayRow>,
    /// Workloads; indexes [`crate::index::InstanceByNamespace`] and
    /// [`crate::index::WorkloadByService`].
    pub workloads: View<'t, WorkloadUid, WorkloadRow>,
    /// Key sets, by [`model::jwks::JwksSource`].
    pub jwks: View<'t, Str, Jwks>,
    /// Mesh settings.
    pub mesh: View<'t, (), MeshRow>,
}

/// Findings as notes; the stage has no rows.
pub fn derive(
    p: &P,
    view: &RequestAuthenticationFindingView<'_>,
    reads: &mut Reads,
) -> Output<(), (), Finding> {
    let Some(parsed) = view.authentications.get(reads, p) else {
        return Output::gone();
    };
    let mut report = Report {
        view,
        mesh: &mesh_row(view.mesh, reads),
        key: p,
        object: ObjectRef::new(Kind::RequestAuthentication, p.clone()),
        out: Vec::new(),
    };
    match &parsed.body {
        Err(invalid) => {
            let is_root = p.ns == report.mesh.root_namespace;
            let effect = match (invalid.targets.is_empty(), is_root) {
                (false, _) => "so every token is refused where it is attached",
                (true, false) => {
                    "so every token is refused at the ingress gateways of its namespace; nobody else applies it"
                }
                (true, true) => {
                    "so every token is refused at every ingress gateway; nobody else applies it"
                }
            };
            let what = format!(
                "The RequestAuthentication cannot be read ({}), {effect}",
                invalid.reason
            );
            let fix = "Correct it or delete it";
            report.push("ra-invalid", Severity::Error, &invalid.field, what, fix);
        }
        Ok(spec) => report.all(spec, reads),
    }
    report.out.sort();
    report.out.dedup();
    Output::new(Vec::new(), report.out)
}

struct Report<'a, 't> {
    view: &'a RequestAuthenticationFindingView<'t>,
    mesh: &'a MeshRow,
    key: &'a ObjectKey,
    object: ObjectRef,
    out: Vec<Finding>,
}

impl<'t> Report<'_, 't> {
    fn push(&mut self, code: &'static str, severity: Severity, at: &str, what: String, fix: &str) {
        let finding = Finding::new(code, severity, self.object.clone(), what, fix);
        self.out.push(finding.at(at));
    }

    fn all(&mut self, spec: &RequestAuthentication, reads: &mut Reads) {
        self.keys(spec, reads);
        self.locations(spec);
        if spec.targets.is_empty() {
            let at = if spec.selector.is_some() {
                "spec.selector"
            } else {
                "spec"
            };
            self.untargeted(spec, at, reads);
            return;
        }
        let mut reached = Vec::new();
        for (index, target) in spec.targets.iter().enumerate() {
            let at = format!("spec.targetRefs[{index}]");
            match self.target(reads, target) {
                Ok(services) => {
                    self.opaque(&at, target, &services);
                    reached.extend(services);
                }
                Err(cause) => {
                    let what = format!("{cause}; no token is verified there");
                    let fix = "Correct the target, or bind it to a waypoint";
                    self.push("ra-target-unresolved", Severity::Error, &at, what, fix);
                }
            }
        }
        self.chains(spec, reads, &reached);
    }

    /// What has no targets is for the ingress gateways that it selects.
    fn untargeted(&mut self, spec: &RequestAuthentication, at: &str, reads: &mut Reads) {
        let tables = IngressTables {
            gateways: self.view.gateways,
            waypoints: self.view.waypoints,
            workloads: self.view.workloads,
        };
        let of = (&self.key.ns, spec.selector.as_ref());
        let gateways = tables.selected(reads, self.mesh, of, |_| true);
        if spec.selector.is_some() && !gateways.is_empty() {
            return;
        }
        let (severity, who) = match gateways.first() {
            Some(gateway) => (
                Severity::Warning,
                format!(
                    "ingress gateways such as {} apply this, no waypoint does",
                    gateway.key
                ),
            ),
            None => (Severity::Error, "nobody applies this".to_owned()),
        };
        let what = format!("Waypoints apply only what has targetRefs; {who}");
        let fix = "Use targetRefs with the Gateway, a Service or the GatewayClass";
        self.push("ra-selector-ambient", severity, at, what, fix);
    }

    /// The services that a target reaches, as far as they are looked at one by one.
    ///
    /// # Errors
    /// Why it reaches nothing.
    fn target(
        &self,
        reads: &mut Reads,
        target: &TargetRef,
    ) -> Result<Vec<&'t Arc<ServiceRow>>, String> {
        let TargetRef { kind, name, .. } = target;
        let ns = &self.key.ns;
        let key = ObjectKey::new(ns.clone(), name.clone());
        let missing = |other: Option<Str>| match other {
            Some(other) => format!(
                "{kind} {name} exists in namespace {other} and only targets in {ns} are possible"
            ),
            None => format!("{kind} {name} does not exist in namespace {ns}"),
        };
        let waypoints = self.view.waypoints;
        let object = match TargetKind::of(&target.group, kind) {
            Some(TargetKind::GatewayClass) => {
                let root = &self.mesh.root_namespace;
                let mut of_class = waypoints.by::<WaypointByClass>(reads, name.as_str());
                let known = name == WAYPOINT_CLASS || of_class.any(|(_, row)| row.is_mesh_class());
                return if ns == root && known {
                    Ok(Vec::new())
                } else {
                    Err(format!(
                        "A GatewayClass target needs namespace {root} and the class of a waypoint"
                    ))
                };
            }
            Some(TargetKind::Gateway) => {
                if waypoints.get(reads, &key).is_some() {
                    let behind = self.view.services.by::<ServiceByWaypoint>(reads, &key);
                    return Ok(behind.map(|(_, row)| row).collect());
                }
                let mut named = waypoints.by::<WaypointByName>(reads, name.as_str());
                let other = named.find(|(_, row)| row.is_mesh_class());
                return Err(missing(other.map(|(key, _)| key.ns.clone())));
            }
            Some(TargetKind::Service) => ObjectRef::new(Kind::Service, key),
            Some(TargetKind::ServiceEntry) => ObjectRef::new(Kind::ServiceEntry, key),
            None => return Err(format!("{kind} cannot be a target")),
        };
        let found = self.view.services.by::<ServiceBySource>(reads, &object);
        let found: Vec<_> = found.map(|(_, row)| row).collect();
        if found.is_empty() {
            let named = self.view.services.by::<ServiceByName>(reads, name.as_str());
            let mut sources = named.map(|(_, row)| &row.source);
            let other = sources.find(|source| source.kind == object.kind);
            return Err(missing(other.map(|source| source.key.ns.clone())));
        }
        if found.iter().all(|row| row.waypoint.is_none()) {
            return Err(format!("{kind} {name} has no waypoint"));
        }
        Ok(found)
    }

    /// A target none of whose ports speaks HTTP.
    fn opaque(&mut self, at: &str, target: &TargetRef, services: &[&Arc<ServiceRow>]) {
        let mut ports = services
            .iter()
            .flat_map(|service| &service.ports)
            .peekable();
        let none = ports.peek().is_some()
            && !ports.any(|port| port_chains(port).is_some_and(|chains| chains.http()));
        if none {
            let what = format!(
                "No port of {} {} is HTTP, so no token is looked at",
                target.kind, target.name
            );
            let fix = "Set appProtocol of the port";
            self.push("ra-tcp-port", Severity::Warning, at, what, fix);
        }
    }

    /// What else is attached where this is.
    fn chains(
        &mut self,
        spec: &RequestAuthentication,
        reads: &mut Reads,
        reached: &[&'t Arc<ServiceRow>],
    ) {
        let (mut open, mut twice) = (None, BTreeMap::new());
        for service in reached {
            let Some(bound) = service.waypoint.as_ref() else {
                continue;
            };
            let Some(waypoint) = self.view.waypoints.get(reads, &bound.key) else {
                continue;
            };
            let targets = authz::targets(self.mesh, waypoint, Some(service));
            if open.is_none() && !self.is_required(reads, &targets) {
                open = Some(&service.key.hostname);
            }
            let mut issuers: BTreeMap<&Str, usize> = BTreeMap::new();
            for row in authn::attached(self.view.authentications, reads, &targets) {
                for rule in row.ok().into_iter().flat_map(|spec| &spec.rules) {
                    *issuers.entry(&rule.issuer).or_default() += 1;
                }
            }
            for (index, rule) in spec.rules.iter().enumerate() {
                let count = issuers.get(&rule.issuer).copied().unwrap_or_default();
                if count > 1 {
                    twice.entry(index).or_insert((count, &service.key.hostname));
                }
            }
        }
        for (index, (count, host)) in twice {
            let issuer = spec.rules.get(index).map_or("", |rule| &rule.issuer);
            let what = format!(
                "{count} rules for {host} have issuer {issuer:?}; a token must satisfy one of them"
            );
            let at = format!("spec.jwtRules[{index}].issuer");
            let fix = "Merge the rules";
            self.push("ra-duplicate-issuer", Severity::Warning, &at, what, fix);
        }
        if let Some(host) = open.filter(|_| !spec.rules.is_empty()) {
            let what = format!(
                "No AuthorizationPolicy for {host} asks for a token, so requests without one pass"
            );
            let fix = "Add an AuthorizationPolicy with requestPrincipals";
            let at = "spec.jwtRules";
            self.push("ra-not-enforcing", Severity::Warning, at, what, fix);
        }
    }

    /// Whether some enforced policy of a chain is about tokens.
    fn is_required(&self, reads: &mut Reads, targets: &[Target]) -> bool {
        targets.iter().any(|target| {
            let mut policies = self.view.policies.by::<PolicyByTarget>(reads, target);
            policies.any(|(_, row)| match &row.body {
                Ok(policy) => {
                    let mut rules = policy.rules.iter();
                    !policy.dry_run && rules.any(|rule| !token_fields(rule).is_empty())
                }
                // It refuses everything.
                Err(_) => true,
            })
        })
    }
}
