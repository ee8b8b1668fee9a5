use model::SpiffeId;
use proto::security::{Group, Rules};

use super::*;

fn exact(text: &str) -> StringMatch {
    StringMatch {
        match_type: Some(MatchType::Exact(text.to_owned())),
    }
}

fn policy(action: Action, groups: Vec<Group>) -> Authorization {
    Authorization {
        name: "p".into(),
        namespace: "app".into(),
        scope: Scope::WorkloadSelector as i32,
        action: action as i32,
        groups,
        ..Authorization::default()
    }
}

fn group(matches: Vec<Match>) -> Group {
    Group {
        rules: vec![Rules { matches }],
    }
}

fn from(principal: &str) -> Match {
    Match {
        principals: vec![exact(principal)],
        ..Match::default()
    }
}

fn verdict(policies: Vec<Authorization>) -> bool {
    let mut state = MeshState::default();
    let mut workload = Workload {
        namespace: "app".into(),
        ..Workload::default()
    };
    for (i, policy) in policies.into_iter().enumerate() {
        let name = format!("app/p{i}");
        workload.authorization_policies.push(name.clone());
        state.policies.insert(name, policy);
    }
    workload
        .authorization_policies
        .push("app/never-came".into());
    let connection = L4Connection {
        peer: SpiffeId::new("cluster.local", "app", "client"),
        source: "10.1.0.7".parse().unwrap(),
        destination: "10.2.0.9:8080".parse().unwrap(),
    };
    allows(&state, &workload, &connection)
}

#[test]
fn policy_is_evaluated_as_ztunnel_does() {
    use Action::{Allow, Deny};
    let client = || from("cluster.local/ns/app/sa/client");
    let other = || from("cluster.local/ns/app/sa/other");
    let net = |bytes: [u8; 4], length| Address {
        address: bytes.to_vec().into(),
        length,
    };
    let cases: Vec<(&str, Vec<Authorization>, bool)> = vec![
        ("no policy", vec![], true),
        ("allow without groups", vec![policy(Allow, vec![])], false),
        ("deny without groups", vec![policy(Deny, vec![])], true),
        (
            "a group without rules matches",
            vec![policy(Deny, vec![Group::default()])],
            false,
        ),
        (
            "a rule without matches matches",
            vec![policy(Deny, vec![group(vec![])])],
            false,
        ),
        (
            "a match without fields never matches",
            vec![policy(Allow, vec![group(vec![Match::default()])])],
            false,
        ),
        (
            "allow for the peer",
            vec![policy(Allow, vec![group(vec![client()])])],
            true,
        ),
        (
            "allow for another",
            vec![policy(Allow, vec![group(vec![other()])])],
            false,
        ),
        (
            "matches are alternatives",
            vec![policy(Allow, vec![group(vec![other(), client()])])],
            true,
        ),
        (
            "rules all bind",
            vec![policy(
                Allow,
                vec![Group {
                    rules: vec![
                        Rules {
                            matches: vec![client()],
                        },
                        Rules {
                            matches: vec![other()],
                        },
                    ],
                }],
            )],
            false,
        ),
        (
            "groups are alternatives",
            vec![policy(
                Allow,
                vec![group(vec![other()]), group(vec![client()])],
            )],
            true,
        ),
        (
            "deny beats allow",
            vec![
                policy(Allow, vec![group(vec![client()])]),
                policy(Deny, vec![group(vec![client()])]),
            ],
            false,
        ),
        (
            "negation",
            vec![policy(
                Allow,
                vec![group(vec![Match {
                    not_principals: vec![exact("cluster.local/ns/app/sa/client")],
                    ..Match::default()
                }])],
            )],
            false,
        ),
        (
            "target port and source range",
            vec![policy(
                Allow,
                vec![group(vec![Match {
                    destination_ports: vec![8080],
                    source_ips: vec![net([10, 1, 0, 0], 16)],
                    ..Match::default()
                }])],
            )],
            true,
        ),
        (
            "another source range",
            vec![policy(
                Allow,
                vec![group(vec![Match {
                    source_ips: vec![net([10, 9, 0, 0], 16)],
                    ..Match::default()
                }])],
            )],
            false,
        ),
        (
            "dry run does not count",
            vec![Authorization {
                dry_run: true,
                ..policy(Allow, vec![])
            }],
            true,
        ),
    ];
    for (claim, policies, expected) in cases {
        assert_eq!(verdict(policies), expected, "{claim}");
    }
}

#[test]
fn scope_binds_without_the_workload_naming_the_policy() {
    let connection = L4Connection {
        peer: SpiffeId::new("cluster.local", "app", "client"),
        source: "10.1.0.7".parse().unwrap(),
        destination: "10.2.0.9:8080".parse().unwrap(),
    };
    let workload = Workload {
        namespace: "app".into(),
        ..Workload::default()
    };
    for (scope, ns, expected) in [
        (Scope::Global, "istio-system", false),
        (Scope::Namespace, "app", false),
        (Scope::Namespace, "elsewhere", true),
        (Scope::WorkloadSelector, "app", true),
    ] {
        let mut state = MeshState::default();
        let closed = Authorization {
            scope: scope as i32,
            namespace: ns.into(),
            ..policy(Action::Allow, vec![])
        };
        state.policies.insert(format!("{ns}/p"), closed);
        assert_eq!(
            allows(&state, &workload, &connection),
            expected,
            "{scope:?} in {ns}"
        );
    }
}
