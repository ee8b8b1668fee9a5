//! Settings out of Istio's Helm values, as istiod is given them beside its injection template.
//! Source: spec/gateway-api.md §2.4-2.6.

use serde_json::Value;

use model::Str;

use super::{Settings, TrustBundle};

/// A value of another type than its field has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} is {problem}")]
pub struct ValuesError {
    /// Path in the values.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: &'static str,
}

/// The values, read by path.
struct Values<'a>(&'a Value);

// === impl Values ===

impl Values<'_> {
    fn get(&self, path: &str) -> Option<&Value> {
        let mut at = self.0;
        for part in path.split('.') {
            at = at.get(part)?;
        }
        Some(at).filter(|value| !value.is_null())
    }

    fn text(&self, path: &'static str, into: &mut Str) -> Result<(), ValuesError> {
        match self.get(path) {
            None => {}
            Some(Value::String(text)) => *into = Str::from(text.as_str()),
            // An unquoted tag such as 1.32 is a number.
            Some(Value::Number(number)) => *into = arcstr::format!("{number}"),
            Some(_) => return Err(error(path, "no text")),
        }
        Ok(())
    }

    fn flag(&self, path: &'static str, into: &mut bool) -> Result<(), ValuesError> {
        match self.get(path) {
            None => {}
            Some(Value::Bool(is_on)) => *into = *is_on,
            Some(_) => return Err(error(path, "neither true nor false")),
        }
        Ok(())
    }

    /// An object or a list; an empty one says nothing.
    fn tree(&self, path: &'static str) -> Result<Option<Value>, ValuesError> {
        match self.get(path) {
            None => Ok(None),
            Some(Value::Object(map)) if map.is_empty() => Ok(None),
            Some(Value::Array(list)) if list.is_empty() => Ok(None),
            Some(value @ (Value::Object(_) | Value::Array(_))) => Ok(Some(value.clone())),
            Some(_) => Err(error(path, "neither a mapping nor a list")),
        }
    }
}

fn error(field: &'static str, problem: &'static str) -> ValuesError {
    ValuesError { field, problem }
}

// === impl Settings ===

impl Settings {
    /// These settings with what values of Istio's charts say in their place. What they do not
    /// say, and what is of no concern to gateways, changes nothing.
    ///
    /// # Errors
    /// A value of another type than its field has.
    pub fn with_values(mut self, values: &Value) -> Result<Self, ValuesError> {
        let values = Values(values);
        self.images(&values)?;
        self.shape(&values)?;
        values.text("global.proxy.logLevel", &mut self.log.proxy)?;
        values.text("global.proxy.componentLogLevel", &mut self.log.components)?;
        values.text("global.logging.level", &mut self.log.agent)?;
        values.flag("global.logAsJson", &mut self.log.as_json)?;
        let name = "global.multiCluster.clusterName";
        values.text(name, &mut self.cluster_name)?;
        values.text("global.network", &mut self.network)?;
        values.text("global.meshID", &mut self.mesh_id)?;
        values.text("global.caAddress", &mut self.ca_address)?;
        values.text("global.pilotCertProvider", &mut self.cert_provider)?;
        let mut bundle = Str::new();
        values.text("global.trustBundleName", &mut bundle)?;
        if !bundle.is_empty() {
            self.trust_bundle = TrustBundle::ConfigMap(bundle);
        }
        Ok(self)
    }

    fn images(&mut self, values: &Values<'_>) -> Result<(), ValuesError> {
        values.text("global.hub", &mut self.istio_image.hub)?;
        values.text("global.tag", &mut self.istio_image.tag)?;
        values.text("global.variant", &mut self.istio_image.variant)?;
        values.text("global.proxy.image", &mut self.istio_image.name)?;
        let mut policy = Str::new();
        values.text("global.imagePullPolicy", &mut policy)?;
        if !policy.is_empty() {
            self.image_pull_policy = Some(policy);
        }
        let secrets = "global.imagePullSecrets";
        if let Some(list) = values.tree(secrets)? {
            let names = list.as_array().into_iter().flatten();
            let names: Option<Vec<Str>> = names.map(|name| name.as_str().map(Str::from)).collect();
            self.image_pull_secrets = names.ok_or_else(|| error(secrets, "no list of names"))?;
        }
        Ok(())
    }

