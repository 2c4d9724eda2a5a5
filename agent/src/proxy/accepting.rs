//! The tasks that accept a pod's connections.

use std::{io, net, rc::Rc};

use tokio::net::{TcpListener, TcpStream};

use super::{
    connection,
    context::Worker,
    local_pod::{EnrolledPod, LocalPod},
};
use crate::{accept::Place, share::Task};

/// Accepts the pod's connections from now on.
pub(super) fn enrol(worker: &Rc<Worker>, mut enrolled: EnrolledPod) -> io::Result<()> {
    let outbound = registered(&mut enrolled.outbound)?;
    let inbound = registered(&mut enrolled.inbound)?;
    let (pod, triggers) = LocalPod::new(worker.view.registry(), &worker.recorder.counters, &enrolled);
    worker.local_ports.enrol(pod.id, &enrolled.addresses, pod.ports());
    let outbound = outbound
        .into_iter()
        .map(|listener| accept(worker, &pod, listener, connection::outbound));
    let inbound = inbound
        .into_iter()
        .map(|listener| accept(worker, &pod, listener, connection::inbound));
    let accepting = outbound.chain(inbound).collect();
    worker.pods.add(&pod, triggers, accepting);
    Ok(())
}

/// Has each connection of `listener` served by a task of its own.
fn accept<F: Future<Output = ()> + 'static>(
    worker: &Rc<Worker>,
    pod: &Rc<LocalPod>,
    listener: TcpListener,
    serve: fn(Rc<Worker>, Rc<LocalPod>, TcpStream, Place) -> F,
) -> Task {
    let (worker, pod) = (worker.clone(), pod.clone());
    pod.share.clone().task(async move {
        loop {
            let (stream, place) = worker.acceptor.accept(&listener, &pod.share).await;
            pod.share.spawn(serve(worker.clone(), pod.clone(), stream, place));
        }
    })
}

fn registered(listeners: &mut Vec<net::TcpListener>) -> io::Result<Vec<TcpListener>> {
    std::mem::take(listeners)
        .into_iter()
        .map(TcpListener::from_std)
        .collect()
}
