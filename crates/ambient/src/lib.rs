//! Rows to waypoints, services, authorizations and workloads, and those to WDS messages.
