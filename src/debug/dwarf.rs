//! Where in DWARF the run-time addresses are, and adding the load bias to them in place.
//!
//! [`Addresses::find`] reads the debug sections of an image once and lists the places, eight bytes
//! each, that a static linker would have filled otherwise for another base address;
//! [`Addresses::relocate`] adds a bias to them, as often as there are instances. Nothing changes
//! its size, and nothing is touched unless all of it could be read: if any unit cannot be read with
//! certainty, `find` says which and why ([`NotRelocated`]), and there are no places at all.
//!
//! **What moves**: `DW_FORM_addr`, `DW_OP_addr`, absolute entries of the lists of ranges and
//! locations, `DW_LNE_set_address`, and the addresses in `.debug_aranges`, `.debug_addr` and
//! `.debug_frame`. Linkers mark what they have thrown away with 0, 1, -1 and -2: those stay. So do
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
//! bounded by a small multiple of the sections' size.
//!
//! gimli reads headers of units and operations of expressions. The other records are read here, for
//! the place of an address is wanted and not its value.
//!
//! Sources: DWARF 2 to 5; what debuggers make of bases was found by experiment with gdb and lldb.

#![forbid(unsafe_code)]
// The names are those of DWARF.
#![allow(non_upper_case_globals)]

use std::fmt;
use std::ops::{Index, IndexMut};

use gimli::constants::*;
use gimli::{
    DebugInfo, DebugTypes, Encoding, EndianSlice, Expression, Format, LittleEndian, Operation,
    Reader, UnitHeader, UnitType,
};

use crate::addr::LoadBias;

type Input<'a> = EndianSlice<'a, LittleEndian>;

/// Of an address, in all that memdl loads.
const ADDRESS: usize = 8;

/// A section of the image: its name, and its contents, not compressed.
#[derive(Clone, Copy)]
pub(super) struct DwarfSection<'a> {
    pub name: &'a str,
    pub contents: &'a [u8],
}

/// The places of all run-time addresses in an image's debug sections.
#[derive(Debug)]
pub(super) struct Addresses {
    /// For each section that was given: its length, and the places, ascending, none overlapping.
    sections: Vec<(usize, Vec<u32>)>,
}

/// Why DWARF cannot be relocated.
#[derive(Debug, thiserror::Error)]
#[error("{section} at {offset:#x}: {why}")]
pub(super) struct NotRelocated {
    section: Section,
    /// Of the entry, list or record that was being read.
    offset: usize,
    pub why: Why,
}

/// What stands in the way.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Why {
    /// As gimli says.
    #[error("{0}")]
    Unreadable(#[from] gimli::Error),
    /// A unit whose entries are in a .dwo or .dwp file: debuggers would look for that.
    #[error("the unit's entries are in another file (split DWARF)")]
    Split,
    /// A unit that refers to a file that several images share: debuggers would look for that.
    #[error("a reference to a supplementary file (dwz)")]
    Supplementary,
    /// Anything else that is not known for certain.
    #[error("{0}")]
    Unknown(&'static str),
}

impl Addresses {
    /// Reads all sections that may have addresses; the others have none.
    ///
    /// Indexes (`.gdb_index`, `.debug_names`) are not read: see [`is_index`].
    pub(super) fn find(sections: &[DwarfSection<'_>]) -> Result<Addresses, NotRelocated> {
        let mut walk = Walk::new();
        let found = walk
            .take(sections)
            .and_then(|()| walk.all())
            .map_err(|why| NotRelocated { section: walk.at.0, offset: walk.at.1, why })
            .map(|()| walk.found)?;
        let mut found = found;
        let of = |section: &DwarfSection<'_>| {
            let places = Section::named(section.name).map(|of| std::mem::take(&mut found[of]));
            (section.contents.len(), places.unwrap_or_default())
        };
        Ok(Addresses { sections: sections.iter().map(of).collect() })
    }

    /// Adds the bias to every address in `contents`, which are those of the section that was given
    /// to [`Addresses::find`] as the one of this index.
    ///
    /// # Panics
    /// If it is not as long.
    pub(super) fn relocate(&self, index: usize, contents: &mut [u8], bias: LoadBias) {
        let (len, places) = &self.sections[index];
        assert_eq!(contents.len(), *len, "the same section");
        for &place in places {
            let place = &mut contents[place as usize..][..ADDRESS];
            let address = u64::from_le_bytes(place.try_into().expect("eight bytes"));
            place.copy_from_slice(&address.wrapping_add(bias.get() as u64).to_le_bytes());
        }
    }

    /// How many addresses there are.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.sections.iter().map(|(_, places)| places.len()).sum()
    }
}

