//! Derive tests: whole worlds in YAML through every stage, each stage run once over all of its
//! primaries. Rows are compared whole where the claim is about a row.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

mod ownership;
mod policies;
mod services;
mod services_allocation;
mod services_entries;
mod waypoints;
mod workloads;
mod world;

use model::MeshRow;

#[test]
fn the_host_of_the_discovery_address_is_known() {
    for (address, host) in [
        ("cp.example:15012", "cp.example"),
        ("cp.example", "cp.example"),
        ("192.0.2.1:15012", "192.0.2.1"),
        ("\"[fd00::1]:15012\"", "fd00::1"),
        ("\"fd00::1\"", "fd00::1"),
        ("[x]", ""),
    ] {
        let config = format!("kind: MeshConfig\ndefaultConfig: {{discoveryAddress: {address}}}\n");
        assert_eq!(world::world(&config).mesh.discovery_host, host, "{address}");
    }
}

#[test]
fn the_mesh_is_its_defaults_overlaid_by_what_is_written() {
    let network = "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: istio-system, labels: {topology.istio.io/network: n1}}\n";
    let config =
        "kind: MeshConfig\ntrustDomain: td1\nrootNamespace: root\ntrustDomainAliases: [old]\n";
    let written = MeshRow {
        trust_domain: "td1".into(),
        trust_domain_aliases: vec!["old".into()],
        root_namespace: "root".into(),
        network: "n1".into(),
        ..MeshRow::default()
    };
    assert_eq!(world::world("").mesh, MeshRow::default());
    assert_eq!(world::world(&(config.to_owned() + network)).mesh, written);
    let broken = world::world("kind: MeshConfig\ntrustDomain: [x]\n");
    assert_eq!(broken.mesh, MeshRow::default());
    assert!(
        broken
            .codes()
            .iter()
            .any(|code| code.starts_with("mesh-config-invalid"))
    );
}
