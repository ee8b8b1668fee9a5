//! Claims about addresses that hosts of ServiceEntries get by themselves.
//! Source: spec/workload-discovery.md §3.4, §8 rows 23, 26, 27. The places of the hosts are
//! 1 + xxh64(ns \0 name \0 host) mod (size - 1), computed apart from this code.

use model::Str;
use model::derived::Features;

use super::world::{World, world, world_with};

/// Place of a/one x.example.
const ONE_X: [&str; 2] = ["240.240.8.158", "2001:2::56c:2982:701e:6991"];
/// Place of a/one y.example.
const ONE_Y: [&str; 2] = ["240.240.17.212", "2001:2::66e2:301:dd:a713"];
/// Place of a/two x.example.
const TWO_X: [&str; 2] = ["240.240.29.88", "2001:2::4e6f:192:5de8:6f6e"];
/// Place of a/two z.example.
const TWO_Z: [&str; 2] = ["240.240.248.72", "2001:2::aa15:a1e6:c743:e508"];
/// Place of a/dyn *.example.
const DYN: [&str; 2] = ["240.240.8.218", "2001:2::e79:32c0:540a:7396"];

struct Entry {
    name: &'static str,
    created: &'static str,
    labels: &'static str,
    spec: &'static str,
    status: &'static [(&'static str, &'static str)],
}

impl Entry {
    const fn new(name: &'static str, created: &'static str, spec: &'static str) -> Self {
        Self {
            name,
            created,
            labels: "",
            spec,
            status: &[],
        }
    }

    const fn with_status(mut self, status: &'static [(&'static str, &'static str)]) -> Self {
        self.status = status;
        self
    }

    fn yaml(&self) -> String {
        let status: Vec<String> = (self.status.iter())
            .map(|(value, host)| format!("{{value: \"{value}\", host: \"{host}\"}}"))
            .collect();
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{namespace: a, name: {}, creationTimestamp: \"{}-01-01T00:00:00Z\", labels: {{{}}}}}\nspec: {{ports: [{{number: 80, name: http, protocol: HTTP}}], {}}}\nstatus: {{addresses: [{}]}}\n",
            self.name,
            self.created,
            self.labels,
            self.spec,
            status.join(", ")
        )
    }
}

fn of(entries: &[Entry]) -> World {
    world(&entries.iter().map(Entry::yaml).collect::<String>())
}

/// What `status.addresses` is to hold; `None` without a row.
fn status(world: &World, name: &str) -> Option<Vec<(Str, Str)>> {
    let row = world.allocations.get(&format!("a/{name}"))?;
    Some(row.status.clone())
}

#[allow(clippy::unnecessary_wraps)] // compared with `status`
fn pairs(hosts: &[(&str, &[&str])]) -> Option<Vec<(Str, Str)>> {
    let pairs = hosts.iter().flat_map(|(host, values)| {
        (values.iter()).map(move |value| (Str::from(*value), Str::from(*host)))
    });
    Some(pairs.collect())
}

fn vips(world: &World, host: &str) -> Vec<String> {
    let row = &world.services[&format!("a/{host}")];
    row.vips.iter().map(|vip| vip.ip.to_string()).collect()
}

#[test]
fn every_eligible_host_gets_one_address_of_each_range_in_the_order_of_the_spec() {
    type Case = (
        &'static str,
        &'static str,
        &'static str,
        Option<Vec<(Str, Str)>>,
    );
    let cases: [Case; 8] = [
        (
            "one",
            "",
            "hosts: [y.example, x.example, y.example], resolution: STATIC",
            pairs(&[("y.example", &ONE_Y), ("x.example", &ONE_X)]),
        ),
        (
            "one",
            "networking.istio.io/enable-autoallocate-ip: \"true\"",
            "hosts: [x.example], resolution: DNS",
            pairs(&[("x.example", &ONE_X)]),
        ),
        ("one", "", "hosts: [x.example], resolution: NONE", None),
        (
            "one",
            "",
            "hosts: [x.example], resolution: DNS, addresses: [10.0.0.1]",
            None,
        ),
        (
            "one",
            "networking.istio.io/enable-autoallocate-ip: \"FALSE\"",
            "hosts: [x.example], resolution: DNS",
            None,
        ),
        ("dyn", "", "hosts: [\"*.example\"], resolution: DNS", None),
        (
            "dyn",
            "",
            "hosts: [\"*.example\"], resolution: DYNAMIC_DNS",
            pairs(&[("*.example", &DYN)]),
        ),
        (
            "one",
            "",
            "hosts: [\"*.example\", x.example], resolution: DNS",
            pairs(&[("x.example", &ONE_X)]),
        ),
    ];
    for (name, labels, spec, expected) in cases {
        let entry = Entry {
            labels,
            ..Entry::new(name, "2020", spec)
        };
        let world = of(&[entry]);
        let found = status(&world, name).filter(|found| !found.is_empty());
        assert_eq!(found, expected, "{labels} {spec}");
        if let Some((_, host)) = expected.as_ref().and_then(|pairs| pairs.first()) {
            let own = expected.iter().flatten().filter(|(_, of)| of == host);
            let own: Vec<String> = own.map(|(value, _)| value.to_string()).collect();
            assert_eq!(vips(&world, host), own, "{spec}");
        }
    }
}

