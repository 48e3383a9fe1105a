//! The form in which debuggers see an instance, and the way from one form to another.
//!
//! [`Published`] is a state machine without a lock: [`super::registration`] has that. What takes time, to
//! unpack and to read debug sections, is in [`NextForm`] and needs no lock. Nothing is logged here, since a logger
//! is foreign code: a [`Fault`] is returned.

#![forbid(unsafe_code)]

use std::fmt::Display;
use std::sync::Arc;
#[cfg(any(test, feature = "internals"))]
use std::sync::atomic::{AtomicBool, Ordering};

use super::gdb_jit::{Registration, debugger_listens};
use super::in_full::InFull;
use super::level::DebugLevel;
use super::policy::policy;
use super::storage::{Parts, Portable, Symfile, SymfileTemplate};
use memdl_symfile::builder::error::SymfileError;
use memdl_symfile::builder::ifuncs::Ifuncs;
use memdl_symfile::builder::instance::Instance;
use memdl_symfile::builder::parts::Origin;
use memdl_symfile::builder::portable::NotPortable;

/// The form that debuggers see, with its entry in their list.
pub(super) enum Published {
    /// [`DebugLevel::Off`]. The symfile, if one was made, is kept.
    Nothing(Option<Symfile>),
    /// [`DebugLevel::Symbols`] or [`DebugLevel::Full`], depending on whether the symfile shows its DWARF.
    Wrapped(Registration<Symfile>),
    /// [`DebugLevel::Portable`], or [`DebugLevel::Full`] for a debugger that was there at the load. The other form is
    /// kept, to change back to it.
    Portable { portable: Registration<Portable>, wrapped: Symfile, level: DebugLevel },
}

/// More debug information than this is not read for [`DebugLevel::Full`].
const MAX_READ_FOR_FULL: usize = 8 << 20;

/// Whether [`DebugLevel::Full`] is the wrapped form even where a debugger is there.
#[cfg(not(any(test, feature = "internals")))]
const fn is_wrapped_only() -> bool {
    false
}

#[cfg(any(test, feature = "internals"))]
pub(crate) static WRAPPED_ONLY: AtomicBool = AtomicBool::new(false);

#[cfg(any(test, feature = "internals"))]
fn is_wrapped_only() -> bool {
    WRAPPED_ONLY.load(Ordering::Relaxed)
}

impl Published {
    /// Publishes the symfile of a new instance at this level. Returns also why debuggers see less.
    ///
    /// gdb looks for the places of its breakpoints twice for each entry with a file inside, and once for the
    /// portable form. So a debugger that is there gets that one. Images with an index keep it instead.
    pub(super) fn first(
        symfile: Symfile,
        wanted: DebugLevel,
        instance: &Instance,
    ) -> (Published, Option<Fault>) {
        let has_index = || !symfile.packed_sections(&[".gdb_index", ".debug_names"]).is_empty();
        let is_portable = wanted == DebugLevel::Full
            && debugger_listens()
            && !is_wrapped_only()
            && symfile.len_in_full() <= MAX_READ_FOR_FULL
            && !has_index();
        let published = Published::Nothing(Some(symfile));
        if is_portable
            && let Some(symfile) = published.unread(DebugLevel::Portable, None)
            && let made = NextForm::from(symfile, DebugLevel::Portable, instance)
            && matches!(made.portable, Some(Ok(_)))
        {
            return match published.changed_to(DebugLevel::Portable, Some(made)) {
                (Published::Portable { portable, wrapped, .. }, fault) => {
                    (Published::Portable { portable, wrapped, level: wanted }, fault)
                }
                other => other,
            };
        }
        let made =
            published.unread(wanted, None).map(|symfile| NextForm::from(symfile, wanted, instance));
        published.changed_to(wanted, made)
    }

    /// Shows the functions that IFUNC resolvers chose after the registration. A debugger hears of it only if
    /// something changes.
    pub(super) fn amend(&mut self, ifuncs: &Ifuncs) {
        let Some(code) = self.symfile().and_then(|symfile| symfile.to_amend(ifuncs)) else {
            return;
        };
        match self {
            Published::Nothing(None) => {}
            Published::Nothing(Some(symfile)) => symfile.amend(ifuncs, &code),
            Published::Wrapped(entry) => entry.change(|symfile| symfile.amend(ifuncs, &code)),
            Published::Portable { portable, wrapped, .. } => {
                wrapped.amend(ifuncs, &code);
                portable.change(|symfile| symfile.amend(ifuncs, &code));
            }
        }
    }

