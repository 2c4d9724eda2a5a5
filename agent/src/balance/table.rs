//! Where keys belong: the ring or the table, with what it was made from.

use std::{net::SocketAddr, rc::Rc};

use super::{EndpointLoad, hash, maglev::Maglev, ring::Ring};
use crate::model::Algorithm;

/// How many owners of a key are looked at before any usable endpoint will do.
const OWNERS: usize = 64;

#[derive(Debug)]
pub(super) struct Table {
    /// Addresses and weights, by index.
    endpoints: Vec<(SocketAddr, u32)>,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Ring(Ring, u32),
    Maglev(Maglev, u32),
}

impl Table {
    /// The table that `algorithm` wants, `before` if it is the same; `None` when it wants none.
    pub(super) fn follow(
        before: Option<Self>,
        algorithm: &Algorithm,
        endpoints: &[Rc<EndpointLoad>],
    ) -> Option<Self> {
        let endpoints: Vec<(SocketAddr, u32)> = endpoints.iter().map(|e| (e.address(), e.weight())).collect();
        let before = before.filter(|table| table.endpoints == endpoints);
        let kind = match (algorithm, before.map(|table| table.kind)) {
            (
                Algorithm::RingHash {
                    min_ring_size: size, ..
                },
                Some(Kind::Ring(ring, of)),
            ) if of == *size => Kind::Ring(ring, of),
            (Algorithm::Maglev { table_size: size, .. }, Some(Kind::Maglev(maglev, of))) if of == *size => {
                Kind::Maglev(maglev, of)
            }
            (
                Algorithm::RingHash {
                    min_ring_size: size, ..
                },
                _,
            ) => Kind::Ring(Ring::new(&endpoints, *size), *size),
            (Algorithm::Maglev { table_size: size, .. }, _) => {
                Kind::Maglev(Maglev::new(&endpoints, *size), *size)
            }
            _ => return None,
        };
        Some(Self { endpoints, kind })
    }

    /// The index of the endpoint that `key` belongs to, usable or not.
    pub(super) fn owner(&self, key: u64) -> Option<usize> {
        self.find(key, |_| true)
    }

    /// The index of the first usable endpoint that `key` belongs to; `None` when none is usable.
    pub(super) fn owner_of(&self, key: u64, usable: impl Fn(usize) -> bool) -> Option<usize> {
        self.find(key, &usable).or_else(|| {
            // Nearly all are out. Still the same for the same key, as long as the same ones are out.
            let n = self.endpoints.len();
            let start = usize::try_from(hash::again(key, 0).checked_rem(n as u64)?).ok()?;
            (start..n).chain(0..start).find(|i| usable(*i))
        })
    }

    fn find(&self, key: u64, usable: impl Fn(usize) -> bool) -> Option<usize> {
        match &self.kind {
            Kind::Ring(ring, _) => ring.owners(key).take(OWNERS).find(|i| usable(*i)),
            Kind::Maglev(maglev, _) => maglev.owners(key).take(OWNERS).find(|i| usable(*i)),
        }
    }
}
