#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use model::Meta;
use model::input::{AuthzOperation, AuthzSource, Values};

use super::*;
use crate::ir::{ChainFilter, Fact, RbacIr, StrMatch};

fn mesh() -> MeshRow {
    MeshRow {
        trust_domain: "td1".into(),
        trust_domain_aliases: vec!["td2".into()],
        ..MeshRow::default()
    }
}

fn values(list: &[&str]) -> Values {
    Values {
        values: list.iter().map(|v| Str::from(*v)).collect(),
        not_values: Vec::new(),
    }
}

fn parsed(name: &str, policy: AuthorizationPolicy) -> Arc<Parsed<AuthorizationPolicy>> {
    let meta = Meta {
        key: ObjectKey::new("ns1", name),
        ..Default::default()
    };
    Arc::new(Parsed {
        meta,
        body: Ok(policy),
        notes: Vec::new(),
    })
}

fn from(source: AuthzSource) -> AuthzRule {
    AuthzRule {
        from: vec![source],
        ..Default::default()
    }
}

fn to(operation: AuthzOperation) -> AuthzRule {
    AuthzRule {
        to: vec![operation],
        ..Default::default()
    }
}

fn paths(list: &[&str]) -> AuthzOperation {
    AuthzOperation {
        paths: values(list),
        ..Default::default()
    }
}

fn policy(action: Action, rules: Vec<AuthzRule>) -> AuthorizationPolicy {
    AuthorizationPolicy {
        action,
        rules,
        ..Default::default()
    }
}

/// A condition in one line.
fn show(expr: &Expr) -> String {
    let list = |all: &[Expr], by: &str| {
        let shown: Vec<String> = all.iter().map(show).collect();
        format!("({})", shown.join(by))
    };
    match expr {
        Expr::AllOf(all) if all.is_empty() => "any".into(),
        Expr::AnyOf(all) if all.is_empty() => "never".into(),
        Expr::AllOf(all) => list(all, " & "),
        Expr::AnyOf(all) => list(all, " | "),
        Expr::Not(inner) => format!("!{}", show(inner)),
        Expr::Is(Fact::Path(m)) => format!("path{}", text(m)),
        Expr::Is(Fact::PathTemplate(t)) => format!("template={t}"),
        Expr::Is(Fact::Header(name, m, case)) => {
            format!("{name}{}{}", if *case { "~" } else { "" }, text(m))
        }
        Expr::Is(Fact::Port(port)) => format!("port={port}"),
        Expr::Is(Fact::DestinationIp(net)) => format!("dst={net}"),
        Expr::Is(Fact::Sni(m)) => format!("sni{}", text(m)),
        Expr::Is(Fact::Identity(m)) => format!("id{}", text(m)),
        Expr::Is(Fact::SourceIp(net)) => format!("src={net}"),
        Expr::Is(Fact::ForwardedIp(net)) => format!("client={net}"),
        Expr::Is(Fact::Claim(path, m)) => format!("claim[{}]{}", path.join("."), texts(m)),
        Expr::Is(Fact::ClaimOrItem(path, m)) => format!("item[{}]{}", path.join("."), texts(m)),
        Expr::Is(Fact::Metadata(filter, key, m, list)) => {
            format!(
                "{}[{filter}.{key}]{}",
                if *list { "items" } else { "meta" },
                texts(m)
            )
        }
    }
}

fn texts(all: &[StrMatch]) -> String {
    all.iter().map(text).collect::<Vec<_>>().join(",")
}

/// The RBAC filters among them.
fn rbac(filters: &[ChainFilter]) -> Vec<&RbacIr> {
    let mut all = Vec::new();
    for filter in filters {
        if let ChainFilter::Rbac(rbac) = filter {
            all.push(rbac);
        }
    }
    all
}

fn text(m: &StrMatch) -> String {
    match m {
        StrMatch::Exact(text) => format!("={text}"),
        StrMatch::Prefix(text) => format!("^{text}"),
        StrMatch::Suffix(text) => format!("${text}"),
        StrMatch::Contains(text) => format!("?{text}"),
        StrMatch::Present => "+".into(),
    }
}

/// The filters of policies whose authorizers nobody knows.
fn compile(
    policies: &[&Arc<Parsed<AuthorizationPolicy>>],
    mesh: &MeshRow,
    layer: Layer,
) -> Vec<ChainFilter> {
    let unknown = |name| (name, Err("unknown".to_owned()));
    let attached = Attached {
        policies: policies.to_vec(),
        authorizers: providers(policies).map(unknown).collect(),
        tokens: None,
        is_ingress: false,
    };
    attached.filters(mesh, Place::of(layer)).0
}

