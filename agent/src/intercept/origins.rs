//! What an accepted connection was for.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use aya::maps::{HashMap, MapData};
use derny_ebpf_common::{PodConnectionKey, Redirect};

use super::tables::connection_key;
use crate::model::DestinationId;

/// Tells which destination a connection was for that an outbound listener accepted.
#[derive(Clone)]
pub struct Origins {
    tuples: Arc<HashMap<MapData, PodConnectionKey, u32>>,
}

impl Origins {
    pub(super) fn new(tuples: HashMap<MapData, PodConnectionKey, u32>) -> Self {
        Self {
            tuples: Arc::new(tuples),
        }
    }

    /// `local` and `peer` are the accepted socket's, `netns_cookie` its network namespace's. IPv4: read off `local`, without
    /// a system call. IPv6: one map lookup. `None`: nobody redirected this connection, the pod dialled the listener itself.
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
                // The client's view.
                let key = PodConnectionKey::new(netns_cookie, connection_key(peer, local));
                let id = self.tuples.get(&key, 0).ok()?;
                DestinationId::new(id)
            }
        }
    }
}
