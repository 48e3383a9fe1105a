//! The list of symfiles that debuggers read: the GDB JIT interface.
//!
//! A debugger looks in every object of the process for two symbols. At `__jit_debug_descriptor` is
//! a list of entries, each of which points at an ELF file in memory. It reads the list when it
//! attaches, and keeps a breakpoint on `__jit_debug_register_code`, which is called after each change.
//! [`Registration`] is one entry, from `new` to drop. No other state exists.
//!
//! Both symbols are weak and hidden. Weak, so that another runtime linked into the same object
//! (wasmtime has such a pair, also weak; LLVM's is strong) may define them too. Hidden, so that they
//! are local in the symbol table of what is linked: gdb takes the descriptor of every library for a copy of one
//! that is global in the executable, and does not read the library's. gold, lld and mold make each
//! hidden symbol local. GNU ld does so in a position-independent executable only if a relocation asks for a PLT entry
//! for it, so behind the function is a word that asks for one, which no linker makes for a hidden symbol. A
//! position-dependent executable by GNU ld needs `-rdynamic`, which makes hidden symbols local, too. Where the pair is shared with another runtime, so is
//! the list, but not this lock: that is a limit of the interface, which names no lock. Copies of memdl
//! that share the pair share the lock too (`base/shared.rs`).
//!
//! A fully stripped host has only the symbols that it exports. `libmemdl.so` exports the pair, if the linker
//! permits it (`build.rs`). For other hosts there is the feature `exported-debug-symbols`: then the pair is
//! strong and is exported. Where it cannot be found, a warning is logged ([`super::stripped`]).
//!
//! It never looks into a symfile, and never touches the memory of an image. The order is the
//! caller's duty: register when the image is mapped and relocated, and **drop the registration
//! while the image is still mapped**, since a debugger takes its breakpoints out of the image then.
//!
//! Source: "JIT Compilation Interface" in the gdb manual. That gdb (8.1 to 18.1) and lldb put the
//! breakpoint on the very first byte of the function, and that gdb does not take breakpoints out
//! of an image when its entry goes, was found by experiment; see the drop of [`Listed`].

#![allow(unsafe_code)]

use std::ptr::{self, NonNull};

use crate::arch;
use crate::base::shared;
use crate::base::sync::{Guard, Lock, Rank};

// With the C API it comes from archives that `build.rs` makes.
#[cfg(not(any(feature = "exported-debug-symbols", feature = "capi")))]
std::arch::global_asm!(
    ".ifndef __jit_debug_descriptor",
    ".pushsection .text.__jit_debug_register_code,\"ax\",@progbits",
    ".weak __jit_debug_register_code",
    ".hidden __jit_debug_register_code",
    ".type __jit_debug_register_code,@function",
    "__jit_debug_register_code:",
    ".cfi_startproc",
    arch::return_instruction!(),
    ".cfi_endproc",
    ".size __jit_debug_register_code, . - __jit_debug_register_code",
    // For GNU ld: see above. Nobody reads it.
    ".4byte __jit_debug_descriptor@PLT - .",
    ".popsection",
    ".pushsection .data.__jit_debug_descriptor,\"aw\",@progbits",
    ".balign 8",
    ".weak __jit_debug_descriptor",
    ".hidden __jit_debug_descriptor",
    ".type __jit_debug_descriptor,@object",
    "__jit_debug_descriptor:",
    // `version` is 1 in all that exist; the list is empty.
    ".4byte 1, 0",
    ".8byte 0, 0",
    ".size __jit_debug_descriptor, . - __jit_debug_descriptor",
    ".popsection",
    ".endif",
);

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
static mut __jit_debug_descriptor: Descriptor =
    Descriptor { version: 1, action: NO_ACTION, relevant: ptr::null_mut(), first: ptr::null_mut() };

/// `struct jit_descriptor` of the interface.
#[repr(C)]
struct Descriptor {
    version: u32,
    action: u32,
    relevant: *mut Entry,
    first: *mut Entry,
}

/// `struct jit_code_entry` of the interface.
#[repr(C)]
struct Entry {
    next: *mut Entry,
    previous: *mut Entry,
    symfile: *const u8,
    symfile_size: u64,
}

/// `jit_actions_t` of the interface.
const NO_ACTION: u32 = 0;
const REGISTER: u32 = 1;
const UNREGISTER: u32 = 2;

/// A symfile, or what owns one: its bytes stay where they are when it is moved.
pub(crate) trait StableBytes {
    /// The symfile.
    fn bytes(&self) -> &[u8];
}

/// A symfile in the list that debuggers read; out of it when dropped.
///
/// The image that it describes must still be mapped, and its text be as it was, when this is
/// dropped. A debugger reads the symfile when it needs it, not only at registration, so the bytes
/// stay where they are, unchanged, for as long as they are in the list.
pub(crate) struct Registration<S> {
    /// Before what it points to.
    entry: Listed,
    symfile: S,
}

