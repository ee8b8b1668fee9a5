//! Vocabulary: names, rows, findings, and parsing that never panics.
