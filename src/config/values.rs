//! How values of flags are written.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

/// A range; an empty text is none.
pub type OptionalCidr = Option<ipnet::IpNet>;
/// An address to listen on; an empty text is none.
pub type OptionalAddr = Option<SocketAddr>;

/// What is on or off, and takes the words of Go for either.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Switch(bool);

/// Reads `90s`, `30m`, `24h`, `7d` or parts of them in a row, such as `1h30m`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("{text:?} is not a duration such as 90s, 30m, 24h or 1h30m");
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit())
            .filter(|digits| *digits > 0)
            .ok_or_else(bad)?;
        let (number, more) = rest.split_at(digits);
        let unit = more.chars().next().ok_or_else(bad)?;
        let seconds: u64 = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 24 * 3600,
            _ => return Err(bad()),
        };
        let number: u64 = number.parse().map_err(|_| bad())?;
        let part = number.checked_mul(seconds).ok_or_else(bad)?;
        total = total
            .checked_add(Duration::from_secs(part))
            .ok_or_else(bad)?;
        rest = more.get(unit.len_utf8()..).unwrap_or_default();
    }
    if total.is_zero() || total > Duration::from_secs(100 * 365 * 24 * 3600) {
        return Err(bad());
    }
    Ok(total)
}

/// Reads a range, or nothing: an empty variable blocks nothing.
pub(super) fn cidr_or_nothing(text: &str) -> Result<OptionalCidr, String> {
    match text.trim() {
        "" => Ok(None),
        text => text
            .parse()
            .map(Some)
            .map_err(|_| format!("{text:?} is not a range such as 10.0.0.0/8")),
    }
}

/// Reads `250`, `250ms` or `1.5s` as milliseconds.
pub(super) fn millis(text: &str) -> Result<u64, String> {
    let (number, scale) = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(number), _) => (number, 1.0),
        (None, Some(number)) => (number, 1000.0),
        (None, None) => (text, 1.0),
    };
    let value: f64 = number
        .trim()
        .parse()
        .map_err(|_| format!("{text:?} is not a duration"))?;
    if value.is_finite() && (0.0..=600_000.0).contains(&(value * scale)) {
        #[allow(
            clippy::cast_sign_loss,
            reason = "checked to be within 0..=600000 above"
        )]
        Ok((value * scale) as u64)
    } else {
        Err(format!("{text:?} must lie between 0 and 10 minutes"))
    }
}

/// Reads `HOST:PORT`, or as Go does `:PORT`: every address, of both families where there are.
pub(super) fn listen(text: &str) -> Result<SocketAddr, String> {
    let bad = || format!("{text:?} is neither ADDRESS:PORT nor :PORT");
    if let Some(port) = text.strip_prefix(':') {
        let port = port.parse().map_err(|_| bad())?;
        return Ok(SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port));
    }
    if let Some(port) = text.strip_prefix("localhost:") {
        let port = port.parse().map_err(|_| bad())?;
        return Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
    }
    text.parse().map_err(|_| bad())
}

/// As [`listen`]; an empty text is no address.
pub(super) fn listen_or_nothing(text: &str) -> Result<OptionalAddr, String> {
    match text.trim() {
        "" => Ok(None),
        text => listen(text).map(Some),
    }
}

// === impl Switch ===

impl Switch {
    /// Whether it is on.
    pub fn is_on(self) -> bool {
        self.0
    }
}

impl FromStr for Switch {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Self(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Self(false)),
            _ => Err(format!("{text:?} is neither true nor false")),
        }
    }
}

impl fmt::Debug for Switch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn addresses_are_read_as_go_reads_them() {
        let read = |text: &str| listen(text).map(|addr| addr.to_string()).ok();
        assert_eq!(read(":8080").as_deref(), Some("[::]:8080"));
        assert_eq!(read("0.0.0.0:1").as_deref(), Some("0.0.0.0:1"));
        assert_eq!(read("localhost:9").as_deref(), Some("127.0.0.1:9"));
        for bad in ["", ":", "8080", "istiod:80", ":70000"] {
            assert_eq!(read(bad), None, "{bad}");
        }
        assert_eq!(listen_or_nothing(""), Ok(None));
    }

    #[test]
    fn lives_are_read_as_istiod_writes_them() {
        let seconds = |text| duration(text).map(|d| d.as_secs());
        assert_eq!(seconds("2160h"), Ok(7_776_000));
        assert_eq!(seconds("1h30m5s"), Ok(5405));
        assert_eq!(seconds("24h0m0s"), Ok(86_400));
        for bad in [
            "",
            "5",
            "h",
            "1x",
            "-1h",
            "0s",
            "99999999999999999999h",
            "1h ",
            "999999999999d",
        ] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_are_read_as_istiod_writes_them() {
        assert_eq!(millis("100ms"), Ok(100));
        assert_eq!(millis("1.5s"), Ok(1500));
        assert_eq!(millis("25"), Ok(25));
        assert!(millis("-1s").is_err());
        assert!(millis("soon").is_err());
        assert!(millis("1e300s").is_err());
    }
}
