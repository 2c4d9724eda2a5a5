//! Which names a list has had so far, to find those that it no longer has.

use std::{borrow::Borrow, collections::HashSet, hash::Hash};

/// Objects of a list are taken at once; what is known and not in it goes when the list is whole.
#[derive(Debug)]
pub(super) struct Seen<K> {
    /// `None` outside a list.
    names: Option<HashSet<K>>,
    /// Whether a list has been whole, or the kind is not served.
    answered: bool,
}

impl<K> Default for Seen<K> {
    fn default() -> Self {
        Self {
            names: None,
            answered: false,
        }
    }
}

impl<K: Eq + Hash> Seen<K> {
    pub(super) fn begin(&mut self) {
        self.names = Some(HashSet::new());
    }

    pub(super) fn see(&mut self, name: K) {
        if let Some(names) = &mut self.names {
            names.insert(name);
        }
    }

    pub(super) fn lose<Q: Eq + Hash + ?Sized>(&mut self, name: &Q)
    where
        K: Borrow<Q>,
    {
        if let Some(names) = &mut self.names {
            names.remove(name);
        }
    }

    /// The list is whole: which of the `known` it did not have.
    pub(super) fn end<'k>(&mut self, known: impl Iterator<Item = &'k K>) -> Vec<K>
    where
        K: Clone + 'k,
    {
        self.answered = true;
        match self.names.take() {
            Some(names) => known.filter(|name| !names.contains(name)).cloned().collect(),
            None => Vec::new(),
        }
    }

    pub(super) fn absent(&mut self) {
        self.answered = true;
    }

    pub(super) fn is_answered(&self) -> bool {
        self.answered
    }
}
