use std::path::Path;

use anyhow::{Context, Result};
use tonic::transport::{Channel, Endpoint};

use self::v1::{
    ImageSpec, ImageStatusRequest, StatusRequest, image_service_client::ImageServiceClient,
    runtime_service_client::RuntimeServiceClient,
};
use crate::background::Background;

/// `tests/proto/cri.proto`.
#[expect(unreachable_pub, clippy::enum_variant_names, reason = "generated")]
pub(super) mod v1 {
    tonic::include_proto!("runtime.v1");
}

type Client = RuntimeServiceClient<Channel>;

/// A connection to a runtime, for any number of threads.
#[derive(Debug)]
pub(super) struct Cri {
    runtime: Background,
    client: Client,
    images: ImageServiceClient<Channel>,
}

impl Cri {
    pub(super) fn connect(socket: &Path) -> Result<Self> {
        let runtime = Background::start()?;
        let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display()))?;
        let channel = runtime.block_on(endpoint.connect());
        let channel = channel.with_context(|| format!("connecting to {}", socket.display()))?;
        Ok(Self {
            runtime,
            client: Client::new(channel.clone()),
            images: ImageServiceClient::new(channel),
        })
    }

    /// One call, such as `|mut cri| async move { cri.stop_container(request).await }`.
    pub(super) fn call<T, F>(&self, what: &str, call: impl FnOnce(Client) -> F) -> Result<T>
    where
        F: Future<Output = Result<tonic::Response<T>, tonic::Status>>,
    {
        let answered = self.runtime.block_on(call(self.client.clone()));
        let answered = answered.map_err(|status| anyhow::anyhow!("{}: {}", status.code(), status.message()));
        Ok(answered.with_context(|| what.to_owned())?.into_inner())
    }

    /// Runtime and network.
    pub(super) fn is_ready(&self) -> Result<bool> {
        let status = self.call(
            "status",
            |mut cri| async move { cri.status(StatusRequest {}).await },
        )?;
        let conditions = status.status.map(|status| status.conditions).unwrap_or_default();
        Ok(!conditions.is_empty() && conditions.iter().all(|condition| condition.status))
    }

    /// Whether it knows an image, which it hears of some time after the import.
    pub(super) fn has_image(&self, image: &str) -> Result<bool> {
        let request = ImageStatusRequest {
            image: Some(ImageSpec {
                image: image.to_owned(),
            }),
        };
        let mut images = self.images.clone();
        let answer = self.runtime.block_on(images.image_status(request));
        Ok(answer
            .context("asking for an image")?
            .into_inner()
            .image
            .is_some())
    }
}
