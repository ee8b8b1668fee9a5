//! What a Gateway and its listeners refer to: whether they may, whether it is there and usable.
//! The grants of the Gateway's proxies come from the same walk. Source: spec/gateway-api.md §3.2,
//! §3.7, §6.4.

use flow::Reads;
use model::gateway::Defect;
use model::input::{CertificateRef, FrontendValidation, Gateway};
use model::secret::{CA_SUFFIX, CredentialGrants, SecretData};
use model::{Finding, Kind, ObjectKey, ObjectRef, Severity, Str};

use super::GatewayView;
use crate::pem;
use crate::reference_grant::is_granted;

/// Scheme of resources that hold what a Secret holds for a Gateway.
const SCHEME_SECRET: &str = "kubernetes-gateway://";
/// Scheme of resources that hold the authorities of a ConfigMap.
const SCHEME_CONFIG_MAP: &str = "configmap://";

/// Reason of a reference into a namespace that does not grant it.
pub(super) const NOT_PERMITTED: &str = "RefNotPermitted";

/// Who refers, and where it says so.
pub(super) struct Referrer<'a> {
    /// A Gateway or a ListenerSet.
    pub(super) owner: &'a ObjectRef,
    /// Path of the reference.
    pub(super) at: &'a str,
}

impl Referrer<'_> {
    fn kind(&self) -> Kind {
        if self.owner.kind == Kind::ListenerSet.as_str() {
            Kind::ListenerSet
        } else {
            Kind::Gateway
        }
    }
}

/// What an object that is referred to holds.
enum Held<'a> {
    /// It does not exist.
    Nothing,
    /// It cannot be read.
    Unreadable,
    /// Values by key.
    Data(&'a SecretData),
}

impl<'a> Held<'a> {
    fn of(data: Option<&'a SecretData>) -> Self {
        data.map_or(Self::Unreadable, Self::Data)
    }
}

/// The walk over references.
pub(super) struct References<'w, 't> {
    gateway: ObjectRef,
    view: &'w GatewayView<'t>,
    pub(super) reads: &'w mut Reads,
    /// What was referred to and may be had.
    pub(super) grants: CredentialGrants,
    pub(super) notes: Vec<Finding>,
}

// === impl References ===

impl<'w, 't> References<'w, 't> {
    pub(super) fn new(
        gateway: &ObjectKey,
        view: &'w GatewayView<'t>,
        reads: &'w mut Reads,
    ) -> Self {
        Self {
            gateway: ObjectRef::new(Kind::Gateway, gateway.clone()),
            view,
            reads,
            grants: CredentialGrants::default(),
            notes: Vec::new(),
        }
    }

    /// What is wrong with `infrastructure.parametersRef`.
    pub(super) fn parameters(&mut self, gateway: &Gateway) -> Option<Defect> {
        let wanted = gateway.infrastructure.parameters.as_ref()?;
        let message = if wanted.is_config_map() {
            let ns = self.gateway.key.ns.clone();
            let key = ObjectKey::new(ns, wanted.name.clone());
            if self.view.config_maps.get(self.reads, &key).is_some() {
                return None;
            }
            format!("ConfigMap {key} of parametersRef does not exist")
        } else {
            format!(
                "parametersRef names a {} of group {:?}; only a core ConfigMap can hold parameters",
                wanted.kind, wanted.group
            )
        };
        Some(Defect::new("InvalidParameters", message))
    }

    /// The resource with the certificate of `tls.backend.clientCertificateRef`.
    pub(super) fn client_certificate(&mut self, gateway: &Gateway) -> Result<Option<Str>, Defect> {
        let Some(wanted) = gateway.client_certificate.as_ref() else {
            return Ok(None);
        };
        let owner = self.gateway.clone();
        let by = Referrer {
            owner: &owner,
            at: "spec.tls.backend.clientCertificateRef",
        };
        let found = self.certificate(&by, wanted);
        match found {
            Ok(secret) => Ok(Some(certificate_name(&secret))),
            Err(defect) => {
                let reason = match defect.reason {
                    NOT_PERMITTED => NOT_PERMITTED,
                    _ => "InvalidClientCertificateRef",
                };
                Err(Defect::new(reason, defect.message))
            }
        }
    }

