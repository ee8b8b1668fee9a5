//! Route configurations of service ports. Source: spec/envoy-config.md §5.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use model::input::{AbortStatus, HashKey, HeaderEdits};
use model::{NamespacedHostname, ObjectRef, Str};

/// Path condition of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoutePath {
    /// Every path.
    Any,
    /// Equal.
    Exact(Str),
    /// Prefix by segments, without trailing slash.
    Prefix(Str),
    /// Prefix of the text, as VirtualServices have it.
    TextPrefix(Str),
    /// RE2, full match: the field is a regular expression by definition.
    Regex(Str),
    /// An Envoy URI template.
    Template(Str),
}

/// Condition on a header, a query parameter or a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteValue {
    /// Equal.
    Exact(Str),
    /// Starts with.
    Prefix(Str),
    /// RE2, full match.
    Regex(Str),
    /// Present.
    Present,
}

/// Condition on a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderCondition {
    /// Name in lower case, or a pseudo header such as `:method`.
    pub name: Str,
    /// Value.
    pub value: RouteValue,
    /// The header must not be so; one that is missing is not.
    pub invert: bool,
}

/// Condition on a claim of a verified token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimCondition {
    /// Path of the claim, the `payload` left out.
    pub path: Vec<Str>,
    /// Value: the claim is it, or is a list with it.
    pub value: RouteValue,
    /// The claim must not be so.
    pub invert: bool,
}

/// A destination with its share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightedCluster {
    /// Cluster.
    pub cluster: Str,
    /// Weight, above 0.
    pub weight: u32,
    /// Changes of request headers, after those of the route.
    pub request: HeaderEdits,
    /// Changes of response headers.
    pub response: HeaderEdits,
    /// Host header towards it instead of the route's.
    pub host_rewrite: Option<Str>,
}

impl WeightedCluster {
    /// A destination that changes nothing.
    pub fn plain(cluster: Str, weight: u32) -> Self {
        Self {
            cluster,
            weight,
            request: HeaderEdits::default(),
            response: HeaderEdits::default(),
            host_rewrite: None,
        }
    }
}

/// What happens to the path of a forwarded request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathRewrite {
    /// The matched prefix (of an exact or regex match: the whole path) becomes this.
    Prefix(Str),
    /// The matched segment prefix of this length in bytes disappears, and what is left begins
    /// with one slash.
    StripPrefix(Str),
    /// The whole path, the query kept.
    Full(Str),
    /// RE2 pattern and substitution of a field that is a regular expression by definition.
    Regex(Str, Str),
}

/// Retries. Source: spec/envoy-config.md §5.2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryIr {
    /// Conditions in order, `retriable-status-codes` among them where there are codes.
    pub on: Vec<Str>,
    /// Statuses.
    pub statuses: Vec<u16>,
    /// Number of retries, above 0.
    pub attempts: u32,
    /// Limit of one try.
    pub per_try_timeout: Option<Duration>,
    /// Base interval between tries.
    pub backoff: Option<Duration>,
    /// Hosts that were tried are avoided.
    pub avoid_previous_hosts: bool,
    /// Priorities that were tried are avoided.
    pub avoid_previous_priorities: bool,
}

/// Copies of requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirrorIr {
    /// Where they go.
    pub cluster: Str,
    /// Share in parts per million, above 0.
    pub per_million: u32,
}

/// Persistence of a session. Source: spec/gateway-api.md §6.3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionIr {
    /// In a cookie with this name, path and life (0 = that of the browser's session).
    Cookie {
        /// Name.
        name: Str,
        /// Path.
        path: Str,
        /// Life.
        ttl: Duration,
    },
    /// In a header of this name.
    Header(Str),
}

/// Forwarding of requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardIr {
    /// Destinations; at least one.
    pub clusters: Vec<WeightedCluster>,
    /// Limit of a request; zero for none.
    pub timeout: Duration,
    /// Retries; `None` = none.
    pub retry: Option<RetryIr>,
    /// Host header.
    pub host_rewrite: Option<Str>,
    /// Path.
    pub path_rewrite: Option<PathRewrite>,
    /// Copies.
    pub mirrors: Vec<MirrorIr>,
    /// Keys of consistent hashing.
    pub hash: Vec<HashKey>,
    /// A cluster that does not exist answers 500 (Gateway API) instead of 503.
    pub missing_is_500: bool,
}

impl ForwardIr {
    /// To one cluster, with default retries and no limit.
    pub fn to(cluster: Str) -> Self {
        Self {
            clusters: vec![WeightedCluster::plain(cluster, 1)],
            timeout: Duration::ZERO,
            retry: Some(RetryIr::builtin()),
            host_rewrite: None,
            path_rewrite: None,
            mirrors: Vec::new(),
            hash: Vec::new(),
            missing_is_500: false,
        }
    }
}

