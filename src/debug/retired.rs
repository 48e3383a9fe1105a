//! Images that were unloaded under gdb, whose entries debuggers still see.
//!
//! gdb looks for the places of all its breakpoints at each event. It disables a breakpoint that was set while
//! an image was there, if it finds no place for it: so a breakpoint would be hit in the first load of an image
//! and in none that follows. Here the last entry of an image stays, with its addresses, until the same image
//! is registered again. The new entry comes first: so gdb always finds a place.
//!
//! What gdb shows of the image meanwhile is what it left; zeros, where kept memory is wiped. There is no access to its
//! memory, and a debugger's access needs none. The oldest image goes when there are too many, and all go when no debugger listens.
//!
//! Source: `code_breakpoint::location_to_sals` in gdb's `breakpoint.c`: "One solution, implemented here, is
//! disable the breakpoint on error".

#![forbid(unsafe_code)]

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};

use super::gdb_jit::debugger_listens;
use super::published::Published;
use crate::base::build_id::{BuildId, build_id};
use crate::base::fallible::TryGrow;
use crate::base::sync::{Guard, Lock, Rank};
use crate::elf::decoded::Decoded;
use crate::elf::read::ReadAt;
use crate::memory::quarantine::{close, quarantine};
use crate::memory::reservation::Reservation;

/// As many images stay.
const MAX_IMAGES: usize = 16;
/// As many bytes of them keep their contents.
const MAX_CONTENTS: usize = 64 << 20;

/// What is the same in all loads of an image, and differs from other images.
#[derive(PartialEq, Eq)]
pub(crate) enum Identity {
    BuildId(BuildId),
    /// A digest of its segments and of its dynamic strings.
    Layout(u64),
}

impl Identity {
    /// Of an image in memory. Does not look at its code, which has breakpoints in it.
    pub(crate) fn new(decoded: &Decoded, memory: &impl ReadAt, strings: &[u8]) -> Identity {
        if let Some(id) = build_id(decoded.notes(memory)) {
            return Identity::BuildId(id);
        }
        let mut digest = DefaultHasher::new();
        for header in &decoded.program_headers {
            (header.p_type, header.p_vaddr, header.p_filesz, header.p_memsz).hash(&mut digest);
        }
        strings.hash(&mut digest);
        Identity::Layout(digest.finish())
    }
}

/// An image that was unloaded.
struct Retired {
    identity: Identity,
    published: Published,
    memory: Reservation,
    keeps_contents: bool,
}

impl Retired {
    /// Takes the entry out of the list that debuggers read, while the addresses are still mapped.
    fn release(self) {
        drop(self.published);
        quarantine(self.memory);
    }
}

/// In the order in which they were unloaded.
static RETIRED: Lock<Vec<Retired>> = Lock::new(Rank::Retired, Vec::new());

/// How many there are, for those who must not wait.
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// Keeps an image that is unloaded: its entry, and the memory that it was in.
pub(super) fn keep(identity: Identity, published: Published, memory: Reservation) {
    let mut retired = Retired { identity, published, memory, keeps_contents: false };
    let mut gone = Vec::new();
    let mut all = RETIRED.lock();
    if all.try_room(1).is_err() || gone.try_room(MAX_IMAGES).is_err() {
        drop(all);
        return retired.release();
    }
    gone.extend(all.extract_if(.., |other| other.identity == retired.identity));
    if all.len() >= MAX_IMAGES {
        gone.extend(all.drain(..1));
    }
    let kept = all.iter().filter(|other| other.keeps_contents).map(|other| other.memory.len());
    let room = kept.fold(MAX_CONTENTS, usize::saturating_sub);
    retired.keeps_contents = retired.memory.len() <= room && close(&retired.memory);
    if !retired.keeps_contents {
        retired.memory.blank();
    }
    all.push(retired);
    release(all, gone);
}

/// Lets the image go that was registered again with this identity. Lets all go if no debugger listens.
pub(crate) fn replaced_by(identity: impl FnOnce() -> Identity) {
    if COUNT.load(Ordering::Relaxed) == 0 {
        return;
    }
    let identity = debugger_listens().then(identity);
    let is_gone = |retired: &mut Retired| {
        identity.as_ref().is_none_or(|identity| *identity == retired.identity)
    };
    let mut gone = Vec::new();
    let mut all = RETIRED.lock();
    if gone.try_room(all.len()).is_ok() {
        gone.extend(all.extract_if(.., is_gone));
    }
    release(all, gone);
}

/// Releases images without the lock, since a debugger may take long.
fn release(all: Guard<'_, Vec<Retired>>, gone: Vec<Retired>) {
    COUNT.store(all.len(), Ordering::Relaxed);
    drop(all);
    gone.into_iter().for_each(Retired::release);
}

/// Whether the process is traced by lldb or its server: lldb keeps its breakpoints by itself, so no image has to
/// stay here. Where that cannot be found out (the debugger is in another PID namespace), it is not.
pub(crate) fn is_traced_by_lldb() -> bool {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
    // A program that is started by `ld.so` has that name in its `comm`.
    let words = tracer.and_then(|pid| fs::read(format!("/proc/{}/cmdline", pid.trim())).ok());
    words.is_some_and(|words| words.split(|&byte| byte == 0).any(is_lldb))
}

/// Whether this names lldb's program, or its server's.
fn is_lldb(path: &[u8]) -> bool {
    path.rsplit(|&byte| byte == b'/').next().is_some_and(|name| name.starts_with(b"lldb"))
}
