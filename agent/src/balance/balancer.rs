//! The choice of an endpoint, for one worker and one (source workload, service port).

use std::{
    net::SocketAddr,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Acquire, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use super::{
    EndpointLoad, Standing,
    group::{Group, Moment},
    rotation::Rotation,
    table::{Table, TableMaker},
    zones::{self, Zone},
};
use crate::model::{Algorithm, EndpointState, LoadBalancer, ZoneAware};

/// Chooses among the endpoints of one service port, for one worker.
///
/// Each worker balances by itself over all endpoints: they share who is ejected and how many requests an endpoint
/// has, and nothing else; a sum of fair choices is fair.
#[derive(Debug)]
pub struct Balancer {
    settings: LoadBalancer,
    own_zone: Option<Arc<str>>,
    endpoints: Vec<Rc<EndpointLoad>>,
    /// Where keys belong, over all endpoints, whatever their standing: who is out is passed over, and so only its
    /// keys move.
    table: Option<Table>,
    /// Counts the changes of standing, and how many of them are in `rotation`.
    epoch: Option<Arc<AtomicU64>>,
    seen: u64,
    rotation: Rotation,
    /// The endpoints that get requests: by zone if zones matter, with the parts of the traffic.
    groups: Vec<Group>,
    parts: Vec<f64>,
    /// What the groups were made from: while that stays, so do they, and with them whose turn it is.
    made_of: Option<Ingredients>,
}

/// All that the division into groups depends on.
#[derive(Debug, PartialEq)]
struct Ingredients {
    algorithm: Algorithm,
    zone_aware: ZoneAware,
    own_zone: Option<Arc<str>>,
    panic: bool,
    endpoints: Vec<Ingredient>,
}

/// One endpoint of them.
#[derive(Debug, PartialEq)]
struct Ingredient {
    address: SocketAddr,
    weight: u32,
    zone: Option<Arc<str>>,
    terminating: bool,
    takes: bool,
}

/// An endpoint as a choice sees it, for those who ask why.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    pub address: SocketAddr,
    pub weight: u32,
    pub zone: Option<Arc<str>>,
    pub state: EndpointState,
    pub standing: Standing,
    /// Why it was ejected, as long as it is out.
    pub reason: Option<super::EjectReason>,
    /// Ejections in a row.
    pub times_ejected: u32,
    /// Whether new requests may go there. In panic also to those that are out.
    pub takes: bool,
    /// Fewer endpoints than the threshold are usable, so that all are used.
    pub panic: bool,
    /// The part of its share that slow start leaves it, up to 1.
    pub ramp: f64,
    /// Of all workers.
    pub in_flight: u32,
    /// As this worker sees it; `None` before the first answer.
    pub latency: Option<Duration>,
}

impl Balancer {
    /// `endpoints` are of one service port, their hosts of one [`super::Outliers`]. `own_zone` is the node's.
    pub fn new(
        settings: &LoadBalancer,
        endpoints: Vec<Rc<EndpointLoad>>,
        own_zone: Option<&Arc<str>>,
        tables: &dyn TableMaker,
        rng: &mut fastrand::Rng,
    ) -> Self {
        let mut this = Self {
            settings: settings.clone(),
            own_zone: None,
            endpoints: Vec::new(),
            table: None,
            epoch: None,
            seen: 0,
            rotation: Rotation::default(),
            groups: Vec::new(),
            parts: Vec::new(),
            made_of: None,
        };
        this.follow(settings, endpoints, own_zone, tables, rng);
        this
    }

    /// Takes over another policy, other endpoints, what [`EndpointLoad::follow`] changed of the same, or another
    /// zone. What none of that touches goes on: the table of keys, and whose turn it is.
    pub fn follow(
        &mut self,
        settings: &LoadBalancer,
        endpoints: Vec<Rc<EndpointLoad>>,
        own_zone: Option<&Arc<str>>,
        tables: &dyn TableMaker,
        rng: &mut fastrand::Rng,
    ) {
        self.own_zone = own_zone.cloned();
        self.table = Table::follow(self.table.take(), &settings.algorithm, &endpoints, tables);
        self.settings = settings.clone();
        self.epoch = endpoints.first().map(|e| e.host().epoch().clone());
        self.endpoints = endpoints;
        self.rotate(rng);
    }

