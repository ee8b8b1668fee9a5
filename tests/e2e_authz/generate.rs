//! Policies and requests from a seed. Values come from small pools, so that conditions hold about
//! as often as not.

use super::policy::{Action, List, Operation, Policy, Request, Rule, Source};

/// A small generator of numbers (splitmix64): equal seeds give equal worlds everywhere.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn pick<'p>(&mut self, pool: &[&'p str]) -> &'p str {
        pool[self.below(pool.len())]
    }

    /// One to three values of a pool.
    fn some(&mut self, pool: &[&str]) -> Vec<String> {
        let count = 1 + self.below(3);
        (0..count).map(|_| self.pick(pool).to_owned()).collect()
    }

    fn list(&mut self, pool: &[&str]) -> List {
        let mut list = List::default();
        let kind = self.below(10);
        if kind < 8 {
            list.yes = self.some(pool);
        }
        if kind >= 6 {
            list.no = self.some(pool);
        }
        list
    }
}

/// Namespace, account and last bytes of the address of each client.
pub(crate) const CLIENTS: [(&str, &str, [u8; 2]); 8] = [
    ("shop", "client", [1, 1]),
    ("shop", "other", [1, 2]),
    ("depot", "client", [2, 1]),
    ("team-a", "driver", [2, 130]),
    ("te-a", "driver", [3, 1]),
    ("lab", "shop", [3, 2]),
    ("t-a-lab", "a.b", [4, 255]),
    ("sa", "sa", [5, 1]),
];

