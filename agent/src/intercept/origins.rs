//! What an accepted connection was for.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use aya::maps::{HashMap, MapData};
use derny_ebpf_common::{LoopbackKey, Redirect};

use crate::model::DestinationId;

/// Tells which destination a connection was for that an outbound listener accepted.
#[derive(Clone)]
pub struct Origins {
    tuples: Arc<HashMap<MapData, LoopbackKey, u32>>,
}

impl Origins {
    pub(super) fn new(tuples: HashMap<MapData, LoopbackKey, u32>) -> Self {
        Self {
            tuples: Arc::new(tuples),
        }
    }

    /// `local` and `peer` are the accepted socket's, `netns_cookie` its network namespace's. IPv4: read off `local`, without a system call. IPv6: one
    /// map lookup. `None`: nobody redirected this connection, the pod dialled the listener itself.
    pub fn destination(
        &self,
        netns_cookie: u64,
        local: SocketAddr,
        peer: SocketAddr,
    ) -> Option<DestinationId> {
        match local.ip().to_canonical() {
            IpAddr::V4(ip) => {
                let redirect = Redirect::decode(ip.to_bits(), local.port())?;
                DestinationId::new(redirect.id)
            }
            IpAddr::V6(_) => {
                let key = LoopbackKey::new(netns_cookie, peer.port().to_be(), local.port().to_be());
                let id = self.tuples.get(&key, 0).ok()?;
                DestinationId::new(id)
            }
        }
    }
}
