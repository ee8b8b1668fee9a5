//! Claims about which classes are created, and when. Source: spec/gateway-api.md §1.2.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::sync::Arc;

use http::Method;
use parking_lot::Mutex;

use super::*;
use crate::ObservedStatus;
use crate::scripted::{self, Asked, pass};

struct World {
    observed: Observed,
    health: Health,
    requests: Arc<Mutex<Vec<Value>>>,
}

/// A creator of two classes, and an API server that answers with this code unless it is 201; then
/// the watch tells of the class.
fn world(code: u16) -> World {
    let world = World {
        observed: Observed::default(),
        health: Health::default(),
        requests: Arc::default(),
    };
    let (log, observed) = (Arc::clone(&world.requests), world.observed.clone());
    let client = scripted::client("default", move |Asked { method, uri, body }| {
        assert_eq!(method, Method::POST);
        assert_eq!(
            uri.path(),
            "/apis/gateway.networking.k8s.io/v1/gatewayclasses"
        );
        log.lock().push(body.clone());
        if code == 201 {
            let name = body["metadata"]["name"].as_str().unwrap();
            observed.set(class(name), Some(ObservedStatus::default()));
            return std::future::ready(Ok((201, body)));
        }
        let message =
            "gatewayclasses is forbidden: User \"u\" cannot create resource \"gatewayclasses\"";
        let status = json!({"kind": "Status", "code": code, "message": message});
        std::future::ready(Ok((code, status)))
    });
    let creator = ClassCreator {
        client,
        observed: world.observed.clone(),
        health: world.health.clone(),
        controllers: vec![GatewayController::Ingress, GatewayController::Waypoint],
        reports: Reports::default(),
    };
    tokio::spawn(run(creator, CancellationToken::new()));
    world
}

fn class(name: &str) -> ObjectRef {
    ObjectRef::new(Kind::GatewayClass, ObjectKey::cluster(name))
}

impl World {
    fn is(&self, state: KindState) {
        self.health.set(Kind::GatewayClass, state, "");
    }

    fn created(&self) -> Vec<String> {
        let requests = self.requests.lock();
        let names = requests.iter().map(|it| it["metadata"]["name"].as_str());
        names.map(|name| name.unwrap().to_owned()).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn missing_classes_are_created_once_the_list_is_complete_and_come_back() {
    let world = world(201);
    world.is(KindState::Listing);
    pass(10).await;
    world.is(KindState::Absent);
    pass(10).await;
    assert!(world.created().is_empty());
    // One is there already, of whatever controller.
    let there = Some(ObservedStatus::default());
    world.observed.set(class("istio-waypoint"), there);
    world.is(KindState::Watching);
    pass(60).await;
    assert_eq!(world.created(), ["istio"]);
    let first = world.requests.lock()[0].clone();
    assert_eq!(
        first["spec"]["controllerName"],
        "istio.io/gateway-controller"
    );
    assert_eq!(first["metadata"], json!({"name": "istio"}));
    world.observed.set(class("istio-waypoint"), None);
    pass(60).await;
    assert_eq!(world.created(), ["istio", "istio-waypoint"]);
    // The definition goes, and all classes with it.
    world.is(KindState::Absent);
    world.observed.retain("GatewayClass", |_| false);
    pass(60).await;
    assert_eq!(world.created().len(), 2);
    world.is(KindState::Watching);
    pass(60).await;
    assert_eq!(world.created().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_is_tried_ever_more_seldom_and_what_exists_is_no_error() {
    for (code, most) in [(403, 150), (500, 150), (409, 1_500)] {
        let world = world(code);
        world.is(KindState::Watching);
        pass(3_600).await;
        let count = world.created().len();
        assert!(count > 2 && count < most, "{code} {count}");
    }
}
