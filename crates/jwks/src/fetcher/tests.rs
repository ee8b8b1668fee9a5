//! Claims about when key sets are fetched and what their rows say. Time is simulated.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::VecDeque;
use std::sync::Mutex;

use super::*;

const REFRESH: Duration = Duration::from_secs(20 * 60);

type Answers = VecDeque<(Duration, Result<Str, FetchError>)>;

/// Answers as the script says; when it is at its end, never.
#[derive(Default)]
struct Script {
    answers: Mutex<Answers>,
    calls: Mutex<Vec<Instant>>,
    running: Mutex<(usize, usize)>,
}

impl Script {
    fn new(answers: impl IntoIterator<Item = Result<Str, FetchError>>) -> Arc<Self> {
        let answers = answers.into_iter().map(|a| (Duration::ZERO, a)).collect();
        Arc::new(Self {
            answers: Mutex::new(answers),
            ..Self::default()
        })
    }
}

impl Fetch for Script {
    fn fetch<'a>(&'a self, _: &'a Wanted) -> Fetching<'a> {
        Box::pin(async move {
            self.calls.lock().unwrap().push(Instant::now());
            {
                let mut running = self.running.lock().unwrap();
                running.0 += 1;
                running.1 = running.1.max(running.0);
            }
            let next = self.answers.lock().unwrap().pop_front();
            let Some((delay, answer)) = next else {
                return std::future::pending().await;
            };
            tokio::time::sleep(delay).await;
            self.running.lock().unwrap().0 -= 1;
            answer
        })
    }
}

struct World {
    wanted: watch::Sender<BTreeMap<Str, Arc<Wanted>>>,
    inputs: mpsc::Receiver<Vec<Input>>,
}

fn start(script: &Arc<Script>, state_file: Option<PathBuf>) -> World {
    let metrics = Metrics::register(&Registry::new()).unwrap();
    let client = Arc::clone(script) as Arc<dyn Fetch>;
    let fetcher = Fetcher::new(client, metrics, REFRESH, state_file);
    let (wanted, receiver) = watch::channel(BTreeMap::new());
    let (sender, inputs) = mpsc::channel(64);
    tokio::spawn(fetcher.run(receiver, sender));
    World { wanted, inputs }
}

impl World {
    /// Each address is of the namespace before its first slash.
    fn want(&self, uris: impl IntoIterator<Item = String>) {
        let wanted = |uri: String| {
            let ns = uri.split('/').next().unwrap();
            let wanted = Wanted {
                namespaces: [ns.into()].into(),
                uri: Some(uri.as_str().into()),
                issuer: Str::new(),
                timeout: None,
            };
            (Str::from(uri), Arc::new(wanted))
        };
        self.wanted
            .send_replace(uris.into_iter().map(wanted).collect());
    }

    /// The next rows: key and row.
    async fn rows(&mut self) -> Vec<(Str, Option<Arc<Jwks>>)> {
        let rows = self.inputs.recv().await.unwrap();
        let row = |input| match input {
            Input::Jwks(key, row) => (key, row),
            other => panic!("{other:?}"),
        };
        rows.into_iter().map(row).collect()
    }

    async fn row(&mut self) -> Jwks {
        let rows = self.rows().await;
        assert_eq!(rows.len(), 1);
        (**rows[0].1.as_ref().unwrap()).clone()
    }
}

fn failed(reason: &str) -> Result<Str, FetchError> {
    Err(FetchError::Failed(reason.to_owned()))
}

