//! Gateway API routes: HTTPRoute, GRPCRoute, TCPRoute and TLSRoute in one shape each.
//! Source: spec/gateway-api.md §6.

use std::time::Duration;

use crate::Str;

/// An object reference of a Gateway API route: group, kind, namespace, name.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteRef {
    /// API group, the kind's default applied.
    pub group: Str,
    /// Kind, default applied.
    pub kind: Str,
    /// Namespace, the route's own when unset.
    pub ns: Str,
    /// Name.
    pub name: Str,
    /// `sectionName`.
    pub section: Option<Str>,
    /// `port`.
    pub port: Option<u16>,
    /// Which parts of a parent were not written; nothing is said of other references.
    pub defaulted: Defaulted,
}

/// Parts of a reference that the API's defaults stand for. A status repeats a parent as it was
/// written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Defaulted {
    /// `group`.
    pub group: bool,
    /// `kind`.
    pub kind: bool,
    /// `namespace`.
    pub ns: bool,
}

/// A string match of Gateway API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueMatch {
    /// Equal.
    Exact(Str),
    /// RE2, full match.
    Regex(Str),
}

/// A path match of an HTTPRoute, or of a GRPCRoute as the path that it comes down to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathMatch {
    /// Equal.
    Exact(Str),
    /// Prefix by path segments.
    Prefix(Str),
    /// RE2, full match.
    Regex(Str),
    /// A gRPC method of any service: `/<one segment>/<this>`.
    AnyServiceMethod(Str),
}

/// One match of a rule; its parts are ANDed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpMatch {
    /// Path; `None` when the user wrote none (every path).
    pub path: Option<PathMatch>,
    /// Headers by lower-cased name; the first of duplicates wins.
    pub headers: Vec<(Str, ValueMatch)>,
    /// Query parameters by name; the first of duplicates wins.
    pub query: Vec<(Str, ValueMatch)>,
    /// Method.
    pub method: Option<Str>,
}

/// Changes of headers. Names are in lower case, each once per list (the first counts).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeaderEdits {
    /// Replaced or added.
    pub set: Vec<(Str, Str)>,
    /// Appended to what is there.
    pub add: Vec<(Str, Str)>,
    /// Removed.
    pub remove: Vec<Str>,
}

impl HeaderEdits {
    /// Changes nothing.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.add.is_empty() && self.remove.is_empty()
    }
}

/// What a redirect or a rewrite does to the path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathModifier {
    /// The whole path.
    Full(Str),
    /// The part that the prefix of the match covers.
    Prefix(Str),
}

/// `RequestRedirect`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpRedirect {
    /// `scheme`.
    pub scheme: Option<Str>,
    /// `hostname`.
    pub host: Option<Str>,
    /// `path`.
    pub path: Option<PathModifier>,
    /// `port`.
    pub port: Option<u16>,
    /// `statusCode`, default 302: one of 301, 302, 303, 307, 308.
    pub status: u16,
}

/// `URLRewrite`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpRewrite {
    /// `hostname`.
    pub host: Option<Str>,
    /// `path`.
    pub path: Option<PathModifier>,
}

/// `RequestMirror`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpMirror {
    /// Where copies go.
    pub target: RouteRef,
    /// Share of requests in parts per million; all of them when nothing is said.
    pub per_million: u32,
}

/// `CORS` of an HTTPRoute.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpCors {
    /// `allowOrigins`; a star stands for any characters, alone for every origin.
    pub origins: Vec<Str>,
    /// `allowMethods`.
    pub methods: Vec<Str>,
    /// `allowHeaders`.
    pub headers: Vec<Str>,
    /// `exposeHeaders`.
    pub expose: Vec<Str>,
    /// `allowCredentials`.
    pub credentials: bool,
    /// `maxAge` in seconds; `None` when it is not given or 0.
    pub max_age_s: Option<u32>,
}

