//! Commands, and a server at its start.

use super::*;

#[test]
fn offline_commands_say_what_is_wrong_by_their_exit_status() {
    let dir = TempDir::with_prefix("ambientd-e2e-").unwrap();
    let (good, bad) = (dir.path().join("good"), dir.path().join("bad"));
    Net(34).write(&good).unwrap();
    Net(34).write(&bad).unwrap();
    let (name, bytes, expected) = bad_files()
        .into_iter()
        .find(|(name, ..)| *name == "bad-type.yaml")
        .unwrap();
    std::fs::write(bad.join(name), bytes).unwrap();
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let (good, bad) = (path(&good), path(&bad));
    let (none, file) = (
        path(&dir.path().join("none")),
        path(&dir.path().join("good/00-mesh.yaml")),
    );
    let state = path(&dir.path().join("state"));

    // Arguments, exit status, part of standard output, part of standard error.
    let cases: [(&[&str], i32, &str, &str); 21] = [
        (&["version"], 0, "-ambientd", ""),
        (&["analyze", "--config-dir", &good], 0, "[]", ""),
        (
            &["analyze", "--config-dir", &good, "-o", "text"],
            0,
            "0 errors",
            "",
        ),
        (
            &["analyze", "--config-dir", &bad],
            1,
            "spec.ports[0].port",
            "",
        ),
        (
            &["analyze", "--config-dir", &bad, "-o", "text"],
            1,
            "1 error, ",
            "",
        ),
        (&["analyze", "--config-dir", &none], 2, "", &none),
        (&["analyze"], 2, "", "--config-dir"),
        (
            &["render", "--for", "ztunnel", "--config-dir", &bad],
            0,
            "shop/web.shop.svc",
            "",
        ),
        (
            &[
                "render",
                "--for",
                "waypoint/shop/gate",
                "--config-dir",
                &good,
            ],
            0,
            "main_internal",
            "",
        ),
        (
            &[
                "render",
                "--for",
                "waypoint/shop/gone",
                "--config-dir",
                &good,
            ],
            2,
            "",
            "no Gateway shop/gone: name one that is there: shop/gate",
        ),
        (
            &[
                "render",
                "--for",
                "gateway/shop/gone",
                "--config-dir",
                &good,
            ],
            2,
            "",
            "no Gateway shop/gone: name one that is there: shop/gate",
        ),
        (
            &["render", "--for", "findings", "--config-dir", &bad],
            0,
            "invalid-object",
            "",
        ),
        (
            &["render", "--for", "everything", "--config-dir", &good],
            2,
            "",
            "waypoint/NAMESPACE/NAME",
        ),
        (
            &[
                "render",
                "--for",
                "ztunnel",
                "--type",
                "CDS",
                "--config-dir",
                &good,
            ],
            2,
            "",
            "--type",
        ),
        (
            &["render", "--for", "ztunnel", "--config-dir", &none],
            2,
            "",
            &none,
        ),
        (
            &["bootstrap", "--for", "ztunnel", "--state-dir", &state],
            2,
            "",
            "--for ztunnel",
        ),
        (
            &[
                "bootstrap",
                "--for",
                "gateway/shop/door",
                "--ip",
                "1.1.1.1",
                "--state-dir",
                &state,
            ],
            0,
            "/workloads/shop/door-istio/",
            "",
        ),
        (
            &[
                "bootstrap",
                "--for",
                "east-west/shop/door",
                "--ip",
                "1.1.1.1",
                "--state-dir",
                &state,
            ],
            0,
            "/workloads/shop/door/",
            "",
        ),
        (
            &[
                "bootstrap",
                "--for",
                "waypoint/shop/gate",
                "--state-dir",
                &state,
            ],
            2,
            "",
            "--ip",
        ),
        (
            &[
                "bootstrap",
                "--for",
                "waypoint/shop/gate",
                "--ip",
                "1.1.1.1",
                "--state-dir",
                &file,
            ],
            2,
            "",
            "--state-dir",
        ),
        (&["serve", "--no-such-flag"], 2, "", "--no-such-flag"),
    ];
    for (args, status, stdout, stderr) in cases {
        let output = ambientd(args);
        let (out, err) = (
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        );
        assert_eq!(output.status.code(), Some(status), "{args:?}\n{out}\n{err}");
        assert!(
            out.contains(stdout) && err.contains(stderr),
            "{args:?}\n{out}\n{err}"
        );
        assert_eq!(err.is_empty(), status < 2, "{args:?} wrote {err:?}");
        assert!(!err.contains("panicked"), "{args:?}\n{err}");
    }
    let findings =
        common::ambientd_json(&["render", "--for", "findings"], Path::new(&bad)).unwrap();
    assert!(
        findings
            .as_array()
            .is_some_and(|all| all.len() == 1 && expected.is(&all[0])),
        "{findings}"
    );
}

