//! What clients refuse.

use super::*;

#[test]
fn of_a_long_refusal_the_reason_is_kept() {
    let dump = "x".repeat(10 * LAST_ERROR_BYTES_MAX);
    let text = format!("goo.gle/debugproto {dump}é: value must be short");
    assert!(reason(&text).ends_with("é: value must be short"));
    assert_eq!(reason(&text).len(), LAST_ERROR_BYTES_MAX);
    assert_eq!(reason("goo.gle/debugproto x"), "goo.gle/debugproto x");
    assert!(reason(&format!("bad: {dump}")).starts_with("bad: x"));
}

#[test]
fn rejection_is_recorded_and_the_same_bytes_never_go_out_again() {
    // §10.18, §10.20.
    let mut stream = Stream::delta(ztunnel(), mesh("a=1 b=1", ""));
    stream.send(ask(Address));
    let nack = |nonce: &str| DeltaDiscoveryRequest {
        response_nonce: nonce.to_owned(),
        error_detail: Some(rejection(&"é".repeat(LAST_ERROR_BYTES_MAX))),
        ..ask(Address)
    };
    let nonce = stream.nonces[&Address].clone();
    assert_eq!(stream.send(nack(&nonce)), ["nacked wds"]);
    assert_eq!(
        stream.status(Address).last_error.unwrap().len(),
        LAST_ERROR_BYTES_MAX
    );
    assert_eq!(stream.publish(mesh("a=1 b=1", "")), NOTHING);
    assert_eq!(stream.publish(mesh("a=2 b=1", "")), ["wds +a"]);
    assert_eq!(stream.ack(Address), NOTHING);
    assert_eq!(stream.status(Address).last_error, None);
}

#[test]
fn rejection_of_a_type_never_asked_for_is_ignored() {
    // §10.19.
    let mut stream = Stream::delta(ztunnel(), mesh("a", ""));
    let nack = DeltaDiscoveryRequest {
        error_detail: Some(rejection("x")),
        ..ask(Address)
    };
    assert_eq!(stream.send(nack), NOTHING);
    assert_eq!(
        stream.send(ask(Address)),
        ["wds +a"],
        "the next request is the first"
    );
}

/// Rejects the response in flight.
fn nack(stream: &mut Stream, ty: ResourceType, message: &str) -> Vec<String> {
    let request = DeltaDiscoveryRequest {
        response_nonce: stream.nonces[&ty].clone(),
        error_detail: Some(rejection(message)),
        ..ask(ty)
    };
    let mut log = stream.send(request);
    assert_eq!(log.remove(0), format!("nacked {}", ty.short()));
    log
}

fn rejected(stream: &Stream) -> Vec<String> {
    let all = stream.session.rejections();
    all.iter()
        .map(|one| format!("{} {}", one.name, one.text))
        .collect()
}

#[test]
fn rejection_of_several_is_brought_down_to_the_one_that_is_to_blame() {
    let client = envoy("app", "wp");
    let routes = "a=1 b=bad c=1 d=1";
    let mut stream = Stream::delta(client.clone(), proxies(&client, "", "", "", routes));
    assert_eq!(
        stream.send(subscribe(Route, "a b c d", "")),
        ["interest app/wp", "rds +a +b +c +d"]
    );
    assert_eq!(nack(&mut stream, Route, "no"), ["rds +a +b"]);
    assert_eq!(nack(&mut stream, Route, "no"), ["rds +a"]);
    assert_eq!(stream.ack(Route), ["rds +b"]);
    assert_eq!(nack(&mut stream, Route, "b is bad"), ["rds +c +d"]);
    assert_eq!(stream.ack(Route), NOTHING);
    assert_eq!(rejected(&stream), ["b b is bad"]);
    // The same bytes never again, others go on.
    let next = proxies(&client, "", "", "", "a=2 b=bad c=1 d=1");
    assert_eq!(stream.publish(next), ["rds +a"]);
    assert_eq!(stream.ack(Route), NOTHING);
    assert_eq!(rejected(&stream), ["b b is bad"]);
    let mended = proxies(&client, "", "", "", "a=2 b=good c=1 d=1");
    assert_eq!(stream.publish(mended), ["rds +b"]);
    assert_eq!(stream.ack(Route), NOTHING);
    assert_eq!(rejected(&stream), NOTHING);
}

#[test]
fn rejection_that_names_clusters_leaves_the_others_alone() {
    let client = envoy("app", "wp");
    let mut stream = Stream::delta(client.clone(), proxies(&client, "a=1 b=1 c=1", "", "", ""));
    stream.send(ask(Cluster));
    let text = "Error adding/updating cluster(s) b: no such thing";
    assert_eq!(nack(&mut stream, Cluster, text), NOTHING);
    assert_eq!(rejected(&stream), [format!("b {text}")]);
    // A resource that is gone is refused no more.
    let without = proxies(&client, "a=1 c=1", "", "", "");
    assert_eq!(stream.publish(without), ["cds -b"]);
    assert_eq!(rejected(&stream), NOTHING);
}

#[test]
fn sotw_world_holds_the_older_version_of_what_was_refused() {
    let client = envoy("app", "wp");
    let world = |clusters: &str| proxies(&client, clusters, "", "", "");
    let mut stream = Stream::new(client.clone(), Flavour::Sotw, world("a=a1 b=b1"));
    stream.send(sotw(Cluster, "", ""));
    let nonce = stream.nonces[&Cluster].clone();
    assert_eq!(stream.send(sotw(Cluster, "", &nonce)), ["acked cds"]);
    assert_eq!(stream.publish(world("a=a2 b=b2")), ["cds a2 b2"]);
    let nonce = stream.nonces[&Cluster].clone();
    let refusal = DiscoveryRequest {
        error_detail: Some(rejection("Error adding/updating cluster(s) b: bad")),
        ..sotw(Cluster, "", &nonce)
    };
    assert_eq!(stream.send(refusal), ["nacked cds"]);
    assert_eq!(stream.publish(world("a=a3 b=b2")), ["cds a3 b1"]);
    let nonce = stream.nonces[&Cluster].clone();
    assert_eq!(stream.send(sotw(Cluster, "", &nonce)), ["acked cds"]);
    assert_eq!(rejected(&stream).len(), 1);
    assert_eq!(stream.publish(world("a=a3 b=b3")), ["cds a3 b3"]);
}