/// A filter of a rule or of a backend, in the order written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteFilter {
    /// `RequestHeaderModifier`.
    RequestHeaders(HeaderEdits),
    /// `ResponseHeaderModifier`.
    ResponseHeaders(HeaderEdits),
    /// `RequestRedirect`.
    Redirect(HttpRedirect),
    /// `URLRewrite`.
    Rewrite(HttpRewrite),
    /// `RequestMirror`.
    Mirror(HttpMirror),
    /// `CORS`.
    Cors(HttpCors),
    /// A filter that cannot be applied, or not here, with its type as written: the whole
    /// route yields nothing.
    Unsupported(Str),
    /// A filter with a value that the API refuses: its type and why. The whole route yields
    /// nothing.
    Invalid(Str, Str),
}

/// A backend of a route rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendRef {
    /// The object and its port.
    pub target: RouteRef,
    /// Weight, default 1.
    pub weight: u32,
    /// Filters of this backend.
    pub filters: Vec<RouteFilter>,
}

/// `timeouts`; zero means none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HttpTimeouts {
    /// `request`.
    pub request: Option<Duration>,
    /// `backendRequest`.
    pub backend_request: Option<Duration>,
}

/// `retry`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpRetry {
    /// `codes`, each 400 to 599.
    pub codes: Vec<u16>,
    /// `attempts`; 0 turns retries off.
    pub attempts: Option<u32>,
    /// `backoff`.
    pub backoff: Option<Duration>,
}

/// `sessionPersistence`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionPersistence {
    /// `sessionName`: name of the cookie or header, empty when not given.
    pub name: Str,
    /// `type: Header`.
    pub header: bool,
    /// `absoluteTimeout`.
    pub absolute_timeout: Option<Duration>,
    /// `idleTimeout`.
    pub idle_timeout: Option<Duration>,
    /// `cookieConfig.lifetimeType: Permanent`.
    pub permanent: bool,
}

/// A rule of an HTTPRoute or GRPCRoute.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpRule {
    /// `name`.
    pub name: Option<Str>,
    /// Matches, ORed; empty matches everything.
    pub matches: Vec<HttpMatch>,
    /// Filters.
    pub filters: Vec<RouteFilter>,
    /// Backends.
    pub backends: Vec<BackendRef>,
    /// Timeouts.
    pub timeouts: HttpTimeouts,
    /// Retries; `None` = the mesh default.
    pub retry: Option<HttpRetry>,
    /// Session persistence.
    pub session: Option<SessionPersistence>,
    /// Paths (relative to the rule) of fields that ambientd does not understand, such as a
    /// type of match that it does not know. A rule with such a `filters` or `matches` entry
    /// must not forward silently without it.
    pub unsupported: Vec<Str>,
}

/// gateway.networking.k8s.io HTTPRoute.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpRoute {
    /// Parents.
    pub parents: Vec<RouteRef>,
    /// Hostnames.
    pub hostnames: Vec<Str>,
    /// Rules.
    pub rules: Vec<HttpRule>,
}

/// gateway.networking.k8s.io GRPCRoute: what an HTTPRoute with the same effect would say.
pub type GrpcRoute = HttpRoute;

/// A rule of a TCPRoute or TLSRoute.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct L4Rule {
    /// `name`.
    pub name: Option<Str>,
    /// Backends; they have no filters.
    pub backends: Vec<BackendRef>,
}

/// gateway.networking.k8s.io TCPRoute or TLSRoute.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct L4Route {
    /// Parents.
    pub parents: Vec<RouteRef>,
    /// Hostnames (TLSRoute only).
    pub hostnames: Vec<Str>,
    /// Rules; the first one counts.
    pub rules: Vec<L4Rule>,
}

/// gateway.networking.k8s.io TCPRoute.
pub type TcpRoute = L4Route;
/// gateway.networking.k8s.io TLSRoute.
pub type TlsRoute = L4Route;