/// How requests are sent, and how policies see them.
const PATHS: [(&str, &str); 24] = [
    ("/", "/"),
    ("/a", "/a"),
    ("/a/", "/a/"),
    ("/A", "/A"),
    ("/admin", "/admin"),
    ("/admin/users", "/admin/users"),
    ("/administrator", "/administrator"),
    ("/public/../admin", "/admin"),
    ("/public/%2e%2e/admin", "/admin"),
    ("/./admin/.", "/admin/"),
    ("/%61dmin", "/admin"),
    ("/admin?x=/public", "/admin"),
    ("/public?x=1", "/public"),
    ("/public", "/public"),
    ("//admin", "/admin"),
    ("/admin//users", "/admin/users"),
    ("/public/%2Fadmin", "/public/admin"),
    ("/v1/x/items", "/v1/x/items"),
    ("/v1/x/items/", "/v1/x/items/"),
    ("/v1/x/items/7/part", "/v1/x/items/7/part"),
    ("/v1/x/y/items/7", "/v1/x/y/items/7"),
    ("/v1//items/7", "/v1/items/7"),
    ("/app.js", "/app.js"),
    ("/a/b.js?v=2", "/a/b.js"),
];
const PATH_VALUES: [&str; 20] = [
    "*",
    "/*",
    "/",
    "/a",
    "/a*",
    "/admin",
    "/admin*",
    "/admin/*",
    "/public",
    "/public*",
    "*.js",
    "*/admin",
    "*s",
    "/v1/{*}/items/{**}",
    "/v1/{*}/items",
    "/{*}",
    "/{**}",
    "/admin/{**}",
    "//admin",
    "/A",
];
const METHODS: [&str; 6] = ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"];
const METHOD_VALUES: [&str; 8] = ["GET", "POST", "PUT", "P*", "*T", "*", "get", "DELETE"];
const HOSTS: [&str; 6] = [
    "shop.example",
    "SHOP.example",
    "shop.example:80",
    "api.shop.example",
    "shop.example.org",
    "localhost",
];
const HOST_VALUES: [&str; 9] = [
    "shop.example",
    "Shop.Example",
    "*.shop.example",
    "*.example",
    "shop.*",
    "shop.example:*",
    "*",
    "localhost",
    "*:80",
];
const HEADERS: [(&str, &[&str]); 4] = [
    (
        "x-team",
        &["red", "blue", "red-1", "crimson-red", "red,blue"],
    ),
    ("x-id", &["7", "77", "*"]),
    ("user-agent", &["curl", "curl/8", "probe"]),
    ("x-none", &["x"]),
];
const HEADER_VALUES: [&str; 9] = [
    "*", "red", "red*", "*red", "blue", "7*", "curl*", "probe", "x*",
];
const PRINCIPALS: [&str; 12] = [
    "*",
    "cluster.local/ns/shop/sa/client",
    "cluster.local/ns/shop/sa/*",
    "cluster.local/ns/depot/*",
    "*/ns/team-a/sa/driver",
    "*/sa/driver",
    "*driver",
    "cluster.local/ns/lab/sa/shop",
    "cluster.local/ns/t*",
    "other.local/ns/shop/sa/client",
    "*/ns/shop/sa/c*",
    "cluster.local/ns/shop/sa/clien",
];
const NAMESPACES: [&str; 20] = [
    "shop", "depot", "team-a", "te*", "*-a", "te*-a", "t*a", "*", "*lab", "te*a-a", "lab",
    "nobody", "te-*-a", "*ns", "*s", "s*s", "s*ns", "sa", "sa*", "*a",
];
const ACCOUNTS: [&str; 7] = [
    "client",
    "other",
    "shop/other",
    "depot/client",
    "team-a/driver",
    "t-a-lab/a.b",
    "t-a-lab/axb",
];
const TRUST_DOMAINS: [&str; 7] = [
    "cluster.local",
    "*",
    "cluster*",
    "*.local",
    "other.local",
    "*.other",
    "cluster",
];
/// Sources lie in 127.62.0.0/16, destinations in 10.97.0.0/16.
const BLOCKS: [&str; 9] = [
    "127.62.1.1",
    "127.62.1.0/24",
    "127.62.2.128/25",
    "127.62.0.0/16",
    "127.0.0.0/8",
    "10.0.0.0/8",
    "0.0.0.0/0",
    "127.62.3.2/31",
    "::/0",
];
const DESTINATIONS: [&str; 6] = [
    "10.97.0.0/16",
    "10.97.0.0/25",
    "10.97.0.128/25",
    "127.0.0.0/8",
    "10.97.0.7",
    "0.0.0.0/0",
];
const PORTS: [&str; 4] = ["80", "9000", "8080", "0"];
const REQUEST_PRINCIPALS: [&str; 13] = [
    "*",
    "https://one.example/*",
    "https://one.example/ann",
    "https://one.example/a*",
    "*/ann",
    "*/bob",
    "*one.example/ann",
    "https://*",
    "*b",
    "two",
    "two/*",
    "two/bob",
    "two/b*",
];
const CLAIM_VALUES: [&str; 10] = [
    "*", "web", "api", "api*", "*pi", "admin", "read", "write", "app", "true",
];
const KEYS: [&str; 18] = [
    "source.ip",
    "remote.ip",
    "source.namespace",
    "source.principal",
    "source.serviceAccount",
    "source.trustDomain",
    "destination.ip",
    "destination.port",
    "connection.sni",
    "request.headers[X-Team]",
    "request.headers[x-id]",
    "request.headers[User-Agent]",
    "request.auth.principal",
    "request.auth.audiences",
    "request.auth.presenter",
    "request.auth.claims[scope]",
    "request.auth.claims[realm][roles]",
    "experimental.envoy.filters.http.nobody[key]",
];

fn values_of(key: &str) -> &'static [&'static str] {
    match key {
        "source.ip" | "remote.ip" => &BLOCKS,
        "source.namespace" => &NAMESPACES,
        "source.principal" => &PRINCIPALS,
        "source.serviceAccount" => &ACCOUNTS,
        "source.trustDomain" => &TRUST_DOMAINS,
        "destination.ip" => &DESTINATIONS,
        "destination.port" => &PORTS,
        "connection.sni" => &HOST_VALUES,
        "request.auth.principal" => &REQUEST_PRINCIPALS,
        key if key.starts_with("request.headers[") => &HEADER_VALUES,
        _ => &CLAIM_VALUES,
    }
}

fn needs_identity(key: &str) -> bool {
    key.starts_with("request.auth.")
        || matches!(
            key,
            "source.namespace"
                | "source.principal"
                | "source.serviceAccount"
                | "source.trustDomain"
        )
}

