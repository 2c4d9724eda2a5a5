//! Faults by path, and what good routes become.