/// The rules of the only filter: key, permissions, principals.
fn rules(action: Action, rules: Vec<AuthzRule>, layer: Layer) -> Vec<String> {
    let policy = parsed("p", policy(action, rules));
    let filters = compile(&[&policy], &mesh(), layer);
    let [filter] = rbac(&filters)[..] else {
        panic!("{filters:?}")
    };
    let shown = |list: &[Expr]| list.iter().map(show).collect::<Vec<_>>().join(" or ");
    let rules = filter.rules.as_ref().unwrap();
    rules
        .values()
        .map(|r| format!("{} / {}", shown(&r.permissions), shown(&r.principals)))
        .collect()
}

#[test]
fn sources_become_typed_matchers() {
    let source = |field: fn(&mut AuthzSource) -> &mut Values, list: &[&str]| {
        let mut source = AuthzSource::default();
        *field(&mut source) = values(list);
        from(source)
    };
    for (rule, expected) in [
        (source(|s| &mut s.principals, &["*"]), "(id^spiffe://)"),
        (source(|s| &mut s.principals, &["*/sa/x"]), "(id$/sa/x)"),
        (
            source(|s| &mut s.principals, &["td9/ns/*"]),
            "(id^spiffe://td9/ns/)",
        ),
        (
            source(|s| &mut s.principals, &["td9/ns/a/sa/b"]),
            "(id=spiffe://td9/ns/a/sa/b)",
        ),
        (
            source(|s| &mut s.principals, &["cluster.local/ns/a/sa/b"]),
            "(id=spiffe://td1/ns/a/sa/b | id=spiffe://td2/ns/a/sa/b)",
        ),
        (
            source(|s| &mut s.principals, &["td1/ns/a/sa/*"]),
            "(id^spiffe://td1/ns/a/sa/ | id^spiffe://td2/ns/a/sa/)",
        ),
        (
            source(|s| &mut s.namespaces, &["a"]),
            "(id^spiffe://td1/ns/a/ | id^spiffe://td2/ns/a/)",
        ),
        (
            source(|s| &mut s.namespaces, &["a*"]),
            "(id^spiffe://td1/ns/a | id^spiffe://td2/ns/a)",
        ),
        (
            source(|s| &mut s.namespaces, &["*z"]),
            "((id^spiffe://td1/ns/ & id?z/sa/) | (id^spiffe://td2/ns/ & id?z/sa/))",
        ),
        (
            source(|s| &mut s.service_accounts, &["b", "x/c"]),
            "(id=spiffe://td1/ns/ns1/sa/b | id=spiffe://td2/ns/ns1/sa/b | id=spiffe://td1/ns/x/sa/c | id=spiffe://td2/ns/x/sa/c)",
        ),
        (
            source(|s| &mut s.trust_domains, &["td1"]),
            "(id^spiffe://td1/ | id^spiffe://td2/)",
        ),
        (
            source(|s| &mut s.trust_domains, &["other"]),
            "(id^spiffe://other/)",
        ),
        (
            source(|s| &mut s.trust_domains, &["*2"]),
            "(id^spiffe://td2/)",
        ),
        (
            source(|s| &mut s.ip_blocks, &["10.0.0.0/8", "fd00::1"]),
            "(src=10.0.0.0/8 | src=fd00::1/128)",
        ),
        (
            source(|s| &mut s.remote_ip_blocks, &["10.0.0.1"]),
            "(src=10.0.0.1/32)",
        ),
    ] {
        let expected = format!("any / ({expected})");
        assert_eq!(rules(Action::Allow, vec![rule], Layer::Http), [expected]);
    }
}

#[test]
fn operations_become_typed_matchers() {
    let operation = AuthzOperation {
        hosts: values(&["*", "Example.com:*"]),
        methods: Values {
            values: Vec::new(),
            not_values: vec!["GET".into()],
        },
        paths: values(&["*", "/a*", "*.js", "/x/{*}/y/{**}"]),
        ports: values(&["80"]),
    };
    assert_eq!(
        rules(Action::Allow, vec![to(operation)], Layer::Http),
        [
            "((:authority~+ | :authority~^Example.com:) & !(:method=GET) & (path+ | path^/a | path$.js | template=/x/*/y/**) & (port=80)) / any"
        ]
    );
}

#[test]
fn when_joins_every_permission_or_every_principal() {
    let rule = AuthzRule {
        to: vec![paths(&["/a"]), paths(&["/b"])],
        from: Vec::new(),
        when: vec![
            ("destination.port".into(), values(&["80"])),
            ("connection.sni".into(), values(&["*.x"])),
            ("request.headers[X-A]".into(), values(&["1"])),
        ],
    };
    assert_eq!(
        rules(Action::Allow, vec![rule], Layer::Http),
        ["((path=/a) & (port=80) & (sni$.x)) or ((path=/b) & (port=80) & (sni$.x)) / ((x-a=1))"]
    );
}

