//! Entry points for fuzzers and mutation tests: the stages that read hostile bytes, one by one.
//!
//! **This is not part of the API.** It exists only with the feature `internals`, and may change or disappear
//! without notice. All functions are safe, since none runs code of an image: IFUNC resolvers are not
//! called (references are bound to the resolver), constructors and destructors do not run, and no library is
//! opened. All else is as in a load.

#![allow(unsafe_code)]

use std::fmt::Display;
use std::ops::Range;
use std::sync::Arc;

use crate::api::backtrace::{Frame, symbolize};
use crate::api::library::{Library, Template};
use crate::api::startup;
use crate::base::addr::{LoadBias, PageSize, Vaddr};
use crate::base::demangle::demangled;
use crate::base::error::Error;
use crate::base::limits::Limits;
use crate::debug::lines::Dwarf;
use crate::debug::{self, DebugLevel, Ifuncs, Instance, Instances, ThreadLocals};
use crate::elf::segment::TlsSegment;
use crate::load::debug_source::with_debug_source;
use crate::load::settings::Settings;
use crate::memory::buffer::ImageBuffer;
use crate::memory::bytes::{Bytes, Image};
use crate::profile::functions;
use crate::services;
use crate::tls;

/// Makes [`DebugLevel::Full`] the form that a debugger which comes later sees, even for one that is there.
pub fn wrapped_only() {
    debug::internals::wrapped_only();
}

/// The way to load an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Copied from bytes elsewhere: [`Loader::load`](crate::Loader::load).
    Copy,
    /// In the buffer that it was received into: [`Loader::load_buffer`](crate::Loader::load_buffer).
    Buffer,
    /// Two instances of a [`Template`].
    Template,
}

impl Way {
    /// All three.
    pub const ALL: [Way; 3] = [Way::Copy, Way::Buffer, Way::Template];
}

/// A loaded image of which no code has run or will run. Dropping it unloads it.
#[derive(Debug)]
pub struct Idle {
    library: Library,
    _other: Option<Library>,
}

fn settings(debug: DebugLevel, debug_info: Option<&[u8]>) -> Settings {
    let mut settings = Settings::new(services::replacement, services::hosted::cover);
    settings.debug = debug;
    settings.debug_info = debug_info.map(|bytes| Bytes::Shared(bytes.into()));
    settings
}

/// Parses the image, plans its pages, and binds its references, without a debug entry.
///
/// # Errors
/// See [`Error`].
pub fn parse_plan_bind(bytes: &[u8]) -> Result<(), Error> {
    startup::prepare(&settings(DebugLevel::Off, None), Bytes::Borrowed(bytes), Instances::One, None)
        .map(drop)
}

/// Maps, relocates and protects the image, and registers it with the unwinder and debuggers.
///
/// # Errors
/// See [`Error`].
pub fn load_without_running(
    bytes: &[u8],
    way: Way,
    debug: DebugLevel,
    debug_info: Option<&[u8]>,
) -> Result<Idle, Error> {
    let settings = settings(debug, debug_info);
    let received = || {
        let mut buffer = ImageBuffer::new(bytes.len())?;
        buffer.copy_from_slice(bytes);
        Ok::<_, Error>(Bytes::Buffer(Arc::new(buffer)))
    };
    let (library, other) = match way {
        Way::Copy => {
            let prepared =
                startup::prepare(&settings, Bytes::Borrowed(bytes), Instances::One, None)?;
            (Library::single_instance_uninitialised(prepared, None)?, None)
        }
        Way::Buffer => {
            let prepared = startup::prepare(&settings, received()?, Instances::One, None)?;
            (Library::single_instance_uninitialised(prepared, None)?, None)
        }
        Way::Template => {
            let template =
                Template::new(startup::prepare(&settings, received()?, Instances::Many, None)?);
            (template.instance_uninitialised(None)?, Some(template.instance_uninitialised(None)?))
        }
    };
    Ok(Idle { library, _other: other })
}

/// As [`load_without_running`] with [`Way::Copy`], but with lazy binding. No call is ever made.
///
/// # Errors
/// See [`Error`].
pub fn load_lazily_without_running(bytes: &[u8]) -> Result<Idle, Error> {
    let mut settings = settings(DebugLevel::Off, None);
    settings.lazy = true;
    let prepared = startup::prepare(&settings, Bytes::Borrowed(bytes), Instances::One, None)?;
    Ok(Idle { library: Library::single_instance_uninitialised(prepared, None)?, _other: None })
}

