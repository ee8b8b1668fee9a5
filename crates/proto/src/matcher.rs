//! `xds.type.matcher.v3.IPMatcher`, which the public Envoy bindings lack.
//! Source: spec/envoy-config.md §0.4.

/// Chooses by the longest address range that contains the input.
#[derive(Clone, PartialEq, ::prost::Message)]
pub struct IpMatcher {
    /// Tried by longest prefix, not in order.
    #[prost(message, repeated, tag = "1")]
    pub range_matchers: Vec<IpRangeMatcher>,
}

/// What to do for some address ranges.
#[derive(Clone, PartialEq, ::prost::Message)]
pub struct IpRangeMatcher {
    /// The ranges, disjoint from those of the other matchers.
    #[prost(message, repeated, tag = "1")]
    pub ranges: Vec<CidrRange>,
    /// An encoded `xds.type.matcher.v3.Matcher.OnMatch`: a message field and a
    /// bytes field are the same on the wire, and this way any binding of
    /// `OnMatch` fits.
    #[prost(bytes = "vec", tag = "2")]
    pub on_match: Vec<u8>,
    /// No fallback to a shorter prefix when `on_match` finds nothing.
    #[prost(bool, tag = "3")]
    pub exclusive: bool,
}

/// `xds.core.v3.CidrRange`.
#[derive(Clone, PartialEq, Eq, Hash, ::prost::Message)]
pub struct CidrRange {
    /// The textual address.
    #[prost(string, tag = "1")]
    pub address_prefix: String,
    /// Prefix length in bits; a present zero matches everything.
    #[prost(message, optional, tag = "2")]
    pub prefix_len: Option<u32>,
}