/// Whether a section is an index, which debuggers can do without: `.gdb_index` has addresses, and
/// `.debug_names` as linkers write it makes gdb warn. Neither is relocated here; leave them out.
pub(super) fn is_index(name: &str) -> bool {
    matches!(name, ".gdb_index" | ".debug_names")
}

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
    const ALL: [Section; 11] = [
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
struct PerSection<T>([T; Section::ALL.len()]);

impl<T> Index<Section> for PerSection<T> {
    type Output = T;
    fn index(&self, section: Section) -> &T {
        &self.0[section as usize]
    }
}

impl<T> IndexMut<Section> for PerSection<T> {
    fn index_mut(&mut self, section: Section) -> &mut T {
        &mut self.0[section as usize]
    }
}

/// Reading all sections.
struct Walk<'a> {
    sections: PerSection<Input<'a>>,
    found: PerSection<Vec<u32>>,
    /// Lists that entries refer to.
    lists: Vec<List>,
    /// Expressions inside the one that is being read.
    nested: Vec<Input<'a>>,
    /// What is being read, for errors: it is set at the start of each entry, list or record.
    at: (Section, usize),
}

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

/// What is known of a unit while its entries are read.
struct Unit {
    section: Section,
    encoding: Encoding,
    /// The root entry is being read.
    in_root: bool,
    has_ranges: bool,
    has_base: bool,
    /// Places of 0 in attributes of the root that may be the base of pairs.
    zero_bases: Vec<u32>,
    rnglists_base: Option<usize>,
    loclists_base: Option<usize>,
    /// References of the root to lists: read when its other attributes are known.
    references: Vec<Reference>,
}

/// A reference to a list.
#[derive(Clone, Copy)]
enum Reference {
    Ranges(usize),
    RangesIndex(u64),
    Locations(usize),
    LocationsIndex(u64),
}

impl<'a> Walk<'a> {
    fn new() -> Walk<'a> {
        Walk {
            sections: PerSection([EndianSlice::new(&[], LittleEndian); _]),
            found: PerSection([const { Vec::new() }; _]),
            lists: Vec::new(),
            nested: Vec::new(),
            at: (Section::Info, 0),
        }
    }

    fn take(&mut self, sections: &[DwarfSection<'a>]) -> Result<(), Why> {
        let mut taken = PerSection([false; _]);
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
            places.sort();
            places.dedup();
            let near = |pair: &&[u32]| pair[1] - pair[0] < ADDRESS as u32;
            if let Some(pair) = places.windows(2).find(near) {
                self.at = (section, pair[1] as usize);
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
            self.found[section].push(place as u32);
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
            self.found[section].push(place as u32);
        }
        Ok(())
    }
}

/// Whether this stands for code or data that the linker threw away.
fn is_tombstone(address: u64) -> bool {
    matches!(address, 0 | 1 | 0xffff_ffff_ffff_fffe..)
}

// Units and their entries.

/// A unit, by what its abbreviations depend on.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct UnitKey {
    abbreviations: usize,
    version: u16,
    is_64_bit: bool,
    section: Section,
    offset: u32,
}

impl<'a> Walk<'a> {
    /// All units, those that share abbreviations together, so that one table is kept at a time.
    fn units(&mut self) -> Result<(), Why> {
        let mut units = Vec::new();
        for section in [Section::Info, Section::Types] {
            let mut rest = self.sections[section];
            while !rest.is_empty() {
                self.begin(section, rest);
                let header = unit_header(section, rest)?;
                units.push(UnitKey {
                    abbreviations: header.debug_abbrev_offset().0,
                    version: header.version(),
                    is_64_bit: header.format() == Format::Dwarf64,
                    section,
                    offset: self.at.1 as u32,
                });
                rest.skip(header.length_including_self())?;
            }
        }
        units.sort_unstable();

        let same_table = |a: &UnitKey, b: &UnitKey| a.abbreviations == b.abbreviations;
        let mut table = Table::default();
        let mut groups = units.chunk_by(same_table).peekable();
        while let Some(group) = groups.next() {
            // No table reaches into the next: a byte is read for one table only.
            let start = group[0].abbreviations;
            let end = groups.peek().map(|next| next[0].abbreviations);
            let same_forms =
                |a: &UnitKey, b: &UnitKey| (a.version, a.is_64_bit) == (b.version, b.is_64_bit);
            for group in group.chunk_by(same_forms) {
                for (number, unit) in group.iter().enumerate() {
                    let section = unit.section;
                    let mut input = self.sections[section];
                    input.skip(unit.offset as usize)?;
                    if number == 0 {
                        self.begin(section, input);
                        let encoding = unit_header(section, input)?.encoding();
                        let mut abbreviations = self.sections[Section::Abbrev];
                        if let Some(end) = end {
                            abbreviations.truncate(end.min(abbreviations.len()))?;
                        }
                        abbreviations.skip(start)?;
                        self.begin(Section::Abbrev, abbreviations);
                        table.read(abbreviations, encoding)?;
                    }
                    self.entries(section, input, &table)?;
                }
            }
        }
        Ok(())
    }

