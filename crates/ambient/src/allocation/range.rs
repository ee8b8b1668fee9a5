//! A block of addresses, and which of them are taken.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A block without its base address, which is never given away.
///
/// What is taken is kept as intervals, so that a crowded block and a wide one cost the same.
pub(super) struct Range {
    base: IpAddr,
    /// The last offset from the base; 0 for a block of one address.
    last: u128,
    /// First offset → last offset of disjoint intervals that do not touch.
    taken: BTreeMap<u128, u128>,
}

// === impl Range ===

impl Range {
    /// The block of an address; a prefix beyond the length of the address is its length.
    pub(super) fn new(base: IpAddr, prefix: u8) -> Self {
        let last = host_mask(base, prefix);
        Self {
            base: address(base, bits(base) & !last),
            last,
            taken: BTreeMap::new(),
        }
    }

    /// Whether an address is in the block and taken.
    pub(super) fn is_taken(&self, ip: IpAddr) -> bool {
        let offset = self.offset(ip);
        offset.is_some_and(|offset| self.interval(offset).is_some())
    }

    /// Takes what a block of addresses has in common with this one.
    pub(super) fn occupy(&mut self, base: IpAddr, prefix: u8) {
        if base.is_ipv4() != self.base.is_ipv4() {
            return;
        }
        let mask = host_mask(base, prefix);
        let (first, last) = (bits(base) & !mask, bits(base) | mask);
        let own = bits(self.base);
        if last < own || first > own + self.last {
            return;
        }
        self.insert(first.saturating_sub(own), (last - own).min(self.last));
    }

    /// Takes the first free address at or after the place of a hash, or from the start.
    pub(super) fn take(&mut self, hash: u64) -> Option<IpAddr> {
        if self.last == 0 {
            return None;
        }
        let from = 1 + u128::from(hash) % self.last;
        let offset = self.free(from).or_else(|| self.free(1))?;
        self.insert(offset, offset);
        Some(address(self.base, bits(self.base) + offset))
    }

    fn free(&self, from: u128) -> Option<u128> {
        let free = match self.interval(from) {
            // Intervals do not touch, so what follows one is free.
            Some((_, last)) => last.checked_add(1)?,
            None => from,
        };
        (free <= self.last).then_some(free)
    }

    fn offset(&self, ip: IpAddr) -> Option<u128> {
        let offset = bits(ip).checked_sub(bits(self.base))?;
        (ip.is_ipv4() == self.base.is_ipv4() && offset <= self.last).then_some(offset)
    }

    /// The interval that holds an offset.
    fn interval(&self, offset: u128) -> Option<(u128, u128)> {
        let (first, last) = self.taken.range(..=offset).next_back()?;
        (offset <= *last).then_some((*first, *last))
    }

    fn insert(&mut self, mut first: u128, mut last: u128) {
        // Whatever it meets or touches becomes part of it.
        let after = last.saturating_add(1);
        while let Some((&other, &end)) = self.taken.range(..=after).next_back() {
            if end.saturating_add(1) < first {
                break;
            }
            self.taken.remove(&other);
            first = first.min(other);
            last = last.max(end);
        }
        self.taken.insert(first, last);
    }
}

fn bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

fn host_mask(ip: IpAddr, prefix: u8) -> u128 {
    let length: u32 = if ip.is_ipv4() { 32 } else { 128 };
    let host_bits = length.saturating_sub(u32::from(prefix));
    1u128
        .checked_shl(host_bits)
        .map_or(u128::MAX, |size| size - 1)
}

/// The address of a number, of the family of another address.
fn address(like: IpAddr, bits: u128) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::from_bits(u32::try_from(bits).unwrap_or(u32::MAX)).into(),
        IpAddr::V6(_) => Ipv6Addr::from_bits(bits).into(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::Range;

    fn taken(range: &mut Range, hashes: &[u64]) -> Vec<Option<String>> {
        let take = |hash: &u64| range.take(*hash).map(|ip| ip.to_string());
        hashes.iter().map(take).collect()
    }

    fn some(texts: &[&str]) -> Vec<Option<String>> {
        texts.iter().map(|text| Some((*text).to_owned())).collect()
    }

    fn range(base: &str, prefix: u8) -> Range {
        Range::new(base.parse().unwrap(), prefix)
    }

    #[test]
    fn the_base_is_never_given_away_and_the_last_address_is() {
        let mut small = range("10.0.0.7", 30);
        let mut expected = some(&["10.0.0.5", "10.0.0.6", "10.0.0.7"]);
        expected.push(None);
        assert_eq!(taken(&mut small, &[0, 0, 0, 0]), expected);
        assert_eq!(taken(&mut range("10.0.0.1", 32), &[0]), [None]);
        assert_eq!(taken(&mut range("10.0.0.1", 99), &[0]), [None]);
    }

    #[test]
    fn a_taken_place_yields_the_next_free_one_and_the_end_the_start() {
        let mut range = range("10.0.0.0", 29);
        range.occupy("10.0.0.3".parse().unwrap(), 32);
        range.occupy("10.0.0.4".parse().unwrap(), 31);
        // Hash 2 is offset 3; 3 to 5 are taken.
        assert_eq!(
            taken(&mut range, &[2, 2, 2, 2]),
            some(&["10.0.0.6", "10.0.0.7", "10.0.0.1", "10.0.0.2"])
        );
        assert_eq!(taken(&mut range, &[2]), [None]);
    }

    #[test]
    fn blocks_take_what_they_have_in_common_with_the_range() {
        // Block, free afterwards of 10.0.1.0/24.
        let cases = [
            ("10.0.0.0", 8, None),
            ("10.0.1.0", 24, None),
            ("10.0.1.0", 25, Some("10.0.1.128")),
            ("10.0.1.130", 25, Some("10.0.1.1")),
            ("10.0.2.0", 24, Some("10.0.1.1")),
            ("0.0.0.0", 0, None),
            ("::", 0, Some("10.0.1.1")),
        ];
        for (base, prefix, free) in cases {
            let mut range = range("10.0.1.0", 24);
            range.occupy(base.parse().unwrap(), prefix);
            let expected = free.map(str::to_owned);
            assert_eq!(taken(&mut range, &[0]), [expected], "{base}/{prefix}");
        }
    }

    #[test]
    fn the_widest_ranges_have_addresses_too() {
        assert_eq!(taken(&mut range("::", 0), &[0]), some(&["::1"]));
        assert_eq!(taken(&mut range("1.2.3.4", 0), &[0]), some(&["0.0.0.1"]));
        let mut all = range("::", 0);
        all.occupy("::".parse().unwrap(), 0);
        assert_eq!(taken(&mut all, &[0]), [None]);
    }
}