fn source(dice: &mut Dice, custom: bool) -> Source {
    let mut out = Source::default();
    let count = 1 + dice.below(2);
    for _ in 0..count {
        let field = if custom {
            5 + dice.below(2)
        } else {
            dice.below(7)
        };
        match field {
            0 if out.service_accounts.is_empty() => out.principals = dice.list(&PRINCIPALS),
            1 => out.request_principals = dice.list(&REQUEST_PRINCIPALS),
            2 if out.service_accounts.is_empty() => out.namespaces = dice.list(&NAMESPACES),
            3 if out.principals.is_empty() && out.namespaces.is_empty() => {
                out.service_accounts = dice.list(&ACCOUNTS);
            }
            4 => out.trust_domains = dice.list(&TRUST_DOMAINS),
            5 => out.ip_blocks = dice.list(&BLOCKS),
            _ => out.remote_ip_blocks = dice.list(&BLOCKS),
        }
    }
    out
}

fn operation(dice: &mut Dice) -> Operation {
    let mut out = Operation::default();
    let count = 1 + dice.below(2);
    for _ in 0..count {
        match dice.below(6) {
            0 => out.hosts = dice.list(&HOST_VALUES),
            1 => out.ports = dice.list(&PORTS),
            2 => out.methods = dice.list(&METHOD_VALUES),
            _ => out.paths = dice.list(&PATH_VALUES),
        }
    }
    out
}

fn rule(dice: &mut Dice, custom: bool) -> Rule {
    let mut out = Rule::default();
    if dice.chance(55) {
        let count = 1 + dice.below(2);
        out.from = (0..count).map(|_| source(dice, custom)).collect();
    }
    if dice.chance(60) {
        let count = 1 + dice.below(2);
        out.to = (0..count).map(|_| operation(dice)).collect();
    }
    if dice.chance(45) {
        let count = 1 + dice.below(2);
        for _ in 0..count {
            let key = dice.pick(&KEYS);
            if !(custom && needs_identity(key)) {
                out.when.push((key.to_owned(), dice.list(values_of(key))));
            }
        }
    }
    out
}

/// The policies of one service.
pub(crate) fn policies(dice: &mut Dice, service: &str) -> Vec<Policy> {
    let count = [1, 1, 1, 2, 3][dice.below(5)];
    let one = |index: usize| {
        let action = match dice.below(20) {
            0..=8 => Action::Allow,
            9..=15 => Action::Deny,
            16..=17 => Action::Audit,
            _ => Action::Custom,
        };
        let custom = action == Action::Custom;
        // An ALLOW without rules refuses everything; of the others some are not possible.
        let fewest = usize::from(!(action == Action::Allow && dice.chance(3)));
        let rules = fewest * (1 + dice.below(3));
        Policy {
            name: format!("{service}-{index}"),
            service: service.to_owned(),
            action,
            dry_run: matches!(action, Action::Allow | Action::Deny) && dice.chance(12),
            rules: (0..rules).map(|_| rule(dice, custom)).collect(),
        }
    };
    (0..count).map(one).collect()
}

/// A request of any client; a connection when the port is not one of HTTP.
pub(crate) fn request(dice: &mut Dice, tokens: usize, port: u16) -> Request {
    let (target, path) = PATHS[dice.below(PATHS.len())];
    let mut headers = Vec::new();
    for (name, values) in HEADERS {
        if dice.chance(50) {
            headers.push((name.to_owned(), dice.pick(values).to_owned()));
            // Envoy joins the values of a repeated user agent.
            if name != "user-agent" && dice.chance(30) {
                headers.push((name.to_owned(), dice.pick(values).to_owned()));
            }
        }
    }
    Request {
        client: dice.below(CLIENTS.len()),
        method: dice.pick(&METHODS).to_owned(),
        target: target.to_owned(),
        path: path.to_owned(),
        host: dice.pick(&HOSTS).to_owned(),
        headers,
        token: (tokens > 0 && dice.chance(50)).then(|| dice.below(tokens)),
        port,
    }
}
