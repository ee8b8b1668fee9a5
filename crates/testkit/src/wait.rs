//! Waiting with a deadline.

use std::time::Duration;

use tokio::time::Instant;

/// Pause between two looks.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

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

/// A TCP port on 127.0.0.1 that is free now. Another process may take it first; bind
/// to port 0 where that is possible.
pub fn free_port() -> anyhow::Result<u16> {
    Ok(std::net::TcpListener::bind(("127.0.0.1", 0))?
        .local_addr()?
        .port())
}
