//! Large bodies, and readers that do not keep up.
