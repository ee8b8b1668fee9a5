//! Stage `gateways`: a Gateway of ours → [`GatewayRow`].
//!
//! Who controls it, where its instances are, and its listeners together with those of admitted
//! ListenerSets, each judged. Source: spec/gateway-api.md §1.3, §2.3, §2.9, §3.2–§3.9.

mod conflicts;
mod judge;
mod references;
#[cfg(test)]
mod tests;
mod tls;

use std::sync::Arc;

use flow::{Output, Reads, View};
use model::gateway::{
    ANNOTATION_NAME_OVERRIDE, ANNOTATION_SERVICE_ACCOUNT, ANNOTATION_SERVICE_TYPE, Defect,
    ListenerProtocol, ListenerRow, ListenerSetRow, TlsMode,
};
use model::input::{Gateway, GatewayClass, Listener, ListenerSet, Namespace, ReferenceGrant};
use model::secret::{ConfigMap, CredentialGrants, Secret};
use model::{
    Finding, GatewayController, GatewayRow, Kind, MeshRow, Meta, NamespacedHostname, ObjectKey,
    ObjectRef, Parsed, Severity, Str,
};

use crate::admission::admits;
use crate::index::ListenerSetByParent;
use judge::judge;
use references::References;

/// What the stage reads.
#[derive(Clone, Copy)]
pub struct GatewayView<'t> {
    /// Gateways.
    pub gateways: View<'t, ObjectKey, Parsed<Gateway>>,
    /// GatewayClasses.
    pub gateway_classes: View<'t, ObjectKey, Parsed<GatewayClass>>,
    /// ListenerSets; index [`ListenerSetByParent`].
    pub listener_sets: View<'t, ObjectKey, Parsed<ListenerSet>>,
    /// Grants; index [`crate::index::GrantByNamespace`].
    pub reference_grants: View<'t, ObjectKey, Parsed<ReferenceGrant>>,
    /// Secrets.
    pub secrets: View<'t, ObjectKey, Parsed<Secret>>,
    /// ConfigMaps.
    pub config_maps: View<'t, ObjectKey, Parsed<ConfigMap>>,
    /// Namespaces, for their labels.
    pub namespaces: View<'t, ObjectKey, Parsed<Namespace>>,
    /// Mesh settings.
    pub mesh: View<'t, (), MeshRow>,
}

/// The row of a Gateway; none for one of a class of somebody else, or that cannot be read.
pub fn derive(
    key: &ObjectKey,
    view: &GatewayView<'_>,
    reads: &mut Reads,
) -> Output<ObjectKey, GatewayRow, Finding> {
    let Some(object) = view.gateways.get(reads, key) else {
        return Output::gone();
    };
    let Some(gateway) = object.ok() else {
        return Output::none();
    };
    let class = ObjectKey::cluster(gateway.class.clone());
    let class = view.gateway_classes.get(reads, &class);
    let Some(controller) = GatewayController::of(class.map(|class| &**class), &gateway.class)
    else {
        return Output::none();
    };
    let mesh = view.mesh.get(reads, &()).cloned().unwrap_or_default();
    let deployed;
    let gateway = if gateway.is_managed || mesh.features.manual_gateways {
        gateway
    } else {
        deployed = Gateway {
            is_managed: true,
            ..gateway.clone()
        };
        &deployed
    };
    let mut row = head(&object.meta, gateway, controller, &mesh.domain);
    if controller == GatewayController::Remote {
        return Output::one(key.clone(), row).with_notes(unused(&object.meta, gateway, controller));
    }
    if controller == GatewayController::EastWest && !mesh.features.multi_network {
        row.class_defect = Some(inactive(&row));
        return Output::one(key.clone(), row).with_note(inactive_note(key));
    }
    let mut references = References::new(key, view, reads);
    row.parameters_defect = references.parameters(gateway);
    match references.client_certificate(gateway) {
        Ok(name) => row.client_certificate = name,
        Err(defect) => row.client_certificate_defect = Some(defect),
    }
    let sets = attached_sets(&row, gateway, view, references.reads);
    row.listener_sets = sets.iter().map(|(_, set)| set.clone()).collect();
    let mut notes = refusals(&row);
    notes.extend(unused(&object.meta, gateway, controller));
    // Without a target and with an address that cannot be, nothing is looked at.
    if !(row.targets.is_empty() && row.address_defect.is_some()) {
        let candidates = candidates(key, gateway, &sets);
        let conflicts = if controller.takes_listener_sets() {
            conflicts::of(&candidates)
        } else {
            candidates.iter().map(|_| None).collect()
        };
        let site = judge::Site {
            controller,
            meta: &object.meta,
            gateway,
        };
        let pairs = candidates.iter().zip(conflicts);
        row.listeners = pairs
            .map(|(candidate, conflict)| judge(&site, candidate, conflict, &mut references))
            .collect();
        notes.extend(
            row.listeners
                .iter()
                .filter_map(|one| of_listener(&row, one)),
        );
    }
    if controller == GatewayController::Ingress {
        row.grants.names = references.grants.names;
        row.grants.config_maps = references.grants.config_maps;
    }
    notes.extend(references.notes);
    notes.sort_unstable();
    notes.dedup();
    Output::one(key.clone(), row).with_notes(notes)
}

