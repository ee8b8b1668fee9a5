//! A future that is looked at only when it was woken.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, Stream as _};

/// A future that seldom ends, for a branch of `select!`.
///
/// `select!` looks at all its branches whenever one is woken, and what waits for a token registers
/// with it anew, under the lock of everybody who waits for it. With a thousand streams that was
/// 7 % of what a push cost. This one is looked at only when it was woken itself.
pub(crate) struct Rarely<T>(FuturesUnordered<BoxFuture<'static, T>>);

impl<T> Rarely<T> {
    pub(crate) fn new(future: impl Future<Output = T> + Send + 'static) -> Self {
        Self(
            [Box::pin(future) as BoxFuture<'static, T>]
                .into_iter()
                .collect(),
        )
    }
}

/// Never ready again once it was.
impl<T> Future for Rarely<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        match Pin::new(&mut self.0).poll_next(cx) {
            Poll::Ready(Some(output)) => Poll::Ready(output),
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[tokio::test]
    async fn others_that_are_woken_do_not_make_it_look() {
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        let looks = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&looks);
        let mut ended = Box::pin(ended);
        let mut rarely = Rarely::new(std::future::poll_fn(move |cx| {
            counted.fetch_add(1, Ordering::Relaxed);
            ended.as_mut().poll(cx)
        }));
        for _ in 0..100 {
            tokio::select! {
                biased;
                _ = &mut rarely => panic!("nothing ended"),
                () = tokio::task::yield_now() => {}
            }
        }
        assert_eq!(looks.load(Ordering::Relaxed), 1);
        assert_eq!(end.send(()), Ok(()));
        assert_eq!((&mut rarely).await, Ok(()));
        assert_eq!(looks.load(Ordering::Relaxed), 2);
    }
}