#[test]
fn what_cannot_be_expressed_drops_an_allow_rule_and_widens_a_deny_rule() {
    let jwt = AuthzSource {
        request_principals: values(&["i/s"]),
        ..Default::default()
    };
    let odd_ns = AuthzSource {
        namespaces: values(&["a*b*"]),
        ..Default::default()
    };
    let odd_ip = AuthzSource {
        ip_blocks: values(&["10.0.0.1", "x"]),
        ..Default::default()
    };
    let claim = AuthzRule {
        when: vec![("request.auth.claims[a]".into(), values(&["b"]))],
        ..Default::default()
    };
    let http = || to(paths(&["/a"]));
    for (rule, layer, deny) in [
        (from(jwt), Layer::Tcp, "any / any"),
        (from(odd_ns), Layer::Http, "any / any"),
        (from(odd_ip), Layer::Http, "any / any"),
        (claim, Layer::Tcp, "any / any"),
        (to(paths(&["/a/{*}x"])), Layer::Http, "any / any"),
        (http(), Layer::Tcp, "any / any"),
    ] {
        assert_eq!(
            rules(Action::Allow, vec![rule.clone()], layer),
            Vec::<String>::new()
        );
        assert_eq!(rules(Action::Deny, vec![rule], layer), [deny]);
    }
}

#[test]
fn tokens_are_matched_by_issuer_subject_and_claims() {
    let principal = |value: &str| AuthzSource {
        request_principals: values(&[value]),
        ..Default::default()
    };
    for (value, iss, sub) in [
        ("*", "+", "+"),
        ("*/s", "+", "=s"),
        ("*x/s", "$x", "=s"),
        ("*s", "+", "$s"),
        ("i/*", "=i", "+"),
        ("https://i/p*", "=https://i", "^p"),
        ("i*", "^i", "+"),
        ("i/s", "=i", "=s"),
        ("x", "=x", "="),
        ("https://i//*", "=https://i/", "+"),
    ] {
        let expected = format!("any / ((claim[iss]{iss} & claim[sub]{sub}))");
        let found = rules(Action::Allow, vec![from(principal(value))], Layer::Http);
        assert_eq!(found, [expected], "{value}");
    }
    let when = |key: &str, list: Values| AuthzRule {
        when: vec![(key.into(), list)],
        ..Default::default()
    };
    let not = |list: &[&str]| Values {
        values: Vec::new(),
        not_values: values(list).values,
    };
    for (rule, expected) in [
        (
            when("request.auth.claims[a][b]", values(&["x", "y*"])),
            "any / (item[a.b]=x,^y)",
        ),
        (
            when("request.auth.audiences", not(&["*"])),
            "any / (!item[aud]+)",
        ),
        (
            when("request.auth.presenter", values(&["p"])),
            "any / (item[azp]=p)",
        ),
        (
            when("request.auth.principal", not(&["i/s", "*"])),
            "any / (!((claim[iss]=i & claim[sub]=s) | (claim[iss]+ & claim[sub]+)))",
        ),
        (
            when(
                "experimental.envoy.filters.network.mysql_proxy[db.t]",
                values(&["[x]", "[y*]"]),
            ),
            "(items[envoy.filters.network.mysql_proxy.db.t]=x,^y) / any",
        ),
        (
            when("experimental.envoy.filters.a.b[k]", values(&["[x]", "y"])),
            "((items[envoy.filters.a.b.k]=x | meta[envoy.filters.a.b.k]=y)) / any",
        ),
    ] {
        let found = rules(Action::Allow, vec![rule], Layer::Http);
        assert_eq!(found, [expected]);
    }
}

#[test]
fn a_template_that_is_too_long_is_no_condition() {
    let of = |length: usize| paths(&[&format!("/{{*}}/{}", "a".repeat(length))]);
    let one = |action, length| rules(action, vec![to(of(length))], Layer::Http);
    for action in [Action::Allow, Action::Deny] {
        let found = one(action, 253);
        assert!(found[0].contains("template=/*/a"), "{found:?}");
    }
    let none: [String; 0] = [];
    assert_eq!(one(Action::Allow, 254), none);
    assert_eq!(one(Action::Deny, 254), ["any / any"]);
}

