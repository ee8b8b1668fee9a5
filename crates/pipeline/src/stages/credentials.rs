//! Certificates and keys, and which Gateway may have which.

use envoy::credentials::materials::{self, MaterialView};
use flow::{Changes, Dirty, Touched};
use gateway::grants::{self, GrantView};
use model::secret::{CredentialGrants, Material, MaterialKey};
use model::{GatewayRow, ObjectKey};

use super::Stages;
use crate::inputs::{InputChanges, Inputs};

/// What of them changed.
pub(crate) struct CredentialChanges {
    pub(crate) grants: Changes<ObjectKey, CredentialGrants>,
    pub(crate) materials: Changes<MaterialKey, Material>,
}

impl Stages {
    /// Nobody needs to be connected: who may have what is decided when it is asked for.
    pub(super) fn update_credentials(
        &mut self,
        inputs: &Inputs,
        changed: &InputChanges,
        gateways: &Changes<ObjectKey, GatewayRow>,
        touched: &mut Touched,
    ) -> CredentialChanges {
        let grants = update!(
            touched,
            self.grants,
            gateways.keys().cloned(),
            grants::derive,
            GrantView {
                gateways: self.gateways.view(),
            }
        );
        let secrets = changed.secrets.keys().cloned();
        let config_maps = changed.config_maps.keys().cloned();
        let materials = update!(
            touched,
            self.materials,
            secrets
                .map(MaterialKey::Secret)
                .chain(config_maps.map(MaterialKey::ConfigMap)),
            materials::derive,
            MaterialView {
                secrets: inputs.secrets.view(),
                config_maps: inputs.config_maps.view(),
                grants: self.grants.view(),
            }
        );
        CredentialChanges { grants, materials }
    }
}
