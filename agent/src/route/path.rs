//! A changed path.

use super::request::under;
use crate::model::PathChange;

/// The path that `change` makes of `path`; `None` when it stays as it is, also when `path` is not under
/// `matched_prefix`. Always begins with `/`. Query and fragment are not part of a path.
pub(super) fn changed(path: &str, change: &PathChange, matched_prefix: Option<&str>) -> Option<String> {
    // `*` of OPTIONS, and CONNECT's none.
    if !path.starts_with('/') {
        return None;
    }
    match change {
        PathChange::Full(new) => Some(rooted(new)),
        PathChange::Prefix(new) => {
            let rest = under(path, matched_prefix?)?;
            let new = new.trim_end_matches('/');
            Some(rooted(&format!("{new}{rest}")))
        }
    }
}

fn rooted(path: &str) -> String {
    if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("/{path}")
    }
}
