//! The fixed stage order: a batch of inputs to a new snapshot.
