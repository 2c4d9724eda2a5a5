//! How the requests of one scope ended. A worker appends, a scrape reads, and neither ever waits for the other.

use std::{cell, sync::OnceLock};

use super::{cells::Cell, labels::Outcome};

/// Outcomes in the order in which they were seen, at most so many as the worker's bound allows.
///
/// Only the worker that owns the scope calls [`Outcomes::count`]; an outcome that was added is never moved or removed,
/// so that a reader needs no lock.
#[derive(Debug, Default)]
pub(super) struct Outcomes {
    first: OnceLock<Box<Node>>,
    /// Requests whose outcome is not told apart from others'.
    beyond: Cell,
}

#[derive(Debug)]
struct Node {
    outcome: Outcome,
    count: Cell,
    next: OnceLock<Box<Node>>,
}

/// Whether an outcome is told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counted {
    Apart,
    /// With others, because as many as allowed are told apart already.
    Beyond,
}

impl Outcomes {
    /// `most` are told apart here. `room` is how many more may be anywhere of the same workload.
    pub(super) fn count(&self, outcome: Outcome, most: usize, room: &cell::Cell<usize>) -> Counted {
        let mut place = &self.first;
        for _ in 0..most {
            if place.get().is_none() {
                match room.get().checked_sub(1) {
                    Some(left) => room.set(left),
                    None => break,
                }
            }
            let node = place.get_or_init(|| {
                Box::new(Node {
                    outcome,
                    count: Cell::default(),
                    next: OnceLock::new(),
                })
            });
            if node.outcome == outcome {
                node.count.add(1);
                return Counted::Apart;
            }
            place = &node.next;
        }
        self.beyond.add(1);
        Counted::Beyond
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Outcome, u64)> {
        let mut place = &self.first;
        std::iter::from_fn(move || {
            let node = place.get()?;
            place = &node.next;
            Some((node.outcome, node.count.get()))
        })
    }

    pub(super) fn beyond(&self) -> u64 {
        self.beyond.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Flag;

    fn of(code: u16) -> Outcome {
        Outcome {
            code,
            grpc_status: None,
            flag: Flag::None,
        }
    }

    fn room(n: usize) -> cell::Cell<usize> {
        cell::Cell::new(n)
    }

    #[test]
    fn outcomes_are_told_apart_up_to_the_bound() {
        let outcomes = Outcomes::default();
        let room = room(10);
        for code in [200, 404, 200, 500, 200, 500, 404] {
            let expect = if code == 500 {
                Counted::Beyond
            } else {
                Counted::Apart
            };
            assert_eq!(outcomes.count(of(code), 2, &room), expect, "{code}");
        }
        let seen: Vec<_> = outcomes.iter().map(|(outcome, n)| (outcome.code, n)).collect();
        assert_eq!((seen, outcomes.beyond()), (vec![(200, 3), (404, 2)], 2));
        assert_eq!(room.get(), 8);
    }

    #[test]
    fn a_workload_without_room_tells_no_more_apart() {
        let (first, second, room) = (Outcomes::default(), Outcomes::default(), room(1));
        assert_eq!(first.count(of(200), 64, &room), Counted::Apart);
        assert_eq!(second.count(of(200), 64, &room), Counted::Beyond);
        assert_eq!(first.count(of(200), 64, &room), Counted::Apart);
    }

    #[test]
    fn a_reader_sees_whole_entries_while_a_writer_appends() {
        let outcomes = Outcomes::default();
        let total = || outcomes.iter().map(|(_, n)| n).sum::<u64>() + outcomes.beyond();
        std::thread::scope(|threads| {
            threads.spawn(|| {
                let room = room(100);
                for n in 0..10_000 {
                    outcomes.count(of(n % 100), 64, &room);
                }
            });
            let mut last = 0;
            while last < 10_000 {
                let now = total();
                assert!(now >= last, "{now} after {last}");
                last = now;
            }
        });
        assert_eq!(outcomes.iter().count(), 64);
    }
}
