//! The functions that an instance's IFUNC resolvers chose, in its symbol table.
//!
//! A debugger that meets an `STT_GNU_IFUNC` symbol sets its breakpoint on the resolver, and waits for it to return.
//! With `dlopen` gdb has read the symbols before resolvers run, or finds the function in the GOT. A symfile is
//! registered after they have run, and has no GOT. So in the symfile such a symbol is an `STT_FUNC` at the function
//! that was chosen. Its size is 0, so that debuggers prefer the function's own name, as they do in a file.
//!
//! An IFUNC whose resolver has not run, or that chose a function of another object, stays as it is. If the
//! resolver runs later, as for a call that is bound lazily, the file in place is amended. Nothing here calls a
//! resolver.
//!
//! Source: gdb's `elfread.c` (`elf_gnu_ifunc_resolve_name`) and `minsyms.c`
//! (`lookup_minimal_symbol_by_pc_section`).

#![forbid(unsafe_code)]

use std::ops::Range;

use goblin::elf::section_header::{SHF_EXECINSTR, SHN_LORESERVE, SHN_UNDEF};
use goblin::elf::sym::{STT_FUNC, STT_GNU_IFUNC, st_bind, st_type};
use goblin::elf64::section_header::SectionHeader;
use goblin::elf64::sym::Sym;

use super::headers::{SYMBOL_SIZE, get, put};
use crate::base::addr::Vaddr;
use crate::base::fallible::OutOfMemory;
use crate::base::fallible::TryGrow;

/// The stated addresses of resolvers, ascending, each with that of the function it chose.
#[derive(Debug, Default)]
pub struct Ifuncs(Vec<(Vaddr, Vaddr)>);

impl Ifuncs {
    /// From the stated addresses of resolvers and of what they chose, in any order.
    #[inline]
    pub fn new(chosen: Vec<(Vaddr, Vaddr)>) -> Ifuncs {
        // Few images have any.
        if chosen.is_empty() { Ifuncs(chosen) } else { Ifuncs::sorted(chosen) }
    }

    fn sorted(mut chosen: Vec<(Vaddr, Vaddr)>) -> Ifuncs {
        chosen.sort_unstable();
        chosen.dedup_by_key(|(resolver, _)| *resolver);
        Ifuncs(chosen)
    }

    /// The resolver and the function that it chose, at their run-time addresses: for files in place.
    pub fn in_place(resolver: usize, function: usize) -> Ifuncs {
        Ifuncs(vec![(Vaddr(resolver as u64), Vaddr(function as u64))])
    }

    /// Whether it is known what the resolver at this address has chosen.
    pub fn has(&self, resolver: usize) -> bool {
        self.chosen(Vaddr(resolver as u64)).is_some()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Makes the symbols of IFUNCs those of the chosen functions. The entries, the sections and the addresses here
    /// are all where the image states them, or all where it runs.
    pub(super) fn amend(&self, entries: &mut [u8], code: &CodeSections) {
        for place in entries.chunks_exact_mut(SYMBOL_SIZE) {
            if let Some(amended) = self.amended(&get(place), code) {
                put(place, amended);
            }
        }
    }

    /// Whether [`Ifuncs::amend`] would change one of these entries.
    pub(super) fn concern(&self, entries: &[u8], code: &CodeSections) -> bool {
        entries.chunks_exact(SYMBOL_SIZE).any(|place| self.amended(&get(place), code).is_some())
    }

    fn amended(&self, symbol: &Sym, code: &CodeSections) -> Option<Sym> {
        let section = u32::from(symbol.st_shndx);
        let is_ifunc = st_type(symbol.st_info) == STT_GNU_IFUNC
            && section != SHN_UNDEF
            && section < SHN_LORESERVE;
        let function = is_ifunc.then(|| self.chosen(Vaddr(symbol.st_value))).flatten()?;
        let st_shndx = code.section_at(function)?;
        let st_info = st_bind(symbol.st_info) << 4 | STT_FUNC;
        Some(Sym { st_value: function.0, st_size: 0, st_info, st_shndx, ..*symbol })
    }

    fn chosen(&self, resolver: Vaddr) -> Option<Vaddr> {
        let found = self.0.binary_search_by_key(&resolver, |(resolver, _)| *resolver).ok()?;
        self.0.get(found).map(|(_, function)| *function)
    }
}

/// The sections of code, by address.
pub struct CodeSections(Vec<(Range<u64>, u16)>);

impl CodeSections {
    /// From all sections in the order of their indexes, at the addresses that the image states.
    pub(super) fn new(
        sections: impl Iterator<Item = SectionHeader>,
    ) -> Result<CodeSections, OutOfMemory> {
        let mut code = Vec::new();
        let is_code =
            |(_, section): &(u16, SectionHeader)| section.sh_flags & u64::from(SHF_EXECINSTR) != 0;
        for (index, SectionHeader { sh_addr, sh_size, .. }) in (0..).zip(sections).filter(is_code) {
            code.try_push((sh_addr..sh_addr.saturating_add(sh_size), index))?;
        }
        code.sort_unstable_by_key(|(addresses, _)| addresses.start);
        Ok(CodeSections(code))
    }

