//! Claims about single fetches, against a server of this process.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::VecDeque;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

const KEYS: &str = r#"{"keys":[{"kid":"a"}]}"#;

/// A server that answers by path: a whole answer of HTTP, or nothing ever.
struct Server {
    port: u16,
    requests: Arc<Mutex<Vec<String>>>,
}

async fn serve(answer: impl Fn(&str, u16) -> Option<Vec<u8>> + Send + Sync + 'static) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let requests = Arc::new(Mutex::new(Vec::new()));
    let (answer, seen) = (Arc::new(answer), Arc::clone(&requests));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (answer, seen) = (Arc::clone(&answer), Arc::clone(&seen));
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                let head = String::from_utf8(head).unwrap();
                let path = head.split(' ').nth(1).unwrap().to_owned();
                seen.lock().unwrap().push(head);
                match answer(&path, port) {
                    Some(bytes) => drop(stream.write_all(&bytes).await),
                    None => std::future::pending().await,
                }
            });
        }
    });
    Server { port, requests }
}

#[allow(
    clippy::unnecessary_wraps,
    reason = "one shape with what closes the connection"
)]
fn ok(body: &str) -> Option<Vec<u8>> {
    let length = body.len();
    Some(format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}").into_bytes())
}

#[allow(
    clippy::unnecessary_wraps,
    reason = "one shape with what closes the connection"
)]
fn redirect(location: &str) -> Option<Vec<u8>> {
    let head = format!("HTTP/1.1 302 Found\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n");
    Some(head.into_bytes())
}