    /// The entries of the unit at the start of `input`.
    fn entries(
        &mut self,
        section: Section,
        mut input: Input<'a>,
        table: &Table,
    ) -> Result<(), Why> {
        self.begin(section, input);
        let header = unit_header(section, input)?;
        if header.address_size() as usize != ADDRESS {
            return Err(Why::Unknown("addresses are not of eight bytes"));
        }
        match header.type_() {
            UnitType::Compilation | UnitType::Partial | UnitType::Type { .. } => {}
            _ => return Err(Why::Split),
        }
        input.truncate(header.length_including_self())?;
        input.skip(header.header_size())?;

        let mut unit = Unit {
            section,
            encoding: header.encoding(),
            in_root: true,
            has_ranges: false,
            has_base: false,
            zero_bases: Vec::new(),
            rnglists_base: None,
            loclists_base: None,
            references: Vec::new(),
        };
        while !input.is_empty() {
            self.begin(section, input);
            let code = input.read_uleb128()?;
            if code == 0 {
                continue;
            }
            let steps = table.steps(code).ok_or(gimli::Error::InvalidAbbreviationCode(code))?;
            for step in steps {
                match *step {
                    Step::Skip(bytes) => input.skip(bytes as usize)?,
                    Step::Read(name, form) => self.attribute(&mut unit, &mut input, name, form)?,
                    Step::Split => return Err(Why::Split),
                }
            }
            if unit.in_root {
                self.end_root(&mut unit)?;
            }
        }
        Ok(())
    }

    /// The root entry has been read.
    fn end_root(&mut self, unit: &mut Unit) -> Result<(), Why> {
        unit.in_root = false;
        // DWARF 5 has absolute entries for lists whose base is 0.
        if unit.has_ranges && unit.encoding.version < 5 {
            self.found[unit.section].append(&mut unit.zero_bases);
        }
        for reference in std::mem::take(&mut unit.references) {
            self.reference(unit, reference)?;
        }
        Ok(())
    }

    /// An attribute's value is next in `input`.
    fn attribute(
        &mut self,
        unit: &mut Unit,
        input: &mut Input<'a>,
        name: DwAt,
        mut form: DwForm,
    ) -> Result<(), Why> {
        while form == DW_FORM_indirect {
            form = DwForm(input.read_uleb128_u16()?);
            if form == DW_FORM_implicit_const {
                return Err(gimli::Error::InvalidImplicitConst.into());
            }
        }
        unit.has_ranges |= unit.in_root && name == DW_AT_ranges;
        let encoding = unit.encoding;
        match form {
            DW_FORM_addr => {
                if unit.in_root && matches!(name, DW_AT_low_pc | DW_AT_entry_pc) {
                    unit.has_base = true;
                    if input.clone().read_u64()? == 0 {
                        unit.zero_bases.push(self.place(unit.section, *input) as u32);
                    }
                }
                self.address(unit.section, input)?;
            }
            DW_FORM_exprloc => {
                let len = input.read_uleb128()?;
                let expression = split(input, len)?;
                self.expression(unit.section, expression, encoding)?;
            }
            DW_FORM_block | DW_FORM_block1 | DW_FORM_block2 | DW_FORM_block4 => {
                let len = match form {
                    DW_FORM_block1 => input.read_u8()?.into(),
                    DW_FORM_block2 => input.read_u16()?.into(),
                    DW_FORM_block4 => input.read_u32()?.into(),
                    _ => input.read_uleb128()?,
                };
                let block = split(input, len)?;
                if block_is_expression(name) {
                    self.expression(unit.section, block, encoding)?;
                }
            }
            DW_FORM_loclistx => {
                let index = input.read_uleb128()?;
                self.refer(unit, Reference::LocationsIndex(index))?;
            }
            DW_FORM_rnglistx => {
                let index = input.read_uleb128()?;
                self.refer(unit, Reference::RangesIndex(index))?;
            }
            DW_FORM_sec_offset | DW_FORM_data4 | DW_FORM_data8
                if refers_to_section(name, form, encoding.version) =>
            {
                let offset = match form {
                    DW_FORM_data4 => input.read_offset(Format::Dwarf32)?,
                    DW_FORM_data8 => input.read_offset(Format::Dwarf64)?,
                    _ => input.read_offset(encoding.format)?,
                };
                match name {
                    DW_AT_rnglists_base => unit.rnglists_base = Some(offset),
                    DW_AT_loclists_base => unit.loclists_base = Some(offset),
                    DW_AT_ranges | DW_AT_start_scope => {
                        self.refer(unit, Reference::Ranges(offset))?;
                    }
                    _ => self.refer(unit, Reference::Locations(offset))?,
                }
            }
            DW_FORM_GNU_ref_alt | DW_FORM_GNU_strp_alt | DW_FORM_ref_sup4 | DW_FORM_ref_sup8
            | DW_FORM_strp_sup => return Err(Why::Supplementary),
            DW_FORM_string => {
                input.read_null_terminated_slice()?;
            }
            DW_FORM_udata
            | DW_FORM_sdata
            | DW_FORM_ref_udata
            | DW_FORM_strx
            | DW_FORM_addrx
            | DW_FORM_GNU_str_index
            | DW_FORM_GNU_addr_index => input.skip_leb128()?,
            _ => input.skip(fixed_size(form, encoding).ok_or(gimli::Error::UnknownForm(form))?)?,
        }
        Ok(())
    }

