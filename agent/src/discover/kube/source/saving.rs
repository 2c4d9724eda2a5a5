//! What is known is kept for the next agent, and what the last one knew is taken up.

use std::sync::Arc;

use tokio::time::Instant;

use super::Running;
use crate::discover::kube::{saved_file, shares, state::Saved};

impl Running {
    /// Goes on with what an earlier agent knew.
    pub(super) fn restore(&mut self, mut saved: Saved, routes: Vec<shares::Told>) {
        if self.source.options.zone.is_none() {
            self.world.set_zone(saved.zone.take().map(Arc::from));
        }
        let watched = saved.restore(&mut self.world, routes);
        tracing::info!(
            services = self.world.services.len(),
            "state of an earlier agent in force"
        );
        let namespaces = watched
            .iter()
            .map(|service| (service.clone(), service.namespace.clone()));
        self.in_use.touch(namespaces, Instant::now());
        self.show();
    }

    /// Writes what has changed since the last time, on a thread of its own.
    pub(super) fn save(&mut self) {
        let Some(path) = self.source.options.state_file.clone() else {
            return;
        };
        let busy = self.saving.as_ref().is_some_and(|saving| !saving.is_finished());
        if !self.unsaved || busy || !self.world.is_whole() {
            return;
        }
        self.unsaved = false;
        let zone = self.world.zone().map(ToString::to_string);
        let state = Saved::of(&self.world, zone);
        self.saving = Some(tokio::task::spawn_blocking(move || {
            if let Err(error) = saved_file::write(&path, &state) {
                tracing::warn!(path = %path.display(), %error, "state not saved");
            }
        }));
    }
}
