#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::collections::BTreeMap;
use std::sync::Arc;

use flow::{Reads, Table};
use model::derived::MeshTraffic;
use model::input::*;
use model::{MeshRow, Meta, ObjectKey, Parsed};

use super::conditions;
use super::defects::{bad_matches, rule_defect};
use super::delegate::rules;
use super::destination::full_name;
use super::lookup::Applied;
use crate::index::VirtualServiceByNamespace;
use crate::ir::{ClaimCondition, HeaderCondition, RoutePath, RouteValue};

#[allow(clippy::unnecessary_wraps, reason = "as fields take it")]
fn exact(text: &str) -> Option<StringMatch> {
    Some(StringMatch::Exact(text.into()))
}

#[allow(clippy::unnecessary_wraps, reason = "as fields take it")]
fn prefix(text: &str) -> Option<StringMatch> {
    Some(StringMatch::Prefix(text.into()))
}

#[allow(clippy::unnecessary_wraps, reason = "as fields take it")]
fn regex(text: &str) -> Option<StringMatch> {
    Some(StringMatch::Regex(text.into()))
}

fn uri(uri: Option<StringMatch>) -> VirtualMatch {
    VirtualMatch {
        uri,
        ..VirtualMatch::default()
    }
}

/// What becomes of a root's matches and a leaf's: the merged ones, or `None`.
fn merged(root: Vec<VirtualMatch>, leaf: Vec<VirtualMatch>) -> Option<Vec<VirtualMatch>> {
    let (outer, inner) = (ObjectKey::new("ns", "root"), ObjectKey::new("ns", "leaf"));
    let row = |key: &ObjectKey, spec: VirtualService| {
        let meta = Meta {
            key: key.clone(),
            ..Meta::default()
        };
        Some(Arc::new(Parsed {
            meta,
            body: Ok(spec),
            notes: Vec::new(),
        }))
    };
    let http = |matches, delegate| VirtualHttp {
        matches,
        delegate,
        ..VirtualHttp::default()
    };
    let root = VirtualService {
        hosts: vec!["web".into()],
        http: vec![http(root, Some(("".into(), "leaf".into())))],
        ..VirtualService::default()
    };
    let leaf = VirtualService {
        http: vec![http(leaf, None)],
        ..VirtualService::default()
    };
    let mut table = Table::new("virtual-services").with_index::<VirtualServiceByNamespace>();
    table.commit(BTreeMap::from([
        (outer.clone(), row(&outer, root.clone())),
        (inner.clone(), row(&inner, leaf)),
    ]));
    let applied = Applied {
        key: &outer,
        spec: &root,
    };
    let mesh = MeshRow {
        traffic: MeshTraffic::default(),
        ..MeshRow::default()
    };
    let (rules, lost) = rules(&applied, table.view(), &mut Reads::detached(), &mesh);
    assert_eq!(rules.is_empty(), !lost.is_empty());
    rules.first().map(|rule| rule.http.matches.clone())
}

#[test]
fn matches_of_delegates_are_narrowed_or_contradict() {
    for (root, leaf, expected) in [
        (prefix("/a"), prefix("/a/b"), Some(prefix("/a/b"))),
        (prefix("/a"), exact("/a/b"), Some(exact("/a/b"))),
        (prefix("/a"), None, Some(prefix("/a"))),
        (None, regex("/x"), Some(regex("/x"))),
        (exact("/a"), exact("/a"), Some(exact("/a"))),
        (prefix("/a"), prefix("/b"), None),
        (exact("/a"), prefix("/a"), None),
        (exact("/a"), exact("/b"), None),
        (regex("/a"), exact("/a"), None),
        (prefix("/a"), regex("/a"), None),
    ] {
        let found = merged(vec![uri(root.clone())], vec![uri(leaf.clone())]);
        assert_eq!(
            found,
            expected.map(|expected| vec![uri(expected)]),
            "{root:?} {leaf:?}"
        );
    }
    assert_eq!(merged(vec![], vec![]), Some(vec![]));
    let (a, b) = (uri(prefix("/a")), uri(prefix("/a/b")));
    assert_eq!(
        merged(vec![a.clone(), b.clone()], vec![b.clone()]),
        Some(vec![b.clone(), b.clone()]),
        "one for each that it fits"
    );
    assert_eq!(
        merged(vec![b], vec![a]),
        None,
        "a wider prefix contradicts a narrower root"
    );
}

