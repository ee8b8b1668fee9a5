//! AuthorizationPolicy as a ztunnel policy.

use flow::{Output, Reads};
use model::derived::{L4Match, PolicyScope};
use model::input::{Action, AuthorizationPolicy};
use model::object::Invalid;
use model::{AuthorizationRow, Finding, Kind, ObjectKey, ObjectRef, Severity, Str};

use super::rule::{self, Clause, Entry};
use super::{AuthorizationView, behind, identity, principal};
use crate::policy_binding::is_sent_to_ztunnel;
use crate::tables::{self, error, warning};

/// The Authorization of an AuthorizationPolicy.
pub(super) fn derive(
    key: &ObjectKey,
    view: &AuthorizationView<'_>,
    reads: &mut Reads,
) -> Output<ObjectKey, AuthorizationRow, Finding> {
    let Some(object) = view.policies.get(reads, key) else {
        return Output::gone();
    };
    let policy = match &object.body {
        Ok(policy) => policy,
        Err(invalid) => {
            let root = &tables::mesh(view.mesh, reads).root_namespace;
            return deny_namespace(key, invalid, key.ns == *root);
        }
    };
    let mesh = tables::mesh(view.mesh, reads);
    let mut notes = principal::notes(key, policy, &mesh);
    notes.extend(identity::notes(key, policy, &mesh, view, reads));
    if !policy.targets.is_empty() {
        return Output::none().with_notes(notes);
    }
    let mut told = Told {
        key,
        notes: Vec::new(),
        value_notes: Vec::new(),
    };
    let is_sent = is_sent_to_ztunnel(policy, mesh.features);
    let groups = if is_sent {
        told.notes.extend(principal::aliases(key, policy, &mesh));
        told.groups(policy)
    } else {
        told.unenforced(policy)
    };
    let Told {
        notes: mut ambient_notes,
        value_notes,
        ..
    } = told;
    notes.extend(value_notes);
    // What ztunnel does matters only where there is a workload that it serves.
    if !ambient_notes.is_empty() && view.selects_served(reads, &key.ns, policy.selector.as_ref()) {
        if is_sent && policy.dry_run {
            ambient_notes.iter_mut().for_each(tried_out);
        }
        notes.extend(ambient_notes);
    }
    if !is_sent {
        return Output::none().with_notes(notes);
    }
    if !policy.dry_run {
        notes.extend(behind::notes(key, policy, &groups, &mesh, view, reads));
    }
    let is_root = mesh.root_namespace == key.ns;
    let scope = match policy.selector {
        Some(_) => PolicyScope::Selector,
        None if is_root => PolicyScope::Global,
        None => PolicyScope::Namespace,
    };
    let row = AuthorizationRow {
        key: key.clone(),
        scope,
        deny: policy.action == Action::Deny,
        dry_run: policy.dry_run,
        groups,
    };
    Output::one(key.clone(), row).with_notes(notes)
}

/// What an unreadable policy does. Its rules and selector are unknown and it may have been there
/// to refuse something, so everything to its own namespace (never the whole mesh) is refused.
fn deny_namespace(
    key: &ObjectKey,
    invalid: &Invalid,
    is_root: bool,
) -> Output<ObjectKey, AuthorizationRow, Finding> {
    let elsewhere = match (invalid.targets.is_empty(), is_root) {
        (false, false) => "; proxies refuse everything at its targets",
        (false, true) => {
            "; in other namespaces nothing stands in for it, and proxies refuse everything at its targets"
        }
        (true, false) => "; the ingress gateways there refuse everything",
        (true, true) => {
            "; in other namespaces nothing stands in for it, save that every ingress gateway refuses everything"
        }
    };
    let row = AuthorizationRow {
        key: key.clone(),
        scope: PolicyScope::Namespace,
        deny: false,
        dry_run: false,
        groups: Vec::new(),
    };
    let note = error(
        "authz-invalid-denies",
        reference(key),
        format!(
            "The policy cannot be read ({}); until it is corrected, it allows nothing to ambient workloads of namespace {}{elsewhere}",
            invalid.reason, key.ns
        ),
        "Correct the policy or delete it",
    );
    Output::one(key.clone(), row).with_note(note.at(invalid.field.clone()))
}

