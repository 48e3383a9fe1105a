//! Finding the run-time addresses in DWARF, and adding the load bias to them in place.
//!
//! [`Addresses::find`] reads the debug sections of an image once and lists the places, eight bytes
//! each, that a static linker would have filled otherwise for another base address;
//! [`Addresses::relocate`] adds a bias to them, once for each instance. No size changes. Nothing is written
//! unless everything could be read: if any unit cannot be read with certainty, `find` returns which and why
//! ([`NotRelocated`]).
//!
//! **What moves**: `DW_FORM_addr`, `DW_OP_addr`, absolute entries of the lists of ranges and
//! locations, `DW_LNE_set_address`, and the addresses in `.debug_aranges`, `.debug_addr` and
//! `.debug_frame`. Linkers mark discarded code with 0, 1, -1 and -2: those stay. So do
//! literals (`DW_OP_implicit_value`, blocks of `DW_AT_const_value`), as under `dlopen`, and
//! thread-locals' offsets.
//!
//! **Pairs of DWARF 2 to 4.** Entries of `.debug_ranges` and `.debug_loc` are relative to a base,
//! most often the unit's `DW_AT_low_pc`. A unit with several ranges states 0 there, so that the
//! pairs are absolute. Then that 0 moves, and the pairs need not: see [`Walk::base`].
//!
//! Bytes are hostile. Lists are found from the entries that refer to them, since compilers put
//! other things between them; each is read once. Every step consumes input, tables of abbreviations
//! are read once for all units that share them, and there is no recursion: time and memory are
//! bounded by a small multiple of the sections' size. The [`Budget`] bounds them
//! too: a step for each byte of a record or unit, and more for each note.
//!
//! gimli reads headers of units and operations of expressions. The other records are read here, since the
//! place of an address is needed and not its value.
//!
//! Sources: DWARF 2 to 5; what debuggers make of bases was found by experiment with gdb and lldb.

#![forbid(unsafe_code)]
// The names are those of DWARF.
#![allow(non_upper_case_globals)]

mod abbreviations;
mod lists;
mod records;
mod units;

use std::fmt;
use std::ops::{Index, IndexMut};

use gimli::constants::*;
use gimli::{Encoding, EndianSlice, Expression, LittleEndian, Operation, Reader};

use crate::base::addr::LoadBias;
use crate::base::fallible::OutOfMemory;
use crate::base::fallible::{TryGrow, try_collect};
use crate::dwarf::budget::{Budget, OverBudget};

type Input<'a> = EndianSlice<'a, LittleEndian>;

/// The size of an address in every image.
const ADDRESS: usize = 8;

/// A section of the image: its name, and its contents, not compressed.
#[derive(Clone, Copy)]
pub struct DwarfSection<'a> {
    pub name: &'a str,
    pub contents: &'a [u8],
}

/// The places of all run-time addresses in an image's debug sections.
#[derive(Debug)]
pub struct Addresses {
    /// For each section that was given: its length, and the places, ascending, none overlapping.
    sections: Vec<(usize, Vec<u32>)>,
}

/// Why DWARF cannot be relocated.
#[derive(Debug, thiserror::Error)]
#[error("{section} at {offset:#x}: {why}")]
pub struct NotRelocated {
    section: Section,
    /// Of the entry, list or record that was being read.
    offset: usize,
    pub why: Why,
}

