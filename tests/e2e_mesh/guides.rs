//! What the guides claim of a mesh of real ztunnels.

use super::*;

#[test]
fn guide_01_enrolled_callers_use_mtls_and_plain_text_still_gets_in() {
    world("01-enrol-namespace", no_edit, async |_, mesh| {
        let orders = mesh
            .expect_status("shop/web", "GET http://orders.shop/", 200)
            .await?;
        let pod = orders.seen("pod");
        ensure!(pod.starts_with("orders-v"), "answered by {pod}");
        let identity = peer_identity(mesh, &format!("shop/{pod}")).await?;
        ensure!(identity == Some(mesh.identity("shop/web")?), "{identity:?}");

        let plain = mesh
            .expect_status("legacy/old-client", "GET http://orders.shop/", 200)
            .await?;
        let pod = plain.seen("pod");
        ensure!(plain.seen("peer") == "10.244.1.15", "{plain:?}");
        wait::until("the line about plain text", LIMIT, || async {
            let identity = peer_identity(mesh, &format!("shop/{pod}")).await?;
            ensure!(identity.is_none(), "{identity:?}");
            Ok(())
        })
        .await?;
        let catalog = mesh
            .expect_status("shop/web", "GET http://catalog.legacy/", 200)
            .await?;
        ensure!(catalog.seen("pod") == "catalog", "{catalog:?}");

        // Names are answered by ztunnel, whoever is asked.
        let (_, web) = mesh.world.pod("shop/web")?;
        let server = "10.96.0.10".parse()?;
        let found = resolve_by_dns(web, server, "orders.shop.svc.cluster.local")?;
        ensure!(found == ["10.96.4.11".parse::<Ipv4Addr>()?], "{found:?}");
        Ok(())
    });
}

#[test]
fn guide_02_opted_out_pod_is_reached_and_calls_in_plain_text() {
    world("02-pod-opt-out", no_edit, async |_, mesh| {
        let job = mesh
            .expect_status("shop/web", "GET http://raw-job.shop:7000/", 200)
            .await?;
        ensure!(job.seen("pod") == "raw-job", "{job:?}");
        let orders = mesh
            .expect_status("shop/raw-job", "GET http://orders.shop/", 200)
            .await?;
        let identity = peer_identity(mesh, &format!("shop/{}", orders.seen("pod"))).await?;
        ensure!(identity.is_none(), "{identity:?}");
        Ok(())
    });
}

#[test]
fn guide_03_captured_callers_pass_the_waypoint_of_the_namespace() {
    world("03-waypoint-namespace", no_edit, async |_, mesh| {
        let through = peer_is(mesh, "bookinfo/bookinfo-waypoint")?;
        let caller = "bookinfo/productpage";
        let answer = mesh
            .expect(caller, "GET http://reviews:9080/reviews/1", &through)
            .await?;
        ensure!(
            ["reviews-v1", "reviews-v2"].contains(&answer.seen("pod").as_str()),
            "{answer:?}"
        );
        let direct = peer_is(mesh, caller)?;
        mesh.expect(caller, "GET http://10.244.2.12:9080/", &direct)
            .await?;
        let outside = peer_is(mesh, "outside/curl")?;
        mesh.expect(
            "outside/curl",
            "GET http://reviews.bookinfo:9080/",
            &outside,
        )
        .await?;
        Ok(())
    });
}

#[test]
fn guide_04_only_the_bound_service_passes_the_waypoint() {
    world("04-waypoint-service", no_edit, async |_, mesh| {
        let caller = "bookinfo/productpage";
        let through = peer_is(mesh, "bookinfo/reviews-waypoint")?;
        let direct = peer_is(mesh, caller)?;
        mesh.expect(caller, "GET http://reviews:9080/reviews/1", &through)
            .await?;
        mesh.expect(caller, "GET http://ratings:9080/ratings/1", &direct)
            .await?;
        mesh.expect(caller, "GET http://reviews-v1:9080/reviews/1", &direct)
            .await?;
        Ok(())
    });
}

#[test]
fn guide_05_object_addressed_decides_which_waypoint() {
    world("05-waypoint-precedence", no_edit, async |_, mesh| {
        let caller = "bookinfo/client";
        let ratings = mesh.world.pod("bookinfo/ratings")?.0.ip;
        let of_namespace = peer_is(mesh, "bookinfo/bookinfo-waypoint")?;
        let of_pod = peer_is(mesh, "bookinfo/pods-waypoint")?;
        let direct = peer_is(mesh, caller)?;
        mesh.expect(caller, "GET http://ratings:9080/", &of_namespace)
            .await?;
        mesh.expect(caller, &format!("GET http://{ratings}:9080/"), &of_pod)
            .await?;
        mesh.expect(caller, "GET http://details:9080/", &direct)
            .await?;
        Ok(())
    });
}