impl Idle {
    /// Allocates the calling thread's block of the image's thread-local variables. Returns whether it has any;
    /// also false for blocks that are larger, or aligned more strictly, than 16 MiB.
    ///
    /// # Errors
    /// If there is no memory for the block.
    pub fn touch_thread_locals(&self) -> Result<bool, Error> {
        let loaded = self.library.group().member(0);
        // Larger blocks are valid, but would take a fuzzer's memory.
        let is_small = |segment: &&TlsSegment| segment.size <= 1 << 24 && segment.align <= 1 << 24;
        let Some(tls) = &loaded.tls else { return Ok(false) };
        if loaded.decoded.tls.as_ref().filter(is_small).is_none() {
            return Ok(false);
        }
        // SAFETY: the module is loaded, and its block begins at 0.
        unsafe { tls::variable_address(tls.id(), 0)? };
        self.library.group().reset_thread_locals()?;
        Ok(true)
    }

    /// As [`Library::address_range`].
    #[must_use]
    pub fn address_range(&self) -> Range<usize> {
        self.library.address_range()
    }

    /// Reads all exported symbols, and looks the addresses of some of them up. Returns the number of symbols.
    pub fn look_at_symbols(&self) -> usize {
        let symbols = self.library.symbols();
        let seen = symbols.map(|symbol| (symbol.name().len(), symbol.version().map(str::len)));
        let count = seen.count();
        // Each look-up reads the whole table.
        let addresses = self.library.symbols().take(16).map(|symbol| symbol.address());
        for address in addresses.collect::<Vec<_>>() {
            let _ = self.library.symbol_at(address);
        }
        count
    }

    /// As [`symbolize`], for an address that is relative to the load bias.
    #[must_use]
    pub fn symbolize(&self, address: u64) -> Vec<Frame> {
        symbolize(self.library.load_bias().wrapping_add(address as usize))
    }

    /// As [`Library::set_debug`].
    ///
    /// # Errors
    /// As [`Library::set_debug`].
    pub fn set_debug(&self, debug: DebugLevel) -> Result<(), Error> {
        self.library.set_debug(debug)
    }

    /// As [`Library::set_debug_info`].
    ///
    /// # Errors
    /// As [`Library::set_debug_info`].
    pub fn set_debug_info(&self, file: &[u8]) -> Result<(), Error> {
        self.library.set_debug_info(file)
    }
}

/// The symfile of the image at some load bias. Empty with [`DebugLevel::Off`]. With `shared` it is made as for a
/// [`Template`], whose instances share most of it.
///
/// # Errors
/// Why the image or the symfile is refused.
pub fn symfile(bytes: &[u8], form: DebugLevel, shared: bool) -> Result<Vec<u8>, String> {
    let text = |error: &dyn Display| error.to_string();
    let image = Image::parse(Bytes::Borrowed(bytes), PageSize::current(), &Limits::default());
    let image = image.map_err(|error| text(&error))?;
    let how_many = if shared { Instances::Many } else { Instances::One };
    let symbols = image.symbols().map_err(|error| text(&error))?;
    let make = |source: &debug::Source<'_>| {
        let allowance = debug::Allowance::new(debug::Maximum::default(), source.len());
        debug::symfile_template(source, how_many, allowance, form.dwarf())
    };
    let made = with_debug_source(&image.decoded, Some(bytes), &image, &symbols, make);
    let made = made.map_err(|error| text(&error))?.map_err(|error| text(&error))?;
    let bias = LoadBias::between(Vaddr(0), 0x7f12_3456_7000);
    let mut last = Vec::new();
    for thread_locals in [
        ThreadLocals::Elsewhere,
        ThreadLocals::BehindPointerAt(-64),
        ThreadLocals::AtDistance(0x1234_5678),
    ] {
        let instance = Instance { load_bias: bias, thread_locals, ifuncs: Ifuncs::default() };
        let symfile = made.at(&instance).map_err(|error| text(&error))?;
        last = debug::internals::symfile(symfile, form, bias)?;
    }
    Ok(last)
}

/// Finds all addresses in the DWARF of an ELF file, which need not be an image, and relocates them. Returns
/// the size of the debug sections.
///
/// # Errors
/// Why the DWARF is refused.
pub fn rewrite_dwarf(file: &[u8]) -> Result<usize, String> {
    debug::internals::rewrite_dwarf(file, LoadBias::between(Vaddr(0), 0x7f12_3456_7000))
}

/// The image's file, with its skeleton units replaced by the units of a package (`.dwp`).
///
/// # Errors
/// Why the package is refused.
pub fn join(image: &[u8], package: &[u8]) -> Result<Vec<u8>, String> {
    debug::join(image, package, debug::Maximum::default()).map_err(|error| error.to_string())
}

/// Unpacks a compressed debug section: one with the flag `SHF_COMPRESSED`, or, with `by_name`, one whose name
/// begins with `.zdebug_`.
///
/// # Errors
/// Why the section is refused.
pub fn inflate(section: &[u8], by_name: bool) -> Result<Vec<u8>, String> {
    debug::internals::inflate(section, by_name)
}

