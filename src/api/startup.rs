//! Setting memdl up once in a process, and keeping it usable in children of `fork`.
//!
//! A child of `fork` has one thread, and would find locked the locks that other threads of its parent held.
//! So a fork waits until no thread holds a lock of memdl, and parent and child continue with all of them free
//! ([`crate::base::sync`]). Source: `pthread_atfork(3)`.

#![allow(unsafe_code)]

use crate::base::error::Error;
use crate::base::fallible::require_memory;
use crate::base::promise::MayRun;
use crate::base::sync::{self, Lock, Rank};
use crate::debug::Instances;
use crate::debug::read_lines;
use crate::host::process;
use crate::host::startup_set;
use crate::load::debugger_commands;
use crate::load::prepare::Prepared;
use crate::load::settings::Settings;
use crate::memory::bytes::Bytes;
use crate::tls;
use crate::unwind;

/// Registers the handlers when the program starts, so that they also cover a fork during the first load.
unsafe extern "C" fn survive() {
    // SAFETY: three functions of the type that is asked for. Should there be no memory to note
    // them, forks are as dangerous as without.
    unsafe { libc::pthread_atfork(Some(before), Some(after_in_parent), Some(after_in_child)) };
}

#[used]
#[unsafe(link_section = ".init_array")]
static SURVIVE: unsafe extern "C" fn() = survive;

/// Whether the process is set up. It happens under a lock: a fork in the middle of it would leave the child
/// waiting.
static SET_UP: Lock<bool> = Lock::new(Rank::SetUp, false);

/// Sets up the state that memdl needs once in a process. Each load and the first buffer begin with it.
pub(crate) fn set_up() -> Result<(), Error> {
    let mut done = SET_UP.lock();
    if !*done {
        require_memory()?;
        // The static is reached by the linker only through this object file; a look at it makes
        // sure that it is part of the link.
        std::hint::black_box(&SURVIVE);
        process::stay_loaded();
        tls::set_up();
        startup_set::set_up()?;
        debugger_commands::set_up();
        *done = true;
    }
    Ok(())
}

/// From bytes to a bound group, in a process that is set up.
pub(crate) fn prepare<'d>(
    settings: &Settings,
    bytes: Bytes<'d>,
    instances: Instances,
    may_run: Option<MayRun>,
) -> Result<Prepared<'d>, Error> {
    set_up()?;
    settings.prepare(bytes, instances, may_run)
}

unsafe extern "C" fn before() {
    sync::close_for_fork();
}

unsafe extern "C" fn after_in_parent() {
    sync::open_after_fork_in_parent();
}

unsafe extern "C" fn after_in_child() {
    unwind::after_fork_in_child();
    sync::open_after_fork_in_child();
    tls::after_fork_in_child();
    read_lines::after_fork_in_child();
}