/// The reason of a [`NotRelocated`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// gimli's reason.
    #[error("{0}")]
    Unreadable(#[from] gimli::Error),
    /// A unit whose entries are in a .dwo or .dwp file: debuggers would look for that.
    #[error("the unit's entries are in another file (split DWARF)")]
    Split,
    /// A unit that refers to a file that several images share: debuggers would look for that.
    #[error("a reference to a supplementary file (dwz)")]
    Supplementary,
    /// Anything else that cannot be read with certainty.
    #[error("{0}")]
    Unknown(&'static str),
    /// Reading it costs too much.
    #[error(transparent)]
    OverBudget(#[from] OverBudget),
    /// The system has no memory of this many bytes.
    #[error("no memory for {0} bytes")]
    Memory(u64),
}

impl From<OutOfMemory> for Why {
    fn from(OutOfMemory { bytes }: OutOfMemory) -> Why {
        Why::Memory(bytes)
    }
}

impl Addresses {
    /// Reads all sections that may have addresses.
    ///
    /// Indexes (`.gdb_index`, `.debug_names`) are not read: see [`is_index`].
    pub fn find(sections: &[DwarfSection<'_>], budget: &Budget) -> Result<Addresses, NotRelocated> {
        let mut walk = Walk::new(budget);
        if let Err(why) = walk.take(sections).and_then(|()| walk.all()) {
            return Err(NotRelocated { section: walk.at.0, offset: walk.at.1, why });
        }
        let mut found = walk.found;
        let of = |section: &DwarfSection<'_>| {
            let places = Section::named(section.name).map(|of| std::mem::take(&mut found[of]));
            (section.contents.len(), places.unwrap_or_default())
        };
        let no_memory = |error: OutOfMemory| NotRelocated {
            section: Section::Info,
            offset: 0,
            why: error.into(),
        };
        Ok(Addresses { sections: try_collect(sections.iter().map(of)).map_err(no_memory)? })
    }

    /// Adds the bias to every address in `contents`, the contents of the section with this index among those
    /// of [`Addresses::find`]. If their length is another, nothing happens.
    pub fn relocate(&self, index: usize, contents: &mut [u8], bias: LoadBias) {
        let Some((_, places)) = self.sections.get(index).filter(|it| it.0 == contents.len()) else {
            debug_assert!(false, "the same section");
            return;
        };
        for &place in places {
            let place = contents.get_mut(place as usize..).and_then(<[u8]>::first_chunk_mut);
            if let Some::<&mut [u8; ADDRESS]>(place) = place {
                let address = u64::from_le_bytes(*place);
                *place = address.wrapping_add(bias.get() as u64).to_le_bytes();
            }
        }
    }

    /// Whether the section with this index has any.
    pub fn has_any(&self, index: usize) -> bool {
        self.sections.get(index).is_some_and(|(_, places)| !places.is_empty())
    }

    /// How many addresses there are.
    #[cfg(test)]
    pub fn count(&self) -> usize {
        self.sections.iter().map(|(_, places)| places.len()).sum()
    }
}

/// Whether a section is an index, which debuggers do not need: `.gdb_index` has addresses, and
/// `.debug_names` as linkers write it makes gdb warn. Neither is relocated here; leave them out.
pub fn is_index(name: &str) -> bool {
    matches!(name, ".gdb_index" | ".debug_names")
}

/// How many sections are read.
const SECTIONS: usize = 11;

/// The sections that are read.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Section {
    Info,
    Types,
    Abbrev,
    Ranges,
    RngLists,
    Loc,
    LocLists,
    Line,
    Aranges,
    Frame,
    Addr,
}

impl Section {
    const ALL: [Section; SECTIONS] = [
        Section::Info,
        Section::Types,
        Section::Abbrev,
        Section::Ranges,
        Section::RngLists,
        Section::Loc,
        Section::LocLists,
        Section::Line,
        Section::Aranges,
        Section::Frame,
        Section::Addr,
    ];

    fn name(self) -> &'static str {
        match self {
            Section::Info => ".debug_info",
            Section::Types => ".debug_types",
            Section::Abbrev => ".debug_abbrev",
            Section::Ranges => ".debug_ranges",
            Section::RngLists => ".debug_rnglists",
            Section::Loc => ".debug_loc",
            Section::LocLists => ".debug_loclists",
            Section::Line => ".debug_line",
            Section::Aranges => ".debug_aranges",
            Section::Frame => ".debug_frame",
            Section::Addr => ".debug_addr",
        }
    }

    fn named(name: &str) -> Option<Section> {
        Section::ALL.into_iter().find(|section| section.name() == name)
    }
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One `T` for each [`Section`].
struct PerSection<T>([T; SECTIONS]);

impl<T> Index<Section> for PerSection<T> {
    type Output = T;
    #[expect(clippy::indexing_slicing, reason = "there is one for each section")]
    fn index(&self, section: Section) -> &T {
        &self.0[section as usize]
    }
}

impl<T> IndexMut<Section> for PerSection<T> {
    #[expect(clippy::indexing_slicing, reason = "there is one for each section")]
    fn index_mut(&mut self, section: Section) -> &mut T {
        &mut self.0[section as usize]
    }
}

/// Reading all sections.
struct Walk<'a, 'b> {
    sections: PerSection<Input<'a>>,
    found: PerSection<Vec<u32>>,
    /// Lists that entries refer to.
    lists: Vec<List>,
    /// Expressions inside the one that is being read.
    nested: Vec<Input<'a>>,
    /// The place of the entry, list or record that is being read, for errors.
    at: (Section, usize),
    budget: &'b Budget,
}

/// The cost of noting something, of which an entry of one byte may have any number, in steps: it takes
/// memory.
const NOTED: usize = 8;

/// A list of ranges or locations that an entry refers to.
#[derive(Clone, Copy, PartialEq, Eq)]
struct List {
    section: Section,
    offset: u32,
    /// The unit's.
    encoding: Encoding,
    /// Whether the unit states a base for pairs.
    has_base: bool,
}

impl<'a, 'b> Walk<'a, 'b> {
    fn new(budget: &'b Budget) -> Walk<'a, 'b> {
        Walk {
            sections: PerSection([EndianSlice::new(&[], LittleEndian); SECTIONS]),
            found: PerSection([const { Vec::new() }; SECTIONS]),
            lists: Vec::new(),
            nested: Vec::new(),
            at: (Section::Info, 0),
            budget,
        }
    }

    fn take(&mut self, sections: &[DwarfSection<'a>]) -> Result<(), Why> {
        let mut taken = PerSection([false; SECTIONS]);
        for given in sections {
            let Some(section) = Section::named(given.name) else {
                continue;
            };
            self.at = (section, 0);
            if std::mem::replace(&mut taken[section], true) {
                return Err(Why::Unknown("a second section of this name"));
            }
            if u32::try_from(given.contents.len()).is_err() {
                return Err(Why::Unknown("more than 4 GiB"));
            }
            self.sections[section] = EndianSlice::new(given.contents, LittleEndian);
        }
        Ok(())
    }

    fn all(&mut self) -> Result<(), Why> {
        self.units()?;
        self.lists()?;
        self.records(Section::Line, Self::line_program)?;
        self.records(Section::Aranges, Self::aranges)?;
        self.records(Section::Frame, Self::frame_entry)?;
        self.records(Section::Addr, Self::addr_table)?;
        for section in Section::ALL {
            let places = &mut self.found[section];
            // They are usually in order, which makes this fast. It allocates nothing.
            places.sort_unstable();
            places.dedup();
            let near = |pair: &[u32]| match *pair {
                [one, next] if next.saturating_sub(one) < ADDRESS as u32 => Some(next),
                _ => None,
            };
            if let Some(next) = places.windows(2).find_map(near) {
                self.at = (section, next as usize);
                return Err(Why::Unknown("two addresses overlap"));
            }
        }
        Ok(())
    }

    /// Starts reading at `input`.
    fn begin(&mut self, section: Section, input: Input<'a>) {
        self.at = (section, self.place(section, input));
    }

    fn place(&self, section: Section, input: Input<'a>) -> usize {
        input.offset_from(self.sections[section])
    }

    /// An address is next in `input`.
    fn address(&mut self, section: Section, input: &mut Input<'a>) -> Result<(), Why> {
        let place = self.place(section, *input);
        if !is_tombstone(input.read_u64()?) {
            self.found[section].try_push(place as u32)?;
        }
        Ok(())
    }

    /// An address is next that others are relative to. If it is 0 it moves too: then the others
    /// are absolute, and stay. (Not a tombstone: gdb adds the bias to such a 0 of a library that
    /// `dlopen` loaded as well.)
    fn base(&mut self, section: Section, input: &mut Input<'a>) -> Result<(), Why> {
        let place = self.place(section, *input);
        let address = input.read_u64()?;
        if address == 0 || !is_tombstone(address) {
            self.found[section].try_push(place as u32)?;
        }
        Ok(())
    }

    /// Finds the addresses in an expression and those inside it.
    fn expression(
        &mut self,
        section: Section,
        expression: Input<'a>,
        encoding: Encoding,
    ) -> Result<(), Why> {
        let mut next =
            Some(expression).filter(|bytes| bytes.slice().iter().any(|&byte| may_matter(byte)));
        while let Some(bytes) = next {
            let expression = Expression(bytes);
            let mut operations = expression.operations(encoding);
            while let Some(operation) = operations.next()? {
                match operation {
                    Operation::Address { address } => {
                        let end = operations.offset_from(&expression);
                        // Old compilers give the offset of a thread-local this way, and gdb knows.
                        let operation = bytes.slice().get(end).copied().map(DwOp);
                        let is_offset = matches!(
                            operation,
                            Some(DW_OP_GNU_push_tls_address | DW_OP_form_tls_address)
                        );
                        if !is_offset && !is_tombstone(address) {
                            let place = self.place(section, bytes).saturating_add(end);
                            let place = place.saturating_sub(ADDRESS);
                            self.found[section].try_push(place as u32)?;
                        }
                    }
                    Operation::EntryValue { expression } => {
                        self.budget.step(NOTED)?;
                        self.nested.try_push(expression)?;
                    }
                    // What it refers to may be an address or not, and only the linker knew.
                    Operation::ConstantIndex { .. } => {
                        return Err(Why::Unknown("an operation with a constant in .debug_addr"));
                    }
                    _ => {}
                }
            }
            next = self.nested.pop();
        }
        Ok(())
    }
}

/// Whether this stands for code or data that the linker discarded.
fn is_tombstone(address: u64) -> bool {
    matches!(address, 0 | 1 | 0xffff_ffff_ffff_fffe..)
}

/// Whether an expression with this byte, as operation or operand, needs a closer look. One without
/// any such byte has no address, and no operation of a vendor: that spares most expressions.
fn may_matter(byte: u8) -> bool {
    matches!(DwOp(byte), DW_OP_addr | DW_OP_constx) || byte >= DW_OP_GNU_push_tls_address.0
}

/// The next `len` bytes.
fn split<'a>(input: &mut Input<'a>, len: u64) -> Result<Input<'a>, Why> {
    let len = usize::try_from(len).map_err(|_| gimli::Error::UnsupportedOffset)?;
    Ok(input.split(len)?)
}

#[cfg(test)]
mod tests;