    /// The Secret with a certificate that a listener serves. What it may have is granted, also
    /// where it cannot be used yet.
    pub(super) fn certificate(
        &mut self,
        by: &Referrer<'_>,
        wanted: &CertificateRef,
    ) -> Result<ObjectKey, Defect> {
        let (_, secret) = self.permitted(by, wanted, &[Kind::Secret])?;
        self.grant(arcstr::format!("{secret}"), secret.clone());
        self.key_pair(by, &secret)?;
        Ok(secret)
    }

    /// The resource with the authorities of `tls.frontend`, which the Gateway alone refers to:
    /// exactly one object.
    pub(super) fn authorities(
        &mut self,
        at: &str,
        wanted: &FrontendValidation,
    ) -> Result<Str, Defect> {
        let owner = self.gateway.clone();
        let by = Referrer { owner: &owner, at };
        let [one] = wanted.authorities.as_slice() else {
            let count = wanted.authorities.len();
            self.refuse(
                &by,
                "gw-certificate-ref",
                "Authorities of clients come from exactly one ConfigMap or core Secret; the listeners are given none",
                "Keep one reference to a ConfigMap or Secret",
            );
            let message = format!("Authorities of clients come from one object, not from {count}");
            return Err(Defect::new("InvalidCACertificateRef", message));
        };
        let (kind, key) = self
            .permitted(&by, one, &[Kind::ConfigMap, Kind::Secret])
            .map_err(|defect| match defect.reason {
                NOT_PERMITTED => defect,
                _ => Defect::new("InvalidCACertificateKind", defect.message),
            })?;
        if kind == Kind::ConfigMap {
            self.grants.config_maps.insert(key.clone());
            let object = self.view.config_maps.get(self.reads, &key);
            let data = object.map_or(Held::Nothing, |object| {
                Held::of(object.ok().map(|map| &map.data))
            });
            self.check_authorities(&by, (kind, &key), data)?;
            return Ok(arcstr::format!("{SCHEME_CONFIG_MAP}{key}"));
        }
        let secrets = self.authority(&by, &key);
        let mut found = None;
        for at in &secrets {
            found = found.or_else(|| self.view.secrets.get(self.reads, at));
        }
        let data = found.map_or(Held::Nothing, |object| {
            Held::of(object.ok().map(|secret| &secret.data))
        });
        self.check_authorities(&by, (kind, &key), data)?;
        Ok(authority_name(&key))
    }

    /// Grants the authorities of a Secret: those of `<name>-cacert` where there is one and this
    /// one may be read too, else its own. The Secrets to look at, in this order.
    pub(super) fn authority(&mut self, by: &Referrer<'_>, secret: &ObjectKey) -> Vec<ObjectKey> {
        let name = arcstr::format!("{secret}{CA_SUFFIX}");
        let beside = arcstr::format!("{}{CA_SUFFIX}", secret.name);
        let beside = ObjectKey::new(secret.ns.clone(), beside);
        let mut out = Vec::new();
        if self.permits(by, Kind::Secret, &beside) {
            out.push(beside);
        }
        out.push(secret.clone());
        for one in &out {
            self.grant(name.clone(), one.clone());
        }
        out
    }

    fn check_authorities(
        &mut self,
        by: &Referrer<'_>,
        (kind, key): (Kind, &ObjectKey),
        held: Held<'_>,
    ) -> Result<(), Defect> {
        let message = match held {
            Held::Nothing => {
                self.missing(by, kind, key);
                format!("{kind} {key} does not exist")
            }
            Held::Unreadable => format!("{kind} {key} cannot be read"),
            Held::Data(data) => match pem::authorities(data) {
                Ok(_) => return Ok(()),
                Err(reason) => format!("{kind} {key} cannot be used: {reason}"),
            },
        };
        Err(Defect::new("InvalidCACertificateRef", message))
    }

