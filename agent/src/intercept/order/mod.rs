//! In which order the kernel runs the agent's programs and others' at the same hooks.
//!
//! ```text
//!  a pod connects ──▶ programs of its own groups ──▶ those of the pods' group ──▶ those of groups above
//!                     (below: first)                 ours among them, as attached  (after: sees what ours left)
//! ```
//! Who comes first sees the address that the pod dialled. A balancer that comes first leaves nothing to redirect.

mod query;

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    path::{Path, PathBuf},
};

use aya::programs::loaded_programs;
pub use query::Hook;
use query::{Reach, programs};

use super::{InterceptError, cgroup};

/// Looks at what others have attached. Stays of use as long as the programs are loaded.
#[derive(Clone, Debug)]
pub struct ProgramOrder {
    /// The pods' control group.
    group: PathBuf,
    /// The kernel's numbers of all programs of this agent.
    ours: BTreeSet<u32>,
}

/// Somebody else's program at one of the agent's hooks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OtherProgram {
    pub order: Order,
    pub hook: Hook,
    /// At most 15 characters; empty when it has none, or has gone meanwhile.
    pub name: String,
    /// The control group that it is attached to.
    pub group: PathBuf,
    /// The kernel's number.
    pub id: u32,
}

/// When another program runs, seen from the agent's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Order {
    /// Before it, for all pods.
    Before,
    /// Before it, for those pods whose control group it is attached to or below.
    Below,
    /// No more for any pod: it was attached so that a program of a lower group replaces it, and the agent's has.
    Replaced,
    /// After it: it sees what the agent has left.
    After,
}

impl Order {
    pub const ALL: [Self; 4] = [Self::Before, Self::Below, Self::Replaced, Self::After];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Before => "before",
            Self::Below => "below",
            Self::Replaced => "replaced",
            Self::After => "after",
        }
    }

    /// Whether an operator should know.
    pub fn is_odd(self) -> bool {
        self != Self::After
    }
}

impl ProgramOrder {
    pub(super) fn new(group: PathBuf, ours: BTreeSet<u32>) -> Self {
        Self { group, ours }
    }

    /// In the order in which they matter. Takes some system calls for each control group above and below.
    ///
    /// # Errors
    /// No right to ask (`CAP_NET_ADMIN`), or the pods' control group has gone.
    pub fn look(&self) -> Result<Vec<OtherProgram>, InterceptError> {
        let mut others = Vec::new();
        let above = above(&self.group);
        let below = below(&self.group);
        for hook in Hook::ALL {
            let effective = self.programs(&self.group, hook, Reach::Effective)?;
            for group in &above {
                let attached = self.programs(group, hook, Reach::Attached)?;
                for id in self.others(&attached) {
                    others.push((judge(&effective, &self.ours, id), hook, group, id));
                }
            }
            for group in &below {
                // Groups of pods go at any time.
                let Ok(attached) = self.programs(group, hook, Reach::Attached) else {
                    continue;
                };
                let ids = self.others(&attached);
                others.extend(ids.into_iter().map(|id| (Order::Below, hook, group, id)));
            }
        }
        let names = match others.is_empty() {
            true => HashMap::new(),
            false => names(),
        };
        let mut others: Vec<OtherProgram> = others
            .into_iter()
            .map(|(order, hook, group, id)| OtherProgram {
                order,
                hook,
                name: names.get(&id).cloned().unwrap_or_default(),
                group: group.clone(),
                id,
            })
            .collect();
        others.sort();
        Ok(others)
    }

    fn others(&self, ids: &[u32]) -> Vec<u32> {
        ids.iter().copied().filter(|id| !self.ours.contains(id)).collect()
    }

    fn programs(&self, group: &Path, hook: Hook, reach: Reach) -> Result<Vec<u32>, InterceptError> {
        let file = cgroup::open(group)?;
        programs(&file, hook, reach).map_err(|source| InterceptError::Order {
            path: group.to_owned(),
            hook: hook.as_str(),
            source,
        })
    }
}

/// The programs at a hook of the group, of those above and of those below, each with its group.
pub(super) fn attached_around(group: &Path, hook: Hook) -> Result<Vec<(PathBuf, u32)>, InterceptError> {
    let mut found = Vec::new();
    for near in above(group) {
        let file = cgroup::open(&near)?;
        let ids = programs(&file, hook, Reach::Attached).map_err(|source| InterceptError::Order {
            path: near.clone(),
            hook: hook.as_str(),
            source,
        })?;
        found.extend(ids.into_iter().map(|id| (near.clone(), id)));
    }
    for near in below(group) {
        // Groups of pods go at any time.
        let ids = cgroup::open(&near)
            .ok()
            .and_then(|file| programs(&file, hook, Reach::Attached).ok());
        found.extend(ids.into_iter().flatten().map(|id| (near.clone(), id)));
    }
    Ok(found)
}

/// Where a program of the pods' group, or of one above, stands. `effective` are those that run for the group, in order.
fn judge(effective: &[u32], ours: &BTreeSet<u32>, id: u32) -> Order {
    let place = |wanted: &dyn Fn(&u32) -> bool| effective.iter().position(wanted);
    match (place(&|it| *it == id), place(&|it| ours.contains(it))) {
        (None, _) => Order::Replaced,
        (Some(other), Some(own)) if other > own => Order::After,
        // Where ours does not run at all, everybody is before it.
        (Some(_), _) => Order::Before,
    }
}

/// The group and all above it.
fn above(group: &Path) -> Vec<PathBuf> {
    let is_group = |path: &&Path| path.join("cgroup.procs").exists();
    group
        .ancestors()
        .take_while(is_group)
        .map(Path::to_owned)
        .collect()
}

/// All groups below.
fn below(group: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    let mut left = vec![group.to_owned()];
    while let Some(path) = left.pop() {
        // One that ends while it is looked at has nothing below.
        let entries = fs::read_dir(&path).into_iter().flatten().flatten();
        let groups = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        let groups: Vec<PathBuf> = groups.map(|entry| entry.path()).collect();
        left.extend_from_slice(&groups);
        all.extend(groups);
    }
    all
}

/// Of all loaded programs. One that goes meanwhile has none.
pub(super) fn names() -> HashMap<u32, String> {
    let programs = loaded_programs().filter_map(Result::ok);
    programs
        .map(|program| (program.id(), program.name_as_str().unwrap_or_default().to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_before_whom_is_read_off_the_effective_list() {
        let ours = BTreeSet::from([5, 6]);
        let check = |effective: &[u32], id, expect| assert_eq!(judge(effective, &ours, id), expect);
        check(&[3, 5, 9], 3, Order::Before);
        check(&[3, 5, 9], 9, Order::After);
        check(&[3, 5], 9, Order::Replaced);
        check(&[3], 3, Order::Before);
        check(&[], 3, Order::Replaced);
    }

    #[test]
    fn groups_above_end_where_the_hierarchy_does() {
        let root = tempfile::tempdir().unwrap();
        let mount = root.path().join("unified");
        let pods = mount.join("kubepods");
        fs::create_dir_all(pods.join("burstable/pod1")).unwrap();
        for group in [&mount, &pods] {
            fs::write(group.join("cgroup.procs"), "").unwrap();
        }
        assert_eq!(above(&pods), [pods.clone(), mount]);
        let mut found = below(&pods);
        found.sort();
        assert_eq!(found, [pods.join("burstable"), pods.join("burstable/pod1")]);
    }
}
