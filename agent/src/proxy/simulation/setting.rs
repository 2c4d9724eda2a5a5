//! What a world is furnished with.

use std::{net::SocketAddr, rc::Rc, time::Duration};

use tokio::net::TcpListener;

use crate::{
    accept::{Acceptor, Place},
    model::{
        Algorithm, CircuitBreaking, ConnectionPool, DestinationId, HashKey, LoadBalancer, Origins,
        OutlierDetection, Policy, Retry, ServiceName, ServicePortName, Timeouts,
    },
    share::Local,
};

/// Attempts after the first, at most.
pub(super) const RETRIES: u32 = 3;
pub(super) const MAX_EJECTED_PERCENT: u8 = 40;

pub(super) struct Nobody;

impl Origins for Nobody {
    fn destination(&self, _: u64, _: SocketAddr, _: SocketAddr) -> Option<DestinationId> {
        None
    }
}

/// The one service port.
pub(super) fn name() -> ServicePortName {
    ServicePortName {
        service: ServiceName {
            namespace: "demo".into(),
            name: "echo".into(),
        },
        port: 80,
    }
}

/// The place of a connection, from a connection that nobody uses.
pub(super) async fn place(acceptor: &Acceptor, pod: &Rc<Local>) -> Place {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dialled = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (_, place) = acceptor.accept(&listener, pod).await;
    drop(dialled);
    place
}

pub(super) fn breaking(rng: &mut fastrand::Rng) -> CircuitBreaking {
    CircuitBreaking {
        max_requests: Some(rng.u32(6..30)),
        max_pending_requests: Some(rng.u32(1..8)),
        max_connections: Some(rng.u32(1..12)),
        max_requests_per_endpoint: Some(6),
        ..CircuitBreaking::default()
    }
}

pub(super) fn policy(rng: &mut fastrand::Rng) -> Policy {
    let algorithms = [
        Algorithm::PeakEwma,
        Algorithm::LeastRequest,
        Algorithm::RoundRobin,
        Algorithm::Random,
        Algorithm::RingHash {
            key: HashKey::Header("x-request-id".parse().unwrap()),
            min_ring_size: 1024,
        },
    ];
    let few = rng.u32(1..10);
    Policy {
        load_balancer: LoadBalancer {
            algorithm: algorithms[rng.usize(..algorithms.len())].clone(),
            slow_start: Duration::from_millis(rng.u64(..300)),
            ..LoadBalancer::default()
        },
        connection_pool: ConnectionPool {
            idle_timeout: Duration::from_millis(rng.u64(50..2000)),
            max_requests_per_connection: rng.bool().then_some(few),
            max_connection_lifetime: rng.bool().then(|| Duration::from_millis(300)),
            ..ConnectionPool::default()
        },
        timeouts: Timeouts {
            per_try: rng.bool().then(|| Duration::from_millis(400)),
            ..Timeouts::default()
        },
        retry: Retry {
            attempts: rng.u32(..=RETRIES),
            ..Retry::default()
        },
        outlier_detection: Some(OutlierDetection {
            consecutive_5xx: 3,
            base_ejection_time: Duration::from_millis(200),
            max_ejection_time: Duration::from_millis(600),
            max_ejection_percent: MAX_EJECTED_PERCENT,
            ..OutlierDetection::default()
        }),
        circuit_breaking: breaking(rng),
        ..Policy::default()
    }
}
