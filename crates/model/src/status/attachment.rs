//! What Gateways say of their listeners and routes of their parents.
//! Source: spec/gateway-api.md §3.4, §3.5, §4.1, §4.5.

use serde::ser::SerializeStruct as _;
use serde::{Serialize, Serializer};

use super::Condition;
use crate::Str;
use crate::input::{GatewayStatusAddress, RouteRef};
use crate::names::Kind;

/// A parent as the route wrote it: what was left to the API's defaults is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ParentRef {
    /// API group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<Str>,
    /// Kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<Str>,
    /// Namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Str>,
    /// Name.
    pub name: Str,
    /// Name of a listener.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub section_name: Option<Str>,
    /// Port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

impl ParentRef {
    /// What was written of a parent.
    pub fn of(parent: &RouteRef) -> Self {
        let unless = |defaulted: bool, text: &Str| (!defaulted).then(|| text.clone());
        Self {
            group: unless(parent.defaulted.group, &parent.group),
            kind: unless(parent.defaulted.kind, &parent.kind),
            namespace: unless(parent.defaulted.ns, &parent.ns),
            name: parent.name.clone(),
            section_name: parent.section.clone(),
            port: parent.port,
        }
    }

    /// `group/kind/name/section/port/namespace` with the defaults of a route in namespace `ns`:
    /// entries with equal identities are one, and new ones stand in descending order of it.
    pub fn identity(&self, ns: &str) -> String {
        let group = self.group.as_deref();
        format!(
            "{}/{}/{}/{}/{}/{}",
            group.unwrap_or("gateway.networking.k8s.io"),
            self.kind.as_deref().unwrap_or("Gateway"),
            self.name,
            self.section_name.as_deref().unwrap_or_default(),
            self.port.map_or_else(String::new, |port| port.to_string()),
            self.namespace.as_deref().unwrap_or(ns),
        )
    }
}

/// An entry of `status.parents` of a route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ParentStatus {
    /// The parent.
    pub parent_ref: ParentRef,
    /// Who says so.
    pub controller_name: &'static str,
    /// Conditions by type.
    pub conditions: Vec<Condition>,
}

/// An entry of `status.ancestors` of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AncestorStatus {
    /// What the policy is about, or a Gateway on the way to it.
    pub ancestor_ref: ParentRef,
    /// Who says so: one of [`super::ANCESTOR_CONTROLLERS`].
    pub controller_name: &'static str,
    /// Conditions by type.
    pub conditions: Vec<Condition>,
}

/// An entry of `status.listeners` of a Gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerStatus {
    /// Name of the listener.
    pub name: Str,
    /// Kinds of routes that it takes.
    pub supported_kinds: Vec<Kind>,
    /// How many routes it has taken.
    pub attached_routes: usize,
    /// Conditions by type.
    pub conditions: Vec<Condition>,
}

#[derive(Serialize)]
struct RouteKindJson {
    group: &'static str,
    kind: &'static str,
}

impl Serialize for ListenerStatus {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_struct("ListenerStatus", 4)?;
        let kinds = self.supported_kinds.iter();
        let kinds: Vec<_> = kinds
            .map(|kind| RouteKindJson {
                group: kind.group(),
                kind: kind.as_str(),
            })
            .collect();
        out.serialize_field("name", self.name.as_str())?;
        out.serialize_field("supportedKinds", &kinds)?;
        out.serialize_field("attachedRoutes", &self.attached_routes)?;
        out.serialize_field("conditions", &self.conditions)?;
        out.end()
    }
}

/// One of `status.addresses` of a Gateway.
#[derive(Serialize)]
pub(super) struct GatewayAddressJson {
    r#type: &'static str,
    value: String,
}

impl GatewayAddressJson {
    pub(super) fn of(address: &GatewayStatusAddress) -> Self {
        let (ty, value) = match address {
            GatewayStatusAddress::Hostname(name) => ("Hostname", name.to_string()),
            GatewayStatusAddress::Ip(ip) => ("IPAddress", ip.to_string()),
        };
        Self { r#type: ty, value }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;
    use crate::input::Defaulted;

    #[test]
    fn parents_are_repeated_as_written_and_known_by_what_they_mean() {
        let bare = RouteRef {
            group: "gateway.networking.k8s.io".into(),
            kind: "Gateway".into(),
            ns: "shop".into(),
            name: "door".into(),
            port: Some(15008),
            defaulted: Defaulted {
                group: true,
                kind: true,
                ns: true,
            },
            ..RouteRef::default()
        };
        let full = RouteRef {
            defaulted: Defaulted::default(),
            ..bare.clone()
        };
        let (bare, full) = (ParentRef::of(&bare), ParentRef::of(&full));
        assert_eq!(
            serde_json::to_value(&bare).unwrap(),
            json!({"name": "door", "port": 15008})
        );
        assert_eq!(
            serde_json::to_value(&full).unwrap(),
            json!({"group": "gateway.networking.k8s.io", "kind": "Gateway", "namespace": "shop",
                "name": "door", "port": 15008})
        );
        assert_eq!(bare.identity("shop"), full.identity("elsewhere"));
        assert_ne!(bare.identity("elsewhere"), full.identity("elsewhere"));
    }
}
