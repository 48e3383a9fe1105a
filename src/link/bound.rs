//! The plan of a relocation: the target of each symbol that the relocations of an image name.
//!
//! [`bind`](crate::link::bind) makes it, [`apply`](crate::link::apply) stores it, any number of times. It
//! holds plain values, looks nothing up, and knows no memory. Which relocation types an image may have
//! is decided here too, for both.
//!
//! Source: psABI "Relocation Types".

#![forbid(unsafe_code)]

use crate::arch::{Machine, RelocKind};
use crate::base::addr::Vaddr;
use crate::base::error::Error;
use crate::base::fallible::{TryGrow, try_filled};
use crate::base::tls_index::ModuleId;
use crate::elf::rela::Rela;
use crate::elf::symbol::Sym;

/// What a reference is bound to, as far as that is known before the group is mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Target {
    /// A run-time address, or an absolute value.
    Address(usize),
    /// A place in the group's member of this index.
    Member { member: usize, st_value: Vaddr },
    /// A function that the IFUNC resolver at this place in the member chooses.
    MemberIfunc { member: usize, st_value: Vaddr },
    /// A thread-local of the group's member of this index.
    MemberTls { member: usize, offset: u64 },
    /// A thread-local of a module that is loaded already.
    Tls { module: ModuleId, offset: u64 },
}

impl Target {
    /// What a relocation without a symbol refers to, as `ld.so` has it: the address that the image
    /// states as 0.
    pub(crate) fn start_of(member: usize) -> Target {
        Target::Member { member, st_value: Vaddr(0) }
    }

    /// A symbol that the group's member of this index defines.
    #[inline]
    pub(crate) fn of_member(member: usize, symbol: &Sym) -> Target {
        let st_value = Vaddr(symbol.st_value);
        if symbol.is_thread_local() {
            Target::MemberTls { member, offset: symbol.st_value }
        } else if symbol.is_absolute() {
            Target::Address(symbol.st_value as usize)
        } else if symbol.is_ifunc() {
            Target::MemberIfunc { member, st_value }
        } else {
            Target::Member { member, st_value }
        }
    }
}

/// What an image's references are bound to.
pub(crate) struct Bound {
    /// By symbol index; `None` where no relocation names the symbol.
    pub(super) symbols: Vec<Option<Target>>,
    /// By symbol index, what calls are bound to, where that is not what addresses are bound to:
    /// functions whose address is the executable's PLT entry. Usually empty.
    pub(super) calls: Vec<Option<Target>>,
    /// Calls are bound at the first call.
    pub(super) lazy_calls: bool,
    /// By symbol index, whether its calls are bound at once all the same: see [`Machine::variant_pcs`]. Usually
    /// empty.
    pub(super) at_once: Vec<Option<()>>,
    /// `st_size` by symbol index, for the rare relocations that store it. Usually empty.
    pub(super) sizes: Vec<Option<u64>>,
    /// Modules outside the group whose static offset the relocations store or choose by.
    foreign_tls: Vec<ModuleId>,
    /// Some relocation is a TLS descriptor.
    pub(super) has_tls_descriptors: bool,
}

impl Bound {
    /// An image with `symbols` symbols, none of which is bound yet.
    pub(super) fn new(symbols: usize, lazy_calls: bool) -> Result<Bound, Error> {
        Ok(Bound {
            symbols: try_filled(None, symbols)?,
            calls: Vec::new(),
            lazy_calls,
            at_once: Vec::new(),
            sizes: Vec::new(),
            foreign_tls: Vec::new(),
            has_tls_descriptors: false,
        })
    }

    /// Modules outside the group whose static offset the applier has to know.
    pub(crate) fn foreign_tls(&self) -> &[ModuleId] {
        &self.foreign_tls
    }

    /// Whether calls through this symbol are bound at the first one.
    pub(super) fn is_lazy_call(&self, kind: RelocKind, symbol: u32) -> bool {
        let is_at_once = || matches!(self.at_once.get(symbol as usize), Some(Some(())));
        kind == RelocKind::JumpSlot && self.lazy_calls && !is_at_once()
    }

    /// Whether the relocations store resolvers of TLS descriptors.
    pub(crate) fn has_tls_descriptors(&self) -> bool {
        self.has_tls_descriptors
    }

    /// Records that a relocation of this kind refers to `target`.
    pub(super) fn note_tls(&mut self, kind: RelocKind, target: Target) -> Result<(), Error> {
        if let (RelocKind::TpOff | RelocKind::TlsDesc, Target::Tls { module, .. }) = (kind, target)
            && !self.foreign_tls.contains(&module)
        {
            self.foreign_tls.try_push(module)?;
        }
        Ok(())
    }

    /// Sets the entry of the symbol of this index in a list that may be shorter.
    pub(super) fn note<T: Copy>(
        list: &mut Vec<Option<T>>,
        index: usize,
        item: T,
    ) -> Result<(), Error> {
        if list.len() <= index {
            list.try_lengthen(index.saturating_add(1), None)?;
        }
        if let Some(entry) = list.get_mut(index) {
            *entry = Some(item);
        }
        Ok(())
    }
}

/// The result for one relocation. The error is boxed: a value that is returned thousands of times stays
/// as small as a pointer.
pub(super) type Done<T> = Result<T, Box<Error>>;

/// The kind of a relocation, if memdl applies it to a shared library.
#[inline]
pub(super) fn checked_kind(rela: &Rela, machine: &Machine) -> Done<RelocKind> {
    match machine.reloc_kind(rela.r_type) {
        None | Some(RelocKind::Copy) => Err(no_kind(rela.r_type, rela.r_offset, machine)),
        Some(kind) => Ok(kind),
    }
}

#[cold]
pub(super) fn no_kind(r_type: u32, r_offset: Vaddr, machine: &Machine) -> Box<Error> {
    let name = (machine.reloc_name)(r_type);
    Box::new(Error::unsupported(match machine.reloc_kind(r_type) {
        None => {
            format!("relocation type {r_type} ({name}) at {r_offset} is not a dynamic relocation")
        }
        Some(_) => format!("{name} at {r_offset}: only executables have copy relocations"),
    }))
}
