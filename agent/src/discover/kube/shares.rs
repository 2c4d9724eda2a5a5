//! Which routes may have their regular expressions, when a namespace has written more than its share. Pure.
//!
//! Of a namespace's routes the older ones go first, so that every agent of the cluster decides alike, whatever it was told
//! first. One that is over the share is not in force, nor is its last good version, and it is read again when there is room.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use serde::Serialize;
use serde_json::Value;

use super::{
    attached::{Fault, ObjectName, Reach},
    objects,
    seen::Seen,
    twice,
    watch::Event,
};
use crate::{
    config::{self, RouteObject},
    model::{PatternShare, RouteKind},
};

/// A route as the server tells it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct RawRoute {
    #[serde(skip)]
    pub(super) kind: RouteKind,
    pub(super) metadata: objects::Meta,
    pub(super) spec: Value,
}

impl From<objects::HttpRoute> for RawRoute {
    fn from(objects::HttpRoute { metadata, spec }: objects::HttpRoute) -> Self {
        let kind = RouteKind::Http;
        Self { kind, metadata, spec }
    }
}

impl From<objects::GrpcRoute> for RawRoute {
    fn from(objects::GrpcRoute { metadata, spec }: objects::GrpcRoute) -> Self {
        let kind = RouteKind::Grpc;
        Self { kind, metadata, spec }
    }
}

/// A route with what was read of it; `Ok(None)` when it is none of the mesh's business.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Judged {
    pub(super) route: Arc<RawRoute>,
    pub(super) read: Result<Option<RouteObject>, Fault>,
}

impl Serialize for Judged {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.route.serialize(serializer)
    }
}

pub(super) type Told = (RouteKind, Event<Judged>);

#[derive(Debug)]
pub(super) struct Shares {
    /// Of each namespace.
    share: PatternShare,
    namespaces: HashMap<Arc<str>, BTreeMap<Age, Held>>,
    seen_http: Seen<ObjectName>,
    seen_grpc: Seen<ObjectName>,
}

/// The older first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Age {
    created: String,
    name: ObjectName,
    kind: RouteKind,
}

/// A route with regular expressions.
#[derive(Debug)]
struct Held {
    route: Arc<RawRoute>,
    standing: Standing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// In force, and takes so much.
    Granted(PatternShare),
    /// It needs more than this.
    Refused(PatternShare),
}

impl Shares {
    pub(super) fn new(share: PatternShare) -> Self {
        Self {
            share,
            namespaces: HashMap::new(),
            seen_http: Seen::default(),
            seen_grpc: Seen::default(),
        }
    }

    /// What there is to tell for an event: it, and routes of the same namespace that are otherwise for it.
    pub(super) fn take(&mut self, kind: RouteKind, event: Event<RawRoute>) -> Vec<Told> {
        match event {
            Event::Listing => {
                self.seen(kind).begin();
                vec![(kind, Event::Listing)]
            }
            Event::Absent => {
                self.seen(kind).absent();
                vec![(kind, Event::Absent)]
            }
            Event::Applied(route) => {
                let name = ObjectName::of(&route.metadata);
                self.seen(kind).see(name);
                self.apply(Arc::new(route))
            }
            Event::Gone(route) => {
                let name = ObjectName::of(&route.metadata);
                self.seen(kind).lose(&name);
                let gone = Judged {
                    route: Arc::new(route),
                    read: Ok(None),
                };
                let mut told = vec![(kind, Event::Gone(gone))];
                told.extend(self.lose(kind, &name));
                told
            }
            Event::Listed => {
                let known: Vec<ObjectName> = self
                    .held()
                    .filter(|age| age.kind == kind)
                    .map(|age| age.name.clone())
                    .collect();
                let gone = self.seen(kind).end(known.iter());
                let mut told = vec![(kind, Event::Listed)];
                for name in gone {
                    told.extend(self.lose(kind, &name));
                }
                told
            }
        }
    }

    fn seen(&mut self, kind: RouteKind) -> &mut Seen<ObjectName> {
        match kind {
            RouteKind::Http => &mut self.seen_http,
            RouteKind::Grpc => &mut self.seen_grpc,
        }
    }

    fn held(&self) -> impl Iterator<Item = &Age> {
        self.namespaces.values().flat_map(BTreeMap::keys)
    }

