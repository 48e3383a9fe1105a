//! The symbol table of a symfile.
//!
//! It is the image's `.symtab`, or made from its dynamic symbols. What a debugger would misread is amended in
//! the copy. It never moves a symbol: [`super::layout`] does.
//!
//! Source: gABI chapter 4, "Symbol Table".

#![forbid(unsafe_code)]

use std::borrow::Cow;

use goblin::elf::section_header::SHN_UNDEF;
use goblin::elf::sym::{STB_GLOBAL, STB_LOCAL, STT_FUNC, STT_GNU_IFUNC, STT_TLS, st_bind, st_type};
use goblin::elf64::sym::Sym;

use super::error::SymfileError;
use super::headers::{SYMBOL_SIZE, get, put};
use super::sections::Sections;
use super::source::Source;
use crate::base::fallible::{TryGrow, try_vec};

/// The contents of `.symtab` and `.strtab`.
pub(super) struct Symbols<'s> {
    pub(super) entries: Cow<'s, [u8]>,
    /// Ends with a zero.
    pub(super) strings: Cow<'s, [u8]>,
    /// How many local symbols come first: `sh_info`.
    pub(super) locals: u32,
}

impl<'s> Symbols<'s> {
    /// From the table of a file.
    pub(super) fn stated(
        entries: &'s [u8],
        strings: &'s [u8],
    ) -> Result<Symbols<'s>, SymfileError> {
        let whole = entries.len() / SYMBOL_SIZE;
        let entries = entries.get(..whole.saturating_mul(SYMBOL_SIZE)).unwrap_or_default();
        let bind = |entry: &[u8]| st_bind(get::<Sym>(entry).st_info);
        let locals = entries.chunks_exact(SYMBOL_SIZE).map(bind);
        let locals = locals.take_while(|bind| *bind == STB_LOCAL).count() as u32;
        let strings = match strings.last() {
            Some(0) => strings.into(),
            _ => {
                let mut ended = try_vec(strings.len().saturating_add(1))?;
                ended.extend_from_slice(strings);
                ended.push(0);
                ended.into()
            }
        };
        Ok(Symbols { entries: entries.into(), strings, locals })
    }

    /// Changes what debuggers would misread, in a copy of the entries.
    pub(super) fn amend(entries: &mut [u8], strings_len: usize) {
        for place in entries.chunks_exact_mut(SYMBOL_SIZE) {
            let mut symbol: Sym = get(place);
            if st_type(symbol.st_info) == STT_TLS {
                // gdb would take its value for an offset in the executable's block, and show that.
                let st_info = st_bind(symbol.st_info) << 4;
                put(place, Sym { st_info, ..Sym::default() });
            } else if symbol.st_name as usize >= strings_len {
                symbol.st_name = (strings_len as u32).saturating_sub(1);
                put(place, symbol);
            }
        }
    }

    pub(super) fn from_dynamic(
        source: &Source<'_>,
        sections: &Sections<'_>,
    ) -> Result<Symbols<'s>, SymfileError> {
        let (mut entries, mut strings) = (vec![0; SYMBOL_SIZE], vec![0]);
        let mut result = Ok(());
        // Each has an entry of its own in the file, and names may share their ends but seldom do.
        let most = source.len();
        (source.dynamic_symbols)(&mut |dynamic| {
            let full =
                entries.len() > most || strings.len().saturating_add(dynamic.name.len()) > most;
            let Some(st_shndx) = sections.index_of(&dynamic) else {
                return;
            };
            if full || result.is_err() {
                return;
            }
            let mut entry = [0; SYMBOL_SIZE];
            put(
                &mut entry,
                Sym {
                    st_name: strings.len() as u32,
                    st_info: dynamic.st_info,
                    st_other: dynamic.st_other,
                    st_shndx,
                    st_value: dynamic.st_value,
                    st_size: dynamic.st_size,
                },
            );
            result = entries
                .try_append(&entry)
                .and_then(|()| strings.try_append(dynamic.name))
                .and_then(|()| strings.try_push(0));
        });
        result?;
        Ok(Symbols { entries: entries.into(), strings: strings.into(), locals: 1 })
    }
}

/// The name of the function that `address` lies in, by these entries and strings.
pub(super) fn function_at<'t>(entries: &[u8], strings: &'t [u8], address: u64) -> Option<&'t [u8]> {
    let functions = entries.chunks_exact(SYMBOL_SIZE).map(get::<Sym>).filter(|symbol| {
        matches!(st_type(symbol.st_info), STT_FUNC | STT_GNU_IFUNC)
            && u32::from(symbol.st_shndx) != SHN_UNDEF
            && symbol.st_value <= address
    });
    // Of those that begin before the address and do not end before it, the last. A symbol without a size
    // extends to the next one.
    let nearest = functions.clone().map(|symbol| symbol.st_value).max()?;
    let holds = |symbol: &Sym| match symbol.st_size {
        0 => symbol.st_value == nearest,
        size => address.wrapping_sub(symbol.st_value) < size,
    };
    let merit = |symbol: &Sym| {
        (symbol.st_value, symbol.st_size != 0, st_bind(symbol.st_info) == STB_GLOBAL)
    };
    let symbol = functions.filter(holds).max_by_key(merit)?;
    let name = strings.get(symbol.st_name as usize..)?.split(|&byte| byte == 0).next()?;
    (!name.is_empty()).then_some(name)
}
