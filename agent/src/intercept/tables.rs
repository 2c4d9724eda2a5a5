//! Addresses that are redirected, addresses of the node, and how the model's words look in the maps.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use aya::maps::MapError;
use derny_ebpf_common::{AddressKey, BY_AGENT, BY_NOBODY, BY_NODE, ConnectionKey, Destination, LABEL_BYTES};

use super::{InterceptError, Kernel};
use crate::model::{AnsweredBy, DestinationId};

impl Kernel {
    /// From now on connections of enrolled pods to `address`, the destination `id`, are answered by whom `answered_by`
    /// says. `label` names the destination in the kernel's table, `namespace/service:port`; what is over 64 bytes is cut.
    /// An address that is served already changes its destination and keeps its hits.
    ///
    /// # Errors
    /// [`InterceptError::Full`] when [`super::Options::max_destinations`] are served; this one goes direct.
    pub fn serve(
        &mut self,
        address: SocketAddr,
        id: DestinationId,
        label: &str,
        answered_by: AnsweredBy,
    ) -> Result<(), InterceptError> {
        let table = &mut self.tables.destinations;
        let key = address_key(address);
        let hits = table.get(&key, 0).map_or(0, |known| known.hits);
        let value = Destination {
            hits,
            id: id.get(),
            answered_by: match answered_by {
                AnsweredBy::Agent => BY_AGENT,
                AnsweredBy::Nobody => BY_NOBODY,
                AnsweredBy::Node => BY_NODE,
            },
            label: to_label(label),
        };
        table.insert(key, value, 0).map_err(|source| {
            let capacity = self.max_destinations();
            full_or(source, "DERNY_DESTS", capacity, address.to_string())
        })
    }

    /// Connections to `address` go where they were dialled to again. Those that exist go on through the agent.
    ///
    /// # Errors
    /// None for an address that is not redirected.
    pub fn stop_redirecting(&mut self, address: SocketAddr) -> Result<(), InterceptError> {
        match self.tables.destinations.remove(&address_key(address)) {
            Err(source) if !is_missing(&source) => Err(InterceptError::Map {
                name: "DERNY_DESTS",
                source,
            }),
            _ => Ok(()),
        }
    }

    /// Whose connections to pods are not steered to the agent: the node's own, such as the kubelet's probes.
    /// Replaces the former set.
    ///
    /// # Errors
    /// More addresses than the table holds (4096).
    pub fn set_node_addresses(&mut self, addresses: &[IpAddr]) -> Result<(), InterceptError> {
        let table = &mut self.tables.node_addresses;
        let wanted: Vec<AddressKey> = addresses
            .iter()
            .map(|ip| address_key(SocketAddr::new(*ip, 0)))
            .collect();
        let error = InterceptError::map("DERNY_NODE_ADDR");
        let present: Vec<AddressKey> = table.keys().collect::<Result<_, _>>().map_err(&error)?;
        for key in &wanted {
            table
                .insert(key, 1, 0)
                .map_err(|source| full_or(source, "DERNY_NODE_ADDR", 4096, from_key(key).ip().to_string()))?;
        }
        for key in present.iter().filter(|key| !wanted.contains(key)) {
            table.remove(key).map_err(&error)?;
        }
        Ok(())
    }
}

/// As the programs read it: what is none of the others goes to the agent.
pub(super) fn answered_by(value: u32) -> AnsweredBy {
    match value {
        BY_NOBODY => AnsweredBy::Nobody,
        BY_NODE => AnsweredBy::Node,
        _ => AnsweredBy::Agent,
    }
}

/// The kernel answers `E2BIG` when a hash without preallocation is full.
pub(super) fn full_or(source: MapError, name: &'static str, capacity: u32, key: String) -> InterceptError {
    match &source {
        MapError::SyscallError(error) if error.io_error.raw_os_error() == Some(libc::E2BIG) => {
            InterceptError::Full {
                table: name,
                capacity,
                key,
            }
        }
        _ => InterceptError::Map { name, source },
    }
}

pub(super) fn is_missing(error: &MapError) -> bool {
    match error {
        MapError::KeyNotFound | MapError::ElementNotFound => true,
        MapError::SyscallError(error) => error.io_error.raw_os_error() == Some(libc::ENOENT),
        _ => false,
    }
}

