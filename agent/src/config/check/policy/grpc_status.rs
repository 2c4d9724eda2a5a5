//! Names of gRPC status codes.

use super::section::Bad;

/// <https://grpc.github.io/grpc/core/md_doc_statuscodes.html>, in order of their numbers from 0 on.
const NAMES: [&str; 17] = [
    "ok",
    "cancelled",
    "unknown",
    "invalidArgument",
    "deadlineExceeded",
    "notFound",
    "alreadyExists",
    "permissionDenied",
    "resourceExhausted",
    "failedPrecondition",
    "aborted",
    "outOfRange",
    "unimplemented",
    "internal",
    "unavailable",
    "dataLoss",
    "unauthenticated",
];

/// The code of a failure by its name: `deadlineExceeded`, or `DEADLINE_EXCEEDED` as gRPC writes it.
pub(super) fn by_name(text: &str) -> Option<u16> {
    let plain: String = text.chars().filter(|c| *c != '_').collect();
    (1u16..)
        .zip(&NAMES[1..])
        .find(|(_, name)| name.eq_ignore_ascii_case(&plain))
        .map(|(code, _)| code)
}

/// The code of a failure by name or number.
pub(super) fn parse(text: &str) -> Result<u16, Bad> {
    let by_number = || text.parse().ok().filter(|code| (1..=16).contains(code));
    by_name(text).or_else(by_number).ok_or_else(|| {
        let remedy = format!("use 1 to 16 or one of {}", NAMES[1..].join(", "));
        Bad::new(text, "is not the gRPC status of a failure", remedy)
    })
}
