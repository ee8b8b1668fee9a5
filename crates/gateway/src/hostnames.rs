//! Hosts that a listener and a route have in common. Source: spec/gateway-api.md §3.8.

use model::Str;

/// Every host.
pub const ANY: &str = "*";

/// The hosts that both are for, those of the route in order; each as the narrower of the two
/// says it. Empty when there is none.
pub fn common(listener: Option<&Str>, route: &[Str]) -> Vec<Str> {
    let any = [Str::from(ANY)];
    let listener = listener.map_or(ANY, Str::as_str);
    let route = if route.is_empty() { &any } else { route };
    let mut out: Vec<Str> = Vec::new();
    for host in route {
        let found = if covers(listener, host) {
            host.clone()
        } else if covers(host, listener) {
            Str::from(listener)
        } else {
            continue;
        };
        if !out.contains(&found) {
            out.push(found);
        }
    }
    out
}

/// Whether every host that `narrow` stands for is one of `wide`: `*.foo.com` covers
/// `a.b.foo.com` and `*.b.foo.com`, but not `foo.com`.
pub fn covers(wide: &str, narrow: &str) -> bool {
    if wide == narrow {
        return true;
    }
    let Some(suffix) = wide.strip_prefix('*') else {
        return false;
    };
    narrow.len() > suffix.len()
        && narrow.strip_prefix('*').map_or_else(
            || narrow.ends_with(suffix),
            |rest| rest.len() > suffix.len() && rest.ends_with(suffix),
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_narrower_of_two_hosts_is_common() {
        let of = |listener: &str, route: &[&str]| {
            let listener = Some(Str::from(listener)).filter(|host| !host.is_empty());
            let route: Vec<Str> = route.iter().copied().map(Str::from).collect();
            common(listener.as_ref(), &route).join(" ")
        };
        for (listener, route, expected) in [
            ("", &[][..], "*"),
            ("", &["a.com"], "a.com"),
            ("a.com", &[], "a.com"),
            ("*.com", &[], "*.com"),
            ("*.com", &["a.org"], ""),
            ("*.foo.com", &["a.b.foo.com", "foo.com"], "a.b.foo.com"),
            ("a.foo.com", &["*.foo.com"], "a.foo.com"),
            ("*.foo.com", &["*.b.foo.com"], "*.b.foo.com"),
            ("*.b.foo.com", &["*.foo.com"], "*.b.foo.com"),
            ("*.foo.com", &["*.foo.com"], "*.foo.com"),
            // Of two names only whole labels are equal.
            ("*.foo.com", &["*.barfoo.com", "barfoo.com"], ""),
            ("A.com", &["a.com"], ""),
        ] {
            assert_eq!(of(listener, route), expected, "{listener} {route:?}");
        }
    }
}
