//! What the CNI and kube-proxy do to a pod's network.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};

use super::netns::Netns;

/// Mark that ztunnel puts on its own packets, and that of connections which it makes with the
/// address of the client.
const MARK_OWN: &str = "0x539/0xfff";
const MARK_SPOOFED: &str = "0x111/0xfff";
/// Source of probes of the kubelet, which are not captured.
const PROBES: &str = "169.254.7.127/32";

fn restore(netns: &Netns, rules: &str) -> anyhow::Result<()> {
    let mut command = Command::new("iptables-restore");
    command
        .arg("--wait")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = netns.spawn(&mut command)?;
    let mut stdin = child.stdin.take().context("piped")?;
    stdin.write_all(rules.as_bytes())?;
    drop(stdin);
    let output = child.wait_with_output()?;
    ensure!(
        output.status.success(),
        "iptables-restore: {}\n{rules}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// Redirects a pod's traffic to the ztunnel that listens inside it, keeping client addresses.
/// Replaces what [`forward_services`] did.
///
/// # Errors
/// When a rule is refused.
pub fn capture(netns: &Netns) -> anyhow::Result<()> {
    let outside = "! -d 127.0.0.1/32";
    let not_own = format!("-m mark ! --mark {MARK_OWN}");
    let rules = format!(
        "*mangle\n\
         -A PREROUTING -m mark --mark {MARK_OWN} -j CONNMARK --set-xmark {MARK_SPOOFED}\n\
         -A OUTPUT -m connmark --mark {MARK_SPOOFED} -j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff\n\
         COMMIT\n\
         *nat\n\
         -A PREROUTING -s {PROBES} -p tcp -j ACCEPT\n\
         -A OUTPUT -d {PROBES} -p tcp -j ACCEPT\n\
         -A PREROUTING {outside} -p tcp ! --dport 15008 {not_own} -j REDIRECT --to-ports 15006\n\
         -A OUTPUT ! -o lo -p udp {not_own} --dport 53 -j REDIRECT --to-ports 15053\n\
         -A OUTPUT {outside} -p tcp --dport 53 {not_own} -j REDIRECT --to-ports 15053\n\
         -A OUTPUT -p tcp -m mark --mark {MARK_SPOOFED} -j ACCEPT\n\
         -A OUTPUT {outside} -o lo -j ACCEPT\n\
         -A OUTPUT {outside} -p tcp {not_own} -j REDIRECT --to-ports 15001\n\
         COMMIT\n\
         *raw\n\
         -A OUTPUT -p udp -m mark --mark {MARK_OWN} --dport 53 -j CT --zone 1\n\
         -A PREROUTING -p udp {not_own} --sport 53 -j CT --zone 1\n\
         COMMIT\n"
    );
    restore(netns, &rules)?;
    netns.ip(&[
        "rule",
        "add",
        "fwmark",
        MARK_SPOOFED,
        "pref",
        "32764",
        "lookup",
        "100",
    ])?;
    netns.ip(&[
        "route",
        "add",
        "local",
        "0.0.0.0/0",
        "dev",
        "lo",
        "table",
        "100",
    ])
}

/// Sends what the pod sends to a service's address to one of its endpoints, at random.
///
/// # Errors
/// When a rule is refused.
pub fn forward_services(
    netns: &Netns,
    services: &[(IpAddr, u16, Vec<SocketAddr>)],
) -> anyhow::Result<()> {
    let mut rules = String::from("*nat\n");
    for (vip, port, endpoints) in services {
        for (i, endpoint) in endpoints.iter().enumerate() {
            // In ten thousandths.
            let chance = match 10_000 / (endpoints.len() - i) {
                10_000 => String::new(),
                share => format!("-m statistic --mode random --probability 0.{share:04} "),
            };
            writeln!(
                rules,
                "-A OUTPUT -d {vip}/32 -p tcp --dport {port} {chance}-j DNAT --to-destination {endpoint}"
            )?;
        }
    }
    rules.push_str("COMMIT\n");
    restore(netns, &rules)
}
