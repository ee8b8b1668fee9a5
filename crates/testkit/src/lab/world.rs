//! The world of a directory, running.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::str::FromStr as _;

use anyhow::{Context as _, bail};
use http::Method;
use serde_json::Value;

use super::{Lab, Netns, Outcome, PodNetns, capture, forward_services};
use crate::app::App;

/// A pod of a world.
#[derive(Clone, Debug)]
pub struct LabPod {
    /// Namespace.
    pub ns: String,
    /// Name.
    pub name: String,
    /// Address.
    pub ip: IpAddr,
    /// Node.
    pub node: String,
    /// Service account.
    pub service_account: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// The node has captured it.
    pub captured: bool,
    /// Gateway whose instance it is.
    pub gateway: Option<String>,
    /// Ports that its containers declare, by name or number.
    pub ports: Vec<(String, u16)>,
}

/// A Service of a world.
#[derive(Clone, Debug)]
pub struct LabService {
    /// Namespace.
    pub ns: String,
    /// Name.
    pub name: String,
    /// Cluster IP; `None` for a headless one.
    pub vip: Option<IpAddr>,
    /// Port, and its target as written (the port itself when unset).
    pub ports: Vec<(u16, String)>,
    selector: BTreeMap<String, String>,
}

/// A world whose pods have a network of their own.
pub struct LabWorld {
    /// Pods by `namespace/name`.
    pub pods: BTreeMap<String, (LabPod, Netns)>,
    /// Services by `namespace/name`.
    pub services: BTreeMap<String, LabService>,
    /// Addresses of nodes.
    pub nodes: BTreeMap<String, IpAddr>,
    apps: Vec<App>,
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    let list = value.pointer(pointer).and_then(Value::as_array);
    list.map(Vec::as_slice).unwrap_or_default()
}

fn map(value: Option<&Value>) -> BTreeMap<String, String> {
    let entries = value.and_then(Value::as_object).into_iter().flatten();
    entries
        .map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned()))
        .collect()
}

fn documents(path: &Path) -> anyhow::Result<Vec<Value>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let mut documents = serde_saphyr::from_multiple::<Value>(&text)?;
    documents.retain(Value::is_object);
    Ok(documents)
}

fn pod(object: &Value) -> Option<LabPod> {
    let labels = map(object.pointer("/metadata/labels"));
    let ports = list(object, "/spec/containers")
        .iter()
        .flat_map(|container| list(container, "/ports"))
        .filter_map(|port| {
            let number = u16::try_from(port["containerPort"].as_u64()?).ok()?;
            Some((text(port, "/name").to_owned(), number))
        });
    Some(LabPod {
        ns: text(object, "/metadata/namespace").to_owned(),
        name: text(object, "/metadata/name").to_owned(),
        ip: IpAddr::from_str(text(object, "/status/podIP")).ok()?,
        node: text(object, "/spec/nodeName").to_owned(),
        service_account: text(object, "/spec/serviceAccountName").to_owned(),
        captured: map(object.pointer("/metadata/annotations"))
            .get("ambient.istio.io/redirection")
            .is_some_and(|word| word == "enabled"),
        gateway: labels
            .get("gateway.networking.k8s.io/gateway-name")
            .cloned(),
        labels,
        ports: ports.collect(),
    })
}

/// A WorkloadEntry with an address is a machine that no node captures.
fn virtual_machine(object: &Value) -> Option<LabPod> {
    let ports = object.pointer("/spec/ports").and_then(Value::as_object);
    let ports = ports
        .into_iter()
        .flatten()
        .filter_map(|(name, port)| Some((name.clone(), u16::try_from(port.as_u64()?).ok()?)));
    Some(LabPod {
        ns: text(object, "/metadata/namespace").to_owned(),
        name: text(object, "/metadata/name").to_owned(),
        ip: IpAddr::from_str(text(object, "/spec/address")).ok()?,
        node: String::new(),
        service_account: text(object, "/spec/serviceAccount").to_owned(),
        labels: map(object.pointer("/spec/labels")),
        captured: false,
        gateway: None,
        ports: ports.collect(),
    })
}

