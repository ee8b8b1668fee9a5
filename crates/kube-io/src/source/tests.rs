//! Scripted API servers.
