//! What fuzzers and mutation tests call: the parts that hostile bytes reach, one by one.
//!
//! **This is no part of the API.** It is there with the feature `internals` only, and changes or goes
//! without notice. No function runs code of an image, so all of them are safe: IFUNC resolvers are not
//! called (what refers to one is bound to the resolver), nor are constructors and destructors, and
//! no library is opened. All else is what a load does.

#![allow(unsafe_code)]

use std::fmt::Display;
use std::ops::Range;
use std::sync::Arc;

use crate::api::backtrace::{Frame, symbolize};
use crate::api::library::{Library, Template};
use crate::api::startup;
use crate::arch::MACHINE;
use crate::base::addr::{LoadBias, PageSize, Vaddr};
use crate::base::error::Error;
use crate::base::limits::Limits;
use crate::debug::demangle::demangled;
use crate::debug::lines::Dwarf;
use crate::debug::{self, Debug, Instance, Instances, ThreadLocals};
use crate::elf::segment::TlsSegment;
use crate::load::debug_source::with_debug_source;
use crate::load::settings::Settings;
use crate::memory::buffer::ImageBuffer;
use crate::memory::bytes::{Bytes, Image};
use crate::profile::functions;
use crate::services;
use crate::tls;

/// How an image gets into place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Copied from bytes elsewhere: [`Loader::load`](crate::Loader::load).
    Copy,
    /// Where it was received: [`Loader::load_buffer`](crate::Loader::load_buffer).
    Buffer,
    /// Two instances of a [`Template`].
    Template,
}

impl Way {
    /// All three.
    pub const ALL: [Way; 3] = [Way::Copy, Way::Buffer, Way::Template];
}

/// An image in place that nothing of has run, nor will. It is unloaded when it is dropped.
#[derive(Debug)]
pub struct Idle {
    library: Library,
    _other: Option<Library>,
}

fn settings(debug: Debug, debug_info: Option<&[u8]>) -> Settings {
    let mut settings = Settings::new(services::replacement);
    settings.debug = debug;
    settings.debug_info = debug_info.map(|bytes| Bytes::Shared(bytes.into()));
    settings
}

/// Reads the image, plans its pages, and binds each reference. Debuggers are to be told nothing.
///
/// # Errors
/// See [`Error`].
pub fn parse_plan_bind(bytes: &[u8]) -> Result<(), Error> {
    startup::prepare(&settings(Debug::Off, None), Bytes::Borrowed(bytes), Instances::One, None)
        .map(drop)
}

/// Maps, relocates and seals the image, and tells the unwinder and debuggers of it.
///
/// # Errors
/// See [`Error`].
pub fn load_without_running(
    bytes: &[u8],
    way: Way,
    debug: Debug,
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
            (Library::only_placed(prepared, None)?, None)
        }
        Way::Buffer => {
            let prepared = startup::prepare(&settings, received()?, Instances::One, None)?;
            (Library::only_placed(prepared, None)?, None)
        }
        Way::Template => {
            let template =
                Template::new(startup::prepare(&settings, received()?, Instances::Many, None)?);
            (template.place(None)?, Some(template.place(None)?))
        }
    };
    Ok(Idle { library, _other: other })
}

/// As [`load_without_running`] with [`Way::Copy`], with calls to be bound when they are first made. None is.
///
/// # Errors
/// See [`Error`].
pub fn load_lazily_without_running(bytes: &[u8]) -> Result<Idle, Error> {
    let mut settings = settings(Debug::Off, None);
    settings.lazy = true;
    let prepared = startup::prepare(&settings, Bytes::Borrowed(bytes), Instances::One, None)?;
    Ok(Idle { library: Library::only_placed(prepared, None)?, _other: None })
}

