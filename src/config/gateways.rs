//! What the proxies are made of that are deployed for Gateways.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use gateway::deployment::{PodForms, Settings};
use serde_json::Value;

use super::MeshArgs;
use super::values::Switch;

/// What the proxies are made of that are deployed for Gateways.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Gateways")]
pub struct GatewayArgs {
    /// Deploy proxies for Gateways.
    #[arg(
        long,
        env = "PILOT_ENABLE_GATEWAY_API_DEPLOYMENT_CONTROLLER",
        value_name = "BOOL",
        default_value = "true"
    )]
    pub deploy_gateways: Switch,
    /// Give what is deployed the labels and annotations of its Gateway, where
    /// `spec.infrastructure` has none.
    #[arg(
        long,
        env = "PILOT_ENABLE_GATEWAY_API_COPY_LABELS_ANNOTATIONS",
        value_name = "BOOL",
        default_value = "true"
    )]
    pub copy_gateway_metadata: Switch,
    /// What the pods run: `stock` is Envoy's own image under `ambientd agent`, `istio` is Istio's
    /// proxy image. A class may have another: `stock,istio-waypoint=istio`; annotation
    /// `ambientd.io/proxy` of a Gateway counts over both.
    #[arg(
        long,
        env = "AMBIENTD_GATEWAY_PROXY",
        value_name = "FORM",
        default_value = "stock"
    )]
    pub gateway_proxy: PodForms,
    /// Envoy's image; `/usr/local/bin/envoy` is Envoy.
    #[arg(
        long,
        env = "AMBIENTD_GATEWAY_ENVOY_IMAGE",
        value_name = "IMAGE",
        default_value = "docker.io/envoyproxy/envoy:distroless-v1.40.0"
    )]
    pub gateway_envoy_image: String,
    /// Image with `/usr/local/bin/ambientd`; by default that of the control plane's own pod.
    /// Empty where Envoy's image has it too.
    #[arg(long, env = "AMBIENTD_GATEWAY_AGENT_IMAGE", value_name = "IMAGE")]
    pub gateway_agent_image: Option<String>,
    /// Values of Istio's charts (`global`, `gateways`) for these pods, if the file exists: hub,
    /// tag, resources, log levels and so on.
    #[arg(
        long,
        env = "AMBIENTD_GATEWAY_VALUES",
        value_name = "FILE",
        default_value = "/var/lib/istio/inject/values"
    )]
    pub gateway_values: PathBuf,
}

/// Image of the agent where nobody says another.
const AGENT_IMAGE: &str = "ambientd:latest";
/// Bytes of the file with values that are read.
const VALUES_BYTES_MAX: u64 = 4 * 1024 * 1024;

impl MeshArgs {
    /// What is said of the proxies that are deployed; `None` where none are.
    ///
    /// # Errors
    /// When the file with values cannot be read, or has a value that makes no sense.
    pub fn deployments(&self) -> anyhow::Result<Option<Settings>> {
        let args = &self.gateways;
        if !args.deploy_gateways.is_on() {
            return Ok(None);
        }
        let mut out = Settings::default();
        if let Some(values) = args.values()? {
            let file = args.gateway_values.display();
            out = out
                .with_values(&values)
                .with_context(|| format!("--gateway-values {file}"))?;
        }
        out.forms = args.gateway_proxy;
        out.stock_image.envoy = args.gateway_envoy_image.as_str().into();
        let agent = args.gateway_agent_image.as_deref().unwrap_or(AGENT_IMAGE);
        out.stock_image.agent = Some(agent)
            .filter(|image| !image.is_empty())
            .map(Into::into);
        out.copies_metadata = args.copy_gateway_metadata.is_on();
        out.revision = self.revision.as_str().into();
        out.system_namespace = self.system_namespace.as_str().into();
        Ok(Some(out))
    }
}

// === impl GatewayArgs ===

impl GatewayArgs {
    fn values(&self) -> anyhow::Result<Option<Value>> {
        use std::io::Read as _;
        let path = &self.gateway_values;
        if !path.is_file() {
            return Ok(None);
        }
        let problem = || format!("--gateway-values {}", path.display());
        let mut text = String::new();
        let file = std::fs::File::open(path).with_context(problem)?;
        file.take(VALUES_BYTES_MAX)
            .read_to_string(&mut text)
            .with_context(problem)?;
        serde_saphyr::from_str(&text)
            .map(Some)
            .with_context(problem)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use clap::Parser;
    use gateway::deployment::PodForm;

    use super::*;

    #[derive(Parser)]
    struct Mesh {
        #[command(flatten)]
        mesh: MeshArgs,
    }

    fn settings(words: &[&str]) -> Option<Settings> {
        let args = Mesh::try_parse_from([&["x"], words].concat()).unwrap();
        args.mesh.deployments().unwrap()
    }

    #[test]
    fn pods_are_of_stock_envoy_unless_said_otherwise() {
        let usual = settings(&[]).unwrap();
        assert_eq!(usual.forms, PodForms::all(PodForm::Stock));
        assert_eq!(usual.stock_image.agent.as_deref(), Some(AGENT_IMAGE));
        let other = settings(&[
            "--gateway-proxy=istio,istio-waypoint=stock",
            "--gateway-agent-image=",
            "--revision=canary",
        ]);
        let other = other.unwrap();
        assert_eq!(other.forms.ingress, PodForm::Istio);
        assert_eq!(other.forms.waypoint, PodForm::Stock);
        assert_eq!(other.stock_image.agent, None);
        assert_eq!(other.revision, "canary");
        assert_eq!(settings(&["--deploy-gateways=false"]), None);
        for bad in [
            "x",
            "stock,istio",
            "stock,istio-remote=istio",
            "stock,istio=x",
        ] {
            let flag = format!("--gateway-proxy={bad}");
            assert!(Mesh::try_parse_from(["x", &flag]).is_err(), "{bad}");
        }
    }

    #[test]
    fn values_are_read_from_a_file_and_a_bad_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("values");
        let flag = format!("--gateway-values={}", file.display());
        std::fs::write(&file, r#"{"global": {"hub": "x", "tag": "1"}}"#).unwrap();
        let image = settings(&[&flag]).unwrap().istio_image;
        assert_eq!((image.hub.as_str(), image.tag.as_str()), ("x", "1"));
        std::fs::write(&file, "global: {hub: [").unwrap();
        let args = Mesh::try_parse_from(["x", &flag]).unwrap();
        assert!(args.mesh.deployments().is_err());
    }
}
