//! How often one message may be said of one pod. What somebody can cause by sending bytes, somebody can cause a million
//! times.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    fmt::Debug,
    hash::{DefaultHasher, Hash, Hasher},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use tokio::time::Instant;
use tracing::{
    Event, Level, Subscriber,
    callsite::Identifier,
    field::{Field, Visit},
};
use tracing_subscriber::layer::{Context, Layer};

/// Of one message, whatever it is said of, in multiples of what may be said of one pod.
const OF_MESSAGE: u32 = 20;
/// (Message, pod) that a thread remembers.
const REMEMBERED: usize = 4096;
/// Fields that name whose message it is. They are names of objects: what a peer can make up does not count.
const SUBJECTS: [&str; 4] = ["pod", "object", "service", "source"];
/// What is left out is said under this target, which is not limited.
const LEFT_OUT: &str = "derny::telemetry";

/// Lines of this log that were left out by all threads.
pub(super) static SUPPRESSED: AtomicU64 = AtomicU64::new(0);

/// Lets so many lines a minute of each message and pod pass, on each thread: threads share nothing, so that none waits
/// for another.
#[derive(Debug)]
pub(super) struct Limit {
    /// A minute; 0 for no limit.
    lines: u32,
}

/// A level that fills with time. Its capacity is what fills it in a minute.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    level: f64,
    at: Instant,
    left_out: u64,
}

/// What becomes of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Said, after so many that were left out.
    Said(u64),
    LeftOut,
}

type Key = (Identifier, Option<u64>);

thread_local! {
    static BUCKETS: RefCell<HashMap<Key, Bucket>> = RefCell::default();
    /// Lines that were left out before the one that is being said.
    static OWED: Cell<u64> = const { Cell::new(0) };
}

impl Limit {
    pub(super) fn new(lines: u32) -> Self {
        Self { lines }
    }

    fn verdict(&self, event: &Event<'_>, now: Instant) -> Verdict {
        let mut subject = Subject::default();
        event.record(&mut subject);
        let message = || event.metadata().callsite();
        // On a thread that ends the map may be gone.
        BUCKETS
            .try_with(|buckets| {
                let mut buckets = buckets.borrow_mut();
                if buckets.len() >= REMEMBERED {
                    buckets.retain(|_, bucket| !bucket.is_full(now, self.lines));
                }
                let all = bucket(&mut buckets, (message(), None), now, self.lines * OF_MESSAGE);
                if !all.has_room(now, self.lines * OF_MESSAGE) {
                    return all.leave_out();
                }
                let mut left_out = 0;
                if let Some(of) = subject.0
                    && buckets.len() < REMEMBERED
                {
                    let own = bucket(&mut buckets, (message(), Some(of)), now, self.lines);
                    if !own.has_room(now, self.lines) {
                        return own.leave_out();
                    }
                    left_out = own.take();
                }
                let all = bucket(&mut buckets, (message(), None), now, self.lines * OF_MESSAGE);
                Verdict::Said(left_out + all.take())
            })
            .unwrap_or(Verdict::Said(0))
    }
}

fn bucket(buckets: &mut HashMap<Key, Bucket>, key: Key, now: Instant, lines: u32) -> &mut Bucket {
    buckets.entry(key).or_insert(Bucket {
        level: lines.into(),
        at: now,
        left_out: 0,
    })
}

impl Bucket {
    fn level(&self, now: Instant, lines: u32) -> f64 {
        let minutes = now.saturating_duration_since(self.at).as_secs_f64() / 60.0;
        (self.level + minutes * f64::from(lines)).min(lines.into())
    }

    fn is_full(&self, now: Instant, lines: u32) -> bool {
        self.left_out == 0 && self.level(now, lines) >= lines.into()
    }

    /// Brings it up to `now` and says whether a line may pass.
    fn has_room(&mut self, now: Instant, lines: u32) -> bool {
        self.level = self.level(now, lines);
        self.at = now;
        self.level >= 1.0
    }

    fn leave_out(&mut self) -> Verdict {
        self.left_out += 1;
        SUPPRESSED.fetch_add(1, Relaxed);
        Verdict::LeftOut
    }

