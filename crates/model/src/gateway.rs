//! Gateways as later stages see them: who controls a class, and the rows of Gateways, of their
//! listeners and of the routes that take them as parents.
//!
//! **Invariant**: nothing compares names of classes. [`GatewayController::of`] is the one place
//! that turns a class into its controller, and everything else asks the controller.
//! Source: spec/gateway-api.md §1, §2, §3.

mod controller;
mod row;

pub use controller::{AddressTypes, BUILT_IN_CLASSES, GatewayController};
pub use row::{
    Defect, Defects, GatewayRow, ListenerProtocol, ListenerRow, ListenerSetRow, ParentRow,
    RouteParents, Taken, TlsMode, TlsRow,
};

/// Another name for the Deployment and the Service of a managed Gateway.
pub const ANNOTATION_NAME_OVERRIDE: &str = "gateway.istio.io/name-override";
/// The service account of the instances of a Gateway.
pub const ANNOTATION_SERVICE_ACCOUNT: &str = "gateway.istio.io/service-account";
/// What type the Service of a managed Gateway has.
pub const ANNOTATION_SERVICE_TYPE: &str = "networking.istio.io/service-type";
/// Which of its addresses a Gateway shows: `IPAddress` or `Hostname`.
pub const ANNOTATION_ADDRESS_TYPE: &str = "networking.istio.io/address-type";
/// On a ConfigMap of the system namespace: the class whose deployments it customises.
pub const LABEL_CLASS_DEFAULTS: &str = "gateway.istio.io/defaults-for-class";
/// Option of a listener's `tls`: what it wants of clients.
pub const OPTION_TERMINATE_MODE: &str = "gateway.istio.io/tls-terminate-mode";
/// Option of a listener's `tls`: the ciphers that it offers.
pub const OPTION_CIPHER_SUITES: &str = "gateway.istio.io/tls-cipher-suites";
/// Option of a listener's `tls`: `auto-passthrough` leads connections where their SNI says.
pub const OPTION_PROTOCOL: &str = "gateway.istio.io/listener-protocol";
/// Label of a Gateway of a network: the port that leads into it.
pub const LABEL_GATEWAY_PORT: &str = "networking.istio.io/gatewayPort";
/// The port that leads into a network when nothing else is said.
pub const NETWORK_PORT: u16 = 15443;
