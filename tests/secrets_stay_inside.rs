//! Nothing that the program prints, logs or serves for debugging shows a value of a Secret,
//! whether its file can be read or not.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use testkit::http_client;
use testkit::wait::{self, free_port};

/// The value, and the same as `data` has it.
const CANARY: &str = "canary-4711-canary";
const CANARY_BASE64: &str = "Y2FuYXJ5LTQ3MTEtY2FuYXJ5";

/// Secrets as they should be, wrong ones, and files that cannot be read.
const FILES: [(&str, &str); 7] = [
    (
        "good.yaml",
        "apiVersion: v1
kind: Secret
metadata:
  namespace: gw
  name: good
  annotations: {kubectl.kubernetes.io/last-applied-configuration: CANARY}
type: kubernetes.io/tls
data: {tls.crt: BASE64, tls.key: BASE64, other: BASE64}
stringData: {ca.crt: CANARY, another: CANARY}
---
apiVersion: v1
kind: ConfigMap
metadata: {namespace: gw, name: map}
data: {ca.crt: CANARY, password: CANARY}
",
    ),
    (
        "shapes.yaml",
        "{apiVersion: v1, kind: Secret, metadata: {namespace: gw, name: a}, data: CANARY}
---
{apiVersion: v1, kind: Secret, metadata: {namespace: gw, name: b}, data: {tls.key: [CANARY]}}
---
{apiVersion: v1, kind: Secret, metadata: {namespace: gw, name: c}, data: {tls.key: CANARY}}
---
{apiVersion: v1, kind: Secrets, metadata: {namespace: gw, name: d}, data: {tls.key: CANARY}}
---
{apiVersion: v2, kind: Secret, metadata: {namespace: gw, name: e}, data: {tls.key: CANARY}}
---
{apiVersion: v1, kind: Secret, metadata: {namespace: gw}, stringData: {tls.key: CANARY}}
---
{apiVersion: v1, kind: Secret, metadata: {namespace: gw, name: good}, stringData: {key: CANARY}}
---
{apiVersion: v1, kind: List, items: [{apiVersion: v1, kind: Secret, metadata: {name: f, namespace: gw}, data: CANARY}]}
",
    ),
    (
        "colon.yaml",
        "apiVersion: v1\nkind: Secret\nmetadata: {name: x}\nstringData:\n  tls.key: CANARY: CANARY\n",
    ),
    (
        "quote.yaml",
        "apiVersion: v1\nkind: Secret\nmetadata: {name: y}\nstringData: {tls.key: \"CANARY\n",
    ),
    (
        "alias.yaml",
        "apiVersion: v1\nkind: Secret\nmetadata: {name: z}\nstringData: {tls.key: *CANARY, tls.crt: !CANARY x}\n",
    ),
    (
        "twice.yaml",
        "apiVersion: v1\nkind: Secret\nmetadata: {name: w}\nstringData: {tls.key: CANARY, tls.key: CANARY}\n",
    ),
    (
        "broken.json",
        "{\"apiVersion\": \"v1\", \"kind\": \"Secret\", \"stringData\": {\"tls.key\": \"CANARY\" \"CANARY\"}}",
    ),
];

const GATEWAY: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {namespace: gw, name: gw}
spec:
  gatewayClassName: istio-waypoint
  listeners:
    - {name: mesh, port: 15008, protocol: HBONE}
    - {name: web, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: good}]}}
status: {addresses: [{type: IPAddress, value: 10.0.0.1}]}
";

