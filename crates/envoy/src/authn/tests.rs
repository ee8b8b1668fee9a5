#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use flow::Table;
use model::Meta;
use model::input::TargetRef;
use model::jwks::JwksFailure;
use model::object::Invalid;

use super::*;
use crate::authz::PolicyTables;
use crate::index::{PolicyByTarget, ServiceByHostname, TargetKind};

const HEAD: &str = r#"{"keys":[{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0","kid":""#;

/// A key set with this name in it.
fn set(kid: &str) -> Str {
    arcstr::format!("{HEAD}{kid}\"}}]}}")
}

fn target() -> Target {
    Target::new(TargetKind::Gateway, ObjectKey::new("a", "gate"))
}

fn targets() -> Vec<TargetRef> {
    vec![TargetRef {
        group: "gateway.networking.k8s.io".into(),
        kind: "Gateway".into(),
        name: "gate".into(),
        ns: None,
    }]
}

fn row(
    name: &str,
    body: Result<Vec<JwtRule>, ()>,
) -> (ObjectKey, Option<Arc<Parsed<RequestAuthentication>>>) {
    let key = ObjectKey::new("a", name);
    let body = match body {
        Ok(rules) => Ok(RequestAuthentication {
            selector: None,
            targets: targets(),
            rules,
        }),
        Err(()) => Err(Invalid {
            field: "spec".into(),
            reason: "no".into(),
            targets: targets(),
        }),
    };
    let meta = Meta {
        key: key.clone(),
        ..Meta::default()
    };
    let parsed = Parsed {
        meta,
        body,
        notes: Vec::new(),
    };
    (key, Some(Arc::new(parsed)))
}

fn rule(issuer: &str, jwks: &str, uri: &str) -> JwtRule {
    JwtRule {
        issuer: issuer.into(),
        jwks: jwks.into(),
        jwks_uri: uri.into(),
        ..JwtRule::default()
    }
}

type Rows = Vec<(ObjectKey, Option<Arc<Parsed<RequestAuthentication>>>)>;

fn made(rows: Rows, fetched: Vec<(Str, Jwks)>, mesh: &MeshRow) -> Option<ChainFilter> {
    let mut authentications = Table::new("ra").with_index::<RequestAuthenticationByTarget>();
    authentications.commit(rows);
    let mut jwks = Table::new("jwks");
    jwks.commit(
        fetched
            .into_iter()
            .map(|(key, row)| (key, Some(Arc::new(row)))),
    );
    let policies = Table::new("ap").with_index::<PolicyByTarget>();
    let services = Table::new("services").with_index::<ServiceByHostname>();
    let tables = PolicyTables {
        policies: policies.view(),
        authentications: authentications.view(),
        jwks: jwks.view(),
        services: services.view(),
    };
    filter(&tables, &mut Reads::detached(), mesh, &[target()], None)
}

/// Issuer and keys of each provider.
fn shown(filter: Option<ChainFilter>) -> Vec<(Str, Str)> {
    let Some(ChainFilter::Jwt(JwtIr { providers })) = filter else {
        panic!("{filter:?}")
    };
    let one = |provider: JwtProviderIr| (provider.issuer, provider.jwks);
    providers.into_iter().map(one).collect()
}

fn mesh() -> MeshRow {
    MeshRow {
        nobody_jwks: set("nobody"),
        ..MeshRow::default()
    }
}

#[test]
fn rules_of_all_objects_are_sorted_by_issuer_and_have_keys_whatever_happens() {
    let failed = |keys: Option<Str>| Jwks {
        keys,
        failure: Some(JwksFailure {
            blocked: false,
            reason: "no answer".into(),
        }),
        nobody: set("own"),
    };
    let rows = vec![
        row(
            "x",
            Ok(vec![
                rule("c", "", "https://k/1"),
                rule("a", &set("in"), ""),
            ]),
        ),
        row(
            "y",
            Ok(vec![rule("b", "", "https://k/2"), rule("d", "", "")]),
        ),
        row(
            "z",
            Ok(vec![rule("e", "{}", ""), rule("f", "", "https://k/3")]),
        ),
    ];
    let fetched = vec![
        ("https://k/1".into(), failed(Some(set("old")))),
        ("https://k/2".into(), failed(None)),
        ("https://k/3".into(), failed(Some("{\"keys\":[]}".into()))),
    ];
    let expected = [
        ("a", "in"),
        ("b", "own"),
        ("c", "old"),
        ("d", "nobody"),
        ("e", "nobody"),
        ("f", "own"),
    ];
    let expected: Vec<(Str, Str)> = expected
        .into_iter()
        .map(|(issuer, kid)| (issuer.into(), set(kid)))
        .collect();
    assert_eq!(shown(made(rows, fetched, &mesh())), expected);
}

#[test]
fn what_cannot_be_read_refuses_every_token() {
    let rows = vec![row("x", Err(()))];
    assert_eq!(
        shown(made(rows, vec![], &mesh())),
        [("".into(), set("nobody"))]
    );
    assert_eq!(made(vec![], vec![], &mesh()), None);
    assert_eq!(made(vec![row("x", Ok(vec![]))], vec![], &mesh()), None);
}

#[test]
fn without_keys_of_nobody_everything_is_refused() {
    let rows = vec![row("x", Err(()))];
    let filter = made(rows, vec![], &MeshRow::default());
    let Some(ChainFilter::Rbac(rbac)) = filter else {
        panic!("{filter:?}")
    };
    assert_eq!(rbac.action, RbacAction::Deny);
    assert_eq!(rbac.rules.unwrap().len(), 1);
}

#[test]
fn one_object_has_so_many_key_sets_fetched_and_no_more() {
    use model::jwks::SOURCES_OF_OBJECT_COUNT_MAX;

    use crate::index::AuthenticationBySource;
    use wanted::{JwksWantedView, derive, sources};

    let uri = |i: usize| format!("https://k/{i:03}");
    let mut rules: Vec<JwtRule> = (0..SOURCES_OF_OBJECT_COUNT_MAX + 8)
        .map(|i| rule("i", "", &uri(i)))
        .collect();
    // Once more, and one that needs no fetch.
    rules.insert(0, rule("i", "", &uri(0)));
    rules.insert(0, rule("i", &set("in"), ""));
    let greedy = row("x", Ok(rules));
    let fetched: Vec<Str> = sources(greedy.1.as_ref().unwrap()).collect();
    let expected: Vec<String> = (0..SOURCES_OF_OBJECT_COUNT_MAX).map(uri).collect();
    assert_eq!(fetched, expected);

    let mut table = Table::new("ra").with_index::<AuthenticationBySource>();
    let last = uri(SOURCES_OF_OBJECT_COUNT_MAX);
    table.commit(vec![greedy]);
    let get = |table: &Table<_, _>, uri: &str| {
        let view = JwksWantedView {
            authentications: table.view(),
        };
        let out = derive(&uri.into(), &view, &mut Reads::detached());
        let (_, row) = out.rows.into_iter().next()?;
        Some(row.namespaces.iter().cloned().collect::<Vec<_>>())
    };
    assert_eq!(get(&table, &uri(0)), Some(vec!["a".into()]));
    assert_eq!(get(&table, &last), None);
    // Another object may want it.
    table.commit(vec![row("y", Ok(vec![rule("i", "", &last)]))]);
    assert_eq!(get(&table, &last), Some(vec!["a".into()]));
}
