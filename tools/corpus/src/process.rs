//! Which libraries are in this process: those that `ld.so` lists, and those that memdl loaded, which it
//! names by their addresses.

use std::ffi::{CStr, c_int, c_void};
use std::fs;
use std::ops::Range;

use goblin::elf::program_header::{PT_LOAD, PT_TLS};
use goblin::elf::{Elf, ProgramHeader};

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

/// What a library that memdl loaded is called here, before the path of its file.
pub const MEMBER: &str = "memdl:";

/// The libraries that memdl loaded itself from their files, but for the one that is called `own`.
pub fn members(own: &str, first_index: u32) -> Vec<Object> {
    let mut names = vec![own.to_owned()];
    let mut found: Vec<Object> = Vec::new();
    // Ascending: the first address of each image comes first.
    for (range, is_candidate) in mappings() {
        let frames = memdl::symbolize(range.start as usize);
        let Some(name) = frames.first().map(|frame| frame.image().to_owned()) else { continue };
        if !is_candidate || names.contains(&name) {
            continue;
        }
        let index = first_index + found.len() as u32;
        found.extend(member(&name, range.start, index));
        names.push(name);
    }
    found
}

/// The library from this file that starts at `start`.
fn member(path: &str, start: u64, index: u32) -> Option<Object> {
    let bytes = fs::read(path).ok()?;
    let elf = Elf::parse(&bytes).ok()?;
    let segments = || elf.program_headers.iter().filter(|header| header.p_type == PT_LOAD);
    let load_bias = start.wrapping_sub(segments().next()?.p_vaddr & !0xfff);
    let segment = |header: &ProgramHeader| {
        let from = load_bias.wrapping_add(header.p_vaddr);
        from..from.wrapping_add(header.p_memsz)
    };
    Some(Object {
        index,
        path: format!("{MEMBER}{path}"),
        load_bias,
        segments: segments().map(segment).collect(),
        tls_module: 0,
        tls_block: 0..0,
    })
}
