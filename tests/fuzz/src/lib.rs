//! Bytes from outside, given to every parser of the agent and to the whole engine with two pods. The oracle: nothing
//! panics, nothing takes more memory than its share, and no byte of one pod's exchange reaches the other.
//!
//! `cargo xtask fuzz` runs each of `targets/` by cargo-fuzz, which is guided by coverage and starts with the committed
//! corpus. An input that fails is written to `target/fuzz/`; it belongs into the corpus when the fault is mended, and
//! `tests/corpus.rs` keeps it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

/// Live bytes of the process, and their peak.
mod memory;
/// Two pods and the engine between them and a server.
mod engine;

use std::cell::RefCell;

#[cfg(feature = "libfuzzer")]
#[doc(hidden)]
pub use libfuzzer_sys;

use engine::Site;

#[global_allocator]
static ALLOCATOR: memory::Counting = memory::Counting;

/// What an input to a parser may take in bytes, for each of its own and in all: a regex is compiled to a program that is
/// larger than its text, and the engine's own bound for one is 1 MiB.
const PARSER_BYTES: (usize, usize) = (4096, 16 << 20);
/// Targets that give the input to the engine, as a pod's connection.
const ENGINE: [&str; 2] = ["engine_http1", "engine_http2"];

thread_local! {
    /// Never dropped: it would meet thread-locals of the engine that have gone before it.
    static SITE: RefCell<Option<&'static mut Site>> = const { RefCell::new(None) };
}

/// The names of all targets.
pub fn targets() -> impl Iterator<Item = &'static str> {
    derny::fuzz::TARGETS
        .iter()
        .map(|target| target.name)
        .chain(ENGINE)
}

/// Gives `bytes` to a target.
///
/// # Errors
/// The fault that they show.
///
/// # Panics
/// Where a parser does, and for a target that is not there.
pub fn run(target: &str, bytes: &[u8]) -> Result<(), String> {
    if ENGINE.contains(&target) {
        return SITE.with_borrow_mut(|site| match site {
            Some(site) => site.attack(bytes),
            none => none.insert(Box::leak(Box::new(Site::start()?))).attack(bytes),
        });
    }
    let parser = derny::fuzz::TARGETS.iter().find(|it| it.name == target);
    parse(
        parser.ok_or_else(|| format!("there is no target {target}"))?.run,
        bytes,
    )
}

fn parse(run: fn(&[u8]), bytes: &[u8]) -> Result<(), String> {
    let before = memory::reset_peak();
    run(bytes);
    let taken = memory::peak().saturating_sub(before);
    let (each, all) = PARSER_BYTES;
    if taken > bytes.len() * each + all {
        return Err(format!("{taken} bytes of memory for {} bytes", bytes.len()));
    }
    Ok(())
}

/// The program that fuzzes the target of its own name.
#[cfg(feature = "libfuzzer")]
#[macro_export]
macro_rules! target {
    () => {
        $crate::libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
            if let Err(fault) = $crate::run(env!("CARGO_BIN_NAME"), bytes) {
                panic!("{fault}");
            }
        });
    };
}
