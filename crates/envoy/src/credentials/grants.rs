//! Stage `grants`: Gateway → [`CredentialGrants`], the Secrets that its listeners refer to in its
//! own namespace or where a ReferenceGrant lets it. Whether a proxy may have them is decided
//! when it asks; what is not in a row, no proxy of the Gateway can have.

use flow::{Output, Reads, View};
use model::input::{CertificateRef, Gateway, GatewayClass, Listener, ListenerTls, ReferenceGrant};
use model::secret::{CA_SUFFIX, ConfigMap, CredentialGrants, Secret};
use model::{Finding, Kind, ObjectKey, ObjectRef, Parsed, Severity};

use gateway::reference_grant::is_granted;

/// Most certificates of a listener: one of each kind of key. Source: spec/gateway-api.md §3.7.
const CERTIFICATES_MAX: usize = 2;
const OPTION_TERMINATE_MODE: &str = "gateway.istio.io/tls-terminate-mode";
const OPTION_PROTOCOL: &str = "gateway.istio.io/listener-protocol";

/// What the stage reads.
#[derive(Clone, Copy)]
pub struct GrantView<'t> {
    /// Gateways.
    pub gateways: View<'t, ObjectKey, Parsed<Gateway>>,
    /// GatewayClasses.
    pub gateway_classes: View<'t, ObjectKey, Parsed<GatewayClass>>,
    /// Grants; index [`crate::index::GrantByNamespace`].
    pub reference_grants: View<'t, ObjectKey, Parsed<ReferenceGrant>>,
    /// Secrets, for whether they exist.
    pub secrets: View<'t, ObjectKey, Parsed<Secret>>,
    /// ConfigMaps, for whether they exist.
    pub config_maps: View<'t, ObjectKey, Parsed<ConfigMap>>,
}

/// The Secrets that the listeners of a Gateway may have.
pub fn derive(
    key: &ObjectKey,
    view: &GrantView<'_>,
    reads: &mut Reads,
) -> Output<ObjectKey, CredentialGrants, Finding> {
    let Some(parsed) = view.gateways.get(reads, key) else {
        return Output::gone();
    };
    let Some(gateway) = parsed.ok() else {
        return Output::none();
    };
    let mut walk = Walk {
        key,
        view,
        reads,
        row: CredentialGrants {
            is_managed: gateway.is_managed,
            ..CredentialGrants::default()
        },
        notes: Vec::new(),
    };
    for (i, listener) in gateway.listeners.iter().enumerate() {
        walk.listener(i, listener, gateway);
    }
    let (row, mut notes) = (walk.row, walk.notes);
    if !is_ours(gateway, view, reads) {
        notes.clear();
    }
    notes.sort_unstable();
    notes.dedup();
    Output::one(key.clone(), row).with_notes(notes)
}

/// Whether somebody here deploys or serves Gateways of this class; others are told by others.
fn is_ours(gateway: &Gateway, view: &GrantView<'_>, reads: &mut Reads) -> bool {
    let class = ObjectKey::cluster(gateway.class.clone());
    match view.gateway_classes.get(reads, &class) {
        Some(class) => class
            .ok()
            .is_some_and(|class| class.controller.starts_with("istio.io/")),
        None => matches!(
            gateway.class.as_str(),
            "istio" | "istio-waypoint" | "istio-east-west"
        ),
    }
}

struct Walk<'w, 't> {
    key: &'w ObjectKey,
    view: &'w GrantView<'t>,
    reads: &'w mut Reads,
    row: CredentialGrants,
    notes: Vec<Finding>,
}

// === impl Walk ===

impl Walk<'_, '_> {
    fn listener(&mut self, i: usize, listener: &Listener, gateway: &Gateway) {
        let Some(tls) = terminating(listener) else {
            return;
        };
        let at = format!("spec.listeners[{i}].tls.certificateRefs");
        if tls.certificates.len() > CERTIFICATES_MAX {
            self.refuse(
                &at,
                "gw-certificate-ref",
                "A listener has at most two certificates; it is given none of these, and TLS to it fails",
                "Keep one reference for each kind of key, RSA and ECDSA",
            );
            return;
        }
        let asks_clients = matches!(
            tls.options.get(OPTION_TERMINATE_MODE).map(|s| s.as_str()),
            Some("MUTUAL" | "OPTIONAL_MUTUAL")
        );
        for (n, certificate) in tls.certificates.iter().enumerate() {
            let Some(secret) = self.certificate(&format!("{at}[{n}]"), certificate) else {
                continue;
            };
            if asks_clients {
                self.authority(&secret);
            }
        }
        if tls.certificates.is_empty() {
            return;
        }
        let at = match gateway.frontend.per_port.get(&listener.port) {
            Some(_) => "spec.tls.frontend.perPort",
            None => "spec.tls.frontend.default",
        };
        if let Some(wanted) = gateway.frontend.of_port(listener.port) {
            self.authorities(at, &wanted.authorities);
        }
    }

