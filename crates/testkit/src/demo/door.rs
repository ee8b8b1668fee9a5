//! A door into the mesh for curl, while the demo stays up.

use std::net::SocketAddr;

use anyhow::Context as _;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use super::report::Report;
use super::world::{NS, WAYPOINT, World};

/// Prints what to try and serves the door for as long as it is polled.
pub(super) async fn keep_open(world: &World, report: &Report) -> anyhow::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let door = listener.local_addr()?;
    let addrs = world.daemon.addrs();
    report.heading("Still running; Ctrl-C ends it");
    report.line("A door into the mesh as productpage (Host names the service):");
    report.line(&format!(
        "  curl http://{door}/reviews/1 -H 'Host: reviews'"
    ));
    report.line(&format!(
        "  curl http://{door}/ratings/1 -H 'Host: ratings'          # refused"
    ));
    report.line("... and as another pod:");
    report.line(&format!(
        "  curl http://{door}/ratings/1 -H 'Host: ratings' -H 'x-from: reviews-v1-0'"
    ));
    report.line("The manifests that ambientd watches; edit and see:");
    let split = world.split_file();
    report.line(&format!("  {}", split.parent().unwrap_or(&split).display()));
    report.line("ambientd:");
    report.line(&format!(
        "  http://{}/debug     http://{}/metrics",
        addrs.debug, addrs.debug
    ));
    report.line("Envoy, the waypoint:");
    report.line(&format!("  http://{}/config_dump", world.envoy.admin()));
    report.line(&format!("  log: {}", world.envoy.log_path().display()));
    report.line(&format!("(waypoint {NS}/{WAYPOINT}, ADS at {})", addrs.xds));

    let mut connections = futures::stream::FuturesUnordered::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((tcp, _)) = accepted else { continue };
                let service = service_fn(move |request| async move {
                    Ok::<_, std::convert::Infallible>(enter(world, request).await)
                });
                connections.push(http1::Builder::new().serve_connection(TokioIo::new(tcp), service));
            }
            Some(_) = futures::StreamExt::next(&mut connections), if !connections.is_empty() => {}
        }
    }
}

async fn enter(world: &World, request: Request<Incoming>) -> Response<Full<Bytes>> {
    match pass_on(world, request).await {
        Ok(response) => response,
        Err(error) => {
            let mut response = Response::new(Full::new(Bytes::from(format!("{error:#}\n"))));
            *response.status_mut() = StatusCode::BAD_GATEWAY;
            response
        }
    }
}

async fn pass_on(
    world: &World,
    request: Request<Incoming>,
) -> anyhow::Result<Response<Full<Bytes>>> {
    let header = |name: &str| request.headers().get(name).and_then(|v| v.to_str().ok());
    let from = header("x-from").unwrap_or("productpage-0").to_owned();
    let host = header("host").unwrap_or_default().to_owned();
    let name = host.split(['.', ':']).next().unwrap_or_default();
    // Called without a Host of ours, as by a browser: the service with the waypoint.
    let vip: SocketAddr = world.vip(name).or_else(|_| world.vip("reviews"))?;
    let (parts, body) = request.into_parts();
    let body = body.collect().await.context("reading the body")?.to_bytes();
    let path = parts
        .uri
        .path_and_query()
        .map_or("/", |p| p.as_str())
        .to_owned();
    let mut onward = Request::builder()
        .method(parts.method)
        .uri(path)
        .body(Full::new(body))?;
    *onward.headers_mut() = parts.headers;
    let (answer, _) = world.request(&from, vip, onward).await?;
    let mut response = Response::new(Full::new(answer.body));
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers;
    response
        .headers_mut()
        .remove(http::header::TRANSFER_ENCODING);
    Ok(response)
}
