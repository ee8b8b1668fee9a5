//! What an error of a watcher means.

use kube::runtime::watcher;

/// What an error of a watcher asks for.
#[derive(Debug)]
pub(super) enum Failure {
    /// A watch broke, which it may; it is resumed.
    Broken(String),
    /// What was asked for is history: a new list is on its way.
    Expired,
    /// A watch cannot be resumed from where it was.
    Stale,
    /// There is no such resource.
    NotServed,
    /// Lists are refused.
    ListRefused(String),
    /// Lists work, watches are refused.
    WatchRefused(String),
    /// No answer, or a list is answered by that something is wrong.
    Away(String),
    /// A watch cannot begin, says the API server.
    WatchDenied(String),
    /// A watch that had begun ended with an error, says the API server.
    WatchEnded(String),
    /// An event cannot be read, so it is not known what it was.
    Garbled(String),
}

// === impl Failure ===

impl Failure {
    pub(super) fn of(error: &watcher::Error) -> Self {
        use watcher::Error as E;
        match error {
            E::InitialListFailed(error) => match code(error) {
                403 => Self::ListRefused(text(error)),
                404 => Self::NotServed,
                410 => Self::Expired,
                _ => Self::Away(text(error)),
            },
            E::WatchStartFailed(error) => Self::of_watch(error),
            // A watch that is refused has begun, for the watcher, and fails with its first line.
            E::WatchFailed(error @ (kube::Error::Api(_) | kube::Error::SerdeError(_))) => {
                Self::of_watch(error)
            }
            E::WatchError(status) if status.code == 410 => Self::Expired,
            E::WatchError(status) => Self::WatchEnded(clip(&status.message)),
            E::WatchFailed(error) => Self::Broken(text(error)),
            E::NoResourceVersion => Self::Away(error.to_string()),
        }
    }

    fn of_watch(error: &kube::Error) -> Self {
        match code(error) {
            403 => Self::WatchRefused(text(error)),
            404 => Self::NotServed,
            410 => Self::Stale,
            _ if matches!(error, kube::Error::SerdeError(_)) => Self::Garbled(text(error)),
            // Too many requests: a list would be one more, and a large one.
            0 | 429 => Self::Away(text(error)),
            _ => Self::WatchDenied(text(error)),
        }
    }

    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::Broken(_) | Self::WatchEnded(_) => "broken",
            Self::Expired | Self::Stale => "expired",
            Self::NotServed => "not-served",
            Self::ListRefused(_) | Self::WatchRefused(_) => "forbidden",
            Self::Away(_) | Self::WatchDenied(_) => "unavailable",
            Self::Garbled(_) => "garbled",
        }
    }
}

fn code(error: &kube::Error) -> u16 {
    match error {
        kube::Error::Api(status) => status.code,
        _ => 0,
    }
}

/// One line that says what is wrong.
pub(super) fn text(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if status.message.is_empty() => {
            format!("status {} {}", status.code, clip(&status.reason))
        }
        kube::Error::Api(status) => format!("status {}: {}", status.code, clip(&status.message)),
        error => {
            let mut out = error.to_string();
            let mut cause = std::error::Error::source(error);
            while let Some(inner) = cause {
                let inner_text = inner.to_string();
                if !out.contains(&inner_text) {
                    out = format!("{out}: {inner_text}");
                }
                cause = inner.source();
            }
            clip(&out)
        }
    }
}

pub(super) fn clip(text: &str) -> String {
    const CHARS_MAX: usize = 300;
    text.chars()
        .take(CHARS_MAX)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}