    fn shape(&mut self, values: &Values<'_>) -> Result<(), ValuesError> {
        if let Some(resources) = values.tree("global.proxy.resources")? {
            self.gateway_resources = resources;
        }
        if let Some(resources) = values.tree("global.waypoint.resources")? {
            self.waypoint_resources = resources;
        }
        let scheduling = &mut self.waypoint_scheduling;
        for (path, into) in [
            ("global.waypoint.affinity", &mut scheduling.affinity),
            (
                "global.waypoint.topologySpreadConstraints",
                &mut scheduling.topology_spread_constraints,
            ),
            (
                "global.waypoint.nodeSelector",
                &mut scheduling.node_selector,
            ),
            ("global.waypoint.tolerations", &mut scheduling.tolerations),
            (
                "gateways.securityContext",
                &mut self.gateway_security_context,
            ),
            ("gateways.seccompProfile", &mut self.seccomp_profile),
            ("global.proxy.lifecycle", &mut self.lifecycle),
        ] {
            if let Some(value) = values.tree(path)? {
                *into = Some(value);
            }
        }
        let path = "global.proxy.outlierLogPath";
        values.text(path, &mut self.outlier_log_path)?;
        let mut platform = Str::new();
        values.text("global.platform", &mut platform)?;
        self.is_openshift |= platform == "openshift";
        let sts = "global.sts.servicePort";
        if let Some(port) = values.get(sts) {
            let number = port.as_u64().and_then(|port| u16::try_from(port).ok());
            self.sts_port = number.ok_or_else(|| error(sts, "no port"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    #[test]
    fn values_replace_what_they_name_and_nothing_else() {
        let values = json!({
            "global": {
                "hub": "registry.example.com/mesh",
                "tag": 1.5,
                "imagePullSecrets": ["pull"],
                "proxy": {"logLevel": "debug", "resources": {"limits": {"cpu": "1"}}},
                "waypoint": {"resources": {}, "nodeSelector": {"kind": "edge"}},
                "sts": {"servicePort": 0},
                "multiCluster": {"clusterName": "east", "enabled": true},
                "network": null,
                "platform": "openshift",
                "somethingElse": [1],
            },
            "gateways": {"seccompProfile": {"type": "RuntimeDefault"}, "securityContext": {}},
            "revision": "x",
        });
        let usual = Settings::default();
        let mut wanted = usual.clone();
        wanted.istio_image.hub = "registry.example.com/mesh".into();
        wanted.istio_image.tag = "1.5".into();
        wanted.image_pull_secrets = vec!["pull".into()];
        wanted.log.proxy = "debug".into();
        wanted.gateway_resources = json!({"limits": {"cpu": "1"}});
        wanted.waypoint_scheduling.node_selector = Some(json!({"kind": "edge"}));
        wanted.cluster_name = "east".into();
        wanted.is_openshift = true;
        wanted.seccomp_profile = Some(json!({"type": "RuntimeDefault"}));
        assert_eq!(usual.clone().with_values(&values).unwrap(), wanted);
        assert_eq!(usual.clone().with_values(&json!({})).unwrap(), usual);
    }

    #[test]
    fn a_value_of_another_type_is_named() {
        for (values, field) in [
            (json!({"global": {"hub": []}}), "global.hub"),
            (json!({"global": {"logAsJson": "yes"}}), "global.logAsJson"),
            (
                json!({"global": {"sts": {"servicePort": 70000}}}),
                "global.sts.servicePort",
            ),
            (
                json!({"global": {"imagePullSecrets": [{"name": "x"}]}}),
                "global.imagePullSecrets",
            ),
            (
                json!({"global": {"waypoint": {"affinity": "x"}}}),
                "global.waypoint.affinity",
            ),
        ] {
            let error = Settings::default().with_values(&values).unwrap_err();
            assert_eq!(error.field, field);
        }
    }
}
