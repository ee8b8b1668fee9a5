#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use model::{SecretBytes, WaypointRow};
use proptest::prelude::*;

use super::*;

fn key(text: &str) -> ObjectKey {
    text.parse().unwrap()
}

#[allow(clippy::unnecessary_wraps, reason = "as the table takes it")]
fn body(text: &str) -> Option<SecretBytes> {
    Some(SecretBytes::new(text.as_bytes()))
}

/// A Gateway whose instances run under these accounts.
fn waypoint(at: &str, accounts: &[&str]) -> (ObjectKey, Arc<WaypointRow>) {
    let row = WaypointRow {
        key: key(at),
        class: Str::new(),
        controller: None,
        ready: true,
        address: None,
        serves: model::derived::WaypointFor::None,
        allowed: model::input::AllowedNamespaces::None,
        listener: None,
        takes: Vec::new(),
        service_accounts: accounts.iter().map(|sa| Str::from(*sa)).collect(),
        binding: None,
        forwards_identity: false,
    };
    (key(at), Arc::new(row))
}

/// Secrets `a/s`, `a/t` with `a/t-cacert`, `b/s`, and ConfigMap `b/roots`. Gateway `a/gw` (account
/// `gw`) is granted `a/s` and `b/s`; Gateway `a/other` (account `other`) nothing.
fn snapshot() -> Snapshot {
    let mut secrets = SecretStore::default();
    for at in ["a/s", "a/t", "a/t-cacert", "b/s"] {
        let material = Material {
            certificate: body(&format!("<key of {at}>")),
            authority: body(&format!("<authorities of {at}>")),
            expires_s: Some(100),
            is_of_concern: at != "b/s",
        };
        secrets.put_material(MaterialKey::Secret(key(at)), Some(Arc::new(material)));
    }
    let roots = Material {
        authority: body("<roots>"),
        ..Material::default()
    };
    let at = MaterialKey::ConfigMap(key("b/roots"));
    secrets.put_material(at, Some(Arc::new(roots)));
    let names = [
        ("a/s", vec![key("a/s")]),
        ("b/s", vec![key("b/s")]),
        ("b/s-cacert", vec![key("b/s-cacert"), key("b/s")]),
    ];
    let grants = CredentialGrants {
        names: names.map(|(name, keys)| (name.into(), keys)).into(),
        account: Some("gw".into()),
        ..CredentialGrants::default()
    };
    secrets.put_grants(key("a/gw"), Some(Arc::new(grants)));
    secrets.put_grants(key("a/other"), Some(Arc::default()));
    Snapshot {
        secrets,
        waypoints: [waypoint("a/gw", &["gw"]), waypoint("a/other", &["other"])]
            .into_iter()
            .collect(),
        ..Snapshot::default()
    }
}

fn identity(text: &str) -> SpiffeId {
    let (ns, sa) = text.split_once('/').unwrap();
    SpiffeId::new("cluster.local", ns, sa)
}

/// What a caller of a Gateway gets: the payload behind the name.
fn asked(snapshot: &Snapshot, caller: Option<&SpiffeId>, gateway: &str, name: &str) -> String {
    let gateway = (!gateway.is_empty()).then(|| key(gateway));
    let access = GatewayAccounts(snapshot);
    match snapshot.secret(caller, gateway.as_ref(), name, &access) {
        None => "-".to_owned(),
        Some(resource) => {
            assert_eq!(resource.name(), name);
            let payload = resource.payload();
            let prefix = [&[0x0a, u8::try_from(name.len()).unwrap()], name.as_bytes()].concat();
            let body = payload.strip_prefix(prefix.as_slice()).unwrap();
            String::from_utf8(body.to_vec()).unwrap()
        }
    }
}

