//! What the control plane's own configuration says about the proxies that it deploys.

mod values;

use std::str::FromStr;

use serde_json::{Map, Value, json};

use model::Str;
use model::gateway::GatewayController;

pub use self::values::ValuesError;

/// What a gateway pod is made of. Everything that users and tools see of it is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PodForm {
    /// Istio's proxy image, `proxyv2`.
    Istio,
    /// Envoy's own image, with `ambientd agent` as process 1.
    Stock,
}

impl PodForm {
    /// The form that a word stands for: `istio` or `stock`.
    pub fn named(word: &str) -> Option<Self> {
        match word {
            "istio" => Some(Self::Istio),
            "stock" => Some(Self::Stock),
            _ => None,
        }
    }

    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Istio => "istio",
            Self::Stock => "stock",
        }
    }
}

/// The form of the pods of each class, where a Gateway does not say otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodForms {
    /// Of ingress gateways.
    pub ingress: PodForm,
    /// Of waypoints.
    pub waypoint: PodForm,
    /// Of gateways between networks.
    pub east_west: PodForm,
}

impl PodForms {
    /// One form for every class.
    pub const fn all(form: PodForm) -> Self {
        Self {
            ingress: form,
            waypoint: form,
            east_west: form,
        }
    }

    /// The form of a controller's pods; nobody asks for those of [`GatewayController::Remote`].
    pub fn of(&self, controller: GatewayController) -> PodForm {
        match controller {
            GatewayController::Ingress | GatewayController::Remote => self.ingress,
            GatewayController::Waypoint => self.waypoint,
            GatewayController::EastWest => self.east_west,
        }
    }
}

/// Reads `FORM` or `FORM,CLASS=FORM,...`: the first word is for every class, the others for
/// those whose controller has the class of that name.
impl FromStr for PodForms {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = |word: &str| {
            PodForm::named(word.trim())
                .ok_or_else(|| format!("{word:?} is neither `istio` nor `stock`"))
        };
        let mut parts = text.split(',');
        let mut out = Self::all(form(parts.next().unwrap_or_default())?);
        for part in parts {
            let (class, word) = part
                .split_once('=')
                .ok_or_else(|| format!("{part:?} is not CLASS=FORM"))?;
            let into = match GatewayController::built_in(class.trim()) {
                Some(GatewayController::Ingress) => &mut out.ingress,
                Some(GatewayController::Waypoint) => &mut out.waypoint,
                Some(GatewayController::EastWest) => &mut out.east_west,
                Some(GatewayController::Remote) | None => {
                    return Err(format!(
                        "{class:?} is not `istio`, `istio-waypoint` or `istio-east-west`"
                    ));
                }
            };
            *into = form(word)?;
        }
        Ok(out)
    }
}

/// Where Istio's proxy image comes from: `HUB/NAME:TAG[-VARIANT]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IstioImage {
    /// Registry and path (`global.hub`).
    pub hub: Str,
    /// Name (`global.proxy.image`); with a `/` in it, the whole reference.
    pub name: Str,
    /// Tag (`global.tag`).
    pub tag: Str,
    /// `distroless` or `debug` (`global.variant`); empty for none.
    pub variant: Str,
}

/// The images of a pod of stock Envoy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StockImage {
    /// Image with Envoy at `/usr/local/bin/envoy`.
    pub envoy: Str,
    /// Image with `/usr/local/bin/ambientd`, from which an init container copies it beside
    /// Envoy; `None` when [`Self::envoy`] has it at the same path itself.
    pub agent: Option<Str>,
}

/// Where pods find the root that the control plane proves itself by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrustBundle {
    /// A ConfigMap of their namespace, with key `root-cert.pem`.
    ConfigMap(Str),
    /// A ClusterTrustBundle.
    Cluster(Str),
}

/// Where and with what waypoints run (`global.waypoint`); `None` says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scheduling {
    /// `affinity`.
    pub affinity: Option<Value>,
    /// `topologySpreadConstraints`.
    pub topology_spread_constraints: Option<Value>,
    /// `nodeSelector`.
    pub node_selector: Option<Value>,
    /// `tolerations`.
    pub tolerations: Option<Value>,
}

/// How loud proxies are. A Gateway's annotations `sidecar.istio.io/logLevel`,
/// `componentLogLevel` and `agentLogLevel` win.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// Envoy (`global.proxy.logLevel`).
    pub proxy: Str,
    /// Parts of Envoy (`global.proxy.componentLogLevel`).
    pub components: Str,
    /// The agent (`global.logging.level`).
    pub agent: Str,
    /// As JSON (`global.logAsJson`).
    pub as_json: bool,
}

