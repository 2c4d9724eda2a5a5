//! The address by which a redirected connection reaches the agent.
//!
//! ```text
//!            127.192.0.0/10, 22 free bits                    port
//!  |0111 1111 11|ssss ssss ss|dd dddd dddd dd|     |1ddd dddd dddd dddd|
//!      prefix       slot      high 12 of id          1, low 15 of id
//! ```
//!
//! All of 127.0.0.0/8 is local to every network namespace, so such an address needs no route and no
//! configuration, and the accepted socket's own local address says which pod dialled which destination.

/// How many pods the slot bits can name.
pub const SLOTS: u16 = 1 << 10;
/// How many destinations the remaining bits can name.
pub const DESTINATIONS: u32 = 1 << 27;
/// The first address of the range, 127.192.0.0, in the machine's byte order.
pub const PREFIX: u32 = 0x7fc0_0000;
/// How many bits of [`PREFIX`] count.
pub const PREFIX_BITS: u32 = 10;

const PREFIX_MASK: u32 = !0 << (32 - PREFIX_BITS);
const ID_HIGH_BITS: u32 = 12;
const ID_LOW_BITS: u32 = 15;
const PORT_FLAG: u16 = 1 << ID_LOW_BITS;

/// What a redirected address says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// Below [`SLOTS`].
    pub slot: u16,
    /// Below [`DESTINATIONS`].
    pub id: u32,
}

impl Redirect {
    /// IPv4 address and port, both in the machine's byte order. Bits that do not fit are cut.
    #[inline(always)]
    pub const fn encode(self) -> (u32, u16) {
        let id = self.id & (DESTINATIONS - 1);
        let slot = (self.slot & (SLOTS - 1)) as u32;
        let address = PREFIX | slot << ID_HIGH_BITS | id >> ID_LOW_BITS;
        // The mask keeps 15 bits.
        #[allow(clippy::cast_possible_truncation)]
        let low = (id & (PORT_FLAG as u32 - 1)) as u16;
        (address, PORT_FLAG | low)
    }

    /// `None` for an address outside 127.192.0.0/10 and for a port below 32768. Both arguments are in the
    /// machine's byte order.
    #[inline(always)]
    pub const fn decode(address: u32, port: u16) -> Option<Self> {
        if address & PREFIX_MASK != PREFIX || port & PORT_FLAG == 0 {
            return None;
        }
        let host = address & !PREFIX_MASK;
        // 22 bits less 12 leave the 10 of a slot.
        #[allow(clippy::cast_possible_truncation)]
        let slot = (host >> ID_HIGH_BITS) as u16;
        let high = host & ((1 << ID_HIGH_BITS) - 1);
        Some(Self {
            slot,
            id: high << ID_LOW_BITS | (port & !PORT_FLAG) as u32,
        })
    }
}

const _: () = {
    assert!(PREFIX_BITS + SLOTS.trailing_zeros() + ID_HIGH_BITS == 32);
    assert!(DESTINATIONS == 1 << (ID_HIGH_BITS + ID_LOW_BITS));
};
