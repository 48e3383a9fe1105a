//! The context pointers of a C host's callbacks.

#![allow(unsafe_code)]

use std::ffi::c_void;

/// The function that frees a callback's context.
pub type FreeUser = unsafe extern "C" fn(user: *mut c_void);

/// The context pointer of a callback.
pub(super) struct User(*mut c_void);

// SAFETY: memdl only passes the pointer to the callback, which the header allows it to call in any thread.
unsafe impl Send for User {}
// SAFETY: as above.
unsafe impl Sync for User {}

impl User {
    pub(super) fn new(user: *mut c_void) -> User {
        User(user)
    }

    pub(super) fn get(&self) -> *mut c_void {
        self.0
    }
}

/// The context pointer of a callback that loaded images may still call, with the function that frees it.
pub(super) struct OwnedUser {
    user: User,
    free: Option<FreeUser>,
}

impl OwnedUser {
    pub(super) fn new(user: *mut c_void, free: Option<FreeUser>) -> OwnedUser {
        OwnedUser { user: User(user), free }
    }

    pub(super) fn get(&self) -> *mut c_void {
        self.user.get()
    }
}

impl Drop for OwnedUser {
    fn drop(&mut self) {
        if let Some(free) = self.free {
            // SAFETY: the header's contract: called once, after the last use.
            unsafe { free(self.user.get()) };
        }
    }
}
