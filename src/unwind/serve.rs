//! Leads every unwinder in the process to images.
//!
//! By its references to the C library's functions, wherever it has some. In one without, memdl registers each image's
//! `.eh_frame`: by `__unw_add_dynamic_eh_frame_section` (LLVM's), or by `__register_frame` (libgcc's; that of LLVM
//! takes a single entry). Both walk the section up to an entry of length zero. libgcc's is slow: the next throw
//! anywhere in the process sorts all descriptions, and every later throw walks a list.
//!
//! Where neither can be done, and the process's exceptions are that unwinder's, an image that throws is refused: an
//! exception in it would end the process.
//!
//! No lock is held while unwinders' functions are called.
//!
//! Sources: libgcc `unwind-dw2-fde.c`; LLVM libunwind `libunwind.cpp`, `libunwind_ext.h`.

#![allow(unsafe_code)]

use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use super::{caches, finder, walker};
use crate::base::error::Error;
use crate::base::fallible::{try_collect, try_format};
use crate::elf::decoded::Decoded;
use crate::elf::eh_frame::EhFrame;
use crate::elf::read::ReadAt;
use crate::elf::symbol_table::SymbolTable;
use crate::host::dl;
use crate::host::got;
use crate::host::library::HostLibrary;
use crate::host::openings;
use crate::host::phdr;
use crate::host::process;
use crate::host::unwinders::{has_steps, unwinders};
use crate::memory::mapping::Mapping;
use crate::memory::stage::Sealed;

/// The number of loads of libraries, plus 1, at the last search.
static SEARCHED: AtomicU64 = AtomicU64::new(0);
/// An unwinder was found that needs [`BySection`], or that cannot be served.
static IS_ANY_LEFT: AtomicBool = AtomicBool::new(false);
/// The first that was found, and the library that it is in.
static BY_SECTION: OnceLock<(BySection, Arc<HostLibrary>)> = OnceLock::new();

type OfSection = unsafe extern "C" fn(*const c_void);

/// An unwinder in which sections are registered. It stays loaded.
#[derive(Clone, Copy, PartialEq, Eq)]
struct BySection {
    add: usize,
    remove: usize,
}

/// A section that is registered in an unwinder, until this is dropped.
pub(super) struct Section {
    begin: usize,
    of: &'static BySection,
}

impl Drop for Section {
    fn drop(&mut self) {
        self.of.call(self.of.remove, self.begin);
    }
}

/// Makes every unwinder in the process find images: this one, and all others.
#[inline]
pub(super) fn serve(
    decoded: &Decoded,
    mapping: &Mapping<Sealed>,
) -> Result<Option<Section>, Error> {
    let loads = phdr::loads().saturating_add(1);
    if SEARCHED.load(Ordering::Acquire) != loads {
        for unwinder in search(loads)? {
            logged!(warn, "{}", cannot(&unwinder)?);
        }
        openings::watch(after_opening);
    }
    match IS_ANY_LEFT.load(Ordering::Acquire) {
        false => Ok(None),
        true => register(decoded, mapping),
    }
}

/// Whether every unwinder finds the images that are in the table, without a further look at the process.
pub(crate) fn is_up_to_date() -> bool {
    // Sections are registered for each image.
    if IS_ANY_LEFT.load(Ordering::Acquire) {
        return false;
    }
    // Where openings are seen, whatever they brought was served then.
    openings::are_watched() || SEARCHED.load(Ordering::Acquire) == phdr::loads().saturating_add(1)
}

/// Serves what a `dlopen` of the process has brought. The caller may hold any lock. What fails here, the next load
/// does again.
fn after_opening() {
    /// As `SEARCHED`, at the start of the last search here: the search itself calls `dlopen`.
    static BEGUN: AtomicU64 = AtomicU64::new(0);
    let loads = phdr::loads().saturating_add(1);
    if SEARCHED.load(Ordering::Acquire) != loads && BEGUN.swap(loads, Ordering::AcqRel) != loads {
        let _ = search(loads);
    }
}

/// Serves all unwinders of the process, and returns those that cannot be served.
#[cold]
fn search(loads: u64) -> Result<Vec<Arc<HostLibrary>>, Error> {
    let left = left()?;
    IS_ANY_LEFT.store(!left.is_empty(), Ordering::Release);
    let is_registered = |unwinder: &Arc<HostLibrary>| {
        BySection::of(unwinder).is_some_and(|functions| {
            BY_SECTION.get_or_init(|| (functions, unwinder.clone())).0 == functions
        })
    };
    let left = try_collect(left.into_iter().filter(|unwinder| !is_registered(unwinder)))?;
    SEARCHED.store(loads, Ordering::Release);
    Ok(left)
}

