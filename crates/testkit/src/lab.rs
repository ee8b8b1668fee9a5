//! A cluster's network on one machine: a network namespace per pod, real ztunnels, real Envoys.
//!
//! In: a world of Kubernetes YAML. Out: the same world running, and what its pods see.
//! Needs root, `iproute2` and `iptables`. Nothing is done in the namespace of the host; what was
//! made is gone when the [`Lab`] is dropped.
//!
//! The control plane lives in the namespace of the bridge, and so does the test: a future run by
//! [`Lab::block_on`] sees that namespace, [`Netns::run`] any other.

mod caller;
pub mod dump;
mod mesh;
mod netns;
mod node_agent;
mod redirect;
mod world;
mod ztunnel;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::Context as _;

pub use caller::{Answer, Outcome, resolve_by_dns};
pub use mesh::{LabMesh, LabWaypoint, MeshOptions, Stranger};
pub use netns::{Netns, unavailable};
pub use node_agent::{NodeAgent, PodNetns};
pub use redirect::{capture, forward_services};
pub use world::{LabPod, LabService, LabWorld};
pub use ztunnel::{HeldCertificate, LabZtunnel, ZTUNNEL_VAR, ZtunnelOptions};

/// Where the control plane listens.
pub const CONTROL_PLANE_IP: Ipv4Addr = Ipv4Addr::new(10, 255, 0, 1);
const BRIDGE: &str = "br0";

/// A bridge and everything that is attached to it.
#[derive(Debug)]
pub struct Lab {
    prefix: String,
    switch: Netns,
    hosts_count: AtomicU32,
}

// === impl Lab ===

impl Lab {
    /// An empty network with the control plane's address on it.
    ///
    /// # Errors
    /// When namespaces cannot be made; see [`unavailable`].
    pub fn new() -> anyhow::Result<Self> {
        let prefix = format!("al{}", std::process::id());
        let switch = Netns::create(&format!("{prefix}-cp"))?;
        switch.ip(&["link", "add", BRIDGE, "type", "bridge"])?;
        switch.ip(&[
            "addr",
            "add",
            &format!("{CONTROL_PLANE_IP}/8"),
            "dev",
            BRIDGE,
        ])?;
        switch.ip(&["link", "set", BRIDGE, "up"])?;
        Ok(Self {
            prefix,
            switch,
            hosts_count: AtomicU32::new(0),
        })
    }

    /// The namespace of bridge and control plane.
    pub fn switch(&self) -> &Netns {
        &self.switch
    }

    /// A further host on the network.
    ///
    /// # Errors
    /// When it cannot be attached.
    pub fn host(&self, ip: IpAddr) -> anyhow::Result<Netns> {
        let number = self.hosts_count.fetch_add(1, Ordering::Relaxed);
        let port = format!("p{number}");
        let host = Netns::create(&format!("{}-{number}", self.prefix))?;
        let peer = ["peer", "name", "eth0", "netns", host.name()];
        let add = ["link", "add", port.as_str(), "type", "veth"];
        self.switch.ip(&[add.as_slice(), &peer].concat())?;
        self.switch
            .ip(&["link", "set", &port, "master", BRIDGE, "up"])?;
        host.ip(&["addr", "add", &format!("{ip}/8"), "dev", "eth0"])?;
        host.ip(&["link", "set", "eth0", "up"])?;
        // Without it connecting to an address outside of the network fails before any rule sees it.
        let gateway = CONTROL_PLANE_IP.to_string();
        host.ip(&["route", "add", "default", "via", &gateway])?;
        Ok(host)
    }

    /// Runs what `body` returns with the control plane's view of the network.
    ///
    /// # Errors
    /// What the future returns, or why it cannot run there.
    pub fn block_on<T: Send>(
        &self,
        body: impl AsyncFnOnce() -> anyhow::Result<T> + Send,
    ) -> anyhow::Result<T> {
        let name = self.switch.name().to_owned();
        self.switch.run(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .on_thread_start(move || netns::enter(&name).expect("the namespace exists"))
                .enable_all()
                .build()
                .context("cannot start a runtime")?;
            runtime.block_on(body())
        })?
    }
}
