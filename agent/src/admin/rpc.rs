//! The calls of `proto/admin.proto`, answered from the view.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::{
    View,
    proto::{
        self, GetStatusRequest, ListPodsRequest, ListPodsResponse, ListServicesRequest, ListServicesResponse,
        admin_server::Admin,
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
}
