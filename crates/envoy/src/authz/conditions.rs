//! Attributes of a rule as typed conditions. Source: spec/policy-and-traffic.md §1.2, §1.3, §1.5.

use std::net::IpAddr;

use ipnet::IpNet;
use model::input::{AuthzOperation, AuthzSource, Values};
use model::{MeshRow, Str};

use super::identity;
use crate::ir::{Expr, Fact, StrMatch};

/// What a chain can see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layer {
    /// Requests.
    Http,
    /// Connections.
    Tcp,
}

/// Where the connections of a chain lead, whether they say it by address or by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Destination {
    port: u16,
    addresses: Vec<IpNet>,
}

impl Destination {
    /// A port of a service with these addresses.
    pub(crate) fn of(port: u16, vips: &[(Str, IpNet)]) -> Self {
        Self {
            port,
            addresses: vips.iter().map(|(_, net)| *net).collect(),
        }
    }

    /// Whether the port is this one.
    fn has_port(&self, value: &str) -> Option<Expr> {
        let port: u16 = value.parse().ok()?;
        Some(known(port == self.port))
    }

    /// Whether the address is in a block; `None` where only some of them are, for which one is
    /// meant is not known.
    fn is_in(&self, value: &str) -> Option<Expr> {
        let block = network(value)?;
        let inside = self.addresses.iter().filter(|net| block.contains(*net));
        let inside = inside.count();
        let is_certain = inside == 0 || inside == self.addresses.len();
        is_certain.then(|| known(inside > 0))
    }
}

fn known(holds: bool) -> Expr {
    if holds { Expr::always() } else { Expr::never() }
}

/// A chain as policies see it.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    /// What it sees.
    pub(crate) layer: Layer,
    /// Where it leads, where connections need not say it by address.
    pub(crate) to: Option<&'a Destination>,
    /// Certificates of clients that nobody vouches for are let in: what they say of who a client
    /// is says nothing.
    pub(crate) accepts_untrusted: bool,
}

impl Place<'_> {
    /// A chain that lets in no certificate that it has not verified.
    pub(crate) fn of(layer: Layer) -> Self {
        Self {
            layer,
            to: None,
            accepts_untrusted: false,
        }
    }
}

/// What the compilation of a rule depends on.
pub(crate) struct Scope<'a> {
    /// Mesh settings.
    pub(crate) mesh: &'a MeshRow,
    /// Namespace of the policy.
    pub(crate) ns: &'a Str,
    /// The chain.
    pub(crate) at: Place<'a>,
    /// The action is ALLOW.
    pub(crate) allow: bool,
    /// The chain is of an ingress gateway, where forwarded addresses count as far as proxies
    /// before it are trusted.
    pub(crate) is_ingress: bool,
}

/// `None`: this chain cannot evaluate the condition.
type Condition = Option<Expr>;

/// The values of an attribute and how they become a condition.
type Attribute<'v> = (&'v Values, fn(&Scope<'_>, &Values) -> Condition);

/// Whether a `when` key belongs to the permissions.
pub(super) fn is_about_destination(key: &str) -> bool {
    matches!(
        key,
        "destination.ip" | "destination.port" | "connection.sni"
    ) || filter_of(key).is_some()
}

/// The names of a key `<stem>[a][b]`; `None` when it has another form.
pub(super) fn bracketed<'k>(key: &'k str, stem: &str) -> Option<Vec<&'k str>> {
    let inner = key.strip_prefix(stem)?.strip_prefix('[')?;
    let names: Vec<&str> = inner.strip_suffix(']')?.split("][").collect();
    let good = |name: &&str| !name.is_empty() && !name.contains(['[', ']']);
    names.iter().all(good).then_some(names)
}

/// Filter and key of `experimental.<filter>[<key>]`.
fn filter_of(key: &str) -> Option<(&str, &str)> {
    let filter = key.strip_prefix("experimental.")?;
    let (stem, _) = filter.split_once('[')?;
    let named = stem.strip_prefix("envoy.filters.")?;
    match bracketed(filter, stem)?.as_slice() {
        [key] if !named.is_empty() => Some((stem, key)),
        _ => None,
    }
}

