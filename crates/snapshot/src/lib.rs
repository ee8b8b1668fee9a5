//! Encoded resources, resource maps, snapshots and shared deltas.
