//! `memdl_set_log`: where a C host hears what memdl logs.

#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};

use super::callbacks::{FreeUser, OwnedUser};
use super::errors::{caught, status};
use super::logger::{self, Callback, LoggerCallback};

/// Sets, or removes, the host's callback.
///
/// # Safety
/// The header's contract.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memdl_set_log(
    level: c_int,
    logger: Option<LoggerCallback>,
    user: *mut c_void,
    free_user: Option<FreeUser>,
) -> c_int {
    let user = OwnedUser::new(user, free_user);
    status(caught(|| {
        let known = logger::level_of(level);
        let level = known.ok_or_else(|| format!("there is no memdl_log_level {level}"))?;
        // SAFETY: the header's contract.
        let callback = logger.map(|call| unsafe { Callback::new(call, user) });
        match logger::set(level, callback) {
            true => Ok(()),
            false => {
                Err("the process has a logger (log::set_logger), which gets memdl's events".into())
            }
        }
    }))
}
