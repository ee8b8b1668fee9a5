//! What ambientd asked of the API server, as its audit log has it.

use std::time::Duration;

use anyhow::ensure;
use serde_json::Value;
use testkit::cluster::Cluster;

use super::ACCOUNT;

/// A request as the API server saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) verb: String,
    pub(crate) group: String,
    /// With its subresource, as rules name it.
    pub(crate) resource: String,
    pub(crate) ns: String,
    pub(crate) name: String,
    pub(crate) code: u64,
    pub(crate) message: String,
}

/// Everything that a user asked for so far.
pub(crate) fn asked(cluster: &Cluster, user: &str) -> anyhow::Result<Vec<Asked>> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let of = |event: Value| {
        let object = &event["objectRef"];
        let mut resource = text(&object["resource"]);
        if let Some(sub) = object["subresource"].as_str() {
            resource = format!("{resource}/{sub}");
        }
        Asked {
            verb: text(&event["verb"]),
            group: text(&object["apiGroup"]),
            resource,
            ns: text(&object["namespace"]),
            name: text(&object["name"]),
            code: event["responseStatus"]["code"].as_u64().unwrap_or(0),
            message: text(&event["responseStatus"]["message"]),
        }
    };
    let events = cluster.audit()?;
    let asked = events.filter(|event| event["user"]["username"] == user);
    Ok(asked.map(of).flat_map(with_creation).collect())
}

/// What applying asks for where it makes an object: the API server wants the right to create too.
fn with_creation(asked: Asked) -> Vec<Asked> {
    let is_creation = asked.verb == "patch" && asked.code == 201;
    let creation = is_creation.then(|| Asked {
        verb: "create".to_owned(),
        ..asked.clone()
    });
    std::iter::once(asked).chain(creation).collect()
}

/// That the API server refused nothing of what ambientd asked for; what it refuses to everybody
/// in a namespace that ends is no matter of rights.
pub(crate) fn nothing_was_refused(cluster: &Cluster) -> anyhow::Result<()> {
    let all = asked(cluster, ACCOUNT)?;
    ensure!(!all.is_empty(), "the audit log holds nothing of {ACCOUNT}");
    let refused: Vec<_> = all
        .iter()
        .filter(|it| matches!(it.code, 401 | 403))
        .filter(|it| !it.message.contains("because it is being terminated"))
        .collect();
    ensure!(refused.is_empty(), "refused: {refused:#?}");
    Ok(())
}

/// A write of ambientd, as the API server saw it.
#[derive(Clone, Debug)]
pub(crate) struct Write {
    /// `verb resource/subresource ns/name code`.
    pub(crate) text: String,
    /// Whose token it was.
    pub(crate) credential: String,
}

/// Everything that replicas wrote or tried to write: leases and questions aside.
pub(crate) fn writes(cluster: &Cluster) -> anyhow::Result<Vec<Write>> {
    let mut all = Vec::new();
    for event in cluster.audit()? {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let verb = text(&event["verb"]);
        let object = &event["objectRef"];
        let resource = text(&object["resource"]);
        if event["user"]["username"] != ACCOUNT
            || event["stage"] != "ResponseComplete"
            || !["create", "update", "patch", "delete"].contains(&verb.as_str())
            || ["leases", "subjectaccessreviews", "tokenreviews"].contains(&resource.as_str())
        {
            continue;
        }
        let (sub, code) = (
            text(&object["subresource"]),
            &event["responseStatus"]["code"],
        );
        let (ns, name) = (text(&object["namespace"]), text(&object["name"]));
        all.push(Write {
            text: format!("{verb} {resource}/{sub} {ns}/{name} {code}"),
            credential: text(
                &event["user"]["extra"]["authentication.kubernetes.io/credential-id"][0],
            ),
        });
    }
    Ok(all)
}

/// All [`writes`] once no more of them came for this long.
pub(crate) async fn settled(cluster: &Cluster, quiet: Duration) -> anyhow::Result<Vec<Write>> {
    let mut count = writes(cluster)?.len();
    loop {
        tokio::time::sleep(quiet).await;
        let all = writes(cluster)?;
        if all.len() == count {
            return Ok(all);
        }
        count = all.len();
    }
}
