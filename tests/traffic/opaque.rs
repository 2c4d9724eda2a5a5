//! Bytes that are not HTTP.
