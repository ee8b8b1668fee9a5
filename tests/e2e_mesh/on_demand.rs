//! Ztunnels that ask for what they need, when they need it.

use super::*;

fn on_demand() -> MeshOptions {
    MeshOptions {
        on_demand: true,
        ..MeshOptions::default()
    }
}

#[test]
fn ztunnels_that_ask_on_demand_serve_requests_by_service_and_by_address() {
    world_with(
        "01-enrol-namespace",
        on_demand(),
        no_edit,
        async |_, mesh| {
            let orders = mesh
                .expect_status("shop/web", "GET http://orders.shop/", 200)
                .await?;
            let name = format!("shop/{}", orders.seen("pod"));
            let identity = peer_identity(mesh, &name).await?;
            ensure!(identity == Some(mesh.identity("shop/web")?), "{identity:?}");
            let pod = &mesh.world.pod(&name)?.0;
            let at = format!("GET http://{}:{}/", pod.ip, pod.ports[0].1);
            mesh.expect_status("shop/web", &at, 200).await?;

            // The first connection to an address is held until ztunnel knows of it, and no longer.
            let catalog = mesh
                .world
                .call("shop/web", "GET http://catalog.legacy/")
                .await?;
            ensure!(catalog.seen("pod") == "catalog", "{catalog:?}");

            // From outside, and to somebody of whom there is nothing to be told.
            mesh.expect_status("legacy/old-client", "GET http://orders.shop/", 200)
                .await?;
            let elsewhere = SocketAddr::from((CONTROL_PLANE_IP, 9099));
            let _app = App::start(elsewhere, "elsewhere", "v1").await?;
            let call = format!("GET http://{elsewhere}/");
            let answer = mesh.expect_status("shop/web", &call, 200).await?;
            ensure!(answer.seen("pod") == "elsewhere", "{answer:?}");

            // They hold less than there is.
            let all = dump::expected(&mesh.daemon.render("ztunnel")?)?.len();
            for (node, ztunnel) in &mesh.ztunnels {
                let held = ztunnel.config_dump().await?;
                let lists = ["workloads", "services", "policies"].map(|key| held[key].as_array());
                let count: usize = lists.into_iter().flatten().map(Vec::len).sum();
                ensure!(count > 0 && count < all, "{node} holds {count} of {all}");
            }
            Ok(())
        },
    );
}

/// ztunnel asks for the destinations of connections, but never for the waypoint that one of them
/// names: it refuses the connection, until somebody has called the waypoint itself.
#[test]
fn ztunnels_that_ask_on_demand_go_round_no_waypoint_that_they_do_not_know() {
    let (world, options) = ("03-waypoint-namespace", on_demand());
    world_with(world, options, no_edit, async |_, mesh| {
        let (caller, call) = ("bookinfo/productpage", "GET http://reviews:9080/reviews/1");
        let direct = peer_is(mesh, caller)?;
        mesh.expect(caller, "GET http://10.244.2.12:9080/", &direct)
            .await?;
        mesh.expect_reset(caller, call).await?;
        mesh.expect_status(
            caller,
            "GET http://bookinfo-waypoint:15021/healthz/ready",
            200,
        )
        .await?;
        let through = peer_is(mesh, "bookinfo/bookinfo-waypoint")?;
        mesh.expect(caller, call, &through).await?;
        Ok(())
    });
}

#[test]
fn ztunnels_that_ask_on_demand_enforce_policies() {
    world_with("09-zero-trust-l4", on_demand(), no_edit, async |_, mesh| {
        let orders = "GET http://orders.shop/";
        mesh.expect_status("shop/web", orders, 200).await?;
        mesh.expect_reset("shop/probe", orders).await?;
        mesh.expect_reset("partner/web", orders).await?;
        mesh.expect_reset("legacy/old-client", orders).await?;
        mesh.edit(|text| without_object(text, "AuthorizationPolicy", "orders-allow-web"))?;
        mesh.expect_reset("shop/web", orders).await?;
        Ok(())
    });
}
