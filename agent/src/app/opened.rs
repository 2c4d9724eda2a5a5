//! Where the agent is asked: the addresses of scrapes and probes, and the command line's socket.

use std::sync::Arc;

use crate::{
    admin::{self, HttpWindow, Shows, UnixWindow, View},
    drain,
    inspect::AllDisplaced,
    options::RunArgs,
};

use super::bounds;

/// Everything that is listened at for who asks, bound and not yet served.
pub(super) struct Opened {
    http: HttpWindow,
    probes: HttpWindow,
    unix: UnixWindow,
    unix_bounds: admin::Bounds,
    displaced: AllDisplaced,
}

pub(super) async fn open(args: &RunArgs, displaced: &AllDisplaced) -> Result<Opened, admin::Error> {
    let (http, probes) = (bounds::http(&args.bounds), bounds::probes(&args.bounds));
    let (to_http, to_probes) = (displaced.http.clone(), displaced.probes.clone());
    Ok(Opened {
        http: HttpWindow::bind(args.http_address, Shows::Everything, http, to_http).await?,
        probes: HttpWindow::bind(args.bounds.probe_address, Shows::Probes, probes, to_probes).await?,
        unix: UnixWindow::bind(&args.admin_socket).await?,
        unix_bounds: http,
        displaced: displaced.clone(),
    })
}

impl Opened {
    /// Until the drain begins.
    pub(super) async fn serve(self, windows: Arc<dyn View>, drain: drain::Watch) {
        let displaced = self.displaced.unix;
        let unix = self
            .unix
            .serve(windows.clone(), self.unix_bounds, displaced, drain.clone());
        let http = self.http.serve(windows.clone(), drain.clone());
        tokio::join!(unix, http, self.probes.serve(windows, drain));
    }
}
