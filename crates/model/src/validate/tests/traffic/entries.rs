//! ServiceEntries, WorkloadEntries and WorkloadGroups.

use super::*;

#[test]
fn service_entries() {
    let port = |edit: Value| {
        let mut port = json!({"number": 80, "name": "http", "protocol": "HTTP"});
        merge(&mut port, &edit);
        json!({"ports": [port]})
    };
    let endpoints =
        |resolution: &str, list: Value| json!({"resolution": resolution, "endpoints": list});
    let dynamic = |edit: Value| {
        let mut spec = json!({"resolution": "DYNAMIC_DNS", "hosts": ["*.example.com"]});
        merge(&mut spec, &edit);
        spec
    };
    let tcp = json!([{"number": 1, "name": "a", "protocol": "TCP"}]);
    let rows: Vec<Row> = vec![
        ("a name", json!({}), Fine),
        ("no host", json!({"hosts": []}), Reject("spec.hosts")),
        ("host *", json!({"hosts": ["*"]}), Reject("spec.hosts[0]")),
        (
            "more than 256 hosts",
            json!({"hosts": (0..257).map(|i| format!("h{i}.example.com")).collect::<Vec<_>>()}),
            Reject("spec.hosts"),
        ),
        (
            "selector with endpoints",
            json!({"resolution": "STATIC", "workloadSelector": {"labels": {"a": "b"}}, "endpoints": [{"address": "10.0.0.1"}]}),
            Reject("spec.workloadSelector"),
        ),
        (
            "a range with DNS",
            json!({"addresses": ["10.0.0.0/24"]}),
            Reject("spec.addresses[0]"),
        ),
        (
            "a range with STATIC",
            json!({"addresses": ["10.0.0.0/24"], "resolution": "STATIC"}),
            Fine,
        ),
        (
            "a bad address",
            json!({"addresses": ["10.0.0"]}),
            Reject("spec.addresses[0]"),
        ),
        (
            "a null port",
            json!({"ports": [null]}),
            Reject("spec.ports[0]"),
        ),
        (
            "duplicate number",
            json!({"ports": [{"number": 1, "name": "a", "protocol": "HTTP"}, {"number": 1, "name": "b", "protocol": "HTTP"}]}),
            Reject("spec.ports[1].number"),
        ),
        (
            "duplicate name",
            json!({"ports": [{"number": 1, "name": "a", "protocol": "HTTP"}, {"number": 2, "name": "a", "protocol": "HTTP"}]}),
            Reject("spec.ports[1].name"),
        ),
        (
            "bad port name",
            port(json!({"name": "a_b"})),
            Reject("spec.ports[0].name"),
        ),
        (
            "bad port number",
            port(json!({"number": 0})),
            Reject("spec.ports[0].number"),
        ),
        (
            "bad protocol",
            port(json!({"protocol": "HTTP3"})),
            Reject("spec.ports[0].protocol"),
        ),
        (
            "NONE with endpoints",
            endpoints("NONE", json!([{"address": "10.0.0.1"}])),
            Reject("spec.endpoints"),
        ),
        (
            "STATIC endpoint that is a name",
            endpoints("STATIC", json!([{"address": "a.b"}])),
            Reject("spec.endpoints[0].address"),
        ),
        (
            "endpoint port not defined",
            endpoints(
                "STATIC",
                json!([{"address": "10.0.0.1", "ports": {"other": 1}}]),
            ),
            Reject("spec.endpoints[0].ports.other"),
        ),
        (
            "unix endpoint of two ports",
            json!({"resolution": "STATIC", "ports": [{"number": 1, "name": "a", "protocol": "HTTP"}, {"number": 2, "name": "b", "protocol": "HTTP"}], "endpoints": [{"address": "unix:///a"}]}),
            Reject("spec.endpoints[0].address"),
        ),
        (
            "DNS of a wildcard without endpoints",
            json!({"hosts": ["*.example.com"]}),
            Reject("spec.hosts[0]"),
        ),
        (
            "DNS_ROUND_ROBIN of two endpoints",
            endpoints(
                "DNS_ROUND_ROBIN",
                json!([{"address": "a.b"}, {"address": "c.d"}]),
            ),
            Reject("spec.endpoints"),
        ),
        ("DYNAMIC_DNS", dynamic(json!({})), Fine),
        (
            "DYNAMIC_DNS of a name",
            dynamic(json!({"hosts": ["a.b"]})),
            Reject("spec.hosts[0]"),
        ),
        (
            "DYNAMIC_DNS with addresses",
            dynamic(json!({"addresses": ["10.0.0.1"]})),
            Reject("spec.addresses"),
        ),
        (
            "DYNAMIC_DNS with endpoints",
            dynamic(json!({"endpoints": [{"address": "a.b"}]})),
            Reject("spec.endpoints"),
        ),
        (
            "DYNAMIC_DNS over TCP",
            dynamic(json!({"ports": tcp})),
            Reject("spec.ports[0].protocol"),
        ),
        (
            "DYNAMIC_DNS inside with a waypoint",
            json!({"metadata": {"labels": {"istio.io/use-waypoint": "w"}}, "spec": dynamic(json!({"location": "MESH_INTERNAL"}))}),
            Reject("spec.location"),
        ),
        (
            "several hosts over TCP",
            json!({"hosts": ["a.b", "c.d"], "ports": tcp}),
            Reject("spec.hosts"),
        ),
        (
            "several hosts over TCP without resolution",
            json!({"hosts": ["a.b", "c.d"], "ports": tcp, "resolution": "NONE", "addresses": ["10.0.0.1"]}),
            Fine,
        ),
        (
            "exportTo nobody",
            json!({"exportTo": ["~"]}),
            Warn("se-exportto-ambient"),
        ),
        (
            "exportTo nobody and somebody",
            json!({"exportTo": ["~", "a"]}),
            Reject("spec.exportTo[0]"),
        ),
        (
            "empty selector",
            json!({"resolution": "STATIC", "workloadSelector": {}}),
            Warn("whole namespace"),
        ),
        (
            "partial wildcard",
            json!({"hosts": ["*foo.com"], "resolution": "STATIC"}),
            Warn("part of a label"),
        ),
        (
            "TCP without addresses where none is given",
            json!({"ports": tcp, "resolution": "NONE"}),
            Warn("IST0134"),
        ),
        (
            "NONE with selector",
            json!({"resolution": "NONE", "workloadSelector": {"labels": {"a": "b"}}}),
            Warn("no effect"),
        ),
        (
            "DNS of several hosts with endpoints over TLS",
            json!({"hosts": ["a.b", "c.d"], "ports": [{"number": 1, "name": "a", "protocol": "TLS"}], "endpoints": [{"address": "e.f"}]}),
            Warn("whichever host"),
        ),
    ];
    let good = json!({
        "hosts": ["a.example.com"], "resolution": "DNS",
        "ports": [{"number": 80, "name": "http", "protocol": "HTTP"}],
    });
    check_rows(NETWORKING, "ServiceEntry", &good, &rows);
}