    /// The Secret of a certificate reference, granted.
    fn certificate(&mut self, at: &str, wanted: &CertificateRef) -> Option<ObjectKey> {
        if kind_of(wanted) != Some(Kind::Secret) {
            self.refuse(
                at,
                "gw-certificate-ref",
                "Certificates come from core Secrets alone; this reference gives the listener none",
                "Refer to a Secret",
            );
            return None;
        }
        let secret = self.target(wanted);
        if !self.permits(Kind::Secret, &secret) {
            self.not_granted(at, Kind::Secret, &secret);
            return None;
        }
        if self.view.secrets.get(self.reads, &secret).is_none() {
            self.missing(at, Kind::Secret, &secret);
        }
        let name = arcstr::format!("{}/{}", secret.ns, secret.name);
        self.grant(name, secret.clone());
        Some(secret)
    }

    /// The authorities of `tls.frontend`: exactly one reference.
    fn authorities(&mut self, at: &str, wanted: &[CertificateRef]) {
        let one = match wanted {
            [] => return,
            [one] => Some(one),
            _ => None,
        };
        let Some((one, kind)) = one.and_then(|one| Some((one, kind_of(one)?))) else {
            self.refuse(
                at,
                "gw-certificate-ref",
                "Authorities of clients come from exactly one ConfigMap or core Secret; the listeners are given none",
                "Keep one reference to a ConfigMap or Secret",
            );
            return;
        };
        let target = self.target(one);
        if !self.permits(kind, &target) {
            self.not_granted(at, kind, &target);
            return;
        }
        let exists = match kind {
            Kind::ConfigMap => {
                self.row.config_maps.insert(target.clone());
                self.view.config_maps.get(self.reads, &target).is_some()
            }
            _ => self.authority(&target),
        };
        if !exists {
            self.missing(at, kind, &target);
        }
    }

    /// Grants the authorities of a Secret: those of `<name>-cacert` where there is one and this
    /// one may be read too, else its own. Says whether either exists.
    fn authority(&mut self, secret: &ObjectKey) -> bool {
        let name = arcstr::format!("{}/{}{CA_SUFFIX}", secret.ns, secret.name);
        let beside = ObjectKey::new(
            secret.ns.clone(),
            arcstr::format!("{}{CA_SUFFIX}", secret.name),
        );
        let mut exists = self.view.secrets.get(self.reads, secret).is_some();
        if self.permits(Kind::Secret, &beside) {
            exists |= self.view.secrets.get(self.reads, &beside).is_some();
            self.grant(name.clone(), beside);
        }
        self.grant(name, secret.clone());
        exists
    }

    fn grant(&mut self, name: model::Str, secret: ObjectKey) {
        let secrets = self.row.names.entry(name).or_default();
        if !secrets.contains(&secret) {
            secrets.push(secret);
        }
    }

    fn target(&self, wanted: &CertificateRef) -> ObjectKey {
        let ns = wanted.ns.as_ref().unwrap_or(&self.key.ns);
        ObjectKey::new(ns.clone(), wanted.name.clone())
    }

    fn permits(&mut self, kind: Kind, target: &ObjectKey) -> bool {
        target.ns == self.key.ns
            || is_granted(
                self.view.reference_grants,
                self.reads,
                (Kind::Gateway, &self.key.ns),
                (kind, target),
            )
    }

    fn not_granted(&mut self, at: &str, kind: Kind, target: &ObjectKey) {
        let message = format!(
            "{kind} {target} is in another namespace, where no ReferenceGrant lets Gateways of {} refer to it; proxies are not given it",
            self.key.ns
        );
        let fix = format!(
            "Add a ReferenceGrant in {} from Gateway of {} to {kind}",
            target.ns, self.key.ns
        );
        self.refuse(at, "gw-certificate-no-grant", message, fix);
    }

    fn missing(&mut self, at: &str, kind: Kind, target: &ObjectKey) {
        let message = format!(
            "{kind} {target} does not exist, so proxies are given none and TLS that needs it fails"
        );
        self.refuse(
            at,
            "gw-certificate-missing",
            message,
            "Create it, or correct the name",
        );
    }

    fn refuse(
        &mut self,
        at: &str,
        code: &'static str,
        message: impl Into<model::Str>,
        fix: impl Into<model::Str>,
    ) {
        let object = ObjectRef::new(Kind::Gateway, self.key.clone());
        self.notes
            .push(Finding::new(code, Severity::Error, object, message, fix).at(at.to_owned()));
    }
}

/// `tls` of a listener that ends TLS with certificates of its own.
fn terminating(listener: &Listener) -> Option<&ListenerTls> {
    let tls = listener.tls.as_ref()?;
    let option = |name: &str| tls.options.get(name).map(|value| value.as_str());
    let ends = matches!(listener.protocol.as_str(), "HTTPS" | "TLS")
        && !tls.passthrough
        && !matches!(
            option(OPTION_TERMINATE_MODE),
            Some("ISTIO_SIMPLE" | "ISTIO_MUTUAL")
        )
        && option(OPTION_PROTOCOL) != Some("auto-passthrough");
    ends.then_some(tls)
}

fn kind_of(wanted: &CertificateRef) -> Option<Kind> {
    match (wanted.group.as_str(), wanted.kind.as_str()) {
        ("" | "core", "Secret") => Some(Kind::Secret),
        ("" | "core", "ConfigMap") => Some(Kind::ConfigMap),
        _ => None,
    }
}
