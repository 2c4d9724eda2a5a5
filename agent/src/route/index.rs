//! Finds the first match in order without looking at those that cannot be it.
//!
//! ```text
//! exact paths, gRPC services and methods   hash maps
//! prefixes                                 a tree by path elements
//! regular expressions                      in the same tree, at the elements they begin with
//! in each of these places                  by one header's exact value, where many rules differ by it
//! ```

use std::collections::HashMap;

use http::HeaderName;
use smallvec::SmallVec;

use super::request::Request;
use crate::model::{Match, PathMatch, ValueMatch};

/// Position in the order of precedence: the smaller wins.
pub(super) type Position = usize;

#[derive(Debug, Default)]
pub(super) struct Index {
    exact: HashMap<Box<str>, Bucket>,
    /// A gRPC call's service, when it is given exactly, then its method.
    services: HashMap<Box<str>, Methods>,
    /// Calls of any service, or of one given by a pattern.
    any_service: Methods,
    tree: Node,
}

#[derive(Debug, Default)]
struct Methods {
    exact: HashMap<Box<str>, Bucket>,
    rest: Bucket,
}

/// A path element and what is below it.
#[derive(Debug, Default)]
struct Node {
    children: HashMap<Box<str>, Node>,
    prefix: Bucket,
    regex: Bucket,
}

impl Index {
    /// `matches` in order of precedence.
    pub(super) fn new(matches: &[Match]) -> Self {
        let mut index = Self::default();
        for (position, wanted) in matches.iter().enumerate() {
            index.bucket(wanted).positions.push(position);
        }
        index.each_bucket(|bucket| bucket.divide(matches));
        index
    }

    /// Where a match belongs.
    fn bucket(&mut self, wanted: &Match) -> &mut Bucket {
        match &wanted.path {
            None => &mut self.tree.prefix,
            Some(PathMatch::Prefix(prefix)) => &mut self.tree.at(prefix).prefix,
            Some(PathMatch::Regex(pattern)) => &mut self.tree.at(pattern.leading_elements()).regex,
            Some(PathMatch::Exact(path)) => self.exact.entry((**path).into()).or_default(),
            Some(PathMatch::Grpc { service, method }) => {
                let methods = match service {
                    Some(ValueMatch::Exact(service)) => self.services.entry((**service).into()).or_default(),
                    _ => &mut self.any_service,
                };
                match method {
                    Some(ValueMatch::Exact(method)) => methods.exact.entry((**method).into()).or_default(),
                    _ => &mut methods.rest,
                }
            }
        }
    }

    fn each_bucket(&mut self, mut f: impl FnMut(&mut Bucket)) {
        self.exact.values_mut().for_each(&mut f);
        for methods in self.services.values_mut().chain([&mut self.any_service]) {
            methods.exact.values_mut().for_each(&mut f);
            f(&mut methods.rest);
        }
        // A loop and not a recursion: a prefix may have a thousand elements.
        let mut nodes = vec![&mut self.tree];
        while let Some(node) = nodes.pop() {
            f(&mut node.prefix);
            f(&mut node.regex);
            nodes.extend(node.children.values_mut());
        }
    }

    /// The first of `matches` that the request fulfils.
    pub(super) fn first(&self, request: &Request<'_>, matches: &[Match]) -> Option<Position> {
        let mut search = Search {
            request,
            matches,
            best: None,
        };
        if let Some(bucket) = self.exact.get(request.path) {
            search.look(bucket);
        }
        if let Some((service, method)) = request.call {
            for methods in self.services.get(service).into_iter().chain([&self.any_service]) {
                if let Some(bucket) = methods.exact.get(method) {
                    search.look(bucket);
                }
                search.look(&methods.rest);
            }
        }
        let way = self.tree.way(request.path);
        for node in way.iter().rev() {
            search.look(&node.regex);
        }
        // The deepest has the longest prefix. Those above end at once when one has been found.
        for node in way.iter().rev() {
            search.look(&node.prefix);
        }
        search.best
    }
}

