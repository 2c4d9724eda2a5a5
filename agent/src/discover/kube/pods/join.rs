//! What the API says of this node's pods and what runs here → the pods as the publisher wants them. Pure: events in,
//! updates out.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use tokio::time::Instant;

use super::{
    board::Shown,
    decide::{Decision, decide},
    facts::{self, Facts, LABEL, Mesh, SERVICES, STATIC_UID},
    inbound, objects,
    saved::Saved,
    workload::TEMPLATE_HASH,
};
use crate::{
    discover::{
        kube::{seen::Seen, watch::Event},
        node::{PodUid, Sandbox},
    },
    model::{Bystander, Pod, PodName, PodNetns, ServiceName, Standing, Update},
};

#[derive(Debug, Default)]
pub(super) struct Join {
    pods: BTreeMap<PodName, Entry>,
    by_uid: HashMap<PodUid, PodName>,
    /// Those that have the label.
    namespaces: BTreeMap<Arc<str>, Mesh>,
    seen_pods: Seen<PodName>,
    seen_namespaces: Seen<Arc<str>>,
    /// What the publisher was told last.
    told: BTreeMap<PodName, Arc<Pod>>,
    dirty: BTreeSet<PodName>,
    /// Pods that a file gives: those are the file's.
    taken: Arc<BTreeSet<PodName>>,
}

#[derive(Debug)]
struct Entry {
    /// What of the object is worth saving.
    object: objects::Pod,
    facts: Facts,
    /// What was decided last; nothing yet while its namespace is not known.
    decision: Option<Decision>,
    /// When the decision became one to enrol it that had been another.
    turned: Option<Instant>,
}

/// Of a pod that both name.
const OF_THE_FILE: &str = "as the file says; what the API says of it does not count";

impl Join {
    pub(super) fn pod(&mut self, event: Event<objects::Pod>) {
        match event {
            Event::Listing => self.seen_pods.begin(),
            Event::Absent => self.seen_pods.absent(),
            Event::Applied(object) => {
                let facts = Facts::of(&object);
                self.seen_pods.see(facts.name.clone());
                self.set(facts, trimmed(object));
            }
            Event::Gone(object) => {
                let name = facts::name(&object.metadata);
                self.seen_pods.lose(&name);
                self.remove(name);
            }
            Event::Listed => {
                for name in self.seen_pods.end(self.pods.keys()) {
                    self.remove(name);
                }
            }
        }
    }

    /// A namespace that has the label, or has it no more.
    pub(super) fn namespace(&mut self, event: Event<objects::Namespace>) {
        match event {
            Event::Listing => self.seen_namespaces.begin(),
            Event::Absent => self.seen_namespaces.absent(),
            Event::Applied(object) => {
                let name: Arc<str> = object.metadata.name.as_str().into();
                self.seen_namespaces.see(name.clone());
                let label = object.metadata.labels.get(LABEL);
                let mesh = label.and_then(|value| Mesh::parse(value).ok());
                self.set_namespace(name, mesh);
            }
            Event::Gone(object) => {
                let name: Arc<str> = object.metadata.name.as_str().into();
                self.seen_namespaces.lose(&name);
                self.set_namespace(name, None);
            }
            Event::Listed => {
                for name in self.seen_namespaces.end(self.namespaces.keys()) {
                    self.set_namespace(name, None);
                }
                // Pods that waited for this.
                self.dirty.extend(self.pods.keys().cloned());
            }
        }
    }

    /// The pod's processes or network have changed.
    pub(super) fn processes(&mut self, uid: &PodUid) {
        self.dirty.extend(self.by_uid.get(uid).cloned());
    }

    /// Pods that a file gives from now on.
    pub(super) fn taken(&mut self, by_file: Arc<BTreeSet<PodName>>) {
        self.dirty
            .extend(self.taken.symmetric_difference(&by_file).cloned());
        // What a file has taken is not this source's to withdraw.
        self.told.retain(|name, _| !by_file.contains(name));
        self.taken = by_file;
    }

    /// Takes what an earlier agent knew, until the API server tells what there is.
    pub(super) fn restore(&mut self, saved: Saved) {
        self.namespace(Event::Listing);
        saved
            .namespaces
            .into_iter()
            .for_each(|it| self.namespace(Event::Applied(it)));
        self.namespace(Event::Listed);
        self.pod(Event::Listing);
        saved.pods.into_iter().for_each(|it| self.pod(Event::Applied(it)));
        self.pod(Event::Listed);
    }

    pub(super) fn to_save(&self) -> Saved {
        let namespaces = self.namespaces.iter().map(|(name, mesh)| objects::Namespace {
            metadata: objects::Meta {
                name: name.to_string(),
                labels: BTreeMap::from([(LABEL.to_owned(), mesh.as_str().to_owned())]),
                ..objects::Meta::default()
            },
        });
        let pods = self.pods.values().map(|entry| entry.object.clone());
        Saved {
            pods: pods.collect(),
            namespaces: namespaces.collect(),
        }
    }

    /// Whether everything has been listed.
    pub(super) fn is_whole(&self) -> bool {
        self.seen_pods.is_answered() && self.seen_namespaces.is_answered()
    }

