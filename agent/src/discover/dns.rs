//! Names that are resolved again and again, as their TTL asks.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::{sync::mpsc, task::JoinHandle};

use super::lookup::{Answer, DnsFailure, Servers};
use crate::model::{Dns, TtlBounds};

/// Longest pause between two tries of a name that fails.
const MAX_BACKOFF: Duration = Duration::from_secs(30);
/// Answers on their way to the source that merges them.
const NEWS: usize = 64;

/// What is asked for. Ports that declare the same share the answer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Question {
    pub(super) name: Arc<str>,
    pub(super) ttl: TtlBounds,
}

impl From<&Dns> for Question {
    fn from(dns: &Dns) -> Self {
        Self {
            name: dns.name.clone(),
            ttl: dns.ttl,
        }
    }
}

/// What came of a question, told when it is something else than before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct News {
    pub(super) question: Question,
    /// `None`: it failed, and there has been no answer yet.
    pub(super) addresses: Option<Vec<IpAddr>>,
}

/// What an operator wants to know of a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NameState {
    /// The last good answer, which is in force.
    pub addresses: Vec<IpAddr>,
    pub answered_at: Option<SystemTime>,
    /// Why the newest lookup gave no answer, or only that of one address family.
    pub failure: Option<DnsFailure>,
}

/// A handle to what the names resolve to.
#[derive(Clone, Debug, Default)]
pub struct DnsBoard(Arc<Mutex<Shown>>);

#[derive(Debug, Default)]
struct Shown {
    names: BTreeMap<Question, NameState>,
    /// Lookups that ended, by result.
    lookups: BTreeMap<&'static str, u64>,
}

impl DnsBoard {
    /// Every name that is resolved, in order.
    pub fn all(&self) -> Vec<(Arc<str>, NameState)> {
        let shown = self.lock();
        let names = shown
            .names
            .iter()
            .map(|(of, state)| (of.name.clone(), state.clone()));
        names.collect()
    }

    /// (result, lookups that ended so since the start).
    pub fn lookups(&self) -> Vec<(&'static str, u64)> {
        self.lock()
            .lookups
            .iter()
            .map(|(result, count)| (*result, *count))
            .collect()
    }

    fn note(&self, question: &Question, result: &Result<Answer, DnsFailure>) {
        let mut shown = self.lock();
        let word = match result {
            Ok(Answer { half: None, .. }) => "answered",
            Ok(Answer { half: Some(_), .. }) => "half",
            Err(failure) => failure.as_str(),
        };
        *shown.lookups.entry(word).or_default() += 1;
        let state = shown.names.entry(question.clone()).or_default();
        match result {
            Ok(answer) => {
                *state = NameState {
                    addresses: answer.addresses.clone(),
                    answered_at: Some(SystemTime::now()),
                    failure: answer.half.clone(),
                };
            }
            Err(failure) => state.failure = Some(failure.clone()),
        }
    }