    fn apply(&mut self, route: Arc<RawRoute>) -> Vec<Told> {
        let age = Age::of(&route);
        let namespace = age.name.namespace.clone();
        let routes = self.namespaces.entry(namespace.clone()).or_default();
        let before = remove(routes, route.kind, &age.name);
        let left = self.share.without(granted(routes.range(..&age)));
        let read = read(&route, left);
        let standing = match &read {
            Ok(Some(read)) => {
                // Of one with a fault in part the last good version may be in force.
                let had = before
                    .map(|before| before.standing)
                    .filter(|_| read.dropped.is_some());
                Standing::Granted(match had {
                    Some(Standing::Granted(had)) => read.patterns.max(had),
                    _ => read.patterns,
                })
            }
            Ok(None) => Standing::Granted(PatternShare::default()),
            Err(fault) if fault.reach == Reach::OverShare => Standing::Refused(left),
            // Its last good version is in force.
            Err(_) => before.map_or(Standing::Granted(PatternShare::default()), |before| {
                before.standing
            }),
        };
        if standing != Standing::Granted(PatternShare::default()) {
            let route = route.clone();
            routes.insert(age.clone(), Held { route, standing });
        }
        let mut told = vec![(route.kind, Event::Applied(Judged { route, read }))];
        told.extend(self.settle(&namespace));
        told
    }

    fn lose(&mut self, kind: RouteKind, name: &ObjectName) -> Vec<Told> {
        let Some(routes) = self.namespaces.get_mut(&name.namespace) else {
            return Vec::new();
        };
        match remove(routes, kind, name) {
            Some(_) => self.settle(&name.namespace),
            None => Vec::new(),
        }
    }

    /// Looks through a namespace's routes, and refuses what is over its share now, or reads what may be within it.
    fn settle(&mut self, namespace: &Arc<str>) -> Vec<Told> {
        let Some(routes) = self.namespaces.get_mut(namespace) else {
            return Vec::new();
        };
        let mut told = Vec::new();
        let mut left = self.share;
        for held in routes.values_mut() {
            match held.standing {
                Standing::Granted(takes) if left.covers(takes) => left = left.without(takes),
                Standing::Granted(_) => {
                    held.standing = Standing::Refused(left);
                    let read = Err(over_share(&held.route));
                    let route = held.route.clone();
                    told.push((route.kind, Event::Applied(Judged { route, read })));
                }
                Standing::Refused(more_than) if more_than.covers(left) => {}
                Standing::Refused(_) => {
                    let read = read(&held.route, left);
                    held.standing = match &read {
                        Ok(read) => {
                            Standing::Granted(read.as_ref().map(|read| read.patterns).unwrap_or_default())
                        }
                        Err(_) => Standing::Refused(left),
                    };
                    if let Standing::Granted(takes) = held.standing {
                        left = left.without(takes);
                        let route = held.route.clone();
                        told.push((route.kind, Event::Applied(Judged { route, read })));
                    }
                }
            }
        }
        if routes.is_empty() {
            self.namespaces.remove(namespace);
        }
        told
    }
}

impl Age {
    fn of(route: &RawRoute) -> Self {
        Self {
            created: route.metadata.creation_timestamp.clone().unwrap_or_default(),
            name: ObjectName::of(&route.metadata),
            kind: route.kind,
        }
    }
}

/// Made anew under the same name, it has another age.
fn remove(routes: &mut BTreeMap<Age, Held>, kind: RouteKind, name: &ObjectName) -> Option<Held> {
    let age = routes
        .keys()
        .find(|age| age.kind == kind && age.name == *name)?
        .clone();
    routes.remove(&age)
}

fn granted<'h>(routes: impl Iterator<Item = (&'h Age, &'h Held)>) -> PatternShare {
    routes.fold(PatternShare::default(), |sum, (_, held)| match held.standing {
        Standing::Granted(takes) => sum.with(takes),
        Standing::Refused(_) => sum,
    })
}

fn read(route: &RawRoute, left: PatternShare) -> Result<Option<RouteObject>, Fault> {
    let RawRoute { kind, metadata, spec } = route;
    let created = metadata
        .creation_timestamp
        .as_deref()
        .and_then(seconds)
        .unwrap_or_default();
    let name = (&*metadata.namespace, &*metadata.name);
    let mut said = spec.clone();
    if let Some(annotation) = metadata.annotations.get(objects::IDEMPOTENT) {
        twice::say(annotation, &mut said);
    }
    config::route(*kind, name, created, said, left).map_err(|error| Fault {
        reach: match error {
            config::Error::OverShare => Reach::OverShare,
            _ => Reach::Whole,
        },
        message: error.one_line(),
        parents: config::service_parents(spec).cloned().collect(),
    })
}

fn over_share(route: &RawRoute) -> Fault {
    Fault {
        reach: Reach::OverShare,
        message: config::Error::OverShare.one_line(),
        parents: config::service_parents(&route.spec).cloned().collect(),
    }
}

/// Seconds since the epoch of an RFC 3339 time as the API writes it.
fn seconds(text: &str) -> Option<u64> {
    let time: k8s_openapi::jiff::Timestamp = text.parse().ok()?;
    u64::try_from(time.as_second()).ok()
}

#[cfg(test)]
mod tests;