    /// What has changed since the last call.
    pub(super) fn changes<'s>(
        &mut self,
        sandbox: impl Fn(&PodUid) -> Option<&'s Sandbox>,
        now: Instant,
    ) -> Vec<Update> {
        let mut updates = Vec::new();
        for name in std::mem::take(&mut self.dirty) {
            self.decide(&name, now);
            let entry = self.pods.get(&name).filter(|_| !self.taken.contains(&name));
            let pod = entry.and_then(|entry| entry.wanted(sandbox(&entry.facts.uid)).ok());
            match (pod, self.told.get(&name)) {
                (None, None) => {}
                (None, Some(_)) => {
                    self.told.remove(&name);
                    updates.push(Update::PodGone(name));
                }
                (Some(mut pod), told) => {
                    if let Some(told) = told
                        && told.netns == pod.netns
                    {
                        pod.since = told.since;
                        if pod == **told {
                            continue;
                        }
                        pod.since = Some(now.into_std());
                    }
                    let pod = Arc::new(pod);
                    self.told.insert(name, pod.clone());
                    updates.push(Update::Pod(pod));
                }
            }
        }
        updates
    }

    /// Services that pods in the mesh say they dial.
    pub(super) fn declared(&self) -> BTreeSet<ServiceName> {
        let pods = self.told.keys().filter_map(|name| self.pods.get(name));
        pods.flat_map(|entry| entry.facts.services.iter().cloned())
            .collect()
    }

    /// What there is to say of pods, as of the last [`Self::changes`].
    pub(super) fn shown<'s>(&self, sandbox: impl Fn(&PodUid) -> Option<&'s Sandbox>) -> Shown {
        let mut shown = Shown::default();
        for (name, entry) in &self.pods {
            if self.taken.contains(name) {
                shown.notes.insert(name.clone(), OF_THE_FILE.to_owned());
                continue;
            }
            let note = entry.facts.faults.join("; ");
            match entry.wanted(sandbox(&entry.facts.uid)) {
                Ok(_) if note.is_empty() => {}
                Ok(_) => drop(shown.notes.insert(name.clone(), note)),
                Err((standing, reason)) => shown.bystanders.push(Bystander {
                    name: name.clone(),
                    workload: entry.facts.workload.clone(),
                    standing,
                    reason: match note.is_empty() {
                        true => reason,
                        false => format!("{reason}; {note}"),
                    },
                }),
            }
        }
        shown
    }

    fn set(&mut self, facts: Facts, object: objects::Pod) {
        let name = facts.name.clone();
        let before = self.pods.remove(&name);
        if before.as_ref().is_some_and(|before| before.facts != facts) || before.is_none() {
            self.dirty.insert(name.clone());
        }
        // A pod of the same name and another UID is another pod.
        let before = before.filter(|before| {
            let same = before.facts.uid == facts.uid;
            if !same {
                self.by_uid.remove(&before.facts.uid);
            }
            same
        });
        self.by_uid.insert(facts.uid.clone(), name.clone());
        let (decision, turned) = before.map_or((None, None), |before| (before.decision, before.turned));
        let entry = Entry {
            object,
            facts,
            decision,
            turned,
        };
        self.pods.insert(name, entry);
    }

    fn remove(&mut self, name: PodName) {
        if let Some(entry) = self.pods.remove(&name) {
            self.by_uid.remove(&entry.facts.uid);
            self.dirty.insert(name);
        }
    }

    fn set_namespace(&mut self, name: Arc<str>, mesh: Option<Mesh>) {
        let before = match mesh {
            Some(mesh) => self.namespaces.insert(name.clone(), mesh),
            None => self.namespaces.remove(&name),
        };
        if before != mesh {
            let pods = self.pods.keys().filter(|pod| pod.namespace == name);
            self.dirty.extend(pods.cloned());
        }
    }

    fn decide(&mut self, name: &PodName, now: Instant) {
        let Some(entry) = self.pods.get_mut(name) else {
            return;
        };
        if entry.facts.mesh.is_none() && !self.seen_namespaces.is_answered() {
            return;
        }
        let namespace = self.namespaces.get(&name.namespace).copied();
        let decision = decide(namespace, &entry.facts);
        if decision == Decision::Enrol && matches!(entry.decision, Some(Decision::LeaveAlone(_))) {
            entry.turned = Some(now);
        }
        entry.decision = Some(decision);
    }
}

/// Without what nobody here reads: annotations may be long.
fn trimmed(mut pod: objects::Pod) -> objects::Pod {
    let meta = &mut pod.metadata;
    meta.resource_version.clear();
    let wanted = [inbound::ANNOTATION, SERVICES, STATIC_UID];
    meta.annotations.retain(|name, _| wanted.contains(&name.as_str()));
    meta.labels
        .retain(|name, _| [LABEL, TEMPLATE_HASH].contains(&name.as_str()));
    pod
}

impl Entry {
    /// The pod as it is to be enrolled, or why it is not.
    fn wanted(&self, sandbox: Option<&Sandbox>) -> Result<Pod, (Standing, String)> {
        let waiting = |reason: &str| Err((Standing::Waiting, reason.to_owned()));
        match &self.decision {
            None => return waiting("the labels of its namespace are not known yet"),
            Some(Decision::LeaveAlone(reason)) => return Err((Standing::LeftAlone, reason.clone())),
            Some(Decision::Enrol) => {}
        }
        let Some(sandbox) = sandbox else {
            return waiting("no process of it runs yet");
        };
        let Some(netns) = &sandbox.netns else {
            return waiting("its processes are in the node's network so far");
        };
        let since = self.turned.max(sandbox.since);
        Ok(Pod {
            name: self.facts.name.clone(),
            workload: self.facts.workload.clone(),
            netns: PodNetns::Open(netns.clone()),
            inbound: self.facts.inbound.clone(),
            since: since.map(Instant::into_std),
        })
    }
}

#[cfg(test)]
mod tests;