/// An entry in the list; out of it when dropped.
///
/// From `Box::into_raw`; owned. Its neighbours in the list write to it, so no `Box` here.
struct Listed(NonNull<Entry>);

// SAFETY: the entry is read and written under the list's lock only, by whichever thread; it is plain
// memory from the global allocator, bound to no thread.
unsafe impl Send for Listed {}
// SAFETY: as above; and nothing can be done with a `&Listed`.
unsafe impl Sync for Listed {}

impl<S: StableBytes> Registration<S> {
    /// Puts `symfile` into the list and notifies a debugger, if one is attached. Then this takes as long
    /// as the debugger takes to read the symfile.
    pub(crate) fn new(symfile: S) -> Registration<S> {
        let entry = NonNull::from(Box::leak(Box::new(Entry::of(symfile.bytes()))));
        let list = List::lock();
        // SAFETY: `entry` is valid and in no list, and lives until `drop` has taken it out; the
        // symfile lives in the same struct, behind it.
        unsafe { list.insert(entry.as_ptr()) };
        Registration { entry: Listed(entry), symfile }
    }

    /// The symfile, which is in the list.
    pub(crate) fn symfile(&self) -> &S {
        &self.symfile
    }

    /// Takes the symfile out of the list, changes it, and puts it in again. Allocates nothing.
    pub(crate) fn change(&mut self, change: impl FnOnce(&mut S)) {
        let entry = self.entry.0.as_ptr();
        let list = List::lock();
        // SAFETY: `new` put it in; between the calls it is in no list and ours alone, and its new
        // contents are valid: as in `new`.
        unsafe {
            list.remove(entry);
            change(&mut self.symfile);
            *entry = Entry::of(self.symfile.bytes());
            list.insert(entry);
        }
    }

    /// Takes the symfile out of the list and returns it.
    pub(crate) fn withdraw(self) -> S {
        drop(self.entry);
        self.symfile
    }
}