impl Node {
    /// The node of `/a/b`, made when it is not there. The root for the empty path.
    fn at(&mut self, path: &str) -> &mut Node {
        let mut node = self;
        for element in elements(path) {
            node = node.children.entry(element.into()).or_default();
        }
        node
    }

    /// The nodes on the way of a path, from the root down. As long as the longest prefix at most.
    fn way(&self, path: &str) -> SmallVec<[&Node; 8]> {
        let mut way = SmallVec::from_iter([self]);
        let mut node = self;
        for element in elements(path) {
            if node.children.is_empty() {
                break;
            }
            let Some(child) = node.children.get(element) else {
                break;
            };
            node = child;
            way.push(node);
        }
        way
    }
}

/// `a` and `b` of `/a/b`. None of what is no path, such as `*`.
fn elements(path: &str) -> impl Iterator<Item = &str> {
    path.strip_prefix('/')
        .into_iter()
        .flat_map(|rest| rest.split('/'))
}

// A tree as deep as a path is long must not be dropped by recursion.
impl Drop for Node {
    fn drop(&mut self) {
        let mut nodes: Vec<Node> = self.children.drain().map(|(_, node)| node).collect();
        while let Some(mut node) = nodes.pop() {
            nodes.extend(node.children.drain().map(|(_, node)| node));
        }
    }
}

type ByValue = HashMap<Box<[u8]>, Vec<Position>>;

/// Matches of one place, in order of precedence.
#[derive(Debug, Default)]
struct Bucket {
    positions: Vec<Position>,
    /// By the value of a header that must be exactly so. Each match is in one list only.
    by_header: Vec<(HeaderName, ByValue)>,
}

impl Bucket {
    /// So few are looked at faster than sorted out.
    const FEW: usize = 8;

    /// Moves what asks for an exact header value behind that value, when there are many.
    fn divide(&mut self, matches: &[Match]) {
        if self.positions.len() <= Self::FEW {
            return;
        }
        for position in std::mem::take(&mut self.positions) {
            let key = matches[position]
                .headers
                .iter()
                .find_map(|(name, value)| match value {
                    ValueMatch::Exact(value) => Some((name, value.as_bytes())),
                    ValueMatch::Regex(_) => None,
                });
            let Some((name, value)) = key else {
                self.positions.push(position);
                continue;
            };
            let at = match self.by_header.iter().position(|(known, _)| known == name) {
                Some(at) => at,
                None => {
                    self.by_header.push((name.clone(), HashMap::new()));
                    self.by_header.len() - 1
                }
            };
            let values = &mut self.by_header[at].1;
            values.entry(value.into()).or_default().push(position);
        }
    }
}

struct Search<'s> {
    request: &'s Request<'s>,
    matches: &'s [Match],
    best: Option<Position>,
}

impl Search<'_> {
    fn look(&mut self, bucket: &Bucket) {
        self.look_through(&bucket.positions);
        for (name, values) in &bucket.by_header {
            let value = self.request.header(name);
            if let Some(positions) = value.and_then(|value| values.get(&*value)) {
                self.look_through(positions);
            }
        }
    }

    fn look_through(&mut self, positions: &[Position]) {
        for position in positions {
            if self.best.is_some_and(|best| best < *position) {
                return;
            }
            let wanted = &self.matches[*position];
            if self.is_left(wanted) && self.request.rest_is(wanted) {
                self.best = Some(*position);
                return;
            }
        }
    }

    /// Whether the part of the path's condition holds that the place in the index did not decide.
    fn is_left(&self, wanted: &Match) -> bool {
        match &wanted.path {
            Some(path @ (PathMatch::Regex(_) | PathMatch::Grpc { .. })) => self.request.path_is(path),
            _ => true,
        }
    }
}