#[test]
fn serve_refuses_what_it_cannot_do_at_once() {
    let dir = TempDir::with_prefix("ambientd-e2e-").unwrap();
    Net(35).write(&dir.path().join("config")).unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (config, state, file) = (path("config"), path("state"), path("config/00-mesh.yaml"));
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let any = "127.0.0.1:0";
    let base = |config: &str, state: &str, xds: &str, debug: &str| {
        [
            "serve",
            "--config-dir",
            config,
            "--state-dir",
            state,
            "--xds-addr",
            xds,
            "--debug-addr",
            debug,
            "--ready-addr",
            any,
        ]
        .map(str::to_owned)
        .to_vec()
    };
    let with = |more: &[&str]| {
        let mut args = base(&config, &state, any, any);
        args.extend(more.iter().map(|arg| (*arg).to_owned()));
        args
    };
    let cases = [
        (base(&path("none"), &state, any, any), "--config-dir"),
        (base(&config, &file, any, any), "--state-dir"),
        (base(&config, &state, &taken, any), "--xds-addr"),
        (base(&config, &state, any, &taken), "--debug-addr"),
        (
            with(&["--xds-plaintext-addr", "0.0.0.0:0"]),
            "--xds-plaintext-addr",
        ),
        (
            with(&["--trusted-node-account", "ztunnel"]),
            "--trusted-node-account",
        ),
        (with(&["--debounce-after", "soon"]), "--debounce-after"),
        (with(&["--log", "ambientd=loud"]), "--log"),
    ];
    for (args, says) in cases {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let output = ambientd(&args);
        let err = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}\n{err}");
        assert!(
            err.contains(says) && !err.contains("panicked"),
            "{args:?}\n{err}"
        );
    }
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readiness_waits_for_the_whole_directory() {
    const SERVICES: usize = 8_000;
    let dir = TempDir::with_prefix("ambientd-e2e-").unwrap();
    let config = dir.path().join("config");
    std::fs::create_dir(&config).unwrap();
    let mut text = String::new();
    for i in 0..SERVICES {
        let ip = format!("10.{}.{}.{}", 100 + i / 65536, i / 256 % 256, i % 256);
        writeln!(
            text,
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: s{i}, namespace: many}}\n\
             spec: {{clusterIP: {ip}, clusterIPs: [{ip}], ports: [{{name: http, port: 80}}]}}"
        )
        .unwrap();
    }
    std::fs::write(config.join("many.yaml"), text).unwrap();
    let addr = || std::net::SocketAddr::from(([127, 0, 0, 1], free_port().unwrap()));
    let (ready, debug, plain) = (addr(), addr(), addr());
    let child = Command::new(common::BINARY)
        .args(["serve", "--config-dir", config.to_str().unwrap()])
        .args(["--state-dir", dir.path().join("state").to_str().unwrap()])
        .args([
            "--ready-addr",
            &ready.to_string(),
            "--debug-addr",
            &debug.to_string(),
        ])
        .args([
            "--xds-addr",
            "127.0.0.1:0",
            "--xds-plaintext-addr",
            &plain.to_string(),
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _child = Killed(child);
    let seen = Mutex::new(Vec::new());
    wait::until("readiness", Duration::from_secs(60), || async {
        let status = http_client::get(ready, "/ready").await?.status.as_u16();
        let mut seen = seen.lock().unwrap();
        if seen.last() != Some(&status) {
            seen.push(status);
        }
        ensure!(status == 200, "{status}");
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(*seen.lock().unwrap(), [503, 200]);
    // Ready means complete: the first answer holds all of it.
    let mut stream = DeltaClient::connect(&XdsTarget::Plain(plain), ztunnel_node("node-a"))
        .await
        .unwrap();
    stream.subscribe(ADDRESS, &[]).await.unwrap();
    assert_eq!(
        stream.next_response(SOON).await.unwrap().resources.len(),
        SERVICES
    );
}