    /// An entry refers to a list.
    fn refer(&mut self, unit: &mut Unit, reference: Reference) -> Result<(), Why> {
        if unit.in_root {
            unit.references.push(reference);
            return Ok(());
        }
        self.reference(unit, reference)
    }

    fn reference(&mut self, unit: &Unit, reference: Reference) -> Result<(), Why> {
        let is_v5 = unit.encoding.version >= 5;
        let (section, offset) = match reference {
            Reference::Ranges(offset) if is_v5 => (Section::RngLists, offset),
            Reference::Ranges(offset) => (Section::Ranges, offset),
            Reference::Locations(offset) if is_v5 => (Section::LocLists, offset),
            Reference::Locations(offset) => (Section::Loc, offset),
            Reference::RangesIndex(index) => {
                let section = Section::RngLists;
                (section, self.list_offset(section, unit, unit.rnglists_base, index)?)
            }
            Reference::LocationsIndex(index) => {
                let section = Section::LocLists;
                (section, self.list_offset(section, unit, unit.loclists_base, index)?)
            }
        };
        let offset = u32::try_from(offset).map_err(|_| gimli::Error::UnsupportedOffset)?;
        let (encoding, has_base) = (unit.encoding, unit.has_base);
        self.lists.push(List { section, offset, encoding, has_base });
        Ok(())
    }

    /// The offset of a list, from the table of offsets at `base`.
    fn list_offset(
        &self,
        section: Section,
        unit: &Unit,
        base: Option<usize>,
        index: u64,
    ) -> Result<usize, Why> {
        let overflow = gimli::Error::UnsupportedOffset;
        let base = base.ok_or(Why::Unknown("an index of a list, but no base for it"))?;
        let format = unit.encoding.format;
        let entry = usize::try_from(index)
            .ok()
            .and_then(|index| index.checked_mul(format.word_size().into()))
            .ok_or(overflow)?;
        let mut input = self.sections[section];
        input.skip(base)?;
        input.skip(entry)?;
        Ok(base.checked_add(input.read_offset(format)?).ok_or(overflow)?)
    }

    /// Finds the addresses in an expression and those inside it.
    fn expression(
        &mut self,
        section: Section,
        expression: Input<'a>,
        encoding: Encoding,
    ) -> Result<(), Why> {
        let mut next = Some(expression);
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
                            let place = self.place(section, bytes) + end - ADDRESS;
                            self.found[section].push(place as u32);
                        }
                    }
                    Operation::EntryValue { expression } => self.nested.push(expression),
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

/// The header at the start of `input`.
fn unit_header<'a>(section: Section, input: Input<'a>) -> Result<UnitHeader<Input<'a>>, Why> {
    let header = match section {
        Section::Types => DebugTypes::from(input).units().next()?,
        _ => DebugInfo::from(input).units().next()?,
    };
    Ok(header.ok_or(gimli::Error::UnexpectedEof(input.offset_id()))?)
}

/// The next `len` bytes.
fn split<'a>(input: &mut Input<'a>, len: u64) -> Result<Input<'a>, Why> {
    let len = usize::try_from(len).map_err(|_| gimli::Error::UnsupportedOffset)?;
    Ok(input.split(len)?)
}