#[test]
fn guide_06_hash_none_opts_out_and_two_labels_name_a_waypoint_elsewhere() {
    world("06-waypoint-label-values", no_edit, async |_, mesh| {
        let direct = peer_is(mesh, "demo/client")?;
        let edge = peer_is(mesh, "infra/edge")?;
        mesh.expect("demo/client", "GET http://hash-none/", &direct)
            .await?;
        mesh.expect("demo/client", "GET http://two-labels/", &edge)
            .await?;
        Ok(())
    });
}

#[test]
fn guide_07_policy_on_a_waypoint_that_nothing_traverses_refuses_nothing() {
    world("07-waypoint-mismatch", no_edit, async |_, mesh| {
        let call = "POST http://reviews:9080/anything";
        mesh.expect_status("bookinfo/productpage", call, 200)
            .await?;
        mesh.edit(|text| {
            text.replace(
                "use-waypoint: review-waypoint",
                "use-waypoint: reviews-waypoint",
            )
        })?;
        mesh.expect_status("bookinfo/productpage", call, 403)
            .await?;
        Ok(())
    });
}

#[test]
fn guide_08_peer_authentication_modes() {
    world("08-peer-authentication", no_edit, async |_, mesh| {
        let (plain, client) = ("plain/old-client", "bookinfo/client");
        mesh.expect_status(client, "GET http://reviews:9080/", 200)
            .await?;
        mesh.expect_reset(plain, "GET http://reviews.bookinfo:9080/")
            .await?;
        mesh.expect_status(plain, "GET http://web.open/", 200)
            .await?;
        mesh.expect_status(plain, "GET http://web.disabled/", 200)
            .await?;
        mesh.expect_status(client, "GET http://web.disabled/", 200)
            .await?;
        wait::until("mTLS to a DISABLE workload", LIMIT, || async {
            let identity = peer_identity(mesh, "disabled/web").await?;
            ensure!(identity == Some(mesh.identity(client)?), "{identity:?}");
            Ok(())
        })
        .await?;
        mesh.expect_reset(plain, "GET http://web.inherit/").await?;
        let ratings = mesh.world.pod("bookinfo/ratings")?.0.ip;
        mesh.expect_reset(plain, &format!("GET http://{ratings}:9080/"))
            .await?;
        mesh.expect_status(plain, &format!("GET http://{ratings}:8081/"), 200)
            .await?;
        mesh.expect_status(client, "GET http://server.plain/", 200)
            .await?;
        Ok(())
    });
}

#[test]
fn guide_09_identities_decide_at_the_node_proxy() {
    world("09-zero-trust-l4", no_edit, async |_, mesh| {
        let orders = "GET http://orders.shop/";
        mesh.expect_status("shop/web", orders, 200).await?;
        mesh.expect_reset("shop/probe", orders).await?;
        mesh.expect_reset("partner/web", orders).await?;
        mesh.expect_reset("shop/web", "GET http://stock.shop/")
            .await?;
        mesh.expect_reset("legacy/old-client", orders).await?;

        let (_, web) = mesh.world.pod("shop/web")?;
        let mut open = web.connect("10.96.4.11:80".parse()?).await?;
        open.write_all(b"GET / HTTP/1.1\r\nhost: orders.shop\r\n\r\n")
            .await?;
        ensure!(
            open.read(&mut [0; 4096]).await? > 0,
            "no answer on the open connection"
        );
        mesh.edit(|text| without_object(text, "AuthorizationPolicy", "orders-allow-web"))?;
        let closed = async { while matches!(open.read(&mut [0; 4096]).await, Ok(1..)) {} };
        tokio::time::timeout(LIMIT, closed)
            .await
            .context("the connection stays open")?;
        mesh.expect_reset("shop/web", orders).await?;
        Ok(())
    });
}

#[test]
fn guide_10_deny_all_meets_a_waypoint() {
    world("10-zero-trust-with-waypoint", no_edit, async |_, mesh| {
        mesh.expect_status("shop/web", "GET http://stock.shop/", 200)
            .await?;
        mesh.expect_status("shop/probe", "GET http://stock.shop/", 403)
            .await?;
        mesh.expect_status("shop/web", "GET http://orders.shop/", 503)
            .await?;
        mesh.expect_reset("shop/web", "GET http://10.244.2.16:8080/")
            .await?;
        Ok(())
    });
}

