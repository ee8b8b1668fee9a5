//! `flags.yaml`: settings of the installation, by the names that [`MeshDefaults`] and
//! [`Features`] give them.

use anyhow::{Context as _, Result, bail};
use model::Str;
use model::derived::Features;
use pipeline::MeshDefaults;
use serde_json::Value;

/// The settings that a document states; the others are the defaults.
pub(super) fn parse(document: &Value) -> Result<MeshDefaults> {
    let map = document
        .as_object()
        .context("flags.yaml must be a mapping")?;
    let mut out = MeshDefaults::default();
    for (key, value) in map {
        match key.as_str() {
            "revision" => out.revision = Str::from(value.as_str().context("revision: no text")?),
            "features" => {
                let named = value.as_object().context("features: no mapping")?;
                for (name, value) in named {
                    *switch(&mut out.features, name)? = value
                        .as_bool()
                        .with_context(|| format!("{name} is neither true nor false"))?;
                }
            }
            "waypoint_missing" => {
                out.features.waypoint_missing_denies = match value.as_str() {
                    Some("fail-closed") => true,
                    Some("bypass") => false,
                    _ => bail!("waypoint_missing is neither fail-closed nor bypass"),
                };
            }
            other => bail!("{other} is no setting of flags.yaml"),
        }
    }
    Ok(out)
}

fn switch<'f>(features: &'f mut Features, name: &str) -> Result<&'f mut bool> {
    Ok(match name {
        "dry_run_policies" => &mut features.dry_run_policies,
        "allow_waypoint_policies" => &mut features.allow_waypoint_policies,
        "ip_autoallocate" => &mut features.ip_autoallocate,
        "entries_select_pods" => &mut features.entries_select_pods,
        "services_select_entries" => &mut features.services_select_entries,
        "foreign_hosts" => &mut features.foreign_hosts,
        "many_authorizers" => &mut features.many_authorizers,
        "multi_network" => &mut features.multi_network,
        "manual_gateways" => &mut features.manual_gateways,
        other => bail!("{other} is no switch"),
    })
}

#[cfg(test)]
mod tests {
    use model::derived::Features;
    use pipeline::MeshDefaults;
    use serde_json::json;

    use super::parse;

    #[test]
    fn what_is_stated_is_set_and_the_rest_stays() {
        let document = json!({
            "revision": "new",
            "features": { "dry_run_policies": true, "ip_autoallocate": false },
            "waypoint_missing": "fail-closed",
        });
        let want = MeshDefaults {
            revision: "new".into(),
            features: Features {
                dry_run_policies: true,
                ip_autoallocate: false,
                waypoint_missing_denies: true,
                ..Features::default()
            },
            ..MeshDefaults::default()
        };
        assert_eq!(parse(&document).ok(), Some(want));
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for bad in [
            json!([]),
            json!({ "revison": "new" }),
            json!({ "revision": 1 }),
            json!({ "features": { "dry_run": true } }),
            json!({ "features": { "dry_run_policies": "yes" } }),
            json!({ "waypoint_missing": "closed" }),
        ] {
            assert!(parse(&bad).is_err(), "{bad}");
        }
    }
}
