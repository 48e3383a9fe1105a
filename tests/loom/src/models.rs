//! The value of the models is a pair of equal numbers. Between the two stores of a change a signal may
//! come, too.

use loom::sync::Arc;
use loom::thread;

use crate::left_right::LeftRight;
use crate::shim::{Lock, interrupt_before, is_still_armed, step};

type Pair = LeftRight<[usize; 2]>;

fn pair() -> Arc<Pair> {
    Arc::new(LeftRight::new([0; 2], [0; 2], Lock::new(())))
}

fn add(pair: &Pair, number: usize) {
    pair.write(|pair| {
        pair[0] += number;
        step();
        pair[1] += number;
    });
}

/// The number that both have.
fn get(pair: &Pair) -> usize {
    pair.read(|pair| {
        let first = pair[0];
        step();
        assert_eq!(first, pair[1], "half of a change");
        first
    })
}

/// Checks all orders with at most three preemptions, or as many as `LOOM_MAX_PREEMPTIONS` says. (All
/// orders, without a limit, take hours. Each mistake that was tried shows with two.)
fn check(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(3));
    builder.check(model);
}

/// Runs a model with the signal before each step in turn, until a thread that is to be interrupted has
/// fewer steps in every order. Gives the number of steps.
fn with_a_signal_before_each_step(
    model: impl Fn(usize) -> bool + Copy + Send + Sync + 'static,
) -> usize {
    use std::sync::atomic::{AtomicBool, Ordering};
    for step in 0.. {
        let came = std::sync::Arc::new(AtomicBool::new(false));
        let seen = came.clone();
        check(move || {
            if model(step) {
                seen.store(true, Ordering::Relaxed);
            }
        });
        if !came.load(Ordering::Relaxed) {
            return step;
        }
    }
    unreachable!()
}

#[test]
fn a_reader_and_a_writer() {
    check(|| {
        let pair = pair();
        let reader = thread::spawn({
            let pair = pair.clone();
            move || {
                let first = get(&pair);
                let second = get(&pair);
                assert!(first <= second && second <= 2, "{first}, then {second}");
            }
        });
        add(&pair, 1);
        // What this thread has written it reads.
        assert_eq!(get(&pair), 1);
        add(&pair, 1);
        assert_eq!(get(&pair), 2);
        reader.join().unwrap();
        assert_eq!(get(&pair), 2);
    });
}

#[test]
fn two_readers_and_a_writer() {
    check(|| {
        let pair = pair();
        let readers = [(); 2].map(|()| {
            let pair = pair.clone();
            thread::spawn(move || assert!(get(&pair) <= 1))
        });
        add(&pair, 1);
        readers.into_iter().for_each(|reader| reader.join().unwrap());
        assert_eq!(get(&pair), 1);
    });
}

#[test]
fn two_writers_and_a_reader() {
    check(|| {
        let pair = pair();
        let writer = thread::spawn({
            let pair = pair.clone();
            move || add(&pair, 1)
        });
        let reader = thread::spawn({
            let pair = pair.clone();
            move || assert!([0, 1, 2, 3].contains(&get(&pair)))
        });
        add(&pair, 2);
        writer.join().unwrap();
        reader.join().unwrap();
        assert_eq!(get(&pair), 3);
    });
}

/// What a reader has seen in the value may be freed as soon as the writer that takes it out is done.
#[test]
fn what_is_taken_out_is_not_read_any_more() {
    check(|| {
        let alive = Arc::new(loom::sync::atomic::AtomicBool::new(true));
        let entry = Arc::new(LeftRight::new(true, true, Lock::new(())));
        let reader = thread::spawn({
            let (alive, entry) = (alive.clone(), entry.clone());
            move || {
                entry.read(|is_there| {
                    if *is_there {
                        assert!(alive.load(loom::sync::atomic::Ordering::Relaxed));
                    }
                });
            }
        });
        entry.write(|is_there| *is_there = false);
        alive.store(false, loom::sync::atomic::Ordering::Relaxed);
        reader.join().unwrap();
    });
}

#[test]
fn a_signal_handler_reads_while_its_thread_writes() {
    let steps = with_a_signal_before_each_step(|step| {
        let pair = pair();
        let reader = thread::spawn({
            let pair = pair.clone();
            move || assert!(get(&pair) <= 1)
        });
        let in_handler = pair.clone();
        interrupt_before(step, move || assert!(get(&in_handler) <= 1));
        add(&pair, 1);
        let came = !is_still_armed();
        assert_eq!(get(&pair), 1);
        reader.join().unwrap();
        came
    });
    assert!(steps >= 12, "{steps}");
}

#[test]
fn a_signal_handler_reads_while_its_thread_reads() {
    let steps = with_a_signal_before_each_step(|step| {
        let pair = pair();
        let writer = thread::spawn({
            let pair = pair.clone();
            move || add(&pair, 1)
        });
        let in_handler = pair.clone();
        interrupt_before(step, move || assert!(get(&in_handler) <= 1));
        assert!(get(&pair) <= 1);
        let came = !is_still_armed();
        writer.join().unwrap();
        assert_eq!(get(&pair), 1);
        came
    });
    assert!(steps >= 5, "{steps}");
}

/// At whatever step of a reader and of a writer another thread forks: the child, which has neither
/// thread, has a whole value and can change it.
#[test]
fn a_fork_while_others_read_and_write() {
    check(|| {
        let pair = pair();
        let reader = thread::spawn({
            let pair = pair.clone();
            move || assert!(get(&pair) <= 1)
        });
        let writer = thread::spawn({
            let pair = pair.clone();
            move || add(&pair, 1)
        });
        let child = pair.forked();
        child.forget_readers();
        let before = get(&child);
        assert!(before <= 1);
        // Would wait for a reader that is not there, or find a copy that was not changed.
        for more in 1..=2 {
            add(&child, 1);
            assert_eq!(get(&child), before + more);
        }
        reader.join().unwrap();
        writer.join().unwrap();
        assert_eq!(get(&pair), 1);
    });
}