/// Whether a block in this attribute is an expression; it is up to DWARF 3, and some compilers go
/// on so. Otherwise it is a literal.
fn block_is_expression(name: DwAt) -> bool {
    matches!(
        name,
        DW_AT_location
            | DW_AT_byte_size
            | DW_AT_bit_offset
            | DW_AT_bit_size
            | DW_AT_string_length
            | DW_AT_lower_bound
            | DW_AT_return_addr
            | DW_AT_bit_stride
            | DW_AT_upper_bound
            | DW_AT_count
            | DW_AT_data_member_location
            | DW_AT_frame_base
            | DW_AT_segment
            | DW_AT_static_link
            | DW_AT_use_location
            | DW_AT_vtable_elem_location
            | DW_AT_allocated
            | DW_AT_associated
            | DW_AT_data_location
            | DW_AT_byte_stride
            | DW_AT_rank
            | DW_AT_call_value
            | DW_AT_call_target
            | DW_AT_call_target_clobbered
            | DW_AT_call_data_location
            | DW_AT_call_data_value
            | DW_AT_GNU_call_site_value
            | DW_AT_GNU_call_site_data_value
            | DW_AT_GNU_call_site_target
            | DW_AT_GNU_call_site_target_clobbered
    )
}

/// Whether a value of this form in this attribute is the offset of a list, or of a table of those.
fn refers_to_section(name: DwAt, form: DwForm, version: u16) -> bool {
    match name {
        DW_AT_location
        | DW_AT_string_length
        | DW_AT_return_addr
        | DW_AT_frame_base
        | DW_AT_segment
        | DW_AT_static_link
        | DW_AT_use_location
        | DW_AT_vtable_elem_location
        | DW_AT_ranges => form == DW_FORM_sec_offset || version < 4,
        // Up to DWARF 3 a constant and an offset look alike; debuggers read a constant.
        DW_AT_start_scope
        | DW_AT_data_member_location
        | DW_AT_rnglists_base
        | DW_AT_loclists_base => form == DW_FORM_sec_offset,
        _ => false,
    }
}

/// The size of all values of a form, if they have one.
fn fixed_size(form: DwForm, encoding: Encoding) -> Option<usize> {
    let offset = usize::from(encoding.format.word_size());
    Some(match form {
        DW_FORM_flag_present | DW_FORM_implicit_const => 0,
        DW_FORM_data1 | DW_FORM_flag | DW_FORM_ref1 | DW_FORM_strx1 | DW_FORM_addrx1 => 1,
        DW_FORM_data2 | DW_FORM_ref2 | DW_FORM_strx2 | DW_FORM_addrx2 => 2,
        DW_FORM_strx3 | DW_FORM_addrx3 => 3,
        DW_FORM_data4 | DW_FORM_ref4 | DW_FORM_strx4 | DW_FORM_addrx4 => 4,
        DW_FORM_data8 | DW_FORM_ref8 | DW_FORM_ref_sig8 => 8,
        DW_FORM_data16 => 16,
        DW_FORM_strp | DW_FORM_line_strp | DW_FORM_sec_offset => offset,
        // DWARF 2 made it as large as an address.
        DW_FORM_ref_addr if encoding.version == 2 => encoding.address_size.into(),
        DW_FORM_ref_addr => offset,
        _ => return None,
    })
}

/// A table of abbreviations: for each code, how to go through an entry.
#[derive(Default)]
struct Table {
    /// Codes, ascending, and where their steps begin and end.
    codes: Vec<(u64, u32, u32)>,
    steps: Vec<Step>,
}

/// A part of an entry. Each consumes input or ends the walk: what takes no room has no step, or
/// entries of one byte could have a million attributes each.
#[derive(Clone, Copy)]
enum Step {
    /// So many bytes without an address.
    Skip(u32),
    Read(DwAt, DwForm),
    /// The rest of the unit is in another file.
    Split,
}

