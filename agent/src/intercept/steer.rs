//! The sk_lookup programs: a small one, of which each pod has a copy attached to its network namespace, and the one that
//! decides, which the copies call.
//!
//! A copy has its pod's numbers in its instructions, because the kernel tells an sk_lookup program nothing of the namespace
//! in which it runs. aya loads a program once, so the copies are loaded here.

use std::{
    collections::HashMap,
    ffi::CString,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd},
};

use aya::{
    Ebpf,
    maps::{Map, MapData, ProgramArray},
    programs::SkLookup,
};
use aya_obj::{
    Object,
    generated::{bpf_attach_type, bpf_insn, bpf_prog_type},
};
use derny_ebpf_common::{OWN_COOKIE, OWN_SLOT};

use super::{
    InterceptError, Netns,
    load::{open_again, program, take},
    syscalls,
};

const STEER: &str = "derny_steer";
const LOOKUP: &str = "derny_lookup";
const STEERING: &str = "DERNY_STEERING";

/// `BPF_LD | BPF_DW | BPF_IMM`: loads a constant of 64 bits, whose upper half is in the next instruction.
const LOAD_CONSTANT: u8 = 0x18;

/// What copies are made from.
pub(super) struct Steering {
    /// With the descriptors of the maps, and placeholders for the pod's numbers.
    instructions: Vec<bpf_insn>,
    license: CString,
    /// Keeps the descriptors that the instructions name.
    _maps: Vec<MapData>,
}

impl Steering {
    /// `object` is what `programs` were loaded from. None of their maps may have been taken yet.
    pub(super) fn prepare(object: &[u8], programs: &Ebpf) -> Result<Self, InterceptError> {
        let unusable = |reason: String| InterceptError::Copy { reason };
        let mut object = Object::parse(object).map_err(|error| unusable(error.to_string()))?;
        let mut maps = HashMap::new();
        for (name, map) in programs.maps() {
            let id = data(map).ok_or_else(|| unusable(format!("map {name} is of an unknown kind")))?;
            let id = id.info().map_err(InterceptError::map(LOOKUP))?.id();
            maps.insert(name.to_owned(), open_again(LOOKUP, id)?);
        }
        let descriptions = std::mem::take(&mut object.maps);
        let known = descriptions.iter().filter_map(|(name, description)| {
            let descriptor: RawFd = maps.get(name)?.fd().as_fd().as_raw_fd();
            Some((name.as_str(), descriptor, description))
        });
        let sections = object.functions.keys().map(|(section, _)| *section).collect();
        object
            .relocate_maps(known, &sections)
            .and_then(|()| object.relocate_calls(&sections))
            .map_err(|error| unusable(error.to_string()))?;
        object.sanitize_functions(aya::features());
        let program = object
            .programs
            .get(LOOKUP)
            .ok_or(InterceptError::NoProgram { name: LOOKUP })?;
        let function = object
            .functions
            .get(&program.function_key())
            .ok_or(InterceptError::NoProgram { name: LOOKUP })?;
        let steering = Self {
            instructions: function.instructions.clone(),
            license: program.license.clone(),
            _maps: maps.into_values().collect(),
        };
        for placeholder in [OWN_COOKIE, OWN_SLOT] {
            if places(&steering.instructions, placeholder).next().is_none() {
                return Err(unusable(format!("placeholder {placeholder:#x} is not there")));
            }
        }
        Ok(steering)
    }

    /// Loads the copy for this pod and attaches it. Dropping what is given back detaches and unloads it.
    pub(super) fn attach(&self, netns: &Netns, slot: u32) -> Result<OwnedFd, InterceptError> {
        let error = |source| InterceptError::Steer { source };
        let mut instructions = self.instructions.clone();
        for (placeholder, value) in [(OWN_COOKIE, netns.cookie()), (OWN_SLOT, slot.into())] {
            let places: Vec<usize> = places(&instructions, placeholder).collect();
            places
                .into_iter()
                .for_each(|place| set(&mut instructions, place, value));
        }
        let (of_type, at) = (
            bpf_prog_type::BPF_PROG_TYPE_SK_LOOKUP,
            bpf_attach_type::BPF_SK_LOOKUP,
        );
        let program = syscalls::load(LOOKUP, of_type, at, &instructions, &self.license).map_err(error)?;
        syscalls::link(program.as_fd(), netns.as_fd(), at).map_err(error)
    }
}

/// Loads the program that the copies call, and tells them which it is. The kernel clears the table when the last
/// descriptor of it is closed: `Steering` has one.
pub(super) fn load_steering(programs: &mut Ebpf) -> Result<(), InterceptError> {
    let mut table: ProgramArray<MapData> = take(programs, STEERING)?;
    // One that no pod has: for the verifier's word, and for whoever lists programs.
    let lookup: &mut SkLookup = program(programs, LOOKUP)?;
    lookup.load().map_err(InterceptError::program(LOOKUP))?;
    let steer: &mut SkLookup = program(programs, STEER)?;
    steer.load().map_err(InterceptError::program(STEER))?;
    let descriptor = steer.fd().map_err(InterceptError::program(STEER))?;
    table.set(0, descriptor, 0).map_err(InterceptError::map(STEERING))
}

/// Where a constant is loaded.
fn places(instructions: &[bpf_insn], constant: u64) -> impl Iterator<Item = usize> {
    let loads = instructions.windows(2).enumerate();
    loads.filter_map(move |(place, pair)| {
        let value = u64::from(pair[0].imm.cast_unsigned()) | u64::from(pair[1].imm.cast_unsigned()) << 32;
        // A source register would say that the constant is a map.
        let is_constant = pair[0].code == LOAD_CONSTANT && pair[0].src_reg() == 0;
        (is_constant && value == constant).then_some(place)
    })
}

#[allow(clippy::cast_possible_truncation)] // Two halves.
fn set(instructions: &mut [bpf_insn], place: usize, value: u64) {
    instructions[place].imm = (value as u32).cast_signed();
    instructions[place + 1].imm = ((value >> 32) as u32).cast_signed();
}

/// Of the kinds of map that the object has.
fn data(map: &Map) -> Option<&MapData> {
    match map {
        Map::Array(data)
        | Map::HashMap(data)
        | Map::LruHashMap(data)
        | Map::PerCpuArray(data)
        | Map::ProgramArray(data)
        | Map::SockMap(data)
        | Map::SkStorage(data)
        | Map::RingBuf(data)
        | Map::PerfEventArray(data) => Some(data),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instruction(code: u8, imm: u32) -> bpf_insn {
        let mut it = bpf_insn {
            code,
            _bitfield_align_1: [],
            _bitfield_1: bpf_insn::new_bitfield_1(3, 0),
            off: 0,
            imm: imm.cast_signed(),
        };
        it.set_dst_reg(3);
        it
    }

    #[test]
    fn a_constant_is_found_where_it_is_loaded_and_nowhere_else() {
        #[allow(clippy::cast_possible_truncation)]
        let (low, high) = (OWN_COOKIE as u32, (OWN_COOKIE >> 32) as u32);
        let mut program = vec![
            instruction(0xb7, low),
            instruction(LOAD_CONSTANT, low),
            instruction(0, high),
            instruction(LOAD_CONSTANT, low),
            instruction(0, high + 1),
        ];
        assert_eq!(places(&program, OWN_COOKIE).collect::<Vec<_>>(), [1]);
        set(&mut program, 1, u64::MAX - 7);
        assert_eq!(places(&program, OWN_COOKIE).count(), 0);
        assert_eq!(places(&program, u64::MAX - 7).collect::<Vec<_>>(), [1]);
    }
}
