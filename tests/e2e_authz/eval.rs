//! What AuthorizationPolicies mean, written from spec/policy-and-traffic.md §1 alone: nothing
//! here comes from, or knows of, the code under test.

use std::net::Ipv4Addr;

use serde_json::Value;

use super::policy::{Action, List, NS, Operation, Policy, Request, Rule, Source};

/// Everything that conditions are about.
pub(crate) struct Facts<'a> {
    pub(crate) request: &'a Request,
    /// `<trust domain>/ns/<namespace>/sa/<account>`.
    pub(crate) identity: String,
    pub(crate) source: Ipv4Addr,
    pub(crate) destination: Ipv4Addr,
    /// Payload of the verified token.
    pub(crate) claims: Option<&'a Value>,
    /// A request, not a mere connection.
    pub(crate) http: bool,
}

impl Facts<'_> {
    fn part(&self, index: usize) -> &str {
        self.identity.split('/').nth(index).unwrap()
    }

    fn trust_domain(&self) -> &str {
        self.part(0)
    }

    fn namespace(&self) -> &str {
        self.part(2)
    }

    fn account(&self) -> &str {
        self.part(4)
    }
}

/// Whether the policies of a service let it through.
pub(crate) fn allowed(policies: &[&Policy], facts: &Facts<'_>) -> bool {
    let enforced = |action| {
        let all = policies.iter();
        all.filter(move |policy| policy.action == action && !policy.dry_run)
    };
    // A CUSTOM policy whose provider does not exist refuses what it matches.
    for action in [Action::Custom, Action::Deny] {
        if enforced(action)
            .any(|policy| policy.rules.iter().any(|rule| matches(rule, false, facts)))
        {
            return false;
        }
    }
    let mut allows = enforced(Action::Allow).peekable();
    allows.peek().is_none()
        || allows.any(|policy| policy.rules.iter().any(|rule| matches(rule, true, facts)))
}

/// `None`: it cannot be said of a connection.
type Verdict = Option<bool>;

/// On connections an ALLOW rule with a condition about requests does not count at all; of the
/// others only that condition does not.
fn matches(rule: &Rule, allow: bool, facts: &Facts<'_>) -> bool {
    let mut unknown = false;
    let mut all = |verdicts: Vec<Verdict>| {
        unknown |= verdicts.contains(&None);
        verdicts.into_iter().flatten().all(|holds| holds)
    };
    let mut holds = true;
    let from: Vec<bool> = rule
        .from
        .iter()
        .map(|from| all(source(from, facts)))
        .collect();
    holds &= from.is_empty() || from.contains(&true);
    let to: Vec<bool> = rule.to.iter().map(|to| all(operation(to, facts))).collect();
    holds &= to.is_empty() || to.contains(&true);
    holds &= all(rule
        .when
        .iter()
        .map(|(key, list)| when(key, list, facts))
        .collect());
    holds && !(allow && unknown)
}

/// Some value matches, and none of the negated ones does.
fn list(list: &List, one: impl Fn(&str) -> bool) -> bool {
    (list.yes.is_empty() || list.yes.iter().any(|value| one(value)))
        && !list.no.iter().any(|value| one(value))
}

#[allow(
    clippy::unnecessary_wraps,
    reason = "one shape with what cannot be known"
)]
fn field(values: &List, one: impl Fn(&str) -> bool) -> Verdict {
    Some(values.is_empty() || list(values, one))
}

fn http_field(facts: &Facts<'_>, values: &List, one: impl Fn(&str) -> bool) -> Verdict {
    if values.is_empty() {
        Some(true)
    } else if facts.http {
        field(values, one)
    } else {
        None
    }
}

/// `*` any text but none, `*x` a suffix, `x*` a prefix, else the text itself.
fn text(pattern: &str, value: &str) -> bool {
    if pattern == "*" {
        !value.is_empty()
    } else if let Some(end) = pattern.strip_prefix('*') {
        value.ends_with(end)
    } else if let Some(start) = pattern.strip_suffix('*') {
        value.starts_with(start)
    } else {
        pattern == value
    }
}

fn source(from: &Source, facts: &Facts<'_>) -> Vec<Verdict> {
    vec![
        field(&from.principals, |v| text(v, &facts.identity)),
        http_field(facts, &from.request_principals, |v| {
            request_principal(v, facts)
        }),
        field(&from.namespaces, |v| glob(v, facts.namespace())),
        field(&from.service_accounts, |v| account(v, facts)),
        field(&from.trust_domains, |v| text(v, facts.trust_domain())),
        field(&from.ip_blocks, |v| within(v, facts.source)),
        field(&from.remote_ip_blocks, |v| within(v, facts.source)),
    ]
}