/// The claim that a `request.auth.*` key is about, as a path; `None` for other keys and for
/// `request.auth.principal`, which is about two.
pub(super) fn claim_of(key: &str) -> Option<Vec<Str>> {
    match key {
        "request.auth.audiences" => Some(vec![arcstr::literal!("aud")]),
        "request.auth.presenter" => Some(vec![arcstr::literal!("azp")]),
        _ => {
            let names = bracketed(key, "request.auth.claims")?;
            Some(names.into_iter().map(Str::from).collect())
        }
    }
}

/// The header of a `request.headers[X]` key, in lower case.
pub(super) fn header_of(key: &str) -> Option<String> {
    let name = key.strip_prefix("request.headers[")?.strip_suffix(']')?;
    let plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'[' | b']');
    (!name.is_empty() && name.bytes().all(plain)).then(|| name.to_ascii_lowercase())
}

/// `*` alone: any non-empty value; a leading star: a suffix; a trailing one: a prefix.
pub(super) fn string(value: &str) -> StrMatch {
    if value == "*" {
        StrMatch::Present
    } else if let Some(suffix) = value.strip_prefix('*') {
        StrMatch::Suffix(suffix.into())
    } else if let Some(prefix) = value.strip_suffix('*') {
        StrMatch::Prefix(prefix.into())
    } else {
        StrMatch::Exact(value.into())
    }
}

/// An address or a range.
pub(super) fn network(value: &str) -> Option<IpNet> {
    if let Ok(net) = value.parse::<IpNet>() {
        return Some(net);
    }
    value.parse::<IpAddr>().ok().map(IpNet::from)
}

/// An Envoy URI template of a path with `{*}` or `{**}`. Stricter than Envoy, which would
/// refuse the whole listener for a template that it cannot read.
pub(super) fn template(value: &str) -> Option<Str> {
    const CHARS_MAX: usize = 256;
    let segments: Vec<&str> = value.strip_prefix('/')?.split('/').collect();
    let last = segments.len().checked_sub(1)?;
    let literal = |text: &str| {
        text.bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-._~%!$&'()+,;:@=".contains(&b))
    };
    let mut out = String::with_capacity(value.len());
    for (index, segment) in segments.into_iter().enumerate() {
        out.push('/');
        match segment {
            "{*}" => out.push('*'),
            "{**}" if index == last => out.push_str("**"),
            "" if index != last => return None,
            text if literal(text) => out.push_str(text),
            _ => return None,
        }
    }
    (out.len() <= CHARS_MAX).then(|| out.into())
}

/// All values of an attribute; one that cannot be read makes the attribute unavailable,
/// since leaving it out could widen the rule.
fn values(values: &Values, one: impl Fn(&str) -> Option<Vec<Expr>>) -> Condition {
    let any = |list: &[Str]| -> Option<Expr> {
        let parts: Option<Vec<Vec<Expr>>> = list.iter().map(|value| one(value)).collect();
        Some(Expr::AnyOf(parts?.into_iter().flatten().collect()))
    };
    match (values.values.is_empty(), values.not_values.is_empty()) {
        (false, true) => any(&values.values),
        (true, false) => any(&values.not_values).map(Expr::negated),
        (false, false) => Some(Expr::AllOf(vec![
            any(&values.values)?,
            any(&values.not_values)?.negated(),
        ])),
        (true, true) => Some(Expr::always()),
    }
}

/// The values of an attribute that are one condition together, as are the negated ones.
fn both(list: &Values, together: impl Fn(&[Str]) -> Expr) -> Expr {
    let mut all = Vec::new();
    if !list.values.is_empty() {
        all.push(together(&list.values));
    }
    if !list.not_values.is_empty() {
        all.push(together(&list.not_values).negated());
    }
    match all.len() {
        1 => all.remove(0),
        _ => Expr::AllOf(all),
    }
}

fn claims(path: &[Str], list: &Values) -> Expr {
    both(list, |values| {
        let texts = values.iter().map(|value| string(value)).collect();
        Expr::Is(Fact::ClaimOrItem(path.to_vec(), texts))
    })
}

