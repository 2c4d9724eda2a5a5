//! The words of the mesh. Plain data: no IO, no clock, no serialisation.

mod addr;
mod protocol;
mod grpc;
mod policy;
mod health_check;
mod endpoint;
mod dns;
mod pattern;
mod service_name;
mod route;
mod cors;
mod service;
mod pod;
mod update;
mod origin;
mod demand;
mod budgets;

pub use addr::{AnsweredBy, DestinationId, MAX_SLOTS, Slot};
pub use budgets::{Budget, Refusals, Refused};
pub use cors::{Cors, CorsList, CorsOrigins, HostPattern, OriginPattern};
pub use demand::Demand;
pub use dns::{Dns, DnsMode, TtlBounds};
pub use endpoint::{Endpoint, EndpointState, Endpoints, Family};
pub use grpc::is_grpc;
pub use health_check::{HealthCheck, Probe};
pub use origin::Origins;
pub use pattern::{Pattern, PatternError, PatternShare};
pub use pod::{
    Bystander, Ending, EnrolmentId, GroupId, InboundPort, NetnsIdentity, OpenNetns, Pod, PodAddresses,
    PodName, PodNetns, PodState, PodStatus, Standing,
};
pub use policy::{
    Algorithm, Backoff, CircuitBreaking, ConnectionPool, FailurePercentage, HashKey, InboundLimits,
    LoadBalancer, OutlierDetection, Policy, RequestTimeout, Retry, RetryBudget, RetryOn, SuccessRate,
    Timeouts, ZoneAware,
};
pub use protocol::Protocol;
pub use route::{
    Backend, Filter, HeaderChange, Match, PathChange, PathMatch, Redirect, Route, RouteKind, Rule, RuleFault,
    RuleRetry, RuleTimeouts, Share, ValueMatch,
};
pub use service::{Service, ServicePort};
pub use service_name::{ServiceName, ServicePortName};
pub use update::Update;
