//! TCPRoute and TLSRoute.

use std::sync::Arc;

use crate::input::{TcpRoute, TlsRoute};
use crate::object::Parsed;

use super::read::Doc;

pub(super) fn tcp_route(doc: Doc<'_>) -> Arc<Parsed<TcpRoute>> {
    doc.row(|_| Ok(TcpRoute::default()))
}

pub(super) fn tls_route(doc: Doc<'_>) -> Arc<Parsed<TlsRoute>> {
    doc.row(|_| Ok(TlsRoute::default()))
}
