//! One operation many times, while so many images are there, for tools that count.
//!
//! ```console
//! $ valgrind --tool=callgrind target/release/fleets memdl load 1000 100 libmember.so libasks.so libuses.so
//! ```
//!
//! Loads `LIVE` copies of the first library and one of the second, each globally visible, and then does one of these
//! `COUNT` times, with memdl or with `dlopen`:
//!
//! - `load`: loads the third library with `global`, and unloads it;
//! - `ask`: the second library looks up its own symbol by `dlsym(RTLD_DEFAULT, ..)`;
//! - `miss`: it looks up a symbol that nothing defines;
//! - `walk`: it calls `dl_iterate_phdr`.
//!
//! The libraries are those of `testlibs/fleets/`.

use std::error::Error;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fs;
use std::path::Path;

use memdl::{DebugLevel, Library, Loader};

/// How libraries are loaded.
enum Way {
    Memdl(Box<Loader>),
    /// From a copy of the file for each, since `ld.so` loads a file once.
    Dlopen {
        folder: String,
        copies: usize,
    },
}

enum Loaded {
    Memdl(Library),
    Dlopen(*mut c_void),
}

impl Way {
    fn load(&mut self, bytes: &[u8]) -> Result<Loaded, Box<dyn Error>> {
        match self {
            // SAFETY: whoever runs this named the library, and so trusts it and what it needs.
            Way::Memdl(loader) => Ok(Loaded::Memdl(unsafe { loader.load(bytes)? })),
            Way::Dlopen { folder, copies } => {
                *copies += 1;
                let path = format!("{folder}/{copies}.so");
                fs::write(&path, bytes)?;
                Loaded::open(Path::new(&path))
            }
        }
    }
}

impl Loaded {
    fn open(path: &Path) -> Result<Loaded, Box<dyn Error>> {
        let path = CString::new(path.to_str().ok_or("no path")?)?;
        // SAFETY: a C string; the library is trusted as above.
        let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
        if handle.is_null() {
            // SAFETY: a call of this thread has just failed, so there is a text.
            let text = unsafe { CStr::from_ptr(libc::dlerror()) };
            return Err(text.to_string_lossy().into());
        }
        Ok(Loaded::Dlopen(handle))
    }

    fn close(self) -> Result<(), Box<dyn Error>> {
        match self {
            Loaded::Memdl(library) => drop(library.close()?),
            Loaded::Dlopen(handle) => {
                // SAFETY: a handle of `open`, closed once.
                unsafe { libc::dlclose(handle) };
            }
        }
        Ok(())
    }

    fn symbol(&self, name: &CStr) -> Result<*mut c_void, Box<dyn Error>> {
        match self {
            Loaded::Memdl(library) => {
                Ok(library.symbol(name).ok_or("no such symbol")?.address() as *mut c_void)
            }
            // SAFETY: an open handle and a C string.
            Loaded::Dlopen(handle) => Ok(unsafe { libc::dlsym(*handle, name.as_ptr()) }),
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [by, what, live, count, member, asks, uses] = &arguments[..] else {
        return Err(
            "usage: fleets memdl|local|dlopen load|ask|miss|walk LIVE COUNT MEMBER ASKS USES"
                .into(),
        );
    };
    let (live, count) = (live.parse::<usize>()?, count.parse::<u64>()?);
    // A path takes as many instructions whatever the number of the process.
    let folder = std::env::temp_dir().join(format!("memdl-fleets-{:010}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let loader = Loader::new().debug(DebugLevel::Off).system_libraries(true);
    let loader = loader.global(**by == *"memdl");
    let mut way = match &**by {
        "memdl" | "local" => Way::Memdl(Box::new(loader)),
        _ => Way::Dlopen { folder: folder.to_string_lossy().into_owned(), copies: 0 },
    };
    let member = fs::read(member)?;
    let members: Vec<Loaded> = (0..live).map(|_| way.load(&member)).collect::<Result<_, _>>()?;
    let asks = way.load(&fs::read(asks)?)?;
    let uses_bytes = fs::read(uses)?;
    // SAFETY: the functions of `testlibs/fleets/asks.c`.
    let (ask, walk) = unsafe {
        (
            std::mem::transmute::<*mut c_void, extern "C" fn(*const c_char) -> *mut c_void>(
                asks.symbol(c"ask")?,
            ),
            std::mem::transmute::<*mut c_void, extern "C" fn() -> c_int>(asks.symbol(c"walk")?),
        )
    };
    for _ in 0..count {
        let is_right = match &**what {
            "load" => {
                let loaded = match &way {
                    Way::Memdl(_) if **by == *"local" => way.load(&member)?,
                    Way::Memdl(_) => way.load(&uses_bytes)?,
                    Way::Dlopen { .. } => Loaded::open(Path::new(uses))?,
                };
                loaded.close()?;
                true
            }
            "ask" => !ask(c"in_the_last".as_ptr()).is_null(),
            "miss" => ask(c"in_none".as_ptr()).is_null(),
            "walk" => walk() as usize > live,
            other => return Err(format!("{other} is no operation").into()),
        };
        assert!(is_right, "{what}");
    }
    drop(members);
    fs::remove_dir_all(&folder)?;
    Ok(())
}