    pub fn endpoints(&self) -> &[Rc<EndpointLoad>] {
        &self.endpoints
    }

    /// The endpoint for a new attempt; `None` when there is none, or none outside `tried` with room.
    ///
    /// `key` is [`super::hash_key`] of what the policy's `HashKey` names, `None` when the request has none: then it
    /// goes anywhere. `tried` are addresses that failed this request. The request should begin
    /// ([`EndpointLoad::try_begin`]) before anything is waited for: it may be the one trial of its endpoint.
    pub fn choose(
        &mut self,
        key: Option<u64>,
        tried: &[SocketAddr],
        now: Instant,
        rng: &mut fastrand::Rng,
    ) -> Option<Rc<EndpointLoad>> {
        if (self.epoch.as_ref()).is_some_and(|epoch| epoch.load(Relaxed) != self.seen) {
            self.rotate(rng);
        }
        if let Some(table) = &mut self.table {
            table.adopt();
        }
        let keyed = key.zip(self.table.as_ref());
        // A first attempt only: who has failed once should not be sent to one that probably fails.
        if tried.is_empty() && !self.rotation.trials.is_empty() {
            let belongs = |i| keyed.is_none_or(|(key, table)| table.owner(key) == Some(i));
            let trial =
                (self.rotation.trials.iter()).find(|i| belongs(**i) && try_out(&self.endpoints[**i], now));
            if let Some(i) = trial {
                return Some(self.endpoints[*i].clone());
            }
        }
        let Self {
            endpoints,
            rotation,
            groups,
            ..
        } = self;
        let usable = |i: usize| {
            let endpoint = &endpoints[i];
            rotation.takes[i] && !tried.contains(&endpoint.address()) && !endpoint.is_full()
        };
        if let Some((key, table)) = key.zip(self.table.as_ref()) {
            let owner = table.owner_of(key, usable)?;
            return endpoints.get(owner).cloned();
        }
        let moment = Moment {
            slow_start: self.settings.slow_start,
            now,
        };
        let choose =
            |group: &mut Group, rng: &mut fastrand::Rng| group.choose(endpoints, usable, moment, rng);
        let drawn = groups.get_mut(draw_part(&self.parts, rng))?;
        let chosen = match choose(drawn, rng) {
            Some(i) => Some(i),
            // Nobody in the zone has room: any other will do.
            None => groups.iter_mut().find_map(|group| choose(group, rng)),
        };
        endpoints.get(chosen?).cloned()
    }

    /// All endpoints and what they are to a choice at `now`. Changes nothing.
    pub fn candidates(&self, now: Instant) -> Vec<Candidate> {
        let rotation = self.rotation_now();
        (self.endpoints.iter().zip(&rotation.takes))
            .map(|(endpoint, takes)| Candidate {
                address: endpoint.address(),
                weight: endpoint.weight(),
                zone: endpoint.zone(),
                state: endpoint.state(),
                standing: endpoint.host().standing(),
                reason: endpoint.host().reason(),
                times_ejected: endpoint.host().times_ejected(),
                takes: *takes,
                panic: rotation.panic,
                ramp: endpoint.ramp(self.settings.slow_start, now),
                in_flight: endpoint.host().in_flight(),
                latency: endpoint.latency().map(Duration::from_secs_f64),
            })
            .collect()
    }

    fn rotation_now(&self) -> Rotation {
        let standings = self.endpoints.iter().map(|e| (e.state(), e.host().standing()));
        Rotation::new(standings, self.settings.panic_threshold)
    }

