//! A machine, as a table of numbers that can be tested on any other.

use crate::arch::reloc_kind::RelocKind;

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
