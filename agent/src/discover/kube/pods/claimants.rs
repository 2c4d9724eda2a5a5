//! Which pod a control group belongs to, when several objects name it. Pure.
//!
//! A UID is claimed by the object to which the API server gave it and by mirrors of static pods, whose annotations anybody
//! can write. The first is always right. Between mirrors nothing tells who is, so that none is.

use std::collections::{BTreeSet, HashMap};

use super::facts::Facts;
use crate::{discover::node::PodUid, model::PodName};

#[derive(Debug, Default)]
pub(super) struct Claimants(HashMap<PodUid, Claims>);

#[derive(Debug, Default)]
struct Claims {
    /// To which the API server gave the UID.
    own: BTreeSet<PodName>,
    mirrors: BTreeSet<PodName>,
}

impl Claims {
    fn of(&mut self, facts: &Facts) -> &mut BTreeSet<PodName> {
        match facts.is_mirror {
            true => &mut self.mirrors,
            false => &mut self.own,
        }
    }

    fn all(&self) -> impl Iterator<Item = &PodName> {
        self.own.iter().chain(&self.mirrors)
    }
}

impl Claimants {
    /// The pods that name this UID.
    pub(super) fn of(&self, uid: &PodUid) -> impl Iterator<Item = &PodName> {
        self.0.get(uid).into_iter().flat_map(Claims::all)
    }

    /// A pod names its UID; the others of whom that may change the standing.
    pub(super) fn claim(&mut self, facts: &Facts) -> BTreeSet<PodName> {
        let claims = self.0.entry(facts.uid.clone()).or_default();
        claims.of(facts).insert(facts.name.clone());
        others(claims, &facts.name)
    }

    /// The reverse of [`Self::claim`].
    pub(super) fn withdraw(&mut self, facts: &Facts) -> BTreeSet<PodName> {
        let Some(claims) = self.0.get_mut(&facts.uid) else {
            return BTreeSet::new();
        };
        claims.of(facts).remove(&facts.name);
        let others = others(claims, &facts.name);
        if others.is_empty() {
            self.0.remove(&facts.uid);
        }
        others
    }

    /// Whether the control group of this UID is the pod's; if not, the reason is for an operator.
    pub(super) fn judge(&self, facts: &Facts) -> Result<(), String> {
        let Some(claims) = self.0.get(&facts.uid) else {
            return Ok(());
        };
        let winners = match claims.own.is_empty() {
            true => &claims.mirrors,
            false => &claims.own,
        };
        let (Some(first), true) = (winners.first(), winners.contains(&facts.name)) else {
            return Err(format!(
                "its kubernetes.io/config.hash is the UID of another pod, {}",
                winners.first().map(ToString::to_string).unwrap_or_default()
            ));
        };
        match winners.iter().find(|other| **other != facts.name) {
            None => Ok(()),
            Some(other) => {
                let other = if *first == facts.name { other } else { first };
                Err(format!(
                    "{other} claims the same control group, that of {}, and nothing tells whose it is",
                    facts.uid
                ))
            }
        }
    }
}

fn others(claims: &Claims, name: &PodName) -> BTreeSet<PodName> {
    claims.all().filter(|other| *other != name).cloned().collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::discover::kube::pods::facts::{MIRROR, STATIC_UID};

    const NODE: &str = r#"[{"kind": "Node", "name": "n1", "controller": true}]"#;

    fn own(name: &str, uid: &str) -> Facts {
        let object = serde_json::json!({"metadata": {"name": name, "namespace": "demo", "uid": uid}});
        Facts::of(&serde_json::from_value(object).unwrap())
    }

    fn mirror(name: &str, hash: &str) -> Facts {
        let owners: serde_json::Value = serde_json::from_str(NODE).unwrap();
        let object = serde_json::json!({"metadata": {
            "name": name, "namespace": "demo", "uid": format!("of-{name}"), "ownerReferences": owners,
            "annotations": {STATIC_UID: hash, MIRROR: hash},
        }});
        Facts::of(&serde_json::from_value(object).unwrap())
    }

    #[test]
    fn a_uid_is_its_objects_and_of_two_mirrors_neithers() {
        let mut claimants = Claimants::default();
        let (a, b, z) = (mirror("a", "u1"), mirror("b", "u1"), own("z", "u1"));
        claimants.claim(&a);
        assert_eq!(claimants.judge(&a), Ok(()));
        assert_eq!(claimants.claim(&b), BTreeSet::from([a.name.clone()]));
        for (of, other) in [(&a, "demo/b"), (&b, "demo/a")] {
            assert!(claimants.judge(of).unwrap_err().starts_with(other), "{other}");
        }
        claimants.claim(&z);
        assert_eq!(claimants.judge(&z), Ok(()));
        for of in [&a, &b] {
            assert!(claimants.judge(of).unwrap_err().ends_with("another pod, demo/z"));
        }
        claimants.withdraw(&z);
        claimants.withdraw(&b);
        assert_eq!(claimants.judge(&a), Ok(()));
        claimants.withdraw(&a);
        assert!(claimants.0.is_empty());
    }

    proptest! {
        #[test]
        fn a_control_group_is_never_two_pods(
            steps in prop::collection::vec((0usize..6, 0usize..2, any::<bool>(), any::<bool>()), 1..40),
        ) {
            let mut claimants = Claimants::default();
            let mut there = std::collections::BTreeMap::new();
            for (name, uid, is_mirror, comes) in steps {
                let (name, uid) = (format!("p{name}"), format!("u{uid}"));
                if let Some(before) = there.remove(&name) {
                    claimants.withdraw(&before);
                }
                if comes {
                    let facts = if is_mirror { mirror(&name, &uid) } else { own(&name, &uid) };
                    claimants.claim(&facts);
                    there.insert(name, facts);
                }
                for uid in ["u0", "u1"].map(PodUid::new) {
                    let of_uid: Vec<&Facts> = there.values().filter(|facts| facts.uid == uid).collect();
                    let winners: Vec<&&Facts> = of_uid.iter().filter(|f| claimants.judge(f).is_ok()).collect();
                    prop_assert!(winners.len() <= 1);
                    let own: Vec<&&Facts> = of_uid.iter().filter(|facts| !facts.is_mirror).collect();
                    if let [only] = own[..] {
                        prop_assert_eq!(winners, vec![only], "whatever mirrors there are");
                    }
                }
            }
        }
    }
}