fn service(object: &Value) -> LabService {
    let ports = list(object, "/spec/ports").iter().filter_map(|port| {
        let number = u16::try_from(port["port"].as_u64()?).ok()?;
        let target = match &port["targetPort"] {
            Value::Number(target) => target.to_string(),
            Value::String(target) => target.clone(),
            _ => number.to_string(),
        };
        Some((number, target))
    });
    LabService {
        ns: text(object, "/metadata/namespace").to_owned(),
        name: text(object, "/metadata/name").to_owned(),
        vip: IpAddr::from_str(text(object, "/spec/clusterIP")).ok(),
        ports: ports.collect(),
        selector: map(object.pointer("/spec/selector")),
    }
}

/// A sample workload on every port that a pod declares, except those that speak TLS themselves.
fn serve_ports(pod: &LabPod, netns: &Netns) -> anyhow::Result<Vec<App>> {
    let version = pod.labels.get("version").map_or("", String::as_str);
    let ports = pod.ports.iter().filter(|(name, _)| name != "tls");
    ports
        .map(|(_, port)| {
            let addr = SocketAddr::new(pod.ip, *port);
            let listener = netns.run(|| std::net::TcpListener::bind(addr))??;
            App::serve(listener, &pod.name, version)
        })
        .collect()
}

// === impl LabWorld ===

