//! Answers that are not what they seem: nothing is taken away for them, and nothing freezes.

use super::*;

/// A group that serves kinds (each with its plural) in one version.
fn group(path: &str, name: &str, version: &str, kinds: &[(&str, &str)]) -> Option<Reply> {
    let group_version = format!("{name}/{version}");
    if path == format!("/apis/{name}") {
        let version = json!({"groupVersion": group_version, "version": version});
        let body = json!({"kind": "APIGroup", "apiVersion": "v1", "name": name,
            "versions": [version], "preferredVersion": version});
        return Some(Reply::Json(200, body));
    }
    if path != format!("/apis/{group_version}") {
        return None;
    }
    let of = |(kind, plural): &(&str, &str)| {
        json!({"name": plural, "singularName": "", "namespaced": true, "kind": kind,
            "verbs": ["list", "watch"]})
    };
    let resources: Vec<Value> = kinds.iter().map(of).collect();
    let body = json!({"kind": "APIResourceList", "groupVersion": group_version,
        "resources": resources});
    Some(Reply::Json(200, body))
}

const POLICY: Kind = Kind::AuthorizationPolicy;
const POLICIES: &[(&str, &str)] = &[("AuthorizationPolicy", "authorizationpolicies")];

fn policies(path: &str, version: &str) -> Option<Reply> {
    let found = group(path, "security.istio.io", version, POLICIES);
    let list_path = format!("/apis/security.istio.io/{version}/authorizationpolicies?");
    found.or_else(|| {
        let policy = json!({"metadata": {"name": "p", "namespace": "default",
            "resourceVersion": "5"}, "spec": {}});
        (path.starts_with(&list_path) && !is_watch(path)).then(|| list("9", None, &[policy]))
    })
}

#[tokio::test(start_paused = true)]
async fn a_version_that_is_not_known_takes_nothing_and_is_told() {
    let version = Arc::new(Mutex::new("v1"));
    let now = version.clone();
    let mut world = World::start(move |path, _| {
        let version = *now.lock();
        policies(path, version).unwrap_or_else(|| usual(path))
    });
    world
        .until("the policy", |world| world.names(POLICY) == ["p"])
        .await;
    *version.lock() = "v7";
    world
        .until("the finding", |world| {
            world.codes() == [("kube-version-unknown", "AuthorizationPolicy")]
        })
        .await;
    world.pass(Duration::from_secs(600)).await;
    assert_eq!(world.names(POLICY), ["p"]);
    assert_eq!(world.state(POLICY), Some(KindState::Failing));
    let finding = &world.findings[0];
    let message = &finding.message;
    assert!(message.contains("as v7 only") && message.contains("stay in effect"));
    assert!(finding.fix.contains("v1, v1beta1"), "{}", finding.fix);
    *version.lock() = "v1beta1";
    world
        .until("that it is watched", |world| {
            world.state(POLICY) == Some(KindState::Watching) && world.findings.is_empty()
        })
        .await;
    assert_eq!(world.names(POLICY), ["p"]);
}

#[tokio::test(start_paused = true)]
async fn serving_waits_for_what_it_needs_in_a_version_that_is_known() {
    let grants = [("ReferenceGrant", "referencegrants")];
    let mut world = World::start(move |path, _| {
        policies(path, "v7")
            .or_else(|| group(path, "gateway.networking.k8s.io", "v7", &grants))
            .unwrap_or_else(|| usual(path))
    });
    world
        .until("both findings", |world| {
            let all = ["AuthorizationPolicy", "ReferenceGrant"];
            world.codes() == all.map(|kind| ("kube-version-unknown", kind))
        })
        .await;
    world.pass(Duration::from_secs(600)).await;
    assert_eq!(world.resyncs(POLICY), 0);
    assert_eq!(world.resyncs(Kind::ReferenceGrant), 1, "it is empty");
    assert_eq!(world.resyncs(Kind::PeerAuthentication), 1, "it is absent");
}

#[tokio::test(start_paused = true)]
async fn serving_waits_for_routes_that_are_refused() {
    let routes = [("HTTPRoute", "httproutes")];
    let mut world = World::start(move |path, _| {
        if path.contains("/httproutes?") {
            return status(403);
        }
        let found = group(path, "gateway.networking.k8s.io", "v1", &routes);
        found.unwrap_or_else(|| usual(path))
    });
    world
        .until("the finding", |world| {
            world.codes() == [("kube-forbidden", "HTTPRoute")]
        })
        .await;
    world.pass(Duration::from_secs(60)).await;
    assert_eq!(world.resyncs(Kind::HttpRoute), 0);
    assert_eq!(world.resyncs(Kind::TcpRoute), 1);
}