impl Drop for Listed {
    /// Takes the entry out of the list and notifies a debugger.
    ///
    /// gdb forgets the symbols then, but its breakpoints stay in the image, and in its books, until
    /// something makes it look for their places again. If other code were mapped there before,
    /// gdb would later "restore" an old byte in the middle of it. A second event, about an image
    /// without any symbols, makes it look again while the old image is still mapped. (That does not
    /// reach breakpoints at plain addresses: so the addresses are kept from being used again, see
    /// [`quarantine`](crate::memory::quarantine).)
    fn drop(&mut self) {
        let list = List::lock();
        // SAFETY: `new` put it in, and only this takes it out.
        unsafe { list.remove(self.0.as_ptr()) };
        if debugger_listens() {
            let mut nothing = Entry::of(&EMPTY_SYMFILE);
            // SAFETY: a local that is in the list only between the two calls, and not touched
            // but through this pointer meanwhile; the symfile is a static.
            unsafe {
                let nothing = &raw mut nothing;
                list.insert(nothing);
                list.remove(nothing);
            }
        }
        drop(list);
        // SAFETY: it came from a `Box` in `new`, is in no list any more and this is its only owner.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

/// Whether a thread is changing the list now, perhaps the calling one.
pub(crate) fn is_busy() -> bool {
    LOCK.try_lock().is_none() || shared::ListGuard::try_lock().is_none()
}

/// Whether a debugger has its breakpoint on `__jit_debug_register_code` now.
pub(crate) fn debugger_listens() -> bool {
    let code: *const u8 = __jit_debug_register_code as *const () as *const u8;
    // SAFETY: the function is at least one byte long, and text is readable. A debugger writes to
    // it behind the compiler's back, hence volatile; one byte cannot tear.
    unsafe { code.read_volatile() == arch::BREAKPOINT }
}

impl Entry {
    fn of(symfile: &[u8]) -> Entry {
        Entry {
            next: ptr::null_mut(),
            previous: ptr::null_mut(),
            symfile: symfile.as_ptr(),
            symfile_size: symfile.len() as u64,
        }
    }
}

/// The right to change the list: its lock, held. The fields are in drop order.
struct List {
    /// The lock that other copies of memdl in this object take, too.
    _shared: shared::ListGuard,
    /// This copy's, for the order of locks, and for forks: no thread holds the other without it.
    _own: Guard<'static, ()>,
}

static LOCK: Lock<()> = Lock::new(Rank::DebugList, ());

impl List {
    fn lock() -> List {
        #[cfg(all(feature = "capi", not(feature = "exported-debug-symbols")))]
        std::hint::black_box(&raw const memdl_pair_member_v1);
        let own = LOCK.lock();
        List { _shared: shared::ListGuard::lock(), _own: own }
    }

    /// Puts `entry` first and announces it.
    ///
    /// # Safety
    /// `entry` is valid, in no list, and stays valid until it is removed; so does its symfile.
    unsafe fn insert(&self, entry: *mut Entry) {
        // SAFETY: the lock is held, so no other thread of ours touches the list; the debugger
        // does so only when all threads stand still. `entry` and all in the list are valid (the
        // caller's promise, for each of them).
        unsafe {
            let descriptor = &raw mut __jit_debug_descriptor;
            let first = (*descriptor).first;
            (*entry).previous = ptr::null_mut();
            (*entry).next = first;
            if !first.is_null() {
                (*first).previous = entry;
            }
            (*descriptor).first = entry;
            self.announce(REGISTER, entry);
        }
    }

    /// Takes `entry` out and announces it.
    ///
    /// # Safety
    /// `entry` is in the list.
    unsafe fn remove(&self, entry: *mut Entry) {
        // SAFETY: as in `insert`.
        unsafe {
            let descriptor = &raw mut __jit_debug_descriptor;
            let Entry { next, previous, .. } = *entry;
            if !next.is_null() {
                (*next).previous = previous;
            }
            if previous.is_null() {
                (*descriptor).first = next;
            } else {
                (*previous).next = next;
            }
            self.announce(UNREGISTER, entry);
        }
    }

    /// Stops at the debugger's breakpoint, if there is one, with `action` on `entry` to be read.
    ///
    /// # Safety
    /// `entry` is valid.
    unsafe fn announce(&self, action: u32, entry: *mut Entry) {
        // SAFETY: the lock is held, see `insert`. The function is opaque to the compiler, so all
        // that was written before is in memory when it is called.
        unsafe {
            let descriptor = &raw mut __jit_debug_descriptor;
            (*descriptor).relevant = entry;
            (*descriptor).action = action;
            __jit_debug_register_code();
            // Nothing dangles, even in a core file.
            (*descriptor).action = NO_ACTION;
            (*descriptor).relevant = ptr::null_mut();
        }
    }
}

/// An ELF file with nothing in it: the header of a shared object, no sections, no segments.
#[expect(clippy::indexing_slicing, reason = "the compiler works it out")]
static EMPTY_SYMFILE: [u8; 64] = {
    let mut bytes = [0; 64];
    let ident = b"\x7fELF\x02\x01\x01";
    let mut i = 0;
    while i < ident.len() {
        bytes[i] = ident[i];
        i += 1;
    }
    bytes[16] = goblin::elf::header::ET_DYN as u8;
    [bytes[18], bytes[19]] = arch::E_MACHINE.to_le_bytes();
    // e_version, e_ehsize, e_phentsize, e_shentsize
    bytes[20] = 1;
    bytes[52] = 64;
    bytes[54] = 56;
    bytes[58] = 64;
    bytes
};

#[cfg(test)]
mod tests {
    use super::*;

    /// The symfiles' addresses, as a debugger that attaches now would find them.
    fn listed() -> Vec<*const u8> {
        let _list = List::lock();
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

    impl StableBytes for Vec<u8> {
        fn bytes(&self) -> &[u8] {
            self
        }
    }

    #[test]
    fn a_changed_symfile_is_in_the_list_as_it_is_now() {
        let mut registration = Registration::new(EMPTY_SYMFILE.to_vec());
        let before = registration.symfile().as_ptr();
        registration.change(|symfile| symfile.resize(1 << 16, 0));
        let after = registration.symfile().as_ptr();
        assert!(before != after && listed().contains(&after) && !listed().contains(&before));
        let symfile = registration.withdraw();
        assert_eq!(symfile.as_ptr(), after);
        assert!(!listed().contains(&after));
    }

    #[test]
    fn the_list_is_busy_while_somebody_changes_it() {
        let list = List::lock();
        assert!(is_busy());
        drop(list);
    }

    #[test]
    fn entries_come_and_go_in_any_order() {
        let symfiles: Vec<Vec<u8>> = (0..3).map(|_| EMPTY_SYMFILE.to_vec()).collect();
        let places: Vec<_> = symfiles.iter().map(|symfile| symfile.as_ptr()).collect();
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
        drop(List::lock());
        let holder = std::thread::spawn(move || {
            let _list = List::lock();
            locked.send(()).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(100));
        });
        is_locked.recv().unwrap();
        // SAFETY: the child allocates nothing and leaves by `_exit`.
        let child = unsafe { libc::fork() };
        if child == 0 {
            // SAFETY: async-signal-safe; `alarm` ends the child if it hangs.
            unsafe { libc::alarm(10) };
            drop(List::lock());
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