/// What a policy is for ztunnel.
pub(super) fn groups_of(key: &ObjectKey, policy: &AuthorizationPolicy) -> Vec<Vec<Vec<L4Match>>> {
    let mut told = Told {
        key,
        notes: Vec::new(),
        value_notes: Vec::new(),
    };
    told.groups(policy)
}

/// What is said of a policy that is only logged is advice.
fn tried_out(note: &mut Finding) {
    note.severity = Severity::Info;
    note.message = Str::from(format!(
        "Once the dry run ends (until then nothing is refused or allowed by it): {}",
        note.message
    ));
}

pub(super) fn reference(key: &ObjectKey) -> ObjectRef {
    ObjectRef::new(Kind::AuthorizationPolicy, key.clone())
}

/// Conversion of one policy, with what is to be told about it.
struct Told<'a> {
    key: &'a ObjectKey,
    /// What matters where ztunnel serves a selected pod.
    notes: Vec<Finding>,
    /// What is wrong anyway.
    value_notes: Vec<Finding>,
}

// === impl Told ===

impl Told<'_> {
    fn unenforced(&mut self, policy: &AuthorizationPolicy) -> Vec<Vec<Vec<L4Match>>> {
        let object = reference(self.key);
        self.notes.push(if policy.dry_run {
            warning(
                "authz-dryrun-ztunnel",
                object,
                "Dry-run policies are not evaluated by ztunnel",
                "Test the policy at a waypoint, or remove the annotation to enforce it",
            )
            .at("metadata.annotations[istio.io/dry-run]")
        } else {
            let action = if policy.action == Action::Audit {
                "AUDIT"
            } else {
                "CUSTOM"
            };
            error(
                "authz-action-ztunnel",
                object,
                format!(
                    "ztunnel supports only ALLOW and DENY; this {action} policy is not enforced"
                ),
                "Attach it with targetRefs to a waypoint or to a Service behind one",
            )
            .at("spec.action")
        });
        Vec::new()
    }

    fn groups(&mut self, policy: &AuthorizationPolicy) -> Vec<Vec<Vec<L4Match>>> {
        let mut groups = Vec::new();
        for (i, spec) in policy.rules.iter().enumerate() {
            let field = format!("spec.rules[{i}]");
            let clauses = rule::convert(&self.key.ns, &field, spec);
            self.bad_values(&clauses, policy.action);
            self.trust_domains(&clauses, policy.action);
            match policy.action {
                Action::Deny => groups.push(self.deny_group(i, &field, clauses)),
                _ => groups.extend(self.allow_group(i, &field, clauses)),
            }
        }
        groups
    }

    /// An ALLOW rule that holds anything unsupported allows nothing.
    fn allow_group(
        &mut self,
        i: usize,
        field: &str,
        clauses: Vec<Clause>,
    ) -> Option<Vec<Vec<L4Match>>> {
        let l7 = attributes(clauses.iter().flatten());
        let field = clauses
            .iter()
            .flatten()
            .find_map(|entry| entry.l7_field.clone())
            .unwrap_or_else(|| field.to_owned());
        if !l7.is_empty() {
            let message = format!(
                "Rule {i} uses {l7}, which ztunnel cannot evaluate; the rule is ignored and the policy now denies more than written"
            );
            let fix = "Move the rule to a policy with targetRefs on the Service or waypoint; keep an L4 policy that allows the waypoint's identity";
            let note = error("authz-l7-ztunnel-allow", reference(self.key), message, fix);
            self.notes.push(note.at(field));
        }
        if clauses.iter().flatten().any(Entry::has_unsupported) {
            return None;
        }
        let entry = |entry: Entry| {
            if entry.is_wider() {
                L4Match::default()
            } else {
                entry.l4
            }
        };
        Some(
            clauses
                .into_iter()
                .map(|clause| clause.into_iter().map(entry).collect())
                .collect(),
        )
    }

    /// A DENY rule keeps what ztunnel can evaluate.
    fn deny_group(&mut self, i: usize, field: &str, clauses: Vec<Clause>) -> Vec<Vec<L4Match>> {
        let mut rules = Vec::new();
        let is_void = clauses.iter().any(|clause| {
            clause
                .iter()
                .all(|entry| entry.is_void() && entry.has_unsupported())
        });
        if is_void {
            self.deny_noop(field, &format!("Rule {i} of this DENY has a condition that ztunnel cannot evaluate at all; the rule never fires"));
        }
        for clause in clauses {
            for entry in clause
                .iter()
                .filter(|entry| entry.has_unsupported() && !is_void)
            {
                if entry.is_void() {
                    self.deny_noop(
                        &entry.field,
                        "ztunnel can evaluate nothing of this entry of a DENY; it never matches",
                    );
                } else {
                    self.deny_wide(entry, i);
                }
            }
            // Nothing but exclusions, all unreadable: what was to be refused is everything.
            rules.push(if clause.iter().any(Entry::lost_all_exclusions) {
                Vec::new()
            } else {
                clause.into_iter().map(|entry| entry.l4).collect()
            });
        }
        rules
    }

    fn deny_noop(&mut self, field: &str, message: &str) {
        let note = error(
            "authz-l7-ztunnel-deny-noop",
            reference(self.key),
            message,
            "Use targetRefs and a waypoint",
        );
        self.notes.push(note.at(field));
    }

    fn deny_wide(&mut self, entry: &Entry, i: usize) {
        let l7 = attributes(std::iter::once(entry));
        if l7.is_empty() {
            return;
        }
        let message = format!(
            "{l7} ignored in rule {i}; all traffic that the rest of the entry matches is denied"
        );
        let fix = "Split L4 and L7 and attach the L7 part to the waypoint by targetRefs";
        let note = error(
            "authz-l7-ztunnel-deny-wide",
            reference(self.key),
            message,
            fix,
        );
        let at = entry.l7_field.as_ref().unwrap_or(&entry.field);
        self.notes.push(note.at(at.clone()));
    }

    fn trust_domains(&mut self, clauses: &[Clause], action: Action) {
        let effect = match action {
            Action::Deny => "the DENY keeps only its other conditions",
            _ => "the rule is ignored and the policy now denies more than written",
        };
        for entry in clauses.iter().flatten().filter(|entry| entry.trust_domains) {
            let note = error(
                "authz-trustdomains-ztunnel",
                reference(self.key),
                format!("trustDomains cannot be evaluated by ztunnel; {effect}"),
                "Use principals with the trust domain, or a policy at a waypoint",
            );
            self.notes.push(note.at(entry.field.clone()));
        }
    }

    fn bad_values(&mut self, clauses: &[Clause], action: Action) {
        for entry in clauses.iter().flatten() {
            let effect = match action {
                Action::Deny => "it is ignored",
                _ if entry.is_wider() => "the entry allows nothing",
                _ => "it matches nothing",
            };
            for (field, text) in &entry.bad {
                let note = error(
                    "authz-value-invalid",
                    reference(self.key),
                    format!("{text} is not a valid value here; {effect}"),
                    "Write a port from 0 to 65535, an IP address or a CIDR",
                );
                self.value_notes.push(note.at(field.clone()));
            }
        }
    }
}

/// The distinct L7 attributes of entries, as a list for people.
fn attributes<'a>(entries: impl Iterator<Item = &'a Entry>) -> String {
    let names: std::collections::BTreeSet<&str> = entries
        .flat_map(|entry| entry.l7.iter().map(Str::as_str))
        .collect();
    names.into_iter().collect::<Vec<_>>().join(", ")
}
