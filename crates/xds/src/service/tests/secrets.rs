//! Private keys, where a review says who may read them.

use std::sync::atomic::{AtomicBool, AtomicUsize};

use model::SecretBytes;
use model::secret::{Material, MaterialKey};
use snapshot::ResourceType::Secret;
use snapshot::SecretStore;

use super::*;
use crate::session::tests::proxies;

/// Says what it is told to, and counts how often.
#[derive(Default)]
struct Reviewer {
    allows: AtomicBool,
    asked: AtomicUsize,
}

impl SecretReviewer for Reviewer {
    fn may_list<'a>(&'a self, account: &'a SpiffeId) -> BoxFuture<'a, bool> {
        assert_eq!(account.to_string(), "spiffe://cluster.local/ns/app/sa/wp");
        self.asked.fetch_add(1, Ordering::Relaxed);
        let allows = self.allows.load(Ordering::Relaxed);
        Box::pin(async move {
            tokio::task::yield_now().await;
            allows
        })
    }
}

/// A Secret `app/s` of this content.
fn holding(content: &str) -> Arc<Snapshot> {
    let mut secrets = SecretStore::default();
    let material = Material {
        certificate: Some(SecretBytes::new(content.as_bytes())),
        authority: Some(SecretBytes::new(*b"ca")),
        ..Material::default()
    };
    let at = MaterialKey::Secret("app/s".parse().unwrap());
    secrets.put_material(at, Some(Arc::new(material)));
    let snapshot = proxies(&envoy("app", "wp"), "c", "c", "", "");
    Arc::new(Snapshot {
        secrets,
        ..Snapshot::clone(&snapshot)
    })
}

fn asking(names: &str) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest {
        resource_names_subscribe: strings(names),
        ..first("waypoint~10.0.0.1~wp.app~d", Secret.type_url())
    }
}

#[tokio::test]
async fn keys_are_given_to_who_the_review_lets_have_them_and_only_while_it_does() {
    let reviewer = Arc::new(Reviewer::default());
    let secrets = Arc::clone(&reviewer) as Arc<dyn SecretReviewer>;
    let world = reviewed(Some(holding("1")), Limits::default(), Some(secrets)).await;
    let asked = || reviewer.asked.load(Ordering::Relaxed);
    let publish = |content: &str| world.snapshots.send_replace(Some(holding(content)));
    let mut ads = ads(world.channel(Some("app/wp")).await.unwrap())
        .await
        .unwrap();

    // What everybody of the namespace may have is not asked about.
    ads.send(asking("kubernetes://s-cacert kubernetes-gateway://app/s"))
        .await;
    let (given, refused) = ads.next().await;
    assert_eq!(given, ["kubernetes://s-cacert"]);
    assert_eq!(refused, ["kubernetes-gateway://app/s"]);
    assert_eq!(asked(), 0);

    ads.send(asking("kubernetes://s")).await;
    assert_eq!(ads.next().await, (vec![], strings("kubernetes://s")));
    assert!(asked() > 0);
    reviewer.allows.store(true, Ordering::Relaxed);
    publish("2");
    assert_eq!(ads.next().await, (strings("kubernetes://s"), vec![]));
    reviewer.allows.store(false, Ordering::Relaxed);
    publish("3");
    assert_eq!(ads.next().await, (vec![], strings("kubernetes://s")));
}