#[test]
fn each_caller_gets_what_he_may_have_and_nothing_else() {
    let snapshot = snapshot();
    for (caller, gateway, name, got) in [
        // Private keys of the own namespace, for accounts of Gateways.
        ("a/gw", "a/gw", "kubernetes://s", "<key of a/s>"),
        ("a/gw", "", "kubernetes://a/s", "<key of a/s>"),
        ("a/other", "a/other", "kubernetes://a/s", "<key of a/s>"),
        ("a/app", "", "kubernetes://a/s", "-"),
        ("a/gw", "a/gw", "kubernetes://b/s", "-"),
        ("b/gw", "", "kubernetes://b/s", "-"),
        ("a/gw", "a/gw", "kubernetes://a/gone", "-"),
        // Authorities of the own namespace, for everybody there: never a private key.
        (
            "a/app",
            "",
            "kubernetes://a/s-cacert",
            "<authorities of a/s>",
        ),
        (
            "a/app",
            "",
            "kubernetes://t-cacert",
            "<authorities of a/t-cacert>",
        ),
        (
            "a/gw",
            "",
            "kubernetes://t-cacert",
            "<authorities of a/t-cacert>",
        ),
        ("a/app", "", "kubernetes://b/s-cacert", "-"),
        ("a/app", "", "kubernetes://gone-cacert", "-"),
        // What listeners refer to, for the accounts of that Gateway.
        ("a/gw", "a/gw", "kubernetes-gateway://a/s", "<key of a/s>"),
        ("a/gw", "a/gw", "kubernetes-gateway://b/s", "<key of b/s>"),
        (
            "a/gw",
            "a/gw",
            "kubernetes-gateway://b/s-cacert",
            "<authorities of b/s>",
        ),
        ("a/gw", "a/gw", "kubernetes-gateway://a/t", "-"),
        ("a/gw", "a/gw", "kubernetes-gateway://a/s-cacert", "-"),
        ("a/gw", "a/other", "kubernetes-gateway://a/s", "-"),
        ("a/gw", "a/gone", "kubernetes-gateway://a/s", "-"),
        ("a/gw", "", "kubernetes-gateway://a/s", "-"),
        ("a/other", "a/gw", "kubernetes-gateway://a/s", "-"),
        ("b/gw", "a/gw", "kubernetes-gateway://b/s", "-"),
        // Authorities of ConfigMaps are no secret.
        ("c/app", "", "configmap://b/roots", "<roots>"),
        ("c/app", "", "configmap://b/roots-cacert", "<roots>"),
        ("c/app", "", "configmap://b/s", "-"),
        ("c/app", "", "configmap://b/gone", "-"),
    ] {
        let caller = identity(caller);
        assert_eq!(
            asked(&snapshot, Some(&caller), gateway, name),
            got,
            "{caller} of {gateway:?} asks for {name}"
        );
        assert_eq!(asked(&snapshot, None, gateway, name), "-", "{name}");
        let abroad = SpiffeId {
            trust_domain: "elsewhere".into(),
            ..caller
        };
        assert_eq!(
            asked(&snapshot, Some(&abroad), gateway, name),
            "-",
            "{name}"
        );
    }
}

#[test]
fn an_alias_of_the_trust_domain_counts_as_the_own() {
    let mut snapshot = snapshot();
    let old = SpiffeId::new("old", "a", "gw");
    assert_eq!(asked(&snapshot, Some(&old), "a/gw", "kubernetes://s"), "-");
    Arc::make_mut(&mut snapshot.mesh).trust_domain_aliases = vec!["old".into()];
    let got = asked(&snapshot, Some(&old), "a/gw", "kubernetes://s");
    assert_eq!(got, "<key of a/s>");
}

/// Whoever may make pods may give them the label of a Gateway, but not every account.
#[test]
fn a_pod_of_a_gateway_with_an_account_of_its_own_has_nothing_of_it() {
    let mut snapshot = snapshot();
    snapshot.waypoints = [waypoint("a/gw", &["gw", "app"])].into_iter().collect();
    let name = "kubernetes-gateway://a/s";
    for (caller, got) in [("a/gw", "<key of a/s>"), ("a/app", "-")] {
        let caller = identity(caller);
        assert_eq!(
            asked(&snapshot, Some(&caller), "a/gw", name),
            got,
            "{caller}"
        );
    }
}

#[test]
fn a_gateway_that_nobody_deploys_binds_by_namespace() {
    let mut snapshot = snapshot();
    let app = identity("a/app");
    let name = "kubernetes-gateway://a/s";
    assert_eq!(asked(&snapshot, Some(&app), "a/gw", name), "-");
    let grants = CredentialGrants {
        names: [("a/s".into(), vec![key("a/s")])].into(),
        ..CredentialGrants::default()
    };
    snapshot
        .secrets
        .put_grants(key("a/gw"), Some(Arc::new(grants)));
    assert_eq!(asked(&snapshot, Some(&app), "a/gw", name), "<key of a/s>");
    let foreign = identity("b/app");
    assert_eq!(asked(&snapshot, Some(&foreign), "a/gw", name), "-");
}

