//! Setting memdl up once in a process, and keeping it usable in children of `fork`.
//!
//! A child of `fork` has one thread, and would find locked the locks that other threads of its parent held.
//! So a fork waits until no thread holds a lock of memdl, and parent and child continue with all of them free
//! ([`crate::base::sync`]). Source: `pthread_atfork(3)`.

#![allow(unsafe_code)]

use crate::base::error::Error;
use crate::base::events;
use crate::base::fallible::require_memory;
use crate::base::promise::MayRun;
use crate::base::sync::{self, Lock, Rank};
use crate::debug::Instances;
use crate::debug::read_lines;
use crate::host::collectors;
use crate::host::startup_set;
use crate::images::registry;
use crate::load::debugger_commands;
use crate::load::prepare::Prepared;
use crate::load::settings::Settings;
use crate::memory::bytes::Bytes;
use crate::tls;
use crate::unwind;

/// Registers the handlers when the program starts, so that they also cover a fork during the first load.
unsafe extern "C" fn register_fork_handlers() {
    // Before ours, which wait for threads that take that lock.
    memdl_symfile::prepare_forks();
    // SAFETY: three functions of the right type. If it fails for lack of memory, a child of a fork may find
    // locks held.
    unsafe { libc::pthread_atfork(Some(before), Some(after_in_parent), Some(after_in_child)) };
}

#[used]
#[unsafe(link_section = ".init_array")]
static REGISTER_FORK_HANDLERS: unsafe extern "C" fn() = register_fork_handlers;

/// Whether the process is set up. The lock is held meanwhile, so that a fork waits: the child would have half
/// of the state.
static SET_UP: Lock<bool> = Lock::new(Rank::SetUp, false);

/// Sets up the state that memdl needs once in a process. Each load and the first buffer begin with it.
pub(crate) fn set_up() -> Result<(), Error> {
    let mut done = SET_UP.lock();
    if !*done {
        require_memory()?;
        // The static is linked only if this object file is: a reference to it makes sure of that.
        std::hint::black_box(&REGISTER_FORK_HANDLERS);
        startup_set::set_up()?;
        startup_set::stay_loaded();
        debugger_commands::set_up();
        *done = true;
    }
    Ok(())
}

/// Sets the process up, then parses and binds a group.
pub(crate) fn prepare<'d>(
    settings: &Settings,
    bytes: Bytes<'d>,
    instances: Instances,
    may_run: Option<MayRun>,
) -> Result<Prepared<'d>, Error> {
    set_up().inspect_err(|error| events::failed(error, events::start()))?;
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
    collectors::after_fork_in_child();
    sync::open_after_fork_in_child();
    registry::after_fork_in_child();
    tls::after_fork_in_child();
    read_lines::after_fork_in_child();
}
