//! All four gRPC kinds over one tonic channel, checked message by message, and what surrounds the messages.

use std::{collections::BTreeMap, time::Duration};

use ::tonic::{
    Code, Request, Status,
    metadata::MetadataValue,
    transport::{Channel, Endpoint},
};
use anyhow::{Context, Result, ensure};
use clap::Args;
use derny_tests::proto::{EchoReply, EchoRequest, echo_client::EchoClient};
use futures_util::{StreamExt, stream};

#[derive(Debug, Args)]
pub(crate) struct Options {
    /// HOST:PORT
    target: String,
    #[arg(long, default_value_t = 30)]
    calls: u32,
    /// Of each stream.
    #[arg(long, default_value_t = 100)]
    messages: u32,
    /// Bytes of each message.
    #[arg(long, default_value_t = 1000)]
    payload: usize,
    /// Only calls that are given up after this, in milliseconds, while the server would take ten seconds.
    #[arg(long)]
    cancel_after: Option<u64>,
}

type Client = EchoClient<Channel>;

pub(crate) fn run(options: &Options) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(talk(options))
}

async fn talk(options: &Options) -> Result<()> {
    let endpoint = Endpoint::from_shared(format!("http://{}", options.target))?;
    let mut client = EchoClient::new(endpoint.connect().await?);
    if let Some(after) = options.cancel_after {
        return cancel(client, options.calls, Duration::from_millis(after)).await;
    }
    let mut endpoints: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..options.calls {
        let reply = client
            .unary(message(options, 0))
            .await
            .context("unary")?
            .into_inner();
        ensure!(
            reply.payload == message(options, 0).payload,
            "unary: another payload"
        );
        *endpoints.entry(reply.endpoint).or_default() += 1;
    }
    streams(&mut client, options).await?;
    for place in ["headers", "trailers"] {
        let status = failing(&mut client, place).await.err().context("no error")?;
        ensure!(
            status.code() == Code::FailedPrecondition,
            "status in {place}: {status:?}"
        );
        ensure!(status.message() == "as asked", "message in {place}: {status:?}");
    }
    println!("{}", serde_json::to_string(&endpoints)?);
    Ok(())
}

async fn streams(client: &mut Client, options: &Options) -> Result<()> {
    let count = options.messages;
    let wanted = message(options, 0).payload;
    let answered = client.server_stream(message(options, count)).await?;
    let replies: Vec<Result<EchoReply, Status>> = answered.into_inner().collect().await;
    ensure!(
        replies.len() == usize::try_from(count)?,
        "server stream: {}",
        replies.len()
    );
    for (index, reply) in replies.into_iter().enumerate() {
        let reply = reply.context("server stream")?;
        ensure!(
            usize::try_from(reply.index)? == index,
            "server stream: out of order"
        );
        ensure!(reply.payload == wanted, "server stream: another payload");
    }

    let messages = vec![message(options, 0); usize::try_from(count)?];
    let reply = client
        .client_stream(stream::iter(messages))
        .await
        .context("client stream")?;
    let reply = reply.into_inner();
    let bytes = u64::from(count) * options.payload as u64;
    ensure!(
        (reply.index, reply.received) == (count, bytes),
        "client stream: {reply:?}"
    );

    // Each message is sent only when the answer to the one before has come.
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let outgoing = stream::unfold(receiver, |mut receiver| async {
        let message = receiver.recv().await?;
        Some((message, receiver))
    });
    sender.send(message(options, 0)).await?;
    let mut replies = client.bidi(outgoing).await.context("bidi")?.into_inner();
    for index in 0..count {
        let reply = replies
            .next()
            .await
            .context("bidi: ended early")?
            .context("bidi")?;
        ensure!(reply.index == index, "bidi: out of order");
        ensure!(reply.payload == wanted, "bidi: another payload");
        if index + 1 < count {
            sender.send(message(options, 0)).await?;
        }
    }
    drop(sender);
    ensure!(replies.next().await.is_none(), "bidi: a message too many");
    Ok(())
}

/// A call that the server fails with FAILED_PRECONDITION, its status in the headers or in the trailers.
async fn failing(client: &mut Client, place: &'static str) -> Result<(), Status> {
    let mut request = Request::new(EchoRequest::default());
    let metadata = request.metadata_mut();
    metadata.insert("x-test-status", MetadataValue::from_static("9"));
    metadata.insert("x-test-status-in", MetadataValue::from_static(place));
    client.unary(request).await.map(|_| ())
}

async fn cancel(mut client: Client, calls: u32, after: Duration) -> Result<()> {
    let calls = (0..calls).map(|_| {
        let mut client = client.clone();
        async move {
            let mut request = Request::new(EchoRequest::default());
            let delay = MetadataValue::from_static("10000");
            request.metadata_mut().insert("x-test-delay", delay);
            tokio::time::timeout(after, client.unary(request)).await
        }
    });
    let ended: Vec<_> = stream::iter(calls).buffer_unordered(1000).collect().await;
    let answered = ended.iter().filter(|call| call.is_ok()).count();
    ensure!(answered == 0, "{answered} calls ended before they were cancelled");
    // The connection's own task sends the resets, and ends with the runtime: they are out before a call that is answered.
    client.unary(Request::new(EchoRequest::default())).await?;
    println!("cancelled");
    Ok(())
}

fn message(options: &Options, count: u32) -> EchoRequest {
    EchoRequest {
        payload: (0..options.payload)
            .map(|at| (at % 251).to_le_bytes()[0])
            .collect(),
        count,
    }
}
