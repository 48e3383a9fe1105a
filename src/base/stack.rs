//! The room on the calling thread's stack.
//!
//! Source: `pthread_getattr_np(3)`.

#![allow(unsafe_code)]

use std::cell::Cell;
use std::ptr;

/// The free part of this thread's stack, in bytes. `None` if that is unknown, or if the thread runs on another
/// stack (a signal handler's).
pub(crate) fn stack_room() -> Option<usize> {
    thread_local! {
        /// Its lowest address, and the one behind its highest. Zeros before they are asked for.
        static STACK: Cell<(usize, usize)> = const { Cell::new((0, 0)) };
    }
    let (low, high) = match STACK.get() {
        (0, 0) => {
            // No address lies in such a stack.
            let stack = stack().unwrap_or((1, 1));
            STACK.set(stack);
            stack
        }
        known => known,
    };
    let here = 0_u8;
    let here = (&raw const here).addr();
    if here < high { here.checked_sub(low) } else { None }
}

fn stack() -> Option<(usize, usize)> {
    let (mut low, mut size) = (ptr::null_mut(), 0);
    // SAFETY: the attributes are destroyed if the first function has initialised them; all pointers are to
    // locals.
    unsafe {
        let mut attributes: libc::pthread_attr_t = std::mem::zeroed();
        if libc::pthread_getattr_np(libc::pthread_self(), &mut attributes) != 0 {
            return None;
        }
        let failed = libc::pthread_attr_getstack(&attributes, &mut low, &mut size) != 0;
        libc::pthread_attr_destroy(&mut attributes);
        if failed {
            return None;
        }
    }
    Some((low.addr(), low.addr().checked_add(size)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_room_on_a_stack_is_less_than_its_size() {
        let size = 256 << 10;
        let ask = || stack_room().unwrap();
        let room = std::thread::Builder::new().stack_size(size).spawn(ask).unwrap().join().unwrap();
        assert!((size / 2..=size).contains(&room), "{room}");
    }
}
