//! Connections of those who ask, which others needed the place of.

use crate::admin::Displaced;

/// Connections that were ended because somebody else needed their place.
#[derive(Clone, Debug, Default)]
pub struct AllDisplaced {
    pub http: Displaced,
    pub probes: Displaced,
    pub unix: Displaced,
}

impl AllDisplaced {
    /// By window.
    pub fn counts(&self) -> Vec<(&'static str, u64)> {
        let counts = [
            ("http", &self.http),
            ("probes", &self.probes),
            ("socket", &self.unix),
        ];
        counts
            .map(|(window, displaced)| (window, displaced.count()))
            .into()
    }
}
