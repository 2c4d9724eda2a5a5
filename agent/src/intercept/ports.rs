//! Which ports the agent takes inside a pod: none that the kernel gives out to the pod's own sockets.

use std::{fs, ops::RangeInclusive};

/// The kernel's own default (ip(7), `ip_local_port_range`).
const DEFAULT: RangeInclusive<u16> = 32_768..=60_999;
/// Servers that need no privilege begin here, and where all from here on are given out, those below are taken down to
/// [`LOWEST`]: what runs in pods listens at few of them.
const UNPRIVILEGED: u16 = 1024;
const LOWEST: u16 = 600;

/// The ports that the kernel gives out to who binds none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ephemeral(RangeInclusive<u16>);

impl Ephemeral {
    /// Of the network namespace of this thread.
    pub(super) fn of_this_namespace() -> Self {
        let setting = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
        Self(setting.ok().as_deref().and_then(parse).unwrap_or(DEFAULT))
    }

    /// Ports that are not given out, from the highest down.
    pub(super) fn beside(&self) -> impl Iterator<Item = u16> + use<> {
        let range = self.0.clone();
        (LOWEST..=u16::MAX)
            .rev()
            .filter(move |port| !range.contains(port))
    }

    /// The same without those that servers need a privilege for, to be drawn from.
    pub(super) fn sources(&self) -> Vec<u16> {
        self.beside().take_while(|port| *port >= UNPRIVILEGED).collect()
    }
}

fn parse(setting: &str) -> Option<RangeInclusive<u16>> {
    let mut words = setting.split_whitespace().map(str::parse);
    match (words.next()?, words.next()?) {
        (Ok(first), Ok(last)) => Some(first..=last),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_beside_the_range_come_from_the_highest_down() {
        let check = |setting: &str, first: &[u16], sources: usize| {
            let ephemeral = Ephemeral(parse(setting).unwrap_or(DEFAULT));
            let beside: Vec<u16> = ephemeral.beside().take(first.len()).collect();
            assert_eq!(beside, first, "{setting:?}");
            assert_eq!(ephemeral.sources().len(), sources, "{setting:?}");
        };
        check("32768\t60999\n", &[65_535, 65_534], 4_536 + 31_744);
        check("1024 65535", &[1023, 1022], 0);
        check("40000 65534", &[65_535, 39_999], 1 + 38_976);
        check("garbage", &[65_535], 4_536 + 31_744);
        check("1 65535", &[], 0);
    }
}
