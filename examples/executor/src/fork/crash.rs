//! What a process says before a signal ends it: which one, and the addresses of its stack.
//!
//! The handler runs on a stack of its own and calls async-signal-safe functions only, but for `backtrace`, which is
//! safe once it has been called: the unwinder is loaded, and finds libraries and images without a lock. If the stack is
//! so damaged that it crashes in turn, the first report, with the program counter alone, has already been written.
//!
//! Sources: `signal-safety(7)`, `sigaltstack(2)`, `backtrace(3)`, glibc's `_dl_find_object`.

#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::io::{self, PipeReader, PipeWriter, Read};
use std::os::fd::AsRawFd;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use crate::fork::parent::MOST_ADDRESSES;

/// The signals of crashes, and that of a time limit.
const SIGNALS: [(c_int, &str); 8] = [
    (libc::SIGSEGV, "SIGSEGV"),
    (libc::SIGBUS, "SIGBUS"),
    (libc::SIGFPE, "SIGFPE"),
    (libc::SIGILL, "SIGILL"),
    (libc::SIGABRT, "SIGABRT"),
    (libc::SIGTRAP, "SIGTRAP"),
    (libc::SIGSYS, "SIGSYS"),
    (libc::SIGXCPU, "SIGXCPU"),
];

/// The name of a signal.
pub(super) fn signal_name(signal: c_int) -> String {
    // Those of SIGNALS, and that which no handler sees.
    let mut all = SIGNALS.iter().chain(&[(libc::SIGKILL, "SIGKILL")]);
    let known = all.find(|(number, _)| *number == signal);
    known.map_or_else(|| format!("signal {signal}"), |(_, name)| (*name).into())
}

/// A report: the signal, the number of addresses, and these, from the innermost frame on.
const WORDS: usize = MOST_ADDRESSES + 2;

/// What a process has reported.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Report {
    pub(super) signal: c_int,
    addresses: Vec<u64>,
}

impl Report {
    /// The last report in a pipe, if there is one.
    pub(super) fn read(mut pipe: &PipeReader) -> Option<Report> {
        // A process that the library has started may still hold the other end: this must not wait for it.
        fcntl_setfl(pipe, fcntl_getfl(pipe).ok()? | OFlags::NONBLOCK).ok()?;
        let mut bytes = Vec::new();
        // Two reports are all that the handler writes. The error is that there is no more.
        let most = u64::try_from(WORDS.saturating_mul(16)).unwrap_or(u64::MAX);
        let _ = pipe.by_ref().take(most).read_to_end(&mut bytes);
        Report::last(&bytes)
    }

    /// The last of the reports that stand one behind the other, and are whole. The bytes are foreign.
    fn last(bytes: &[u8]) -> Option<Report> {
        let mut words = bytes.chunks_exact(8).map(|it| it.try_into().map_or(0, u64::from_ne_bytes));
        let mut last = None;
        while let (Some(signal), Some(count)) = (words.next(), words.next()) {
            let count = usize::try_from(count).ok().filter(|count| *count <= MOST_ADDRESSES);
            let addresses: Vec<u64> = words.by_ref().take(count?).collect();
            if Some(addresses.len()) != count {
                break;
            }
            last = Some(Report { signal: c_int::try_from(signal).ok()?, addresses });
        }
        last
    }

    /// Whether the process got the order that ends its time.
    pub(super) fn is_of_time_limit(&self) -> bool {
        self.signal == libc::SIGXCPU
    }

    pub(super) fn addresses(&self) -> &[u64] {
        &self.addresses
    }
}

/// Where reports go.
static PIPE: AtomicI32 = AtomicI32::new(-1);
/// Whether cores are wanted. Then the current folder is that of cores.
static CORES: AtomicBool = AtomicBool::new(false);

/// Has reports written to this pipe.
pub(super) fn report_to(pipe: &PipeWriter) {
    PIPE.store(pipe.as_raw_fd(), Ordering::Relaxed);
}

/// Installs the handler. With `cores`, a process that crashes makes a folder of its own for its core, named as its pid.
pub(super) fn install(cores: bool) -> io::Result<()> {
    const STACK: usize = 128 << 10;
    CORES.store(cores, Ordering::Relaxed);
    let mut frame = ptr::null_mut();
    // The first call loads the unwinder, which no handler may do.
    // SAFETY: there is room for the one frame.
    unsafe { libc::backtrace(&mut frame, 1) };
    let stack = Box::leak(vec![0_u8; STACK].into_boxed_slice());
    let stack = libc::stack_t { ss_sp: stack.as_mut_ptr().cast(), ss_flags: 0, ss_size: STACK };
    // SAFETY: the stack is nobody else's, and stays for ever.
    check(unsafe { libc::sigaltstack(&stack, ptr::null_mut()) })?;
    for (signal, _) in SIGNALS {
        // SAFETY: all zeros are a valid action.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = on_signal as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        // SAFETY: the action is valid, and its function has the type that SA_SIGINFO says.
        check(unsafe { libc::sigaction(signal, &action, ptr::null_mut()) })?;
    }
    Ok(())
}

