//! Tests are added with the remedies.
