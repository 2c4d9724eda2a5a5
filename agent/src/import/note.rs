//! What is said of a place in the document.

use serde::Serialize;

/// What became of one place in the document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Note {
    /// `static_resources.clusters[0].lb_policy`.
    pub path: String,
    /// As it stands there, cut after some length.
    pub value: String,
    pub kind: NoteKind,
    /// Why, or what to do, to be read behind the kind.
    pub said: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum NoteKind {
    /// Nothing here does what the field does.
    NoEquivalent,
    /// Carried over, and behaves otherwise in some case.
    Differs,
    /// The document does not say something that is needed.
    Missing,
}

impl NoteKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoEquivalent => "no equivalent",
            Self::Differs => "differs",
            Self::Missing => "missing",
        }
    }
}
