//! A seeded simulation of the whole way of a request: workers with the real pools, balancers, outlier detection,
//! breakers and retries, on connections over the loopback to endpoints that fail, hang, reset, close and refuse,
//! while callers go away and the configuration changes. Time is tokio's paused clock and moves in steps; after each
//! step the invariants are looked at.
//!
//! A failure names its seed. `DERNY_SIMULATION_SEED` runs that one alone.

mod setting;
mod endpoint;
mod seen;
mod world;

use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    rc::Rc,
};

use seen::Seen;
use world::World;

const SEEDS: u64 = 200;
/// Steps with trouble, of which each is 10 ms.
const STEPS: usize = 120;

/// One world from its begin to its end; what happened in it.
fn simulate(seed: u64) -> Seen {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    let set = tokio::task::LocalSet::new();
    set.block_on(&runtime, async {
        let mut world = World::new(seed).await;
        for _ in 0..STEPS {
            world.step().await;
        }
        world.end().await
    })
}

#[test]
fn no_request_is_lost_or_answered_twice_and_no_bound_is_broken() {
    let one = std::env::var("DERNY_SIMULATION_SEED").ok();
    let seeds = match one.map(|seed| seed.parse().unwrap()) {
        Some(seed) => seed..seed + 1,
        None => 0..SEEDS,
    };
    let all = seeds.end - seeds.start > 1;
    let running = Rc::new(Cell::new(0));
    let mut seen = Seen::default();
    let ended = catch_unwind(AssertUnwindSafe(|| {
        for seed in seeds {
            running.set(seed);
            seen.add(&simulate(seed));
        }
    }));
    if let Err(panic) = ended {
        eprintln!("DERNY_SIMULATION_SEED={}", running.get());
        resume_unwind(panic);
    }
    // Otherwise nothing was shown.
    println!("{seen:?}");
    if all {
        seen.assert_varied();
    }
}
