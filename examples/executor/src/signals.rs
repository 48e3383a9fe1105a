//! The signals that stop the server.

#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::time::Duration;

/// Signals that were blocked, so that one thread can wait for them.
pub(crate) struct StopSignals(libc::sigset_t);

impl StopSignals {
    /// Blocks SIGTERM and SIGINT in this thread, and in all threads and processes that it starts.
    pub(crate) fn block() -> io::Result<StopSignals> {
        let mut set = MaybeUninit::uninit();
        // SAFETY: `sigemptyset` initialises the set, the others change or read it.
        let (error, set) = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            libc::sigaddset(set.as_mut_ptr(), libc::SIGTERM);
            libc::sigaddset(set.as_mut_ptr(), libc::SIGINT);
            let error = libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), ptr::null_mut());
            (error, set.assume_init())
        };
        match error {
            0 => Ok(StopSignals(set)),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }

    /// Waits for one of them for this long. Whether one came.
    pub(crate) fn wait_for(&self, time: Duration) -> bool {
        let time = libc::timespec {
            tv_sec: libc::time_t::try_from(time.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: libc::c_long::from(time.subsec_nanos()),
        };
        // SAFETY: all are valid; the second may be null.
        unsafe { libc::sigtimedwait(&self.0, ptr::null_mut(), &time) > 0 }
    }
}