#[tokio::test(start_paused = true)]
async fn the_first_absence_is_doubted_too() {
    let mut world = World::start(|path, before| match path {
        // Of a server that has not read its definitions yet.
        "/apis/security.istio.io" if before == 0 => status(404),
        path => policies(path, "v1").unwrap_or_else(|| usual(path)),
    });
    world
        .until("the first list", |world| world.resyncs(POLICY) == 1)
        .await;
    assert_eq!(world.names(POLICY), ["p"]);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_is_never_let_go_on_is_listed_anew() {
    let ended = json!({"type": "ERROR", "object": {"kind": "Status", "status": "Failure",
        "reason": "InternalError", "message": "scripted", "code": 500}});
    let is_services = |path: &str| path.starts_with("/api/v1/services?");
    let mut world = World::start(move |path, before| {
        let is_old = path.contains("resourceVersion=10");
        match path {
            path if is_pods(path) && is_watch(path) && is_old => status(504),
            path if path.starts_with("/api/v1/nodes?") && is_watch(path) && before < 8 => {
                status(429)
            }
            path if is_services(path) && is_watch(path) && is_old => {
                Reply::Lines(vec![ended.clone()])
            }
            path if (is_pods(path) || is_services(path)) && !is_watch(path) => {
                let items = [pod("a", "2"), pod("b", "3")];
                match before {
                    0 => list("10", None, &items[..1]),
                    _ => list("4", None, &items[1..]),
                }
            }
            path => usual(path),
        }
    });
    let pods = "/api/v1/pods?&watch=true";
    world
        .until("that pods are watched", |world| {
            let is_watched = world.state(Kind::Pod) == Some(KindState::Watching);
            is_watched && world.calls(pods) == 4 && world.names(Kind::Pod) == ["b"]
        })
        .await;
    world
        .until("the second list of services", |world| {
            world.resyncs(Kind::Service) == 2
        })
        .await;
    assert_eq!(world.resyncs(Kind::Pod), 2);
    world
        .until("that nodes are watched", |world| {
            world.calls("/api/v1/nodes?&watch=true") > 8
        })
        .await;
    assert_eq!(
        world.resyncs(Kind::Node),
        1,
        "too many requests are no reason"
    );
}

#[tokio::test(start_paused = true)]
async fn a_file_says_nothing_of_the_api_server() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "trustDomain: one").unwrap();
    let path = file.path().to_owned();
    let mut world = World::start_with(
        |path, _| usual(path),
        |config| config.mesh_config_file = Some(path),
    );
    world
        .until("mesh config", |world| world.resyncs(Kind::MeshConfig) == 1)
        .await;
    assert_eq!(world.state(Kind::MeshConfig), None);
}

#[tokio::test(start_paused = true)]
async fn an_object_that_is_nested_too_deeply_costs_only_itself() {
    let deep = (0..500).fold(json!(1), |inner, _| json!([inner]));
    let mut odd = pod("b", "3");
    odd["spec"]["x"] = deep;
    let mut world = World::start(move |path, before| match path {
        path if is_pods(path) && is_watch(path) && before == 0 => {
            let mut next = odd.clone();
            next["metadata"]["name"] = json!("c");
            Reply::Lines(vec![json!({"type": "ADDED", "object": next})])
        }
        path if is_pods(path) && !is_watch(path) => list("10", None, &[pod("a", "2"), odd.clone()]),
        path => usual(path),
    });
    world
        .until("all of them", |world| {
            world.names(Kind::Pod) == ["a", "b", "c"]
        })
        .await;
    let invalid = |name: &str| {
        let key = (Kind::Pod, ObjectKey::new("default", name));
        world.objects[&key].invalid().is_some()
    };
    assert_eq!(["a", "b", "c"].map(invalid), [false, true, true]);
    assert_eq!(world.state(Kind::Pod), Some(KindState::Watching));
}

#[tokio::test(start_paused = true)]
async fn mesh_config_is_applied_over_the_shared_one_and_networks_are_told() {
    let own = Arc::new(Mutex::new(json!({"mesh": "trustDomain: own"})));
    let now = own.clone();
    let networks = Arc::new(Mutex::new(String::new()));
    let shared_networks = networks.clone();
    let answer = move |path: &str, _| {
        let is_ours = path.starts_with("/api/v1/namespaces/istio-system/configmaps?");
        let map = |name: &str, data: Value| json!({"metadata": {"name": name, "namespace": "istio-system"}, "data": data});
        match () {
            () if !is_ours => usual(path),
            // Every look is a list, so that the script stays short.
            () if is_watch(path) => status(410),
            () => {
                assert!(!path.contains("metadata.name"), "{path}");
                let shared = json!({
                    "mesh": "trustDomain: shared\nrootNamespace: root",
                    "meshNetworks": *shared_networks.lock(),
                });
                let other = json!({"mesh": "rootNamespace: other"});
                let all = [
                    map("istio", now.lock().clone()),
                    map("other", other),
                    map("shared", shared),
                ];
                list("9", None, &all)
            }
        }
    };
    let mut world = World::start_with(answer, |config| {
        config.shared_mesh_config = Some("shared".to_owned());
        config.retry_max = Duration::from_secs(1);
    });
    let row = |world: &World| {
        let key = (Kind::MeshConfig, ObjectKey::new("istio-system", "istio"));
        let Some(Object::MeshConfig(row)) = world.objects.get(&key) else {
            return (None, None);
        };
        let body = row.ok().unwrap();
        (body.trust_domain.clone(), body.root_namespace.clone())
    };
    let text = |text: &str| Some(model::Str::from(text));
    world
        .until("both", |world| row(world) == (text("own"), text("root")))
        .await;
    assert!(world.findings.is_empty());
    *own.lock() = json!({"meshNetworks": "networks: {n1: {}}"});
    world
        .until("the shared one", |world| {
            row(world) == (text("shared"), text("root"))
        })
        .await;
    world
        .until("a finding", |world| {
            world.codes() == [("mesh-networks-ignored", "MeshConfig")]
        })
        .await;
    "networks: {n2: {}}".clone_into(&mut networks.lock());
    world
        .until("one of each", |world| world.codes().len() == 2)
        .await;
    networks.lock().clear();
    world
        .until("its own", |world| world.codes().len() == 1)
        .await;
}
