use proptest::prelude::*;

use super::*;
use crate::model::ServicePortName;

const NAMESPACES: [&str; 3] = ["a", "b", "c"];

#[derive(Clone, Debug)]
enum Step {
    Claim(usize, ServicePortName, Rank),
    Withdraw(usize, ServicePortName),
    PodComes(&'static str),
    PodGoes(&'static str),
}

fn address(n: usize) -> SocketAddr {
    ([10, 0, 0, u8::try_from(n).unwrap()], 80).into()
}

fn target(port: &ServicePortName, rank: Rank) -> Target {
    match rank {
        Rank::Virtual => Target::Service(port.clone()),
        Rank::Endpoint => Target::Endpoint(port.clone()),
    }
}

fn step() -> impl Strategy<Value = Step> {
    let namespace = || prop::sample::select(&NAMESPACES);
    let port = || {
        (namespace(), 0..3).prop_map(|(namespace, n)| ServicePortName {
            service: ServiceName {
                namespace: namespace.into(),
                name: format!("s{n}").into(),
            },
            port: 80,
        })
    };
    let rank = prop_oneof![1 => Just(Rank::Virtual), 5 => Just(Rank::Endpoint)];
    prop_oneof![
        4 => (0usize..3, port(), rank).prop_map(|(at, port, rank)| Step::Claim(at, port, rank)),
        3 => (0usize..3, port()).prop_map(|(at, port)| Step::Withdraw(at, port)),
        1 => namespace().prop_map(Step::PodComes),
        1 => namespace().prop_map(Step::PodGoes),
    ]
}

/// What the claims should say, worked out anew from all that was said.
#[derive(Default)]
struct Naive {
    claims: BTreeMap<(usize, ServiceName), (Rank, ServicePortName)>,
    pods: Vec<&'static str>,
}

impl Naive {
    fn counting(&self, at: usize) -> Vec<&(Rank, ServicePortName)> {
        let of = || {
            self.claims
                .iter()
                .filter(move |((known, _), _)| *known == at)
                .map(|(_, claim)| claim)
        };
        let is_virtual = of().any(|(rank, _)| *rank == Rank::Virtual);
        of().filter(|(rank, _)| !is_virtual || *rank == Rank::Virtual)
            .collect()
    }

    /// The target for a caller, of the first service by name where a namespace has several.
    fn target_of(&self, at: usize, caller: &str) -> Target {
        let counting = self.counting(at);
        let of = |namespace: &str| {
            let mut own = counting
                .iter()
                .filter(|(_, port)| *port.service.namespace == *namespace);
            own.next().map(|(rank, port)| target(port, *rank))
        };
        let claims: Vec<Target> = NAMESPACES.iter().filter_map(|namespace| of(namespace)).collect();
        match (of(caller), claims.as_slice()) {
            (Some(own), _) => own,
            (None, []) => Target::Gone,
            (None, [only]) => only.clone(),
            (None, _) => Target::Contested,
        }
    }

    fn is_redirected(&self, at: usize) -> bool {
        let claiming: BTreeSet<&str> = self
            .counting(at)
            .iter()
            .map(|(_, port)| &*port.service.namespace)
            .collect();
        claiming.len() == 1 || claiming.iter().any(|namespace| self.pods.contains(namespace))
    }
}

proptest! {
    #[test]
    fn a_foreign_claim_never_takes_what_another_namespace_claims(steps in prop::collection::vec(step(), 1..60)) {
        let (mut claims, mut naive) = (Claims::default(), Naive::default());
        // As the snapshot has them, by the updates alone.
        let mut shown: BTreeMap<DestinationId, Destination> = BTreeMap::new();
        let now = tokio::time::Instant::now().into_std();
        for step in steps {
            match step {
                Step::Claim(at, port, rank) => {
                    shown.extend(claims.claim(address(at), target(&port, rank)));
                    naive.claims.insert((at, port.service.clone()), (rank, port));
                }
                Step::Withdraw(at, port) => {
                    shown.extend(claims.withdraw(address(at), &port.service, now));
                    naive.claims.remove(&(at, port.service));
                }
                Step::PodComes(namespace) => {
                    shown.extend(claims.pod_comes(&namespace.into()));
                    naive.pods.push(namespace);
                }
                Step::PodGoes(namespace) => {
                    if let Some(at) = naive.pods.iter().position(|pod| *pod == namespace) {
                        naive.pods.remove(at);
                        shown.extend(claims.pod_goes(&namespace.into()));
                    }
                }
            }
            for destination in shown.values() {
                let at = (0..3).find(|at| address(*at) == destination.address).unwrap();
                for caller in ["a", "b", "c", "nobody"] {
                    prop_assert_eq!(destination.target_of(caller), &naive.target_of(at, caller), "{}", caller);
                }
                prop_assert_eq!(destination.is_redirected, naive.is_redirected(at));
                let contested = destination.target == Target::Contested;
                prop_assert_eq!(claims.contested.contains(&destination.address), contested);
            }
        }
    }
}