    /// The symfile, published or not.
    pub(super) fn symfile(&self) -> Option<&Symfile> {
        match self {
            Published::Nothing(symfile) => symfile.as_ref(),
            Published::Wrapped(registration) => Some(registration.symfile()),
            Published::Portable { wrapped, .. } => Some(wrapped),
        }
    }

    /// Counts the instance, if debuggers see it in full.
    pub(super) fn in_full(&self, image: &Arc<str>) -> Option<InFull> {
        matches!(self.debug(), DebugLevel::Full | DebugLevel::Portable).then(|| InFull::new(image))
    }

    pub(super) fn debug(&self) -> DebugLevel {
        match self {
            Published::Nothing(_) => DebugLevel::Off,
            Published::Wrapped(registration) if registration.symfile().shows_dwarf() => {
                DebugLevel::Full
            }
            Published::Wrapped(_) => DebugLevel::Symbols,
            Published::Portable { level, .. } => *level,
        }
    }

    /// The symfile, if its debug sections must be read before this level can be published, and `made` is
    /// not the result of reading them.
    pub(super) fn unread(&self, wanted: DebugLevel, made: Option<&NextForm>) -> Option<&Symfile> {
        if matches!(self, Published::Portable { .. }) && wanted == DebugLevel::Portable {
            return None;
        }
        let is_read = |symfile: &&Symfile| match wanted {
            DebugLevel::Off | DebugLevel::Symbols => false,
            DebugLevel::Full => symfile.is_to_be_opened(),
            DebugLevel::Portable => symfile.is_to_be_opened() || symfile.can_show_dwarf(),
        };
        let symfile = self.symfile().filter(is_read).filter(|_| self.debug() != wanted)?;
        let is_made = made.is_some_and(|made| symfile.is(&made.origin));
        (!is_made).then_some(symfile)
    }

    /// Publishes the same symfile at this level, with the form that was made for it. Without a symfile
    /// nothing is published. Returns also why debuggers see less than the level says.
    pub(super) fn changed_to(
        self,
        wanted: DebugLevel,
        made: Option<NextForm>,
    ) -> (Published, Option<Fault>) {
        if self.debug() == wanted {
            return (self, None);
        }
        let before = match self {
            Published::Portable { portable, wrapped, .. } if wanted == DebugLevel::Portable => {
                return (Published::Portable { portable, wrapped, level: wanted }, None);
            }
            before => before,
        };
        let made = made.filter(|made| before.symfile().is_some_and(|it| it.is(&made.origin)));
        let made = made.map(|made| (made.opened, made.portable, made.fault));
        let (opened, portable, mut fault) = made.unwrap_or_default();
        let with_dwarf = wanted == DebugLevel::Full;
        let mut symfile = match (before, wanted) {
            (Published::Wrapped(mut registration), DebugLevel::Symbols | DebugLevel::Full)
                if opened.is_none() && (!with_dwarf || registration.symfile().can_show_dwarf()) =>
            {
                registration.change(|symfile| symfile.show_dwarf(with_dwarf));
                return (Published::Wrapped(registration), None);
            }
            (Published::Nothing(None), _) => return (Published::Nothing(None), None),
            (Published::Nothing(Some(symfile)), _) => symfile,
            (Published::Wrapped(registration), _) => registration.withdraw(),
            (Published::Portable { portable, wrapped, .. }, _) => {
                portable.withdraw();
                wrapped
            }
        };
        if let Some(opened) = opened {
            symfile = opened;
        }
        let published = match (wanted, portable) {
            (DebugLevel::Off, _) => Published::Nothing(Some(symfile)),
            (DebugLevel::Portable, Some(Ok(portable))) => {
                let portable = Registration::new(portable);
                Published::Portable { portable, wrapped: symfile, level: wanted }
            }
            // DWARF with half of its addresses moved would be worse than DWARF that lldb cannot read.
            (DebugLevel::Portable, Some(Err(error))) if !error.is_over_budget() => {
                let instead = "lldb will see names and backtraces only";
                fault = Some(Fault { instead, why: error.to_string() });
                symfile.show_dwarf(true);
                Published::Wrapped(Registration::new(symfile))
            }
            (_, portable) => {
                let error = portable.and_then(Result::err);
                fault = fault.or(error.map(|error| Fault::names_only(&error)));
                symfile.show_dwarf(with_dwarf);
                Published::Wrapped(Registration::new(symfile))
            }
        };
        (published, fault)
    }
}

