//! The port between xDS streams and translation: what an Envoy node is, in terms of
//! the class that translation works for.

