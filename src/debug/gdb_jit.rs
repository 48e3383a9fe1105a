//! The pair of symbols through which debuggers find images, and the lock of its list.
//!
//! At `__jit_debug_descriptor` is the list of symfiles, and `__jit_debug_register_code` is called after each change
//! ([`memdl_symfile::list`]).
//!
//! Both symbols are weak and hidden ([`memdl_symfile::define_pair`] says why). Where the pair is shared with another
//! runtime, so is the list, but not this lock: that is a limit of the interface, which names no lock. Copies of memdl
//! that share the pair share the lock too ([`memdl_symfile::list_lock`]).
//!
//! A fully stripped host has only the symbols that it exports. `libmemdl.so` exports the pair, if the linker
//! permits it (`build.rs`). For other hosts there is the feature `exported-debug-symbols`: then the pair is
//! strong and is exported. Where it cannot be found, a warning is logged ([`super::stripped`]).
//!
//! Source: "JIT Compilation Interface" in the gdb manual.

#![allow(unsafe_code)]

use memdl_symfile::list::{self, Descriptor, Pair};
use memdl_symfile::list_lock::ListGuard;

#[cfg(feature = "exported-debug-symbols")]
use crate::arch;
use crate::base::sync::{Guard, Lock, Rank};

// With the C API it comes from archives that `build.rs` makes.
#[cfg(not(any(feature = "exported-debug-symbols", feature = "capi")))]
memdl_symfile::define_pair!();

// For links by rustc: `libmemdl.so` exports these.
#[cfg(all(feature = "capi", not(feature = "exported-debug-symbols")))]
#[link(name = "memdl_pair_exported", kind = "static", modifiers = "-bundle,+whole-archive")]
unsafe extern "C" {}

#[cfg(not(feature = "exported-debug-symbols"))]
#[cfg_attr(feature = "capi", link(name = "memdl_pair", kind = "static"))]
unsafe extern "C" {
    /// Does nothing. A debugger stops here.
    safe fn __jit_debug_register_code();
    static mut __jit_debug_descriptor: Descriptor;
    /// In the object file of the pair. A reference to it links that file, whatever defines a pair besides.
    #[cfg(feature = "capi")]
    static memdl_pair_member_v1: u8;
}

/// Does nothing. A debugger stops here.
#[cfg(feature = "exported-debug-symbols")]
#[unsafe(no_mangle)]
#[unsafe(naked)]
extern "C" fn __jit_debug_register_code() {
    std::arch::naked_asm!(arch::return_instruction!());
}

#[cfg(feature = "exported-debug-symbols")]
#[unsafe(no_mangle)]
static mut __jit_debug_descriptor: Descriptor = Descriptor::EMPTY;

/// The pair of this object, with the lock of its list.
pub(crate) struct OwnPair;

/// A symfile in the list that debuggers read; out of it when dropped.
pub(crate) type Registration<S> = list::Registration<OwnPair, S>;

/// The lock of the list, held. The fields are in drop order.
pub(crate) struct Held {
    /// The lock that other copies of memdl in this object take, too.
    _shared: ListGuard,
    /// This copy's, for the order of locks, and for forks: no thread holds the other without it.
    _own: Guard<'static, ()>,
}

static LOCK: Lock<()> = Lock::new(Rank::DebugList, ());

// SAFETY: the symbols live as long as the object that memdl is in. Whoever changes the list holds the lock that all
// copies of memdl in the object share. The function is assembly, or opaque otherwise.
unsafe impl Pair for OwnPair {
    type Guard = Held;

    fn lock() -> Held {
        #[cfg(all(feature = "capi", not(feature = "exported-debug-symbols")))]
        std::hint::black_box(&raw const memdl_pair_member_v1);
        let own = LOCK.lock();
        Held { _shared: ListGuard::lock(), _own: own }
    }

    fn descriptor() -> *mut Descriptor {
        &raw mut __jit_debug_descriptor
    }

    fn register_code() -> extern "C" fn() {
        __jit_debug_register_code
    }
}

/// Whether a thread is changing the list now, perhaps the calling one.
pub(crate) fn is_busy() -> bool {
    LOCK.try_lock().is_none() || ListGuard::try_lock().is_none()
}

/// Whether a debugger has its breakpoint on `__jit_debug_register_code` now.
pub(crate) fn debugger_listens() -> bool {
    list::debugger_listens::<OwnPair>()
}

#[cfg(test)]
mod tests {
    use std::ptr;

    use memdl_symfile::list::StableBytes;

    use super::*;

    /// The symfiles' addresses, as a debugger that attaches now would find them.
    fn listed() -> Vec<*const u8> {
        let _list = OwnPair::lock();
        let mut found = vec![];
        // SAFETY: the lock is held; every entry in the list is valid.
        unsafe {
            let mut previous = ptr::null_mut();
            let descriptor = &raw const __jit_debug_descriptor;
            let mut entry = (*descriptor).first;
            while !entry.is_null() {
                assert_eq!((*entry).previous, previous);
                found.push((*entry).symfile);
                previous = entry;
                entry = (*entry).next;
            }
        }
        found
    }

    struct File(Vec<u8>);

    impl StableBytes for File {
        fn bytes(&self) -> &[u8] {
            &self.0
        }
    }

    /// A file with nothing in it.
    fn file() -> File {
        File(vec![0; 64])
    }

    #[test]
    fn a_changed_symfile_is_in_the_list_as_it_is_now() {
        let mut registration = Registration::new(file());
        let before = registration.symfile().0.as_ptr();
        registration.change(|symfile| symfile.0 = vec![0; 1 << 16]);
        let after = registration.symfile().0.as_ptr();
        assert!(before != after && listed().contains(&after) && !listed().contains(&before));
        let symfile = registration.withdraw();
        assert_eq!(symfile.0.as_ptr(), after);
        assert!(!listed().contains(&after));
    }

    #[test]
    fn the_list_is_busy_while_somebody_changes_it() {
        let list = OwnPair::lock();
        assert!(is_busy());
        drop(list);
    }

    #[test]
    fn entries_come_and_go_in_any_order() {
        let symfiles: Vec<File> = (0..3).map(|_| file()).collect();
        let places: Vec<_> = symfiles.iter().map(|symfile| symfile.0.as_ptr()).collect();
        let mut registered: Vec<_> = symfiles.into_iter().map(Registration::new).collect();
        let ours = || {
            let mut listed = listed();
            listed.retain(|place| places.contains(place));
            listed
        };
        assert_eq!(ours(), [places[2], places[1], places[0]]);
        registered.remove(1);
        assert_eq!(ours(), [places[2], places[0]]);
        registered.remove(1);
        assert_eq!(ours(), [places[0]]);
        registered.clear();
        assert_eq!(ours(), []);
    }

    #[test]
    fn a_child_forked_while_the_list_is_locked_can_lock_it() {
        let (locked, is_locked) = std::sync::mpsc::channel();
        drop(OwnPair::lock());
        let holder = std::thread::spawn(move || {
            let _list = OwnPair::lock();
            locked.send(()).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(100));
        });
        is_locked.recv().unwrap();
        // SAFETY: the child allocates nothing and leaves by `_exit`.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: async-signal-safe; `alarm` ends the child if it hangs.
            unsafe { libc::alarm(10) };
            drop(OwnPair::lock());
            // SAFETY: async-signal-safe, and the child is done.
            unsafe { libc::_exit(42) };
        }
        let mut status = 0;
        // SAFETY: `child` is our child, `status` a local.
        assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
        assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 42);
        holder.join().unwrap();
    }
}
