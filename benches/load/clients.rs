//! The process of the ztunnels, and those of the floor: writer and readers.

use std::io::BufRead as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::SystemTime;

use anyhow::{Context as _, bail};
use ca::DevCa;
use model::SpiffeId;
use testkit::daemon::SERVER_NAME;
use testkit::hbone::Identity;
use testkit::load::floor::{Readers, Writer};
use testkit::load::ztunnel::{Fleet, Seen, To, now_ns};

use super::child::Child;

/// The role of the ztunnels.
pub(crate) const ZTUNNELS: &str = "ztunnels";
/// The role of the floor's writer.
pub(crate) const WRITER: &str = "floor-writer";
/// The role of the floor's readers.
pub(crate) const READERS: &str = "floor-readers";
/// Sockets of a process; every client has one.
const SOCKETS: u64 = 65_536;
const NODES: usize = 1000;

fn ca(state: &str) -> anyhow::Result<DevCa> {
    let ca = DevCa::load_or_create(Path::new(state), "cluster.local", SystemTime::now());
    ca.context("the CA of the state directory")
}

fn client_tls(ca: &DevCa) -> anyhow::Result<Arc<rustls::ClientConfig>> {
    let id = SpiffeId::new("cluster.local", "istio-system", "ztunnel");
    Identity::issue(ca, &id)?.xds_client_config()
}

fn many_sockets() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    let current = Some(maximum.map_or(SOCKETS, |it| it.min(SOCKETS)));
    let _ = setrlimit(Resource::Nofile, Rlimit { current, maximum });
}

/// Ztunnels in a process of their own.
pub(crate) struct Ztunnels(pub(crate) Child);

/// What all of them received so far, and now hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Count {
    pub(crate) open: u64,
    pub(crate) lost: u64,
    pub(crate) resources: u64,
    pub(crate) bytes: u64,
    pub(crate) held: u64,
}

/// Times of an event, nanoseconds.
#[derive(Clone, Debug)]
pub(crate) struct Times {
    pub(crate) event: u32,
    /// Of the clients in the middle, of 99 in 100, of the last one: since it began to connect,
    /// or at which time it had acknowledged.
    pub(crate) p50: u64,
    pub(crate) p99: u64,
    pub(crate) last: u64,
}

fn numbers(text: &str) -> anyhow::Result<Vec<u64>> {
    let words = text.split_whitespace();
    words.map(|it| Ok(it.parse()?)).collect()
}

impl Ztunnels {
    pub(crate) fn start(state: &Path, xds: SocketAddr) -> anyhow::Result<Self> {
        let state = state.display().to_string();
        Child::start(&[ZTUNNELS, &state, &xds.to_string()]).map(Self)
    }

    /// Connects so many; returns how long each took to acknowledge its first answers.
    pub(crate) fn connect(&mut self, count: usize) -> anyhow::Result<Times> {
        self.0.say(&format!("connect {count}"))?;
        self.seen()
    }

    /// As above; they say what they held.
    pub(crate) fn resume(&mut self, count: usize) -> anyhow::Result<Times> {
        self.0.say(&format!("resume {count}"))?;
        self.seen()
    }

    /// From now on waits until all have acknowledged what has these names.
    pub(crate) fn expect(&mut self, event: u32, names: &str) -> anyhow::Result<()> {
        self.0.say(&format!("expect {event} {names}"))
    }

    /// Waits for the next event that all have acknowledged.
    pub(crate) fn seen(&mut self) -> anyhow::Result<Times> {
        let line = self.0.line()?;
        let times = line.strip_prefix("seen ").with_context(|| line.clone())?;
        let [event, p50, p99, last] = numbers(times)?[..] else {
            bail!("{line}");
        };
        let event = u32::try_from(event)?;
        Ok(Times {
            event,
            p50,
            p99,
            last,
        })
    }

    pub(crate) fn count(&mut self) -> anyhow::Result<Count> {
        let line = self.0.ask("count")?;
        let counts = line.strip_prefix("count ").with_context(|| line.clone())?;
        let [open, lost, _, resources, bytes, held] = numbers(counts)?[..] else {
            bail!("{line}");
        };
        Ok(Count {
            open,
            lost,
            resources,
            bytes,
            held,
        })
    }

    pub(crate) fn leave(&mut self) -> anyhow::Result<()> {
        let line = self.0.ask("leave")?;
        anyhow::ensure!(line == "left", "{line}");
        Ok(())
    }
}

fn lines(on_line: impl Fn() + Send + 'static) -> Receiver<String> {
    let (to, lines) = channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            let _ = to.send(line);
            on_line();
        }
        // Whoever started this is gone.
        std::process::exit(0);
    });
    lines
}