impl Table {
    /// Reads the table at the start of `input`, for units of this encoding.
    fn read(&mut self, mut input: Input<'_>, encoding: Encoding) -> Result<(), Why> {
        self.codes.clear();
        self.steps.clear();
        // Without an end, if the next one begins or the section ends: gimli and debuggers agree.
        while !input.is_empty() {
            let code = input.read_uleb128()?;
            if code == 0 {
                break;
            }
            input.skip_leb128()?; // the tag
            input.read_u8()?; // whether there are children
            let start = self.steps.len();
            loop {
                let name = DwAt(input.read_uleb128_u16()?);
                let form = DwForm(input.read_uleb128_u16()?);
                if (name.0, form.0) == (0, 0) {
                    break;
                }
                if form == DW_FORM_implicit_const {
                    input.skip_leb128()?;
                }
                self.push(start, name, form, encoding);
            }
            self.codes.push((code, start as u32, self.steps.len() as u32));
        }
        self.codes.sort_unstable();
        if let Some(pair) = self.codes.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(gimli::Error::DuplicateAbbreviationCode(pair[0].0).into());
        }
        Ok(())
    }

    /// Adds an attribute to the steps from `start` on.
    fn push(&mut self, start: usize, name: DwAt, form: DwForm, encoding: Encoding) {
        if matches!(name, DW_AT_dwo_name | DW_AT_GNU_dwo_name) {
            self.steps.push(Step::Split);
            return;
        }
        let size = fixed_size(form, encoding)
            .filter(|_| !refers_to_section(name, form, encoding.version))
            .and_then(|size| u32::try_from(size).ok());
        match (size, self.steps.get_mut(start..).and_then(<[Step]>::last_mut)) {
            (Some(0), _) => {}
            // A table has fewer attributes than 2^32 / 16: it would be larger than 4 GiB.
            (Some(size), Some(Step::Skip(bytes))) => *bytes = bytes.saturating_add(size),
            (Some(size), _) => self.steps.push(Step::Skip(size)),
            (None, _) => self.steps.push(Step::Read(name, form)),
        }
    }

    fn steps(&self, code: u64) -> Option<&[Step]> {
        // Compilers number them from 1.
        let guess =
            usize::try_from(code).ok().and_then(|code| self.codes.get(code.checked_sub(1)?));
        let &(_, start, end) = match guess {
            Some(found) if found.0 == code => found,
            _ => self.codes.get(self.codes.binary_search_by_key(&code, |entry| entry.0).ok()?)?,
        };
        self.steps.get(start as usize..end as usize)
    }
}

// Lists of ranges and locations.

impl<'a> Walk<'a> {
    /// Each list that entries refer to, once.
    fn lists(&mut self) -> Result<(), Why> {
        let mut lists = std::mem::take(&mut self.lists);
        lists.sort_unstable_by_key(|list| {
            let Encoding { version, format, .. } = list.encoding;
            (list.section, list.offset, version, format.word_size(), list.has_base)
        });
        lists.dedup();
        let mut read = PerSection([0usize; _]);
        for list in lists {
            let section = list.section;
            let offset = list.offset as usize;
            self.at = (section, offset);
            let mut input = self.sections[section];
            input.skip(offset)?;
            match section {
                Section::Ranges | Section::Loc => self.pairs(list, &mut input)?,
                _ => self.tagged(list, &mut input)?,
            }
            // Compilers' lists do not overlap. A thousand that end in the same million entries
            // would take forever.
            read[section] += self.place(section, input) - offset;
            if read[section] > self.sections[section].len().saturating_mul(4) {
                return Err(Why::Unknown("lists overlap"));
            }
        }
        Ok(())
    }

    /// A list of DWARF 2 to 4: pairs of addresses, relative to a base.
    fn pairs(&mut self, list: List, input: &mut Input<'a>) -> Result<(), Why> {
        let section = list.section;
        let mut has_base = list.has_base;
        loop {
            let mut entry = *input;
            let first = input.read_u64()?;
            if first == u64::MAX {
                self.base(section, input)?;
                has_base = true;
                continue;
            }
            let second = input.read_u64()?;
            if (first, second) == (0, 0) {
                return Ok(());
            }
            if !has_base {
                // Nothing that could move in their stead.
                self.address(section, &mut entry)?;
                self.address(section, &mut entry)?;
            }
            if section == Section::Loc {
                let len = input.read_u16()?;
                let expression = input.split(len.into())?;
                self.expression(section, expression, list.encoding)?;
            }
        }
    }

