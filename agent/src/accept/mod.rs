//! (laid out; filled by its own commit)