fn check(result: c_int) -> io::Result<()> {
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Reports, and lets the signal end the process as it would have done without a handler, so that a core has the state
/// of the crash.
unsafe extern "C" fn on_signal(
    signal: c_int,
    information: *mut libc::siginfo_t,
    context: *mut c_void,
) {
    // A crash from here on ends the process.
    for (other, _) in SIGNALS {
        // SAFETY: it has no preconditions, and is async-signal-safe.
        unsafe { libc::signal(other, libc::SIG_DFL) };
    }
    // SAFETY: the system passes a valid context, where SA_SIGINFO is set.
    let registers = unsafe { &(*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    let [pc, sp] = [libc::REG_RIP, libc::REG_RSP]
        .map(|register| registers.get(register as usize).map_or(0, |it| it.cast_unsigned()));
    let mut report = [0; WORDS];
    write_report(signal, &[pc], &mut report);
    if CORES.load(Ordering::Relaxed) {
        enter_folder();
    }
    let mut frames = [ptr::null_mut(); MOST_ADDRESSES];
    if pc == 0 {
        // A call of a null pointer: the unwinder knows nothing of address 0, but the call has pushed where it was made.
        // SAFETY: if this crashes in turn, the process ends, as it would anyway.
        let caller = unsafe { ptr::read_volatile(sp as *const u64) };
        write_report(signal, &[pc, caller], &mut report);
    } else {
        // SAFETY: there is room for as many frames. See above for whether it may be called here.
        let count = unsafe { libc::backtrace(frames.as_mut_ptr(), MOST_ADDRESSES as c_int) };
        let frames = frames.map(|frame| frame.addr() as u64);
        // The first frames are this function's, and the system's trampoline.
        let count = usize::try_from(count).unwrap_or(0);
        let interrupted = frames.iter().take(count).position(|frame| *frame == pc);
        if let Some(stack) = interrupted.and_then(|first| frames.get(first..count)) {
            write_report(signal, stack, &mut report);
        }
    }
    // SAFETY: as for the context.
    let was_sent = unsafe { (*information).si_code } <= 0;
    if was_sent || matches!(signal, libc::SIGTRAP | libc::SIGSYS) {
        // The instruction would not raise it again. It is delivered when this function returns.
        // SAFETY: it has no preconditions, and is async-signal-safe.
        unsafe { libc::raise(signal) };
    }
}

fn write_report(signal: c_int, addresses: &[u64], report: &mut [u64; WORDS]) {
    let words = report.iter_mut();
    let header = [u64::from(signal.unsigned_abs()), addresses.len() as u64];
    let filled = header.iter().chain(addresses);
    let mut len = 0_usize;
    for (word, value) in words.zip(filled) {
        *word = *value;
        len = len.saturating_add(8);
    }
    // SAFETY: so many bytes of the array were written. `write` is async-signal-safe.
    unsafe { libc::write(PIPE.load(Ordering::Relaxed), report.as_ptr().cast(), len) };
}

/// Makes the folder that is named as this process's pid, and makes it the current one.
fn enter_folder() {
    let mut name = [0_u8; 12];
    // SAFETY: it has no preconditions, and is async-signal-safe.
    let mut rest = unsafe { libc::getpid() }.unsigned_abs();
    // Digits from the last to the first. The last byte stays zero.
    let mut start = name.len().saturating_sub(1);
    for (index, byte) in name.iter_mut().enumerate().rev().skip(1) {
        *byte = b'0'.saturating_add((rest % 10) as u8);
        rest /= 10;
        start = index;
        if rest == 0 {
            break;
        }
    }
    let Some(name) = name.get(start..) else { return };
    // SAFETY: the name ends with a zero. Both functions are async-signal-safe.
    unsafe {
        libc::mkdir(name.as_ptr().cast(), 0o700);
        libc::chdir(name.as_ptr().cast());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(words: &[u64]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    #[test]
    fn the_last_whole_report_counts() {
        let report =
            |signal, addresses: &[u64]| Some(Report { signal, addresses: addresses.into() });
        let both = bytes(&[11, 1, 0x10, 11, 3, 0x10, 0x20, 0x30]);
        assert_eq!(Report::last(&both), report(11, &[0x10, 0x20, 0x30]));
        assert_eq!(Report::last(&both[..both.len() - 1]), report(11, &[0x10]));
        assert_eq!(Report::last(&both[..24]), report(11, &[0x10]));
        assert_eq!(Report::last(&both[..23]), None);
        assert_eq!(Report::last(&[]), None);
        assert_eq!(Report::last(&bytes(&[11, u64::MAX, 1])), None);
        assert_eq!(Report::last(&bytes(&[u64::MAX, 0])), None);
    }
}
