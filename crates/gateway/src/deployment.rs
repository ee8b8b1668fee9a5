//! What a managed Gateway consists of.
