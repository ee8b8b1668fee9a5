//! GrpcRoute.

use std::sync::Arc;

use crate::input::GrpcRoute;
use crate::object::Parsed;

use super::read::Doc;

pub(super) fn grpc_route(doc: Doc<'_>) -> Arc<Parsed<GrpcRoute>> {
    doc.row(|_| Ok(GrpcRoute::default()))
}
