//! What happened in the worlds.

#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) answered: u64,
    pub(super) failed: u64,
    /// Without having been sent.
    pub(super) refused: u64,
    /// Given up by their callers.
    pub(super) cancelled: u64,
    pub(super) retries: u64,
    pub(super) ejections: u64,
    /// Steps after which some waited for a connection.
    pub(super) pending: u64,
    /// Of the configuration.
    pub(super) changes: u64,
}

impl Seen {
    pub(super) fn add(&mut self, other: &Self) {
        self.answered += other.answered;
        self.failed += other.failed;
        self.refused += other.refused;
        self.cancelled += other.cancelled;
        self.retries += other.retries;
        self.ejections += other.ejections;
        self.pending += other.pending;
        self.changes += other.changes;
    }

    /// Enough of everything to have shown something.
    pub(super) fn assert_varied(&self) {
        let Self {
            answered,
            failed,
            refused,
            cancelled,
            retries,
            ejections,
            pending,
            changes,
        } = self;
        for (what, count) in [
            ("answered", answered),
            ("failed", failed),
            ("refused", refused),
            ("cancelled", cancelled),
            ("retries", retries),
            ("ejections", ejections),
            ("pending", pending),
            ("changes", changes),
        ] {
            assert!(*count > 200, "{what}: {count} in all");
        }
    }
}
