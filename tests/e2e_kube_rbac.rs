//! ambientd under its own account in a real cluster: its roles allow all that it asks for, and
//! nothing that it does not.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that cannot go on should stop"
)]

#[path = "common/kube.rs"]
mod common;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use testkit::ads::{DeltaClient, XdsTarget, waypoint_node, ztunnel_node};
use testkit::cluster::Cluster;
use testkit::wait;
use testkit::ztunnel::Ztunnel;

use common::replica::{Replica, kubeconfig};
use common::{
    ACCOUNT, SOON, SYSTEM, asked, cluster, conditions, control_plane, get, install, manifest,
    nothing_was_refused, service, token, until, xds,
};

/// Something of every kind that is written about.
const EVERYTHING: &str = include_str!("kube/everything.yaml");
const BAD: &str = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: bad, namespace: works}
spec: {hosts: [], http: [{}]}
";
/// Errors on objects without status.
const FAULTY: &str = include_str!("kube/faulty.yaml");

fn everything(ns: &str) -> String {
    EVERYTHING.replace("PLACE", ns)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_right_of_the_manifest_is_used_and_no_other_asked_for() -> anyhow::Result<()> {
    let cluster = cluster(1, []).await?;
    install(&cluster)?;
    cluster.kubectl(&["create", "serviceaccount", "ztunnel", "-n", SYSTEM])?;

    everything_is_written(&cluster).await?;
    errors_are_told_where_no_status_is(&cluster).await?;
    roots_are_everywhere(&cluster).await?;
    a_new_root_is_prepared(&cluster).await?;
    bad_objects_are_denied(&cluster).await?;
    tokens_are_reviewed(&cluster).await?;
    keys_are_for_who_may_list_secrets(&cluster).await?;
    a_namespace_ends(&cluster).await?;
    nothing_was_refused(&cluster)?;

    let rules = rules(&cluster)?;
    all_are_used(&cluster, &rules)?;
    each_is_missed(&cluster, &rules).await
}

async fn everything_is_written(cluster: &Cluster) -> anyhow::Result<()> {
    cluster.apply(&everything("works"))?;
    let findings = "ambientd.io/Findings=True/";
    let unbound = "istio.io/WaypointBound=False/WaypointIsNotReady";
    for (what, wanted) in [
        ("service/cart", vec!["WpMissing", unbound]),
        (
            "gateway.gateway.networking.k8s.io/lonely",
            vec!["WpNotReady", "Accepted=True/Accepted"],
        ),
        ("listenerset/more", vec!["Accepted=False/NotAllowed"]),
        ("serviceentry/outside", vec![]),
        ("workloadentry/machine", vec!["WpMissing", unbound]),
        ("destinationrule/cart", vec!["DrNoWaypoint"]),
        ("virtualservice/cart", vec!["VsNoWaypoint"]),
        (
            "authorizationpolicy/allow",
            vec!["ZtunnelAccepted=True/Accepted"],
        ),
        ("requestauthentication/tokens", vec!["RaSelectorAmbient"]),
    ] {
        until(&format!("conditions of {what}"), || {
            let all = conditions(&get(cluster, "works", &[what])?);
            for it in &wanted {
                let whole = [findings, it].concat();
                ensure!(
                    all.contains(&whole) || all.contains(&(*it).to_owned()),
                    "{all:?}"
                );
            }
            Ok(())
        })
        .await?;
    }
    for what in [
        "httproute/web",
        "grpcroute/calls",
        "tcproute/bytes",
        "tlsroute/sealed",
    ] {
        until(&format!("a parent of {what}"), || {
            let route = get(cluster, "works", &[what])?;
            let parent = &route["status"]["parents"][0];
            let controller = &parent["controllerName"];
            ensure!(controller == "istio.io/gateway-controller", "{parent}");
            Ok(())
        })
        .await?;
    }
    until("an ancestor of the policy", || {
        let policy = get(cluster, "works", &["backendtlspolicy/encrypted"])?;
        let ancestor = &policy["status"]["ancestors"][0];
        let controller = &ancestor["controllerName"];
        ensure!(controller == "istio.io/mesh-controller", "{ancestor}");
        Ok(())
    })
    .await?;
    until("what a Gateway runs as", || {
        let kinds = ["serviceaccount", "deployment", "service", "hpa", "pdb"];
        for kind in kinds {
            get(cluster, "works", &[kind, "lonely"])?;
        }
        Ok(())
    })
    .await?;
    until("classes, which say that they are ours", || {
        for class in ["istio", "istio-waypoint", "istio-remote"] {
            let all = conditions(&get(cluster, "", &["gatewayclass", class])?);
            ensure!(all == ["Accepted=True/Accepted"], "{class} {all:?}");
        }
        Ok(())
    })
    .await?;
    until("one of two that have the same scope is told", || {
        let all = get(cluster, "works", &["peerauthentication"])?.to_string();
        ensure!(all.contains("PaDuplicateScope"), "{all}");
        Ok(())
    })
    .await?;
    until("addresses of the entry", || {
        let entry = get(cluster, "works", &["serviceentry/outside"])?;
        let addresses = entry["status"]["addresses"].as_array().context("none")?;
        ensure!(addresses.len() == 4, "{addresses:?}");
        Ok(())
    })
    .await?;
    let told = |count: u64| {
        let events = get(cluster, "works", &["events"])?;
        let all = events["items"].as_array().context("no list")?;
        let of_cart = all.iter().any(|event| {
            event["involvedObject"]["name"] == "cart"
                && event["reason"] == "WpMissing"
                && event["count"].as_u64() >= Some(count)
        });
        ensure!(of_cart, "{all:#?}");
        Ok(())
    };
    until("an Event", || told(1)).await?;
    // What comes again counts the Event up.
    let label = |label| cluster.kubectl(&["-n", "works", "label", "service", "cart", label]);
    label("istio.io/use-waypoint-")?;
    until("the service has no condition", || {
        let all = conditions(&get(cluster, "works", &["service/cart"])?);
        ensure!(all.is_empty(), "{all:?}");
        Ok(())
    })
    .await?;
    label("istio.io/use-waypoint=nowhere")?;
    until("a second time", || told(2)).await?;
    let lease = get(cluster, SYSTEM, &["lease/istio-status-leader"])?;
    let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
    ensure!(holder.starts_with("istiod-"), "{lease}");
    Ok(())
}

async fn errors_are_told_where_no_status_is(cluster: &Cluster) -> anyhow::Result<()> {
    cluster.apply(&FAULTY.replace("PLACE", "works"))?;
    let address = r#"{"status": {"podIP": "192.0.2.9", "podIPs": [{"ip": "192.0.2.9"}]}}"#;
    let status = [
        "-n",
        "works",
        "patch",
        "pod/strayed",
        "--subresource=status",
    ];
    cluster.kubectl(&[&status[..], &["--type=merge", "-p", address]].concat())?;
    for (ns, kind, name, reason) in [
        ("default", "Namespace", "works", "WpMissingModeInvalid"),
        ("works", "Pod", "strayed", "WpMissing"),
        ("works", "Secret", "halves", "SecretUnusable"),
        ("works", "ConfigMap", "authorities", "SecretCaUnusable"),
    ] {
        until(&format!("an Event on {kind} {name}"), || {
            let events = get(cluster, ns, &["events"])?;
            let is_it = |event: &Value| {
                let object = &event["involvedObject"];
                object["kind"] == kind && object["name"] == name && event["reason"] == reason
            };
            let all = events["items"].as_array().context("no list")?;
            ensure!(all.iter().any(is_it), "{all:#?}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

/// As the README has it, with the account of the pod.
async fn a_new_root_is_prepared(cluster: &Cluster) -> anyhow::Result<()> {
    let rotate = "ambientd ca rotate --in-cluster --step prepare";
    let exec = format!("exec -n {SYSTEM} deploy/istiod -- {rotate}");
    let exec: Vec<&str> = exec.split(' ').collect();
    let other = [&exec[..], &["--trust-domain", "other.example"]].concat();
    let refused = cluster.kubectl(&other).unwrap_err().to_string();
    ensure!(
        refused.contains("the root names trust domain \"cluster.local\""),
        "{refused}"
    );
    let said = cluster.kubectl(&exec)?;
    ensure!(said.contains("a second root is trusted"), "{said}");
    until("both roots in a namespace", || {
        let map = get(cluster, "works", &["configmap/istio-ca-root-cert"])?;
        let roots = map["data"]["root-cert.pem"].as_str().unwrap_or_default();
        ensure!(roots.matches("-----BEGIN").count() == 2, "{roots}");
        Ok(())
    })
    .await
}

async fn roots_are_everywhere(cluster: &Cluster) -> anyhow::Result<()> {
    let root = |ns: &str| -> anyhow::Result<String> {
        let map = get(cluster, ns, &["configmap/istio-ca-root-cert"])?;
        let root = map["data"]["root-cert.pem"].as_str().unwrap_or_default();
        ensure!(root.starts_with("-----BEGIN CERTIFICATE-----"), "{map}");
        Ok(root.to_owned())
    };
    let ours = root(SYSTEM)?;
    until("roots in every namespace", || {
        for ns in ["default", "works"] {
            ensure!(root(ns)? == ours);
        }
        Ok(())
    })
    .await?;
    let list = |ns: &str| -> anyhow::Result<Value> {
        let mut map = get(cluster, ns, &["configmap/istio-ca-crl"])?;
        Ok(map["data"]["ca-crl.pem"].take())
    };
    let edit = |map: &str, key: &str| {
        let patch = json!({"data": {key: "mine"}}).to_string();
        cluster.kubectl(&["-n", "works", "patch", map, "-p", &patch])
    };
    edit("configmap/istio-ca-root-cert", "root-cert.pem")?;
    edit("configmap/istio-ca-crl", "ca-crl.pem")?;
    until("what is edited is put right", || {
        ensure!(root("works")? == ours);
        let list = list("works")?;
        ensure!(list == "", "{list}");
        Ok(())
    })
    .await
}

async fn bad_objects_are_denied(cluster: &Cluster) -> anyhow::Result<()> {
    until("webhooks that are trusted and binding", || {
        let list = get(cluster, SYSTEM, &["validatingwebhookconfigurations"])?;
        for name in ["istio-validator-istio-system", "istiod-default-validator"] {
            let all = list["items"].as_array().context("no list")?;
            let one = all.iter().find(|it| it["metadata"]["name"] == name);
            let webhook = &one.context("not there")?["webhooks"][0];
            ensure!(webhook["clientConfig"]["caBundle"].is_string(), "{webhook}");
            ensure!(webhook["failurePolicy"] == "Fail", "{webhook}");
        }
        Ok(())
    })
    .await?;
    let revised = BAD.replace("name: bad,", "name: bad, labels: {istio.io/rev: default},");
    for (text, webhook) in [
        (BAD, "validation.istio.io"),
        (&revised, "rev.validation.istio.io"),
    ] {
        let refusal = cluster.apply(text).unwrap_err().to_string();
        let denied = format!("admission webhook \"{webhook}\" denied the request");
        ensure!(refusal.contains(&denied), "{refusal}");
    }
    Ok(())
}

async fn tokens_are_reviewed(cluster: &Cluster) -> anyhow::Result<()> {
    let addr = service(cluster, SYSTEM, "istiod", 15012)?;
    let target = xds(cluster, addr, token(cluster, SYSTEM, "ztunnel")?)?;
    let ztunnel = Ztunnel::start(target, ztunnel_node("node-a"));
    ztunnel.wait_synced(1, SOON).await?;
    let stranger = xds(cluster, addr, token(cluster, "works", "default")?)?;
    let refused = first_answer(&stranger).await;
    ensure!(refused.is_err(), "a stranger is served as ztunnel");
    Ok(())
}

async fn first_answer(target: &XdsTarget) -> anyhow::Result<()> {
    let mut client = DeltaClient::connect(target, ztunnel_node("node-a")).await?;
    client.subscribe(proto::type_url::ADDRESS, &[]).await?;
    client.next_response(Duration::from_secs(10)).await?;
    Ok(())
}

/// A certificate with its key, and two accounts: one may list Secrets, the other runs a proxy too.
const KEYS: &str = "
{apiVersion: v1, kind: ServiceAccount, metadata: {name: lonely, namespace: works}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: keeper, namespace: works}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: keeper, namespace: works}
rules: [{apiGroups: [\"\"], resources: [secrets], verbs: [list]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: keeper, namespace: works}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: keeper}
subjects: [{kind: ServiceAccount, name: keeper, namespace: works}]
";

async fn keys_are_for_who_may_list_secrets(cluster: &Cluster) -> anyhow::Result<()> {
    cluster.apply(KEYS)?;
    let key = rcgen::KeyPair::generate()?;
    let params = rcgen::CertificateParams::new(vec!["keys.example".to_owned()])?;
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": {"name": "pair", "namespace": "works"},
        "stringData": {
            "tls.crt": params.self_signed(&key)?.pem(), "tls.key": key.serialize_pem(),
        },
    });
    cluster.apply(&secret.to_string())?;
    let addr = service(cluster, SYSTEM, "istiod", 15012)?;
    let keeper = xds(cluster, addr, token(cluster, "works", "keeper")?)?;
    wait::until("the key of who may list Secrets", SOON, || async {
        let given = keys(&keeper, "keeper", "kubernetes://pair").await?;
        ensure!(given == 1, "{given}");
        Ok(())
    })
    .await?;
    let elsewhere = keys(
        &keeper,
        "keeper",
        "kubernetes://istio-system/istio-ca-secret",
    )
    .await?;
    let lonely = xds(cluster, addr, token(cluster, "works", "lonely")?)?;
    let unlisted = keys(&lonely, "lonely", "kubernetes://pair").await?;
    ensure!((elsewhere, unlisted) == (0, 0), "{elsewhere}, {unlisted}");
    Ok(())
}

/// How many secrets of this name the proxy of a Gateway of `works` is given.
async fn keys(target: &XdsTarget, gateway: &str, name: &str) -> anyhow::Result<usize> {
    let node = waypoint_node("works", gateway, "10.0.0.9");
    let mut client = DeltaClient::connect(target, node).await?;
    client.subscribe(proto::type_url::SECRET, &[name]).await?;
    let response = client.next_response(Duration::from_secs(10)).await?;
    Ok(response.resources.len())
}

async fn a_namespace_ends(cluster: &Cluster) -> anyhow::Result<()> {
    cluster.apply(&everything("ends"))?;
    until("roots in it", || {
        cluster
            .kubectl(&["-n", "ends", "get", "configmap/istio-ca-root-cert"])
            .map(drop)
    })
    .await?;
    cluster
        .kubectl(&["delete", "namespace", "ends", "--timeout=60s"])
        .map(drop)
}

/// A rule of the roles as the API server has them.
#[derive(Clone, Debug)]
struct Rule {
    /// In the namespace of ambientd alone.
    is_local: bool,
    value: Value,
}

// === impl Rule ===

impl Rule {
    fn texts(&self, field: &str) -> Vec<&str> {
        let list = self.value[field].as_array().unwrap();
        list.iter().map(|it| it.as_str().unwrap()).collect()
    }

    fn covers(&self, it: &common::Asked) -> bool {
        self.texts("verbs").contains(&it.verb.as_str())
            && self.texts("apiGroups").contains(&it.group.as_str())
            && self.texts("resources").contains(&it.resource.as_str())
            && (!self.is_local || it.ns == SYSTEM)
            && (self.names().is_empty() || self.names().contains(&it.name.as_str()))
    }

    /// The objects that it is about; none stands for all.
    fn names(&self) -> Vec<&str> {
        if self.value["resourceNames"].is_array() {
            self.texts("resourceNames")
        } else {
            Vec::new()
        }
    }
}

fn rules(cluster: &Cluster) -> anyhow::Result<Vec<Rule>> {
    let whole = get(
        cluster,
        SYSTEM,
        &["clusterrole/istiod-clusterrole-istio-system"],
    )?;
    let local = get(cluster, SYSTEM, &["role/istiod"])?;
    let of = |role: &Value, is_local| -> Vec<Rule> {
        let rules = role["rules"].as_array().cloned().unwrap_or_default();
        rules
            .into_iter()
            .map(|value| Rule { is_local, value })
            .collect()
    };
    let all = [of(&whole, false), of(&local, true)].concat();
    ensure!(all.len() > 10, "{all:?}");
    Ok(all)
}

/// Every verb on every resource was asked for, and on every object where a rule names objects.
fn all_are_used(cluster: &Cluster, rules: &[Rule]) -> anyhow::Result<()> {
    let all = asked(cluster, ACCOUNT)?;
    let mut unused = Vec::new();
    for rule in rules {
        let mut names: Vec<_> = rule.names().into_iter().map(Some).collect();
        if names.is_empty() {
            names.push(None);
        }
        for resource in rule.texts("resources") {
            for verb in rule.texts("verbs") {
                for name in &names {
                    let is_used = all.iter().any(|it| {
                        let is_it = it.verb == verb && it.resource == resource;
                        is_it && name.is_none_or(|name| it.name == name) && rule.covers(it)
                    });
                    if !is_used {
                        unused.push(format!("{verb} {resource} {}", name.unwrap_or_default()));
                    }
                }
            }
        }
    }
    ensure!(unused.is_empty(), "allowed and never used: {unused:?}");
    Ok(())
}

/// Roles of an account: those of ambientd with one rule less.
fn roles(name: &str, rules: &[Rule], without: &Rule) -> Value {
    let left = |is_local: bool| -> Vec<Value> {
        let kept = rules.iter().filter(|rule| rule.is_local == is_local);
        let kept =
            kept.filter(|rule| !(rule.is_local == without.is_local && rule.value == without.value));
        kept.map(|rule| rule.value.clone()).collect()
    };
    grants(name, &left(false), &left(true))
}

/// An account and what it may do.
fn grants(name: &str, whole: &[Value], local: &[Value]) -> Value {
    let metadata = json!({"name": name, "namespace": SYSTEM});
    let rbac = "rbac.authorization.k8s.io";
    let version = format!("{rbac}/v1");
    let subjects = json!([{"kind": "ServiceAccount", "name": name, "namespace": SYSTEM}]);
    let binding = |role: &str| {
        json!({
            "apiVersion": version, "kind": format!("{role}Binding"), "metadata": metadata,
            "roleRef": {"apiGroup": rbac, "kind": role, "name": name}, "subjects": subjects,
        })
    };
    let role = |kind: &str, rules: &[Value]| json!({"apiVersion": version, "kind": kind, "metadata": metadata, "rules": rules});
    let mut all = vec![
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}),
        role("ClusterRole", whole),
        role("Role", local),
        binding("ClusterRole"),
        binding("Role"),
    ];
    for it in &mut all {
        if it["kind"].as_str().unwrap().starts_with("ClusterRole") {
            it["metadata"] = json!({"name": name});
        }
    }
    json!({"apiVersion": "v1", "kind": "List", "items": all})
}

/// The API server reads new roles a moment later.
async fn roles_are_known(
    cluster: &Cluster,
    name: &str,
    rules: &[Rule],
    without: &Rule,
) -> anyhow::Result<()> {
    let user = format!("--as=system:serviceaccount:{SYSTEM}:{name}");
    for is_local in [false, true] {
        let mut kept = rules.iter().filter(|rule| rule.is_local == is_local);
        let last = kept.rfind(|rule| rule.value != without.value).unwrap();
        let (verb, group) = (last.texts("verbs")[0], last.texts("apiGroups")[0]);
        let resource = format!("{}.{group}", last.texts("resources")[0]);
        let mut resource = resource.trim_end_matches('.').to_owned();
        if let Some(name) = last.names().first() {
            resource = format!("{resource}/{name}");
        }
        let question = ["auth", "can-i", verb, &resource, "-n", SYSTEM, &user];
        until("its roles", || cluster.kubectl(&question).map(drop)).await?;
    }
    Ok(())
}

/// What the first step of a new root says that does not succeed.
fn prepare(kubeconfig: &Path) -> anyhow::Result<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_ambientd"))
        .args(["ca", "rotate", "--step", "prepare", "--kubeconfig"])
        .arg(kubeconfig)
        .output()?;
    ensure!(!output.status.success(), "a new root is prepared");
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Without any one rule, the API server refuses something that ambientd asks for.
async fn each_is_missed(cluster: &Cluster, rules: &[Rule]) -> anyhow::Result<()> {
    cluster.kubectl(&["-n", SYSTEM, "scale", "deployment/istiod", "--replicas=0"])?;
    let gone = [
        "wait",
        "--for=delete",
        "pod",
        "-l",
        "app=istiod",
        "--timeout=60s",
    ];
    cluster.kubectl(&[&["-n", SYSTEM], &gone[..]].concat())?;
    let shown = token(cluster, SYSTEM, "ztunnel")?;
    let of_proxy = token(cluster, "works", "lonely")?;
    for (number, rule) in rules.iter().enumerate() {
        let name = format!("lacks-{number}");
        // Nobody answers them now.
        for file in ["base/webhook.yaml", "overlays/test/default-validator.yaml"] {
            cluster.kubectl(&["replace", "--force", "-f", &manifest(file)])?;
        }
        let root = ["delete", "secret", "istio-ca-secret", "--ignore-not-found"];
        cluster.kubectl(&[&["-n", SYSTEM], &root[..]].concat())?;
        cluster.kubectl(&["delete", "gatewayclass", "--all"])?;
        cluster.apply(&everything(&name))?;
        cluster.apply(&roles(&name, rules, rule).to_string())?;
        roles_are_known(cluster, &name, rules, rule).await?;
        let account = ["create", "token", &name, "-n", SYSTEM];
        let own = cluster.kubectl(&account)?;
        let (addr, webhook) = (wait::free_port()?, wait::free_port()?);
        let (addr, webhook) = (format!("127.0.0.1:{addr}"), format!("127.0.0.1:{webhook}"));
        let flags = ["--xds-addr", &addr, "--webhook-addr", &webhook];
        let replica = Replica::start_as(cluster, &name, own.trim(), None, &flags)?;
        let user = format!("system:serviceaccount:{SYSTEM}:{name}");
        let claim = format!("a refusal for lack of {rule:?}");
        let is_review = rule.texts("resources").contains(&"tokenreviews");
        let is_access = rule.texts("resources").contains(&"subjectaccessreviews");
        // Reading the root is allowed by the rule for Events too.
        let is_root = rule.names().contains(&"istio-ca-secret");
        let config = kubeconfig(cluster, &format!("{name}-by-hand"), Some(own.trim()), None)?;
        let refused = wait::until(&claim, SOON, || async {
            if is_review {
                // Of the root that this one made.
                let target = xds(cluster, addr.parse()?, shown.clone())?;
                let _ = first_answer(&target).await;
                let said = replica.page("/debug/findings").await?;
                ensure!(said.contains("kube-review-failed"), "{said}");
            }
            if is_access {
                let target = xds(cluster, addr.parse()?, of_proxy.clone())?;
                let given = keys(&target, "lonely", "kubernetes://pair").await?;
                let said = replica.page("/debug/findings").await?;
                ensure!(
                    given == 0 && said.contains("subjectaccessreviews"),
                    "{said}"
                );
            }
            if is_root {
                let said = prepare(&config)?;
                ensure!(
                    said.contains("403 Forbidden") && said.contains("cannot update"),
                    "{said}"
                );
            }
            let all = asked(cluster, &user)?;
            let refused: Vec<_> = all.into_iter().filter(|it| it.code == 403).collect();
            ensure!(refused.iter().any(|it| rule.covers(it)), "{refused:?}");
            Ok(refused)
        });
        let refused = refused.await.with_context(|| replica.log())?;
        let other = refused.iter().find(|it| !rule.covers(it));
        ensure!(
            other.is_none(),
            "{rule:?} is missing, but refused is {other:?}"
        );
        // Killed, it holds the lease for a while.
        drop(replica);
        let lease = [
            "delete",
            "lease",
            "istio-status-leader",
            "--ignore-not-found",
        ];
        cluster.kubectl(&[&["-n", SYSTEM], &lease[..]].concat())?;
    }
    Ok(())
}

// === Without rights ===

/// What a rule allows of reading.
fn reading(rules: &[Rule], is_local: bool) -> Vec<Value> {
    let mut all = Vec::new();
    for rule in rules.iter().filter(|rule| rule.is_local == is_local) {
        let mut verbs = rule.texts("verbs");
        verbs.retain(|verb| ["get", "list", "watch"].contains(verb));
        if !verbs.is_empty() {
            let mut value = rule.value.clone();
            value["verbs"] = json!(verbs);
            all.push(value);
        }
    }
    all
}

/// What is said of writes that are refused.
async fn refusals(replica: &Replica) -> anyhow::Result<Vec<String>> {
    let all: Value = serde_json::from_str(&replica.page("/debug/findings").await?)?;
    let all = all.as_array().context("no list of findings")?;
    let of_writes = all.iter().filter(|it| it["code"] == "kube-write-forbidden");
    Ok(of_writes.map(ToString::to_string).collect())
}

async fn says(replica: &Replica, wanted: &[&str], unwanted: &[&str]) -> anyhow::Result<()> {
    let claim = format!("findings of {wanted:?} and none of {unwanted:?}");
    let said = wait::until(&claim, SOON, || async {
        let all = refusals(replica).await?;
        let has = |what: &&&str| all.iter().any(|it| it.contains(**what));
        ensure!(wanted.iter().all(|what| has(&what)), "{all:?}");
        ensure!(!unwanted.iter().any(|what| has(&what)), "{all:?}");
        Ok(())
    });
    said.await.with_context(|| replica.log())?;
    for what in wanted {
        let log = replica.log();
        let is_told = |line: &str| line.contains(" WARN ") && line.contains(what);
        ensure!(log.lines().any(is_told), "no line of {what}: {log}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn without_rights_to_write_clients_are_served_and_findings_say_what_is_missing()
-> anyhow::Result<()> {
    let cluster = control_plane().await?;
    common::apply_manifests(&cluster)?;
    cluster.kubectl(&["create", "serviceaccount", "ztunnel", "-n", SYSTEM])?;
    let rules = rules(&cluster)?;

    // The root of trust is made once.
    let first = Replica::start(&cluster, "first", &[])?;
    first.wait_well(SOON).await?;
    drop(first);
    let lease = ["-n", SYSTEM, "delete", "lease", "--all", "--wait"];
    cluster.kubectl(&lease)?;
    // Whatever the first one came to write.
    let webhook = manifest("base/webhook.yaml");
    cluster.kubectl(&["replace", "--force", "-f", &webhook])?;
    let roots = [
        "delete",
        "configmap",
        "-A",
        "--field-selector=metadata.name=istio-ca-root-cert",
    ];
    cluster.kubectl(&roots)?;
    cluster.apply(&everything("works"))?;

    let start = |name: &str, whole: &[Value], local: &[Value]| {
        cluster.apply(&grants(name, whole, local).to_string())?;
        cluster.kubectl(&["delete", "gatewayclass", "--all"])?;
        let own = cluster.kubectl(&["create", "token", name, "-n", SYSTEM])?;
        Replica::start_as(&cluster, name, own.trim(), None, &[])
    };
    let serves = async |replica: &Replica| {
        replica.wait_well(SOON).await?;
        let client = replica.subscribe();
        let knows = client.wait(SOON, |state, _| {
            let has = |name: &str| state.services.contains_key(name);
            has("works/cart.works.svc.cluster.local") && !state.policies.is_empty()
        });
        knows.await
    };
    let (whole, local) = (reading(&rules, false), reading(&rules, true));
    let reader = start("reader", &whole, &local)?;
    serves(&reader).await?;
    says(&reader, &["create leases"], &[]).await?;
    drop(reader);

    // May lead, but writes nothing else.
    let leases = json!({
        "apiGroups": ["coordination.k8s.io"], "resources": ["leases"],
        "verbs": ["get", "create", "update"],
    });
    let local = [local, vec![leases]].concat();
    let leader = start("leader", &whole, &local)?;
    serves(&leader).await?;
    let missing = [
        "patch services/status",
        "patch authorizationpolicies/status",
        "patch httproutes/status.gateway.networking.k8s.io",
        "create gatewayclasses.gateway.networking.k8s.io",
        "create configmaps",
        "update validatingwebhookconfigurations",
    ];
    says(&leader, &missing, &["create leases"]).await?;

    // A rule that comes is used at once, and nothing more is said of it.
    let roots =
        json!({"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create", "patch"]});
    let whole = [whole, vec![roots]].concat();
    cluster.apply(&grants("leader", &whole, &local).to_string())?;
    until("roots", || {
        cluster
            .kubectl(&["-n", "works", "get", "configmap/istio-ca-root-cert"])
            .map(drop)
    })
    .await?;
    says(&leader, &missing[..2], &["create configmaps"]).await
}