/// The form to publish next, made from the debug sections of a symfile without a lock.
pub(super) struct NextForm {
    origin: Origin,
    /// The same symfile with its DWARF ready to be shown, if it was not.
    opened: Option<Symfile>,
    /// The portable form, if it was requested.
    portable: Option<Result<Portable, NotPortable>>,
    /// Why the DWARF cannot be shown.
    fault: Option<Fault>,
}

impl NextForm {
    /// From a symfile that no other thread can change.
    pub(super) fn from(symfile: &Symfile, wanted: DebugLevel, instance: &Instance) -> NextForm {
        NextForm::new(symfile.origin(), symfile.parts(), wanted, instance)
    }

    pub(super) fn new(
        origin: Origin,
        parts: Result<Parts, SymfileError>,
        wanted: DebugLevel,
        instance: &Instance,
    ) -> NextForm {
        let mut made = NextForm { origin, opened: None, portable: None, fault: None };
        let parts = parts.map_err(|error| Fault::names_only(&error));
        made.fault = parts.and_then(|parts| made.read(parts, wanted, instance)).err();
        made
    }

    fn read(
        &mut self,
        mut parts: Parts,
        wanted: DebugLevel,
        instance: &Instance,
    ) -> Result<(), Fault> {
        let names_only = |error: SymfileError| Fault::names_only(&error);
        if parts.is_to_be_opened() {
            let policy = policy(parts.has_thread_locals());
            let opened = SymfileTemplate::opened(parts, instance, policy).map_err(names_only)?;
            if let Some(fault) = opened.fault() {
                return Err(Fault::names_only(fault));
            }
            let opened = self.opened.insert(opened.into_symfile(instance).map_err(names_only)?);
            if wanted != DebugLevel::Portable {
                return Ok(());
            }
            parts = opened.parts().map_err(names_only)?;
        }
        if wanted == DebugLevel::Portable {
            self.portable = Some(parts.portable(instance));
        }
        Ok(())
    }
}

/// Why debuggers see less of an image than was requested.
pub(super) struct Fault {
    /// What they see instead.
    pub(super) instead: &'static str,
    pub(super) why: String,
}

impl Fault {
    pub(super) fn names_only(why: &dyn Display) -> Fault {
        Fault { instead: "debuggers will see names and backtraces only", why: why.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use memdl_symfile::image::Image;

    use super::*;
    use crate::base::addr::{LoadBias, Vaddr};
    use crate::debug::{Allowance, Ifuncs, Maximum, ThreadLocals};
    use memdl_symfile::builder::template::{Dwarf, Instances};

    const SOURCES: [&str; 2] = ["int code(int a) { return a; }", "struct { int a; } data = { 5 };"];

    fn unmoved() -> Instance {
        let load_bias = LoadBias::between(Vaddr(0), 0);
        Instance { load_bias, thread_locals: ThreadLocals::Elsewhere, ifuncs: Ifuncs::default() }
    }

    fn compiled(source: &str) -> Vec<u8> {
        let folder = std::env::temp_dir().join(format!("memdl-published-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let [code, library] = ["image.c", "image.so"].map(|name| folder.join(name));
        std::fs::write(&code, source).unwrap();
        let mut command = Command::new("gcc");
        command.args(["-g", "-shared", "-fPIC", "-o"]).args([&library, &code]);
        assert!(command.status().unwrap().success());
        let bytes = std::fs::read(library).unwrap();
        std::fs::remove_dir_all(folder).unwrap();
        bytes
    }

    fn symfile(source: &str) -> Symfile {
        let bytes = compiled(source);
        let allowance = Allowance::new(Maximum::default(), bytes.len());
        let image = Image::parse(&bytes).unwrap();
        let template = image.source(&bytes, |source| {
            SymfileTemplate::new(source, Instances::One, allowance, Dwarf::Opened).unwrap()
        });
        template.into_symfile(&unmoved()).unwrap()
    }

    #[test]
    fn what_was_made_from_one_symfile_is_not_told_of_another() {
        let [one, other] = SOURCES.map(|source| Published::Nothing(Some(symfile(source))));
        let made = one.unread(DebugLevel::Portable, None).unwrap();
        let made = NextForm::from(made, DebugLevel::Portable, &unmoved());
        assert!(one.unread(DebugLevel::Portable, Some(&made)).is_none());
        assert!(other.unread(DebugLevel::Portable, Some(&made)).is_some());
        // The wrapped form needs nothing to be made.
        assert!(other.unread(DebugLevel::Full, None).is_none());
        let (published, fault) = other.changed_to(DebugLevel::Portable, Some(made));
        assert!(published.debug() != DebugLevel::Portable && fault.is_none());
    }
}
