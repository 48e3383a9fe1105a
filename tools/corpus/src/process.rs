//! Which libraries are in this process: those that `ld.so` lists, and those that memdl loaded, found in
//! memory by their ELF headers.

use std::ffi::{CStr, c_int, c_void};
use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::FileExt;

use goblin::elf::dynamic::{DT_SONAME, DT_STRTAB};
use goblin::elf::program_header::{PT_DYNAMIC, PT_LOAD, PT_TLS};

/// A library that `ld.so` knows.
pub struct Object {
    pub index: u32,
    pub path: String,
    pub load_bias: u64,
    pub segments: Vec<Range<u64>>,
    pub tls_module: u64,
    /// This thread's block.
    pub tls_block: Range<u64>,
}

pub fn objects() -> Vec<Object> {
    unsafe extern "C" fn add(info: *mut libc::dl_phdr_info, _: usize, list: *mut c_void) -> c_int {
        // SAFETY: a valid record of `dl_iterate_phdr`'s, and the vector below.
        let (info, list) = unsafe { (&*info, &mut *list.cast::<Vec<Object>>()) };
        // SAFETY: as above.
        let (path, headers) = unsafe {
            let headers = std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into());
            (CStr::from_ptr(info.dlpi_name).to_string_lossy().into_owned(), headers)
        };
        let block = info.dlpi_tls_data as u64;
        let tls = headers.iter().find(|header| header.p_type == PT_TLS && block != 0);
        list.push(Object {
            index: list.len() as u32,
            path,
            load_bias: info.dlpi_addr,
            segments: headers
                .iter()
                .filter(|header| header.p_type == PT_LOAD)
                .map(|header| {
                    let start = info.dlpi_addr + header.p_vaddr;
                    start..start + header.p_memsz
                })
                .collect(),
            tls_module: info.dlpi_tls_modid as u64,
            tls_block: tls.map_or(0..0, |header| block..block + header.p_memsz),
        });
        0
    }
    let mut list: Vec<Object> = Vec::new();
    // SAFETY: the callback has the wanted signature and does not unwind.
    unsafe { libc::dl_iterate_phdr(Some(add), (&raw mut list).cast()) };
    list
}

/// All that is mapped, and whether it is readable and of no file.
pub fn mappings() -> Vec<(Range<u64>, bool)> {
    let text = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let mapping = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let range = u64::from_str_radix(start, 16).ok()?..u64::from_str_radix(end, 16).ok()?;
        let is_readable = fields.next()?.starts_with('r');
        let file = fields.nth(3);
        let is_anonymous = file.is_none_or(|file| file.starts_with("[anon"));
        Some((range, is_readable && is_anonymous))
    };
    text.lines().filter_map(mapping).collect()
}

/// What a library that memdl loaded is called here, before its `DT_SONAME`.
pub const MEMBER: &str = "memdl:";

/// The libraries that memdl loaded itself, but for the one that starts at `own`.
pub fn members(own: u64, first_index: u32) -> Vec<Object> {
    let Ok(memory) = File::open("/proc/self/mem") else { return Vec::new() };
    let starts =
        mappings().into_iter().filter(|(range, is_candidate)| *is_candidate && range.start != own);
    let found = starts.filter_map(|(range, _)| member(&memory, range.start));
    let number = |(index, object)| Object { index: first_index + index as u32, ..object };
    found.enumerate().map(number).collect()
}

/// The library whose ELF header is at `start`.
fn member(memory: &File, start: u64) -> Option<Object> {
    let read = |at: u64, len: usize| {
        let mut bytes = vec![0; len];
        memory.read_exact_at(&mut bytes, at).ok().map(|()| bytes)
    };
    let word = |bytes: &[u8], at: usize| {
        bytes.get(at..at + 8).and_then(|word| word.try_into().ok()).map(u64::from_le_bytes)
    };
    let header = read(start, 64).filter(|header| header.starts_with(b"\x7fELF"))?;
    let count = usize::from(u16::from_le_bytes([header[56], header[57]]));
    let table = read(start.checked_add(word(&header, 32)?)?, count * 56)?;
    let headers = || table.chunks_exact(56);
    let of_kind = |header: &&[u8], kind: u32| header.starts_with(&kind.to_le_bytes());
    let spans = headers().filter(|header| of_kind(header, PT_LOAD)).filter_map(|header| {
        let from = word(header, 16)?;
        Some(from..from.checked_add(word(header, 40)?)?)
    });
    let spans: Vec<Range<u64>> = spans.collect();
    let load_bias = start.wrapping_sub(spans.first()?.start & !0xfff);
    let dynamic = headers().find(|header| of_kind(header, PT_DYNAMIC))?;
    let dynamic = read(load_bias.wrapping_add(word(dynamic, 16)?), word(dynamic, 40)? as usize)?;
    let value = |tag| {
        let mut entries = dynamic.chunks_exact(16);
        entries.find(|entry| word(entry, 0) == Some(tag)).and_then(|entry| word(entry, 8))
    };
    // The entry may or may not be relocated.
    let strings = value(DT_STRTAB)?;
    let strings = if strings < load_bias { strings.wrapping_add(load_bias) } else { strings };
    let soname = (0..256).map_while(|index| {
        let byte = read(strings.wrapping_add(value(DT_SONAME)? + index), 1)?[0];
        (byte != 0).then_some(byte)
    });
    let soname: Vec<u8> = soname.collect();
    Some(Object {
        index: 0,
        path: format!("{MEMBER}{}", String::from_utf8_lossy(&soname)),
        load_bias,
        segments: spans
            .iter()
            .map(|span| load_bias.wrapping_add(span.start)..load_bias.wrapping_add(span.end))
            .collect(),
        tls_module: 0,
        tls_block: 0..0,
    })
}