    /// A list of DWARF 5: entries that begin with their kind. Kinds up to 4 are the same for ranges
    /// and locations; then locations have one more.
    fn tagged(&mut self, list: List, input: &mut Input<'a>) -> Result<(), Why> {
        let section = list.section;
        let of_locations = section == Section::LocLists;
        loop {
            let kind = input.read_u8()?;
            let mut has_expression = of_locations;
            if of_locations {
                match DwLle(kind) {
                    DW_LLE_end_of_list => return Ok(()),
                    DW_LLE_base_addressx => {
                        input.skip_leb128()?;
                        has_expression = false;
                    }
                    DW_LLE_startx_endx | DW_LLE_startx_length | DW_LLE_offset_pair => {
                        input.skip_leb128()?;
                        input.skip_leb128()?;
                    }
                    DW_LLE_default_location => {}
                    DW_LLE_base_address => {
                        self.address(section, input)?;
                        has_expression = false;
                    }
                    DW_LLE_start_end => {
                        self.address(section, input)?;
                        self.address(section, input)?;
                    }
                    DW_LLE_start_length => {
                        self.address(section, input)?;
                        input.skip_leb128()?;
                    }
                    DW_LLE_GNU_view_pair => {
                        input.skip_leb128()?;
                        input.skip_leb128()?;
                        has_expression = false;
                    }
                    kind => return Err(gimli::Error::UnknownLocListsEntry(kind).into()),
                }
            } else {
                match DwRle(kind) {
                    DW_RLE_end_of_list => return Ok(()),
                    DW_RLE_base_addressx => input.skip_leb128()?,
                    DW_RLE_startx_endx | DW_RLE_startx_length | DW_RLE_offset_pair => {
                        input.skip_leb128()?;
                        input.skip_leb128()?;
                    }
                    DW_RLE_base_address => self.address(section, input)?,
                    DW_RLE_start_end => {
                        self.address(section, input)?;
                        self.address(section, input)?;
                    }
                    DW_RLE_start_length => {
                        self.address(section, input)?;
                        input.skip_leb128()?;
                    }
                    kind => return Err(gimli::Error::UnknownRangeListsEntry(kind).into()),
                }
            }
            if has_expression {
                let len = input.read_uleb128()?;
                let expression = split(input, len)?;
                self.expression(section, expression, list.encoding)?;
            }
        }
    }
}

// The sections that are one record after the other.

/// How many operands the standard opcodes have, as DWARF says.
const STANDARD_OPERANDS: [u8; 12] = [0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1];