#[test]
fn guide_11_one_allow_closes_a_workload_to_all_others() {
    world("11-authz-l4-principal", no_edit, async |_, mesh| {
        let (page, curl) = ("bookinfo/productpage", "bookinfo/curl");
        mesh.expect_status(page, "GET http://reviews:9080/", 200)
            .await?;
        mesh.expect_reset(curl, "GET http://reviews:9080/").await?;
        mesh.expect_status(curl, "GET http://productpage:9080/", 200)
            .await?;
        mesh.expect_status(page, "GET http://productpage:9080/", 200)
            .await?;
        mesh.expect_reset(page, "GET http://ratings:9080/").await?;
        Ok(())
    });
}

#[test]
fn guide_33_virtual_machines_are_endpoints_and_callers() {
    world("33-vm-workload-entry", no_edit, async |_, mesh| {
        mesh.expect_status("billing/client", "GET http://billing/", 200)
            .await?;
        let mut machine = 0;
        for _ in 0..100 {
            let outcome = mesh
                .world
                .call("billing/client", "GET http://billing/")
                .await?;
            ensure!(outcome.status() == 200, "{outcome:?}");
            machine += u32::from(outcome.seen("pod") == "legacy-billing-vm");
        }
        ensure!(
            (25..=75).contains(&machine),
            "{machine} of 100 by the machine"
        );
        let identity = peer_identity(mesh, "billing/billing-pod").await?;
        ensure!(
            identity == Some(mesh.identity("billing/client")?),
            "{identity:?}"
        );
        for _ in 0..20 {
            let outcome = mesh
                .world
                .call("billing/client", "GET http://billing-named/")
                .await?;
            ensure!(outcome.seen("pod") == "billing-pod", "{outcome:?}");
        }
        let pod = mesh.world.pod("billing/billing-pod")?.0.ip;
        let reports = mesh.daemon.identity("billing", "reports-sa")?;
        let caller = HboneClient::new(Arc::new(reports), None)?;
        let request = http_client::request(http::Method::GET, "billing", "/")?;
        let answer = caller
            .request((pod, 15008).into(), &format!("{pod}:9090"), request)
            .await?;
        ensure!(answer.status == 200, "{answer:?}");
        mesh.expect_reset("billing/nameless-vm", &format!("GET http://{pod}:9090/"))
            .await?;
        Ok(())
    });
}

#[test]
fn guide_38_pods_of_a_stateful_set_have_a_waypoint_of_their_own() {
    world("38-stateful-workload-waypoint", no_edit, async |_, mesh| {
        let caller = "payments/checkout";
        let by_pod = peer_is(mesh, "payments/pods-wp")?;
        let by_service = peer_is(mesh, "payments/waypoint")?;
        let direct = peer_is(mesh, caller)?;
        let score = "http://fraud-score-0.fraud-score:8080/";
        mesh.expect(caller, &format!("GET {score}"), &by_pod)
            .await?;
        mesh.expect_status(caller, &format!("POST {score}"), 403)
            .await?;
        mesh.expect(
            caller,
            "POST http://fraud-audit-0.fraud-audit:8080/",
            &direct,
        )
        .await?;
        mesh.expect(caller, "POST http://fraud-score-vip/", &by_service)
            .await?;
        let (pod, inside) = mesh.world.pod("payments/fraud-score-0")?;
        let name = "fraud-score-0.fraud-score";
        let (server, client) = tls_of(mesh, name)?;
        let at = SocketAddr::new(pod.ip, 8443);
        let listener = inside.run(|| std::net::TcpListener::bind(at))??;
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let serve = async {
            let (stream, _) = listener.accept().await?;
            let mut stream = server.accept(stream).await?;
            stream.write_all(b"whole").await?;
            stream.shutdown().await
        };
        let (_, checkout) = mesh.world.pod(caller)?;
        let call = async {
            let stream = checkout.connect(at).await?;
            let mut stream = client.connect(name.try_into()?, stream).await?;
            let mut text = String::new();
            stream.read_to_string(&mut text).await?;
            anyhow::Ok(text)
        };
        let (served, text) =
            tokio::time::timeout(LIMIT, async { tokio::join!(serve, call) }).await?;
        served?;
        ensure!(
            text? == "whole",
            "the application's own TLS did not get through"
        );
        Ok(())
    });
}

