//! Gateways and what is bound to them.

use super::*;

#[test]
fn a_gateway_pushes_what_is_bound_to_it_and_its_own_pods() {
    let all = "labels: {istio.io/waypoint-for: all}";
    let proxy = "labels: {istio.io/waypoint-for: all}, annotations: {ambient.istio.io/waypoint-inbound-binding: PROXY/15088}";
    let other = "addresses: [{type: IPAddress, value: 10.8.0.2}]";
    let base = small()
        + &namespace("a", USE, "")
        + &pod(
            "a/w1",
            "10.0.0.7",
            "gateway.networking.k8s.io/gateway-name: wp",
        )
        // Names it from afar; and what does not name it at all.
        + &service(
            "b/far",
            "istio.io/use-waypoint: wp, istio.io/use-waypoint-namespace: a",
            MANUAL,
        )
        + &service("b/none", "", MANUAL)
        + &gateway("b/wp", "", "All", "addresses: [{value: 10.8.0.9, type: IPAddress}]");
    let account = "a/istio_allow_waypoint_a_wp";
    let steps = [
        (gateway("a/wp", "", "Same", ""), String::new()),
        (
            gateway("a/wp", "", "Same", ADDRESS),
            // The policy is listed on what is bound.
            format!("sent: a/s, pod/a/p; policies: {account}"),
        ),
        (
            gateway("a/wp", "", "Same", other),
            "sent: a/s, pod/a/p".to_owned(),
        ),
        (
            gateway("a/wp", all, "Same", other),
            "sent: pod/a/p, pod/a/q".to_owned(),
        ),
        (gateway("a/wp", all, "All", other), "sent: b/far".to_owned()),
        (
            gateway("a/wp", proxy, "All", other),
            "sent: pod/a/w1".to_owned(),
        ),
        (
            "- Gateway a/wp\n".to_owned(),
            format!("sent: a/s, b/far, pod/a/p, pod/a/q, pod/a/w1; no policies: {account}"),
        ),
    ];
    let steps: Vec<(&str, &str)> = steps
        .iter()
        .map(|(e, x)| (e.as_str(), x.as_str()))
        .collect();
    check(with_waypoint_policies(), &base, &steps);
}

#[test]
fn a_gateway_class_is_as_all_its_gateways() {
    let class = |metadata: &str| {
        format!(
            "---\napiVersion: gateway.networking.k8s.io/v1\nkind: GatewayClass\nmetadata: {{name: istio-waypoint, {metadata}}}\nspec: {{controllerName: istio.io/mesh-controller}}\n"
        )
    };
    let instance = pod(
        "a/w1",
        "10.0.0.7",
        "gateway.networking.k8s.io/gateway-name: wp",
    );
    let base =
        small() + &namespace("a", USE, "") + &gateway("a/wp", "", "Same", ADDRESS) + &instance;
    plain(
        &base,
        &[
            (&class(""), ""),
            (
                &class("labels: {istio.io/waypoint-for: workload}"),
                "sent: a/s, pod/a/p, pod/a/q",
            ),
            (
                &class(
                    "labels: {istio.io/waypoint-for: workload}, annotations: {ambient.istio.io/waypoint-inbound-binding: PROXY}",
                ),
                "sent: pod/a/w1",
            ),
        ],
    );
}

#[test]
fn a_remote_gateway_pushes_itself_and_the_workloads_of_its_network() {
    let entry = |key: &str, network: &str| {
        istio(
            "WorkloadEntry",
            key,
            "",
            &format!("address: 10.0.0.5, network: {network}"),
        )
    };
    let remote = |ip: &str| {
        gateway(
            "a/east",
            "labels: {topology.istio.io/network: n2}",
            "Same",
            &format!("addresses: [{{type: IPAddress, value: {ip}}}]"),
        )
        .replace("istio-waypoint", "istio-remote")
    };
    plain(
        &(small() + &entry("a/there", "n2") + &entry("a/other", "n3")),
        &[
            (
                &remote("10.6.0.1"),
                "sent: NetworkGateway/n2/10.6.0.1/15008, we/a/there",
            ),
            (
                &remote("10.6.0.2"),
                "sent: NetworkGateway/n2/10.6.0.2/15008, we/a/there; removed: NetworkGateway/n2/10.6.0.1/15008",
            ),
            (
                "- Gateway a/east\n",
                "sent: we/a/there; removed: NetworkGateway/n2/10.6.0.2/15008",
            ),
        ],
    );
}
