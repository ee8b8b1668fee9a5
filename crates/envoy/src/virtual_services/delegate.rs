//! Rules with what they delegate put in place. Source: spec/policy-and-traffic.md §6.3.

use std::borrow::Cow;

use flow::{Reads, View};
use model::input::{Destination, StringMatch, VirtualHttp, VirtualMatch, VirtualService};
use model::{MeshRow, ObjectKey, Parsed, Str};

use super::defects::readable;
use super::destination::full_name;
use super::lookup::{Applied, export_to};
use crate::traffic::is_visible;

/// Most matches of a VirtualService with its delegates: one that is named often could else
/// multiply without bound.
const MATCHES_COUNT_MAX: usize = 10_000;

/// A rule as it is applied.
pub(crate) struct Rule<'a> {
    /// What it says.
    pub(crate) http: Cow<'a, VirtualHttp>,
    /// Namespace of the object that says it, to which short hosts belong.
    pub(crate) ns: &'a Str,
    /// Name of the VirtualService that concerns the service.
    pub(crate) name: &'a Str,
    /// Its place in that VirtualService; rules of one delegate share one.
    pub(crate) index: usize,
    /// What counts where there is no match.
    everything: VirtualMatch,
}

impl Rule<'_> {
    /// Its matches that can be told; one that everything meets where none is written.
    pub(crate) fn matches(&self) -> impl Iterator<Item = &VirtualMatch> {
        let all = match self.http.matches.as_slice() {
            [] => std::slice::from_ref(&self.everything),
            written => written,
        };
        all.iter().filter(|m| readable(m))
    }
}

/// A delegate that contributes nothing, or not all of its rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lost {
    /// Place of the rule that names it.
    pub(crate) index: usize,
    /// The delegate.
    pub(crate) delegate: ObjectKey,
    /// Why, as a clause.
    pub(crate) reason: String,
}

/// The rules of a VirtualService in order, and the delegates that are missing among them.
pub(crate) fn rules<'t>(
    applied: &Applied<'t>,
    table: View<'t, ObjectKey, Parsed<VirtualService>>,
    reads: &mut Reads,
    mesh: &MeshRow,
) -> (Vec<Rule<'t>>, Vec<Lost>) {
    let ns = &applied.key.ns;
    let (mut out, mut lost) = (Vec::new(), Vec::new());
    let mut left = MATCHES_COUNT_MAX;
    let rule = |http: Cow<'t, VirtualHttp>, ns: &'t Str, index: usize| Rule {
        http,
        ns,
        name: &applied.key.name,
        index,
        everything: VirtualMatch::default(),
    };
    for (index, root) in applied.spec.http.iter().enumerate() {
        let Some((to, name)) = &root.delegate else {
            out.push(rule(Cow::Borrowed(root), ns, index));
            continue;
        };
        let to = if to.is_empty() { ns } else { to };
        let key = ObjectKey::new(to.clone(), name.clone());
        let mut miss = |reason: String| {
            let delegate = key.clone();
            lost.push(Lost {
                index,
                delegate,
                reason,
            });
        };
        let Some((key, leaf)) = found(table, reads, &key) else {
            miss("there is no such VirtualService, or it cannot be read".to_owned());
            continue;
        };
        if !leaf.hosts.is_empty() {
            miss("it has hosts of its own".to_owned());
        } else if !is_visible(export_to(leaf, mesh), &key.ns, ns) {
            miss(format!("its exportTo hides it from namespace {ns}"));
        } else {
            let root = completed(root, ns, &mesh.domain);
            for (i, branch) in leaf.http.iter().enumerate() {
                if branch.delegate.is_some() {
                    miss(format!("its rule {i} delegates further"));
                } else if left == 0 {
                    miss(format!("there are more than {MATCHES_COUNT_MAX} matches"));
                    break;
                } else if let Some(merged) =
                    merged(&root, completed(branch, &key.ns, &mesh.domain), left)
                {
                    left = left.saturating_sub(merged.matches.len().max(1));
                    out.push(rule(Cow::Owned(merged), &key.ns, index));
                } else {
                    miss(format!(
                        "a match of its rule {i} contradicts those of the rule that delegates"
                    ));
                }
            }
        }
    }
    (out, lost)
}

fn found<'t>(
    table: View<'t, ObjectKey, Parsed<VirtualService>>,
    reads: &mut Reads,
    key: &ObjectKey,
) -> Option<(&'t ObjectKey, &'t VirtualService)> {
    let parsed = table.get(reads, key)?;
    Some((parsed.key(), parsed.ok()?))
}

/// A rule whose hosts are written in full.
fn completed(rule: &VirtualHttp, ns: &str, domain: &str) -> VirtualHttp {
    let mut out = rule.clone();
    let full = |to: &mut Destination| to.host = full_name(&to.host, ns, domain);
    out.routes
        .iter_mut()
        .for_each(|one| full(&mut one.destination));
    out.mirrors
        .iter_mut()
        .for_each(|one| full(&mut one.destination));
    out
}