    /// Works out anew who gets requests. Costs O(n), when somebody's standing has changed.
    fn rotate(&mut self, rng: &mut fastrand::Rng) {
        // Before the standings are read: a change in between is seen the next time.
        self.seen = self.epoch.as_ref().map_or(0, |epoch| epoch.load(Acquire));
        self.endpoints.iter().for_each(|endpoint| endpoint.begin_anew());
        self.rotation = self.rotation_now();
        let ingredients = self.ingredients();
        if self.made_of.as_ref() == Some(&ingredients) {
            return;
        }
        self.made_of = Some(ingredients);
        let takers: Vec<usize> = (0..self.endpoints.len())
            .filter(|i| self.rotation.takes[*i])
            .collect();
        let min = match self.settings.zone_aware {
            ZoneAware::On { min_endpoints } => usize::try_from(min_endpoints).unwrap_or(usize::MAX),
            ZoneAware::Off => usize::MAX,
        };
        if let Some(own) = (self.own_zone.as_deref())
            .filter(|_| takers.len() >= min && !self.rotation.panic && self.table.is_none())
            && let Some((groups, parts)) = self.by_zone(own, &takers, rng)
        {
            (self.groups, self.parts) = (groups, parts);
            return;
        }
        let all = Group::new(&self.settings.algorithm, &self.endpoints, takers, rng);
        (self.groups, self.parts) = (vec![all], vec![1.0]);
    }

    fn ingredients(&self) -> Ingredients {
        let endpoints = self.endpoints.iter().zip(&self.rotation.takes);
        Ingredients {
            algorithm: self.settings.algorithm.clone(),
            zone_aware: self.settings.zone_aware,
            own_zone: self.own_zone.clone(),
            panic: self.rotation.panic,
            endpoints: endpoints
                .map(|(endpoint, takes)| Ingredient {
                    address: endpoint.address(),
                    weight: endpoint.weight(),
                    zone: endpoint.zone(),
                    terminating: endpoint.state() == EndpointState::Terminating,
                    takes: *takes,
                })
                .collect(),
        }
    }

    fn by_zone(
        &self,
        own: &str,
        takers: &[usize],
        rng: &mut fastrand::Rng,
    ) -> Option<(Vec<Group>, Vec<f64>)> {
        let mut names: Vec<Option<Arc<str>>> = Vec::new();
        let mut members: Vec<Vec<usize>> = Vec::new();
        // Zones of all that stay: one whose endpoints are all out still has callers.
        for (i, endpoint) in self.endpoints.iter().enumerate() {
            if endpoint.state() == EndpointState::Terminating {
                continue;
            }
            let zone = endpoint.zone();
            let known = names.iter().position(|name| *name == zone).unwrap_or_else(|| {
                names.push(zone);
                members.push(Vec::new());
                names.len() - 1
            });
            if takers.binary_search(&i).is_ok() {
                members[known].push(i);
            }
        }
        let groups: Vec<Group> = (members.into_iter())
            .map(|members| Group::new(&self.settings.algorithm, &self.endpoints, members, rng))
            .collect();
        let zones: Vec<Zone> = (names.iter().zip(&groups))
            .map(|(name, group)| Zone {
                own: name.as_deref() == Some(own),
                named: name.is_some(),
                capacity: group.weight(),
            })
            .collect();
        Some((groups, zones::split(&zones)?))
    }
}

/// Whether the next request at `endpoint` is its trial; taken by this call.
fn try_out(endpoint: &EndpointLoad, now: Instant) -> bool {
    if endpoint.is_full() {
        return false;
    }
    let trial = endpoint.host().take_trial(now);
    if trial.is_some() {
        endpoint.trial.set(trial);
    }
    trial.is_some()
}

/// An index into `parts`, which add up to 1, as often as each says.
fn draw_part(parts: &[f64], rng: &mut fastrand::Rng) -> usize {
    if parts.len() < 2 {
        return 0;
    }
    let mut point = rng.f64();
    for (i, part) in parts.iter().enumerate() {
        if point < *part {
            return i;
        }
        point -= part;
    }
    parts.iter().position(|part| *part > 0.0).unwrap_or(0)
}
