//! Wake-ups between those who commit and those who follow, gathered until somebody takes them.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

/// Partitions that wait for somebody. However often one is put, it waits once, so the basket is
/// bounded by the number of partitions.
#[derive(Debug, Default)]
pub struct Basket {
    waiting: Mutex<Waiting>,
}

/// Invariant: whoever waits has left a waker, or there is something to take.
#[derive(Debug, Default)]
struct Waiting {
    partitions: BTreeSet<u16>,
    is_any: bool,
    /// One takes at a time; of several the last is woken.
    taker: Option<Waker>,
}

impl Basket {
    /// Puts partitions in.
    pub fn put(&self, partitions: impl IntoIterator<Item = u16>) {
        let mut waiting = self.lock();
        waiting.partitions.extend(partitions);
        waiting.wake();
    }

    /// Says that it may be any.
    pub fn put_any(&self) {
        let mut waiting = self.lock();
        waiting.is_any = true;
        waiting.wake();
    }

    /// Waits until there are some and takes them all; none of them: any.
    pub async fn take(&self) -> Option<BTreeSet<u16>> {
        poll_fn(|context| {
            let mut waiting = self.lock();
            let partitions = std::mem::take(&mut waiting.partitions);
            if std::mem::take(&mut waiting.is_any) {
                return Poll::Ready(None);
            }
            if !partitions.is_empty() {
                return Poll::Ready(Some(partitions));
            }
            waiting.taker = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn wake(&mut self) {
        if let Some(taker) = self.taker.take() {
            taker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_waits_is_taken_once() {
        let basket = Basket::default();
        basket.put([3]);
        basket.put([1, 3]);
        assert_eq!(basket.take().await, Some(BTreeSet::from([1, 3])));
        basket.put([2]);
        basket.put_any();
        assert_eq!(basket.take().await, None);
        basket.put([4]);
        assert_eq!(basket.take().await, Some(BTreeSet::from([4])));
    }

    #[tokio::test]
    async fn whoever_waits_is_woken() {
        let basket = Basket::default();
        let (taken, ()) = tokio::join!(basket.take(), async {
            tokio::task::yield_now().await;
            basket.put([7]);
        });
        assert_eq!(taken, Some(BTreeSet::from([7])));
    }
}
