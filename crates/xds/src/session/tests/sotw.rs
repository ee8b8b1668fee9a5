//! State of the world.

use super::*;

#[test]
fn sotw_wildcard_lists_everything_and_ignores_names() {
    // §10.21, §10.24.
    let client = envoy("app", "wp");
    let mut stream = Stream::new(
        client.clone(),
        Flavour::Sotw,
        proxies(&client, "a=a b=b", "", "", ""),
    );
    assert_eq!(
        stream.send(sotw(Cluster, "zzz", "old")),
        ["interest app/wp", "cds a b"]
    );
    let nonce = stream.nonces[&Cluster].clone();
    assert_eq!(stream.send(sotw(Cluster, "", &nonce)), ["acked cds"]);
    // Upserts keep what is about to go; the removal follows.
    assert_eq!(
        stream.publish(proxies(&client, "b=b c=c", "", "", "")),
        ["cds a b c"]
    );
    let nonce = stream.nonces[&Cluster].clone();
    assert_eq!(
        stream.send(sotw(Cluster, "", &nonce)),
        ["acked cds", "cds b c"]
    );
    assert_eq!(stream.send(sotw(Cluster, "", &nonce)), ["stale cds"]);
}

#[test]
fn sotw_named_answers_what_is_added_and_keeps_silent_on_what_is_dropped() {
    // §10.23, §10.25.
    let client = envoy("app", "wp");
    let eds = "a=a b=b c=c";
    let mut stream = Stream::new(
        client.clone(),
        Flavour::Sotw,
        proxies(&client, "", eds, "", ""),
    );
    assert_eq!(stream.send(sotw(Endpoint, "", "")), ["interest app/wp"]);
    assert_eq!(stream.send(sotw(Endpoint, "a none", "")), ["eds a"]);
    let nonce = stream.nonces[&Endpoint].clone();
    assert_eq!(stream.send(sotw(Endpoint, "a none", &nonce)), ["acked eds"]);
    assert_eq!(stream.send(sotw(Endpoint, "a b", &nonce)), ["eds b"]);
    let nonce = stream.nonces[&Endpoint].clone();
    assert_eq!(stream.send(sotw(Endpoint, "b", &nonce)), ["acked eds"]);
    assert_eq!(
        stream.publish(proxies(&client, "", "a=9 b=9", "", "")),
        ["eds 9"]
    );
    let nonce = stream.nonces[&Endpoint].clone();
    assert_eq!(stream.send(sotw(Endpoint, "b", &nonce)), ["acked eds"]);
    assert_eq!(stream.publish(proxies(&client, "", "a=9", "", "")), NOTHING);
    assert_eq!(
        stream.send(sotw(Endpoint, "", &nonce)),
        NOTHING,
        "unsubscribed"
    );
    assert_eq!(
        stream.publish(proxies(&client, "", "b=10", "", "")),
        NOTHING
    );
    assert_eq!(
        stream.send(sotw(Endpoint, "b", &nonce)),
        ["eds 10"],
        "a new subscription"
    );
}

#[test]
fn sotw_cluster_change_sends_its_endpoints_again() {
    let client = envoy("app", "wp");
    let mut stream = Stream::new(
        client.clone(),
        Flavour::Sotw,
        proxies(&client, "a=1", "a=e", "", ""),
    );
    stream.send(sotw(Endpoint, "a", ""));
    let nonce = stream.nonces[&Endpoint].clone();
    stream.send(sotw(Endpoint, "a", &nonce));
    assert_eq!(stream.send(sotw(Cluster, "", "")), ["cds 1", "eds e"]);
}
