//! Which addresses may be called.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Refuses addresses behind which the control plane would find what its users must not reach
/// through it: itself, its host, the metadata service of its cloud, the API server.
/// Source: spec/control-plane.md §9.1.
#[derive(Clone, Debug, Default)]
pub struct AddressRule {
    /// Refused besides those that always are.
    pub blocked: Vec<IpNet>,
    /// Allowed although they are among those that otherwise always are refused; `blocked`
    /// counts over it.
    pub allowed: Vec<IpNet>,
    /// Addresses of the API server: refused.
    pub api_server: Vec<IpAddr>,
}

impl AddressRule {
    /// Whether the address may be called.
    ///
    /// # Errors
    /// Why not, as a clause.
    pub fn judge(&self, ip: IpAddr) -> Result<(), &'static str> {
        let ip = ip.to_canonical();
        if self.blocked.iter().any(|net| net.contains(&ip)) {
            return Err("it is in a blocked range");
        }
        if self.allowed.iter().any(|net| net.contains(&ip)) {
            return Ok(());
        }
        if self.api_server.iter().any(|api| api.to_canonical() == ip) {
            return Err("it is the address of the API server");
        }
        match ip {
            IpAddr::V4(ip) => ipv4(ip),
            IpAddr::V6(ip) => {
                // What translators take for an address of IPv4 is judged as that one, too.
                if let Some(inner) = embedded(ip) {
                    self.judge(IpAddr::V4(inner))?;
                }
                ipv6(ip)
            }
        }
    }
}

fn ipv4(ip: Ipv4Addr) -> Result<(), &'static str> {
    /// Metadata services outside of the link-local range: Alibaba, Azure, Oracle.
    const METADATA: [Ipv4Addr; 3] = [
        Ipv4Addr::new(100, 100, 100, 200),
        Ipv4Addr::new(168, 63, 129, 16),
        Ipv4Addr::new(192, 0, 0, 192),
    ];
    if ip.is_loopback() {
        Err("it is a loopback address")
    } else if ip.is_link_local() {
        Err("it is a link-local address, as those of cloud metadata are")
    } else if METADATA.contains(&ip) {
        Err("it is an address of cloud metadata")
    } else if ip.octets().first() == Some(&0) {
        Err("it is unspecified")
    } else if ip.is_multicast() || ip.is_broadcast() {
        Err("it is no address of one host")
    } else {
        Ok(())
    }
}

fn ipv6(ip: Ipv6Addr) -> Result<(), &'static str> {
    let segments = ip.segments();
    if ip.is_loopback() {
        Err("it is a loopback address")
    } else if ip.is_unicast_link_local() {
        Err("it is a link-local address")
    } else if matches!(segments, [0xfd00, 0x0ec2, ..]) {
        Err("it is an address of cloud metadata")
    } else if ip.is_unspecified() {
        Err("it is unspecified")
    } else if ip.is_multicast() {
        Err("it is no address of one host")
    } else {
        Ok(())
    }
}

/// The IPv4 address inside of compatible, NAT64 and 6to4 addresses.
fn embedded(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let of = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match ip.segments() {
        // `::` and `::1` are addresses of their own.
        [0, 0, 0, 0, 0, 0, high, low] if high != 0 => Some(of(high, low)),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x64, 0xff9b, 1, _, _, _, high, low] => {
            Some(of(high, low))
        }
        [0x2002, high, low, ..] => Some(of(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn addresses_that_lead_inside_are_refused_in_every_form() {
        let rule = AddressRule {
            blocked: vec!["10.9.0.0/16".parse().unwrap()],
            allowed: vec![
                "10.9.1.0/24".parse().unwrap(),
                "127.0.0.2/32".parse().unwrap(),
            ],
            api_server: vec!["10.96.0.1".parse().unwrap()],
        };
        for bad in [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "169.254.0.1",
            "100.100.100.200",
            "168.63.129.16",
            "224.0.0.1",
            "255.255.255.255",
            "10.96.0.1",
            "10.9.0.1",
            "10.9.1.1",
            "::",
            "::1",
            "fe80::1",
            "ff02::1",
            "fd00:ec2::254",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::ffff:10.96.0.1",
            "::169.254.169.254",
            "64:ff9b::169.254.169.254",
            "64:ff9b::7f00:1",
            "2002:a9fe:a9fe::1",
            "2002:7f00:1::",
        ] {
            assert!(rule.judge(bad.parse().unwrap()).is_err(), "{bad}");
        }
        for good in [
            "10.0.0.1",
            "192.168.1.1",
            "172.16.0.1",
            "8.8.8.8",
            "127.0.0.2",
            "::ffff:8.8.8.8",
            "2001:db8::1",
            "fd00::1",
            "64:ff9b::8.8.8.8",
        ] {
            assert_eq!(rule.judge(good.parse().unwrap()), Ok(()), "{good}");
        }
    }
}