/// A rule of a delegate inside the rule that names it; `None` when no request could match both, or
/// when both have too many matches.
fn merged(root: &VirtualHttp, leaf: VirtualHttp, max: usize) -> Option<VirtualHttp> {
    let matches = if root.matches.is_empty() {
        leaf.matches
    } else if leaf.matches.is_empty() {
        root.matches.clone()
    } else {
        let mut out = Vec::new();
        for one in &leaf.matches {
            let before = out.len();
            let fitting = root.matches.iter().filter(|of| !contradicts(of, one));
            out.extend(fitting.map(|of| merged_match(of, one)));
            if out.len() == before || out.len() > max {
                return None;
            }
        }
        out
    };
    Some(VirtualHttp {
        name: joined(&root.name, &leaf.name),
        matches,
        routes: leaf.routes,
        redirect: leaf.redirect,
        delegate: None,
        direct_response: leaf
            .direct_response
            .or_else(|| root.direct_response.clone()),
        rewrite: leaf.rewrite.or_else(|| root.rewrite.clone()),
        timeout: leaf.timeout.or(root.timeout),
        retries: leaf.retries.or_else(|| root.retries.clone()),
        fault: leaf.fault.or_else(|| root.fault.clone()),
        mirrors: if leaf.mirrors.is_empty() {
            root.mirrors.clone()
        } else {
            leaf.mirrors
        },
        cors: leaf.cors.or_else(|| root.cors.clone()),
        headers: leaf.headers.or_else(|| root.headers.clone()),
    })
}

fn joined(root: &Str, leaf: &Str) -> Str {
    match (root.is_empty(), leaf.is_empty()) {
        (true, _) => leaf.clone(),
        (_, true) => root.clone(),
        _ => arcstr::format!("{root}-{leaf}"),
    }
}

/// Whether no request can be meant by both matches, as far as that is told by their form.
fn contradicts(root: &VirtualMatch, leaf: &VirtualMatch) -> bool {
    let pairs = [
        (&root.uri, &leaf.uri),
        (&root.scheme, &leaf.scheme),
        (&root.method, &leaf.method),
        (&root.authority, &leaf.authority),
    ];
    let named = [
        (&root.headers, &leaf.headers),
        (&root.without_headers, &leaf.without_headers),
        (&root.query, &leaf.query),
    ];
    let labels = root.source_labels.iter().any(|(label, value)| {
        let other = leaf.source_labels.get(label);
        other.is_some_and(|other| other != value)
    });
    let gateways = !root.gateways.is_empty()
        && leaf
            .gateways
            .iter()
            .any(|gateway| !root.gateways.contains(gateway));
    let ports = root
        .port
        .zip(leaf.port)
        .is_some_and(|(root, leaf)| root != leaf);
    let namespace =
        !root.source_namespace.is_empty() && root.source_namespace != leaf.source_namespace;
    let case =
        root.uri.is_some() && leaf.uri.is_some() && root.ignore_uri_case != leaf.ignore_uri_case;
    labels
        || gateways
        || ports
        || namespace
        || case
        || pairs
            .into_iter()
            .any(|(root, leaf)| text_contradicts(root.as_ref(), leaf.as_ref()))
        || named
            .into_iter()
            .any(|(root, leaf)| named_contradicts(root, leaf))
}

type Named = Vec<(Str, Option<StringMatch>)>;

fn named_contradicts(root: &Named, leaf: &Named) -> bool {
    root.iter().any(|(name, of)| {
        let other = leaf.iter().find(|(other, _)| other == name);
        other.is_some_and(|(_, other)| text_contradicts(of.as_ref(), other.as_ref()))
    })
}

fn text_contradicts(root: Option<&StringMatch>, leaf: Option<&StringMatch>) -> bool {
    use StringMatch::{Exact, Prefix, Regex};
    match (root, leaf) {
        (None, _) | (_, None) => false,
        (Some(Regex(_)), _) | (_, Some(Regex(_))) | (Some(Exact(_)), Some(Prefix(_))) => true,
        (Some(Exact(root)), Some(Exact(leaf))) => root != leaf,
        (Some(Prefix(root)), Some(Exact(leaf) | Prefix(leaf))) => !leaf.starts_with(root.as_str()),
    }
}

/// What meets both matches: the leaf's value where it has one, else the root's.
fn merged_match(root: &VirtualMatch, leaf: &VirtualMatch) -> VirtualMatch {
    let text = |root: &Option<StringMatch>, leaf: &Option<StringMatch>| {
        leaf.as_ref().or(root.as_ref()).cloned()
    };
    let mut source_labels = root.source_labels.clone();
    source_labels.extend(leaf.source_labels.clone());
    let word = |root: &Str, leaf: &Str| if leaf.is_empty() { root } else { leaf }.clone();
    VirtualMatch {
        name: joined(&root.name, &leaf.name),
        uri: text(&root.uri, &leaf.uri),
        ignore_uri_case: root.ignore_uri_case || leaf.ignore_uri_case,
        scheme: text(&root.scheme, &leaf.scheme),
        method: text(&root.method, &leaf.method),
        authority: text(&root.authority, &leaf.authority),
        headers: union(&root.headers, &leaf.headers),
        without_headers: union(&root.without_headers, &leaf.without_headers),
        query: union(&root.query, &leaf.query),
        port: leaf.port.or(root.port),
        gateways: if leaf.gateways.is_empty() {
            root.gateways.clone()
        } else {
            leaf.gateways.clone()
        },
        source_labels,
        source_namespace: word(&root.source_namespace, &leaf.source_namespace),
        stat_prefix: word(&root.stat_prefix, &leaf.stat_prefix),
    }
}

fn union(root: &Named, leaf: &Named) -> Named {
    let mut out = leaf.clone();
    let missing = root
        .iter()
        .filter(|(name, _)| leaf.iter().all(|(other, _)| other != name));
    out.extend(missing.cloned());
    out.sort_by(|(a, _), (b, _)| a.cmp(b));
    out
}
