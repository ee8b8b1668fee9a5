//! How Kubernetes merges the fields of the objects that overlays change: the patch metadata
//! of its types. Source: spec/gateway-api.md §2.7.

/// How the value of one field is merged.
#[derive(Clone, Copy, Debug)]
pub(super) enum Field {
    /// An object whose fields are merged in turn.
    Map(&'static Schema),
    /// An object that a patch replaces whole.
    ReplacedMap,
    /// A list of objects that are told apart by a field.
    Keyed {
        /// The field that tells elements apart.
        key: &'static str,
        /// How elements are merged.
        element: &'static Schema,
    },
    /// A list of words that is a set.
    Set,
}

/// The fields of an object that are not merged in the usual way, which is: objects field by
/// field, lists and everything else replaced.
#[derive(Debug)]
pub(super) struct Schema {
    fields: &'static [(&'static str, Field)],
}

impl Schema {
    /// How a field is merged; `None` for the usual way.
    pub(super) fn field(&self, name: &str) -> Option<Field> {
        self.fields
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, field)| *field)
    }
}

/// An object without particular fields.
pub(super) static PLAIN: Schema = Schema { fields: &[] };

const fn keyed(key: &'static str) -> Field {
    Field::Keyed {
        key,
        element: &PLAIN,
    }
}

static METADATA: Schema = Schema {
    fields: &[
        ("finalizers", Field::Set),
        ("ownerReferences", keyed("uid")),
    ],
};

static CONTAINER: Schema = Schema {
    fields: &[
        ("env", keyed("name")),
        ("ports", keyed("containerPort")),
        ("volumeDevices", keyed("devicePath")),
        ("volumeMounts", keyed("mountPath")),
    ],
};

const CONTAINERS: Field = Field::Keyed {
    key: "name",
    element: &CONTAINER,
};

static CLAIM_TEMPLATE: Schema = Schema {
    fields: &[("metadata", Field::Map(&METADATA))],
};

static EPHEMERAL_VOLUME: Schema = Schema {
    fields: &[("volumeClaimTemplate", Field::Map(&CLAIM_TEMPLATE))],
};

static VOLUME: Schema = Schema {
    fields: &[("ephemeral", Field::Map(&EPHEMERAL_VOLUME))],
};

static POD_SPEC: Schema = Schema {
    fields: &[
        ("containers", CONTAINERS),
        ("ephemeralContainers", CONTAINERS),
        ("hostAliases", keyed("ip")),
        ("imagePullSecrets", keyed("name")),
        ("initContainers", CONTAINERS),
        ("resourceClaims", keyed("name")),
        ("schedulingGates", keyed("name")),
        ("topologySpreadConstraints", keyed("topologyKey")),
        (
            "volumes",
            Field::Keyed {
                key: "name",
                element: &VOLUME,
            },
        ),
    ],
};

static POD_TEMPLATE: Schema = Schema {
    fields: &[
        ("metadata", Field::Map(&METADATA)),
        ("spec", Field::Map(&POD_SPEC)),
    ],
};

static DEPLOYMENT_SPEC: Schema = Schema {
    fields: &[("template", Field::Map(&POD_TEMPLATE))],
};

/// apps/v1 Deployment.
pub(super) static DEPLOYMENT: Schema = Schema {
    fields: &[
        ("metadata", Field::Map(&METADATA)),
        ("spec", Field::Map(&DEPLOYMENT_SPEC)),
    ],
};

static SERVICE_SPEC: Schema = Schema {
    fields: &[("ports", keyed("port"))],
};

/// v1 Service.
pub(super) static SERVICE: Schema = Schema {
    fields: &[
        ("metadata", Field::Map(&METADATA)),
        ("spec", Field::Map(&SERVICE_SPEC)),
    ],
};

/// v1 ServiceAccount.
pub(super) static SERVICE_ACCOUNT: Schema = Schema {
    fields: &[
        ("metadata", Field::Map(&METADATA)),
        ("secrets", keyed("name")),
    ],
};

/// autoscaling/v2 HorizontalPodAutoscaler.
pub(super) static AUTOSCALER: Schema = Schema {
    fields: &[("metadata", Field::Map(&METADATA))],
};

static BUDGET_SPEC: Schema = Schema {
    fields: &[("selector", Field::ReplacedMap)],
};

/// policy/v1 PodDisruptionBudget.
pub(super) static BUDGET: Schema = Schema {
    fields: &[
        ("metadata", Field::Map(&METADATA)),
        ("spec", Field::Map(&BUDGET_SPEC)),
    ],
};
