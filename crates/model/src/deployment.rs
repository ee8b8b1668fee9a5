//! What the instances of a Gateway run as: rows for who applies them.
//! Source: spec/gateway-api.md §2.

use serde_json::Value;

use crate::Str;
use crate::names::ObjectKey;

/// Who applies the objects, on every class.
pub const FIELD_MANAGER: &str = "istio.io/gateway-controller";
/// The version of the controller that last made the deployment, on the Gateway.
pub const ANNOTATION_CONTROLLER_VERSION: &str = "gateway.istio.io/controller-version";
/// Ours.
pub const CONTROLLER_VERSION: i64 = 5;

/// An object to be applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManagedObject {
    /// `apiVersion`.
    pub api_version: &'static str,
    /// `kind`.
    pub kind: &'static str,
    /// Namespace: the Gateway's.
    pub ns: Str,
    /// Name.
    pub name: Str,
    /// All of it.
    pub body: Value,
}

/// A Gateway whose deployment is ours to make. Source: spec/gateway-api.md §2.1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeploymentRow {
    /// The Gateway.
    pub gateway: ObjectKey,
    /// Its uid: one that was made anew is another. Empty in files, and then there is no owner
    /// among the objects.
    pub uid: Str,
    /// The Gateway does not say yet that it is ours: [`ANNOTATION_CONTROLLER_VERSION`] is to be
    /// written onto it first.
    pub claim: bool,
    /// The objects, in the order in which they are applied; none where they cannot be made, and
    /// then what was made before stays.
    pub objects: Vec<ManagedObject>,
}
