//! What can be wrong with bytes or JSON from outside.

/// Why a message could not be read, rendered or rewritten.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The descriptor pool has no such message.
    #[error("unknown message type {0:?}")]
    UnknownType(String),
    /// The bytes are not an encoding of the message.
    #[error("malformed message: {0}")]
    Malformed(&'static str),
    /// Messages nest deeper than any real configuration.
    #[error("messages nest deeper than {0} levels")]
    TooDeep(usize),
    /// The bytes are not an encoding of the message.
    #[error("undecodable message")]
    Decode(#[from] prost::DecodeError),
    /// The JSON does not fit the message, or a message has no JSON form.
    #[error("no proto-JSON")]
    Json(#[from] serde_json::Error),
    /// Descriptors contradict each other.
    #[error("unusable descriptors")]
    Descriptor(#[from] prost_reflect::DescriptorError),
}