/// A certificate for backends at a Gateway whose proxies show none: those of a waypoint or of a
/// gateway between networks are known by that of the mesh.
fn unused(meta: &Meta, gateway: &Gateway, controller: GatewayController) -> Option<Finding> {
    let is_unused =
        gateway.client_certificate.is_some() && controller != GatewayController::Ingress;
    is_unused.then(|| {
        Finding::new(
            "gw-client-certificate-unused",
            Severity::Warning,
            ObjectRef::new(Kind::Gateway, meta.key.clone()),
            "Only ingress gateways show a certificate of their own to backends: connections of this Gateway present none",
            "Remove it, or set it at an ingress gateway",
        )
        .at("spec.tls.backend.clientCertificateRef")
    })
}

/// Why there is nothing behind a gateway between networks.
fn inactive(row: &GatewayRow) -> Defect {
    let message = arcstr::format!(
        "Class {} is inactive, as gateways between networks are switched off: nothing is deployed or served for the Gateway, and no route attaches to it",
        row.class
    );
    Defect::new("Invalid", message)
}

fn inactive_note(key: &ObjectKey) -> Finding {
    let message = "The class of the Gateway is inactive, as gateways between networks are switched off: nothing is deployed or served for it, and no route attaches to it";
    Finding::new(
        "gw-class-inactive",
        Severity::Error,
        ObjectRef::new(Kind::Gateway, key.clone()),
        message,
        "Set AMBIENT_ENABLE_MULTI_NETWORK=true for the control plane, or remove the Gateway",
    )
    .at("spec.gatewayClassName")
}

/// Everything but listeners.
fn head(meta: &Meta, gateway: &Gateway, controller: GatewayController, domain: &str) -> GatewayRow {
    let name = &meta.key.name;
    let own = controller.resource_name(name, &gateway.class);
    let named = |annotation: &str| meta.annotation(annotation).filter(|text| !text.is_empty());
    let deployment = named(ANNOTATION_NAME_OVERRIDE).unwrap_or(&own).clone();
    let account = named(ANNOTATION_SERVICE_ACCOUNT).unwrap_or(&own).clone();
    GatewayRow {
        key: meta.key.clone(),
        controller,
        class: gateway.class.clone(),
        is_managed: gateway.is_managed,
        targets: targets(&meta.key, gateway, &deployment, domain),
        deployment,
        service_account: account.clone(),
        listeners: Vec::new(),
        listener_sets: Vec::new(),
        class_defect: None,
        address_defect: address_defect(meta, gateway),
        parameters_defect: None,
        client_certificate: None,
        client_certificate_defect: None,
        grants: CredentialGrants {
            account: gateway.is_managed.then_some(account),
            ..CredentialGrants::default()
        },
    }
}

/// The Services behind which the instances are. Source: spec/gateway-api.md §2.9, §3.3.
fn targets(
    key: &ObjectKey,
    gateway: &Gateway,
    deployment: &str,
    domain: &str,
) -> Vec<NamespacedHostname> {
    let ns = &key.ns;
    let local = |name: &str| arcstr::format!("{name}.{ns}.svc.{domain}");
    if gateway.is_managed {
        return vec![NamespacedHostname::new(ns.clone(), local(deployment))];
    }
    let hosts = gateway.requested.iter();
    hosts
        .filter(|(ty, value)| is_hostname(ty) && !value.is_empty())
        .map(|(_, value)| {
            let host = if value.contains('.') {
                value.clone()
            } else {
                local(value)
            };
            NamespacedHostname::new(ns.clone(), host)
        })
        .collect()
}