/// Gives one list of addresses after the other, the last one for ever.
struct Names(Mutex<VecDeque<Vec<&'static str>>>, AtomicUsize);

impl Resolve for Names {
    fn resolve<'a>(&'a self, _: &'a str) -> Resolution<'a> {
        Box::pin(async move {
            self.1.fetch_add(1, Ordering::Relaxed);
            let mut lists = self.0.lock().unwrap();
            let next = match lists.len() {
                0 | 1 => lists.front().cloned(),
                _ => lists.pop_front(),
            };
            let next = next.ok_or_else(|| io::Error::other("no such host"))?;
            Ok(next.iter().map(|ip| ip.parse().unwrap()).collect())
        })
    }
}

/// A client that may call 127.0.0.1, and nothing else of what is refused.
fn client(names: &[&[&'static str]]) -> (Client, Arc<Names>) {
    let rule = AddressRule {
        allowed: vec!["127.0.0.1/32".parse().unwrap()],
        ..AddressRule::default()
    };
    let lists = names.iter().map(|list| list.to_vec()).collect();
    let names = Arc::new(Names(Mutex::new(lists), AtomicUsize::new(0)));
    let resolver = Arc::clone(&names) as Arc<dyn Resolve>;
    (Client::new(rule, resolver, None).unwrap(), names)
}

async fn fetch(client: &Client, uri: &str) -> Result<Str, FetchError> {
    let wanted = Wanted {
        uri: Some(uri.into()),
        issuer: Str::new(),
        namespaces: ["ns".into()].into(),
        timeout: Some(Duration::from_millis(500)),
    };
    client.fetch(&wanted).await
}

fn reason(result: Result<Str, FetchError>) -> String {
    match result.unwrap_err() {
        FetchError::Failed(reason) => reason,
        FetchError::Blocked(reason) => format!("blocked: {reason}"),
    }
}

#[tokio::test]
async fn a_key_set_is_fetched_directly_and_by_discovery() {
    let server = serve(|path, port| match path {
        "/t/keys?a=b" => ok(r#"{"keys": [ {"kid": "a"} ]}"#),
        "/t/.well-known/openid-configuration" => ok(&format!(
            r#"{{"jwks_uri": "http://host:{port}/t/keys?a=b"}}"#
        )),
        path => panic!("{path}"),
    })
    .await;
    let (client, _) = client(&[&["127.0.0.1"]]);
    let port = server.port;
    let direct = fetch(&client, &format!("http://host:{port}/t/keys?a=b#x")).await;
    assert_eq!(direct.as_deref(), Ok(KEYS));
    let head = server
        .requests
        .lock()
        .unwrap()
        .first()
        .unwrap()
        .to_lowercase();
    assert!(head.contains(&format!("host: host:{port}\r\n")), "{head}");
    let wanted = Wanted {
        uri: None,
        issuer: arcstr::format!("http://host:{port}/t/"),
        timeout: None,
        namespaces: ["ns".into()].into(),
    };
    assert_eq!(client.fetch(&wanted).await.as_deref(), Ok(KEYS));
}

#[test]
fn discovery_never_leads_from_https_to_plain_text() {
    let document = |uri: &str| format!(r#"{{"jwks_uri": "{uri}"}}"#);
    for (issuer, uri, permitted) in [
        ("https://i.example", "https://k.example/keys", true),
        ("HTTPS://i.example", "HTTPS://k.example/keys", true),
        ("https://i.example", "http://k.example/keys", false),
        ("HTTPS://i.example", "http://i.example/keys", false),
        ("https://i.example", "/keys", false),
        ("http://i.example", "http://k.example/keys", true),
        ("http://i.example", "https://k.example/keys", true),
    ] {
        let found = discovered(issuer, document(uri).as_bytes());
        assert_eq!(found.is_ok(), permitted, "{issuer} {uri}");
    }
}

#[tokio::test]
async fn what_is_too_long_too_slow_or_no_key_set_fails() {
    let server = serve(|path, _| match path {
        "/long" => ok(&" ".repeat(BODY_BYTES_MAX + 1)),
        "/endless" => {
            let mut head = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
            head.resize(BODY_BYTES_MAX * 2, b' ');
            Some(head)
        }
        "/head" => Some(format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "x".repeat(1 << 20)).into()),
        "/never" => None,
        "/html" => ok("<html>"),
        "/none" => Some(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_vec()),
        "/closed" => Some(Vec::new()),
        _ => ok("{}"),
    })
    .await;
    let (client, _) = client(&[&["127.0.0.1"]]);
    for (path, part) in [
        ("/long", "longer than"),
        ("/endless", "longer than"),
        ("/head", "no answer over HTTP"),
        ("/never", "within 500 ms"),
        ("/html", "not JSON"),
        ("/none", "404"),
        ("/closed", "no answer over HTTP"),
        ("/", "list of keys"),
    ] {
        let uri = format!("http://host:{}{path}", server.port);
        let reason = reason(fetch(&client, &uri).await);
        assert!(reason.contains(part), "{path}: {reason}");
    }
    let uri = format!("https://host:{}/", server.port);
    let reason = reason(fetch(&client, &uri).await);
    assert!(
        reason.contains("no TLS connection") || reason.contains("500 ms"),
        "{reason}"
    );
}

#[tokio::test]
async fn redirects_are_few_and_each_is_judged() {
    let server = serve(|path, port| match path {
        "/3" => redirect("/2"),
        "/2" => redirect("1"),
        "/1" => redirect(&format!("http://127.0.0.1:{port}/0")),
        "/0" => ok(KEYS),
        "/round" => redirect("/round"),
        "/inside" => redirect("http://169.254.169.254/latest"),
        "/mapped" => redirect("http://[::ffff:127.0.0.9]/"),
        "/octal" => redirect("http://0177.0.0.2/"),
        "/file" => redirect("file:///etc/passwd"),
        _ => Some(b"HTTP/1.1 302 Found\r\ncontent-length: 0\r\n\r\n".to_vec()),
    })
    .await;
    let (client, _) = client(&[&["127.0.0.1"]]);
    let get = |path: &'static str| {
        let uri = format!("http://host:{}{path}", server.port);
        let client = client.clone();
        async move { fetch(&client, &uri).await }
    };
    assert_eq!(get("/3").await.as_deref(), Ok(KEYS));
    for (path, part) in [
        ("/round", "more than 3 redirects"),
        ("/inside", "blocked: 169.254.169.254"),
        ("/mapped", "blocked: "),
        ("/octal", "blocked: 127.0.0.2"),
        ("/file", "neither http nor https"),
        ("/nowhere", "redirects to nowhere"),
    ] {
        let reason = reason(get(path).await);
        assert!(reason.contains(part), "{path}: {reason}");
    }
}

#[tokio::test]
async fn what_is_called_is_what_was_judged() {
    let server = serve(|_, _| ok(KEYS)).await;
    let uri = format!("http://host:{}/", server.port);
    // One resolution a connection: a second answer has nobody to mislead.
    let (rebinding, names) = client(&[&["127.0.0.1"], &["169.254.169.254"]]);
    assert_eq!(fetch(&rebinding, &uri).await.as_deref(), Ok(KEYS));
    assert_eq!(names.1.load(Ordering::Relaxed), 1);
    let blocked = reason(fetch(&rebinding, &uri).await);
    assert!(
        blocked.contains("blocked: host is at 169.254.169.254"),
        "{blocked}"
    );
    // One bad address among good ones.
    let (mixed, _) = client(&[&["127.0.0.1", "127.0.0.2"]]);
    assert!(reason(fetch(&mixed, &uri).await).contains("127.0.0.2"));
    assert_eq!(server.requests.lock().unwrap().len(), 1);
    for (uri, part) in [
        ("http://user:secret@host/", "credentials"),
        ("ftp://host/", "neither http"),
        ("http://127.0.0.3/", "blocked"),
        ("http://[::1]/", "blocked"),
        ("http://2130706434/", "blocked: 127.0.0.2"),
        ("nonsense", "cannot be read"),
    ] {
        let reason = reason(fetch(&mixed, uri).await);
        assert!(reason.contains(part), "{uri}: {reason}");
        assert!(!reason.contains("secret"), "{reason}");
    }
    let (nameless, _) = client(&[]);
    assert!(reason(fetch(&nameless, &uri).await).contains("does not resolve"));
}
