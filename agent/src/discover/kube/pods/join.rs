//! What the API says of this node's pods and what runs here → the pods as the publisher wants them. Pure: events in,
//! updates out.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tokio::time::Instant;

use super::{
    board::Shown,
    claimants::Claimants,
    decide::{Decision, decide},
    facts::{self, Facts, LABEL, MIRROR, NamespaceFacts, SERVICES, STATIC_UID, STRICT},
    inbound, interceptor, objects,
    saved::Saved,
    workload::TEMPLATE_HASH,
};
use crate::{
    discover::{
        kube::{demand::Use, seen::Seen, watch::Event},
        node::{Network, PodUid, Sandbox},
    },
    model::{Bystander, GroupId, Pod, PodAddresses, PodName, PodNetns, Standing, Update},
};

#[derive(Debug, Default)]
pub(super) struct Join {
    pods: BTreeMap<PodName, Entry>,
    claimants: Claimants,
    /// Those that have the label.
    namespaces: BTreeMap<Arc<str>, LabelledNamespace>,
    seen_pods: Seen<PodName>,
    seen_namespaces: Seen<Arc<str>>,
    /// What the publisher was told last.
    told: BTreeMap<PodName, Arc<Pod>>,
    /// The strict ones among those it was told, and among those that it will be told when their network is there.
    told_strict: BTreeMap<PodName, GroupId>,
    dirty: BTreeSet<PodName>,
    /// Pods that a file gives: those are the file's.
    taken: Arc<BTreeSet<PodName>>,
}

