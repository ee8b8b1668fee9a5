//! What is right and wrong with a policy and each of its targets.

use std::borrow::Cow;

use flow::Reads;
use gateway::pem;
use model::gateway::Defect;
use model::input::{BackendTlsPolicy, BackendTlsTarget, CertificateRef, SubjectAltName};
use model::secret::CA_SUFFIX;
use model::{Kind, NamespacedHostname, ObjectKey, ObjectRef, Parsed, Str};

use super::{BackendServer, BackendTlsRow, BackendTlsView, PolicyByBackend, TargetRow};
use crate::index::ServiceBySource;
use crate::ir::TlsAuthority;

/// The word for the roots of the system.
const SYSTEM: &str = "System";

/// The targets of a policy, as far as they can be read: one that cannot be read otherwise must
/// not be forgotten where it is clear what it was meant for.
pub(super) fn targets(policy: &Parsed<BackendTlsPolicy>) -> Cow<'_, [BackendTlsTarget]> {
    match &policy.body {
        Ok(body) => Cow::Borrowed(&body.targets),
        Err(invalid) => invalid
            .targets
            .iter()
            .map(|target| BackendTlsTarget {
                group: target.group.clone(),
                kind: target.kind.clone(),
                name: target.name.clone(),
                section: None,
            })
            .collect(),
    }
}

/// The object that is targeted, if it is of a kind that can be.
pub(super) fn object(ns: &Str, target: &BackendTlsTarget) -> Option<ObjectRef> {
    let kind = match (target.group.as_str(), target.kind.as_str()) {
        ("" | "core", "Service") => Kind::Service,
        ("networking.istio.io", "ServiceEntry") => Kind::ServiceEntry,
        _ => return None,
    };
    let key = ObjectKey::new(ns.clone(), target.name.clone());
    Some(ObjectRef::new(kind, key))
}

pub(super) fn judge(
    policy: &Parsed<BackendTlsPolicy>,
    view: &BackendTlsView<'_>,
    reads: &mut Reads,
) -> BackendTlsRow {
    let ns = &policy.meta.key.ns;
    let (server, refs, remark) = match &policy.body {
        Ok(body) => match server(ns, body, view, reads) {
            Ok((server, remark)) => (Ok(server), None, remark),
            Err(Refused { accepted, refs }) => (Err(accepted), refs, None),
        },
        Err(invalid) => {
            let message = arcstr::format!("{} cannot be read: {}", invalid.field, invalid.reason);
            (Err(Defect::new("Invalid", message)), None, None)
        }
    };
    let is_ignored = policy.ok().is_some_and(|body| body.is_ignored);
    let targets = targets(policy);
    let targets = targets.iter().map(|target| {
        let found = if is_ignored {
            let message =
                "The policy is ignored, as its annotation istio.io/ignore-policy-attachment says";
            Err(Defect::new("IgnoredByIstio", message))
        } else {
            attached(policy, target, view, reads)
        };
        let (services, defect) = match found {
            Ok(services) => (services, server.as_ref().err().cloned()),
            Err(defect) => (Vec::new(), Some(defect)),
        };
        TargetRow {
            target: target.clone(),
            defect,
            services,
        }
    });
    BackendTlsRow {
        targets: targets.collect(),
        refs,
        remark,
        server: server.ok(),
    }
}

/// The services of a target that the policy decides about.
fn attached(
    policy: &Parsed<BackendTlsPolicy>,
    target: &BackendTlsTarget,
    view: &BackendTlsView<'_>,
    reads: &mut Reads,
) -> Result<Vec<NamespacedHostname>, Defect> {
    let ns = &policy.meta.key.ns;
    let missing = |message| Defect::new("TargetNotFound", message);
    let Some(object) = object(ns, target) else {
        return Err(missing(arcstr::format!(
            "A {} of group {:?} cannot be a target: only a Service or a ServiceEntry can",
            target.kind,
            target.group
        )));
    };
    let (kind, key) = (&object.kind, &object.key);
    let found: Vec<_> = view
        .services
        .by::<ServiceBySource>(reads, &object)
        .map(|(_, row)| row)
        .collect();
    if found.is_empty() {
        return Err(missing(arcstr::format!(
            "{kind} {key} does not exist, or has no host of the mesh"
        )));
    }
    if let Some(section) = &target.section {
        let mut ports = found.iter().flat_map(|service| &service.ports);
        if !ports.any(|port| port.name == *section) {
            let message = arcstr::format!("{kind} {key} has no port of the name {section}");
            return Err(missing(message));
        }
    }
    if let Some(other) = winner(policy, (target, &object), view, reads) {
        let message = arcstr::format!(
            "BackendTLSPolicy {other} has the same target and comes first: it is older, or its name is"
        );
        return Err(Defect::new("Conflicted", message));
    }
    Ok(found.into_iter().map(|row| row.key.clone()).collect())
}