impl LabWorld {
    /// Gives every pod and WorkloadEntry of a world with an address its network, captures those that the node has
    /// captured, and starts a sample workload on every port that the others declare.
    /// Instances of gateways stay empty.
    ///
    /// # Errors
    /// When the world does not parse or a namespace cannot be made.
    pub fn start(lab: &Lab, file: &Path) -> anyhow::Result<Self> {
        let objects = documents(file)?;
        let of_kind = |kind: &'static str| {
            objects
                .iter()
                .filter(move |object| text(object, "/kind") == kind)
        };
        let mut world = Self {
            pods: BTreeMap::new(),
            services: of_kind("Service")
                .map(service)
                .map(|service| (format!("{}/{}", service.ns, service.name), service))
                .collect(),
            nodes: BTreeMap::new(),
            apps: Vec::new(),
        };
        for node in of_kind("Node") {
            let address = list(node, "/status/addresses").first();
            let ip = address.map(|address| text(address, "/address"));
            if let Some(ip) = ip.and_then(|ip| ip.parse().ok()) {
                world
                    .nodes
                    .insert(text(node, "/metadata/name").to_owned(), ip);
            }
        }
        for pod in of_kind("Pod").filter_map(pod) {
            let netns = lab.host(pod.ip)?;
            world
                .pods
                .insert(format!("{}/{}", pod.ns, pod.name), (pod, netns));
        }
        for vm in of_kind("WorkloadEntry").filter_map(virtual_machine) {
            let netns = lab.host(vm.ip)?;
            world
                .pods
                .insert(format!("{}/{}", vm.ns, vm.name), (vm, netns));
        }
        let forwarded = world.forwarded();
        for (pod, netns) in world.pods.values() {
            if pod.captured {
                capture(netns)?;
            } else {
                forward_services(netns, &forwarded)?;
            }
        }
        for (pod, netns) in world.pods.values().filter(|(pod, _)| pod.gateway.is_none()) {
            world.apps.extend(serve_ports(pod, netns)?);
        }
        Ok(world)
    }

    /// Gives a captured pod another address on another node.
    ///
    /// # Errors
    /// When the new place cannot be made.
    pub(super) fn move_pod(
        &mut self,
        lab: &Lab,
        name: &str,
        ip: IpAddr,
        node: &str,
    ) -> anyhow::Result<()> {
        let netns = lab.host(ip)?;
        capture(&netns)?;
        let (pod, old_netns) = self
            .pods
            .get_mut(name)
            .with_context(|| format!("no pod {name}"))?;
        self.apps.retain(|app| app.addr().ip() != pod.ip);
        pod.ip = ip;
        node.clone_into(&mut pod.node);
        *old_netns = netns;
        let (pod, netns) = &self.pods[name];
        let apps = serve_ports(pod, netns)?;
        self.apps.extend(apps);
        Ok(())
    }

    /// What kube-proxy would know: pods that a Service selects, on their targets.
    fn forwarded(&self) -> Vec<(IpAddr, u16, Vec<SocketAddr>)> {
        let mut all = Vec::new();
        for service in self.services.values() {
            let Some(vip) = service.vip else { continue };
            for (port, target) in &service.ports {
                let endpoints = self.endpoints(service, target);
                all.push((vip, *port, endpoints));
            }
        }
        all
    }

    fn endpoints(&self, service: &LabService, target: &str) -> Vec<SocketAddr> {
        let selected = self.pods.values().map(|(pod, _)| pod).filter(|pod| {
            let is_in = |(key, value): (&String, &String)| pod.labels.get(key) == Some(value);
            pod.ns == service.ns
                && !service.selector.is_empty()
                && service.selector.iter().all(is_in)
        });
        selected
            .filter_map(|pod| {
                let named = || pod.ports.iter().find(|(name, _)| name == target);
                let port = target
                    .parse()
                    .ok()
                    .or_else(|| named().map(|(_, port)| *port))?;
                Some(SocketAddr::new(pod.ip, port))
            })
            .collect()
    }

    /// A pod and its namespace.
    ///
    /// # Errors
    /// When the world has none of that name.
    pub fn pod(&self, name: &str) -> anyhow::Result<&(LabPod, Netns)> {
        self.pods
            .get(name)
            .with_context(|| format!("no pod {name}"))
    }

    /// The pods of a node that a ztunnel serves, for its node agent.
    ///
    /// # Errors
    /// When a namespace is gone.
    pub fn captured_on(&self, node: &str) -> anyhow::Result<Vec<PodNetns>> {
        let pods = self.pods.values();
        pods.filter(|(pod, _)| pod.captured && pod.node == node)
            .map(|(pod, netns)| pod.handed_over(netns))
            .collect()
    }

    /// The address that a host name has for callers of a namespace: a Service's, or that of a
    /// pod behind a headless Service (`pod.service[.namespace]`), or an IP.
    ///
    /// # Errors
    /// When nothing has that name.
    pub fn resolve(&self, caller_ns: &str, host: &str) -> anyhow::Result<IpAddr> {
        if let Ok(ip) = host.parse() {
            return Ok(ip);
        }
        let short = host
            .trim_end_matches(".cluster.local")
            .trim_end_matches(".svc");
        let parts: Vec<&str> = short.split('.').collect();
        let vip = |name: &str, ns: &str| self.services.get(&format!("{ns}/{name}"))?.vip;
        let pod_of = |pod: &str, service: &str, ns: &str| {
            self.services.get(&format!("{ns}/{service}"))?;
            Some(self.pods.get(&format!("{ns}/{pod}"))?.0.ip)
        };
        let found = match parts[..] {
            [name] => vip(name, caller_ns),
            [first, second] => vip(first, second).or_else(|| pod_of(first, second, caller_ns)),
            [pod, service, ns] => pod_of(pod, service, ns),
            _ => None,
        };
        found.with_context(|| format!("nothing is called {host} for {caller_ns}"))
    }

    /// One request: `GET http://orders.shop/path`, made by a pod.
    ///
    /// # Errors
    /// When the request itself makes no sense in this world.
    pub async fn call(&self, caller: &str, request: &str) -> anyhow::Result<Outcome> {
        let (pod, netns) = self.pod(caller)?;
        let Some((method, rest)) = request.split_once(" http://") else {
            bail!("{request:?} is no request")
        };
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) => (host, port.parse()?),
            None => (authority, 80),
        };
        let to = SocketAddr::new(self.resolve(&pod.ns, host)?, port);
        let path = if path.is_empty() { "/" } else { path };
        Ok(netns
            .call(to, Method::from_str(method)?, authority, path)
            .await)
    }
}

// === impl LabPod ===

impl LabPod {
    /// What the node agent hands over.
    ///
    /// # Errors
    /// When the namespace is gone.
    pub fn handed_over(&self, netns: &Netns) -> anyhow::Result<PodNetns> {
        Ok(PodNetns {
            ns: self.ns.clone(),
            name: self.name.clone(),
            service_account: self.service_account.clone(),
            netns: netns.open()?,
        })
    }
}
