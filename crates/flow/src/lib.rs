//! Generic incremental engine: tables, indexes, tracked reads, derived tables.