/// The policy with the same target that comes before this one.
fn winner(
    policy: &Parsed<BackendTlsPolicy>,
    (target, object): (&BackendTlsTarget, &ObjectRef),
    view: &BackendTlsView<'_>,
    reads: &mut Reads,
) -> Option<ObjectKey> {
    let own = policy.meta.age_order();
    let others = view.policies.by::<PolicyByBackend>(reads, object);
    let others = others.filter(|(_, other)| {
        let is_ignored = other.ok().is_some_and(|body| body.is_ignored);
        let is_same = |one: &BackendTlsTarget| {
            one.section == target.section
                && self::object(&object.key.ns, one).as_ref() == Some(object)
        };
        !is_ignored && targets(other).iter().any(is_same) && other.meta.age_order() < own
    });
    let first = others.min_by_key(|(_, other)| other.meta.age_order());
    first.map(|(key, _)| key.clone())
}

/// Why connections are refused.
struct Refused {
    accepted: Defect,
    refs: Option<Defect>,
}

fn server(
    ns: &Str,
    policy: &BackendTlsPolicy,
    view: &BackendTlsView<'_>,
    reads: &mut Reads,
) -> Result<(BackendServer, Option<Str>), Refused> {
    let plain = |reason, message: String| Refused {
        accepted: Defect::new(reason, message),
        refs: None,
    };
    let (authority, remark) = match (policy.authorities.as_slice(), policy.well_known.as_deref()) {
        ([first, rest @ ..], _) => {
            let remark = (!rest.is_empty()).then(|| {
                arcstr::format!(
                    "Only the first of {} caCertificateRefs is used",
                    rest.len() + 1
                )
            });
            (authority(ns, first, view, reads)?, remark)
        }
        ([], Some(SYSTEM)) => (TlsAuthority::System, None),
        ([], Some(word)) => {
            let message = format!("wellKnownCACertificates {word} is not known, only {SYSTEM} is");
            return Err(plain("Invalid", message));
        }
        ([], None) => {
            let message = "Neither caCertificateRefs nor wellKnownCACertificates says who vouches for the backend";
            return Err(plain("NoValidCACertificate", message.to_owned()));
        }
    };
    if policy.hostname.is_empty() || !policy.hostname.bytes().all(|b| b.is_ascii_graphic()) {
        let message = "validation.hostname is no name that a backend can be asked for";
        return Err(plain("Invalid", message.to_owned()));
    }
    let names = policy.subject_alt_names.iter().map(|name| match name {
        SubjectAltName::Hostname(name) | SubjectAltName::Uri(name) => name.clone(),
    });
    let server = BackendServer {
        hostname: policy.hostname.clone(),
        subject_alt_names: names.collect(),
        authority,
    };
    Ok((server, remark))
}

/// The authorities of a ConfigMap of the policy's namespace.
fn authority(
    ns: &Str,
    wanted: &CertificateRef,
    view: &BackendTlsView<'_>,
    reads: &mut Reads,
) -> Result<TlsAuthority, Refused> {
    let refused = |reason, message: Str| Refused {
        accepted: Defect::new("NoValidCACertificate", message.clone()),
        refs: Some(Defect::new(reason, message)),
    };
    let is_core = matches!(wanted.group.as_str(), "" | "core");
    if !is_core || *wanted.kind != *Kind::ConfigMap.as_str() {
        let message = arcstr::format!(
            "caCertificateRefs names a {} of group {:?}: authorities come from a core ConfigMap",
            wanted.kind,
            wanted.group
        );
        return Err(refused("InvalidKind", message));
    }
    let key = ObjectKey::new(ns.clone(), wanted.name.clone());
    let message = match view.config_maps.get(reads, &key) {
        None => arcstr::format!("ConfigMap {key} does not exist"),
        Some(object) => match object.ok().map(|map| pem::authorities(&map.data)) {
            None => arcstr::format!("ConfigMap {key} cannot be read"),
            Some(Err(reason)) => arcstr::format!("ConfigMap {key} cannot be used: {reason}"),
            Some(Ok(_)) => return Ok(TlsAuthority::Secret(resource(&key))),
        },
    };
    Err(refused("InvalidCACertificateRef", message))
}

/// Name of the resource with the authorities of a ConfigMap. Where it is looked up, one suffix is
/// taken off, so that names that end in it need another.
fn resource(key: &ObjectKey) -> Str {
    let suffix = if key.name.ends_with(CA_SUFFIX) {
        CA_SUFFIX
    } else {
        ""
    };
    arcstr::format!("configmap://{key}{suffix}")
}
