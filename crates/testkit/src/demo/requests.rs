//! Single requests: which way they go and who refuses what.

use http::Method;

use super::report::Report;
use super::world::World;
use crate::http_client;
use crate::ztunnel::{MeshError, Via};

/// What should become of a request.
enum Outcome {
    /// An answer of a workload whose name starts so.
    Served(&'static str),
    /// The waypoint answers 403.
    Forbidden,
    /// The destination's ztunnel refuses the connection.
    Refused,
}

struct Case {
    from: &'static str,
    method: Method,
    service: &'static str,
    path: &'static str,
    outcome: Outcome,
    note: &'static str,
}

fn case(
    from: &'static str,
    (method, service, path): (Method, &'static str, &'static str),
    outcome: Outcome,
    note: &'static str,
) -> Case {
    Case {
        from,
        method,
        service,
        path,
        outcome,
        note,
    }
}

/// To the service behind the waypoint.
fn through_the_waypoint() -> Vec<Case> {
    use Outcome::{Forbidden, Served};
    let get = |path| (Method::GET, "reviews", path);
    vec![
        case(
            "productpage-0",
            get("/reviews/1"),
            Served("reviews-v"),
            "split 80/20 by the HTTPRoute",
        ),
        case(
            "productpage-0",
            get("/health"),
            Served("reviews-v"),
            "matches no rule: on to the service that was called",
        ),
        case(
            "productpage-0",
            (Method::POST, "reviews", "/reviews/1"),
            Forbidden,
            "L7 policy: only GET",
        ),
        case(
            "productpage-0",
            get("/admin"),
            Forbidden,
            "L7 policy: only /reviews/*",
        ),
        case(
            "ratings-0",
            get("/reviews/1"),
            Forbidden,
            "L7 policy: only productpage",
        ),
    ]
}

/// To services without a waypoint.
fn direct() -> Vec<Case> {
    use Outcome::{Refused, Served};
    let ratings = || (Method::GET, "ratings", "/ratings/1");
    let v2 = (Method::GET, "reviews-v2", "/reviews/1");
    vec![
        case(
            "productpage-0",
            v2,
            Served("reviews-v2"),
            "this service has no waypoint",
        ),
        case(
            "reviews-v1-0",
            ratings(),
            Served("ratings"),
            "L4 policy: reviews may connect",
        ),
        case(
            "productpage-0",
            ratings(),
            Refused,
            "L4 policy: nobody else may",
        ),
    ]
}

/// Sends every request once and prints the table.
pub(super) async fn show(world: &World, report: &mut Report) -> anyhow::Result<()> {
    report.heading("Requests over HBONE");
    let mut rows = Vec::new();
    for case in through_the_waypoint().into_iter().chain(direct()) {
        let vip = world.vip(case.service)?;
        let request = http_client::request(case.method.clone(), case.service, case.path)?;
        let result = world.request(case.from, vip, request).await;
        let mut hops = vec![short(case.from).to_owned()];
        let (status, holds) = match &result {
            Ok((answer, via)) => {
                if let Via::Waypoint(name) = via {
                    hops.push(short(name).to_owned());
                }
                let pod = answer
                    .json()
                    .ok()
                    .and_then(|j| Some(j["pod"].as_str()?.to_owned()));
                hops.push(pod.as_deref().map_or("x", short).to_owned());
                let is_l7 = matches!(via, Via::Waypoint(_));
                let holds = match case.outcome {
                    Outcome::Served(prefix) => {
                        answer.status == 200
                            && pod.is_some_and(|p| p.starts_with(prefix))
                            && is_l7 == (case.service == "reviews")
                    }
                    Outcome::Forbidden => answer.status == 403 && is_l7,
                    Outcome::Refused => false,
                };
                (answer.status.as_u16().to_string(), holds)
            }
            Err(MeshError::Refused(status)) => {
                hops.push("x".to_owned());
                hops.push(case.service.to_owned());
                let text = format!("refused ({})", status.as_u16());
                (
                    text,
                    matches!(case.outcome, Outcome::Refused) && *status == 401,
                )
            }
            Err(error) => (format!("error: {error}"), false),
        };
        rows.push((
            holds,
            vec![
                format!("{} http://{}:9080{}", case.method, case.service, case.path),
                hops.join(" > "),
                status,
                case.note.to_owned(),
            ],
        ));
    }
    report.table(&["request", "path taken", "status", "why"], &rows);
    Ok(())
}

/// A pod's name without its ordinal.
fn short(pod: &str) -> &str {
    pod.strip_suffix("-0").unwrap_or(pod)
}