/// What the control plane's configuration says about the proxies that it deploys. Names in
/// parentheses are those of Istio's Helm values.
/// Source: spec/gateway-api.md §2.4-2.7.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What pods are made of.
    pub forms: PodForms,
    /// Istio's image.
    pub istio_image: IstioImage,
    /// The images of stock pods.
    pub stock_image: StockImage,
    /// `imagePullPolicy` (`global.imagePullPolicy`).
    pub image_pull_policy: Option<Str>,
    /// Names of `imagePullSecrets` (`global.imagePullSecrets`).
    pub image_pull_secrets: Vec<Str>,
    /// Resources of ingress gateways (`global.proxy.resources`).
    pub gateway_resources: Value,
    /// Resources of waypoints and of gateways between networks (`global.waypoint.resources`).
    pub waypoint_resources: Value,
    /// Where waypoints and gateways between networks run.
    pub waypoint_scheduling: Scheduling,
    /// Security context of ingress pods (`gateways.securityContext`); `None` lets them bind
    /// ports below 1024.
    pub gateway_security_context: Option<Value>,
    /// `seccompProfile` of ingress pods and of the containers of waypoints
    /// (`gateways.seccompProfile`).
    pub seccomp_profile: Option<Value>,
    /// `lifecycle` of ingress containers (`global.proxy.lifecycle`).
    pub lifecycle: Option<Value>,
    /// The cluster is OpenShift, which chooses users itself (`global.platform`).
    pub is_openshift: bool,
    /// Port of the token exchange (`global.sts.servicePort`); 0 for none.
    pub sts_port: u16,
    /// Where waypoints log outliers (`global.proxy.outlierLogPath`); empty for nowhere.
    pub outlier_log_path: Str,
    /// How loud proxies are.
    pub log: LogSettings,
    /// Our revision; empty or `default` for the unnamed one.
    pub revision: Str,
    /// The control plane's namespace (`global.istioNamespace`).
    pub system_namespace: Str,
    /// `global.multiCluster.clusterName`; empty for the cluster id.
    pub cluster_name: Str,
    /// The control plane's own cluster id.
    pub cluster_id: Str,
    /// Network (`global.network`); empty for the default one.
    pub network: Str,
    /// `global.meshID`; empty for the trust domain.
    pub mesh_id: Str,
    /// Trust domain.
    pub trust_domain: Str,
    /// DNS suffix of Services.
    pub domain: Str,
    /// HOST:PORT where certificates are signed (`global.caAddress`); empty for the
    /// control plane's Service.
    pub ca_address: Str,
    /// Who signs the control plane's certificate (`global.pilotCertProvider`).
    pub cert_provider: Str,
    /// Where the control plane's root is.
    pub trust_bundle: TrustBundle,
    /// `meshConfig.defaultConfig` as written.
    pub proxy_config: Map<String, Value>,
    /// Metadata of a Gateway goes to what is made for it, where `spec.infrastructure` does not
    /// say what does (`PILOT_ENABLE_GATEWAY_API_COPY_LABELS_ANNOTATIONS`).
    pub copies_metadata: bool,
    /// The mesh is an ambient one (`PILOT_ENABLE_AMBIENT`).
    pub is_ambient: bool,
    /// ServiceAccounts belong to their Gateway: Kubernetes 1.28 and later.
    pub owns_service_accounts: bool,
}

impl Settings {
    /// Whether the revision has a name of its own.
    pub(super) fn named_revision(&self) -> Option<&str> {
        Some(self.revision.as_str()).filter(|name| !name.is_empty() && *name != "default")
    }

    /// HOST:PORT of the control plane's own Service.
    pub(super) fn control_plane(&self) -> String {
        let suffix = self
            .named_revision()
            .map_or(String::new(), |revision| format!("-{revision}"));
        format!("istiod{suffix}.{}.svc:15012", self.system_namespace)
    }

    /// HOST:PORT of who signs certificates.
    pub(super) fn ca_address(&self) -> String {
        if self.ca_address.is_empty() {
            self.control_plane()
        } else {
            self.ca_address.to_string()
        }
    }
}

impl Default for Settings {
    /// What Istio's charts have as defaults, with Istio's proxy image.
    fn default() -> Self {
        let resources = json!({
            "requests": {"cpu": "100m", "memory": "128Mi"},
            "limits": {"cpu": "2000m", "memory": "1024Mi"},
        });
        let word = |text: &'static str| Str::from(text);
        Self {
            forms: PodForms::all(PodForm::Istio),
            istio_image: IstioImage {
                hub: word("docker.io/istio"),
                name: word("proxyv2"),
                tag: word("1.32.0"),
                variant: Str::new(),
            },
            stock_image: StockImage {
                envoy: word("docker.io/envoyproxy/envoy:distroless-v1.40.0"),
                agent: Some(word("ambientd:latest")),
            },
            image_pull_policy: None,
            image_pull_secrets: Vec::new(),
            gateway_resources: resources.clone(),
            waypoint_resources: resources,
            waypoint_scheduling: Scheduling::default(),
            gateway_security_context: None,
            seccomp_profile: None,
            lifecycle: None,
            is_openshift: false,
            sts_port: 0,
            outlier_log_path: Str::new(),
            log: LogSettings {
                proxy: word("warning"),
                components: word("misc:error"),
                agent: word("default:info"),
                as_json: false,
            },
            revision: word("default"),
            system_namespace: word(model::defaults::ROOT_NAMESPACE),
            cluster_name: Str::new(),
            cluster_id: word(model::defaults::CLUSTER_ID),
            network: Str::new(),
            mesh_id: Str::new(),
            trust_domain: word(model::defaults::TRUST_DOMAIN),
            domain: word(model::defaults::CLUSTER_DOMAIN),
            ca_address: Str::new(),
            cert_provider: word("istiod"),
            trust_bundle: TrustBundle::ConfigMap(word("istio-ca-root-cert")),
            proxy_config: Map::new(),
            copies_metadata: true,
            is_ambient: true,
            owns_service_accounts: true,
        }
    }
}
