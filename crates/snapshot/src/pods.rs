//! What is known of pods, for those who judge who may speak for whom.

use std::sync::Arc;

use imbl::OrdMap;
use model::{ObjectKey, PodFact, Str};

/// Pods by name, by the node on which their account runs, and by their gateway.
/// Cloning is O(1).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodFacts {
    pods: OrdMap<ObjectKey, Arc<PodFact>>,
    /// (namespace, account, node) → number of pods.
    accounts: OrdMap<(Str, Str, Str), usize>,
    /// (gateway, account) → number of pods.
    gateways: OrdMap<(ObjectKey, Str), usize>,
}

impl PodFacts {
    /// Puts a pod into place of what was known of it, or forgets it.
    pub fn set(&mut self, key: &ObjectKey, fact: Option<Arc<PodFact>>) {
        let old = match &fact {
            Some(fact) => self.pods.insert(key.clone(), Arc::clone(fact)),
            None => self.pods.remove(key),
        };
        if let Some(old) = old {
            if let Some(at) = account(key, &old) {
                lower(&mut self.accounts, &at);
            }
            if let Some(at) = gateway(key, &old) {
                lower(&mut self.gateways, &at);
            }
        }
        if let Some(fact) = fact {
            if let Some(at) = account(key, &fact) {
                *self.accounts.entry(at).or_default() += 1;
            }
            if let Some(at) = gateway(key, &fact) {
                *self.gateways.entry(at).or_default() += 1;
            }
        }
    }

    /// What is known of a pod; failed pods are not known.
    pub fn get(&self, pod: &ObjectKey) -> Option<&Arc<PodFact>> {
        self.pods.get(pod)
    }

    /// Whether an account has a pod on a node.
    pub fn runs_on(&self, ns: &Str, service_account: &Str, node: &Str) -> bool {
        let at = (ns.clone(), service_account.clone(), node.clone());
        self.accounts.contains_key(&at)
    }

    /// The accounts of a gateway's pods; empty when no pod of it is known.
    pub fn gateway_accounts<'a>(&'a self, gateway: &'a ObjectKey) -> impl Iterator<Item = &'a Str> {
        let from = (gateway.clone(), Str::new());
        self.gateways
            .range(from..)
            .take_while(move |((of, _), _)| of == gateway)
            .map(|((_, account), _)| account)
    }
}

/// Only pods on a node count: nobody speaks for one that runs nowhere.
fn account(key: &ObjectKey, fact: &PodFact) -> Option<(Str, Str, Str)> {
    (!fact.node.is_empty()).then(|| {
        (
            key.ns.clone(),
            fact.service_account.clone(),
            fact.node.clone(),
        )
    })
}

fn gateway(key: &ObjectKey, fact: &PodFact) -> Option<(ObjectKey, Str)> {
    let name = fact.gateway.as_ref()?;
    Some((
        ObjectKey::new(key.ns.clone(), name.clone()),
        fact.service_account.clone(),
    ))
}

fn lower<K: Ord + Clone>(counts: &mut OrdMap<K, usize>, at: &K) {
    match counts.get_mut(at) {
        Some(count) if *count > 1 => *count -= 1,
        _ => {
            counts.remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[allow(clippy::unnecessary_wraps, reason = "as the table takes it")]
    fn fact(sa: &str, node: &str, gateway: &str) -> Option<Arc<PodFact>> {
        Some(Arc::new(PodFact {
            uid: Str::from("u"),
            service_account: Str::from(sa),
            node: Str::from(node),
            gateway: (!gateway.is_empty()).then(|| Str::from(gateway)),
        }))
    }

    #[test]
    fn accounts_run_where_a_pod_of_theirs_is_and_no_longer() {
        let mut facts = PodFacts::default();
        let key = |name| ObjectKey::new("ns", name);
        let runs = |facts: &PodFacts, sa: &str, node: &str| {
            facts.runs_on(&Str::from("ns"), &Str::from(sa), &Str::from(node))
        };
        facts.set(&key("a"), fact("x", "n1", "gw"));
        facts.set(&key("b"), fact("x", "n1", "gw"));
        facts.set(&key("c"), fact("y", "", "gw"));
        assert!(runs(&facts, "x", "n1") && !runs(&facts, "x", "n2") && !runs(&facts, "y", ""));
        let accounts = |facts: &PodFacts| -> Vec<Str> {
            facts.gateway_accounts(&key("gw")).cloned().collect()
        };
        assert_eq!(accounts(&facts), ["x", "y"]);
        facts.set(&key("a"), None);
        assert!(runs(&facts, "x", "n1"));
        facts.set(&key("b"), fact("x", "n2", ""));
        assert!(!runs(&facts, "x", "n1") && runs(&facts, "x", "n2"));
        assert_eq!(accounts(&facts), ["y"]);
        facts.set(&key("b"), None);
        facts.set(&key("c"), None);
        assert_eq!(facts, PodFacts::default());
    }
}
