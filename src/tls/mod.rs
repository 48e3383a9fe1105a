//! Thread-local storage of images.
//!
//! # The idea
//! A shared library's thread-local variables lie in a block, of which every thread has its own copy. Compiled
//! code reaches a variable by a pair of words in its GOT, `{module, offset}`
//! ([`TlsIndex`](crate::base::tls_index::TlsIndex)), which it passes to `__tls_get_addr`. For `ld.so`'s
//! libraries the module is a small number, the index into the thread's vector of blocks. Images need ids of another kind,
//! since `ld.so`'s vector cannot be extended from outside: the id of an image's module has its top bit set
//! and an index below. Images' references to `__tls_get_addr` are bound to memdl's version, which handles
//! such ids and passes all others on.
//!
//! A thread's pointers to its blocks lie in [`SLOTS`](layout::SLOTS) words of static thread-local storage, so
//! that the usual access is two loads. Slot 0 points to the thread's record ([`thread`]), which owns
//! the blocks; modules whose index is `SLOTS` or more are found through it. In a library that was opened with
//! `dlopen` there is no static storage: the record is found by the value of a `pthread` key ([`words`]). A block
//! is allocated at the thread's first access, filled from the image's relocated `.tdata`, and freed
//! when the thread ends or the image is unloaded.
//!
//! The registry's lock is held for bookkeeping only, never while a block is allocated or foreign code runs.
//!
//! # The other models
//! *TLS descriptors* ask a resolver for the variable's distance from the thread pointer. The
//! argument packs module and offset into one word ([`TlsDescArgument`](crate::base::tls_index::TlsDescArgument)), so that nothing has to be
//! allocated for it; the resolvers are in `arch/`.
//!
//! *Initial exec* reads the distance from the GOT and calls no function: the block must lie at the same
//! distance in every thread. `ld.so` reserves some static storage for libraries that are opened late; memdl
//! has a pool in its own static thread-local storage. An image that needs it gets a range of the pool instead
//! of blocks of its own. The initial values for new threads are written into those of the object that memdl
//! is linked into, which glibc copies for each thread. Threads that exist are written to directly
//! ([`crate::host::threads`]).
//!
//! Sources: U. Drepper, "ELF Handling For Thread-Local Storage"; A. Oliva, G. Araujo,
//! "Thread-Local Storage Descriptors for IA32 and AMD64/EM64T"; gABI "Thread-Local Storage".

mod access;
mod block_words;
mod layout;
mod module;
mod module_id;
mod registry;
mod static_pool;
mod thread;
mod words;

pub(crate) use access::{
    after_fork_in_child, keep_until_thread_ends, tls_get_addr, tlsdesc_dynamic, tlsdesc_static,
    tlsdesc_undefined,
};
pub(crate) use module::{BlockPlace, TlsModule, check_static_room};
pub(crate) use module_id::{allocated_block, first_module_offset, static_offset, variable_address};
