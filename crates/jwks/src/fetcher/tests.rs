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
    fn want(&self, uris: impl IntoIterator<Item = String>) {
        let wanted = |uri: String| {
            let wanted = Wanted {
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
