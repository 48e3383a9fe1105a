//! The list of symfiles that debuggers read: the GDB JIT interface.
//!
//! A debugger looks in every object of the process for two symbols, a *pair*. At `__jit_debug_descriptor` is a list of
//! entries, each of which points at an ELF file in memory. The debugger reads the list when it attaches, and keeps a
//! breakpoint on `__jit_debug_register_code`, which is called after each change. [`Registration`] is one entry, from
//! `new` to drop. Whose pair it is, and which lock guards its list, says the type parameter ([`Pair`]).
//!
//! It never looks into a symfile, and never touches the memory that one describes. The order is the caller's duty:
//! register when the code is in place, and **drop the registration while it still is**, since a debugger takes its
//! breakpoints out of the code then.
//!
//! Source: "JIT Compilation Interface" in the gdb manual. That gdb (8.1 to 18.1) and lldb put the breakpoint on the very
//! first instruction of the function, and that gdb does not take breakpoints out of code whose entry goes, was
//! found by experiment; see the drop of [`Listed`].

#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::ptr::{self, NonNull};

/// Defines the two symbols of the interface, weak and hidden.
///
/// Weak, so that another runtime that is linked into the same object (wasmtime has such a pair, also weak; LLVM's is
/// strong) may define them, too: then the list is that one's as well. Hidden, so that they are local in the symbol table
/// of what is linked: gdb takes the descriptor of every library for a copy of one that is global in the executable, and
/// does not read the library's. gold, lld and mold make each hidden symbol local. GNU ld does so in a position-independent
/// executable only if a relocation asks for a PLT entry for it, so behind the function is a word that asks for one, which
/// no linker makes for a hidden symbol. A position-dependent executable by GNU ld needs `-rdynamic`, which makes hidden
/// symbols local, too.
#[doc(hidden)]
#[macro_export]
macro_rules! define_pair {
    () => {
        ::std::arch::global_asm!(
            ".ifndef __jit_debug_descriptor",
            ".pushsection .text.__jit_debug_register_code,\"ax\",@progbits",
            ".weak __jit_debug_register_code",
            ".hidden __jit_debug_register_code",
            ".type __jit_debug_register_code,@function",
            "__jit_debug_register_code:",
            ".cfi_startproc",
            "ret",
            ".cfi_endproc",
            ".size __jit_debug_register_code, . - __jit_debug_register_code",
            // For GNU ld: see above. Nobody reads it.
            $crate::ask_for_plt!(),
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
    };
}

#[cfg(target_arch = "x86_64")]
#[doc(hidden)]
#[macro_export]
macro_rules! ask_for_plt {
    () => {
        ".4byte __jit_debug_descriptor@PLT - ."
    };
}

#[cfg(target_arch = "aarch64")]
#[doc(hidden)]
#[macro_export]
macro_rules! ask_for_plt {
    () => {
        "b __jit_debug_descriptor"
    };
}

/// `struct jit_descriptor` of the interface.
#[repr(C)]
pub struct Descriptor {
    /// 1 in all that exist.
    pub version: u32,
    pub action: u32,
    pub relevant: *mut Entry,
    pub first: *mut Entry,
}

impl Descriptor {
    /// An empty list.
    pub const EMPTY: Descriptor = Descriptor {
        version: 1,
        action: NO_ACTION,
        relevant: ptr::null_mut(),
        first: ptr::null_mut(),
    };
}

/// `struct jit_code_entry` of the interface.
#[repr(C)]
pub struct Entry {
    pub next: *mut Entry,
    pub previous: *mut Entry,
    pub symfile: *const u8,
    pub symfile_size: u64,
}

/// `jit_actions_t` of the interface.
const NO_ACTION: u32 = 0;
const REGISTER: u32 = 1;
const UNREGISTER: u32 = 2;

/// The two symbols of an object, and the lock of its list.
///
/// # Safety
/// `descriptor` is valid for the life of the process, and holds a well-formed list. Whoever changes the list holds a
/// guard. `register_code` does nothing, and the compiler cannot know that.
pub unsafe trait Pair {
    /// The right to change the list, until it is dropped.
    type Guard;

    fn lock() -> Self::Guard;
    fn descriptor() -> *mut Descriptor;
    /// `__jit_debug_register_code`. A debugger stops here.
    fn register_code() -> extern "C" fn();
}

/// A symfile, or what owns one: its bytes stay where they are when it is moved.
pub trait StableBytes {
    /// The symfile.
    fn bytes(&self) -> &[u8];
}

/// A symfile in the list that debuggers read; out of it when dropped.
///
/// The image that it describes must still be mapped, and its text be as it was, when this is
/// dropped. A debugger reads the symfile when it needs it, not only at registration, so the bytes
/// stay where they are, unchanged, for as long as they are in the list.
pub struct Registration<P: Pair, S> {
    /// Before what it points to.
    entry: Listed<P>,
    symfile: S,
}

/// An entry in the list; out of it when dropped.
///
/// From `Box::into_raw`; owned. Its neighbours in the list write to it, so no `Box` here.
struct Listed<P: Pair>(NonNull<Entry>, PhantomData<fn() -> P>);

// SAFETY: the entry is read and written under the list's lock only, by whichever thread; it is plain
// memory from the global allocator, bound to no thread.
unsafe impl<P: Pair> Send for Listed<P> {}
// SAFETY: as above; and nothing can be done with a `&Listed`.
unsafe impl<P: Pair> Sync for Listed<P> {}

impl<P: Pair, S: StableBytes> Registration<P, S> {
    /// Puts `symfile` into the list and notifies a debugger, if one is attached. Then this takes as long
    /// as the debugger takes to read the symfile.
    pub fn new(symfile: S) -> Registration<P, S> {
        let entry = NonNull::from(Box::leak(Box::new(Entry::of(symfile.bytes()))));
        let list = List::<P>::lock();
        // SAFETY: `entry` is valid and in no list, and lives until `drop` has taken it out; the
        // symfile lives in the same struct, behind it.
        unsafe { list.insert(entry.as_ptr()) };
        Registration { entry: Listed(entry, PhantomData), symfile }
    }

    /// The symfile, which is in the list.
    pub fn symfile(&self) -> &S {
        &self.symfile
    }

    /// Takes the symfile out of the list, changes it, and puts it in again. Allocates nothing.
    pub fn change(&mut self, change: impl FnOnce(&mut S)) {
        let entry = self.entry.0.as_ptr();
        let list = List::<P>::lock();
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
    pub fn withdraw(self) -> S {
        drop(self.entry);
        self.symfile
    }
}

impl<P: Pair> Drop for Listed<P> {
    /// Takes the entry out of the list and notifies a debugger.
    ///
    /// gdb forgets the symbols then, but its breakpoints stay in the image, and in its books, until
    /// something makes it look for their places again. If other code were mapped there before,
    /// gdb would later "restore" an old byte in the middle of it. A second event, about an image
    /// without any symbols, makes it look again while the old image is still mapped. (That does not
    /// reach breakpoints at plain addresses.)
    fn drop(&mut self) {
        let list = List::<P>::lock();
        // SAFETY: `new` put it in, and only this takes it out.
        unsafe { list.remove(self.0.as_ptr()) };
        if debugger_listens::<P>() {
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

/// Whether a debugger has its breakpoint on the pair's function now.
pub fn debugger_listens<P: Pair>() -> bool {
    let code: *const Instruction = P::register_code() as *const () as *const Instruction;
    // SAFETY: the function is at least one instruction long, and text is readable. A debugger writes to
    // it behind the compiler's back, hence volatile; it is aligned, so it cannot tear.
    unsafe { code.read_volatile() == BREAKPOINT }
}

/// What a debugger puts in the place of an instruction.
#[cfg(target_arch = "x86_64")]
type Instruction = u8;
#[cfg(target_arch = "x86_64")]
const BREAKPOINT: Instruction = 0xcc;
#[cfg(target_arch = "aarch64")]
type Instruction = u32;
/// `brk #0`.
#[cfg(target_arch = "aarch64")]
const BREAKPOINT: Instruction = 0xd420_0000;

#[cfg(target_arch = "x86_64")]
const E_MACHINE: u16 = 62;
#[cfg(target_arch = "aarch64")]
const E_MACHINE: u16 = 183;

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

/// The right to change the list: its lock, held.
struct List<P: Pair> {
    _guard: P::Guard,
}

impl<P: Pair> List<P> {
    fn lock() -> List<P> {
        List { _guard: P::lock() }
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
            let descriptor = P::descriptor();
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
            let descriptor = P::descriptor();
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
            let descriptor = P::descriptor();
            (*descriptor).relevant = entry;
            (*descriptor).action = action;
            memdl_symfile_announce(P::register_code());
            // Nothing dangles, even in a core file.
            (*descriptor).action = NO_ACTION;
            (*descriptor).relevant = ptr::null_mut();
        }
    }
}

/// Calls the function in the first argument, and returns.
#[cfg(target_arch = "x86_64")]
macro_rules! call_argument {
    () => {
        "sub rsp, 8
        .cfi_adjust_cfa_offset 8
        call rdi
        add rsp, 8
        .cfi_adjust_cfa_offset -8
        ret"
    };
}

#[cfg(target_arch = "aarch64")]
macro_rules! call_argument {
    () => {
        "stp x29, x30, [sp, #-16]!
        .cfi_def_cfa_offset 16
        .cfi_offset x29, -16
        .cfi_offset x30, -8
        mov x29, sp
        blr x0
        ldp x29, x30, [sp], #16
        .cfi_restore x29
        .cfi_restore x30
        .cfi_def_cfa_offset 0
        ret"
    };
}

// At each event gdb works out the frame that called the pair's function, and reads the whole compilation unit that this
// frame is in. That of compiled code takes as long as three images. This has none.
std::arch::global_asm!(
    ".ifndef memdl_symfile_announce",
    ".pushsection .text.memdl_symfile_announce,\"ax\",@progbits",
    ".weak memdl_symfile_announce",
    ".hidden memdl_symfile_announce",
    ".type memdl_symfile_announce,@function",
    "memdl_symfile_announce:",
    ".cfi_startproc",
    call_argument!(),
    ".cfi_endproc",
    ".size memdl_symfile_announce, . - memdl_symfile_announce",
    ".popsection",
    ".endif",
);

unsafe extern "C" {
    fn memdl_symfile_announce(register_code: extern "C" fn());
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
    // ET_DYN
    bytes[16] = 3;
    [bytes[18], bytes[19]] = E_MACHINE.to_le_bytes();
    // e_version, e_ehsize, e_phentsize, e_shentsize
    bytes[20] = 1;
    bytes[52] = 64;
    bytes[54] = 56;
    bytes[58] = 64;
    bytes
};