/// A value in brackets is an item of a list.
fn metadata(filter: &str, key: &str, values: &[Str]) -> Expr {
    let item = |value: &Str| {
        let inner = value.strip_prefix('[')?.strip_suffix(']')?;
        (!inner.is_empty()).then(|| string(inner))
    };
    let fact = |texts: Vec<StrMatch>, is_list| {
        let of = |texts| Fact::Metadata(filter.into(), key.into(), texts, is_list);
        (!texts.is_empty()).then(|| Expr::Is(of(texts)))
    };
    let items: Vec<StrMatch> = values.iter().filter_map(item).collect();
    let plain = values.iter().filter(|value| item(value).is_none());
    let plain = plain.map(|value| string(value)).collect();
    let mut any: Vec<Expr> = fact(items, true)
        .into_iter()
        .chain(fact(plain, false))
        .collect();
    match any.len() {
        1 => any.remove(0),
        _ => Expr::AnyOf(any),
    }
}

/// Issuer and subject, split at the last slash. Source: spec/policy-and-traffic.md §1.4.
#[allow(clippy::unnecessary_wraps, reason = "one shape with its neighbours")]
fn request_principals(list: &Values) -> Condition {
    let one = |value: &Str| {
        let (issuer, subject) = match value.rsplit_once('/') {
            Some((issuer, subject)) => (string(issuer), string(subject)),
            None if value == "*" => (StrMatch::Present, StrMatch::Present),
            None if value.starts_with('*') => (StrMatch::Present, string(value)),
            None if value.ends_with('*') => (string(value), StrMatch::Present),
            None => (string(value), StrMatch::Exact(Str::new())),
        };
        let claim = |name: Str, text| Expr::Is(Fact::Claim(vec![name], vec![text]));
        Expr::AllOf(vec![
            claim(arcstr::literal!("iss"), issuer),
            claim(arcstr::literal!("sub"), subject),
        ])
    };
    Some(both(list, |values| match values {
        [value] => one(value),
        values => Expr::AnyOf(values.iter().map(one).collect()),
    }))
}

fn facts(list: &Values, one: impl Fn(&str) -> Option<Fact>) -> Condition {
    values(list, |value| one(value).map(|fact| vec![Expr::Is(fact)]))
}

