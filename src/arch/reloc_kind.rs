//! The kinds of dynamic relocations, with one name for all machines. Numbers are in a machine's table;
//! `link/` stores the values.
//!
//! The names in the formulas are the psABI's: S is the symbol's address, A the addend (`r_addend`), B the
//! load bias, P the place (`r_offset` + B), Z the symbol's size.

#![forbid(unsafe_code)]

/// A kind of dynamic relocation.
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
    /// `word64 = S`: a PLT's GOT entry, which is called and never compared.
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
    DtpMod,
    /// `word64 = S + A`, as an offset in the module's block.
    DtpOff,
    /// `word64 = S + A`, as an offset from the thread pointer (initial exec).
    TpOff,
    /// Two words: a resolver and its argument (TLS descriptor).
    TlsDesc,
    /// `word64 = call(B + A)`: a local IFUNC.
    IRelative,
    /// A copy relocation, which only executables have.
    Copy,
}

impl RelocKind {
    /// It stores a symbol's address, perhaps with an addend.
    #[inline]
    pub(crate) fn is_plain(self) -> bool {
        matches!(self, RelocKind::JumpSlot | RelocKind::GlobDat | RelocKind::Absolute)
    }

    /// The number of bytes that it stores.
    pub(crate) fn stored_len(self) -> u64 {
        match self {
            RelocKind::None => 0,
            RelocKind::Absolute32 | RelocKind::PcRelative32 | RelocKind::Size32 => 4,
            RelocKind::TlsDesc => 16,
            _ => 8,
        }
    }

    /// It refers to a thread-local symbol.
    pub(crate) fn is_thread_local(self) -> bool {
        matches!(
            self,
            RelocKind::DtpMod | RelocKind::DtpOff | RelocKind::TpOff | RelocKind::TlsDesc
        )
    }
}
