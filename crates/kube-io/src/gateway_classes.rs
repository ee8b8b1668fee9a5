//! GatewayClasses that are there without anybody making them.
//!
//! In: which classes the watch saw. Out: those that are missing, created. Every replica does so,
//! for whoever is first makes the same; that another was is no error.
//!
//! **Invariants**
//! - Nothing is created before the list of classes is complete, so not before there are any.
//! - A class that is there is left alone, whatever it says; one that is deleted comes back.
//!
//! Source: spec/gateway-api.md §1.1, §1.2.

use std::time::Duration;

use kube::Client;
use kube::api::{DynamicObject, PostParams};
use model::{GatewayController, Kind, ObjectKey, ObjectRef};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::jitter::{backoff, jittered};
use crate::status::{api, resource};
use crate::write::{ATTEMPTS_MAX, Failure, PAUSE, REQUEST_TIMEOUT};
use crate::{Health, KindState, Observed, Reports};

/// Time between two looks at what is there.
const LOOK: Duration = Duration::from_secs(1);
/// Wait before a class that was asked for is asked for again, unless the watch has told of it.
const SETTLE: Duration = Duration::from_secs(5);
/// Wait after a first failure; doubles.
const BACKOFF: Duration = Duration::from_secs(1);
/// What is asked for, as reports call it.
const WHAT: &str = "create gatewayclasses.gateway.networking.k8s.io";

/// What creates GatewayClasses.
pub struct ClassCreator {
    /// Of the API server.
    pub client: Client,
    /// Which classes there are.
    pub observed: Observed,
    /// Whether that is known.
    pub health: Health,
    /// Whose classes are created.
    pub controllers: Vec<GatewayController>,
    /// Where refusals are told.
    pub reports: Reports,
}

/// A class, and when it is looked after again.
struct Class {
    controller: GatewayController,
    object: ObjectRef,
    failures: u32,
    not_before: Instant,
}

/// Creates classes that are missing until cancelled.
pub async fn run(creator: ClassCreator, stop: CancellationToken) {
    let now = Instant::now();
    let of = |controller: &GatewayController| Class {
        controller: *controller,
        object: ObjectRef::new(Kind::GatewayClass, ObjectKey::cluster(controller.class())),
        failures: 0,
        not_before: now,
    };
    let mut classes: Vec<Class> = creator.controllers.iter().map(of).collect();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = creator.look(&mut classes) => {}
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(jittered(LOOK)) => {}
        }
    }
}

// === impl ClassCreator ===

impl ClassCreator {
    async fn look(&self, classes: &mut [Class]) {
        for class in classes {
            let is_known = self.health.state(Kind::GatewayClass) == Some(KindState::Watching);
            if !is_known || self.observed.get(&class.object).is_some() {
                class.failures = 0;
                continue;
            }
            if class.not_before <= Instant::now() {
                self.create(class).await;
            }
        }
    }

    async fn create(&self, class: &mut Class) {
        let name = class.controller.class();
        let resource = resource(&class.object, &Kind::GatewayClass.api_version());
        let classes = api(&self.client, &class.object, &resource);
        let Ok(body) = serde_json::from_value::<DynamicObject>(body(class.controller)) else {
            return;
        };
        let parameters = PostParams::default();
        let created = timeout(REQUEST_TIMEOUT, classes.create(&parameters, &body)).await;
        let failure = match created {
            Ok(Ok(_)) => {
                info!(name, "GatewayClass created");
                None
            }
            Ok(Err(error)) => match Failure::of(&error, name) {
                Failure::Conflict => None,
                failure => Some(failure),
            },
            Err(_) => Some(Failure::Other("no answer in time".to_owned())),
        };
        let now = Instant::now();
        let Some(failure) = failure else {
            self.reports.allowed(WHAT, "");
            class.failures = 0;
            class.not_before = now + SETTLE;
            return;
        };
        class.failures += 1;
        class.not_before = now + backoff(BACKOFF, PAUSE, class.failures);
        match failure {
            Failure::Refused(message) => {
                let _ = self.reports.refused(WHAT, "", &message);
            }
            failure if class.failures == ATTEMPTS_MAX => {
                warn!(
                    name,
                    ?failure,
                    "GatewayClass not created, it is tried again"
                );
            }
            failure => debug!(name, ?failure, "GatewayClass not created"),
        }
    }
}

/// The class of a controller.
fn body(controller: GatewayController) -> Value {
    let description = match controller {
        GatewayController::Ingress => "Gateways into the mesh",
        GatewayController::Waypoint => "Layer 7 proxies of ambient mesh",
        GatewayController::EastWest => "Gateways between networks of the mesh",
        GatewayController::Remote => "Gateways that are run elsewhere",
    };
    json!({
        "apiVersion": Kind::GatewayClass.api_version(),
        "kind": Kind::GatewayClass.as_str(),
        "metadata": {"name": controller.class()},
        "spec": {"controllerName": controller.name(), "description": description},
    })
}

#[cfg(test)]
mod tests;
