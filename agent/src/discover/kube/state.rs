//! What is known of services, as it is saved.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    objects,
    shares::{RawRoute, Shares, Told},
    watch::Event,
    world::World,
};
use crate::model::{RouteKind, ServiceName};

/// The API's objects in their shortest forms.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Saved {
    services: Vec<objects::Service>,
    policies: Vec<Value>,
    http_routes: Vec<Value>,
    grpc_routes: Vec<Value>,
    endpoints: Vec<SavedEndpoints>,
    pub(super) zone: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct SavedEndpoints {
    namespace: String,
    service: String,
    slices: Vec<objects::EndpointSlice>,
}

impl Saved {
    pub(super) fn of(world: &World, zone: Option<String>) -> Self {
        let values = |values: Vec<&Value>| values.into_iter().cloned().collect();
        let endpoints = world.endpoints.iter().map(|(service, watched)| SavedEndpoints {
            namespace: service.namespace.to_string(),
            service: service.name.to_string(),
            slices: watched.slices.to_objects(&service.namespace),
        });
        Self {
            services: world
                .services
                .values()
                .map(|declared| declared.to_object())
                .collect(),
            policies: values(world.policies.saved()),
            http_routes: values(world.http_routes.saved()),
            grpc_routes: values(world.grpc_routes.saved()),
            endpoints: endpoints.collect(),
            zone,
        }
    }

    /// Reads the routes, which may take a while: the events of them.
    pub(super) fn read_routes(&mut self, shares: &mut Shares) -> Vec<Told> {
        let http = typed::<objects::HttpRoute>(std::mem::take(&mut self.http_routes));
        let grpc = typed::<objects::GrpcRoute>(std::mem::take(&mut self.grpc_routes));
        let mut told = Vec::new();
        let http = http.into_iter().map(RawRoute::from).collect();
        tell(http, |event| told.extend(shares.take(RouteKind::Http, event)));
        let grpc = grpc.into_iter().map(RawRoute::from).collect();
        tell(grpc, |event| told.extend(shares.take(RouteKind::Grpc, event)));
        told
    }

    /// Tells an empty world all of it, with the `routes` that were read; the services whose endpoints were watched.
    pub(super) fn restore(self, world: &mut World, routes: Vec<Told>) -> Vec<ServiceName> {
        tell(self.services, |event| world.service(event));
        tell(typed(self.policies), |event| world.policy(event));
        routes.into_iter().for_each(|told| world.route(told));
        let mut watched = Vec::with_capacity(self.endpoints.len());
        for of in self.endpoints {
            let service = ServiceName {
                namespace: of.namespace.into(),
                name: of.service.into(),
            };
            world.watch_endpoints(&service);
            tell(of.slices, |event| world.slice(&service, event));
            watched.push(service);
        }
        watched
    }
}

fn tell<T>(objects: Vec<T>, mut to: impl FnMut(Event<T>)) {
    to(Event::Listing);
    objects.into_iter().for_each(|object| to(Event::Applied(object)));
    to(Event::Listed);
}

/// An object that is no longer understood is left out.
fn typed<T: serde::de::DeserializeOwned>(values: Vec<Value>) -> Vec<T> {
    let typed = values.into_iter().map(serde_json::from_value);
    typed.filter_map(Result::ok).collect()
}
