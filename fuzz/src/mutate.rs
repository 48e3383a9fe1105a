//! Changes to ELF files that a validator does not throw out at the first byte: fields of the structures
//! that memdl reads get extreme or neighbouring values, and debug sections are changed as bytes, also
//! in length. Without it nearly all of libFuzzer's changes end at the header or in code that nobody reads.
//!
//! It never panics, whatever the file is: all reads and writes are by offset, and those outside of it are
//! nothing.

#![forbid(unsafe_code)]
#![allow(dead_code)]

use std::ops::Range;

/// libFuzzer's own mutation of the first `size` bytes of a slice, to at most `max`. Returns the new size.
pub type Flat<'f> = dyn FnMut(&mut [u8], usize, usize) -> usize + 'f;

/// Numbers that depend on the seed only: SplitMix64.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// Less than `most`; 0 if that is 0.
    fn below(&mut self, most: usize) -> usize {
        (self.word() % (most.max(1) as u64)) as usize
    }

    fn one_in(&mut self, most: usize) -> bool {
        self.below(most) == 0
    }

    fn pick<T: Clone>(&mut self, of: &[T]) -> Option<T> {
        of.get(self.below(of.len())).cloned()
    }
}

/// An ELF file that is being changed.
struct File<'r> {
    bytes: Vec<u8>,
    most: usize,
    random: &'r mut Random,
}

#[derive(Clone)]
struct Section {
    /// Where its header is.
    header: usize,
    name: String,
    contents: Range<usize>,
}

/// Changes the ELF file in the first `size` bytes of `data`.
pub fn elf(data: &mut [u8], size: usize, max_size: usize, seed: u32, flat: &mut Flat<'_>) -> usize {
    let mut random = Random::new(seed.into());
    let before = data.get(..size).unwrap_or_default().to_vec();
    let after = changed(before, max_size.min(data.len()), &mut random, flat);
    put_back(data, &after)
}

/// Changes one of the two files of `targets::pair`.
pub fn pair(
    data: &mut [u8],
    size: usize,
    max_size: usize,
    seed: u32,
    flat: &mut Flat<'_>,
) -> usize {
    let mut random = Random::new(seed.into());
    let most = max_size.min(data.len());
    let input = data.get(..size).unwrap_or_default();
    let Some((first, second)) = crate::targets::parts(input) else {
        return flat(data, size, max_size);
    };
    let (mut first, mut second) = (first.to_vec(), second.to_vec());
    if random.one_in(2) {
        let most = most.saturating_sub(second.len() + 4);
        first = changed(first, most, &mut random, flat);
    } else {
        let most = most.saturating_sub(first.len() + 4);
        second = changed(second, most, &mut random, flat);
    }
    let len = (first.len() as u32).to_le_bytes();
    put_back(data, &[&first[..], &second, &len].concat())
}

fn put_back(data: &mut [u8], file: &[u8]) -> usize {
    let len = file.len().min(data.len());
    data[..len].copy_from_slice(&file[..len]);
    len
}

fn changed(bytes: Vec<u8>, most: usize, random: &mut Random, flat: &mut Flat<'_>) -> Vec<u8> {
    if most > 0 && (bytes.len() < 64 || random.one_in(16)) {
        let mut room = bytes.clone();
        room.resize(most.max(bytes.len()), 0);
        let len = flat(&mut room, bytes.len(), most).min(room.len());
        room.truncate(len);
        return room;
    }
    let mut file = File { bytes, most, random };
    for _ in 0..1 + file.random.below(3) {
        file.change(flat);
    }
    // What the first check of all looks at, and is in no need of fuzzing.
    if !file.random.one_in(64) {
        let ident = *b"\x7fELF\x02\x01\x01";
        file.bytes.iter_mut().zip(ident).for_each(|(byte, right)| *byte = right);
        file.put(7, 1, 0);
    }
    file.bytes
}