#[test]
fn addresses_of_the_status_are_kept_and_only_hosts_without_get_some() {
    const SPEC: &str = "hosts: [x.example, y.example], resolution: DNS";
    // Status, what it is to hold.
    let cases = [
        // Whatever it says of the same hosts stays as it stands.
        (
            &[("240.240.7.7", "y.example"), ("240.240.7.8", "x.example")][..],
            pairs(&[
                ("y.example", &["240.240.7.7"]),
                ("x.example", &["240.240.7.8"]),
            ]),
        ),
        (
            &[("240.240.7.7", "x.example"), ("192.0.2.1", "x.example")],
            pairs(&[
                ("x.example", &["192.0.2.1", "240.240.7.7"]),
                ("y.example", &ONE_Y),
            ]),
        ),
        (
            &[("240.240.7.7", "gone.example"), ("nonsense", "x.example")],
            pairs(&[("x.example", &ONE_X), ("y.example", &ONE_Y)]),
        ),
        // Two hosts of one entry cannot share an address.
        (
            &[("240.240.7.7", "x.example"), ("240.240.7.7", "y.example")],
            pairs(&[("x.example", &ONE_X), ("y.example", &ONE_Y)]),
        ),
    ];
    for (held, expected) in cases {
        let world = of(&[Entry::new("one", "2020", SPEC).with_status(held)]);
        assert_eq!(status(&world, "one"), expected, "{held:?}");
    }
}

#[test]
fn the_oldest_entry_keeps_a_contested_address_and_the_other_moves_with_all_its_hosts() {
    const HELD: &[(&str, &str)] = &[("240.240.7.7", "x.example"), ("240.240.7.9", "z.example")];
    let older = || {
        Entry::new("one", "2020", "hosts: [x.example], resolution: DNS")
            .with_status(&[("240.240.7.7", "x.example")])
    };
    let younger = || {
        Entry::new(
            "two",
            "2021",
            "hosts: [x.example, z.example], resolution: DNS",
        )
        .with_status(HELD)
    };
    let contested = of(&[younger(), older()]);
    assert_eq!(
        [status(&contested, "one"), status(&contested, "two")],
        [
            pairs(&[("x.example", &["240.240.7.7"])]),
            pairs(&[("x.example", &TWO_X), ("z.example", &TWO_Z)])
        ]
    );
    let written = || {
        Entry::new(
            "user",
            "2022",
            "hosts: [u.example], resolution: STATIC, addresses: [240.240.7.0/24]",
        )
    };
    let moved = of(&[younger(), older(), written()]);
    assert_eq!(
        [status(&moved, "one"), status(&moved, "two")],
        [
            pairs(&[("x.example", &ONE_X)]),
            pairs(&[("x.example", &TWO_X), ("z.example", &TWO_Z)])
        ],
        "what a user wrote beats every entry that got its addresses by itself"
    );
}

#[test]
fn a_taken_place_moves_a_host_to_the_next_free_address_and_no_other() {
    let one = || {
        Entry::new(
            "one",
            "2020",
            "hosts: [x.example, y.example], resolution: DNS",
        )
    };
    // Younger and holding the very place: who has an address keeps it.
    let holder = Entry::new("hold", "2023", "hosts: [h.example], resolution: DNS")
        .with_status(&[("240.240.8.158", "h.example")]);
    let user = Entry::new(
        "user",
        "2024",
        "hosts: [u.example], resolution: STATIC, addresses: [240.240.8.159, 10.0.0.1]",
    );
    let world = of(&[one(), holder, user]);
    assert_eq!(
        status(&world, "one"),
        pairs(&[
            ("x.example", &["240.240.8.160", ONE_X[1]]),
            ("y.example", &ONE_Y)
        ])
    );
    assert_eq!(vips(&world, "h.example"), ["240.240.8.158"]);
    // Row 27 of the checklist: leftovers go, and nobody is served by them.
    let refused = Entry {
        labels: "networking.istio.io/enable-autoallocate-ip: \"False\"",
        ..one().with_status(&[("240.240.7.7", "x.example")])
    };
    let world = of(&[refused]);
    assert_eq!(status(&world, "one"), Some(Vec::new()));
    assert_eq!(vips(&world, "x.example"), Vec::<String>::new());
}

#[test]
fn the_oldest_entries_share_a_range_that_is_too_small_and_the_rest_is_told() {
    let small = Features {
        allocation_v4: ([240, 240, 0, 0].into(), 31),
        allocation_v6: ("2001:2::".parse().unwrap(), 128),
        ..Features::default()
    };
    let entries = [
        Entry::new("two", "2021", "hosts: [z.example], resolution: DNS"),
        Entry::new("one", "2020", "hosts: [x.example], resolution: DNS"),
    ];
    let yaml: String = entries.iter().map(Entry::yaml).collect();
    let world = world_with(&yaml, small);
    assert_eq!(
        status(&world, "one"),
        pairs(&[("x.example", &["240.240.0.1"])])
    );
    assert_eq!(status(&world, "two"), Some(Vec::new()));
    assert_eq!(
        world.codes(),
        [
            "se-allocation-exhausted ServiceEntry a/two",
            "se-tcp-no-address ServiceEntry a/two"
        ]
    );
    let off = Features {
        ip_autoallocate: false,
        ..Features::default()
    };
    let held = Entry::new("one", "2020", "hosts: [x.example], resolution: DNS")
        .with_status(&[("240.240.7.7", "x.example")]);
    let world = world_with(&held.yaml(), off);
    assert_eq!(status(&world, "one"), None);
    assert_eq!(vips(&world, "x.example"), Vec::<String>::new());
    assert_eq!(world.codes(), ["se-tcp-no-address ServiceEntry a/one"]);
}
