//! What a proxy receives, as canonical proto-JSON; findings and status as plain JSON.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use model::object::Input;
use model::{Finding, ObjectKey, ProxyClass};
use pipeline::Pipeline;
use serde_json::{Map, Value};
use snapshot::{ResourceMap, ResourceType, Snapshot};
use std::sync::Arc;
use std::time::SystemTime;

use crate::config::RenderType;
use crate::target::Target;

impl RenderType {
    /// The resource type it stands for.
    pub fn resource_type(self) -> ResourceType {
        match self {
            Self::Address => ResourceType::Address,
            Self::Authorization => ResourceType::Authorization,
            Self::Lds => ResourceType::Listener,
            Self::Rds => ResourceType::Route,
            Self::Cds => ResourceType::Cluster,
            Self::Eds => ResourceType::Endpoint,
        }
    }
}

/// Runs the pipeline once over complete inputs, with the proxy of `target` connected.
///
/// # Errors
/// When the inputs lack the complete list of a kind.
pub fn snapshot(
    mut pipeline: Pipeline,
    mut inputs: Vec<Input>,
    target: &Target,
) -> anyhow::Result<Arc<Snapshot>> {
    let classes = classes_of(target).into_iter();
    inputs.extend(classes.map(|class| Input::Interest(class, true)));
    pipeline
        .apply(inputs)
        .context("the source did not deliver every kind")
}

/// The classes of which `render` assumes one: stock Envoy with its certificate from `sds-grpc`.
/// Which of two a Gateway has its GatewayClass says; there is nothing for the other.
fn classes_of(target: &Target) -> Vec<ProxyClass> {
    match target {
        Target::Waypoint(key) => vec![ProxyClass::waypoint(key.clone())],
        Target::Gateway(key) => vec![
            ProxyClass::ingress(key.clone()),
            ProxyClass::east_west(key.clone()),
        ],
        Target::EastWest(key) => vec![ProxyClass::east_west(key.clone())],
        Target::Ztunnel | Target::Deployment(_) | Target::Findings | Target::Status => Vec::new(),
    }
}

/// The class that a target has in a snapshot made for it, where it is there.
pub fn class_of(snapshot: &Snapshot, target: &Target) -> Option<ProxyClass> {
    let mut classes = classes_of(target).into_iter();
    classes.find(|class| {
        let proxy = snapshot.proxies.get(class);
        proxy.is_some_and(|proxy| !proxy.listeners.is_empty())
    })
}

/// Type URL → resource name → proto-JSON of everything that `target` receives;
/// an array for [`Target::Findings`] and [`Target::Status`], a list of objects for
/// [`Target::Deployment`].
///
/// # Errors
/// When a resource does not decode as its own type (a defect of ambientd), or a type
/// does not exist for the target.
pub fn render(snapshot: &Snapshot, target: &Target, types: &[RenderType]) -> anyhow::Result<Value> {
    let wanted = |offered: &[ResourceType]| -> anyhow::Result<Vec<ResourceType>> {
        for asked in types {
            if !offered.contains(&asked.resource_type()) {
                bail!("--type {asked:?} does not exist for {target}");
            }
        }
        Ok(offered
            .iter()
            .copied()
            .filter(|ty| types.is_empty() || types.iter().any(|asked| asked.resource_type() == *ty))
            .collect())
    };
    let (class, offered) = match target {
        Target::Deployment(_) | Target::Findings | Target::Status => {
            if let Some(asked) = types.first() {
                bail!("--type {asked:?} does not exist for {target}");
            }
            return Ok(match target {
                Target::Deployment(gateway) => deployment(snapshot, gateway),
                Target::Status => status(snapshot),
                _ => findings(&all_findings(snapshot)),
            });
        }
        Target::Ztunnel => (
            None,
            vec![ResourceType::Address, ResourceType::Authorization],
        ),
        Target::Waypoint(_) | Target::Gateway(_) | Target::EastWest(_) => (
            class_of(snapshot, target).or_else(|| classes_of(target).pop()),
            vec![
                ResourceType::Cluster,
                ResourceType::Endpoint,
                ResourceType::Listener,
                ResourceType::Route,
            ],
        ),
    };
    let mut out = Map::new();
    for ty in wanted(&offered)? {
        let resources = match snapshot.resources(class.as_ref(), ty) {
            Some(resources) => resources_json(ty, resources)?,
            None => Value::Object(Map::new()),
        };
        out.insert(ty.type_url().to_owned(), resources);
    }
    Ok(Value::Object(out))
}

/// Resource name → proto-JSON.
///
/// # Errors
/// When a resource does not decode as its own type.
pub fn resources_json(ty: ResourceType, resources: &ResourceMap) -> anyhow::Result<Value> {
    let mut out = BTreeMap::new();
    for resource in resources.iter() {
        let value = proto::json::to_json(ty.type_url(), &resource.payload())
            .with_context(|| format!("{} {}", ty.type_url(), resource.name()))?;
        out.insert(resource.name().to_string(), value);
    }
    Ok(Value::Object(out.into_iter().collect()))
}

/// The findings of a snapshot, and those that time alone brings about.
pub fn all_findings(snapshot: &Snapshot) -> Vec<Finding> {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now_s = since.map_or(0, |since| {
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    });
    let mut all = snapshot.findings.to_vec();
    all.extend(snapshot.secrets.expired(now_s));
    all.sort_unstable();
    all
}

/// The objects that a Gateway runs as, in the order in which they are applied, as a `List` that
/// kubectl takes; an empty one where its deployment is not ours to make.
pub fn deployment(snapshot: &Snapshot, gateway: &ObjectKey) -> Value {
    let row = snapshot.deployments.get(gateway);
    let objects = row.into_iter().flat_map(|row| &row.objects);
    let items: Vec<Value> = objects.map(|object| object.body.clone()).collect();
    serde_json::json!({"apiVersion": "v1", "kind": "List", "items": items})
}

/// Findings as an array of `{code, severity, kind, namespace, name, field, message, fix}`.
pub fn findings(findings: &[Finding]) -> Value {
    Value::Array(
        findings
            .iter()
            .filter_map(|f| serde_json::to_value(f).ok())
            .collect(),
    )
}

/// Status as an array of `{apiVersion, kind, namespace, name[, conditions][, addresses]
/// [, listeners][, parents]}`, sorted by kind, namespace and name; objects of which nothing is to
/// be said are left out.
pub fn status(snapshot: &Snapshot) -> Value {
    let rows = snapshot.statuses.iter();
    let objects = model::status::by_object(rows.map(|(key, row)| (key, row.as_ref())));
    Value::Array(
        objects
            .iter()
            .filter_map(|object| serde_json::to_value(object).ok())
            .collect(),
    )
}
