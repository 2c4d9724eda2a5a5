//! Programs of others in the kernel: looked for at the start and from time to time, and what is odd is said once.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::sync::watch;

use crate::{
    admin::proto,
    drain,
    intercept::{InterceptError, Order, OtherProgram, ProgramOrder},
};

/// Others come and go at any time, as pods do, and nothing tells of it.
const LOOK: Duration = Duration::from_secs(60);

pub struct Watcher {
    order: ProgramOrder,
    found: watch::Sender<Arc<Vec<OtherProgram>>>,
    said: BTreeSet<OtherProgram>,
}

/// For the windows.
#[derive(Clone, Debug)]
pub struct OrderBoard(watch::Receiver<Arc<Vec<OtherProgram>>>);

impl Watcher {
    /// Looks once before anything is redirected.
    pub fn start(order: ProgramOrder) -> Self {
        let mut watcher = Self {
            found: watch::Sender::default(),
            said: BTreeSet::new(),
            order,
        };
        let found = watcher.order.look();
        watcher.take(found);
        watcher
    }

    pub fn board(&self) -> OrderBoard {
        OrderBoard(self.found.subscribe())
    }

    /// Looks again until the drain begins.
    pub async fn run(mut self, drain: drain::Watch) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = drain.signaled() => return,
            }
            let order = self.order.clone();
            // It reads directories.
            if let Ok(found) = tokio::task::spawn_blocking(move || order.look()).await {
                self.take(found);
            }
        }
    }

    fn take(&mut self, found: Result<Vec<OtherProgram>, InterceptError>) {
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, "it is not known which programs run before the agent's");
                return;
            }
        };
        let odd = || found.iter().filter(|program| program.order.is_odd());
        for program in odd().filter(|program| !self.said.contains(program)) {
            let OtherProgram {
                order,
                hook,
                name,
                group,
                id,
            } = program;
            let meaning = match order {
                Order::Replaced => "another program no longer runs for pods, as the agent's replaces it",
                _ => "another program runs before the agent's and may change where connections go",
            };
            tracing::warn!(
                order = order.as_str(), hook = hook.as_str(), program = name, id, cgroup = %group.display(),
                "{meaning}"
            );
        }
        self.said = odd().cloned().collect();
        self.found.send_replace(Arc::new(found));
    }
}

impl OrderBoard {
    pub fn all(&self) -> Vec<proto::OtherProgram> {
        let found = self.0.borrow().clone();
        let shown = found.iter().map(|program| proto::OtherProgram {
            hook: program.hook.as_str().to_owned(),
            id: program.id,
            name: program.name.clone(),
            control_group: program.group.display().to_string(),
            order: program.order.as_str().to_owned(),
        });
        shown.collect()
    }

    /// (order, programs) of each order.
    pub fn counts(&self) -> Vec<(&'static str, u64)> {
        let found = self.0.borrow().clone();
        let count = |order: Order| {
            let there = found.iter().filter(|program| program.order == order).count();
            (order.as_str(), there as u64)
        };
        Order::ALL.map(count).into()
    }
}
