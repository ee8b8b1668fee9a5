//! Values in which Envoy expands command operators such as `%REQ(x-a)%`.

/// A text that stands for itself.
pub(super) fn literal(text: &str) -> String {
    text.replace('%', "%%")
}

/// A text that may hold operators. One that Envoy might not read stands for itself, because
/// Envoy refuses a whole route configuration for it.
pub(super) fn operators(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        out.push_str(before);
        let length = if after.starts_with('%') {
            Some(1)
        } else {
            operator(after)
        };
        out.push('%');
        rest = after;
        if let Some((known, behind)) = length.and_then(|length| after.split_at_checked(length)) {
            out.push_str(known);
            rest = behind;
        } else {
            out.push('%');
        }
    }
    out.push_str(rest);
    out
}

/// Length of the operator that a text begins with, its closing `%` included.
fn operator(text: &str) -> Option<usize> {
    let (body, _) = text.split_once('%')?;
    let length = body.len() + 1;
    let (call, cut) = match body.rsplit_once(':') {
        Some((call, cut)) if !cut.contains(')') => (call, Some(cut)),
        _ => (body, None),
    };
    let number =
        |cut: &str| (1..=5).contains(&cut.len()) && cut.bytes().all(|b| b.is_ascii_digit());
    let known = match call.split_once('(') {
        None => cut.is_none() && PLAIN.contains(&call),
        Some((name, arguments)) => {
            cut.is_none_or(number)
                && arguments
                    .strip_suffix(')')
                    .is_some_and(|list| takes(name, list))
        }
    };
    known.then_some(length)
}

/// Operators without arguments.
const PLAIN: &[&str] = &[
    "BYTES_RECEIVED",
    "CONNECTION_ID",
    "DOWNSTREAM_DIRECT_REMOTE_ADDRESS",
    "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_LOCAL_ADDRESS",
    "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_LOCAL_PORT",
    "DOWNSTREAM_LOCAL_URI_SAN",
    "DOWNSTREAM_PEER_ISSUER",
    "DOWNSTREAM_PEER_SUBJECT",
    "DOWNSTREAM_PEER_URI_SAN",
    "DOWNSTREAM_REMOTE_ADDRESS",
    "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    "DOWNSTREAM_REMOTE_PORT",
    "DURATION",
    "HOSTNAME",
    "PROTOCOL",
    "REQUESTED_SERVER_NAME",
    "RESPONSE_CODE",
    "RESPONSE_CODE_DETAILS",
    "RESPONSE_FLAGS",
    "ROUTE_NAME",
    "START_TIME",
    "UPSTREAM_CLUSTER",
    "UPSTREAM_HOST",
    "UPSTREAM_REMOTE_ADDRESS",
    "VIRTUAL_CLUSTER_NAME",
];

/// Whether an operator takes these arguments.
fn takes(name: &str, arguments: &str) -> bool {
    let word = |text: &str, also: &[u8]| {
        !text.is_empty()
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || also.contains(&b))
    };
    match name {
        "REQ" | "RESP" => {
            let header = |text: &str| word(text.strip_prefix(':').unwrap_or(text), b"-_");
            let mut names = arguments.split('?');
            names.clone().count() <= 2 && names.all(header)
        }
        "DYNAMIC_METADATA" => arguments.split(':').all(|key| word(key, b"-_.")),
        "FILTER_STATE" => {
            let key = arguments.strip_suffix(":PLAIN").unwrap_or(arguments);
            word(key, b"-_.")
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_operators_that_envoy_reads_are_left_to_it() {
        let cases = [
            ("100%", "100%%"),
            ("100%%", "100%%"),
            ("%REQ(x-a)%", "%REQ(x-a)%"),
            (
                "%REQ(:path?x-b):10% and %REQ(%",
                "%REQ(:path?x-b):10% and %%REQ(%%",
            ),
            ("%DOWNSTREAM_REMOTE_ADDRESS%", "%DOWNSTREAM_REMOTE_ADDRESS%"),
            ("%NO_SUCH%%REQ(a)%", "%%NO_SUCH%%REQ(a)%%"),
            ("%ENVIRONMENT(HOME)%", "%%ENVIRONMENT(HOME)%%"),
            ("%REQ()% %REQ(a b)%", "%%REQ()%% %%REQ(a b)%%"),
            ("%HOSTNAME:3%", "%%HOSTNAME:3%%"),
            ("%", "%%"),
            ("%FILTER_STATE(a.b:PLAIN)%", "%FILTER_STATE(a.b:PLAIN)%"),
        ];
        for (text, expected) in cases {
            assert_eq!(operators(text), expected, "{text}");
        }
        assert_eq!(literal("%REQ(a)%"), "%%REQ(a)%%");
    }
}
