//! What flags allow, in the words of the rooms.

use crate::{
    admin,
    options::BoundArgs,
    record::{LogBounds, SeriesBounds},
};

pub(super) fn series(args: &BoundArgs) -> SeriesBounds {
    SeriesBounds {
        scopes: size(args.max_series),
        scopes_of_workload: size(args.max_series_per_workload),
        outcomes: size(args.max_outcomes),
        outcomes_of_workload: size(args.max_outcomes_per_workload),
    }
}

pub(super) fn log(args: &BoundArgs) -> LogBounds {
    LogBounds {
        queue: size(args.access_log_queue),
        field: size(args.access_log_field),
    }
}

pub(super) fn http(args: &BoundArgs) -> admin::Bounds {
    admin::Bounds {
        all: size(args.http_connections),
        of_peer: size(args.http_connections_per_peer),
    }
}

/// Whoever asks at an address of the node's own is the kubelet, or root: there are no shares.
pub(super) fn probes(args: &BoundArgs) -> admin::Bounds {
    admin::Bounds {
        all: size(args.http_connections),
        of_peer: size(args.http_connections),
    }
}

fn size(n: u32) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}