impl Idle {
    /// Has the calling thread get its block of the image's thread-local variables. Whether there are any.
    ///
    /// # Errors
    /// If there is no memory for it.
    pub fn touch_thread_locals(&self) -> Result<bool, Error> {
        let loaded = self.library.group().member(0);
        // Larger ones are allowed, and take the memory that they ask for.
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
    pub fn address_range(&self) -> Range<usize> {
        self.library.address_range()
    }

    /// Looks at each exported symbol, and asks which one lies at its address. How many there are.
    pub fn look_at_symbols(&self) -> usize {
        let symbols = self.library.symbols();
        let seen = symbols.map(|symbol| (symbol.name().len(), symbol.version().map(str::len)));
        let count = seen.count();
        // Each of these questions goes through the whole table.
        let addresses = self.library.symbols().take(16).map(|symbol| symbol.address());
        for address in addresses.collect::<Vec<_>>() {
            let _ = self.library.symbol_at(address);
        }
        count
    }

    /// As [`symbolize`], of the address that the image states as `address`.
    pub fn symbolize(&self, address: u64) -> Vec<Frame> {
        symbolize(self.library.load_bias().wrapping_add(address as usize))
    }

    /// As [`Library::set_debug`].
    ///
    /// # Errors
    /// As [`Library::set_debug`].
    pub fn set_debug(&self, debug: Debug) -> Result<(), Error> {
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

/// What debuggers would be given for the image, where it lies at another place than it states. Empty
/// with [`Debug::Off`]. `shared` as for a [`Template`], which keeps once what is the same for all.
///
/// # Errors
/// What the image, or the form, is refused for.
pub fn symfile(bytes: &[u8], form: Debug, shared: bool) -> Result<Vec<u8>, String> {
    let text = |error: &dyn Display| error.to_string();
    let image =
        Image::parse(Bytes::Borrowed(bytes), &MACHINE, PageSize::current(), &Limits::default());
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
        let instance = Instance { load_bias: bias, thread_locals };
        let symfile = made.at(instance).map_err(|error| text(&error))?;
        last = debug::internals::symfile(symfile, form, bias)?;
    }
    Ok(last)
}

/// Finds all addresses in the DWARF of an ELF file, which need not be an image, and moves them. In
/// how many bytes of debug sections.
///
/// # Errors
/// Why that cannot be done.
pub fn rewrite_dwarf(file: &[u8]) -> Result<usize, String> {
    debug::internals::rewrite_dwarf(file, LoadBias::between(Vaddr(0), 0x7f12_3456_7000))
}

/// The image's file with the DWARF of a package (`.dwp`) in the place of its skeletons.
///
/// # Errors
/// Why that cannot be done.
pub fn join(image: &[u8], package: &[u8]) -> Result<Vec<u8>, String> {
    debug::join(image, package, debug::Maximum::default()).map_err(|error| error.to_string())
}

/// Unpacks a debug section that is compressed, by its flag `SHF_COMPRESSED` or (`by_name`) as one
/// whose name begins with `.zdebug_`.
///
/// # Errors
/// Why that cannot be done.
pub fn inflate(section: &[u8], by_name: bool) -> Result<Vec<u8>, String> {
    debug::internals::inflate(section, by_name)
}

/// What [`symbolize`] says of the address that the image states as `address`.
///
/// # Errors
/// As [`load_without_running`].
pub fn symbolize_in(bytes: &[u8], address: u64) -> Result<Vec<Frame>, Error> {
    load_without_running(bytes, Way::Copy, Debug::Full, None).map(|idle| idle.symbolize(address))
}

/// What backtraces read in the DWARF of an ELF file, which need not be an image: how many functions the
/// addresses lie in, and the lines from the first address to the last.
///
/// # Errors
/// Where the file has no debug sections to be read.
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

/// How many functions profilers are told of, and the length of their names.
///
/// # Errors
/// See [`Error`].
pub fn functions(bytes: &[u8]) -> Result<(usize, usize), Error> {
    let (page, limits) = (PageSize::current(), Limits::default());
    let image = Image::parse(Bytes::Borrowed(bytes), &MACHINE, page, &limits)?;
    let functions = functions::of_image(&image, None)?;
    Ok((functions.len(), functions.iter().map(|function| function.name.len()).sum()))
}

/// A function's name as people write it.
pub fn demangle(name: &str) -> String {
    demangled(name).into_owned()
}

/// Whether images get a version of memdl's instead of the C library's function of this name.
pub fn is_service(name: &str) -> bool {
    services::replacement(name.as_bytes()).is_some()
}
