//! Stage `grants`: a Gateway → [`CredentialGrants`], what its proxies may have of Secrets.
//! [`crate::gateways`] decides it; here it is set apart, so that nothing else of a Gateway
//! touches what is served.

use flow::{Output, Reads, View};
use model::secret::CredentialGrants;
use model::{Finding, GatewayRow, ObjectKey};

/// What the stage reads.
#[derive(Clone, Copy)]
pub struct GrantView<'t> {
    /// Gateways of ours.
    pub gateways: View<'t, ObjectKey, GatewayRow>,
}

/// The Secrets that proxies of a Gateway may have.
pub fn derive(
    key: &ObjectKey,
    view: &GrantView<'_>,
    reads: &mut Reads,
) -> Output<ObjectKey, CredentialGrants, Finding> {
    match view.gateways.get(reads, key) {
        Some(row) => Output::one(key.clone(), row.grants.clone()),
        None => Output::gone(),
    }
}