const DYNAMIC_TAGS: [u64; 42] = [
    0,
    1,
    2,
    3,
    4,
    5,
    6,
    7,
    8,
    9,
    10,
    11,
    12,
    13,
    14,
    15,
    16,
    17,
    18,
    19,
    20,
    21,
    22,
    23,
    24,
    25,
    26,
    27,
    28,
    29,
    30,
    35,
    36,
    37,
    0x6fff_fef5,
    0x6fff_fff0,
    0x6fff_fff9,
    0x6fff_fffb,
    0x6fff_fffc,
    0x6fff_fffd,
    0x6fff_fffe,
    0x6fff_ffff,
];
/// Android's tables of relocations, and what asks for filters.
const MORE_TAGS: [u64; 8] = [
    0x6000_000f,
    0x6000_0010,
    0x6000_0011,
    0x6000_0012,
    0x6fff_e000,
    0x6fff_e001,
    0x7fff_fffd,
    0x7fff_ffff,
];

impl File<'_> {
    fn get(&self, at: usize, width: usize) -> u64 {
        let bytes = at.checked_add(width).and_then(|end| self.bytes.get(at..end));
        let mut word = [0; 8];
        word.iter_mut().zip(bytes.unwrap_or_default()).for_each(|(to, from)| *to = *from);
        u64::from_le_bytes(word)
    }

    fn put(&mut self, at: usize, width: usize, value: u64) {
        if let Some(place) = at.checked_add(width).and_then(|end| self.bytes.get_mut(at..end)) {
            place.iter_mut().zip(value.to_le_bytes()).for_each(|(to, from)| *to = from);
        }
    }

    fn segments(&self) -> Vec<usize> {
        let (start, count) = (self.get(32, 8) as usize, self.get(56, 2) as usize);
        let headers = (0..count.min(64)).filter_map(|index| start.checked_add(index * 56));
        headers.filter(|at| *at < self.bytes.len()).collect()
    }

    /// Where an address of the image is in the file.
    fn place(&self, address: u64) -> Option<usize> {
        self.segments().into_iter().filter(|at| self.get(*at, 4) == 1).find_map(|at| {
            let skip = address.checked_sub(self.get(at + 16, 8))?;
            let inside = skip < self.get(at + 32, 8);
            let place = self.get(at + 8, 8).checked_add(skip)? as usize;
            (inside && place < self.bytes.len()).then_some(place)
        })
    }

    /// Where the entries of the dynamic section are.
    fn dynamic(&self) -> Vec<usize> {
        let segments = self.segments();
        let Some(at) = segments.into_iter().find(|at| self.get(*at, 4) == 2) else {
            return Vec::new();
        };
        let (start, len) = (self.get(at + 8, 8) as usize, self.get(at + 32, 8) as usize);
        let entries = (0..(len / 16).min(256)).filter_map(|index| start.checked_add(index * 16));
        entries.filter(|at| *at < self.bytes.len()).collect()
    }

    fn tag(&self, tag: u64) -> Option<u64> {
        let at = self.dynamic().into_iter().find(|at| self.get(*at, 8) == tag)?;
        Some(self.get(at + 8, 8))
    }

    /// Where the table at the address in this entry is in the file, by the size in another.
    fn table(&self, start: u64, size: u64) -> Option<Range<usize>> {
        let place = self.place(self.tag(start)?)?;
        let end = place.checked_add(self.tag(size)? as usize)?.min(self.bytes.len());
        Some(place..end)
    }

    fn sections(&self) -> Vec<Section> {
        let (start, count) = (self.get(40, 8) as usize, self.get(60, 2) as usize);
        let all = (0..count.min(128)).map(|index| start.saturating_add(index * 64));
        let headers: Vec<usize> = all.filter(|at| *at < self.bytes.len()).collect();
        let contents = |at: usize| {
            let (start, len) = (self.get(at + 24, 8) as usize, self.get(at + 32, 8) as usize);
            let end = start.saturating_add(len).min(self.bytes.len());
            start.min(end)..end
        };
        let names = headers.get(self.get(62, 2) as usize).map_or(0..0, |at| contents(*at));
        let names = &self.bytes[names];
        let name = |at: usize| {
            let name = names.get(self.get(at, 4) as usize..).unwrap_or_default();
            let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
            String::from_utf8_lossy(name).into_owned()
        };
        headers
            .into_iter()
            .map(|at| Section { header: at, name: name(at), contents: contents(at) })
            .collect()
    }

    /// A value that may be wrong: an end, near the old one, or one that is right elsewhere.
    fn value(&mut self, old: u64) -> u64 {
        let len = self.bytes.len() as u64;
        let bit = 1 << self.random.below(64);
        match self.random.below(16) {
            0 => 0,
            1 => u64::MAX,
            2 => bit,
            3 => bit.wrapping_sub(1),
            4 => old ^ bit,
            5 => old.wrapping_add(1),
            6 => old.wrapping_sub(1),
            7 => old.wrapping_add(bit),
            8 => old.wrapping_sub(bit),
            9 => len.wrapping_add(self.random.below(17) as u64).wrapping_sub(8),
            10 => self.random.below(self.bytes.len()) as u64,
            11 => old.wrapping_add(0x1000),
            12 => (i64::MAX as u64).wrapping_add(self.random.below(3) as u64),
            13 => old.wrapping_mul(2),
            _ => {
                // An address, a size or an offset that something else has.
                let fields = [8, 16, 32, 40];
                let from_segments =
                    self.segments().into_iter().flat_map(|at| fields.map(|it| at + it));
                let from_dynamic = self.dynamic().into_iter().map(|at| at + 8);
                let places: Vec<usize> = from_segments.chain(from_dynamic).collect();
                let value = self.random.pick(&places).map_or(old, |at| self.get(at, 8));
                value
                    .wrapping_add(self.random.pick(&[0, 0, 0, 1, 8, 0x1000, u64::MAX]).unwrap_or(0))
            }
        }
    }

    /// Gives a field of these a wrong value: where it is in its entry, and how wide.
    fn spoil(&mut self, entry: usize, fields: &[(usize, usize)]) {
        if let Some((skip, width)) = self.random.pick(fields) {
            let at = entry.saturating_add(skip);
            let old = self.get(at, width);
            let new = self.value(old);
            self.put(at, width, new);
        }
    }

    /// An entry of a table, by the length of entries.
    fn entry(&mut self, table: Range<usize>, len: usize) -> usize {
        table.start + self.random.below(table.len() / len) * len
    }

    fn change(&mut self, flat: &mut Flat<'_>) {
        match self.random.below(32) {
            0 => {
                let fields =
                    [(16, 2), (32, 8), (40, 8), (54, 2), (56, 2), (58, 2), (60, 2), (62, 2)];
                self.spoil(0, &fields);
            }
            // What a target chooses by.
            1 | 2 => {
                let (at, to) = (24 + self.random.below(8), self.random.word());
                self.put(at, 1, to);
            }
            3..=6 => self.change_segment(),
            7..=10 => self.change_dynamic(),
            11..=13 => self.change_relocation(flat),
            14 | 15 => self.change_symbol(),
            16..=18 => self.change_table(),
            19 | 20 => {
                let sections = self.sections();
                if let Some(section) = self.random.pick(&sections) {
                    let fields = [
                        (0, 4),
                        (4, 4),
                        (8, 8),
                        (16, 8),
                        (24, 8),
                        (32, 8),
                        (40, 4),
                        (44, 4),
                        (48, 8),
                        (56, 8),
                    ];
                    self.spoil(section.header, &fields);
                }
            }
            _ => self.change_contents(flat),
        }
    }

    fn change_segment(&mut self) {
        let segments = self.segments();
        let Some(at) = self.random.pick(&segments) else { return };
        match self.random.below(10) {
            0 => {
                let kinds =
                    [0, 1, 2, 3, 4, 6, 7, 0x6474_e550, 0x6474_e551, 0x6474_e552, 0x6474_e553];
                let kind = self.random.pick(&kinds).unwrap_or(0);
                self.put(at, 4, kind);
            }
            1 => {
                let flags = self.random.below(8) as u64;
                self.put(at + 4, 4, flags);
            }
            // More memory, with what follows where it was.
            2 | 3 => {
                let more = self.random.pick(&[1, 8, 100, 0x1000, 0x10_0000]).unwrap_or(1);
                let size = self.get(at + 40, 8);
                self.put(at + 40, 8, size.wrapping_add(more));
            }
            // Less of the file, and as it was in memory.
            4 => {
                let size = self.get(at + 32, 8);
                let less = self.random.below(size as usize) as u64;
                self.put(at + 32, 8, less);
            }
            _ => self.spoil(at, &[(8, 8), (16, 8), (32, 8), (40, 8), (48, 8)]),
        }
    }

    fn change_dynamic(&mut self) {
        let entries = self.dynamic();
        let Some(at) = self.random.pick(&entries) else { return };
        match self.random.below(5) {
            0 => {
                let tags = if self.random.one_in(4) { &MORE_TAGS[..] } else { &DYNAMIC_TAGS };
                let tag = self.random.pick(tags).unwrap_or(0);
                self.put(at, 8, tag);
            }
            // Two in each other's place.
            1 => {
                let other = self.random.pick(&entries).unwrap_or(at);
                let (mine, theirs) = (self.get(at + 8, 8), self.get(other + 8, 8));
                self.put(at + 8, 8, theirs);
                self.put(other + 8, 8, mine);
            }
            _ => self.spoil(at, &[(8, 8)]),
        }
    }

    fn change_relocation(&mut self, flat: &mut Flat<'_>) {
        let tables = [(7, 8), (23, 2)].map(|(start, size)| self.table(start, size));
        let tables: Vec<_> = tables.into_iter().flatten().filter(|it| it.len() >= 24).collect();
        if self.random.one_in(8)
            && let Some(relr) = self.table(36, 35)
        {
            let at = self.entry(relr, 8);
            return self.spoil(at, &[(0, 8)]);
        }
        if self.random.one_in(4)
            && let Some(packed) = self.table(0x6000_0011, 0x6000_0012).filter(|it| !it.is_empty())
            && let Some(place) = self.bytes.get_mut(packed.clone())
        {
            flat(place, packed.len(), packed.len());
            return;
        }
        let Some(table) = self.random.pick(&tables) else { return };
        let at = self.entry(table.clone(), 24);
        match self.random.below(6) {
            0 | 1 => {
                let kind = self.random.below(44) as u64;
                self.put(at + 8, 4, kind);
            }
            2 => {
                let symbol = self.random.below(24) as u64;
                self.put(at + 12, 4, symbol);
            }
            3 => {
                let other = self.entry(table, 24);
                let offset = self.get(other, 8).wrapping_add(self.random.below(9) as u64);
                self.put(at, 8, offset);
            }
            _ => self.spoil(at, &[(0, 8), (8, 4), (12, 4), (16, 8)]),
        }
    }

    fn change_symbol(&mut self) {
        // The string table follows the symbols, mostly.
        let (Some(start), Some(strings)) = (self.tag(6), self.tag(5)) else { return };
        let Some(place) = self.place(start) else { return };
        let count = (strings.saturating_sub(start) / 24).clamp(1, 64) as usize;
        let at = place + self.random.below(count) * 24;
        match self.random.below(4) {
            0 => {
                let kinds = [0, 1, 2, 3, 6, 10];
                let bindings = [0, 1, 2, 10];
                let info = self.random.pick(&kinds).unwrap_or(0)
                    | self.random.pick(&bindings).unwrap_or(0) << 4;
                self.put(at + 4, 1, info);
            }
            1 => {
                let index = self.random.pick(&[0, 1, 0xfff1, 0xfff2, 0xffff]).unwrap_or(0);
                self.put(at + 6, 2, index);
            }
            _ => self.spoil(at, &[(0, 4), (4, 1), (5, 1), (6, 2), (8, 8), (16, 8)]),
        }
    }

    /// A word of a hash table, of versions, of strings, of functions or of thread-locals' values.
    fn change_table(&mut self) {
        let tags = [4, 0x6fff_fef5, 0x6fff_fef5, 0x6fff_fff0, 0x6fff_fffc, 0x6fff_fffe, 5, 25, 26];
        let Some(tag) = self.random.pick(&tags) else { return };
        let Some(place) = self.tag(tag).and_then(|at| self.place(at)) else { return };
        let width = match tag {
            5 => 1,
            25 | 26 => 8,
            0x6fff_fff0 => 2,
            _ => 4,
        };
        let within = if self.random.one_in(2) { 8 } else { 64 };
        let at = place + self.random.below(within) * width;
        self.spoil(at, &[(0, width), (0, 2)]);
    }

    /// Contents of a section that is read as records: in place, or longer or shorter.
    fn change_contents(&mut self, flat: &mut Flat<'_>) {
        let is_read = |section: &Section| {
            let name = &section.name;
            let parts = [".debug", ".zdebug", ".eh_frame", ".gnu", ".note", ".symtab", ".strtab"];
            let is_named = parts.iter().any(|part| name.starts_with(part));
            is_named && !section.contents.is_empty()
        };
        let mut sections = self.sections();
        sections.retain(is_read);
        let Some(Section { header, name, contents }) = self.random.pick(&sections) else {
            return self.change_dynamic();
        };
        let len = contents.len();
        // Another form of an attribute, or another attribute or tag.
        if name == ".debug_abbrev" && self.random.one_in(2) {
            let (at, to) = (contents.start + self.random.below(len), self.random.below(0x2e));
            return self.put(at, 1, to as u64);
        }
        match self.random.below(11) {
            // A LEB128 or a word with an extreme value.
            0 | 1 => {
                let at = contents.start + self.random.below(len);
                let width = self.random.pick(&[1, 1, 1, 2, 4, 8]).unwrap_or(1);
                self.spoil(at, &[(0, width)]);
            }
            2 => {
                let at = contents.start + self.random.below(len);
                let more = self.random.below(10);
                for skip in 0..more {
                    self.put(at + skip, 1, 0xff);
                }
            }
            // Bytes from elsewhere in these sections.
            3 => {
                let from = self.random.pick(&sections).map_or(0..0, |it| it.contents);
                let start = from.start + self.random.below(from.len());
                let count = (1 + self.random.below(32)).min(self.bytes.len() - start);
                let piece = self.bytes[start..start + count].to_vec();
                let at = contents.start + self.random.below(len);
                for (skip, byte) in piece.into_iter().enumerate() {
                    if at + skip < contents.end {
                        self.put(at + skip, 1, byte.into());
                    }
                }
            }
            4 => {
                let less = self.random.below(len) as u64;
                self.put(header + 32, 8, less);
            }
            5 => self.repeat(header, contents),
            // At the end of the file there is room for more.
            6 | 7 => {
                let room = self.most.saturating_sub(self.bytes.len()).min(4 * len + 256);
                if room > len {
                    let mut grown = self.bytes[contents].to_vec();
                    grown.resize(room, 0);
                    let len = flat(&mut grown, len, room).min(room);
                    self.replace(header, &grown[..len]);
                }
            }
            _ => {
                if let Some(place) = self.bytes.get_mut(contents) {
                    flat(place, len, len);
                }
            }
        }
    }

    /// Gives a section these contents, at the end of the file.
    fn replace(&mut self, header: usize, contents: &[u8]) {
        let place = self.bytes.len() as u64;
        self.bytes.extend_from_slice(contents);
        self.put(header + 24, 8, place);
        self.put(header + 32, 8, contents.len() as u64);
    }

    /// What takes a reader longer than it is long shows where there is much of it: the same unit, or the
    /// same piece of a section, many times.
    fn repeat(&mut self, header: usize, contents: Range<usize>) {
        let mut units = vec![contents.start];
        while let Some(&last) = units.last()
            && let Some(end) = last.checked_add(4 + self.get(last, 4) as usize)
            && end <= contents.end
            && units.len() < 64
        {
            units.push(end);
        }
        let [start, end] = if units.len() > 1 && self.random.one_in(2) {
            let unit = self.random.below(units.len() - 1);
            [units[unit], units[unit + 1]]
        } else {
            let start = contents.start + self.random.below(contents.len());
            [start, start + 1 + self.random.below(contents.end - start)]
        };
        let piece = self.bytes[start..end.min(contents.end)].to_vec();
        let mut all = self.bytes[contents.clone()].to_vec();
        let at = end.min(contents.end) - contents.start;
        let rest = all.split_off(at);
        let room = self.most.saturating_sub(self.bytes.len() + contents.len());
        let most = room / piece.len().max(1);
        let times = if self.random.one_in(2) { most } else { self.random.below(most + 1).min(100) };
        all.extend_from_slice(&piece.repeat(times));
        all.extend_from_slice(&rest);
        self.replace(header, &all);
    }
}
