//! RequestAuthentications at a waypoint. Source: spec/policy-and-traffic.md §0.3, §2.

pub mod wanted;
