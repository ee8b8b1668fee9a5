#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::convert::Infallible;

use http::{Request, Response};
use kube::client::Body;

use super::*;

fn store() -> SecretStore {
    let service = tower::service_fn(|_: Request<Body>| async {
        Ok::<_, Infallible>(Response::new(Body::empty()))
    });
    let client = Client::new(service, "default");
    SecretStore::new(client, "istio-system", Handle::current())
}

/// What it is called, what the Secret holds, which key is named.
type Case<'a> = (&'a str, &'a [(&'a str, &'a [u8])], &'a str);

#[tokio::test]
async fn what_does_not_read_is_an_error_and_repeats_nothing() {
    let secret = |data: &[(&str, &[u8])]| Secret {
        data: Some(
            data.iter()
                .map(|(key, bytes)| ((*key).to_owned(), ByteString(bytes.to_vec())))
                .collect(),
        ),
        ..Secret::default()
    };
    let cases: [Case<'_>; 5] = [
        ("nothing", &[], "ca-cert.pem"),
        ("empty", &[(CERT, b"")], "ca-cert.pem"),
        ("bytes", &[(CERT, b"\xff")], "ca-cert.pem"),
        (
            "garbage",
            &[(CERT, b"garbage"), (KEY, b"s3cret")],
            "ca-cert.pem",
        ),
        ("a chain", &[(CHAIN, b"s3cret")], "cert-chain.pem"),
    ];
    for (case, data, part) in cases {
        let error = store().read(&secret(data)).err().unwrap().to_string();
        assert!(error.contains(part), "{case}: {error}");
        assert!(error.contains("istio-system/istio-ca-secret"), "{error}");
        assert!(!error.contains("s3cret"), "{case}: {error}");
    }
}
