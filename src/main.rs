//! ambientd.
fn main() {}
