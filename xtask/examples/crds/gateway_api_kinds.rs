//! The kinds of the Gateway API, by the types of crate `gateway-api`.

use anyhow::{Context as _, Result};
use gateway_api::apis::standard::{
    backendtlspolicies::BackendTlsPolicy, gatewayclasses::GatewayClass, gateways::Gateway,
    grpcroutes::GrpcRoute, httproutes::HttpRoute, listenersets::ListenerSet,
    referencegrants::ReferenceGrant, tlsroutes::TlsRoute,
};
use kube::CustomResourceExt;
use serde_json::{Value, json};

use super::restore::restore;
use super::{GATEWAY_API, Names, definition};

/// The kinds that the types of crate `gateway-api` describe.
pub(crate) fn definitions() -> Result<Vec<Value>> {
    let kind = |kind, plural, short, versions| Names {
        group: GATEWAY_API,
        kind,
        plural,
        short,
        namespaced: kind != "GatewayClass",
        versions,
    };
    let tls_route = schema::<TlsRoute>()?;
    let mut l4_route = tls_route.clone();
    if let Some(spec) = l4_route.pointer_mut("/properties/spec") {
        remove(spec, "hostnames");
    }
    let mut class = schema::<GatewayClass>()?;
    pending(&mut class, &["Accepted"]);
    let mut gateway = schema::<Gateway>()?;
    pending(&mut gateway, &["Accepted", "Programmed"]);
    let mut listeners = schema::<ListenerSet>()?;
    pending(&mut listeners, &["Accepted", "Programmed"]);
    let table = [
        (
            kind(
                "GatewayClass",
                "gatewayclasses",
                &["gc"],
                &["v1", "v1beta1"],
            ),
            class,
        ),
        (
            kind("Gateway", "gateways", &["gtw"], &["v1", "v1beta1"]),
            gateway,
        ),
        (
            kind("ListenerSet", "listenersets", &["lset"], &["v1"]),
            listeners,
        ),
        (
            kind("HTTPRoute", "httproutes", &[], &["v1", "v1beta1"]),
            schema::<HttpRoute>()?,
        ),
        (
            kind("GRPCRoute", "grpcroutes", &[], &["v1"]),
            schema::<GrpcRoute>()?,
        ),
        (
            kind(
                "TLSRoute",
                "tlsroutes",
                &[],
                &["v1", "v1alpha3", "v1alpha2"],
            ),
            tls_route,
        ),
        (
            kind("TCPRoute", "tcproutes", &[], &["v1", "v1alpha2"]),
            l4_route.clone(),
        ),
        (
            kind("UDPRoute", "udproutes", &[], &["v1", "v1alpha2"]),
            l4_route,
        ),
        (
            kind(
                "ReferenceGrant",
                "referencegrants",
                &["refgrant"],
                &["v1beta1", "v1"],
            ),
            schema::<ReferenceGrant>()?,
        ),
        (
            kind(
                "BackendTLSPolicy",
                "backendtlspolicies",
                &["btlspolicy"],
                &["v1", "v1alpha3"],
            ),
            schema::<BackendTlsPolicy>()?,
        ),
    ];
    Ok(table
        .iter()
        .map(|(names, schema)| definition(names, schema))
        .collect())
}

/// The schema of a type, with what its generator lost put back.
fn schema<T: CustomResourceExt>() -> Result<Value> {
    let crd = serde_json::to_value(T::crd())?;
    let mut schema = crd
        .pointer("/spec/versions/0/schema/openAPIV3Schema")
        .cloned()
        .context("a type without a schema")?;
    restore(&mut schema, "");
    let spec = schema.pointer("/properties/spec").is_some();
    if let Some(top) = schema.as_object_mut() {
        top.remove("title");
        if let Some(properties) = top.get_mut("properties").and_then(Value::as_object_mut) {
            for field in ["apiVersion", "kind"] {
                properties.insert(field.to_owned(), json!({ "type": "string" }));
            }
            properties.insert("metadata".to_owned(), json!({ "type": "object" }));
        }
        top.insert(
            "required".to_owned(),
            json!(if spec { vec!["spec"] } else { vec![] }),
        );
    }
    Ok(schema)
}

/// The conditions of an object that no controller has seen.
fn pending(schema: &mut Value, types: &[&str]) {
    let conditions: Vec<Value> = types
        .iter()
        .map(|ty| {
            json!({
                "type": ty,
                "status": "Unknown",
                "reason": "Pending",
                "message": "Waiting for controller",
                "lastTransitionTime": "1970-01-01T00:00:00Z",
            })
        })
        .collect();
    if let Some(status) = schema.pointer_mut("/properties/status") {
        status["default"] = json!({ "conditions": conditions });
    }
}

fn remove(spec: &mut Value, field: &str) {
    if let Some(properties) = spec.get_mut("properties").and_then(Value::as_object_mut) {
        properties.remove(field);
    }
    if let Some(required) = spec.get_mut("required").and_then(Value::as_array_mut) {
        required.retain(|name| name != field);
    }
}
