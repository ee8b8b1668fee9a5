//! Who controls a class of Gateways, and what follows from it.

use crate::Str;
use crate::input::GatewayClass;
use crate::object::Parsed;

/// A controller of Gateways that ambientd is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GatewayController {
    /// Ingress gateways (class `istio`).
    Ingress,
    /// Waypoints (class `istio-waypoint`).
    Waypoint,
    /// Gateways between networks (class `istio-east-west`).
    EastWest,
    /// Gateways that somebody else runs (class `istio-remote`).
    Remote,
}

/// Names of classes whose controller is known without a GatewayClass object. The last one is an
/// alias that is never created.
pub const BUILT_IN_CLASSES: [(&str, GatewayController); 5] = [
    ("istio", GatewayController::Ingress),
    ("istio-waypoint", GatewayController::Waypoint),
    ("istio-east-west", GatewayController::EastWest),
    ("istio-remote", GatewayController::Remote),
    ("istio-eastwest", GatewayController::EastWest),
];

/// Which addresses of its Service a Gateway shows while it has none from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressTypes {
    /// Cluster IPs.
    pub ips: bool,
    /// The host name.
    pub hostnames: bool,
}

// === impl GatewayController ===

impl GatewayController {
    /// Every controller, in the order in which their classes are created.
    pub const ALL: [Self; 4] = [Self::Ingress, Self::Waypoint, Self::EastWest, Self::Remote];

    /// `spec.controllerName` of its classes.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "istio.io/gateway-controller",
            Self::Waypoint => "istio.io/mesh-controller",
            Self::EastWest => "istio.io/eastwest-controller",
            Self::Remote => "istio.io/unmanaged-gateway",
        }
    }

    /// Name of the class that is created for it.
    pub const fn class(self) -> &'static str {
        match self {
            Self::Ingress => "istio",
            Self::Waypoint => "istio-waypoint",
            Self::EastWest => "istio-east-west",
            Self::Remote => "istio-remote",
        }
    }

    /// The controller of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.name() == name)
    }

    /// The controller of a class: what its object says if there is one, which is always trusted
    /// (one that cannot be read is nobody's of ours); else what its name stands for.
    pub fn of(object: Option<&Parsed<GatewayClass>>, class: &str) -> Option<Self> {
        match object {
            Some(object) => Self::named(&object.ok()?.controller),
            None => Self::built_in(class),
        }
    }

    /// The controller that the name of a class stands for where it has no object.
    pub fn built_in(class: &str) -> Option<Self> {
        BUILT_IN_CLASSES
            .into_iter()
            .find(|(name, _)| *name == class)
            .map(|(_, controller)| controller)
    }

    /// Value of `gateway.istio.io/managed` on what is created for its Gateways; `None` where
    /// nothing is.
    pub const fn managed_label(self) -> Option<&'static str> {
        match self {
            Self::Ingress => Some("istio.io-gateway-controller"),
            Self::Waypoint => Some(crate::labels::MANAGED_WAYPOINT),
            Self::EastWest => Some(crate::labels::MANAGED_EAST_WEST),
            Self::Remote => None,
        }
    }

    /// Type of the Service of a Gateway that asks for none; `None` where none is created.
    pub const fn service_type(self) -> Option<&'static str> {
        match self {
            Self::Ingress | Self::EastWest => Some("LoadBalancer"),
            Self::Waypoint => Some("ClusterIP"),
            Self::Remote => None,
        }
    }

    /// Name of what is created for a Gateway, unless it asks for another.
    pub fn resource_name(self, gateway: &str, class: &str) -> Str {
        match self {
            Self::Ingress => arcstr::format!("{gateway}-{class}"),
            Self::Waypoint | Self::EastWest | Self::Remote => Str::from(gateway),
        }
    }

    /// Addresses of the Service that its Gateways show.
    pub const fn address_types(self) -> AddressTypes {
        AddressTypes {
            ips: !matches!(self, Self::Ingress),
            hostnames: true,
        }
    }

    /// Whether ListenerSets may add listeners, so that listeners can be in each other's way.
    pub const fn takes_listener_sets(self) -> bool {
        matches!(self, Self::Ingress)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::{Invalid, Meta};

    fn class(controller: &str) -> Parsed<GatewayClass> {
        Parsed {
            meta: Meta::default(),
            body: Ok(GatewayClass {
                controller: controller.into(),
            }),
            notes: Vec::new(),
        }
    }

    #[test]
    fn objects_of_classes_are_trusted_and_names_only_stand_in() {
        use GatewayController as C;
        let without = |name| C::of(None, name);
        assert_eq!(without("istio"), Some(C::Ingress));
        assert_eq!(without("istio-east-west"), Some(C::EastWest));
        assert_eq!(without("istio-eastwest"), Some(C::EastWest));
        assert_eq!(without("istio-remote"), Some(C::Remote));
        assert_eq!(without("edge"), None);
        assert_eq!(
            C::of(Some(&class("istio.io/gateway-controller")), "edge"),
            Some(C::Ingress)
        );
        assert_eq!(C::of(Some(&class("example.com/other")), "istio"), None);
        let unreadable = Parsed {
            body: Err(Invalid {
                field: Str::new(),
                reason: Str::new(),
                targets: Vec::new(),
            }),
            ..class("")
        };
        assert_eq!(C::of(Some(&unreadable), "istio"), None);
        for one in C::ALL {
            assert_eq!(C::built_in(one.class()), Some(one));
            assert_eq!(C::named(one.name()), Some(one));
            let label = one.name().replace('/', "-");
            assert!(one.managed_label().is_none_or(|value| value == label));
        }
    }

    #[test]
    fn only_ingress_gateways_carry_their_class_in_their_names() {
        let of = |c: GatewayController| c.resource_name("gw", "edge");
        assert_eq!(of(GatewayController::Ingress), "gw-edge");
        assert_eq!(of(GatewayController::Waypoint), "gw");
        assert_eq!(of(GatewayController::EastWest), "gw");
    }
}
