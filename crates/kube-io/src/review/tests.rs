#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]

use std::convert::Infallible;

use http::Response;
use serde_json::Value;

use super::*;

/// Claims `{"exp":1800000000}` between a header and a signature that nobody reads.
const TOKEN: &str = "h.eyJleHAiOjE4MDAwMDAwMDB9.s";

/// A reviewer whose API server always gives this answer.
fn answering(status: u16, body: &str) -> ApiReviewer {
    let body = body.to_owned();
    let service = tower::service_fn(move |request: Request<Body>| {
        let body = body.clone();
        async move {
            assert_eq!(request.uri(), "/apis/authentication.k8s.io/v1/tokenreviews");
            let asked = request.into_body().collect_bytes().await.unwrap();
            let asked: Value = serde_json::from_slice(&asked).unwrap();
            assert_eq!(asked["spec"]["token"], TOKEN);
            assert_eq!(asked["spec"]["audiences"], json!(["istio-ca"]));
            let response = Response::builder().status(status);
            Ok::<_, Infallible>(response.body(Body::from(body.into_bytes())).unwrap())
        }
    });
    ApiReviewer::new(kube::Client::new(service, "default"))
}

async fn review(reviewer: &ApiReviewer) -> Result<Review, ReviewError> {
    let token = Token::new(TOKEN).unwrap();
    reviewer.review(&token, &["istio-ca".to_owned()]).await
}

#[tokio::test]
async fn the_status_of_a_review_is_read_and_the_end_of_its_token() {
    let body = json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
        "spec": {"token": TOKEN},
        "status": {
            "authenticated": true,
            "audiences": ["istio-ca"],
            "user": {
                "username": "system:serviceaccount:a:b",
                "groups": ["system:serviceaccounts"],
                "extra": {"authentication.kubernetes.io/pod-name": ["p"]},
            },
        },
    });
    let key = "authentication.kubernetes.io/pod-name".to_owned();
    let expected = Review {
        authenticated: true,
        error: String::new(),
        username: "system:serviceaccount:a:b".to_owned(),
        groups: vec!["system:serviceaccounts".to_owned()],
        audiences: vec!["istio-ca".to_owned()],
        extra: [(key, vec!["p".to_owned()])].into(),
        expires: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)),
    };
    assert_eq!(
        review(&answering(201, &body.to_string())).await,
        Ok(expected)
    );
}

#[tokio::test]
async fn no_answer_brings_the_token_into_a_text() {
    let forbidden =
        json!({"kind": "Status", "reason": "Forbidden", "message": format!("not {TOKEN}\n")});
    let typed = json!({"status": {"authenticated": TOKEN}});
    for (case, status, body) in [
        ("refused", 403, forbidden.to_string()),
        ("not JSON", 200, format!("{{{TOKEN}")),
        ("another shape", 200, typed.to_string()),
        ("a page", 502, format!("<html>{TOKEN}</html>")),
    ] {
        let error = review(&answering(status, &body)).await.unwrap_err();
        assert!(!error.to_string().contains(TOKEN), "{case}: {error}");
        assert!(!error.to_string().contains('\n'), "{case}: {error}");
    }
    let body = json!({"status": {"error": format!("[{TOKEN} has expired]")}});
    let refused = review(&answering(201, &body.to_string())).await.unwrap();
    assert_eq!(refused.error, "[(the token) has expired]");
    assert!(!refused.authenticated);
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_never_answers_is_waited_for_seconds() {
    let service = tower::service_fn(|_: Request<Body>| {
        std::future::pending::<Result<Response<Body>, Infallible>>()
    });
    let reviewer = ApiReviewer::new(kube::Client::new(service, "default"));
    let began = tokio::time::Instant::now();
    let error = review(&reviewer).await.unwrap_err();
    assert_eq!(began.elapsed(), TIMEOUT);
    assert!(error.to_string().contains("5 s"), "{error}");
}

#[test]
fn what_has_no_end_that_can_be_read_is_not_remembered() {
    for text in ["x", "a.b.c", "a.e30.c", "a.eyJleHAiOi0xfQ.c"] {
        assert_eq!(expires(&Token::new(text).unwrap()), None, "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn reviews_that_fail_are_told_until_they_work_also_when_nobody_comes() {
    let forbidden = "tokenreviews is forbidden: User \"system:serviceaccount:istio-system:istiod\" cannot create resource \"tokenreviews\"";
    let refusal = json!({"kind": "Status", "reason": "Forbidden", "message": forbidden});
    for (status, body, object) in [
        (403, refusal.to_string(), "istiod"),
        (503, "away".to_owned(), "*"),
    ] {
        let (works, is_working) = tokio::sync::watch::channel(false);
        let service = tower::service_fn(move |_: Request<Body>| {
            let good = json!({"status": {"authenticated": false}}).to_string();
            let (status, body) = if *is_working.borrow() {
                (201, good)
            } else {
                (status, body.clone())
            };
            let response = Response::builder().status(status);
            std::future::ready(Ok::<_, Infallible>(
                response.body(Body::from(body.into_bytes())).unwrap(),
            ))
        });
        let (sender, mut findings) = tokio::sync::mpsc::channel(4);
        let reports = Reports::new(sender);
        let reviewer = ApiReviewer::telling(kube::Client::new(service, "default"), reports);
        review(&reviewer).await.unwrap_err();
        assert!(findings.try_recv().is_err(), "a moment is no finding");
        let told = findings.recv().await.unwrap();
        let [model::object::Input::SourceFindings(_, all)] = &told[..] else {
            panic!("{told:?}")
        };
        assert_eq!(all[0].code, "kube-review-failed");
        assert_eq!(all[0].object.key.name, object);
        works.send_replace(true);
        let told = findings.recv().await.unwrap();
        assert!(
            matches!(&told[..], [model::object::Input::SourceFindings(_, all)] if all.is_empty())
        );
        assert!(findings.try_recv().is_err());
    }
}