    /// Whether a Secret is there and holds a certificate with its key.
    fn key_pair(&mut self, by: &Referrer<'_>, secret: &ObjectKey) -> Result<(), Defect> {
        let message = match self.view.secrets.get(self.reads, secret) {
            None => {
                self.missing(by, Kind::Secret, secret);
                format!("Secret {secret} does not exist")
            }
            Some(object) => match object.ok().map(|secret| pem::key_pair(&secret.data)) {
                None => format!("Secret {secret} cannot be read"),
                Some(Ok(_)) => return Ok(()),
                Some(Err(reason)) => format!("Secret {secret} cannot be used: {reason}"),
            },
        };
        Err(Defect::new("InvalidCertificateRef", message))
    }

    /// The object that a reference names, if it is of one of these kinds and may be referred to:
    /// that is settled before anybody looks whether it exists.
    fn permitted(
        &mut self,
        by: &Referrer<'_>,
        wanted: &CertificateRef,
        kinds: &[Kind],
    ) -> Result<(Kind, ObjectKey), Defect> {
        let kind = kind_of(wanted).filter(|kind| kinds.contains(kind));
        let names: Vec<&str> = kinds.iter().map(|kind| kind.as_str()).collect();
        let names = names.join(" or ");
        let Some(kind) = kind else {
            self.refuse(
                by,
                "gw-certificate-ref",
                format!("Only a core {names} can be named here; this reference gives nothing"),
                format!("Refer to a {names}"),
            );
            let message = format!(
                "{} of group {:?} is no core {names}",
                wanted.kind, wanted.group
            );
            return Err(Defect::new("InvalidCertificateRef", message));
        };
        let ns = wanted.ns.as_ref().unwrap_or(&by.owner.key.ns);
        let key = ObjectKey::new(ns.clone(), wanted.name.clone());
        if !self.permits(by, kind, &key) {
            let from = by.kind();
            let own = &by.owner.key.ns;
            let message = format!(
                "{kind} {key} is in another namespace, where no ReferenceGrant lets {from}s of {own} refer to it"
            );
            let fix = format!("Add a ReferenceGrant in {ns} from {from} of {own} to {kind}");
            let told = format!("{message}; proxies are not given it");
            self.refuse(by, "gw-certificate-no-grant", told, fix);
            return Err(Defect::new(NOT_PERMITTED, message));
        }
        Ok((kind, key))
    }

    fn permits(&mut self, by: &Referrer<'_>, kind: Kind, target: &ObjectKey) -> bool {
        let own = &by.owner.key.ns;
        target.ns == *own
            || is_granted(
                self.view.reference_grants,
                self.reads,
                (by.kind(), own),
                (kind, target),
            )
    }

    fn grant(&mut self, name: Str, secret: ObjectKey) {
        let secrets = self.grants.names.entry(name).or_default();
        if !secrets.contains(&secret) {
            secrets.push(secret);
        }
    }

    fn missing(&mut self, by: &Referrer<'_>, kind: Kind, target: &ObjectKey) {
        let message = format!(
            "{kind} {target} does not exist, so proxies are given none and TLS that needs it fails"
        );
        let fix = "Create it, or correct the name";
        self.refuse(by, "gw-certificate-missing", message, fix);
    }

    pub(super) fn refuse(
        &mut self,
        by: &Referrer<'_>,
        code: &'static str,
        message: impl Into<Str>,
        fix: impl Into<Str>,
    ) {
        let finding = Finding::new(code, Severity::Error, by.owner.clone(), message, fix);
        self.notes.push(finding.at(by.at));
    }
}

/// Name of the resource with a certificate of a Secret.
pub(super) fn certificate_name(secret: &ObjectKey) -> Str {
    arcstr::format!("{SCHEME_SECRET}{secret}")
}

/// Name of the resource with the authorities of a Secret.
pub(super) fn authority_name(secret: &ObjectKey) -> Str {
    arcstr::format!("{SCHEME_SECRET}{secret}{CA_SUFFIX}")
}

fn kind_of(wanted: &CertificateRef) -> Option<Kind> {
    match (wanted.group.as_str(), wanted.kind.as_str()) {
        ("" | "core", "Secret") => Some(Kind::Secret),
        ("" | "core", "ConfigMap") => Some(Kind::ConfigMap),
        _ => None,
    }
}
