//! A program with two versions of memdl in it, and a third copy in a library that it opens: all load,
//! debug and unload at once.

use std::ffi::{CString, c_char, c_int, c_void};
use std::sync::atomic::{AtomicBool, Ordering};
use std::{env, fs, mem, ptr, thread};

unsafe extern "C" {
    // What debuggers look for, and call: all that is linked into one object shares them.
    safe fn memdl_debug_symbols() -> c_int;
    static __jit_debug_descriptor: [*const Entry; 3];
}

#[repr(C)]
struct Entry {
    next: *const Entry,
    previous: *const Entry,
}

type Run = unsafe extern "C" fn() -> c_int;
type Throws = unsafe extern "C-unwind" fn(c_int);
type Catches = unsafe extern "C" fn(unsafe extern "C-unwind" fn(*mut c_void), *mut c_void) -> c_int;

/// How many images debuggers see; nothing is loaded or unloaded meanwhile.
fn listed() -> usize {
    // SAFETY: the list is as its owners left it.
    unsafe {
        let mut entry = (&raw const __jit_debug_descriptor).read()[2];
        let mut count = 0;
        while !entry.is_null() {
            count += 1;
            assert!((*entry).next.is_null() || (*(*entry).next).previous == entry);
            entry = (*entry).next;
        }
        count
    }
}

/// Throws what `throws` does.
unsafe extern "C-unwind" fn call_throws(throws: *mut c_void) {
    // SAFETY: the address of such a function.
    unsafe { mem::transmute::<*mut c_void, Throws>(throws)(31) }
}

/// An image of some copy's.
struct Image {
    throws: *mut c_void,
    catches: Catches,
    run: Run,
    // Goes when this does.
    _library: Box<dyn std::any::Any>,
}

macro_rules! image {
    ($memdl:ident, $bytes:expr) => {{
        let loader = $memdl::Loader::new().system_libraries(true);
        // SAFETY: the test's own library, and these are the types of its functions.
        unsafe {
            let library = loader.load($bytes).unwrap();
            Image {
                throws: library.get::<Throws>("throws").unwrap().as_raw_ptr(),
                catches: *library.get::<Catches>("catches").unwrap(),
                run: *library.get::<Run>("run").unwrap(),
                _library: Box::new(library),
            }
        }
    }};
}

fn main() {
    let mut arguments = env::args().skip(1);
    let (library, plugin) = (arguments.next().unwrap(), arguments.next().unwrap());
    let bytes = fs::read(&library).unwrap();

    // The one that is second to look at the unwinder takes nothing from the first.
    let images = [image!(one, &bytes), image!(two, &bytes)];
    let plugin = CString::new(plugin).unwrap();
    // SAFETY: the test's own library, which has this function.
    let third: unsafe extern "C" fn(*const u8, usize, *const c_char) -> *mut c_void = unsafe {
        let handle = libc::dlopen(plugin.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL);
        assert!(!handle.is_null());
        mem::transmute(libc::dlsym(handle, c"third_loads".as_ptr()))
    };
    // SAFETY: this is what it takes; it gives the address of a symbol of its image, which stays.
    let of_third = |symbol: &std::ffi::CStr| unsafe {
        third(bytes.as_ptr(), bytes.len(), symbol.as_ptr())
    };
    let check = |what: &str| {
        let mut throwers: Vec<*mut c_void> = images.iter().map(|image| image.throws).collect();
        throwers.push(of_third(c"throws"));
        let mut catchers: Vec<Catches> = images.iter().map(|image| image.catches).collect();
        // SAFETY: its type.
        catchers.push(unsafe { mem::transmute::<*mut c_void, Catches>(of_third(c"catches")) });
        for catches in &catchers {
            for throws in &throwers {
                // SAFETY: they throw and catch.
                assert_eq!(unsafe { catches(call_throws, *throws) }, 31, "{what}");
            }
        }
        // SAFETY: no preconditions.
        images.iter().for_each(|image| assert_eq!(unsafe { (image.run)() }, 42, "{what}"));
    };
    check("first");
    assert_eq!((listed(), memdl_debug_symbols()), (2, 2));

    // Both change the list that debuggers read, while forks come.
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let workers = [
            scope.spawn(|| (0..40).for_each(|_| drop(image!(one, &bytes)))),
            scope.spawn(|| (0..40).for_each(|_| drop(image!(two, &bytes)))),
        ];
        let forks = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                // SAFETY: the child loads, which memdl promises to do in a forked child, and ends.
                let child = unsafe { libc::fork() };
                if child == 0 {
                    // SAFETY: ends the child if it hangs.
                    unsafe { libc::alarm(60) };
                    drop((image!(one, &bytes), image!(two, &bytes)));
                    // SAFETY: no preconditions.
                    unsafe { libc::_exit(42) };
                }
                let mut status = 0;
                // SAFETY: the child, and a local.
                unsafe { libc::waitpid(child, &mut status, 0) };
                assert_eq!((libc::WIFEXITED(status), libc::WEXITSTATUS(status)), (true, 42));
            }
        });
        workers.into_iter().for_each(|worker| worker.join().unwrap());
        done.store(true, Ordering::Relaxed);
        forks.join().unwrap();
    });
    check("afterwards");
    assert_eq!(listed(), 2);
    drop(images);
    assert_eq!(listed(), 0);
    // SAFETY: its type.
    let catches = unsafe { mem::transmute::<*mut c_void, Catches>(of_third(c"catches")) };
    // SAFETY: as above.
    assert_eq!(unsafe { catches(call_throws, of_third(c"throws")) }, 31, "the third, alone");
    assert_ne!(ptr::null(), of_third(c"run"));
    println!("all copies at work");
}
