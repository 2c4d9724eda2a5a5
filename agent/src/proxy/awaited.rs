//! A service port of which nobody has asked yet who answers for it.

use std::rc::Rc;

use tokio::time::{Instant, timeout_at};

use super::{context::Worker, view::Upstream};
use crate::{model::Family, record::Source};

/// `upstream` when it is known who answers for it: at once where it is, else when discovery has found out. When that
/// takes longer than a caller should wait it is `upstream` all the same, which then stands for the service's own
/// address: whoever serves that without the mesh decides. Only the first to ask waits, and those that come meanwhile;
/// nobody does when discovery has no hope of finding out.
pub(super) async fn known(
    worker: &Worker,
    source: &Source,
    family: Option<Family>,
    upstream: Rc<Upstream>,
) -> Rc<Upstream> {
    if upstream.port.endpoints.is_known() {
        return upstream;
    }
    let deadline = upstream.waits_until.get().unwrap_or_else(|| {
        let now = Instant::now();
        let until = match worker.demand.wanted(&source.namespace, &upstream.port.name) {
            true => now + worker.endpoints_wait,
            false => now,
        };
        upstream.waits_until.set(Some(until));
        until
    });
    let mut published = worker.view.published();
    let mut newest = upstream;
    loop {
        published.borrow_and_update();
        let found = {
            let mut rng = worker.rng.borrow_mut();
            worker.view.follow(&mut rng);
            worker.view.upstream(source, &newest.port.name, family, &mut rng)
        };
        match found {
            Some(found) if found.port.endpoints.is_known() => return found,
            Some(found) => newest = found,
            // The service has gone meanwhile.
            None => return newest,
        }
        if !matches!(timeout_at(deadline, published.changed()).await, Ok(Ok(()))) {
            return newest;
        }
    }
}