fn operation(to: &Operation, facts: &Facts<'_>) -> Vec<Verdict> {
    let request = facts.request;
    let host = request.host.to_ascii_lowercase();
    vec![
        http_field(facts, &to.hosts, |v| text(&v.to_ascii_lowercase(), &host)),
        http_field(facts, &to.methods, |v| text(v, &request.method)),
        http_field(facts, &to.paths, |v| path(v, &request.path)),
        field(&to.ports, |v| v == request.port.to_string()),
    ]
}

fn when(key: &str, values: &List, facts: &Facts<'_>) -> Verdict {
    let request = facts.request;
    match key {
        "source.ip" | "remote.ip" => field(values, |v| within(v, facts.source)),
        "source.namespace" => field(values, |v| glob(v, facts.namespace())),
        "source.principal" => field(values, |v| text(v, &facts.identity)),
        "source.serviceAccount" => field(values, |v| account(v, facts)),
        "source.trustDomain" => field(values, |v| text(v, facts.trust_domain())),
        "destination.ip" => field(values, |v| within(v, facts.destination)),
        "destination.port" => field(values, |v| v == request.port.to_string()),
        // Nothing here is TLS inside of the tunnel, and no filter writes metadata.
        "connection.sni" => field(values, |_| false),
        key if key.starts_with("experimental.") => field(values, |_| false),
        "request.auth.principal" => http_field(facts, values, |v| request_principal(v, facts)),
        "request.auth.audiences" => claim(&["aud"], values, facts),
        "request.auth.presenter" => claim(&["azp"], values, facts),
        key => {
            if let Some(names) = key.strip_prefix("request.auth.claims[") {
                let names = names.strip_suffix(']').unwrap();
                return claim(&names.split("][").collect::<Vec<_>>(), values, facts);
            }
            let name = key.strip_prefix("request.headers[").unwrap();
            let name = name.strip_suffix(']').unwrap();
            // Each value of a repeated header is judged by itself; `*` asks for the header.
            http_field(facts, values, |v| {
                let named = request.headers.iter();
                let mut named = named.filter(|(header, _)| header.eq_ignore_ascii_case(name));
                named.any(|(_, value)| v == "*" || text(v, value))
            })
        }
    }
}

/// A star anywhere.
fn glob(pattern: &str, value: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == value,
        Some((start, end)) => {
            assert!(!end.contains('*'), "one star at most");
            value.len() >= start.len() + end.len()
                && value.starts_with(start)
                && value.ends_with(end)
        }
    }
}

fn account(pattern: &str, facts: &Facts<'_>) -> bool {
    let (ns, name) = pattern.split_once('/').unwrap_or((NS, pattern));
    (ns, name) == (facts.namespace(), facts.account())
}

fn within(block: &str, ip: Ipv4Addr) -> bool {
    let (base, bits) = block.split_once('/').unwrap_or((block, "32"));
    let Ok(base) = base.parse::<Ipv4Addr>() else {
        return false;
    };
    let mask = u32::MAX
        .checked_shl(32 - bits.parse::<u32>().unwrap())
        .unwrap_or(0);
    u32::from(base) & mask == u32::from(ip) & mask
}

fn path(pattern: &str, path: &str) -> bool {
    if !pattern.contains('{') {
        return text(pattern, path);
    }
    let (mut want, mut have) = (pattern.split('/'), path.split('/'));
    loop {
        match (want.next(), have.next()) {
            (None, None) | (Some("{**}"), Some(_)) => return true,
            (Some("{*}"), Some(segment)) if !segment.is_empty() => {}
            (Some(literal), Some(segment)) if literal == segment => {}
            _ => return false,
        }
    }
}

fn request_principal(pattern: &str, facts: &Facts<'_>) -> bool {
    let of = |name: &str| facts.claims?.get(name)?.as_str();
    let (iss, sub) = match pattern.rsplit_once('/') {
        Some(parts) => parts,
        None if pattern == "*" => ("*", "*"),
        None if pattern.starts_with('*') => ("*", pattern),
        None if pattern.ends_with('*') => (pattern, "*"),
        None => (pattern, ""),
    };
    of("iss").is_some_and(|value| text(iss, value))
        && of("sub").is_some_and(|value| text(sub, value))
}

/// Texts, and texts in lists; `scope` and `permission` are lists of their words.
fn claim(names: &[&str], values: &List, facts: &Facts<'_>) -> Verdict {
    let found = facts
        .claims
        .and_then(|claims| names.iter().try_fold(claims, |value, name| value.get(name)));
    let split = matches!(names, ["scope" | "permission"]);
    http_field(facts, values, |pattern| match found {
        Some(Value::String(value)) if split => value.split(' ').any(|word| text(pattern, word)),
        Some(Value::String(value)) => text(pattern, value),
        Some(Value::Array(items)) => {
            let mut texts = items.iter().filter_map(Value::as_str);
            texts.any(|value| text(pattern, value))
        }
        _ => false,
    })
}
