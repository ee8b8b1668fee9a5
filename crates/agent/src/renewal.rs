//! When a certificate is renewed, and the tasks that keep certificate and roots fresh.
//! Source: spec/control-plane.md §4.5 (clients renew at half life).

use std::hash::{BuildHasher as _, RandomState};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use model::SpiffeId;
use tokio::io::AsyncReadExt as _;

use crate::bundle::{BUNDLE_BYTES_MAX, Bundle};
use crate::certificate::Pending;
use crate::issuer;
use crate::metrics::Metrics;
use crate::options::CaOptions;
use crate::state::{SecretsRx, SecretsTx};

/// How often the root file is looked at.
const ROOTS_INTERVAL: Duration = Duration::from_secs(1);
/// Shortest time between two certificates.
const RENEWAL_MIN: Duration = Duration::from_secs(1);
/// First wait after a failure; doubled each time.
const RETRY_FIRST: Duration = Duration::from_millis(500);
/// Longest wait after a failure.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// Longest sleep in one piece: the wall clock may be set, and machines may sleep.
const SLEEP_MAX: Duration = Duration::from_secs(30);

/// When to renew: half of what is left, give or take a hundredth.
/// `random` lies within 0..=1.
pub(crate) fn renew_after(left: Duration, random: f64) -> Duration {
    left.mul_f64(0.49 + 0.02 * random.clamp(0.0, 1.0))
}

/// When to try again after `failures` (1 or more): doubled each time, give or take a fifth.
pub(crate) fn retry_after(failures: u32, random: f64) -> Duration {
    let doubled = RETRY_FIRST.saturating_mul(1 << failures.saturating_sub(1).min(16));
    doubled
        .min(RETRY_MAX)
        .mul_f64(0.8 + 0.4 * random.clamp(0.0, 1.0))
}

/// Within 0..=1; good enough to keep a fleet from asking all at once.
fn random() -> f64 {
    let bits = u32::try_from(RandomState::new().hash_one(0_u8) >> 32).unwrap_or_default();
    f64::from(bits) / f64::from(u32::MAX)
}

/// Obtains certificates for ever.
pub(crate) async fn keep_certificate(
    ca: CaOptions,
    identity: SpiffeId,
    secrets: SecretsTx,
    metrics: Arc<Metrics>,
) {
    let mut watched = secrets.subscribe();
    let mut failures: u32 = 0;
    // The first look at the root file is under way.
    let roots = watched.wait_for(|secrets| !secrets.file_roots.is_empty());
    drop(tokio::time::timeout(ROOTS_INTERVAL, roots).await);
    loop {
        match obtain(&ca, &identity, &secrets).await {
            Ok(end) => {
                failures = 0;
                metrics.renewals.inc();
                let left = end.duration_since(SystemTime::now()).unwrap_or_default();
                // However little is left: an issuer about to expire must not be asked without pause.
                let wait = renew_after(left, random()).max(RENEWAL_MIN);
                tracing::info!(%identity, valid_seconds = left.as_secs(), renewal_seconds = wait.as_secs(), "certificate obtained");
                until_renewal(SystemTime::now() + wait, &mut watched).await;
            }
            Err(error) => {
                failures = failures.saturating_add(1);
                metrics.failures.inc();
                let wait = retry_after(failures, random());
                tracing::warn!(%identity, %error, failures, retry_ms = wait.as_millis(), "no new certificate");
                secrets.send_modify(|secrets| secrets.failure = Some(error));
                tokio::time::sleep(wait).await;
            }
        }
    }
}

/// One certificate; returns the end of its validity, or why there is none.
async fn obtain(
    ca: &CaOptions,
    identity: &SpiffeId,
    secrets: &SecretsTx,
) -> Result<SystemTime, String> {
    let known = secrets.borrow().bundle();
    if known.is_empty() {
        return Err(format!("no roots in {} yet", ca.root_file.display()));
    }
    let pending = Pending::new(identity).map_err(|error| error.to_string())?;
    let answer = issuer::sign(ca, &known, pending.csr_pem.clone())
        .await
        .map_err(|error| error.to_string())?;
    let credentials = pending
        .accept(&answer, identity, &known, SystemTime::now())
        .map_err(|error| error.to_string())?;
    let end = credentials.not_after;
    secrets.send_modify(|secrets| {
        secrets.credentials = Some(Arc::new(credentials));
        secrets.failure = None;
    });
    Ok(end)
}

/// Waits for the time of renewal, or until the root file no longer vouches for the
/// certificate in use: then peers may refuse it any moment.
async fn until_renewal(at: SystemTime, secrets: &mut SecretsRx) {
    let mut roots = secrets.borrow_and_update().file_roots.clone();
    while let Ok(left) = at.duration_since(SystemTime::now()) {
        let changed = tokio::time::timeout(left.min(SLEEP_MAX), secrets.changed()).await;
        if !matches!(changed, Ok(Ok(()))) {
            continue;
        }
        let now = secrets.borrow_and_update();
        if now.file_roots == roots {
            continue;
        }
        roots = now.file_roots.clone();
        let is_vouched = now
            .credentials
            .as_ref()
            .is_some_and(|held| held.verify(&roots, SystemTime::now()).is_ok());
        if !is_vouched {
            tracing::info!("the root file no longer vouches for the certificate: renewing");
            return;
        }
    }
}

/// Reads the root file again and again; a file that is missing or broken changes nothing.
pub(crate) async fn keep_roots(ca: CaOptions, secrets: SecretsTx) {
    let mut last_error = None;
    loop {
        match read_roots(&ca.root_file).await {
            Ok(roots) => {
                last_error = None;
                let count = roots.len();
                let is_new = secrets.send_if_modified(|secrets| {
                    let is_new = secrets.file_roots != roots;
                    secrets.file_roots = roots;
                    is_new
                });
                if is_new {
                    tracing::info!(file = %ca.root_file.display(), roots = count, "roots read");
                }
            }
            Err(error) if last_error.as_ref() != Some(&error) => {
                tracing::warn!(file = %ca.root_file.display(), %error, "the root file cannot be used; what was read before stays");
                last_error = Some(error);
            }
            Err(_) => {}
        }
        tokio::time::sleep(ROOTS_INTERVAL).await;
    }
}

async fn read_roots(path: &Path) -> Result<Bundle, String> {
    let file = tokio::fs::File::open(path)
        .await
        .map_err(|error| error.to_string())?;
    let mut bytes = Vec::new();
    file.take(BUNDLE_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)
        .await
        .map_err(|error| error.to_string())?;
    Bundle::parse(&bytes).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renewal_comes_at_half_life_give_or_take_a_hundredth() {
        let day = Duration::from_secs(86_400);
        for (random, expected) in [(0.0, 42_336), (0.5, 43_200), (1.0, 44_064), (9.0, 44_064)] {
            assert_eq!(renew_after(day, random).as_secs(), expected, "{random}");
        }
        assert_eq!(renew_after(Duration::ZERO, 0.5), Duration::ZERO);
    }

    #[test]
    fn retries_double_up_to_a_minute_and_never_overflow() {
        let waits: Vec<u128> = [1, 2, 3, 8, 9, 40, u32::MAX]
            .map(|failures| retry_after(failures, 0.5).as_millis())
            .to_vec();
        assert_eq!(waits, [500, 1000, 2000, 60_000, 60_000, 60_000, 60_000]);
        assert_eq!(retry_after(1, 0.0).as_millis(), 400);
        assert_eq!(retry_after(1, 1.0).as_millis(), 600);
        assert!((0.0..=1.0).contains(&random()));
    }
}