fn directory() -> TempDir {
    let dir = TempDir::with_prefix("ambientd-secrets-").unwrap();
    for (name, text) in FILES {
        let text = text
            .replace("CANARY", CANARY)
            .replace("BASE64", CANARY_BASE64);
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    std::fs::write(dir.path().join("gateway.yaml"), GATEWAY).unwrap();
    dir
}

fn assert_silent(what: &str, text: &str) {
    for canary in [CANARY, CANARY_BASE64, "canary"] {
        assert!(!text.contains(canary), "{what} shows {canary}:\n{text}");
    }
}

fn command(args: &[&str], dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ambientd"));
    command.args(args).arg("--config-dir").arg(dir);
    command.stdin(Stdio::null());
    command
}

fn run(args: &[&str], dir: &Path) -> Output {
    command(args, dir).output().unwrap()
}

#[test]
fn no_command_prints_a_value() {
    let dir = directory();
    let mut findings = String::new();
    for args in [
        &["analyze"] as &[&str],
        &["analyze", "--output", "json"],
        &["analyze", "--output", "text"],
        &["render", "--for", "findings"],
        &["render", "--for", "status"],
        &["render", "--for", "ztunnel"],
        &["render", "--for", "waypoint/gw/gw"],
        &["render", "--for", "waypoint/gw/gw", "--output", "yaml"],
    ] {
        let output = run(args, dir.path());
        for bytes in [&output.stdout, &output.stderr] {
            let text = String::from_utf8_lossy(bytes);
            assert_silent(&args.join(" "), &text);
        }
        assert!(!output.stdout.is_empty(), "{args:?}");
        findings += &String::from_utf8_lossy(&output.stdout);
    }
    // The files were read, and what is wrong with them is told.
    for told in [
        "secret-unusable",
        "file-unreadable",
        "duplicate-object",
        "invalid-object",
    ] {
        assert!(findings.contains(told), "{told}: {findings}");
    }
}

/// Ended with the test.
struct Served(Child);

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn no_debug_page_and_no_log_shows_a_value() {
    let (dir, state) = (
        directory(),
        TempDir::with_prefix("ambientd-state-").unwrap(),
    );
    let log = state.path().join("log");
    let file = std::fs::File::create(&log).unwrap();
    let port = || format!("127.0.0.1:{}", free_port().unwrap());
    let debug = port();
    let mut serve = command(&["--log", "trace", "serve"], dir.path());
    serve.arg("--state-dir").arg(state.path());
    serve.args(["--xds-addr", &port(), "--xds-plaintext-addr", &port()]);
    serve.args(["--debug-addr", &debug, "--ready-addr", &port()]);
    serve.stdout(file.try_clone().unwrap()).stderr(file);
    let _served = Served(serve.spawn().unwrap());
    let addr = debug.parse().unwrap();
    let ready = wait::until("ready", Duration::from_secs(20), || async {
        let response = http_client::get(addr, "/ready").await?;
        anyhow::ensure!(response.status == 200, "{}", response.status);
        Ok(())
    });
    if let Err(error) = ready.await {
        panic!("{error:#}: {}", std::fs::read_to_string(&log).unwrap());
    }
    // A changed Secret goes through the log as well.
    let text = FILES[0].1.replace("name: good", "name: renewed");
    let text = text
        .replace("CANARY", CANARY)
        .replace("BASE64", CANARY_BASE64);
    std::fs::write(dir.path().join("good.yaml"), text).unwrap();
    let renewed = wait::until("the change", Duration::from_secs(20), || async {
        let findings = http_client::get(addr, "/debug/findings").await?.text();
        assert_silent("/debug/findings", &findings);
        anyhow::ensure!(findings.contains("renewed"), "{findings}");
        Ok(())
    });
    renewed.await.unwrap();
    let list = http_client::get(addr, "/debug/list")
        .await
        .unwrap()
        .json()
        .unwrap();
    let mut paths: Vec<String> = serde_json::from_value(list).unwrap();
    paths.extend(["/metrics", "/debug/config_dump?proxyID=gw", "/version"].map(str::to_owned));
    for path in paths {
        let response = http_client::get(addr, &path).await.unwrap();
        assert_silent(&path, &response.text());
    }
    assert_silent("the log", &std::fs::read_to_string(&log).unwrap());
}
