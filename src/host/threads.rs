//! The threads of the process: writing to the static thread-local storage of all of them, and the free stack of
//! the calling one.
//!
//! An image whose thread-local variables have a fixed distance from the thread pointer (initial exec) may be
//! loaded while threads exist. Each must have the initial values before the load returns.
//!
//! POSIX has no list of threads. glibc has one, and describes it for debuggers: `libthread_db` reads a process's
//! threads by offsets that libc exports for it (`_thread_db_*`, one format since glibc 2.3). They are used here
//! the same way, from inside. Before glibc 2.34 they are in libpthread, which exports none of them: there they are
//! looked up in its file, as `libthread_db` does ([`libpthread`]). The list may change while it is read, since its
//! lock is private. So all memory is read and written by the kernel ([`process_memory`]), which reports unmapped
//! memory instead of faulting.
//!
//! A thread that is being created at this moment may be missed: glibc copies the initial values for it before it
//! lists it. It gets the new values if they were copied after memdl has written them, which it does first.
//!
//! Never writes outside the range that the caller names.
//!
//! Sources: glibc `nptl_db/structs.def`, `nptl_db/db_info.c` (`DB_STRUCT_FIELD`); `proc(5)`, `/proc/pid/stat`.

#![allow(unsafe_code)]

use std::ffi::CStr;
use std::io;
use std::sync::OnceLock;

use crate::base::error::Error;
use crate::base::fallible::TryGrow;
use crate::base::sync;
use crate::host::{libpthread, process};
use crate::memory::process_memory;

/// More threads than a process can have. A list that seems longer is being changed.
const MAX_THREADS: usize = 1 << 20;
/// The number of times that a list is read again because it has changed meanwhile.
const ATTEMPTS: usize = 100;

/// Writes `bytes` at this distance from the thread pointer of every other thread.
pub(crate) fn write_to_others(offset: isize, bytes: &[u8]) -> Result<(), Error> {
    let refused = |source| {
        Error::system("giving thread-local variables to threads that exist already", source)
    };
    if is_only_thread() {
        return Ok(());
    }
    let list = ThreadList::known().map_err(refused)?;
    let own = crate::arch::thread_pointer();
    for thread_pointer in list.thread_pointers().map_err(refused)? {
        if thread_pointer != own {
            let target = thread_pointer.wrapping_add_signed(offset);
            // SAFETY: a range of a thread's static thread-local storage that memdl owns and that nothing refers
            // to yet. The kernel reports unmapped memory.
            match unsafe { process_memory::write(target, bytes) } {
                // The thread has ended meanwhile.
                Err(error) if error.raw_os_error() == Some(libc::EFAULT) => {}
                result => result.map_err(refused)?,
            }
        }
    }
    Ok(())
}

/// Whether no other thread exists, as far as the system tells.
fn is_only_thread() -> bool {
    // Two entries are enough to tell. (`read_dir` leaves `.` and `..` out.)
    let tasks = std::fs::read_dir("/proc/self/task");
    let counted = tasks.and_then(|tasks| {
        tasks.take(2).try_fold(0_usize, |count, task| task.map(|_| count.saturating_add(1)))
    });
    // Where folders cannot be read (`getdents64` may be denied), a file tells.
    counted.ok().or_else(threads_in_stat) == Some(1)
}

/// The number of threads, by `/proc/self/stat`. Some emulators say 0.
fn threads_in_stat() -> Option<usize> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field, the program's name, may have spaces and parentheses in it. This is the twentieth.
    let (_, behind_name) = stat.rsplit_once(')')?;
    behind_name.split_ascii_whitespace().nth(17)?.parse().ok()
}

/// The place and layout of glibc's list of threads.
struct ThreadList {
    /// Addresses of the heads of two circular lists: threads on stacks that glibc has allocated, and others.
    heads: [usize; 2],
    /// Offset of the pointer to the next element in a list element.
    next: usize,
    /// Offset of the list element in a thread's descriptor.
    element: usize,
}

