//! Limits in time, as long as the machine needs them to be. Decides nothing about which test has which limit.

use std::ffi::OsStr;
use std::fmt::Write;
use std::hint::black_box;
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// How long `base`, which suits an idle machine, has to be on this one.
///
/// For limits that only a hang or a fault of another order reaches. Never shorter than `base`.
pub fn limit(base: Duration) -> Duration {
    base.mul_f64(slowness())
}

/// Whether [`limit`] of `base` is over since `start`. Where it seems to be, the machine is measured again:
/// others may have come to it since the process began.
pub fn is_over(start: Instant, base: Duration) -> bool {
    start.elapsed() >= limit(base) && start.elapsed() >= base.mul_f64(measured())
}

/// A command that is killed when [`limit`] of so many seconds is over.
pub fn limited(seconds: u64, program: impl AsRef<OsStr>) -> Command {
    let limit = limit(Duration::from_secs(seconds)).as_secs();
    let mut command = Command::new("timeout");
    command.args(["--signal=KILL", &limit.to_string()]).arg(program);
    command
}

/// How many times longer than on an idle machine of the usual speed things take here: at least 1.
/// Measured at the first question, once in a process.
fn slowness() -> f64 {
    static SLOWNESS: OnceLock<f64> = OnceLock::new();
    *SLOWNESS.get_or_init(|| {
        let slowness = measured();
        if slowness > 2.0 {
            println!("limits in time are {slowness:.1} times as long: the machine is slow or busy");
        }
        slowness
    })
}

/// As [`slowness`], at this moment.
fn measured() -> f64 {
    let (start, processor_start) = (Instant::now(), thread_time());
    work();
    // A sanitizer slows down what uses memory much more than the work here.
    let factor = if super::is_sanitized() { 10.0 } else { 1.0 };
    slowness_of(start.elapsed(), thread_time() - processor_start) * factor
}

/// A slow processor needs more of its own time; a busy one lets the thread wait, besides.
fn slowness_of(time: Duration, processor: Duration) -> f64 {
    let processor = processor.max(Duration::from_millis(1)).as_secs_f64();
    let slow = processor / USUAL.as_secs_f64();
    let busy = time.as_secs_f64() / processor;
    (slow.max(1.0) * busy.max(1.0)).min(SLOWEST)
}

/// A limit stays one: on a machine that is slower still, no limit helps.
const SLOWEST: f64 = 30.0;

/// What [`work`] takes of a processor of 2023, not optimised; then it takes more than with.
const USUAL: Duration = Duration::from_millis(40);

/// Long enough for the scheduler to let others have their turns: slices are some 3 ms.
fn work() {
    let mut text = String::new();
    for number in 0..100_000 {
        text.clear();
        write!(text, "{}", f64::from(black_box(number)) / 7.0).unwrap();
        black_box(&text);
    }
}

/// The processor time that this thread has used.
fn thread_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes to a local.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) }, 0);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
