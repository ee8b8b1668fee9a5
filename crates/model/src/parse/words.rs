//! Forms of names that several kinds have in common.

/// A label of DNS: lower-case letters, digits and inner hyphens, at most 63.
pub(super) fn is_dns_label(text: &str) -> bool {
    const BYTES_MAX: usize = 63;
    let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    !text.is_empty()
        && text.len() <= BYTES_MAX
        && text.bytes().all(plain)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// The name of a header as HTTP has it; pseudo-headers are none.
pub(super) fn is_header_name(text: &str) -> bool {
    const BYTES_MAX: usize = 256;
    let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    !text.is_empty() && text.len() <= BYTES_MAX && text.chars().all(token)
}
