//! Stage `materials`: Secret or ConfigMap → [`Material`].
//!
//! Nothing that a proxy would refuse is served: a bad certificate that arrives later would
//! otherwise replace a good one. Messages name keys, never values. That a certificate has ended
//! is no reason not to serve it; who has a clock tells of it.

use std::sync::Arc;

use flow::{Output, Reads, View};
use gateway::pem::{self, Unusable};
use model::secret::{
    CA_SUFFIX, ConfigMap, CredentialGrants, Material, MaterialKey, Secret, SecretData,
};
use model::{Finding, ObjectKey, Parsed, SecretBytes, Severity};

use super::{GrantByAuthority, GrantByCertificate, GrantByConfigMap};
use crate::emit;

/// Type of Secrets that are meant for TLS.
const TYPE_TLS: &str = "kubernetes.io/tls";

/// What the stage reads.
#[derive(Clone, Copy)]
pub struct MaterialView<'t> {
    /// Secrets.
    pub secrets: View<'t, ObjectKey, Parsed<Secret>>,
    /// ConfigMaps.
    pub config_maps: View<'t, ObjectKey, Parsed<ConfigMap>>,
    /// Grants; indexes [`GrantByCertificate`], [`GrantByAuthority`], [`GrantByConfigMap`].
    pub grants: View<'t, ObjectKey, CredentialGrants>,
}

/// What an object has to serve.
pub fn derive(
    primary: &MaterialKey,
    view: &MaterialView<'_>,
    reads: &mut Reads,
) -> Output<MaterialKey, Material, Finding> {
    match primary {
        MaterialKey::Secret(key) => of_secret(primary, key, view, reads),
        MaterialKey::ConfigMap(key) => match view.config_maps.get(reads, key) {
            Some(row) => {
                let grants = view.grants.by::<GrantByConfigMap>(reads, key);
                of_config_map(primary, row, grants.count() > 0)
            }
            None => Output::gone(),
        },
    }
}

fn of_secret(
    primary: &MaterialKey,
    key: &ObjectKey,
    view: &MaterialView<'_>,
    reads: &mut Reads,
) -> Output<MaterialKey, Material, Finding> {
    let Some(row) = view.secrets.get(reads, key) else {
        return Output::gone();
    };
    let for_certificate = view.grants.by::<GrantByCertificate>(reads, key);
    let for_certificate = for_certificate.count() > 0;
    let for_authority = is_authority_of_somebody(key, view, reads);
    let Some(secret) = row.ok() else {
        // The row tells of itself.
        return Output::one(primary.clone(), Material::default());
    };
    let is_tls = secret.ty == TYPE_TLS;
    let certificate = certificate(&secret.data);
    let authority = authority(&secret.data);
    let mut notes = Vec::new();
    if let (true, Err(reason)) = (for_certificate || is_tls, &certificate) {
        notes.push(finding(
            primary,
            "secret-unusable",
            format!("{reason}, so no proxy is given this certificate and TLS with it fails"),
            "Give it a certificate and its private key in PEM, as tls.crt and tls.key",
        ));
    }
    match &authority {
        // A certificate without authorities is what most Secrets hold.
        Err(Unusable::Absent(_)) if !for_authority => {}
        Err(reason) if for_authority || is_tls => notes.push(finding(
            primary,
            "secret-ca-unusable",
            format!("{reason}, so no proxy is given these authorities and refuses who needs them"),
            "Give it certificates in PEM as ca.crt, and a revocation list only where it is one",
        )),
        _ => {}
    }
    let expires_s = certificate.as_ref().ok().map(|(_, expires_s)| *expires_s);
    let material = Material {
        certificate: certificate.ok().map(|(body, _)| body),
        authority: authority.ok(),
        expires_s,
        is_of_concern: for_certificate || is_tls,
    };
    Output::one(primary.clone(), material).with_notes(notes)
}

/// Whether authorities that somebody refers to come from this Secret: of several that are looked
/// at, the first that exists counts.
fn is_authority_of_somebody(key: &ObjectKey, view: &MaterialView<'_>, reads: &mut Reads) -> bool {
    let rows = view.grants.by::<GrantByAuthority>(reads, key);
    let rows: Vec<_> = rows.map(|(_, row)| Arc::clone(row)).collect();
    let lists = rows.iter().flat_map(|row| &row.names);
    let mut lists = lists.filter(|(name, _)| name.ends_with(CA_SUFFIX));
    lists.any(|(_, keys)| {
        let mut keys = keys.iter();
        keys.find(|at| view.secrets.get(reads, at).is_some()) == Some(key)
    })
}

fn of_config_map(
    primary: &MaterialKey,
    row: &Parsed<ConfigMap>,
    is_referenced: bool,
) -> Output<MaterialKey, Material, Finding> {
    let Some(map) = row.ok() else {
        return Output::one(primary.clone(), Material::default());
    };
    let authority = authority(&map.data);
    let note = match &authority {
        Err(reason) if is_referenced => Some(finding(
            primary,
            "secret-ca-unusable",
            format!("{reason}, so no proxy is given these authorities and refuses who needs them"),
            "Give it certificates in PEM as ca.crt, and a revocation list only where it is one",
        )),
        _ => None,
    };
    let material = Material {
        authority: authority.ok(),
        ..Material::default()
    };
    Output::one(primary.clone(), material).with_notes(note)
}

fn finding(at: &MaterialKey, code: &'static str, message: String, fix: &'static str) -> Finding {
    Finding::new(code, Severity::Error, at.object_ref(), message, fix).at("data")
}

/// The pair that counts, and when it ends. Source: spec/envoy-config.md §7.2.
fn certificate(data: &SecretData) -> Result<(SecretBytes, i64), Unusable> {
    let pair = pem::key_pair(data)?;
    let staple = data.get("tls.ocsp-staple").map(SecretBytes::expose);
    let body = emit::certificate(&pair.chain.pem, &pair.key, staple);
    Ok((body, pair.chain.expires_s))
}

/// The authorities that count.
fn authority(data: &SecretData) -> Result<SecretBytes, Unusable> {
    let found = pem::authorities(data)?;
    let revoked = found.revocations.as_deref();
    Ok(emit::authority(&found.certificates.pem, revoked))
}