impl ThreadList {
    /// The list of this process, which is found once.
    fn known() -> io::Result<&'static ThreadList> {
        static LIST: OnceLock<ThreadList> = OnceLock::new();
        if let Some(list) = LIST.get() {
            return Ok(list);
        }
        let found = ThreadList::find().map_or_else(ThreadList::of_libpthread, Ok)?;
        // A forked child would find it half set.
        let _no_fork = sync::hold_off_fork();
        Ok(LIST.get_or_init(|| found))
    }

    /// That of glibc before 2.34. Its names have no version, so what they lead to is tried: the calling thread
    /// must be in the list.
    fn of_libpthread() -> io::Result<ThreadList> {
        let names: [&[u8]; 4] =
            [b"stack_used", b"__stack_user", b"_thread_db_list_t_next", b"_thread_db_pthread_list"];
        let found = libpthread::addresses(names).and_then(|[used, user, next, element]| {
            let heads = [used, user];
            // SAFETY: glibc's constants have that form, and that library is never unloaded (`DF_1_NODELETE`).
            let [next, element] = [next, element].map(|at| unsafe { offset_at(at as *const _) });
            let list = ThreadList { heads, next, element };
            match list.thread_pointers()?.contains(&crate::arch::thread_pointer()) {
                true => Ok(list),
                false => Err(io::Error::other("its list lacks the calling thread")),
            }
        });
        found.map_err(|error| match error.kind() {
            io::ErrorKind::OutOfMemory => error,
            kind => io::Error::new(kind, before_2_34(&error)),
        })
    }

    /// That of glibc 2.34 and later.
    fn find() -> Option<ThreadList> {
        let global = symbol(c"_rtld_global")?;
        Some(ThreadList {
            heads: [
                global.checked_add(field_offset(c"_thread_db_rtld_global__dl_stack_used")?)?,
                global.checked_add(field_offset(c"_thread_db_rtld_global__dl_stack_user")?)?,
            ],
            next: field_offset(c"_thread_db_list_t_next")?,
            element: field_offset(c"_thread_db_pthread_list")?,
        })
    }

    fn thread_pointers(&self) -> io::Result<Vec<usize>> {
        let mut result = self.read_once();
        // Only unmapped memory and an endless list are signs of a change. Other errors are final.
        let is_changing = |error: &io::Error| {
            error.raw_os_error() == Some(libc::EFAULT) || error.kind() == io::ErrorKind::Interrupted
        };
        for _ in 0..ATTEMPTS {
            if !result.as_ref().is_err_and(is_changing) {
                break;
            }
            std::thread::yield_now();
            result = self.read_once();
        }
        result
    }

    fn read_once(&self) -> io::Result<Vec<usize>> {
        let mut found = Vec::new();
        // glibc's identifier of a thread is the address of its descriptor, and all are at the same distance from
        // their thread pointers.
        // SAFETY: no preconditions.
        let own = unsafe { libc::pthread_self() } as usize;
        let from_descriptor = crate::arch::thread_pointer().wrapping_sub(own);
        for head in self.heads {
            let mut at = self.after(head)?;
            while at != head {
                if found.len() == MAX_THREADS || at == 0 {
                    return Err(io::ErrorKind::Interrupted.into());
                }
                found
                    .try_push(at.wrapping_sub(self.element).wrapping_add(from_descriptor))
                    .map_err(|_| io::ErrorKind::OutOfMemory)?;
                at = self.after(at)?;
            }
        }
        Ok(found)
    }

    /// The element after the one at `at`. A word that was read during a change may be no valid address: the
    /// kernel reports that.
    fn after(&self, at: usize) -> io::Result<usize> {
        read_word(at.wrapping_add(self.next))
    }
}

/// The address of a symbol that glibc exports for debuggers.
fn symbol(name: &CStr) -> Option<usize> {
    // SAFETY: a C string; searches the global scope.
    let address = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    (!address.is_null()).then(|| address.addr())
}

/// The offset in a field's description (size in bits, count, offset).
pub(super) fn field_offset(name: &CStr) -> Option<usize> {
    // SAFETY: glibc's constant has that form.
    Some(unsafe { offset_at(symbol(name)? as *const _) })
}

/// # Safety
/// A field's description is there.
unsafe fn offset_at(description: *const [u32; 3]) -> usize {
    // SAFETY: the caller's promise.
    let [_, _, offset] = unsafe { description.read() };
    offset as usize
}

/// What is said where the list is not found.
fn before_2_34(error: &io::Error) -> String {
    let version = process::glibc_version().to_string_lossy();
    format!(
        "glibc before 2.34 (this is {version}) has its list of threads in libpthread.so.0, by symbols that \
         debuggers read in its file: {error}; restore that file, or load this image before the process starts \
         its second thread"
    )
}

/// The size of a structure that glibc exports for debuggers.
pub(super) fn size_of_structure(name: &CStr) -> Option<usize> {
    let size = symbol(name)? as *const u32;
    // SAFETY: glibc's constant has that form.
    Some(unsafe { size.read() } as usize)
}

fn read_word(address: usize) -> io::Result<usize> {
    let mut word = [0; size_of::<usize>()];
    process_memory::read(address, &mut word)?;
    Ok(usize::from_ne_bytes(word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn all_threads_of_the_process_are_listed() {
        let (to_main, from_threads) = mpsc::channel();
        let (stop, threads): (Vec<_>, Vec<_>) = (0..5)
            .map(|_| {
                let (stop, stopped) = mpsc::channel::<()>();
                let to_main = to_main.clone();
                let thread = std::thread::spawn(move || {
                    to_main.send(crate::arch::thread_pointer()).unwrap();
                    let _ = stopped.recv();
                });
                (stop, thread)
            })
            .unzip();
        let mut expected: Vec<usize> = (0..5).map(|_| from_threads.recv().unwrap()).collect();
        expected.push(crate::arch::thread_pointer());
        let found = ThreadList::known().unwrap().thread_pointers().unwrap();
        for thread_pointer in expected {
            assert!(found.contains(&thread_pointer));
        }
        drop(stop);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }

    #[test]
    fn the_kernel_counts_threads_in_two_places() {
        // Other tests start and end threads meanwhile.
        let agree = || {
            let folder = std::fs::read_dir("/proc/self/task").unwrap().count();
            threads_in_stat() == Some(folder) && folder > 1
        };
        assert!((0..1000).any(|_| agree()));
    }
}