impl RetryIr {
    /// What applies when neither a rule nor the mesh says anything.
    pub fn builtin() -> Self {
        let on = [
            arcstr::literal!("connect-failure"),
            arcstr::literal!("refused-stream"),
            arcstr::literal!("unavailable"),
            arcstr::literal!("cancelled"),
            arcstr::literal!("retriable-status-codes"),
        ];
        Self {
            on: on.into(),
            statuses: Vec::new(),
            attempts: 2,
            per_try_timeout: None,
            backoff: None,
            avoid_previous_hosts: true,
            avoid_previous_priorities: false,
        }
    }
}

/// A redirect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RedirectIr {
    /// Status: 301, 302, 303, 307 or 308.
    pub status: u16,
    /// Scheme.
    pub scheme: Option<Str>,
    /// Host.
    pub host: Option<Str>,
    /// Port.
    pub port: Option<u16>,
    /// Path.
    pub path: Option<PathRewrite>,
}

/// What a route does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteAction {
    /// Forward.
    Forward(Box<ForwardIr>),
    /// Redirect.
    Redirect(RedirectIr),
    /// Answer with a status and a body.
    Respond(u16, Bytes),
}

/// An origin that may call from a browser.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OriginMatch {
    /// Any that is a syntactically valid origin.
    Any,
    /// Equal.
    Exact(Str),
    /// Starts with.
    Prefix(Str),
    /// Parts with anything between them; the first and the last are anchored.
    Pieces(Vec<Str>),
    /// RE2, full match, of a field that is a regular expression by definition.
    Regex(Str),
}

/// CORS of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorsIr {
    /// Origins.
    pub origins: Vec<OriginMatch>,
    /// Methods, comma separated; empty for none.
    pub methods: Str,
    /// Headers.
    pub headers: Str,
    /// Exposed headers.
    pub expose: Str,
    /// Seconds.
    pub max_age_s: Option<u32>,
    /// Credentials; `None` leaves it unset.
    pub credentials: Option<bool>,
    /// Preflights that do not match are forwarded.
    pub forward_unmatched_preflights: bool,
}

/// Injected faults; shares in parts per million.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FaultIr {
    /// Delay.
    pub delay: Option<(Duration, u32)>,
    /// Abort.
    pub abort: Option<(AbortStatus, u32)>,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteIr {
    /// Name that access logs show.
    pub name: Str,
    /// Path.
    pub path: RoutePath,
    /// The case of an exact path or a prefix does not matter.
    pub ignore_case: bool,
    /// Headers, the method among them as `:method`.
    pub headers: Vec<HeaderCondition>,
    /// Query parameters.
    pub query: Vec<(Str, RouteValue)>,
    /// Claims.
    pub claims: Vec<ClaimCondition>,
    /// Action.
    pub action: RouteAction,
    /// Changes of request headers.
    pub request: HeaderEdits,
    /// Changes of response headers.
    pub response: HeaderEdits,
    /// CORS.
    pub cors: Option<CorsIr>,
    /// Faults.
    pub fault: Option<FaultIr>,
    /// Session persistence.
    pub session: Option<SessionIr>,
    /// Operation name of traces.
    pub operation: Str,
    /// Prefix of statistics, empty for none.
    pub stat_prefix: Str,
    /// The object that it is made from.
    pub origin: Option<ObjectRef>,
}

impl RouteIr {
    /// Every request to one cluster.
    pub fn everything(name: Str, cluster: Str, operation: Str) -> Self {
        Self::new(
            name,
            RoutePath::Any,
            RouteAction::Forward(Box::new(ForwardIr::to(cluster))),
            operation,
        )
    }

    /// A route without conditions beside its path, and without changes.
    pub fn new(name: Str, path: RoutePath, action: RouteAction, operation: Str) -> Self {
        Self {
            name,
            path,
            ignore_case: false,
            headers: Vec::new(),
            query: Vec::new(),
            claims: Vec::new(),
            action,
            request: HeaderEdits::default(),
            response: HeaderEdits::default(),
            cors: None,
            fault: None,
            session: None,
            operation,
            stat_prefix: Str::new(),
            origin: None,
        }
    }
}

/// A service port, or a subset of it, that something leads to through an `outbound` cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Outbound {
    /// The service.
    pub service: NamespacedHostname,
    /// Service port.
    pub port: u16,
    /// Subset, empty for all of it.
    pub subset: Str,
}

/// The route configuration of an HTTP chain, which fetches it by the name that both have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoutesIr {
    /// Name.
    pub name: Str,
    /// Service port, 0 on direct chains.
    pub port: u16,
    /// Domain of the virtual host: `*`, or the wildcard host of a service resolved per request.
    pub domain: Str,
    /// Routes in order of evaluation; never empty.
    pub routes: Vec<RouteIr>,
    /// Destinations that need an `outbound` cluster.
    pub outbound: BTreeSet<Outbound>,
}