fn keys(kid: &str) -> Str {
    arcstr::format!(r#"{{"keys":[{{"kid":"{kid}"}}]}}"#)
}

#[tokio::test(start_paused = true)]
async fn a_source_has_a_row_at_once_and_keys_when_they_come() {
    let script = Script::new([Ok(keys("a"))]);
    let mut world = start(&script, None);
    world.want(["u".to_owned()]);
    let first = world.row().await;
    assert!(first.nobody.contains("\"kty\":\"EC\""));
    assert_eq!((first.keys, first.failure), (None, None));
    let second = world.row().await;
    assert_eq!(second.keys, Some(keys("a")));
    assert_eq!(second.nobody, first.nobody);
    world.want([]);
    assert_eq!(world.rows().await, [("u".into(), None)]);
    // Its successor is a stranger.
    world.want(["u".to_owned()]);
    assert_ne!(world.row().await.nobody, first.nobody);
}

#[tokio::test(start_paused = true)]
async fn failures_are_retried_soon_and_then_ever_later() {
    let mut answers: Vec<_> = (0..15).map(|i| failed(&format!("no {i}"))).collect();
    answers.extend([Ok(keys("a")), Ok(keys("b"))]);
    let script = Script::new(answers);
    let mut world = start(&script, None);
    world.want(["u".to_owned()]);
    world.row().await;
    for i in 0..15 {
        let failure = world.row().await.failure.unwrap();
        assert_eq!(failure.reason, format!("no {i}"));
    }
    assert_eq!(world.row().await.failure, None);
    assert_eq!(world.row().await.keys, Some(keys("b")));
    let calls = script.calls.lock().unwrap().clone();
    let waits: Vec<Duration> = calls.windows(2).map(|two| two[1] - two[0]).collect();
    for (i, wait) in waits.iter().enumerate() {
        let expected = match i {
            15 => REFRESH,
            i => Duration::from_secs((1 << i.min(12)).min(3600)),
        };
        let slack = expected / 10 + Duration::from_millis(2);
        assert!(
            (expected..=expected + slack).contains(wait),
            "{i}: {wait:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn last_good_keys_outlive_failures_for_a_week() {
    let mut answers = vec![Ok(keys("a"))];
    answers.extend((0..400).map(|i| failed(&i.to_string())));
    let script = Script::new(answers);
    let mut world = start(&script, None);
    world.want(["u".to_owned()]);
    world.row().await;
    world.row().await;
    let started = Instant::now();
    loop {
        let row = world.row().await;
        assert!(row.failure.is_some());
        if row.keys.is_none() {
            break;
        }
        assert_eq!(row.keys, Some(keys("a")));
    }
    assert!(started.elapsed() >= KEYS_AGE_MAX);
    assert!(started.elapsed() < KEYS_AGE_MAX + RETRY_MAX * 2);
}

#[tokio::test(start_paused = true)]
async fn the_same_keys_again_are_no_news_and_blocked_addresses_are_told_apart() {
    let blocked = Err(FetchError::Blocked("it is there".to_owned()));
    let script = Script::new([Ok(keys("a")), Ok(keys("a")), blocked]);
    let mut world = start(&script, None);
    world.want(["u".to_owned()]);
    world.row().await;
    assert_eq!(world.row().await.keys, Some(keys("a")));
    let last = world.row().await;
    assert_eq!(script.calls.lock().unwrap().len(), 3);
    let expected = JwksFailure {
        blocked: true,
        reason: "it is there".into(),
    };
    assert_eq!(last.failure, Some(expected));
}

#[tokio::test(start_paused = true)]
async fn keys_survive_a_restart_unless_they_are_too_old() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("jwks.json");
    let mut world = start(&Script::new([Ok(keys("a"))]), Some(path.clone()));
    world.want(["u".to_owned()]);
    world.row().await;
    world.row().await;
    tokio::time::sleep(SAVE_AFTER * 2).await;
    let saved = store::load(&path).unwrap();
    assert_eq!(saved["u"].keys, keys("a"));

    let mut world = start(&Script::new([failed("down")]), Some(path.clone()));
    world.want(["u".to_owned(), "v".to_owned()]);
    let rows = world.rows().await;
    let known = |i: usize| rows[i].1.as_ref().unwrap().keys.clone();
    assert_eq!((known(0), known(1)), (Some(keys("a")), None));

    let mut old = saved;
    old.get_mut("u").unwrap().fetched_s -= KEYS_AGE_MAX.as_secs() + 10;
    store::save(&path, &old).unwrap();
    let mut world = start(&Script::new([]), Some(path));
    world.want(["u".to_owned()]);
    assert_eq!(world.row().await.keys, None);
}

#[tokio::test(start_paused = true)]
async fn sources_and_fetches_are_bounded() {
    let slow = (0..2 * SOURCES_COUNT_MAX).map(|_| Ok(keys("a")));
    let script = Script::new(slow);
    for answer in script.answers.lock().unwrap().iter_mut() {
        answer.0 = Duration::from_millis(10);
    }
    let mut world = start(&script, None);
    world.want((0..=SOURCES_COUNT_MAX).map(|i| format!("{i:05}")));
    let rows = world.rows().await;
    assert_eq!(rows.len(), SOURCES_COUNT_MAX + 1);
    let refused = rows
        .iter()
        .filter(|(_, row)| row.as_ref().unwrap().failure.is_some());
    assert_eq!(refused.count(), 1);
    for _ in 0..SOURCES_COUNT_MAX {
        assert!(world.row().await.keys.is_some());
    }
    assert_eq!(script.running.lock().unwrap().1, FETCHES_COUNT_MAX);
    // Room that becomes free is used.
    world.want((1..=SOURCES_COUNT_MAX).map(|i| format!("{i:05}")));
    world.rows().await;
    let row = world.row().await;
    assert_eq!((row.keys, row.failure), (Some(keys("a")), None));
}

#[tokio::test(start_paused = true)]
async fn a_namespace_takes_no_more_than_its_share() {
    // Issuers of the first hang; there are answers for the other.
    let hour = Duration::from_secs(3600);
    let script = Script::new((0..6).map(|_| Ok(keys("a"))));
    for answer in script.answers.lock().unwrap().iter_mut().take(4) {
        answer.0 = hour;
    }
    let mut world = start(&script, None);
    let many = || (0..SOURCES_OF_NAMESPACE_COUNT_MAX + 50).map(|i| format!("a/{i:05}"));
    let two = || (0..2).map(|i| format!("b/{i}"));
    world.want(many().chain(two()));
    let rows = world.rows().await;
    let failed = rows
        .iter()
        .filter(|(_, row)| row.as_ref().unwrap().failure.is_some());
    let failed: Vec<&Str> = failed.map(|(key, _)| key).collect();
    assert_eq!(failed.len(), 50);
    assert!(failed.iter().all(|key| key.starts_with("a/")));
    let before = Instant::now();
    for expected in two() {
        let rows = world.rows().await;
        assert_eq!(rows[0].0, expected);
        assert_eq!(rows[0].1.as_ref().unwrap().keys, Some(keys("a")));
    }
    assert!(before.elapsed() < hour);
    // What one gives back it can take again.
    world.want(many().skip(50).chain(two()));
    let gone = world.rows().await;
    assert!(gone.iter().all(|(_, row)| row.is_none()));
}

#[test]
fn namespaces_with_few_sources_come_first() {
    let wanted = |list: &[&str]| {
        Arc::new(Wanted {
            uri: None,
            issuer: Str::new(),
            timeout: None,
            namespaces: list.iter().map(|ns| Str::from(*ns)).collect(),
        })
    };
    let mut all = BTreeMap::new();
    for ns in 0..20 {
        for i in 0..SOURCES_OF_NAMESPACE_COUNT_MAX {
            let key = arcstr::format!("{ns:02}/{i:03}");
            all.insert(key, wanted(&[&format!("{ns:02}")]));
        }
    }
    all.insert("zz".into(), wanted(&["00", "zz"]));
    let given = Shares::default().give(all.iter());
    assert_eq!(given.len(), SOURCES_COUNT_MAX);
    let of = |ns: &str| given.values().filter(|payer| **payer == *ns).count();
    assert_eq!((of("00"), of("19"), of("zz")), (50, 49, 1));
    // Who pays already goes on paying, and a stranger does not.
    let mut shares = Shares::default();
    let names = |list: &[&str]| wanted(list).namespaces.clone();
    assert_eq!(
        shares.keep(Some("b".into()), &names(&["a", "b"])),
        Some("b".into())
    );
    assert_eq!(
        shares.keep(Some("c".into()), &names(&["a", "b"])),
        Some("a".into())
    );
    assert_eq!(shares.keep(None, &names(&["a"])), None);
    assert_eq!(shares.all, 2);
}