fn is_hostname(ty: &str) -> bool {
    matches!(ty, "" | "Hostname")
}

/// Source: spec/gateway-api.md §3.2.
fn address_defect(meta: &Meta, gateway: &Gateway) -> Option<Defect> {
    if gateway.is_managed {
        return None;
    }
    let odd = gateway.requested.iter().find(|(ty, _)| !is_hostname(ty));
    if let Some((ty, _)) = odd {
        return Some(Defect::new(
            "UnsupportedAddress",
            arcstr::format!(
                "spec.addresses of type {ty} cannot be used beside others: write those of type Hostname alone, or none"
            ),
        ));
    }
    meta.annotation(ANNOTATION_SERVICE_TYPE).map(|_: &Str| {
        Defect::new(
            "DeprecatedField",
            arcstr::format!(
                "Annotation {ANNOTATION_SERVICE_TYPE} has no effect on a Gateway with spec.addresses"
            ),
        )
    })
}

type SetObject<'t> = (&'t Arc<Parsed<ListenerSet>>, ListenerSetRow);

/// ListenerSets that name the Gateway, the oldest first, and whether they add listeners.
fn attached_sets<'t>(
    row: &GatewayRow,
    gateway: &Gateway,
    view: &GatewayView<'t>,
    reads: &mut Reads,
) -> Vec<SetObject<'t>> {
    let found = view
        .listener_sets
        .by::<ListenerSetByParent>(reads, &row.key);
    let mut objects: Vec<_> = found.map(|(_, object)| object).collect();
    objects.sort_by_cached_key(|object| object.meta.age_order());
    let refused = |object: &Parsed<ListenerSet>, reads: &mut Reads| {
        if !row.controller.takes_listener_sets() {
            let why = arcstr::format!("Gateways of class {} take no ListenerSets", row.class);
            return Some(Defect::new("NotAllowed", why));
        }
        let ns = &object.meta.key.ns;
        let allowed = gateway.allowed_listeners.as_ref();
        let is_admitted = allowed
            .is_some_and(|allowed| admits(view.namespaces, reads, (allowed, &row.key.ns), ns));
        (!is_admitted).then(|| {
            let why = arcstr::format!(
                "Gateway {} does not let namespace {ns} add listeners: spec.allowedListeners",
                row.key
            );
            Defect::new("NotAllowed", why)
        })
    };
    let objects = objects.into_iter();
    objects
        .map(|object| {
            let set = ListenerSetRow {
                key: object.meta.key.clone(),
                refused: refused(object, reads),
            };
            (object, set)
        })
        .collect()
}

/// A listener as it is written, and of what object.
struct Candidate<'a> {
    owner: ObjectRef,
    index: usize,
    listener: &'a Listener,
    protocol: ListenerProtocol,
    /// That of the protocol where a ListenerSet leaves it open.
    port: u16,
}

impl<'a> Candidate<'a> {
    fn all(kind: Kind, key: &ObjectKey, listeners: &'a [Listener]) -> Vec<Self> {
        let listeners = listeners.iter().enumerate();
        listeners
            .map(|(index, listener)| {
                let protocol = ListenerProtocol::of(&listener.protocol);
                let port = match (listener.port, &protocol) {
                    (0, ListenerProtocol::Http) => 80,
                    (0, ListenerProtocol::Https) => 443,
                    (port, _) => port,
                };
                Self {
                    owner: ObjectRef::new(kind, key.clone()),
                    index,
                    listener,
                    protocol,
                    port,
                }
            })
            .collect()
    }

    fn is_of_set(&self) -> bool {
        self.owner.kind == Kind::ListenerSet.as_str()
    }

    /// How messages name it.
    fn shown(&self) -> String {
        format!(
            "{} of {} {}",
            self.listener.name, self.owner.kind, self.owner.key
        )
    }
}

