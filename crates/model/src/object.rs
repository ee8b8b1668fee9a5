//! Input objects: metadata, and a body that may be invalid.

use std::sync::Arc;

use crate::finding::{Finding, ObjectRef};
use crate::input::{
    AuthorizationPolicy, BackendTlsPolicy, DestinationRule, EndpointSlice, Gateway, GatewayClass,
    GrpcRoute, HttpRoute, ListenerSet, MeshConfig, Namespace, Node, PeerAuthentication, Pod,
    ReferenceGrant, RequestAuthentication, Service, ServiceEntry, TargetRef, TcpRoute, TlsRoute,
    VirtualService, WebhookConfiguration, WorkloadEntry,
};
use crate::jwks::Jwks;
use crate::names::{Kind, ObjectKey};
use crate::secret::{ConfigMap, Secret};
use crate::{FrozenMap, Str};

/// Labels or annotations.
pub type Labels = FrozenMap<Str, Str>;

/// What ambientd reads of `metadata`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// Namespace and name.
    pub key: ObjectKey,
    /// Kubernetes uid, empty in files that give none.
    pub uid: Str,
    /// Labels.
    pub labels: Labels,
    /// Annotations.
    pub annotations: Labels,
    /// Creation time in seconds since the epoch; objects without one sort last,
    /// then by namespace and name.
    pub created_s: Option<i64>,
    /// Whether deletion has begun (`deletionTimestamp` is set).
    pub deleting: bool,
    /// `generateName`, empty when unset.
    pub generate_name: Str,
    /// The owner with `controller: true`: kind and name.
    pub controller: Option<(Str, Str)>,
    /// `metadata.generation`, 0 when unset.
    pub generation: i64,
}

impl Meta {
    /// A label's value.
    pub fn label(&self, key: &str) -> Option<&Str> {
        self.labels.get(key)
    }

    /// An annotation's value.
    pub fn annotation(&self, key: &str) -> Option<&Str> {
        self.annotations.get(key)
    }

    /// Sort key "oldest first": creation time, then namespace and name.
    pub fn age_order(&self) -> (i64, ObjectKey) {
        (self.created_s.unwrap_or(i64::MAX), self.key.clone())
    }
}

/// Why a body is invalid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// Path of the offending field, empty for the whole object.
    pub field: Str,
    /// What is wrong.
    pub reason: Str,
    /// What a security object is attached to all the same, as far as that can be read.
    pub targets: Vec<TargetRef>,
}

/// An input object as a row. Metadata is always present; a body that could not be
/// read is an error that stages report and otherwise treat as described by their docs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed<T> {
    /// Metadata.
    pub meta: Meta,
    /// The body, or why there is none.
    pub body: Result<T, Invalid>,
    /// What parsing itself ignored or rejected (unknown fields, bad values).
    pub notes: Vec<Finding>,
}

impl<T> Parsed<T> {
    /// The body if it is valid.
    pub fn ok(&self) -> Option<&T> {
        self.body.as_ref().ok()
    }

    /// Namespace and name.
    pub fn key(&self) -> &ObjectKey {
        &self.meta.key
    }
}

macro_rules! objects {
    ($($kind:ident($body:ty)),+ $(,)?) => {
        /// An input object of any kind.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Object {
            $(#[doc = concat!("A ", stringify!($kind), ".")] $kind(Arc<Parsed<$body>>),)+
        }

        impl Object {
            /// Its kind.
            pub fn kind(&self) -> Kind {
                match self { $(Self::$kind(_) => Kind::$kind,)+ }
            }

            /// Its metadata.
            pub fn meta(&self) -> &Meta {
                match self { $(Self::$kind(row) => &row.meta,)+ }
            }

            /// What parsing ignored or rejected.
            pub fn notes(&self) -> &[Finding] {
                match self { $(Self::$kind(row) => &row.notes,)+ }
            }

            /// Why the body is invalid, if it is.
            pub fn invalid(&self) -> Option<&Invalid> {
                match self { $(Self::$kind(row) => row.body.as_ref().err(),)+ }
            }

            /// The reference that findings about it use.
            pub fn object_ref(&self) -> ObjectRef {
                ObjectRef::new(self.kind(), self.meta().key.clone())
            }
        }
    };
}

objects! {
    Namespace(Namespace),
    Node(Node),
    Pod(Pod),
    Service(Service),
    EndpointSlice(EndpointSlice),
    Gateway(Gateway),
    GatewayClass(GatewayClass),
    ListenerSet(ListenerSet),
    BackendTlsPolicy(BackendTlsPolicy),
    HttpRoute(HttpRoute),
    GrpcRoute(GrpcRoute),
    TcpRoute(TcpRoute),
    TlsRoute(TlsRoute),
    RequestAuthentication(RequestAuthentication),
    VirtualService(VirtualService),
    DestinationRule(DestinationRule),
    ReferenceGrant(ReferenceGrant),
    AuthorizationPolicy(AuthorizationPolicy),
    PeerAuthentication(PeerAuthentication),
    ServiceEntry(ServiceEntry),
    WorkloadEntry(WorkloadEntry),
    Secret(Secret),
    ConfigMap(ConfigMap),
    MutatingWebhookConfiguration(WebhookConfiguration),
    ValidatingWebhookConfiguration(WebhookConfiguration),
    MeshConfig(MeshConfig),
}

/// A change of the input, as sources deliver it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// An object was created or changed.
    Upsert(Object),
    /// An object is gone.
    Delete(Kind, ObjectKey),
    /// The complete list of a kind: what is not in it is gone. The first one of
    /// every kind makes the pipeline ready.
    Resync(Kind, Vec<Object>),
    /// Findings that a source itself raises (unreadable files, unknown kinds, flags without
    /// effect): the name of the source, and its complete current list.
    SourceFindings(&'static str, Vec<Finding>),
    /// A proxy of this class connected (`true`) or its last one left (`false`).
    Interest(crate::ProxyClass, bool),
    /// What is known of the key set behind an address; `None` when nobody asks for it any more.
    Jwks(Str, Option<Arc<Jwks>>),
    /// What clients of a class refuse of what was sent to them: the complete current list.
    Rejected(crate::ProxyClass, Vec<crate::rejection::Rejection>),
}