/// Leads all unwinders of the process to images by their references, and returns those that have none.
fn left() -> Result<Vec<Arc<HostLibrary>>, Error> {
    let unwinders = unwinders()?;
    let real = Some(process::real_iterate_phdr());
    let mut is_led = try_collect(unwinders.iter().map(|_| false))?;
    process::alone(&mut || {
        for (unwinder, is_led) in unwinders.iter().zip(&mut is_led) {
            let walks = |now| walker::lead(now, got::is_plain(unwinder, now, real));
            *is_led = got::change_references(unwinder, b"_dl_find_object", &finder::lead);
            // What finds objects does not walk, unless a second unwinder is in the same object.
            if !*is_led || has_steps(unwinder) {
                *is_led |= got::change_references(unwinder, b"dl_iterate_phdr", &walks);
            }
        }
    });
    for unwinder in &unwinders {
        caches::note(unwinder, real, walker::walker());
    }
    let left = unwinders.into_iter().zip(is_led).filter(|(_, is_led)| !is_led);
    Ok(try_collect(left.map(|(unwinder, _)| unwinder))?)
}

impl BySection {
    fn of(unwinder: &HostLibrary) -> Option<BySection> {
        let pair = |add: &[u8], remove: &[u8]| {
            Some(BySection { add: unwinder.exported(add)?, remove: unwinder.exported(remove)? })
        };
        let of_llvm =
            pair(b"__unw_add_dynamic_eh_frame_section", b"__unw_remove_dynamic_eh_frame_section");
        // LLVM's takes a single entry.
        let is_libgcc = || unwinder.exported(b"__unw_add_dynamic_fde").is_none();
        let of_libgcc = || pair(b"__register_frame", b"__deregister_frame").filter(|_| is_libgcc());
        of_llvm.or_else(of_libgcc)
    }

    fn call(&self, function: usize, begin: usize) {
        // SAFETY: functions of these names have this type; `Section` proves what they read.
        unsafe {
            let function: OfSection =
                std::mem::transmute(std::ptr::without_provenance::<c_void>(function));
            function(begin as *const c_void);
        }
    }
}

/// Registers an image's section in the unwinder that has no references. Refuses an image that throws if that cannot be
/// done.
#[cold]
fn register(decoded: &Decoded, mapping: &Mapping<Sealed>) -> Result<Option<Section>, Error> {
    let hdr = decoded.eh_frame_hdr.clone();
    let eh_frame = hdr.and_then(|hdr| EhFrame::locate(hdr, mapping));
    let section = eh_frame.filter(|eh_frame| eh_frame.terminated).and_then(|eh_frame| {
        let begin = mapping.load_bias().apply(eh_frame.range.start);
        Some(Section { begin, of: &BY_SECTION.get()?.0 })
    });
    if let Some(section) = &section {
        // `locate` walked the section up to its terminator, inside mapped memory that outlives the registration
        // (drop order in `LoadedImage`) and is not written.
        section.of.call(section.of.add, section.begin);
    }
    let is_registered = |unwinder: &HostLibrary| {
        section.as_ref().is_some_and(|section| BySection::of(unwinder).as_ref() == Some(section.of))
    };
    check_left(decoded, mapping, is_registered)?;
    Ok(section)
}

/// Whether a load of the image would be refused, as far as that is known: until the first load of the process,
/// no unwinder is looked for.
pub(crate) fn check(decoded: &Decoded, image: &impl ReadAt) -> Result<(), Error> {
    if !IS_ANY_LEFT.load(Ordering::Acquire) {
        return Ok(());
    }
    let hdr = decoded.eh_frame_hdr.clone();
    let eh_frame = hdr.and_then(|hdr| EhFrame::locate(hdr, image));
    let by_section = eh_frame.filter(|it| it.terminated).and_then(|_| BY_SECTION.get());
    let is_registered = |unwinder: &HostLibrary| {
        by_section.is_some_and(|(of, _)| BySection::of(unwinder).as_ref() == Some(of))
    };
    check_left(decoded, image, is_registered)
}

/// Refuses an image that throws if an unwinder that cannot find it would have to.
fn check_left(
    decoded: &Decoded,
    image: &impl ReadAt,
    is_registered: impl Fn(&HostLibrary) -> bool,
) -> Result<(), Error> {
    if !throws(decoded, image) {
        return Ok(());
    }
    let raises = dl::global_symbol(c"_Unwind_RaiseException");
    for unwinder in left()? {
        let is_used = raises.is_none_or(|function| unwinder.has_code_at(function));
        if is_used && !is_registered(&unwinder) {
            return Err(Error::unsupported(cannot(&unwinder)?));
        }
    }
    Ok(())
}

/// Whether code of the image throws, or handles what others throw.
fn throws(decoded: &Decoded, image: &impl ReadAt) -> bool {
    let table = SymbolTable::over(&decoded.symbols, image);
    let throws = |name: &[u8]| {
        name.starts_with(b"_Unwind_")
            || [&b"__cxa_throw"[..], b"__cxa_rethrow", b"__cxa_begin_catch"].contains(&name)
    };
    table.is_some_and(|table| table.undefined_names().any(throws))
}

fn cannot(unwinder: &HostLibrary) -> Result<String, Error> {
    let name = match unwinder.is_executable() {
        true => "the executable".into(),
        false => unwinder.path().to_string_lossy(),
    };
    Ok(try_format(format_args!(
        "exceptions and backtraces by the unwinder in {name}, which neither asks the C library for objects in a \
         way that memdl knows nor takes sections; link or preload libgcc_s.so.1 before it"
    ))?)
}
