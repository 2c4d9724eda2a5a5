//! How long a connection may serve: by requests and by age.

use std::cell::Cell;

use tokio::time::Instant;

use crate::model::ConnectionPool;

/// Counts what one connection has served.
#[derive(Debug)]
pub(super) struct Life {
    /// Requests that it may still take; `None`: any number.
    left: Cell<Option<u32>>,
    ends: Option<Instant>,
}

impl Life {
    /// `random` in 0..1 shortens the age by up to a tenth, so that connections opened together do not end together.
    pub(super) fn new(settings: &ConnectionPool, now: Instant, random: f64) -> Self {
        let ends = settings
            .max_connection_lifetime
            .map(|age| now + age.mul_f64(1.0 - random / 10.0));
        Self {
            left: Cell::new(settings.max_requests_per_connection),
            ends,
        }
    }

    /// One more request begins.
    pub(super) fn serve(&self) {
        self.left.set(self.left.get().map(|left| left.saturating_sub(1)));
    }

    /// Whether another request may begin.
    pub(super) fn goes_on(&self, now: Instant) -> bool {
        self.left.get() != Some(0) && self.ends.is_none_or(|ends| now < ends)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_connection_ends_by_requests_or_by_age() {
        let now = Instant::now();
        let settings = ConnectionPool {
            max_requests_per_connection: Some(2),
            max_connection_lifetime: Some(Duration::from_secs(100)),
            ..ConnectionPool::default()
        };
        let life = Life::new(&settings, now, 0.5);
        assert!(life.goes_on(now + Duration::from_secs(94)));
        assert!(
            !life.goes_on(now + Duration::from_secs(95)),
            "a twentieth is taken off at random"
        );
        life.serve();
        assert!(life.goes_on(now));
        life.serve();
        assert!(!life.goes_on(now));
        let endless = Life::new(&ConnectionPool::default(), now, 0.0);
        assert!(endless.goes_on(now + Duration::from_secs(1 << 30)));
    }
}
