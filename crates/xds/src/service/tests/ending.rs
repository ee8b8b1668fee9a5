//! How connections end.

use super::*;

#[tokio::test]
async fn old_connection_is_asked_to_go_and_its_streams_live_for_the_grace_only() {
    let limits = Limits {
        age_max: Duration::from_secs(2),
        grace: Duration::from_millis(500),
        ..Limits::default()
    };
    let world = limited(Some(mesh("a", "")), limits).await;
    let mut ads = world.ztunnel().await;
    ads.send(address()).await;
    assert_eq!(ads.next().await.0, ["a"]);
    assert!(ads.receive().await.is_err());
    world.until(<[_]>::is_empty).await;
    let closed = world.metrics.connections_closed.with_label_values(&["age"]);
    assert_eq!(closed.get(), 1);
    let mut again = world.ztunnel().await;
    again.send(address()).await;
    assert_eq!(again.next().await.0, ["a"]);
}

#[tokio::test]
async fn shutdown_ends_streams_with_unavailable_and_then_the_server() {
    let world = world(Some(mesh("a", ""))).await;
    let mut ads = world.ztunnel().await;
    ads.send(address()).await;
    assert_eq!(ads.next().await.0, ["a"]);
    world.shutdown.cancel();
    assert_eq!(ads.receive().await.unwrap_err().code(), Code::Unavailable);
    drop(ads);
    let ended = tokio::time::timeout(PATIENCE, world.server).await;
    ended.expect("the server does not end").unwrap().unwrap();
}

/// A service that answers when it is let.
#[derive(Clone, Default)]
struct Slow {
    asked: Arc<tokio::sync::Notify>,
    let_go: Arc<tokio::sync::Notify>,
}

impl NamedService for Slow {
    const NAME: &'static str = "test.Slow";
}

impl Service<http::Request<Body>> for Slow {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<Body>) -> Self::Future {
        let slow = self.clone();
        Box::pin(async move {
            slow.asked.notify_one();
            slow.let_go.notified().await;
            Ok(Status::already_exists("answered").into_http())
        })
    }
}

/// A server that is asked something, and what comes of that: a status, if it is answered.
struct Asking {
    slow: Slow,
    addr: SocketAddr,
    shutdown: CancellationToken,
    server: JoinHandle<Result<(), ServerError>>,
    answer: JoinHandle<Option<String>>,
}

async fn asking(limits: Limits) -> Asking {
    let open = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = open.local_addr().unwrap();
    let slow = Slow::default();
    let config = ServerConfig {
        tls: None,
        plaintext: Some((open, Routes::new(slow.clone()))),
        limits,
    };
    let shutdown = CancellationToken::new();
    let metrics = Arc::new(Metrics::register(&Registry::new()).unwrap());
    let server = tokio::spawn(serve(config, metrics, shutdown.clone()));
    let mut channel = connect(Connector(addr, None)).await.unwrap();
    let answer = tokio::spawn(async move {
        std::future::poll_fn(|cx| channel.poll_ready(cx))
            .await
            .unwrap();
        let request = http::Request::post("http://istiod/test.Slow/Ask");
        let answer = channel.call(request.body(Body::empty()).unwrap()).await;
        let status = answer.ok()?.headers()["grpc-status"].clone();
        Some(status.to_str().unwrap().to_owned())
    });
    let asked = tokio::time::timeout(PATIENCE, slow.asked.notified()).await;
    asked.expect("nobody asks");
    Asking {
        slow,
        addr,
        shutdown,
        server,
        answer,
    }
}

#[tokio::test]
async fn a_request_that_is_being_answered_at_the_end_gets_its_answer() {
    let asking = asking(Limits::default()).await;
    asking.shutdown.cancel();
    // Longer than streams have that are told to end.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert!(TcpStream::connect(asking.addr).await.is_err());
    assert!(!asking.server.is_finished());
    asking.slow.let_go.notify_one();
    let code = tokio::time::timeout(PATIENCE, asking.answer).await.unwrap();
    assert_eq!(code.unwrap().as_deref(), Some("6"));
    let ended = tokio::time::timeout(PATIENCE, asking.server).await;
    ended.expect("the server does not end").unwrap().unwrap();
}

#[tokio::test]
async fn a_request_that_is_not_answered_in_the_time_for_the_end_is_cut_off() {
    let limits = Limits {
        drain: Duration::from_millis(700),
        last_answers: Duration::from_millis(300),
        // What a connection has that is only too old.
        grace: PATIENCE,
        ..Limits::default()
    };
    let asking = asking(limits).await;
    let began = std::time::Instant::now();
    asking.shutdown.cancel();
    let ended = tokio::time::timeout(PATIENCE / 2, asking.server).await;
    ended.expect("the server does not end").unwrap().unwrap();
    assert!(began.elapsed() >= limits.last_answers);
    let answer = tokio::time::timeout(PATIENCE / 2, asking.answer).await;
    assert_eq!(answer.expect("it is not cut off").unwrap(), None);
}
