//! Index markers of gateways between networks.

use flow::Index;
use model::{NamespacedHostname, ProxyClass, ProxyRole};

use crate::ir::CrossingIr;

/// Classes of connected proxies by role. For the table of interest.
pub struct ClassByRole;

impl Index<ProxyClass, ()> for ClassByRole {
    type At = ProxyRole;
    fn keys(class: &ProxyClass, (): &(), emit: &mut dyn FnMut(&ProxyRole)) {
        emit(&class.role);
    }
}

/// Every service that other networks reach, under the empty text. For the table of
/// [`super::crossings`].
pub struct AllCrossings;

impl Index<NamespacedHostname, CrossingIr> for AllCrossings {
    type At = str;
    fn keys(_: &NamespacedHostname, _: &CrossingIr, emit: &mut dyn FnMut(&str)) {
        emit("");
    }
}