#[derive(Debug)]
struct LabelledNamespace {
    facts: NamespaceFacts,
    /// As they are saved.
    labels: BTreeMap<String, String>,
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
                let facts = NamespaceFacts::of(&object);
                let mut labels = object.metadata.labels;
                labels.retain(|name, _| [LABEL, STRICT].contains(&name.as_str()));
                self.set_namespace(name, facts.map(|facts| LabelledNamespace { facts, labels }));
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
        self.dirty.extend(self.claimants.of(uid).cloned());
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
        let namespaces = self.namespaces.iter().map(|(name, known)| objects::Namespace {
            metadata: objects::Meta {
                name: name.to_string(),
                labels: known.labels.clone(),
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
            let strict = entry.and_then(|entry| self.strict(entry, self.own(entry, &sandbox).ok()??));
            if strict != self.told_strict.get(&name).copied() {
                match strict {
                    Some(group) => drop(self.told_strict.insert(name.clone(), group)),
                    None => drop(self.told_strict.remove(&name)),
                }
                updates.push(Update::Strict(name.clone(), strict));
            }
            let pod = entry.and_then(|entry| entry.wanted(self.own(entry, &sandbox)).ok());
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
                        // Addresses come when it is enrolled already, and it is when it ends.
                        if !pod.is_enrolled_as(told) {
                            pod.since = Some(now.into_std());
                        }
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
    pub(super) fn declared(&self) -> BTreeSet<Use> {
        let pods = self.told.keys().filter_map(|name| self.pods.get(name));
        let uses = pods.flat_map(|Entry { facts, .. }| {
            let namespace = &facts.name.namespace;
            facts
                .services
                .iter()
                .map(|service| (service.clone(), namespace.clone()))
        });
        uses.collect()
    }

    /// What there is to say of pods, as of the last [`Self::changes`].
    pub(super) fn shown<'s>(&self, sandbox: impl Fn(&PodUid) -> Option<&'s Sandbox>) -> Shown {
        let mut shown = Shown::default();
        for (name, entry) in &self.pods {
            if self.taken.contains(name) {
                shown.notes.insert(name.clone(), OF_THE_FILE.to_owned());
                continue;
            }
            let of_namespace = self.namespaces.get(&name.namespace);
            let of_namespace = of_namespace.and_then(|known| known.facts.fault.as_ref());
            let faults: Vec<&str> = entry
                .facts
                .faults
                .iter()
                .chain(of_namespace)
                .map(String::as_str)
                .collect();
            let note = faults.join("; ");
            match entry.wanted(self.own(entry, &sandbox)) {
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
        if let Some(before) = &before {
            self.dirty.extend(self.claimants.withdraw(&before.facts));
        }
        self.dirty.extend(self.claimants.claim(&facts));
        // A pod of the same name and another UID is another pod.
        let before = before.filter(|before| before.facts.uid == facts.uid);
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
            self.dirty.extend(self.claimants.withdraw(&entry.facts));
            self.dirty.insert(name);
        }
    }

    fn set_namespace(&mut self, name: Arc<str>, known: Option<LabelledNamespace>) {
        let facts = known.as_ref().map(|known| known.facts.clone());
        let before = match known {
            Some(known) => self.namespaces.insert(name.clone(), known),
            None => self.namespaces.remove(&name),
        };
        if before.map(|before| before.facts) != facts {
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
        let namespace = self.namespaces.get(&name.namespace);
        let decision = decide(namespace.and_then(|known| known.facts.mesh), &entry.facts);
        if decision == Decision::Enrol && matches!(entry.decision, Some(Decision::LeaveAlone(_))) {
            entry.turned = Some(now);
        }
        entry.decision = Some(decision);
    }

    /// What of this machine is the pod's, or why nothing is.
    fn own<'s>(
        &self,
        entry: &Entry,
        sandbox: &impl Fn(&PodUid) -> Option<&'s Sandbox>,
    ) -> Result<Option<&'s Sandbox>, String> {
        self.claimants.judge(&entry.facts)?;
        Ok(sandbox(&entry.facts.uid))
    }

    /// The control group of a pod that may dial nothing until it is enrolled.
    fn strict(&self, entry: &Entry, sandbox: &Sandbox) -> Option<GroupId> {
        let namespace = self.namespaces.get(&entry.facts.name.namespace)?;
        let applies = namespace.facts.strict && entry.decision == Some(Decision::Enrol);
        applies.then_some(sandbox.group)
    }
}

/// Without what nobody here reads: annotations may be long.
fn trimmed(mut pod: objects::Pod) -> objects::Pod {
    let meta = &mut pod.metadata;
    meta.resource_version.clear();
    let wanted = [inbound::ANNOTATION, SERVICES, STATIC_UID, MIRROR];
    meta.annotations
        .retain(|name, _| wanted.contains(&name.as_str()) || interceptor::is_read(name));
    meta.labels
        .retain(|name, _| [LABEL, TEMPLATE_HASH].contains(&name.as_str()));
    pod
}

impl Entry {
    /// The pod as it is to be enrolled, or why it is not.
    fn wanted(&self, sandbox: Result<Option<&Sandbox>, String>) -> Result<Pod, (Standing, String)> {
        let waiting = |reason: &str| Err((Standing::Waiting, reason.to_owned()));
        match &self.decision {
            None => return waiting("the labels of its namespace are not known yet"),
            Some(Decision::LeaveAlone(reason)) => return Err((Standing::LeftAlone, reason.clone())),
            Some(Decision::Enrol) => {}
        }
        let sandbox = sandbox.map_err(|reason| (Standing::LeftAlone, reason))?;
        let (netns, since) = match sandbox.map(|sandbox| &sandbox.network) {
            None | Some(Network::NoProcess) => return waiting("no process of it runs yet"),
            Some(Network::Node { .. }) => return waiting("its processes are in the node's network so far"),
            Some(Network::Foreign { .. }) => {
                return waiting("its first process is in a network that belongs to another user namespace");
            }
            Some(Network::Own { netns, since }) => (netns, since),
        };
        let since = self.turned.max(*since);
        Ok(Pod {
            name: self.facts.name.clone(),
            workload: self.facts.workload.clone(),
            netns: PodNetns::Open(netns.clone()),
            addresses: PodAddresses::Given(self.facts.addresses.clone()),
            inbound: self.facts.inbound.clone(),
            is_ending: self.facts.is_ending,
            since: since.map(Instant::into_std),
        })
    }
}

#[cfg(test)]
mod tests;