#[test]
fn a_star_inside_a_namespace_excepts_what_would_use_a_letter_twice() {
    let source = AuthzSource {
        namespaces: values(&["te*-a"]),
        ..Default::default()
    };
    let one = MeshRow {
        trust_domain_aliases: Vec::new(),
        ..mesh()
    };
    let show_of = |value: &str| {
        let list = identity::namespace(value, &one).unwrap();
        list.iter().map(show).collect::<Vec<_>>().join(" or ")
    };
    assert_eq!(show_of("te*-a"), "(id^spiffe://td1/ns/te & id?-a/sa/)");
    assert_eq!(
        show_of("ab*bc"),
        "(id^spiffe://td1/ns/ab & id?bc/sa/ & !id^spiffe://td1/ns/abc/sa/)"
    );
    let found = rules(Action::Deny, vec![from(source)], Layer::Tcp);
    assert!(found[0].contains("id^spiffe://td2/ns/te"), "{found:?}");
    // `/ns/sa/sa/x` holds `ns/sa/`, though no namespace ends like that.
    for end in ["ns", "s"] {
        assert_eq!(
            show_of(&format!("*{end}")),
            format!("(id^spiffe://td1/ns/ & id?{end}/sa/ & !id^spiffe://td1/ns/sa/)")
        );
    }
    assert_eq!(
        show_of("s*ns"),
        "(id^spiffe://td1/ns/s & id?ns/sa/ & !id^spiffe://td1/ns/sa/)"
    );
    assert_eq!(
        show_of("s*s"),
        "(id^spiffe://td1/ns/s & id?s/sa/ & !id^spiffe://td1/ns/sa/ & !id^spiffe://td1/ns/s/sa/)"
    );
    for other in ["*a", "*sa", "*-ns"] {
        assert!(!show_of(other).contains('!'), "{other}");
    }
}

#[test]
fn a_policy_that_cannot_be_read_refuses_everything_where_it_is_attached() {
    let mut broken = Parsed::clone(&parsed("p", AuthorizationPolicy::default()));
    broken.body = Err(model::object::Invalid {
        field: "spec".into(),
        reason: "no".into(),
        targets: Vec::new(),
    });
    let broken = Arc::new(broken);
    let fine = parsed("q", policy(Action::Deny, vec![AuthzRule::default()]));
    for layer in [Layer::Http, Layer::Tcp] {
        let filters = compile(&[&broken, &fine], &mesh(), layer);
        let [_, allow] = rbac(&filters)[..] else {
            panic!("{filters:?}")
        };
        assert_eq!(allow.action, RbacAction::Allow);
        let rule = &allow.rules.as_ref().unwrap()["ns[ns1]-policy[p]-rule[0]"];
        assert_eq!(rule.principals, [Expr::never()]);
    }
}

#[test]
fn empty_policies_refuse_all_or_nothing_and_an_empty_rule_matches_all() {
    assert_eq!(rules(Action::Allow, vec![], Layer::Http), ["never / never"]);
    assert_eq!(rules(Action::Deny, vec![], Layer::Http), ["never / never"]);
    assert_eq!(
        rules(Action::Allow, vec![AuthzRule::default()], Layer::Http),
        ["any / any"]
    );
}

#[test]
fn filters_come_in_order_and_dry_run_never_enforces() {
    let one = |name: &str, action, dry_run| {
        let rules = vec![AuthzRule::default()];
        parsed(
            name,
            AuthorizationPolicy {
                dry_run,
                ..policy(action, rules)
            },
        )
    };
    let mut custom = policy(Action::Custom, vec![AuthzRule::default()]);
    custom.provider = Some("opa".into());
    let all = [
        one("a", Action::Allow, true),
        one("d", Action::Deny, false),
        one("e", Action::Deny, true),
        one("l", Action::Audit, false),
        parsed("c", custom),
    ];
    let filters = compile(&all.iter().collect::<Vec<_>>(), &mesh(), Layer::Http);
    let keys = |map: &Option<BTreeMap<Str, RbacRuleIr>>| -> Option<Vec<String>> {
        map.as_ref()
            .map(|map| map.keys().map(|key| key.to_string()).collect())
    };
    let shown: Vec<_> = rbac(&filters)
        .iter()
        .map(|f| (f.action, keys(&f.rules), keys(&f.shadow)))
        .collect();
    let key = |name: &str| Some(vec![format!("ns[ns1]-policy[{name}]-rule[0]")]);
    let bad = "istio-ext-authz-opa-ns[ns1]-policy[c]-rule[0]-deny-due-to-bad-CUSTOM-action";
    let expected = [
        (RbacAction::Deny, Some(vec![bad.to_owned()]), None),
        (RbacAction::Log, key("l"), None),
        (RbacAction::Deny, key("d"), key("e")),
        (RbacAction::Allow, None, key("a")),
    ];
    assert_eq!(shown, expected);
}

#[test]
fn an_allow_whose_rules_all_fell_away_still_refuses() {
    let policy = parsed("p", policy(Action::Allow, vec![to(paths(&["/a"]))]));
    let filters = compile(&[&policy], &mesh(), Layer::Tcp);
    let expected = RbacIr {
        action: RbacAction::Allow,
        rules: Some(BTreeMap::new()),
        shadow: None,
    };
    assert_eq!(filters, [ChainFilter::Rbac(expected)]);
}