/// Both ends of TLS with a certificate for one name.
fn tls_of(mesh: &LabMesh, name: &str) -> anyhow::Result<(TlsAcceptor, TlsConnector)> {
    let ca = mesh.daemon.ca()?;
    let issued = ca.issue_server(&[name], &[], SystemTime::now())?;
    let chain =
        CertificateDer::pem_slice_iter(issued.chain_pem.as_bytes()).collect::<Result<_, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(issued.key_pem.as_bytes())?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca.root_pem().as_bytes())?)?;
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok((
        TlsAcceptor::from(Arc::new(server)),
        TlsConnector::from(Arc::new(client)),
    ))
}

#[test]
fn guide_40_waypoint_works_only_once_its_callers_are_captured() {
    world("40-waypoint-without-enrolment", no_edit, async |_, mesh| {
        let (caller, call) = ("bookinfo/productpage", "POST http://reviews:9080/anything");
        let direct = peer_is(mesh, caller)?;
        mesh.expect(caller, call, &direct).await?;
        mesh.edit(|text| {
            text.replace(
                "    kubernetes.io/metadata.name: bookinfo\n",
                "    kubernetes.io/metadata.name: bookinfo\n    istio.io/dataplane-mode: ambient\n",
            )
            .replace(
                "  namespace: bookinfo\n  labels:\n    app: ",
                "  namespace: bookinfo\n  annotations: {ambient.istio.io/redirection: enabled}\n  labels:\n    app: ",
            )
        })?;
        for pod in ["productpage", "reviews-v1", "reviews-v2", "ratings"] {
            mesh.capture(&format!("bookinfo/{pod}"))?;
        }
        mesh.expect_status(caller, call, 403).await?;
        let through = peer_is(mesh, "bookinfo/reviews-waypoint")?;
        mesh.expect(caller, "GET http://reviews:9080/reviews/1", &through)
            .await?;
        Ok(())
    });
}

#[test]
fn guide_07_fail_closed_namespace_resets_until_the_label_names_a_waypoint() {
    let fail_closed = |text: String| {
        text.replace(
            "    kubernetes.io/metadata.name: bookinfo\n",
            "    kubernetes.io/metadata.name: bookinfo\n    ambientd.io/waypoint-missing: fail-closed\n",
        )
    };
    world("07-waypoint-mismatch", fail_closed, async |_, mesh| {
        let caller = "bookinfo/productpage";
        mesh.expect_reset(caller, "GET http://reviews:9080/reviews/1")
            .await?;
        mesh.expect_reset(caller, "POST http://reviews:9080/anything")
            .await?;
        mesh.edit(|text| {
            text.replace(
                "use-waypoint: review-waypoint",
                "use-waypoint: reviews-waypoint",
            )
        })?;
        let through = peer_is(mesh, "bookinfo/reviews-waypoint")?;
        mesh.expect(caller, "GET http://reviews:9080/reviews/1", &through)
            .await?;
        mesh.expect_status(caller, "POST http://reviews:9080/anything", 403)
            .await?;
        Ok(())
    });
}

/// The IPv4 addresses of a service's resource as `render` shows them.
fn rendered_addresses(mesh: &LabMesh, service: &str) -> anyhow::Result<Vec<Ipv4Addr>> {
    let rendered = mesh.daemon.render("ztunnel")?;
    let types = rendered.as_object().context("types")?;
    let found = types
        .values()
        .find_map(|resources| resources.get(service))
        .with_context(|| format!("{service} is not rendered"))?;
    let addresses = found["service"]["addresses"].as_array();
    let decode = |address: &serde_json::Value| {
        let text = address["address"].as_str()?;
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(text)
            .ok()?;
        Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?))
    };
    Ok(addresses.into_iter().flatten().filter_map(decode).collect())
}

#[test]
fn guide_27_ztunnel_answers_for_external_names_with_the_allocated_address() {
    // Without anybody to ask for external names Envoy would wait: there is none in the pod.
    let no_envoy = |text: String| without_object(&text, "Pod", "egress-waypoint");
    world("27-egress-tls-origination", no_envoy, async |_, mesh| {
        let server = "10.96.0.10".parse()?;
        for (caller, service, host) in [
            (
                "bookinfo/productpage",
                "bookinfo/api.external.example.com",
                "api.external.example.com",
            ),
            (
                "unbound/client",
                "unbound/loose.external.example.com",
                "loose.external.example.com",
            ),
        ] {
            let expected = rendered_addresses(mesh, service)?;
            ensure!(
                matches!(expected[..], [ip] if ip.octets()[..2] == [240, 240]),
                "{service}: {expected:?}"
            );
            let (_, pod) = mesh.world.pod(caller)?;
            let found = resolve_by_dns(pod, server, host)?;
            ensure!(found == expected, "{host}: {found:?}, not {expected:?}");
        }
        Ok(())
    });
}
