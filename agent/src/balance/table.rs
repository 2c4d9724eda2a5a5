//! Where keys belong: the ring or the table, with what it was made from.
//!
//! Making one takes milliseconds, up to a hundred, so that a [`TableMaker`] may do it elsewhere: until the new one is
//! there keys go by the one before, and where there was none, by the highest of a hash of the key with each endpoint.

use std::{
    collections::HashMap,
    net::SocketAddr,
    rc::Rc,
    sync::{Arc, OnceLock},
};

use super::{EndpointLoad, hash, maglev::Maglev, ring::Ring};
use crate::model::Algorithm;

/// How many owners of a key are looked at before any usable endpoint will do.
const OWNERS: usize = 64;

/// What a table is made from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Wanted {
    kind: WantedKind,
    /// Addresses and weights, by index.
    endpoints: Vec<(SocketAddr, u32)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum WantedKind {
    Ring { min_size: u32 },
    Maglev { size: u32 },
}

impl Wanted {
    fn new(algorithm: &Algorithm, endpoints: &[Rc<EndpointLoad>]) -> Option<Self> {
        let kind = match algorithm {
            Algorithm::RingHash { min_ring_size, .. } => WantedKind::Ring {
                min_size: *min_ring_size,
            },
            Algorithm::Maglev { table_size, .. } => WantedKind::Maglev { size: *table_size },
            _ => return None,
        };
        let endpoints = endpoints.iter().map(|e| (e.address(), e.weight())).collect();
        Some(Self { kind, endpoints })
    }

    /// What the table takes of memory.
    pub fn bytes(&self) -> usize {
        match self.kind {
            WantedKind::Ring { min_size } => Ring::bytes(&self.endpoints, min_size),
            WantedKind::Maglev { size } => Maglev::bytes(size),
        }
    }

    pub fn make(&self) -> HashTable {
        HashTable {
            endpoints: self.endpoints.iter().map(|(address, _)| *address).collect(),
            kind: match self.kind {
                WantedKind::Ring { min_size } => Kind::Ring(Ring::new(&self.endpoints, min_size)),
                WantedKind::Maglev { size } => Kind::Maglev(Maglev::new(&self.endpoints, size)),
            },
        }
    }
}

/// A ring or a table. Workers share it.
#[derive(Debug)]
pub struct HashTable {
    /// By index.
    endpoints: Vec<SocketAddr>,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Ring(Ring),
    Maglev(Maglev),
}

/// Where a table will be. `None` in it: there will be none.
pub type Made = Arc<OnceLock<Option<Arc<HashTable>>>>;

/// Makes tables, at once or elsewhere.
pub trait TableMaker {
    fn make(&self, wanted: &Arc<Wanted>) -> Made;
}

/// At once.
impl TableMaker for () {
    fn make(&self, wanted: &Arc<Wanted>) -> Made {
        Arc::new(OnceLock::from(Some(Arc::new(wanted.make()))))
    }
}

/// One balancer's.
#[derive(Debug)]
pub(super) struct Table {
    wanted: Arc<Wanted>,
    made: Made,
    used: Option<Used>,
}

#[derive(Debug)]
struct Used {
    table: Arc<HashTable>,
    /// The balancer's index of each of the table's endpoints; of one that has gone, none.
    places: Vec<Option<usize>>,
}

impl Used {
    fn new(table: Arc<HashTable>, wanted: &Wanted) -> Self {
        let by_address: HashMap<SocketAddr, usize> = wanted
            .endpoints
            .iter()
            .enumerate()
            .map(|(i, (address, _))| (*address, i))
            .collect();
        let places = table
            .endpoints
            .iter()
            .map(|address| by_address.get(address).copied())
            .collect();
        Self { table, places }
    }
}

impl Table {
    /// The table that `algorithm` wants, `before` if it is the same; `None` when it wants none.
    pub(super) fn follow(
        before: Option<Self>,
        algorithm: &Algorithm,
        endpoints: &[Rc<EndpointLoad>],
        maker: &dyn TableMaker,
    ) -> Option<Self> {
        let wanted = Wanted::new(algorithm, endpoints)?;
        if before.as_ref().is_some_and(|before| *before.wanted == wanted) {
            return before;
        }
        let wanted = Arc::new(wanted);
        let used = before
            .and_then(|before| before.used)
            .map(|used| Used::new(used.table, &wanted));
        let mut table = Self {
            made: maker.make(&wanted),
            wanted,
            used,
        };
        table.adopt();
        Some(table)
    }

    /// Goes on with the table that is wanted, once that has been made.
    pub(super) fn adopt(&mut self) {
        let Some(Some(made)) = self.made.get() else { return };
        if self
            .used
            .as_ref()
            .is_none_or(|used| !Arc::ptr_eq(&used.table, made))
        {
            self.used = Some(Used::new(made.clone(), &self.wanted));
        }
    }

    /// The index of the endpoint that `key` belongs to, usable or not.
    pub(super) fn owner(&self, key: u64) -> Option<usize> {
        self.owner_of(key, |_| true)
    }

