//! Objects that are not in force as they are written.

use super::World;
use crate::discover::kube::{
    attached::{Attached, Attaches},
    board::{InForce, ObjectFault},
    objects::Watched as _,
    objects::{GrpcRoute, HttpRoute, TrafficPolicy},
};

impl World {
    pub(in crate::discover::kube) fn faults(&self) -> Vec<ObjectFault> {
        let policies = of(&self.policies, TrafficPolicy::OF.plural);
        let http = of(&self.http_routes, HttpRoute::OF.plural);
        let grpc = of(&self.grpc_routes, GrpcRoute::OF.plural);
        policies.chain(http).chain(grpc).collect()
    }
}

fn of<T: Attaches + PartialEq>(
    objects: &Attached<T>,
    resource: &'static str,
) -> impl Iterator<Item = ObjectFault> {
    objects.all().filter_map(move |(name, entry)| {
        let fault = entry.fault.as_ref()?;
        Some(ObjectFault {
            resource,
            object: name.to_string(),
            message: fault.message.clone(),
            in_force: match &entry.good {
                None => InForce::Nothing,
                Some(good) if good.fault_in_part().is_some() => InForce::Part,
                Some(_) => InForce::LastGood,
            },
        })
    })
}
