//! The rows, by what they are about.

mod answers;
mod bounds;
mod checks;
mod ejections;
mod lost;
mod timeouts;

use std::time::Duration;

use crate::row::Row;

/// Headings of the page, and their rows.
pub(crate) fn all() -> Vec<(&'static str, Vec<Row>)> {
    vec![
        ("Answers that are tried again", answers::rows()),
        ("Connections and streams that are lost", lost::rows()),
        ("Timeouts", timeouts::rows()),
        ("Ejection", ejections::rows()),
        ("Bounds", bounds::rows()),
        ("Active health checks", checks::rows()),
    ]
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}