fn candidates<'a>(
    key: &ObjectKey,
    gateway: &'a Gateway,
    sets: &[SetObject<'a>],
) -> Vec<Candidate<'a>> {
    let mut out = Candidate::all(Kind::Gateway, key, &gateway.listeners);
    for (object, set) in sets.iter().filter(|(_, set)| set.refused.is_none()) {
        if let Some(body) = object.ok() {
            out.extend(Candidate::all(Kind::ListenerSet, &set.key, &body.listeners));
        }
    }
    out
}

/// Findings on the Gateway itself and on ListenerSets that it refuses.
fn refusals(row: &GatewayRow) -> Vec<Finding> {
    let object = || ObjectRef::new(Kind::Gateway, row.key.clone());
    let mut out = Vec::new();
    let mut refused = |defect: &Option<Defect>, field: &'static str, fix: &'static str| {
        if let Some(defect) = defect {
            let message = defect.message.clone();
            let finding = Finding::new("gw-refused", Severity::Error, object(), message, fix);
            out.push(finding.at(field));
        }
    };
    refused(
        &row.address_defect,
        "spec.addresses",
        "Give addresses of type Hostname alone, without the annotation, or none",
    );
    refused(
        &row.parameters_defect,
        "spec.infrastructure.parametersRef",
        "Name a ConfigMap of the Gateway's namespace",
    );
    for set in &row.listener_sets {
        if let Some(defect) = &set.refused {
            let finding = Finding::new(
                "listener-set-not-allowed",
                Severity::Warning,
                ObjectRef::new(Kind::ListenerSet, set.key.clone()),
                arcstr::format!("Its listeners are not added: {}", defect.message),
                "Let its namespace in with allowedListeners of the Gateway",
            );
            out.push(finding.at("spec.parentRef"));
        }
    }
    out
}

/// What of a listener is not served as it is written. Certificates and the shape of waypoints
/// have findings of their own.
fn of_listener(row: &GatewayRow, listener: &ListenerRow) -> Option<Finding> {
    let name = &listener.name;
    let (code, severity, message, fix) = if let Some(conflict) = &listener.conflict {
        let message = arcstr::format!("Listener {name} is not served: {}", conflict.message);
        let fix = "Give it another port or hostname";
        ("gw-listener-conflict", Severity::Error, message, fix)
    } else if let Some(defect) = &listener.defects.accepted
        && defect.reason == "UnsupportedProtocol"
        && (row.controller != GatewayController::Waypoint || !listener.is_valid)
    {
        let message = arcstr::format!("Listener {name} is not served: {}", defect.message);
        let fix = "Write a protocol and port that the class of the Gateway serves";
        ("gw-listener-protocol", Severity::Error, message, fix)
    } else if !listener.is_built {
        let message = arcstr::format!(
            "Listener {name} has no tls, which {} needs: it is not opened and no route attaches to it",
            listener.protocol
        );
        ("gw-listener-no-tls", Severity::Error, message, "Add tls")
    } else if let Some(defect) = &listener.defects.programmed
        && (listener.tls.as_ref()).is_some_and(|tls| tls.mode == TlsMode::AutoPassthrough)
    {
        let message = arcstr::format!("Listener {name} is not opened: {}", defect.message);
        let fix = "Serve other networks by HBONE on 15008 of class istio-east-west, or attach TLSRoutes to a listener with another port and without the option";
        ("gw-auto-passthrough", Severity::Error, message, fix)
    } else if let Some(defect) = &listener.defects.programmed
        && listener.defects.resolved_refs.is_none()
    {
        let message = arcstr::format!("Listener {name} is not opened: {}", defect.message);
        (
            "gw-listener-tls",
            Severity::Error,
            message,
            "Correct tls of the listener",
        )
    } else if let Some(defect) = &listener.defects.resolved_refs
        && defect.reason == "InvalidRouteKinds"
    {
        let message = arcstr::format!("Listener {name}: {}", defect.message);
        let fix = "Name only kinds that its protocol carries";
        ("gw-listener-kinds", Severity::Warning, message, fix)
    } else {
        return None;
    };
    let at = arcstr::format!("spec.listeners[{}]", listener.index);
    Some(Finding::new(code, severity, listener.owner.clone(), message, fix).at(at))
}