    /// Takes the place of one line; gives how many were left out since the last.
    fn take(&mut self) -> u64 {
        self.level -= 1.0;
        std::mem::take(&mut self.left_out)
    }
}

impl<S: Subscriber> Layer<S> for Limit {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        // Who asks for debug lines wants them.
        if self.lines == 0 || *metadata.level() > Level::INFO || metadata.target() == LEFT_OUT {
            return true;
        }
        match self.verdict(event, Instant::now()) {
            Verdict::Said(left_out) => {
                OWED.set(left_out);
                true
            }
            Verdict::LeftOut => false,
        }
    }

    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let lines = OWED.take();
        if lines > 0 {
            let mut message = Message::default();
            event.record(&mut message);
            tracing::info!(target: LEFT_OUT, lines, of = message.0, "lines like the last were left out");
        }
    }
}

/// A hash of whose message it is.
#[derive(Default)]
struct Subject(Option<u64>);

impl Visit for Subject {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if self.0.is_none() && SUBJECTS.contains(&field.name()) {
            let mut hasher = DefaultHasher::new();
            format!("{value:?}").hash(&mut hasher);
            self.0 = Some(hasher.finish());
        }
    }
}

#[derive(Default)]
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Arc, Mutex},
        time::Duration,
    };

    use tracing_subscriber::{Registry, layer::SubscriberExt as _};

    use super::*;

    /// The fields of each line that passed.
    #[derive(Clone, Default)]
    struct Said(Arc<Mutex<Vec<String>>>);

    impl<S: Subscriber> Layer<S> for Said {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            struct Fields(String);
            impl Visit for Fields {
                fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
                    self.0 += &format!("{}={value:?} ", field.name());
                }
            }
            let mut fields = Fields(String::new());
            event.record(&mut fields);
            self.0.lock().unwrap().push(fields.0);
        }
    }

    fn log(lines: u32, f: impl FnOnce() + Send) -> Vec<String> {
        let said = Said::default();
        let subscriber = Registry::default().with(said.clone()).with(Limit::new(lines));
        // A thread has buckets of its own.
        std::thread::scope(|threads| {
            threads.spawn(|| tracing::subscriber::with_default(subscriber, f));
        });
        let said = said.0.lock().unwrap();
        said.clone()
    }

    fn closed(pod: &str, n: usize) {
        tracing::warn!(%pod, n, "closed");
    }

    #[test]
    fn a_flooding_pod_silences_itself_alone() {
        let said = log(10, || {
            (0..1000).for_each(|n| closed("demo/flood", n));
            (0..5).for_each(|n| closed("demo/quiet", n));
        });
        let of = |pod: &str| said.iter().filter(|line| line.contains(pod)).count();
        assert_eq!((of("demo/flood"), of("demo/quiet")), (10, 5));
    }

    #[test]
    fn names_that_are_made_up_share_the_bound_of_the_message() {
        let said = log(10, || (0..1000).for_each(|n| closed(&n.to_string(), n)));
        assert_eq!(said.len(), 200);
    }

    #[test]
    fn debug_lines_pass_and_zero_is_no_limit() {
        let debug = || (0..1000).for_each(|n| tracing::debug!(n, "seen"));
        assert_eq!(log(10, debug).len(), 1000);
        assert_eq!(
            log(0, || (0..1000).for_each(|n| closed("demo/web", n))).len(),
            1000
        );
    }

    #[test]
    fn what_was_left_out_is_said_when_there_is_room_again() {
        let mut bucket = Bucket {
            level: 1.0,
            at: Instant::now(),
            left_out: 0,
        };
        let begun = bucket.at;
        assert!(bucket.has_room(begun, 6));
        assert_eq!(bucket.take(), 0);
        assert!(!bucket.has_room(begun + Duration::from_secs(9), 6));
        bucket.leave_out();
        assert!(bucket.has_room(begun + Duration::from_secs(11), 6));
        assert_eq!(bucket.take(), 1);
        assert!(bucket.is_full(begun + Duration::from_secs(72), 6));
    }
}
