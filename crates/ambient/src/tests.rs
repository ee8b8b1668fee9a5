//! Derive tests.
