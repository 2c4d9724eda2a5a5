//! The tasks that accept a pod's connections.

use std::{io, net, rc::Rc};

use tokio::net::TcpListener;

use super::{
    connection,
    context::Worker,
    local_pod::{EnrolledPod, LocalPod},
};
use crate::share::Task;

/// Accepts the pod's connections from now on.
pub(super) fn enrol(worker: &Rc<Worker>, mut enrolled: EnrolledPod) -> io::Result<()> {
    let outbound = registered(&mut enrolled.outbound)?;
    let inbound = registered(&mut enrolled.inbound)?;
    let (pod, triggers) = LocalPod::new(worker.view.registry(), &worker.recorder.counters, &enrolled);
    worker.local_ports.enrol(pod.id, &enrolled.addresses, pod.ports());
    let outbound = outbound
        .into_iter()
        .map(|listener| accept_outbound(worker, &pod, listener));
    let inbound = inbound
        .into_iter()
        .map(|listener| accept_inbound(worker, &pod, listener));
    let accepting = outbound.chain(inbound).collect();
    worker.pods.add(&pod, triggers, accepting);
    Ok(())
}

fn accept_outbound(worker: &Rc<Worker>, pod: &Rc<LocalPod>, listener: TcpListener) -> Task {
    let (worker, pod) = (worker.clone(), pod.clone());
    pod.share.clone().task(async move {
        loop {
            let (stream, place) = worker.acceptor.accept(&listener, &pod.share).await;
            let connection = connection::outbound(worker.clone(), pod.clone(), stream, place);
            pod.share.spawn(connection);
        }
    })
}

fn accept_inbound(worker: &Rc<Worker>, pod: &Rc<LocalPod>, listener: TcpListener) -> Task {
    let (worker, pod) = (worker.clone(), pod.clone());
    pod.share.clone().task(async move {
        loop {
            let (stream, place) = worker.acceptor.accept(&listener, &pod.share).await;
            let connection = connection::inbound(worker.clone(), pod.clone(), stream, place);
            pod.share.spawn(connection);
        }
    })
}

fn registered(listeners: &mut Vec<net::TcpListener>) -> io::Result<Vec<TcpListener>> {
    std::mem::take(listeners)
        .into_iter()
        .map(TcpListener::from_std)
        .collect()
}