    /// No code that can panic runs under this lock, so that a poisoned one is as good as any.
    fn lock(&self) -> MutexGuard<'_, Shown> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Resolves names and says when one of them has changed.
#[derive(Debug)]
pub struct Names {
    servers: Arc<Servers>,
    board: DnsBoard,
    tasks: BTreeMap<Question, Task>,
    /// Kept, so that `receive` waits also when there is no task.
    send: mpsc::Sender<News>,
    receive: mpsc::Receiver<News>,
}

#[derive(Debug)]
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Names {
    pub fn new(servers: Servers) -> Self {
        let (send, receive) = mpsc::channel(NEWS);
        Self {
            servers: Arc::new(servers),
            board: DnsBoard::default(),
            tasks: BTreeMap::new(),
            send,
            receive,
        }
    }

    pub fn board(&self) -> DnsBoard {
        self.board.clone()
    }

    /// Resolves `questions` from now on, and no others.
    pub(super) fn follow(&mut self, questions: impl IntoIterator<Item = Question>) {
        let mut before = std::mem::take(&mut self.tasks);
        for question in questions {
            let task = before.remove(&question).unwrap_or_else(|| {
                let follow = follow(
                    question.clone(),
                    self.servers.clone(),
                    self.board.clone(),
                    self.send.clone(),
                );
                Task(tokio::spawn(follow))
            });
            self.tasks.insert(question, task);
        }
        self.board
            .lock()
            .names
            .retain(|of, _| self.tasks.contains_key(of));
    }

    /// The next change. May be dropped and called again at any time.
    pub(super) async fn next(&mut self) -> News {
        loop {
            match self.receive.recv().await {
                Some(news) if self.tasks.contains_key(&news.question) => return news,
                // Nobody asks for it any more.
                Some(_) => {}
                // Cannot be: this holds a sender itself.
                None => std::future::pending().await,
            }
        }
    }
}

/// Asks one question for ever.
async fn follow(question: Question, servers: Arc<Servers>, board: DnsBoard, news: mpsc::Sender<News>) {
    let mut rng = fastrand::Rng::new();
    let mut course = Course::default();
    loop {
        let last = course.addresses.as_deref().unwrap_or_default();
        let result = servers.lookup(&question.name, last).await;
        board.note(&question, &result);
        let name = &question.name;
        let step = course.step(&result, question.ttl, &mut rng);
        match step.word {
            Some(Word::Failing(failure)) if course.addresses.is_some() => {
                tracing::warn!(%name, error = %failure, "dns lookup failed; the last good answer stays in force");
            }
            Some(Word::Failing(failure)) => {
                tracing::warn!(%name, error = %failure, "dns lookup failed; there has been no answer yet");
            }
            Some(Word::Half(failure)) => {
                tracing::warn!(%name, error = %failure, "dns lookup of one address family failed; what is known of it stays in force");
            }
            Some(Word::Recovered) => tracing::info!(%name, "dns lookup succeeds again"),
            None => {}
        }
        if step.tell == Tell::News {
            let told = News {
                question: question.clone(),
                addresses: course.addresses.clone(),
            };
            if news.send(told).await.is_err() {
                return;
            }
        }
        tokio::time::sleep(step.wait).await;
    }
}

/// Where a name stands. Pure.
#[derive(Debug, Default)]
struct Course {
    /// The last good answer.
    addresses: Option<Vec<IpAddr>>,
    /// In a row.
    failures: u32,
    /// The failure that was logged last, since the last good answer.
    logged: Option<&'static str>,
}

/// What is to be done after a lookup.
#[derive(Debug, PartialEq)]
struct Step {
    wait: Duration,
    tell: Tell,
    word: Option<Word>,
}

#[derive(Debug, PartialEq)]
enum Tell {
    News,
    Nothing,
}

/// What is worth a line in the log: each kind of failure once.
#[derive(Debug, PartialEq)]
enum Word {
    Failing(DnsFailure),
    /// Of one family only.
    Half(DnsFailure),
    Recovered,
}

impl Course {
    fn step(&mut self, result: &Result<Answer, DnsFailure>, ttl: TtlBounds, rng: &mut fastrand::Rng) -> Step {
        match result {
            Ok(answer) => {
                self.failures = 0;
                let same = self.addresses.as_ref() == Some(&answer.addresses);
                self.addresses = Some(answer.addresses.clone());
                // The other family is asked for again soon, as after a failure.
                let most = answer
                    .half
                    .as_ref()
                    .map_or(ttl.max, |_| MAX_BACKOFF.max(ttl.min).min(ttl.max));
                let word = match &answer.half {
                    None => self.logged.take().map(|_| Word::Recovered),
                    Some(failure) => {
                        let kind = failure.as_str();
                        let known = self.logged.replace(kind) == Some(kind);
                        (!known).then(|| Word::Half(failure.clone()))
                    }
                };
                Step {
                    wait: answer.ttl.max(ttl.min).min(most),
                    tell: if same { Tell::Nothing } else { Tell::News },
                    word,
                }
            }
            Err(failure) => {
                self.failures = self.failures.saturating_add(1);
                let kind = failure.as_str();
                let known = self.logged.replace(kind) == Some(kind);
                // Who waits for a first answer is to know that there is none.
                let first = self.addresses.is_none() && self.failures == 1;
                Step {
                    wait: backoff(self.failures, ttl, rng),
                    tell: if first { Tell::News } else { Tell::Nothing },
                    word: (!known).then(|| Word::Failing(failure.clone())),
                }
            }
        }
    }
}

/// Before the try after `failures` in a row, at least one: from half to the whole of `min · 2^(failures − 1)`.
fn backoff(failures: u32, ttl: TtlBounds, rng: &mut fastrand::Rng) -> Duration {
    let doubled = ttl
        .min
        .saturating_mul(1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX));
    let most = doubled.min(MAX_BACKOFF.max(ttl.min));
    most.mul_f64(0.5 + 0.5 * rng.f64())
}

#[cfg(test)]
mod tests;
