//! Key sets of a token issuer: fetched by the control plane, used by a real Envoy.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_precision_loss,
    clippy::struct_field_names
)]

mod common;

use std::sync::{Arc, Mutex};

use anyhow::ensure;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use common::{Mesh, SOON};
use http::{HeaderValue, Method, header};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use testkit::{http_client, wait};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

const ISSUER: &str = "https://issuer.example";

/// A key of the issuer: what is published of it, and a token signed with it.
struct Key {
    public: Value,
    token: String,
}

impl Key {
    fn new(kid: &str) -> Self {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
        let (x, y) = pair.public_key_raw()[1..].split_at(32);
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let public = json!({
            "kty": "EC", "crv": "P-256", "alg": "ES256", "kid": kid, "x": encode(x), "y": encode(y),
        });
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(kid.to_owned());
        let claims = json!({"iss": ISSUER, "sub": "ann", "exp": 4_000_000_000_u64});
        let signing = EncodingKey::from_ec_der(&pair.serialize_der());
        let token = jsonwebtoken::encode(&header, &claims, &signing).unwrap();
        Self { public, token }
    }
}

/// What the issuer publishes; `None` answers 503.
type Published = Arc<Mutex<Option<Value>>>;

/// Serves what is published, and returns the address of it.
async fn issuer(published: Published) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}/keys", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                match stream.read_u8().await {
                    Ok(byte) => head.push(byte),
                    Err(_) => break,
                }
            }
            let (status, body) = match &*published.lock().unwrap() {
                Some(keys) => ("200 OK", json!({"keys": [keys]}).to_string()),
                None => ("503 Service Unavailable", String::new()),
            };
            let length = body.len();
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}");
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    uri
}

/// The status that a request with (or without) a token is answered with.
async fn status(mesh: &Mesh, token: Option<&str>) -> anyhow::Result<u16> {
    let mut request = http_client::request(Method::GET, "web", "/only-v2")?;
    if let Some(token) = token {
        let value = HeaderValue::from_str(&format!("Bearer {token}"))?;
        request.headers_mut().insert(header::AUTHORIZATION, value);
    }
    let authority = mesh.net.vip("web").to_string();
    let waypoint = mesh.net.waypoint();
    let answer = Box::pin(mesh.client.request(waypoint, &authority, request)).await?;
    Ok(answer.status.as_u16())
}

async fn wait_status(mesh: &Mesh, token: &str, expected: u16, what: &str) {
    wait::until(what, SOON, || async {
        let found = status(mesh, Some(token)).await?;
        ensure!(found == expected, "{found}");
        Ok(())
    })
    .await
    .unwrap_or_else(|error| panic!("{error:#}\n{}", mesh.logs()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_pass_when_their_key_is_known_and_never_before() {
    let mesh = Mesh::start(46).await.unwrap();
    let (old, new) = (Key::new("old"), Key::new("new"));
    let published = Published::default();
    let uri = issuer(Arc::clone(&published)).await;
    let authentication = json!({
        "apiVersion": "security.istio.io/v1", "kind": "RequestAuthentication",
        "metadata": {"name": "tokens", "namespace": "shop"},
        "spec": {
            "targetRefs":
                [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "gate"}],
            "jwtRules": [{"issuer": ISSUER, "jwksUri": uri, "timeout": "1s"}],
        },
    });
    mesh.replace("60-tokens.yaml", &authentication.to_string())
        .unwrap();

    // Nobody knows a key yet.
    wait_status(&mesh, &old.token, 401, "tokens to be looked at").await;
    assert_eq!(status(&mesh, Some(&new.token)).await.unwrap(), 401);
    assert_eq!(status(&mesh, None).await.unwrap(), 200);

    *published.lock().unwrap() = Some(old.public.clone());
    wait_status(&mesh, &old.token, 200, "the first key").await;
    assert_eq!(status(&mesh, Some(&new.token)).await.unwrap(), 401);

    *published.lock().unwrap() = Some(new.public.clone());
    wait_status(&mesh, &new.token, 200, "the next key").await;
    wait_status(&mesh, &old.token, 401, "the old key to be gone").await;

    // The last good keys stay while the issuer is away.
    *published.lock().unwrap() = None;
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    assert_eq!(status(&mesh, Some(&new.token)).await.unwrap(), 200);
    mesh.envoy.assert_no_nacks().await.unwrap();
}
