//! From JSON values to rows.