    fn section_at(&self, address: Vaddr) -> Option<u16> {
        let after = self.0.partition_point(|(addresses, _)| addresses.start <= address.0);
        let (addresses, index) = self.0.get(after.checked_sub(1)?)?;
        addresses.contains(&address.0).then_some(*index)
    }
}

#[cfg(test)]
mod tests {
    use goblin::elf::section_header::SHN_ABS;
    use goblin::elf::sym::STB_GLOBAL;

    use super::*;

    #[test]
    fn a_symbol_becomes_that_of_the_function_and_others_stay() {
        let section = |sh_addr, sh_flags| SectionHeader {
            sh_addr,
            sh_size: 0x100,
            sh_flags,
            ..SectionHeader::default()
        };
        let code = u64::from(SHF_EXECINSTR);
        let sections =
            [section(0, 0), section(0x2000, code), section(0x1000, code), section(0x3000, 0)];
        let code = CodeSections::new(sections.into_iter()).unwrap();
        let symbol = |st_value, st_shndx, kind| Sym {
            st_name: 7,
            st_info: STB_GLOBAL << 4 | kind,
            st_other: 2,
            st_shndx,
            st_value,
            st_size: 5,
        };
        // Chosen: in another section, behind a section's end, in data. Of the last nothing is known.
        let chosen = [(0x1010, 0x20ff), (0x1020, 0x2100), (0x1030, 0x3000)];
        let ifuncs = Ifuncs::new(chosen.map(|(from, to)| (Vaddr(from), Vaddr(to))).to_vec());
        let before = [
            symbol(0x1010, 2, STT_GNU_IFUNC),
            symbol(0x1020, 2, STT_GNU_IFUNC),
            symbol(0x1030, 2, STT_GNU_IFUNC),
            symbol(0x1040, 2, STT_GNU_IFUNC),
            symbol(0x1010, 2, STT_FUNC),
            symbol(0x1010, SHN_ABS as u16, STT_GNU_IFUNC),
            symbol(0x1010, 0, STT_GNU_IFUNC),
        ];
        let mut entries = vec![0; before.len() * SYMBOL_SIZE];
        for (place, symbol) in entries.chunks_exact_mut(SYMBOL_SIZE).zip(before) {
            put(place, symbol);
        }
        assert!(ifuncs.concern(&entries, &code));
        ifuncs.amend(&mut entries, &code);
        assert!(!ifuncs.concern(&entries, &code));
        let mut expected = before;
        expected[0] = Sym { st_size: 0, ..symbol(0x20ff, 1, STT_FUNC) };
        let after: Vec<Sym> = entries.chunks_exact(SYMBOL_SIZE).map(get).collect();
        assert_eq!(after, expected);
    }
}
