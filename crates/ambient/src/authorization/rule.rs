//! Rules of an AuthorizationPolicy as L4 matches, with what could not be converted.
//!
//! Source: spec/workload-discovery.md §5.3, spec/policy-and-traffic.md §1.10.

use model::Str;
use model::derived::{L4Match, StringCondition};
use model::input::{AuthzOperation, AuthzRule, AuthzSource, Values};

use crate::service::parse_block;

/// One `from`, `to` or `when` entry.
pub(super) struct Entry {
    /// Its path.
    pub(super) field: String,
    /// What ztunnel evaluates of it.
    pub(super) l4: L4Match,
    /// Attributes that ztunnel cannot evaluate, in the words of the API.
    pub(super) l7: Vec<Str>,
    /// Path of the first of them.
    pub(super) l7_field: Option<String>,
    /// It names trust domains, which ztunnel cannot evaluate either.
    pub(super) trust_domains: bool,
    /// Values that are no port or address: path and text.
    pub(super) bad: Vec<(String, Str)>,
    /// A list of values lost all of its values as unreadable.
    lost_values: bool,
    /// A list of exclusions lost some as unreadable.
    lost_exclusions: bool,
}

/// Clauses are ANDed, the entries of one ORed.
pub(super) type Clause = Vec<Entry>;

/// The clauses of a rule in the order to, from, when.
pub(super) fn convert(ns: &Str, path: &str, rule: &AuthzRule) -> Vec<Clause> {
    let mut clauses = Vec::new();
    if !rule.to.is_empty() {
        let entries = rule.to.iter().enumerate();
        clauses.push(
            entries
                .map(|(i, to)| operation(format!("{path}.to[{i}].operation"), to))
                .collect(),
        );
    }
    if !rule.from.is_empty() {
        let entries = rule.from.iter().enumerate();
        clauses.push(
            entries
                .map(|(i, from)| source(ns, format!("{path}.from[{i}].source"), from))
                .collect(),
        );
    }
    for (i, (key, values)) in rule.when.iter().enumerate() {
        clauses.push(vec![condition(format!("{path}.when[{i}]"), key, values)]);
    }
    clauses
}

fn operation(field: String, to: &AuthzOperation) -> Entry {
    let mut entry = Entry::new(field);
    (entry.l4.destination_ports, entry.l4.not_destination_ports) =
        entry.parsed(&to.ports, ("ports", "notPorts"), parse_port);
    entry.unsupported(&to.hosts, ("hosts", "notHosts"));
    entry.unsupported(&to.methods, ("methods", "notMethods"));
    entry.unsupported(&to.paths, ("paths", "notPaths"));
    entry
}

fn source(ns: &Str, field: String, from: &AuthzSource) -> Entry {
    let mut entry = Entry::new(field);
    let account = |text: &str| Some(account(ns, text));
    (entry.l4.principals, entry.l4.not_principals) = strings(&from.principals);
    (entry.l4.namespaces, entry.l4.not_namespaces) = strings(&from.namespaces);
    (entry.l4.service_accounts, entry.l4.not_service_accounts) = entry.parsed(
        &from.service_accounts,
        ("serviceAccounts", "notServiceAccounts"),
        account,
    );
    (entry.l4.source_ips, entry.l4.not_source_ips) =
        entry.parsed(&from.ip_blocks, ("ipBlocks", "notIpBlocks"), parse_block);
    let request = ("requestPrincipals", "notRequestPrincipals");
    entry.unsupported(&from.request_principals, request);
    entry.unsupported(
        &from.remote_ip_blocks,
        ("remoteIpBlocks", "notRemoteIpBlocks"),
    );
    entry.trust_domains = !from.trust_domains.is_empty();
    entry
}

