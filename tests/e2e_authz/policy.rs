//! AuthorizationPolicies and requests as plain data, and as the YAML that users write.

use serde_json::{Map, Value, json};

/// What matches and what must not match.
#[derive(Clone, Debug, Default)]
pub(crate) struct List {
    pub(crate) yes: Vec<String>,
    pub(crate) no: Vec<String>,
}

impl List {
    pub(crate) fn is_empty(&self) -> bool {
        self.yes.is_empty() && self.no.is_empty()
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Source {
    pub(crate) principals: List,
    pub(crate) request_principals: List,
    pub(crate) namespaces: List,
    pub(crate) service_accounts: List,
    pub(crate) trust_domains: List,
    pub(crate) ip_blocks: List,
    pub(crate) remote_ip_blocks: List,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Operation {
    pub(crate) hosts: List,
    pub(crate) ports: List,
    pub(crate) methods: List,
    pub(crate) paths: List,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Rule {
    pub(crate) from: Vec<Source>,
    pub(crate) to: Vec<Operation>,
    pub(crate) when: Vec<(String, List)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Allow,
    Deny,
    Audit,
    /// Of a provider that does not exist.
    Custom,
}

#[derive(Clone, Debug)]
pub(crate) struct Policy {
    pub(crate) name: String,
    pub(crate) service: String,
    pub(crate) action: Action,
    pub(crate) dry_run: bool,
    pub(crate) rules: Vec<Rule>,
}

/// Namespace of all policies.
pub(crate) const NS: &str = "shop";

fn put(into: &mut Map<String, Value>, name: &str, list: &List) {
    if !list.yes.is_empty() {
        into.insert(name.to_owned(), json!(list.yes));
    }
    if !list.no.is_empty() {
        let (first, rest) = name.split_at(1);
        into.insert(format!("not{}{rest}", first.to_uppercase()), json!(list.no));
    }
}

fn source(source: &Source) -> Value {
    let mut out = Map::new();
    put(&mut out, "principals", &source.principals);
    put(&mut out, "requestPrincipals", &source.request_principals);
    put(&mut out, "namespaces", &source.namespaces);
    put(&mut out, "serviceAccounts", &source.service_accounts);
    put(&mut out, "trustDomains", &source.trust_domains);
    put(&mut out, "ipBlocks", &source.ip_blocks);
    put(&mut out, "remoteIpBlocks", &source.remote_ip_blocks);
    json!({ "source": out })
}

fn operation(operation: &Operation) -> Value {
    let mut out = Map::new();
    put(&mut out, "hosts", &operation.hosts);
    put(&mut out, "ports", &operation.ports);
    put(&mut out, "methods", &operation.methods);
    put(&mut out, "paths", &operation.paths);
    json!({ "operation": out })
}

fn rule(rule: &Rule) -> Value {
    let mut out = Map::new();
    if !rule.from.is_empty() {
        let from: Vec<Value> = rule.from.iter().map(source).collect();
        out.insert("from".to_owned(), json!(from));
    }
    if !rule.to.is_empty() {
        let to: Vec<Value> = rule.to.iter().map(operation).collect();
        out.insert("to".to_owned(), json!(to));
    }
    if !rule.when.is_empty() {
        let one = |(key, list): &(String, List)| {
            let mut out = Map::new();
            out.insert("key".to_owned(), json!(key));
            put(&mut out, "values", list);
            Value::Object(out)
        };
        let when: Vec<Value> = rule.when.iter().map(one).collect();
        out.insert("when".to_owned(), json!(when));
    }
    Value::Object(out)
}

impl Policy {
    /// As users write it (JSON is YAML).
    pub(crate) fn manifest(&self) -> Value {
        let action = match self.action {
            Action::Allow => "ALLOW",
            Action::Deny => "DENY",
            Action::Audit => "AUDIT",
            Action::Custom => "CUSTOM",
        };
        let rules: Vec<Value> = self.rules.iter().map(rule).collect();
        let mut out = json!({
            "apiVersion": "security.istio.io/v1",
            "kind": "AuthorizationPolicy",
            "metadata": {"name": self.name, "namespace": NS},
            "spec": {
                "targetRefs": [{"group": "", "kind": "Service", "name": self.service}],
                "action": action,
                "rules": rules,
            },
        });
        if self.dry_run {
            out["metadata"]["annotations"] = json!({"istio.io/dry-run": "true"});
        }
        if self.action == Action::Custom {
            out["spec"]["provider"] = json!({"name": "nobody"});
        }
        out
    }
}

/// A request as the waypoint sees it.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// Index of the client.
    pub(crate) client: usize,
    pub(crate) method: String,
    /// As it is sent.
    pub(crate) target: String,
    /// As policies see it: normalized and without query.
    pub(crate) path: String,
    pub(crate) host: String,
    pub(crate) headers: Vec<(String, String)>,
    /// The verified token: its index.
    pub(crate) token: Option<usize>,
    /// Port of the service.
    pub(crate) port: u16,
}
