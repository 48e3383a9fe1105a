//! What a machine must supply: the one place that may be a different file for each.
//!
//! A relocation has one name here for all machines ([`RelocKind`]), with its formula; a machine is
//! a table of numbers, a few constants of its thread-pointer layout, and a little assembly. To
//! port memdl, write one more file beside `x86_64.rs` and add its two lines below. The number
//! tables compile on every host, so that they can be tested on any; the assembly is `cfg`'d.
//!
//! The names in the formulas are the psABI's: S is the symbol's address, A the addend
//! (`r_addend`), B the load bias, P the place (`r_offset` + B), Z the symbol's size.

pub(crate) mod x86_64;

#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::{
    BREAKPOINT, E_MACHINE, FINDER_MARK, MACHINE, bind_call, call_ifunc_resolver, finder,
    jump_instruction, look_at_processor, return_instruction, signal_returns, static_pool_offset,
    thread_pointer, thread_pointer_of, tls_get_addr, tls_slots, tlsdesc_dynamic, tlsdesc_static,
    tlsdesc_undefined, with_return_address,
};

/// What a dynamic relocation does, whatever its number on the machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum RelocKind {
    /// Nothing.
    None,
    /// `word64 = B + A`
    Relative,
    /// `word64 = S + A`
    Absolute,
    /// `word64 = S`: a GOT entry for data or a function address.
    GlobDat,
    /// `word64 = S`: a PLT's GOT entry; only called, never compared.
    JumpSlot,
    /// `word32 = S + A`, which must fit, zero-extended.
    Absolute32,
    /// `word32 = S + A - P`, which must fit, sign-extended.
    PcRelative32,
    /// `word64 = S + A - P`
    PcRelative,
    /// `word64 = Z + A`
    Size,
    /// `word32 = Z + A`, which must fit.
    Size32,
    /// `word64 =` the id of the module that defines the thread-local S.
    TlsModule,
    /// `word64 = S + A`, as an offset in the module's block.
    TlsOffset,
    /// `word64 = S + A`, as an offset from the thread pointer (initial exec).
    TlsThreadPointerOffset,
    /// Two words: a resolver and its argument (TLS descriptor).
    TlsDescriptor,
    /// `word64 = call(B + A)`: a local IFUNC.
    Indirect,
    /// A copy relocation: only executables have them.
    Copy,
}

impl RelocKind {
    /// It stores a symbol's address, or not far from that.
    #[inline]
    pub(crate) fn is_plain(self) -> bool {
        matches!(self, RelocKind::JumpSlot | RelocKind::GlobDat | RelocKind::Absolute)
    }

    /// How many bytes are stored.
    pub(crate) fn stored_len(self) -> u64 {
        match self {
            RelocKind::None => 0,
            RelocKind::Absolute32 | RelocKind::PcRelative32 | RelocKind::Size32 => 4,
            RelocKind::TlsDescriptor => 16,
            _ => 8,
        }
    }

    /// It is about a thread-local symbol.
    pub(crate) fn is_thread_local(self) -> bool {
        matches!(
            self,
            RelocKind::TlsModule
                | RelocKind::TlsOffset
                | RelocKind::TlsThreadPointerOffset
                | RelocKind::TlsDescriptor
        )
    }
}

/// What the stages need to know of a machine. A value per machine, so that tables can be tested
/// on any host.
pub(crate) struct Machine {
    /// The machine's name, for errors.
    pub name: &'static str,
    /// gABI `e_machine`.
    pub e_machine: u16,
    /// The number of [`RelocKind::Relative`], which is that of most.
    pub relative: u32,
    /// The kinds of relocations, by the low half of `r_info`; what is not there is not a dynamic
    /// relocation that memdl knows.
    pub reloc_kinds: &'static [Option<RelocKind>],
    /// The psABI's name of a relocation type, for errors.
    pub reloc_name: fn(r_type: u32) -> &'static str,
}

impl Machine {
    /// The kind of a relocation, from the low half of its `r_info`.
    #[inline]
    pub(crate) fn reloc_kind(&self, r_type: u32) -> Option<RelocKind> {
        self.reloc_kinds.get(r_type as usize).copied().flatten()
    }
}
