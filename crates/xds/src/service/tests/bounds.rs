//! What is bounded, and that it keeps nobody else out.

use super::*;

/// Sends bytes of a handshake that never goes on.
async fn dawdle(addr: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    stream.write_all(&[0x16, 0x03, 0x01]).await.unwrap();
    stream
}

#[tokio::test]
async fn half_open_handshakes_keep_nobody_out_and_are_bounded() {
    let limits = Limits {
        guests_max: 8,
        ..Limits::default()
    };
    let world = limited(Some(mesh("a", "")), limits).await;
    let mut known = world.ztunnel().await;
    known.send(address()).await;
    assert_eq!(known.next().await.0, ["a"]);
    let mut slow = Vec::new();
    for _ in 0..100 {
        slow.push(dawdle(world.tls).await);
    }
    let mut late = world.ztunnel().await;
    late.send(address()).await;
    assert_eq!(late.next().await.0, ["a"]);
    // Those who came first were sent away, and those who had proven themselves were not.
    let closed = tokio::time::timeout(PATIENCE, slow[0].read(&mut [0; 64])).await;
    assert!(matches!(closed, Ok(Ok(0) | Err(_))), "{closed:?}");
    world.snapshots.send_replace(Some(mesh("a b", "")));
    assert_eq!(known.next().await.0, ["b"]);
    let evicted = world
        .metrics
        .connections_closed
        .with_label_values(&["evicted"]);
    assert!(evicted.get() >= 90, "{}", evicted.get());
}

#[tokio::test]
async fn handshake_and_idle_time_are_bounded() {
    let limits = Limits {
        handshake: Duration::from_secs(3),
        idle: Duration::from_secs(1),
        ..Limits::default()
    };
    let world = limited(Some(mesh("a", "")), limits).await;
    let mut slow = dawdle(world.tls).await;
    let closed = tokio::time::timeout(PATIENCE, slow.read(&mut [0; 64])).await;
    assert!(matches!(closed, Ok(Ok(0) | Err(_))), "{closed:?}");
    // One with a stream stays; one without is asked to go.
    let mut busy = world.ztunnel().await;
    busy.send(address()).await;
    assert_eq!(busy.next().await.0, ["a"]);
    let _idle = world.channel(None).await.unwrap();
    let closed = |reason| {
        world
            .metrics
            .connections_closed
            .with_label_values(&[reason])
            .get()
    };
    let wait = async {
        while closed("idle") == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, wait)
        .await
        .expect("nobody is asked to go");
    world.snapshots.send_replace(Some(mesh("a b", "")));
    assert_eq!(busy.next().await.0, ["b"]);
    assert_eq!((closed("handshake_timeout"), closed("idle")), (1, 1));
    assert_eq!(world.connections.len(), 1);
}

/// A mesh of one resource of this many bytes.
fn heavy(bytes: usize) -> Arc<Snapshot> {
    let payload = vec![7; bytes];
    let resource = EncodedResource::new("heavy".into(), Address.type_url(), &payload, vec![]);
    Arc::new(Snapshot {
        addresses: [resource].into_iter().collect(),
        ..Snapshot::default()
    })
}

#[tokio::test]
async fn responses_go_out_up_to_the_limit_and_beyond_it_the_stream_says_so() {
    const ENVELOPE_BYTES: usize = 1024;
    let world = world(Some(heavy(ENCODE_BYTES_MAX - ENVELOPE_BYTES))).await;
    let mut ads = world.ztunnel().await;
    ads.send(address()).await;
    assert_eq!(ads.next().await.0, ["heavy"]);
    world
        .snapshots
        .send_replace(Some(heavy(ENCODE_BYTES_MAX + 1)));
    assert_eq!(
        ads.receive().await.unwrap_err().code(),
        Code::ResourceExhausted
    );
    let failed = world.metrics.pushes.with_label_values(&["wds_senderr"]);
    assert_eq!(failed.get(), 1);
    // Nobody else pays for it.
    world.snapshots.send_replace(Some(mesh("a", "")));
    let mut other = world.ztunnel().await;
    other.send(address()).await;
    assert_eq!(other.next().await.0, ["a"]);
}

#[tokio::test]
async fn streams_are_refused_before_the_first_snapshot_and_beyond_the_limit() {
    let world = world(None).await;
    let channel = world.channel(Some("istio-system/ztunnel")).await.unwrap();
    assert_eq!(
        ads(channel.clone()).await.err().unwrap().code(),
        Code::Unavailable
    );
    world.snapshots.send_replace(Some(mesh("", "")));
    let mut open = Vec::new();
    for _ in 0..8 {
        open.push(ads(channel.clone()).await.unwrap());
    }
    assert_eq!(
        ads(channel.clone()).await.err().unwrap().code(),
        Code::ResourceExhausted
    );
    open[0].send(address()).await;
    assert_eq!(open[0].next().await, (vec![], vec![]));
}