/// IPv4, also when it is written as IPv6, has one form in the maps.
pub(super) fn address_key(address: SocketAddr) -> AddressKey {
    AddressKey {
        ip_be: ip_words(address.ip()),
        port_be: address.port().to_be(),
        zero: 0,
    }
}

pub(super) fn from_key(key: &AddressKey) -> SocketAddr {
    let mut octets = [0; 16];
    for (bytes, word) in octets.chunks_exact_mut(4).zip(key.ip_be) {
        bytes.copy_from_slice(&word.to_ne_bytes());
    }
    SocketAddr::new(Ipv6Addr::from(octets).to_canonical(), u16::from_be(key.port_be))
}

/// A connection as the side that opened it sees it.
pub(super) fn connection_key(local: SocketAddr, remote: SocketAddr) -> ConnectionKey {
    ConnectionKey {
        local_ip_be: ip_words(local.ip()),
        remote_ip_be: ip_words(remote.ip()),
        local_port_be: local.port().to_be(),
        remote_port_be: remote.port().to_be(),
    }
}

fn ip_words(ip: IpAddr) -> [u32; 4] {
    let octets = match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    };
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(octets.chunks_exact(4)) {
        *word = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    }
    words
}

/// Cut at the end, at a character's border.
pub(super) fn to_label(text: &str) -> [u8; LABEL_BYTES] {
    let mut label = [0; LABEL_BYTES];
    let length = text.floor_char_boundary(LABEL_BYTES);
    label[..length].copy_from_slice(&text.as_bytes()[..length]);
    label
}

pub(super) fn from_label(label: &[u8; LABEL_BYTES]) -> String {
    let length = label.iter().position(|byte| *byte == 0).unwrap_or(LABEL_BYTES);
    String::from_utf8_lossy(&label[..length]).into_owned()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use derny_ebpf_common::{DESTINATIONS, PREFIX, Redirect, SLOTS};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_redirected_address_says_what_it_was_made_of(slot in 0..SLOTS, id in 0..DESTINATIONS) {
            let (ip, port) = Redirect { slot, id }.encode();
            prop_assert!(ip >> 22 == PREFIX >> 22, "outside 127.192.0.0/10");
            prop_assert!(port >= 0x8000);
            prop_assert_eq!(Redirect::decode(ip, port), Some(Redirect { slot, id }));
        }

        #[test]
        fn any_address_in_the_range_decodes_to_what_encodes_to_it(ip: u32, port: u16) {
            let ip = PREFIX | ip & 0x003f_ffff;
            match Redirect::decode(ip, port) {
                Some(redirect) => {
                    prop_assert!(redirect.slot < SLOTS && redirect.id < DESTINATIONS);
                    prop_assert_eq!(redirect.encode(), (ip, port));
                }
                None => prop_assert!(port < 0x8000),
            }
        }

        #[test]
        fn addresses_outside_the_range_are_nobodys(ip: u32, port: u16) {
            prop_assume!(ip >> 22 != PREFIX >> 22);
            prop_assert_eq!(Redirect::decode(ip, port), None);
        }

        #[test]
        fn an_address_survives_its_key(ip: Ipv6Addr, v4: Ipv4Addr, port: u16) {
            for address in [SocketAddr::new(ip.to_canonical(), port), SocketAddr::new(v4.into(), port)] {
                prop_assert_eq!(from_key(&address_key(address)), address);
            }
            let mapped = SocketAddr::new(v4.to_ipv6_mapped().into(), port);
            prop_assert_eq!(address_key(mapped), address_key(SocketAddr::new(v4.into(), port)));
        }

        #[test]
        fn a_label_is_the_text_as_far_as_it_fits(text in "[a-zé☃/:]{0,80}") {
            let label = from_label(&to_label(&text));
            prop_assert!(text.starts_with(&label));
            prop_assert!(label == text || label.len() > LABEL_BYTES - 4);
        }
    }

    #[test]
    fn the_worked_example_of_the_documentation() {
        // docs/kernel.md: slot 5, destination 98765.
        let (ip, port) = Redirect { slot: 5, id: 98_765 }.encode();
        assert_eq!(Ipv4Addr::from(ip), Ipv4Addr::new(127, 192, 80, 3));
        assert_eq!(port, 33_229);
    }
}
