//! Wire messages, their descriptors, canonical encoding and proto-JSON.
