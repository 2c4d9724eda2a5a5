//! A timer that is polled with everything else that its task does, and seldom set.

use std::{
    pin::Pin,
    task::{Context, Poll, Waker},
};

use tokio::time::{Instant, Sleep};

/// Polled again while it waits it costs two comparisons, where a [`Sleep`] would note its waker once more.
#[derive(Debug, Default)]
pub(super) struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
    /// Who is woken. `None` when the timer has not been polled since it was set.
    waker: Option<Waker>,
}

impl Timer {
    pub(super) fn set(&mut self, at: Instant) {
        self.waker = None;
        match &mut self.sleep {
            Some(sleep) => sleep.as_mut().reset(at),
            None => self.sleep = Some(Box::pin(tokio::time::sleep_until(at))),
        }
    }

    /// Ready when it has never been set.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(sleep) = &mut self.sleep else {
            return Poll::Ready(());
        };
        let noted = self
            .waker
            .as_ref()
            .is_some_and(|waker| waker.will_wake(cx.waker()));
        if noted && !sleep.is_elapsed() {
            return Poll::Pending;
        }
        self.waker = Some(cx.waker().clone());
        sleep.as_mut().poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, time::Duration};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_wakes_whoever_polled_it_last() {
        let mut timer = Timer::default();
        let begun = Instant::now();
        timer.set(begun + Duration::from_secs(1));
        assert!(timer.poll(&mut Context::from_waker(Waker::noop())).is_pending());
        poll_fn(|cx| timer.poll(cx)).await;
        assert_eq!(begun.elapsed(), Duration::from_secs(1));
        timer.set(begun + Duration::from_secs(3));
        let mut polls = 0;
        poll_fn(|cx| {
            polls += 1;
            // Twice, as by a task that has other things to do.
            let _ = timer.poll(cx);
            timer.poll(cx)
        })
        .await;
        assert_eq!((begun.elapsed(), polls), (Duration::from_secs(3), 2));
    }
}
