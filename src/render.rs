//! What a proxy receives, as canonical proto-JSON; findings and status as plain JSON.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use model::object::Input;
use model::{Finding, ProxyClass};
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
    if let Some(class) = class_of(target) {
        inputs.push(Input::Interest(class, true));
    }
    pipeline
        .apply(inputs)
        .context("the source did not deliver every kind")
}

/// The class that `render` assumes: stock Envoy with its certificate from `sds-grpc`.
pub fn class_of(target: &Target) -> Option<ProxyClass> {
    match target {
        Target::Waypoint(key) => Some(ProxyClass::waypoint(key.clone())),
        Target::Gateway(key) => Some(ProxyClass::ingress(key.clone())),
        Target::Ztunnel | Target::Findings | Target::Status => None,
    }
}

/// Type URL → resource name → proto-JSON of everything that `target` receives;
/// an array for [`Target::Findings`] and [`Target::Status`].
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
        Target::Findings | Target::Status => {
            if let Some(asked) = types.first() {
                bail!("--type {asked:?} does not exist for {target}");
            }
            return Ok(match target {
                Target::Status => status(snapshot),
                _ => findings(&all_findings(snapshot)),
            });
        }
        Target::Ztunnel => (
            None,
            vec![ResourceType::Address, ResourceType::Authorization],
        ),
        Target::Waypoint(_) | Target::Gateway(_) => (
            class_of(target),
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
