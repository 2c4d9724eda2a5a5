//! Who gets the next request.