impl Scope<'_> {
    /// Adds a condition to a conjunction. What is unavailable voids an ALLOW rule (`None`)
    /// and is left out of every other rule, which then matches more.
    pub(super) fn push(&self, all: &mut Vec<Expr>, condition: Condition) -> Option<()> {
        match condition {
            Some(expr) => all.push(expr),
            None if self.allow => return None,
            None => {}
        }
        Some(())
    }

    /// The conditions of a `to` entry.
    pub(super) fn operation(&self, to: &AuthzOperation, all: &mut Vec<Expr>) -> Option<()> {
        let attributes: [Attribute<'_>; 4] = [
            (&to.hosts, |scope, list| scope.http(|| facts(list, host))),
            (&to.methods, |scope, list| {
                scope.http(|| facts(list, method))
            }),
            (&to.paths, |scope, list| scope.http(|| facts(list, path))),
            (&to.ports, |scope, list| scope.port(list)),
        ];
        self.push_all(all, &attributes)
    }

    /// The conditions of a `from` entry.
    pub(super) fn source(&self, from: &AuthzSource, all: &mut Vec<Expr>) -> Option<()> {
        let attributes: [Attribute<'_>; 7] = [
            (&from.principals, |scope, list| scope.principals(list)),
            (&from.request_principals, |scope, list| {
                scope.http(|| request_principals(list))
            }),
            (&from.service_accounts, |scope, list| {
                scope.service_accounts(list)
            }),
            (&from.trust_domains, |scope, list| scope.trust_domains(list)),
            (&from.namespaces, |scope, list| scope.namespaces(list)),
            (&from.remote_ip_blocks, |scope, list| scope.remote_ip(list)),
            (&from.ip_blocks, |_, list| facts(list, source_ip)),
        ];
        self.push_all(all, &attributes)
    }

    /// A `when` condition; unknown keys are unavailable.
    pub(super) fn when(&self, key: &str, list: &Values) -> Condition {
        if list.is_empty() {
            return None;
        }
        match key {
            "destination.ip" => match self.at.to {
                Some(to) => values(list, |value| Some(vec![to.is_in(value)?])),
                None => facts(list, |v| network(v).map(Fact::DestinationIp)),
            },
            "destination.port" => self.port(list),
            "connection.sni" => facts(list, |v| Some(Fact::Sni(string(v)))),
            "source.ip" => facts(list, source_ip),
            "remote.ip" => self.remote_ip(list),
            "source.namespace" => self.namespaces(list),
            "source.principal" => self.principals(list),
            "source.serviceAccount" => self.service_accounts(list),
            "source.trustDomain" => self.trust_domains(list),
            "request.auth.principal" => self.http(|| request_principals(list)),
            _ => {
                if let Some(claim) = claim_of(key) {
                    return self.http(|| Some(claims(&claim, list)));
                }
                if let Some((filter, key)) = filter_of(key) {
                    return Some(both(list, |values| metadata(filter, key, values)));
                }
                let name = Str::from(header_of(key)?);
                self.http(|| facts(list, |v| Some(Fact::Header(name.clone(), string(v), false))))
            }
        }
    }

    fn push_all(&self, all: &mut Vec<Expr>, attributes: &[Attribute<'_>]) -> Option<()> {
        for (list, condition) in attributes {
            if !list.is_empty() {
                self.push(all, condition(self, list))?;
            }
        }
        Some(())
    }

    fn port(&self, list: &Values) -> Condition {
        match self.at.to {
            Some(to) => values(list, |value| Some(vec![to.has_port(value)?])),
            None => facts(list, port),
        }
    }

    fn remote_ip(&self, list: &Values) -> Condition {
        if self.is_ingress {
            return facts(list, |value| network(value).map(Fact::ForwardedIp));
        }
        facts(list, source_ip)
    }

    fn http(&self, condition: impl FnOnce() -> Condition) -> Condition {
        (self.at.layer == Layer::Http).then(condition)?
    }

    fn principals(&self, list: &Values) -> Condition {
        self.peer(list, |value| {
            Some(identities(identity::principal(value, self.mesh)))
        })
    }

    fn service_accounts(&self, list: &Values) -> Condition {
        self.peer(list, |value| {
            Some(identities(identity::service_account(
                value, self.ns, self.mesh,
            )))
        })
    }

    fn trust_domains(&self, list: &Values) -> Condition {
        self.peer(list, |value| {
            Some(identities(identity::trust_domain(value, self.mesh)))
        })
    }

    fn namespaces(&self, list: &Values) -> Condition {
        self.peer(list, |value| identity::namespace(value, self.mesh))
    }

    /// What a certificate says of the client, unavailable where it need not be true.
    fn peer(&self, list: &Values, one: impl Fn(&str) -> Option<Vec<Expr>>) -> Condition {
        if self.at.accepts_untrusted {
            return None;
        }
        values(list, one)
    }
}

fn identities(list: Vec<StrMatch>) -> Vec<Expr> {
    list.into_iter()
        .map(|m| Expr::Is(Fact::Identity(m)))
        .collect()
}

fn source_ip(value: &str) -> Option<Fact> {
    network(value).map(Fact::SourceIp)
}

fn port(value: &str) -> Option<Fact> {
    value.parse().ok().map(Fact::Port)
}

#[allow(clippy::unnecessary_wraps, reason = "one shape with its neighbours")]
fn host(value: &str) -> Option<Fact> {
    Some(Fact::Header(
        arcstr::literal!(":authority"),
        string(value),
        true,
    ))
}

#[allow(clippy::unnecessary_wraps, reason = "one shape with its neighbours")]
fn method(value: &str) -> Option<Fact> {
    Some(Fact::Header(
        arcstr::literal!(":method"),
        string(value),
        false,
    ))
}

fn path(value: &str) -> Option<Fact> {
    if value.contains("{*}") || value.contains("{**}") {
        return template(value).map(Fact::PathTemplate);
    }
    Some(Fact::Path(string(value)))
}