impl<'a> Walk<'a> {
    /// Each record of a section, which begins with its length.
    fn records(
        &mut self,
        section: Section,
        read: fn(&mut Self, Input<'a>, Format) -> Result<(), Why>,
    ) -> Result<(), Why> {
        let mut rest = self.sections[section];
        while !rest.is_empty() {
            self.begin(section, rest);
            let (len, format) = rest.read_initial_length()?;
            read(self, rest.split(len)?, format)?;
        }
        Ok(())
    }

    /// Of `.debug_line` (DWARF 5, 6.2).
    fn line_program(&mut self, mut input: Input<'a>, format: Format) -> Result<(), Why> {
        let version = input.read_u16()?;
        match version {
            2..=4 => {}
            5 => read_address_size(&mut input)?,
            _ => return Err(gimli::Error::UnknownVersion(version.into()).into()),
        }
        let header_len = input.read_length(format)?;
        let mut header = input.split(header_len)?;
        let mut program = input;
        // Lengths of an instruction, and from version 4 on of a bundle; `default_is_stmt`,
        // `line_base`, `line_range`.
        header.skip(if version < 4 { 4 } else { 5 })?;
        let opcode_base = header.read_u8()?;
        let operands = header.split(opcode_base.saturating_sub(1).into())?.slice();
        if opcode_base == 0 || operands.iter().zip(STANDARD_OPERANDS).any(|(&a, b)| a != b) {
            return Err(Why::Unknown("standard opcodes with other operands"));
        }
        while !program.is_empty() {
            let opcode = program.read_u8()?;
            if opcode == 0 {
                let len = program.read_uleb128()?;
                let mut operation = split(&mut program, len)?;
                if DwLne(operation.read_u8()?) == DW_LNE_set_address {
                    if operation.len() != ADDRESS {
                        return Err(Why::Unknown("addresses are not of eight bytes"));
                    }
                    self.address(Section::Line, &mut operation)?;
                }
            } else if opcode >= opcode_base {
                // A special opcode: all in one byte.
            } else if DwLns(opcode) == DW_LNS_fixed_advance_pc {
                program.skip(2)?;
            } else {
                let operands = operands.get(usize::from(opcode) - 1);
                for _ in 0..operands.copied().unwrap_or_default() {
                    program.skip_leb128()?;
                }
            }
        }
        Ok(())
    }

    /// Of `.debug_aranges` (DWARF 5, 6.1.2): pairs of address and length, aligned to their size.
    fn aranges(&mut self, mut input: Input<'a>, format: Format) -> Result<(), Why> {
        let version = input.read_u16()?;
        if version != 2 {
            return Err(gimli::Error::UnknownVersion(version.into()).into());
        }
        input.read_offset(format)?;
        read_address_size(&mut input)?;
        let header = format.initial_length_size() + 2 + format.word_size() + 2;
        input.skip(usize::from(header.next_multiple_of(16) - header))?;
        // gdb counts from the end, others from the start.
        if !input.len().is_multiple_of(2 * ADDRESS) {
            return Err(Why::Unknown("the pairs are not aligned"));
        }
        while !input.is_empty() {
            self.address(Section::Aranges, &mut input)?;
            input.skip(ADDRESS)?;
        }
        Ok(())
    }

    /// A table of `.debug_addr` (DWARF 5, 7.27). Older tables have no header, and only split units.
    fn addr_table(&mut self, mut input: Input<'a>, _: Format) -> Result<(), Why> {
        let version = input.read_u16()?;
        if version != 5 {
            return Err(gimli::Error::UnknownVersion(version.into()).into());
        }
        read_address_size(&mut input)?;
        while !input.is_empty() {
            self.address(Section::Addr, &mut input)?;
        }
        Ok(())
    }

    /// Of `.debug_frame` (DWARF 5, 6.4.1).
    fn frame_entry(&mut self, mut input: Input<'a>, format: Format) -> Result<(), Why> {
        let section = Section::Frame;
        let (id, id_of_cie) = match format {
            Format::Dwarf32 => (input.read_u32()?.into(), u32::MAX.into()),
            Format::Dwarf64 => (input.read_u64()?, u64::MAX),
        };
        let mut version = 4;
        if id == id_of_cie {
            version = input.read_u8()?.into();
            // Other letters tell of more data, in FDEs too, and of pointers that may be relative.
            let augmentation = input.read_null_terminated_slice()?.slice();
            if augmentation.iter().any(|letter| !b"SB".contains(letter)) {
                return Err(Why::Unknown("an augmentation of a CIE"));
            }
            match version {
                1 | 3 => {}
                4 => read_address_size(&mut input)?,
                _ => return Err(gimli::Error::UnknownVersion(version.into()).into()),
            }
            input.skip_leb128()?;
            input.skip_leb128()?;
            match version {
                1 => input.skip(1)?,
                _ => input.skip_leb128()?,
            }
        } else {
            self.address(section, &mut input)?;
            input.skip(ADDRESS)?;
        }
        let encoding = Encoding { address_size: ADDRESS as u8, format, version };
        while !input.is_empty() {
            self.frame_instruction(&mut input, encoding)?;
        }
        Ok(())
    }

    fn frame_instruction(&mut self, input: &mut Input<'a>, encoding: Encoding) -> Result<(), Why> {
        let opcode = DwCfa(input.read_u8()?);
        // Three have an operand in the opcode.
        let (numbers, has_expression) = match DwCfa(opcode.0 & 0xc0) {
            DW_CFA_advance_loc | DW_CFA_restore => (0, false),
            DW_CFA_offset => (1, false),
            _ => match opcode {
                DW_CFA_set_loc => return self.address(Section::Frame, input),
                DW_CFA_advance_loc1 => return Ok(input.skip(1)?),
                DW_CFA_advance_loc2 => return Ok(input.skip(2)?),
                DW_CFA_advance_loc4 => return Ok(input.skip(4)?),
                DW_CFA_nop
                | DW_CFA_remember_state
                | DW_CFA_restore_state
                | DW_CFA_AARCH64_negate_ra_state => (0, false),
                DW_CFA_restore_extended
                | DW_CFA_undefined
                | DW_CFA_same_value
                | DW_CFA_def_cfa_register
                | DW_CFA_def_cfa_offset
                | DW_CFA_def_cfa_offset_sf
                | DW_CFA_GNU_args_size => (1, false),
                DW_CFA_offset_extended
                | DW_CFA_register
                | DW_CFA_def_cfa
                | DW_CFA_offset_extended_sf
                | DW_CFA_def_cfa_sf
                | DW_CFA_val_offset
                | DW_CFA_val_offset_sf
                | DW_CFA_GNU_negative_offset_extended => (2, false),
                DW_CFA_def_cfa_expression => (0, true),
                DW_CFA_expression | DW_CFA_val_expression => (1, true),
                _ => return Err(gimli::Error::UnknownCallFrameInstruction(opcode).into()),
            },
        };
        for _ in 0..numbers {
            input.skip_leb128()?;
        }
        if has_expression {
            let len = input.read_uleb128()?;
            let expression = split(input, len)?;
            self.expression(Section::Frame, expression, encoding)?;
        }
        Ok(())
    }
}

/// The sizes of an address and of a segment selector are next.
fn read_address_size(input: &mut Input<'_>) -> Result<(), Why> {
    let address = usize::from(input.read_u8()?);
    if address != ADDRESS || input.read_u8()? != 0 {
        return Err(Why::Unknown("addresses are not of eight bytes"));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