    /// The index of the first usable endpoint that `key` belongs to; `None` when none is usable.
    pub(super) fn owner_of(&self, key: u64, usable: impl Fn(usize) -> bool) -> Option<usize> {
        let Some(used) = &self.used else {
            return self.highest(key, usable);
        };
        used.find(key, &usable).or_else(|| {
            // Nearly all are out. Still the same for the same key, as long as the same ones are out.
            let n = self.wanted.endpoints.len();
            let start = usize::try_from(hash::again(key, 0).checked_rem(n as u64)?).ok()?;
            (start..n).chain(0..start).find(|i| usable(*i))
        })
    }

    /// Rendezvous hashing: without a table, in as many steps as there are endpoints. Keys that move are those of
    /// endpoints that come or go.
    fn highest(&self, key: u64, usable: impl Fn(usize) -> bool) -> Option<usize> {
        let score = |i: usize| {
            let (address, weight) = self.wanted.endpoints[i];
            let hash = hash::again(key, hash::point(address, 0));
            // Of the 53 bits that a float holds, and never zero, whose logarithm is infinite.
            let part = ((hash >> 11) + 1) as f64 / (1_u64 << 53) as f64;
            part.ln() / f64::from(weight.max(1))
        };
        (0..self.wanted.endpoints.len())
            .filter(|i| usable(*i))
            .max_by(|a, b| score(*a).total_cmp(&score(*b)))
    }
}

impl Used {
    fn find(&self, key: u64, usable: impl Fn(usize) -> bool) -> Option<usize> {
        let place = |i: usize| self.places.get(i).copied().flatten();
        let first = |owners: &mut dyn Iterator<Item = usize>| {
            owners.take(OWNERS).filter_map(place).find(|i| usable(*i))
        };
        match &self.table.kind {
            Kind::Ring(ring) => first(&mut ring.owners(key)),
            Kind::Maglev(maglev) => first(&mut maglev.owners(key)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::{
        balance::Outliers,
        model::{Endpoint, HashKey},
    };

    /// Makes what it is asked for when it is told to.
    #[derive(Default)]
    struct Later(RefCell<Vec<(Arc<Wanted>, Made)>>);

    impl TableMaker for Later {
        fn make(&self, wanted: &Arc<Wanted>) -> Made {
            let made = Made::default();
            self.0.borrow_mut().push((wanted.clone(), made.clone()));
            made
        }
    }

    impl Later {
        fn finish(&self) {
            for (wanted, made) in self.0.borrow_mut().drain(..) {
                made.set(Some(Arc::new(wanted.make()))).unwrap();
            }
        }
    }

    fn loads(octets: &[u8]) -> Vec<Rc<EndpointLoad>> {
        let now = tokio::time::Instant::now().into_std();
        let outliers = Outliers::new(None);
        let load = |octet: &u8| {
            let endpoint = Endpoint::new(([10, 0, 0, *octet], 80).into());
            EndpointLoad::new(&endpoint, outliers.host(endpoint.address), None, now)
        };
        octets.iter().map(load).collect()
    }

    fn maglev() -> Algorithm {
        Algorithm::Maglev {
            key: HashKey::SourceAddress,
            table_size: 65_537,
        }
    }

    const KEYS: std::ops::Range<u64> = 0..2000;

    fn owners(table: &Table, loads: &[Rc<EndpointLoad>]) -> Vec<SocketAddr> {
        KEYS.map(|key| loads[table.owner(hash::again(key, 0)).unwrap()].address())
            .collect()
    }

    #[test]
    fn keys_go_by_the_table_before_until_the_new_one_is_there() {
        let maker = Later::default();
        let three = loads(&[1, 2, 3]);
        let mut table = Table::follow(None, &maglev(), &three, &maker).unwrap();
        let without = owners(&table, &three);
        for load in &three {
            let share = without.iter().filter(|owner| **owner == load.address()).count();
            assert!((550..800).contains(&share), "{share} of 2000 without a table");
        }
        maker.finish();
        table.adopt();
        let at_once = Table::follow(None, &maglev(), &three, &()).unwrap();
        let first = owners(&table, &three);
        assert_eq!(first, owners(&at_once, &three));

        // One goes and one comes: keys of those that stay do not move meanwhile.
        let changed = loads(&[4, 1, 3]);
        let mut table = Table::follow(Some(table), &maglev(), &changed, &maker).unwrap();
        let gone = three[1].address();
        for (was, is) in first.iter().zip(owners(&table, &changed)) {
            assert!(*was == gone || *was == is, "{was} to {is}");
            assert_ne!(is, gone);
        }
        maker.finish();
        table.adopt();
        let at_once = Table::follow(None, &maglev(), &changed, &()).unwrap();
        assert_eq!(owners(&table, &changed), owners(&at_once, &changed));
    }

    #[test]
    fn without_a_table_only_keys_of_those_that_go_move() {
        let maker = Later::default();
        let (four, three) = (loads(&[1, 2, 3, 4]), loads(&[4, 3, 1]));
        let of = |loads: &[Rc<EndpointLoad>]| {
            owners(&Table::follow(None, &maglev(), loads, &maker).unwrap(), loads)
        };
        let gone = four[1].address();
        for (was, is) in of(&four).into_iter().zip(of(&three)) {
            assert!(was == gone || was == is);
        }
        let table = Table::follow(None, &maglev(), &four, &maker).unwrap();
        assert_eq!(table.owner_of(7, |i| i == 2), Some(2));
        assert_eq!(table.owner_of(7, |_| false), None);
    }
}
