use std::time::Duration;

use tokio::{runtime::Builder, task::LocalSet, time::Instant};

use super::*;
use crate::{
    model::PodName,
    share::{Ledger, Limits},
};

/// Runs `work` with the turns of a thread of its own, to the end of all tasks.
fn in_turns(work: impl FnOnce(&Ledger) + Send + 'static) -> Ledger {
    let ledger = Ledger::new(Limits::none());
    let given = ledger.clone();
    let worker = std::thread::spawn(move || {
        let tasks = LocalSet::new();
        tasks.spawn_local(async move {
            let turns = Turns::begin();
            work(&given);
            turns.end();
            turns.clone().run().await;
            turns.bill();
        });
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(tasks);
    });
    worker.join().unwrap();
    ledger
}

fn pod(ledger: &Ledger, name: &str) -> Rc<Local> {
    Local::new(ledger.open(PodName {
        namespace: "demo".into(),
        name: name.into(),
    }))
}

fn spin(micros: u64) {
    let until = Instant::now() + Duration::from_micros(micros);
    while Instant::now() < until {}
}

/// Ready again at once, as a task whose socket has more to read.
async fn again() {
    let mut first = true;
    poll_fn(|cx| match std::mem::take(&mut first) {
        true => {
            cx.waker().wake_by_ref();
            Poll::Pending
        }
        false => Poll::Ready(()),
    })
    .await;
}

#[test]
fn a_pod_with_many_tasks_gets_no_more_turns_than_one_with_one() {
    let (send, receive) = std::sync::mpsc::channel();
    in_turns(move |ledger| {
        let (greedy, other) = (pod(ledger, "greedy"), pod(ledger, "other"));
        let (ended, polls) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(0)));
        for _ in 0..300 {
            let (ended, polls) = (ended.clone(), polls.clone());
            greedy.spawn(async move {
                while !ended.get() {
                    polls.set(polls.get() + 1);
                    spin(30);
                    again().await;
                }
            });
        }
        other.spawn(async move {
            for _ in 0..100 {
                again().await;
            }
            ended.set(true);
            let _ = send.send(polls.get());
        });
    });
    let polls = receive.recv().unwrap();
    // In one queue for all it would be 30,000.
    assert!(polls < 1_000, "{polls}");
}

#[test]
fn each_pod_pays_for_its_own_tasks() {
    let ledger = in_turns(|ledger| {
        for (name, times) in [("a", 30), ("b", 10)] {
            pod(ledger, name).spawn(async move {
                for _ in 0..times {
                    spin(1_000);
                    again().await;
                }
            });
        }
    });
    let samples = ledger.samples(Instant::now().into_std());
    let [a, b] = [0, 1].map(|place: usize| samples[place].cpu.as_secs_f64());
    assert!(a > 1.5 * b && b > 0.0, "{a} and {b}");
}

#[test]
fn a_task_that_panics_takes_no_other_with_it() {
    let (send, receive) = std::sync::mpsc::channel();
    in_turns(move |ledger| {
        let pod = pod(ledger, "a");
        pod.spawn(async { panic!("a test's own") });
        pod.spawn(async move {
            again().await;
            let _ = send.send(());
        });
    });
    receive.recv().unwrap();
}

#[test]
fn other_threads_may_wake_a_task() {
    let (send, receive) = tokio::sync::oneshot::channel();
    let (say, hear) = std::sync::mpsc::channel();
    let waking = std::thread::spawn(move || {
        // By then the worker waits for it.
        spin(20_000);
        let _ = send.send(7);
    });
    in_turns(move |ledger| {
        pod(ledger, "a").spawn(async move {
            let _ = say.send(receive.await);
        });
    });
    assert_eq!(hear.recv().unwrap(), Ok(7));
    waking.join().unwrap();
}

#[test]
fn a_task_ends_with_its_handle() {
    in_turns(|ledger| {
        let task = pod(ledger, "a").task(std::future::pending());
        pod(ledger, "a").spawn(async move {
            again().await;
            task.end();
        });
    });
}