fn condition(field: String, key: &Str, values: &Values) -> Entry {
    let mut entry = Entry::new(field);
    let names = ("values", "notValues");
    match key.as_str() {
        "source.ip" => {
            (entry.l4.source_ips, entry.l4.not_source_ips) =
                entry.parsed(values, names, parse_block);
        }
        "source.namespace" => {
            (entry.l4.namespaces, entry.l4.not_namespaces) = strings(values);
        }
        "source.principal" => {
            (entry.l4.principals, entry.l4.not_principals) = strings(values);
        }
        "destination.ip" => {
            (entry.l4.destination_ips, entry.l4.not_destination_ips) =
                entry.parsed(values, names, parse_block);
        }
        "destination.port" => {
            (entry.l4.destination_ports, entry.l4.not_destination_ports) =
                entry.parsed(values, names, parse_port);
        }
        _ => {
            entry.l7.push(key.clone());
            entry.l7_field = Some(entry.field.clone());
        }
    }
    entry
}

// === impl Entry ===

impl Entry {
    fn new(field: String) -> Self {
        Self {
            field,
            l4: L4Match::default(),
            l7: Vec::new(),
            l7_field: None,
            trust_domains: false,
            bad: Vec::new(),
            lost_values: false,
            lost_exclusions: false,
        }
    }

    /// Whether it holds anything that ztunnel cannot evaluate.
    pub(super) fn has_unsupported(&self) -> bool {
        self.trust_domains || !self.l7.is_empty()
    }

    /// Whether nothing is left for ztunnel to evaluate: it never matches.
    pub(super) fn is_void(&self) -> bool {
        self.l4 == L4Match::default()
    }

    fn unsupported(&mut self, values: &Values, names: (&'static str, &'static str)) {
        for (texts, name) in [(&values.values, names.0), (&values.not_values, names.1)] {
            if !texts.is_empty() {
                self.l7.push(Str::from(name));
                let field = format!("{}.{name}", self.field);
                self.l7_field.get_or_insert(field);
            }
        }
    }

    /// Whether it would match more than was written, for its unreadable values are left out.
    pub(super) fn is_wider(&self) -> bool {
        self.lost_values || self.lost_exclusions
    }

    /// Whether it was written as exclusions alone and every one of them was unreadable.
    pub(super) fn lost_all_exclusions(&self) -> bool {
        self.is_void() && self.lost_exclusions && !self.lost_values && !self.has_unsupported()
    }

    /// Both lists without their unreadable values, which are noted.
    fn parsed<T>(
        &mut self,
        values: &Values,
        names: (&str, &str),
        parse: impl Fn(&str) -> Option<T>,
    ) -> (Vec<T>, Vec<T>) {
        let before = self.bad.len();
        let included = self.readable(&values.values, names.0, &parse);
        self.lost_values |= self.bad.len() > before && included.is_empty();
        let before = self.bad.len();
        let excluded = self.readable(&values.not_values, names.1, &parse);
        self.lost_exclusions |= self.bad.len() > before;
        (included, excluded)
    }

    fn readable<T>(
        &mut self,
        texts: &[Str],
        name: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Vec<T> {
        let mut parsed = Vec::new();
        for (i, text) in texts.iter().enumerate() {
            match parse(text) {
                Some(value) => parsed.push(value),
                None => self
                    .bad
                    .push((format!("{}.{name}[{i}]", self.field), text.clone())),
            }
        }
        parsed
    }
}

fn strings(values: &Values) -> (Vec<StringCondition>, Vec<StringCondition>) {
    let all = |texts: &[Str]| texts.iter().map(string).collect();
    (all(&values.values), all(&values.not_values))
}

fn string(text: &Str) -> StringCondition {
    if text == "*" {
        StringCondition::Presence
    } else if let Some(suffix) = text.strip_prefix('*') {
        StringCondition::Suffix(Str::from(suffix))
    } else if let Some(prefix) = text.strip_suffix('*') {
        StringCondition::Prefix(Str::from(prefix))
    } else {
        StringCondition::Exact(text.clone())
    }
}

/// `ns/sa`, or `sa` of the policy's namespace.
fn account(ns: &Str, text: &str) -> (Str, Str) {
    match text.split_once('/') {
        Some((ns, name)) => (Str::from(ns), Str::from(name)),
        None => (ns.clone(), Str::from(text)),
    }
}

fn parse_port(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}
