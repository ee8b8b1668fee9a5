//! Rows to Envoy IR, and IR to Envoy resources.