#[test]
fn workload_entries_and_groups() {
    let rows: Vec<Row> = vec![
        ("an address", json!({}), Fine),
        (
            "no address and no network",
            json!({"address": "-"}),
            Reject("spec.address"),
        ),
        (
            "a network alone",
            json!({"address": "-", "network": "n"}),
            Warn("gateways of its network"),
        ),
        (
            "unix with ports",
            json!({"address": "unix:///a", "ports": {"a": 1}}),
            Reject("spec.ports"),
        ),
        (
            "unix relative",
            json!({"address": "unix://a"}),
            Reject("spec.address"),
        ),
        (
            "unix directory",
            json!({"address": "unix:///a/"}),
            Reject("spec.address"),
        ),
        (
            "bad label",
            json!({"labels": {"a": "b c"}}),
            Reject("spec.labels.a"),
        ),
        ("port 0", json!({"ports": {"a": 0}}), Reject("spec.ports.a")),
        (
            "a bad name",
            json!({"address": "a..b"}),
            Reject("spec.address"),
        ),
        (
            "port name > 62",
            json!({"ports": {"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa": 1}}),
            Reject("spec.ports.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
        ),
    ];
    check_rows(
        NETWORKING,
        "WorkloadEntry",
        &json!({"address": "10.0.0.1"}),
        &rows,
    );
    let probe = |probe: Value| json!({"probe": probe});
    let rows: Vec<Row> = vec![
        ("a template", json!({}), Warn("kind-not-supported")),
        (
            "no template",
            json!({"template": "-"}),
            Reject("spec.template"),
        ),
        (
            "a template with a bad port",
            json!({"template": {"ports": {"a": 0}}}),
            Reject("spec.template.ports.a"),
        ),
        (
            "probe negatives",
            probe(json!({"periodSeconds": -1, "tcpSocket": {"port": 1}})),
            Reject("spec.probe.periodSeconds"),
        ),
        (
            "probe scheme",
            probe(json!({"httpGet": {"scheme": "FTP", "port": 1}})),
            Reject("spec.probe.httpGet.scheme"),
        ),
        (
            "probe port",
            probe(json!({"httpGet": {"port": 0}})),
            Reject("spec.probe.httpGet.port"),
        ),
        (
            "empty command",
            probe(json!({"exec": {"command": []}})),
            Reject("spec.probe.exec.command"),
        ),
        (
            "probe without method",
            probe(json!({})),
            Reject("spec.probe"),
        ),
        (
            "grpc is no method",
            probe(json!({"grpc": {"port": 1}})),
            Reject("spec.probe"),
        ),
    ];
    check_rows(
        NETWORKING,
        "WorkloadGroup",
        &json!({"template": {"serviceAccount": "a"}}),
        &rows,
    );
}
