//! Whether a program is static, read from its own headers (elf(5)).

use anyhow::{Context, Result, ensure};

/// Program header that names the dynamic linker.
const PT_INTERP: u32 = 3;

/// The dynamic linker that a 64-bit little-endian program asks for; `None` for one that needs none.
pub(super) fn interpreter(program: &[u8]) -> Result<Option<String>> {
    ensure!(
        program.get(..6) == Some(b"\x7fELF\x02\x01"),
        "not a 64-bit little-endian ELF program"
    );
    let headers = offset(program, 32)?;
    let size = half(program, 54)?;
    for index in 0..half(program, 56)? {
        let header = headers + index * size;
        let kind = bytes::<4>(program, header).map(u32::from_le_bytes)?;
        if kind == PT_INTERP {
            let (start, length) = (offset(program, header + 8)?, offset(program, header + 32)?);
            let path = program
                .get(start..start + length)
                .context("a header points past the end")?;
            return Ok(Some(
                String::from_utf8_lossy(path).trim_end_matches('\0').to_owned(),
            ));
        }
    }
    Ok(None)
}

fn half(program: &[u8], at: usize) -> Result<usize> {
    bytes(program, at).map(|it| usize::from(u16::from_le_bytes(it)))
}

fn offset(program: &[u8], at: usize) -> Result<usize> {
    let offset = bytes(program, at).map(u64::from_le_bytes)?;
    // No sum of two of them overflows.
    ensure!(offset < 1 << 48, "a header points past the end");
    Ok(usize::try_from(offset)?)
}

fn bytes<const N: usize>(program: &[u8], at: usize) -> Result<[u8; N]> {
    let bytes = program.get(at..at + N).context("the program is cut off")?;
    Ok(bytes.try_into()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dynamic_program_names_its_linker() {
        let this = std::fs::read("/proc/self/exe").unwrap();
        let interpreter = interpreter(&this).unwrap().unwrap();
        assert!(std::path::Path::new(&interpreter).exists(), "{interpreter}");
    }

    #[test]
    fn a_program_without_the_header_is_static() {
        let mut this = std::fs::read("/proc/self/exe").unwrap();
        let headers = offset(&this, 32).unwrap();
        for index in 0..half(&this, 56).unwrap() {
            let at = headers + index * half(&this, 54).unwrap();
            if this[at] == 3 {
                // PT_NULL
                this[at] = 0;
            }
        }
        assert_eq!(interpreter(&this).unwrap(), None);
    }

    #[test]
    fn what_is_no_program_is_an_error() {
        interpreter(b"#!/bin/sh").unwrap_err();
        let this = std::fs::read("/proc/self/exe").unwrap();
        interpreter(&this[..60]).unwrap_err();
    }
}