#[test]
fn other_conditions_of_delegates_are_joined_or_contradict() {
    let headers = |list: &[(&str, &str)]| VirtualMatch {
        headers: list
            .iter()
            .map(|(name, value)| ((*name).into(), exact(value)))
            .collect(),
        ..VirtualMatch::default()
    };
    assert_eq!(
        merged(
            vec![headers(&[("a", "1"), ("b", "2")])],
            vec![headers(&[("b", "2"), ("c", "3")])]
        ),
        Some(vec![headers(&[("a", "1"), ("b", "2"), ("c", "3")])])
    );
    assert_eq!(
        merged(vec![headers(&[("a", "1")])], vec![headers(&[("a", "2")])]),
        None
    );
    let port = |port: u16| VirtualMatch {
        port: Some(port),
        ..VirtualMatch::default()
    };
    assert_eq!(merged(vec![port(80)], vec![port(81)]), None);
    let ns = |ns: &str| VirtualMatch {
        source_namespace: ns.into(),
        ..VirtualMatch::default()
    };
    assert_eq!(merged(vec![ns("a")], vec![ns("")]), None);
    assert_eq!(merged(vec![ns("")], vec![ns("a")]), Some(vec![ns("a")]));
    let gateways = |list: &[&str]| VirtualMatch {
        gateways: list.iter().map(|name| (*name).into()).collect(),
        ..VirtualMatch::default()
    };
    assert_eq!(
        merged(vec![gateways(&["mesh"])], vec![gateways(&["edge"])]),
        None
    );
}

#[test]
fn matches_become_conditions_in_a_fixed_order() {
    let m = VirtualMatch {
        uri: prefix("/"),
        method: regex("*"),
        scheme: exact("http"),
        headers: vec![
            ("X-B".into(), regex("*")),
            ("@request.auth.claims[a][b]".into(), exact("v")),
        ],
        without_headers: vec![("x-a".into(), prefix("")), ("x-c".into(), exact(""))],
        ..VirtualMatch::default()
    };
    let header = |name: &str, value, invert| HeaderCondition {
        name: name.into(),
        value,
        invert,
    };
    assert_eq!(conditions::path(&m), RoutePath::Any);
    assert_eq!(
        conditions::headers(&m),
        [
            header("x-a", RouteValue::Present, true),
            header("x-b", RouteValue::Present, false),
            header("x-c", RouteValue::Exact("".into()), true),
            header(":method", RouteValue::Present, false),
            header(":scheme", RouteValue::Exact("http".into()), false),
        ]
    );
    assert_eq!(
        conditions::claims(&m),
        [ClaimCondition {
            path: vec!["a".into(), "b".into()],
            value: RouteValue::Exact("v".into()),
            invert: false,
        }]
    );
}

#[test]
fn what_envoy_would_refuse_is_found() {
    let spec = |m: VirtualMatch| VirtualService {
        http: vec![VirtualHttp {
            matches: vec![m],
            ..VirtualHttp::default()
        }],
        ..VirtualService::default()
    };
    assert_eq!(bad_matches(&spec(uri(regex("/a.*")))), []);
    let field = |m| bad_matches(&spec(m)).remove(0).field;
    assert_eq!(field(uri(regex("("))), "spec.http[0].match[0].uri.regex");
    assert_eq!(field(uri(regex("*"))), "spec.http[0].match[0].uri.regex");
    let header = |value| VirtualMatch {
        headers: vec![("x".into(), value)],
        ..VirtualMatch::default()
    };
    assert_eq!(bad_matches(&spec(header(regex("*")))), []);
    assert_eq!(
        field(header(regex("(?=a)"))),
        "spec.http[0].match[0].headers.x.regex"
    );
    let rewrite = |pattern: &str, to: &str| VirtualHttp {
        rewrite: Some(VirtualRewrite {
            uri_regex: Some((pattern.into(), to.into())),
            ..VirtualRewrite::default()
        }),
        ..VirtualHttp::default()
    };
    assert!(rule_defect(&rewrite("^/(a)(?:b)(.*)$", r"/\2\\\0")).is_none());
    for to in [r"/\3", r"/\x", "/\\"] {
        assert!(rule_defect(&rewrite("^/(a)(.*)$", to)).is_some(), "{to}");
    }
}

#[test]
fn short_hosts_belong_to_the_namespace_that_names_them() {
    for (host, expected) in [
        ("web", "web.ns.svc.cluster.local"),
        ("web.other", "web.other"),
        ("*", "*"),
        ("*.example.com", "*.example.com"),
    ] {
        assert_eq!(full_name(host, "ns", "cluster.local"), expected);
    }
}