/// Loads an image, and returns what [`symbolize`] returns for an address that is relative to the load bias.
///
/// # Errors
/// As [`load_without_running`].
pub fn symbolize_in(bytes: &[u8], address: u64) -> Result<Vec<Frame>, Error> {
    load_without_running(bytes, Way::Copy, DebugLevel::Full, None)
        .map(|idle| idle.symbolize(address))
}

/// Reads the DWARF of an ELF file, which need not be an image, as for backtraces. Returns the number of
/// functions that the addresses lie in, and the number of lines from the first address to the last.
///
/// # Errors
/// Why the debug sections cannot be read.
pub fn read_lines(file: &[u8], addresses: &[u64]) -> Result<(usize, usize), String> {
    let sections = debug::internals::debug_sections(file)?.into_iter();
    let read = sections.filter_map(|(name, contents)| {
        let known = Dwarf::SECTIONS.into_iter().find(|known| *known == name)?;
        Some((known, contents))
    });
    let mut dwarf = Dwarf::new(read.collect(), file.len() as u64);
    let frames = addresses.iter().map(|address| dwarf.frames(Vaddr(*address)).len()).sum();
    let first = addresses.iter().min().copied().unwrap_or(0);
    let last = addresses.iter().max().copied().unwrap_or(0);
    Ok((frames, dwarf.lines(Vaddr(first)..Vaddr(last)).len()))
}

/// The number of functions that profilers see, and the total length of their names.
///
/// # Errors
/// See [`Error`].
pub fn functions(bytes: &[u8]) -> Result<(usize, usize), Error> {
    let (page, limits) = (PageSize::current(), Limits::default());
    let image = Image::parse(Bytes::Borrowed(bytes), page, &limits)?;
    let functions = functions::of_image(&image, None)?;
    Ok((functions.len(), functions.iter().map(|function| function.name.len()).sum()))
}

/// The demangled name of a function; the name itself if it cannot be demangled.
#[must_use]
pub fn demangle(name: &str) -> String {
    demangled(name).into_owned()
}

/// Whether memdl replaces the C library's function of this name for images.
#[must_use]
pub fn is_service(name: &str) -> bool {
    services::replacement(name.as_bytes()).is_some()
}

/// What a library needs that stands between a program and the C library's `dlopen`.
///
/// The namespace is that of the loader ([`Loader::namespace`](crate::Loader::namespace)). Handles are like
/// those that images get from their own `dlopen`: `dlsym` and the others of [`service`](interposed::service)
/// take them, and hand all other handles on to the C library.
#[cfg(feature = "internals")]
pub mod interposed {
    use std::ffi::{CStr, c_int, c_void};
    use std::path::{Path, PathBuf};

    use crate::api::loader::Loader;
    use crate::api::startup;
    use crate::base::error::Error;
    use crate::base::promise::MayRun;
    use crate::services;

    /// Whether it is a handle of an image.
    pub fn is_handle(handle: *mut c_void) -> bool {
        services::interposed::is_handle(handle)
    }

    /// Whether an image lies at this address.
    #[must_use]
    pub fn is_of_image(address: usize) -> bool {
        services::interposed::is_of_image(address)
    }

    /// The address of memdl's function in place of the C library's of this name.
    #[must_use]
    pub fn service(name: &str) -> Option<usize> {
        services::replacement(name.as_bytes())
    }

    /// The file that `ld.so` finds for a name without a slash, for the library that has this address.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], and a limit on how many files are looked for.
    pub fn find(name: &CStr, caller: usize) -> Result<Option<PathBuf>, Error> {
        services::interposed::find(name, caller)
    }

    /// A handle of the image that is called `name`, if the loader's namespace has one.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn open_named(
        loader: &Loader,
        name: &CStr,
        flags: c_int,
    ) -> Result<Option<*mut c_void>, Error> {
        services::interposed::open_named(&loader.settings, name, flags)
    }

    /// A handle of the image of this file, if the loader's namespace has one.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn open_loaded(
        loader: &Loader,
        file: &Path,
        flags: c_int,
    ) -> Result<Option<*mut c_void>, Error> {
        services::interposed::open_loaded(&loader.settings, file, flags)
    }

    /// A handle of an image of this file. It is loaded, unless the loader's namespace has it.
    ///
    /// # Errors
    /// As [`Loader::load`].
    ///
    /// # Safety
    /// As [`Loader::load`].
    pub unsafe fn open(loader: &Loader, file: &Path, flags: c_int) -> Result<*mut c_void, Error> {
        startup::set_up()?;
        // SAFETY: the caller's promise.
        let may_run = unsafe { MayRun::promised() };
        services::interposed::open(loader.settings.clone(), file, flags, may_run)
    }
}