fn show(seen: &Seen) {
    let mut at: Vec<u64> = seen.at_ns.clone();
    at.sort_unstable();
    let of = |permille: usize| at[(at.len() * permille).div_ceil(1000).max(1) - 1];
    println!("seen {} {} {} {}", seen.event, of(500), of(990), of(1000));
}

/// The ztunnels' process.
pub(crate) fn ztunnels(args: &[String]) -> anyhow::Result<()> {
    let [state, xds] = args else {
        bail!("{ZTUNNELS} is started by scenarios");
    };
    many_sockets();
    let mut fleet = Fleet::new(To {
        addr: xds.parse()?,
        server_name: SERVER_NAME.to_owned(),
        tls: client_tls(&ca(state)?)?,
        token: None,
        nodes: NODES,
    })?;
    let waker = fleet.waker()?;
    let orders = lines(move || {
        let _ = waker.wake();
    });
    let mut is_connecting = false;
    loop {
        for seen in fleet.turn(None)? {
            show(&seen);
        }
        if is_connecting && fleet.is_ready() {
            is_connecting = false;
            let (at_ns, _) = fleet.ready();
            show(&Seen { event: 0, at_ns });
        }
        for order in orders.try_iter() {
            let (what, rest) = order.split_once(' ').unwrap_or((&order, ""));
            match what {
                "connect" | "resume" => {
                    fleet.connect(rest.parse()?, what == "resume")?;
                    is_connecting = true;
                }
                "expect" => {
                    let (event, names) = rest.split_once(' ').context("expect EVENT NAMES")?;
                    let names: Vec<&str> = names.split(',').collect();
                    fleet.expect(event.parse()?, &names);
                }
                "count" => {
                    let it = fleet.totals();
                    let held: usize = fleet.held_count().iter().sum();
                    println!(
                        "count {} {} {} {} {} {held}",
                        it.open, it.lost, it.responses, it.resources, it.bytes
                    );
                }
                _ => {
                    fleet.leave();
                    println!("left");
                }
            }
        }
    }
}

/// Writer and readers, connected.
pub(crate) struct Floor {
    writer: Child,
    readers: Child,
}

impl Floor {
    /// Connects so many readers. What it costs the writer is included in [`Self::writer_id`].
    pub(crate) fn start(state: &Path, clients: usize) -> anyhow::Result<Self> {
        let state = state.display().to_string();
        let threads = std::thread::available_parallelism()?.to_string();
        let mut writer = Child::start(&[WRITER, &state, &threads])?;
        let addrs = writer.line()?;
        let mut readers = Child::start(&[READERS, &state, &clients.to_string(), &addrs])?;
        let line = readers.line()?;
        anyhow::ensure!(line == "connected", "{line}");
        Ok(Self { writer, readers })
    }

    pub(crate) fn writer_id(&self) -> u32 {
        self.writer.id()
    }

    /// Writes so many bytes to each; returns when that began and when the last reader had
    /// them, nanoseconds.
    pub(crate) fn write(&mut self, bytes: u64, answer: bool) -> anyhow::Result<(u64, u64)> {
        self.readers.say(&format!("{bytes} {answer}"))?;
        let began = now_ns();
        self.writer.say(&bytes.to_string())?;
        Ok((began, self.readers.line()?.parse()?))
    }
}

/// The writer's process.
pub(crate) fn writer(args: &[String]) -> anyhow::Result<()> {
    let [state, threads] = args else {
        bail!("{WRITER} is started by scenarios");
    };
    many_sockets();
    let ca = ca(state)?;
    let serving = ca.issue_server(&[SERVER_NAME], &[], SystemTime::now())?;
    let tls = xds::tls_config(ca.authority(), &serving)?;
    let writer = Writer::start(&tls, threads.parse()?)?;
    let addrs: Vec<String> = writer.addrs().iter().map(SocketAddr::to_string).collect();
    println!("{}", addrs.join(","));
    for line in std::io::stdin().lock().lines() {
        writer.write(line?.parse()?)?;
    }
    Ok(())
}

/// The readers' process.
pub(crate) fn readers(args: &[String]) -> anyhow::Result<()> {
    let [state, clients, addrs] = args else {
        bail!("{READERS} is started by scenarios");
    };
    many_sockets();
    let addrs = addrs.split(',').map(|it| Ok(it.parse()?));
    let addrs: Vec<SocketAddr> = addrs.collect::<anyhow::Result<_>>()?;
    let tls = client_tls(&ca(state)?)?;
    let mut readers = Readers::connect(&addrs, SERVER_NAME, &tls, clients.parse()?)?;
    readers.read(0, false)?;
    println!("connected");
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let (bytes, answer) = line.split_once(' ').context("BYTES ANSWER")?;
        println!("{}", readers.read(bytes.parse()?, answer.parse()?)?);
    }
    Ok(())
}
