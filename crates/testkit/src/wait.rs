//! Waiting with a deadline.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// Pause between two looks.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// The range of [`free_port`] ends below 32768, where outgoing connections begin.
const PORT_FIRST: u32 = 17_000;
const PORTS_PER_PROCESS: u32 = 100;
const PORT_PARTS: u32 = 150;

/// Looks again and again until there is an answer.
///
/// # Errors
/// When `limit` has passed: says what was awaited and why the last look failed.
pub async fn until<T, F, L>(what: &str, limit: Duration, mut look: L) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<T>>,
    L: FnMut() -> F,
{
    let deadline = Instant::now() + limit;
    loop {
        match look().await {
            Ok(value) => return Ok(value),
            Err(error) if Instant::now() >= deadline => {
                return Err(error.context(format!("waited {limit:?} in vain for {what}")));
            }
            Err(_) => tokio::time::sleep(POLL_INTERVAL).await,
        }
    }
}

/// A TCP port on 127.0.0.1 that is free now and will hardly be taken by anybody else, even
/// while nobody listens on it: it lies below the ports that the system gives to outgoing
/// connections, and processes take turns in different parts of the range.
pub fn free_port() -> anyhow::Result<u16> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    for _ in 0..PORTS_PER_PROCESS {
        let own = NEXT.fetch_add(1, Ordering::Relaxed) % PORTS_PER_PROCESS;
        let part = std::process::id() % PORT_PARTS * PORTS_PER_PROCESS;
        let port = u16::try_from(PORT_FIRST + part + own)?;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    anyhow::bail!("all of {PORTS_PER_PROCESS} ports are taken")
}
