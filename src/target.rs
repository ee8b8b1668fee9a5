//! Whom to render for: `ztunnel`, `waypoint/NS/NAME`, `gateway/NS/NAME`, `east-west/NS/NAME`,
//! `deployment/NS/NAME`, `findings` or `status`.

use std::fmt;
use std::str::FromStr;

use model::ObjectKey;

/// A target of `render` and `bootstrap`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Any ztunnel: all receive the same.
    Ztunnel,
    /// The waypoint of a Gateway.
    Waypoint(ObjectKey),
    /// An ingress gateway, or a gateway between networks: what the class of the Gateway says.
    Gateway(ObjectKey),
    /// A gateway between networks.
    EastWest(ObjectKey),
    /// What a Gateway runs as: the objects that are applied for it.
    Deployment(ObjectKey),
    /// The findings.
    Findings,
    /// What belongs into the status of objects.
    Status,
}

impl Target {
    /// The Gateway that it names.
    pub fn gateway(&self) -> Option<&ObjectKey> {
        match self {
            Self::Waypoint(key)
            | Self::Gateway(key)
            | Self::EastWest(key)
            | Self::Deployment(key) => Some(key),
            Self::Ztunnel | Self::Findings | Self::Status => None,
        }
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('/') {
            None if text == "ztunnel" => return Ok(Self::Ztunnel),
            None if text == "findings" => return Ok(Self::Findings),
            None if text == "status" => return Ok(Self::Status),
            Some((kind @ ("waypoint" | "gateway" | "east-west" | "deployment"), key)) => {
                if let Ok(key) = key.parse::<ObjectKey>()
                    && !key.ns.is_empty()
                {
                    return Ok(match kind {
                        "waypoint" => Self::Waypoint(key),
                        "east-west" => Self::EastWest(key),
                        "deployment" => Self::Deployment(key),
                        _ => Self::Gateway(key),
                    });
                }
            }
            _ => {}
        }
        Err(format!(
            "{text:?} is not `ztunnel`, `waypoint/NAMESPACE/NAME`, `gateway/NAMESPACE/NAME`, `east-west/NAMESPACE/NAME`, `deployment/NAMESPACE/NAME`, `findings` or `status`"
        ))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ztunnel => f.write_str("ztunnel"),
            Self::Waypoint(key) => write!(f, "waypoint/{key}"),
            Self::Gateway(key) => write!(f, "gateway/{key}"),
            Self::EastWest(key) => write!(f, "east-west/{key}"),
            Self::Deployment(key) => write!(f, "deployment/{key}"),
            Self::Findings => f.write_str("findings"),
            Self::Status => f.write_str("status"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_round_trip_and_bad_ones_are_refused() {
        for text in [
            "ztunnel",
            "findings",
            "status",
            "waypoint/bookinfo/reviews",
            "gateway/bookinfo/entry",
            "east-west/bookinfo/entry",
            "deployment/bookinfo/entry",
        ] {
            assert_eq!(
                text.parse::<Target>().map(|t| t.to_string()),
                Ok(text.to_owned())
            );
        }
        for text in [
            "",
            "waypoint",
            "waypoint/x",
            "waypoint//x",
            "waypoint/a/b/c",
            "gateway/x",
            "envoy",
        ] {
            assert!(text.parse::<Target>().is_err(), "{text:?}");
        }
    }
}
