//! Bytes that others choose, at every parser of the agent and at the whole engine with two pods: nothing panics, nothing
//! takes more memory than its share, and no byte of one pod's exchange reaches the other.
//!
//! Inputs are mutations of the corpus beside this file, the same for the same seed, so that a failure repeats. It runs as
//! a test with few inputs, and by `cargo xtask fuzz` with more. An input that fails is written to `target/fuzz/`; it
//! belongs into the corpus when it is mended.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

/// Live bytes of the process, and their peak.
mod memory;
/// From inputs to other inputs.
mod mutate;
/// Two pods and the engine between them and a server.
mod engine;

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use derny_tests::observe::now;

#[global_allocator]
static ALLOCATOR: memory::Counting = memory::Counting;

/// What one input to a parser may take, for each of its bytes and at all: a regex is compiled to a program that is larger
/// than its text, and the engine's own bound for one is 1 MiB.
const PARSER_BYTES: (usize, usize) = (4096, 16 << 20);
/// One target goes on no longer than this.
const SECONDS: u64 = 5;
/// Nothing is to take longer on any input: it would be a worker's time.
const SLOWEST: Duration = Duration::from_secs(2);
/// Longer inputs only repeat themselves.
const LONGEST: usize = 8192;

struct Options {
    filter: Option<String>,
    inputs: u64,
    seconds: u64,
    seed: u64,
}

impl Options {
    /// What libtest would be told as well (a word of a test's name, flags of its own) must do no harm.
    fn parse() -> Self {
        let mut options = Self {
            filter: None,
            inputs: 1000,
            seconds: SECONDS,
            seed: 1,
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut number = || arguments.next().and_then(|n| n.parse().ok());
            match argument.as_str() {
                "--inputs" => options.inputs = number().unwrap_or(options.inputs),
                "--seconds" => options.seconds = number().unwrap_or(options.seconds),
                "--seed" => options.seed = number().unwrap_or(options.seed),
                flag if flag.starts_with('-') => {}
                word => options.filter = Some(word.to_owned()),
            }
        }
        options
    }

    fn wants(&self, target: &str) -> bool {
        let name = format!("fuzz::{target}");
        self.filter
            .as_ref()
            .is_none_or(|word| name.contains(word.as_str()))
    }
}

type Run<'t> = dyn FnMut(&[u8]) -> Result<(), String> + 't;

/// One target: what becomes of an input, as an error when that is bad.
struct Target<'t> {
    name: &'static str,
    run: Box<Run<'t>>,
    /// The engine's inputs take milliseconds each: as many as that.
    share: u64,
}

fn main() -> ExitCode {
    let options = Options::parse();
    // A panic is reported with its input.
    std::panic::set_hook(Box::new(|_| {}));
    let mut passed = 0;
    let mut failed = 0;
    let parsers = derny::fuzz::TARGETS.iter().map(|target| Target {
        name: target.name,
        run: Box::new(|bytes| parse(target.run, bytes)),
        share: 1,
    });
    let engine = ["engine_http1", "engine_http2"].map(|name| Target {
        name,
        run: Box::new({
            let mut site = None;
            move |bytes| match &mut site {
                Some(site) => engine::Site::attack(site, bytes),
                none => none.insert(engine::Site::start()?).attack(bytes),
            }
        }),
        share: 10,
    });
    for target in parsers.chain(engine).filter(|target| options.wants(target.name)) {
        let name = target.name;
        match fuzz(target, &options) {
            Ok(said) => {
                println!("test fuzz::{name} ... ok ({said})");
                passed += 1;
            }
            Err(fault) => {
                println!("test fuzz::{name} ... FAILED\n{fault}");
                failed += 1;
            }
        }
    }
    let result = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {result}. {passed} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out"
    );
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn fuzz(mut target: Target<'_>, options: &Options) -> Result<String, String> {
    let corpus = corpus(target.name)?;
    let mut rng = fastrand::Rng::with_seed(options.seed);
    let begun = now();
    let mut count = 0;
    let most = options.inputs / target.share;
    let mutated = std::iter::from_fn(|| Some(mutate::one_of(&corpus, &mut rng, LONGEST)));
    for input in corpus.iter().cloned().chain(mutated) {
        if count >= most.max(corpus.len() as u64) || begun.elapsed() > Duration::from_secs(options.seconds) {
            break;
        }
        count += 1;
        let started = now();
        let done = (target.run)(&input);
        let took = started.elapsed();
        let done = done.and_then(|()| match took < SLOWEST {
            true => Ok(()),
            false => Err(format!("it took {took:?}")),
        });
        done.map_err(|fault| report(target.name, &input, &fault))?;
    }
    Ok(format!(
        "{count} inputs in {:.1} s",
        begun.elapsed().as_secs_f64()
    ))
}

fn parse(run: fn(&[u8]), bytes: &[u8]) -> Result<(), String> {
    let before = memory::reset_peak();
    let done = catch_unwind(AssertUnwindSafe(|| run(bytes)));
    let taken = memory::peak().saturating_sub(before);
    done.map_err(|panic| said(&*panic))?;
    let (each, all) = PARSER_BYTES;
    match taken <= bytes.len() * each + all {
        true => Ok(()),
        false => Err(format!("{taken} bytes of memory for {} bytes", bytes.len())),
    }
}

fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    format!("panic: {}", text.unwrap_or("without a word"))
}

fn corpus(target: &str) -> Result<Vec<Vec<u8>>, String> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target);
    let files = fs::read_dir(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    let mut paths: Vec<PathBuf> = files.filter_map(|file| Some(file.ok()?.path())).collect();
    // Directories have no order, and a seed's inputs must be the same everywhere.
    paths.sort();
    let corpus: Vec<Vec<u8>> = paths.iter().filter_map(|path| fs::read(path).ok()).collect();
    if corpus.is_empty() {
        return Err(format!("{} is empty", directory.display()));
    }
    Ok(corpus)
}

fn report(target: &str, input: &[u8], fault: &str) -> String {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/fuzz");
    let path = directory.join(target);
    let kept = fs::create_dir_all(&directory).and_then(|()| fs::write(&path, input));
    let place = kept.map_or_else(|error| error.to_string(), |()| path.display().to_string());
    format!("{fault}\non an input of {} bytes, which is {place}", input.len())
}