#[test]
fn names_that_are_no_names_reach_nothing() {
    let snapshot = snapshot();
    let caller = identity("a/gw");
    for name in [
        "",
        "s",
        "a/s",
        "default",
        "ROOTCA",
        "kubernetes",
        "kubernetes:",
        "kubernetes:/a/s",
        "kubernetes://",
        "kubernetes:///s",
        "kubernetes://a/",
        "kubernetes:///",
        "kubernetes:// s",
        "kubernetes://a/b/c",
        "kubernetes://a//s",
        "kubernetes://a/s/",
        "kubernetes://./s",
        "kubernetes://../a/s",
        "kubernetes://b/../a/s",
        "kubernetes://a/../s",
        "kubernetes://a/S",
        "kubernetes://a/s\0",
        "kubernetes://a/s?x",
        "kubernetes://a/s#x",
        "kubernetes://a%2fs",
        "kubernetes://-cacert",
        "kubernetes://a/-cacert",
        "KUBERNETES://a/s",
        " kubernetes://a/s",
        "kubernetes-gateway://s",
        "kubernetes-gateway:///s",
        "kubernetes-gateway://a/s/",
        "kubernetes-gateway://a/b/s",
        "configmap://roots",
        "configmap:///roots",
        "configmap://b/../b/roots",
        "configmap://b/-cacert",
        "invalid://",
        "invalid://a/s",
        "sds://s",
        "file-cert:x~y",
        "builtin://",
        "*",
    ] {
        assert_eq!(
            asked(&snapshot, Some(&caller), "a/gw", name),
            "-",
            "{name:?}"
        );
    }
}

#[test]
fn a_secret_that_exists_beside_is_not_passed_over_where_it_holds_nothing() {
    let mut snapshot = snapshot();
    let empty = Some(Arc::new(Material::default()));
    let at = MaterialKey::Secret(key("a/t-cacert"));
    snapshot.secrets.put_material(at.clone(), empty);
    let caller = identity("a/gw");
    let name = "kubernetes://t-cacert";
    assert_eq!(asked(&snapshot, Some(&caller), "a/gw", name), "-");
    snapshot.secrets.put_material(at, None);
    let got = asked(&snapshot, Some(&caller), "a/gw", name);
    assert_eq!(got, "<authorities of a/t>");
}

#[test]
fn contents_are_in_no_print_and_in_no_map_of_resources() {
    let snapshot = snapshot();
    let caller = identity("a/gw");
    let access = GatewayAccounts(&snapshot);
    let resource = snapshot.secret(Some(&caller), None, "kubernetes://s", &access);
    let shown = format!(
        "{snapshot:?} {:#?} {resource:?} {access:?}",
        snapshot.secrets
    );
    assert!(shown.contains("kubernetes://s"), "{shown}");
    for content in ["<key", "<authorities", "<roots"] {
        let bytes = format!("{:?}", content.as_bytes());
        assert!(!shown.contains(content) && !shown.contains(bytes.trim_matches(['[', ']'])));
    }
    assert_eq!(snapshot.resources(None, crate::ResourceType::Secret), None);
}

#[test]
fn ended_certificates_are_told_of_where_they_concern_somebody() {
    let store = snapshot().secrets;
    let told = |now_s| {
        let findings = store.expired(now_s);
        let line = |f: &Finding| format!("{} {}", f.code, f.object.key);
        findings.iter().map(line).collect::<Vec<_>>()
    };
    assert_eq!(told(100), [""; 0]);
    assert_eq!(
        told(101),
        ["a/s", "a/t", "a/t-cacert"].map(|at| format!("secret-expired {at}"))
    );
}

proptest! {
    /// Whatever the name, nobody without identity gets anything, and nobody a key of a
    /// namespace that is neither his nor granted.
    #[test]
    fn no_name_reaches_foreign_keys(name in "(kubernetes|kubernetes-gateway|configmap)://[abs/.-]{0,9}(-cacert)?") {
        let snapshot = snapshot();
        prop_assert_eq!(asked(&snapshot, None, "a/gw", &name), "-");
        let app = identity("b/app");
        let got = asked(&snapshot, Some(&app), "a/gw", &name);
        prop_assert!(!got.contains("key of"), "{} gives {}", name, got);
    }
}
