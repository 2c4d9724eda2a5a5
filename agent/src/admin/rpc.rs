//! The calls of `proto/admin.proto`, answered from the view.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::{
    Unanswered, View,
    proto::{
        self, ExplainRequest, Explanation, GetStatusRequest, ListEndpointsRequest, ListEndpointsResponse,
        ListPodsRequest, ListPodsResponse, ListServicesRequest, ListServicesResponse, admin_server::Admin,
    },
};

pub(super) struct Rpc(Arc<dyn View>);

impl Rpc {
    pub(super) fn new(view: Arc<dyn View>) -> Self {
        Self(view)
    }
}

#[tonic::async_trait]
impl Admin for Rpc {
    async fn get_status(&self, _: Request<GetStatusRequest>) -> Result<Response<proto::Status>, Status> {
        Ok(Response::new(self.0.status()))
    }

    async fn list_pods(&self, _: Request<ListPodsRequest>) -> Result<Response<ListPodsResponse>, Status> {
        Ok(Response::new(ListPodsResponse { pods: self.0.pods() }))
    }

    async fn list_services(
        &self,
        _: Request<ListServicesRequest>,
    ) -> Result<Response<ListServicesResponse>, Status> {
        Ok(Response::new(ListServicesResponse {
            services: self.0.services(),
        }))
    }
    async fn list_endpoints(
        &self,
        request: Request<ListEndpointsRequest>,
    ) -> Result<Response<ListEndpointsResponse>, Status> {
        let endpoints = self.0.endpoints(&request.into_inner().service)?;
        Ok(Response::new(ListEndpointsResponse { endpoints }))
    }

    async fn explain(&self, request: Request<ExplainRequest>) -> Result<Response<Explanation>, Status> {
        Ok(Response::new(self.0.explain(&request.into_inner())?))
    }
}

impl From<Unanswered> for Status {
    fn from(error: Unanswered) -> Self {
        match error {
            Unanswered::NotFound(sentence) => Self::not_found(sentence),
            Unanswered::Invalid(sentence) => Self::invalid_argument(sentence),
        }
    }
}
