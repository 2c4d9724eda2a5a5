//! Against the specification's sentences.
