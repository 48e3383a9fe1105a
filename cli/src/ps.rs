//! `memdl ps`: the images of processes and cores.
//!
//! memdl leaves a note in the object that it is linked into. It leads to a table of all images, whatever debuggers see
//! of them (`src/unwind/directory.rs`). What debuggers see is in their own list, which has a symbol
//! (`__jit_debug_descriptor`); without that symbol they see nothing, and neither does this.
//!
//! The memory is another program's, and may change while it is read: nothing in it is trusted, and each loop has a bound.

#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use goblin::elf::header::ET_EXEC;
use goblin::elf::program_header::{PT_LOAD, PT_NOTE};
use goblin::elf64::header::{Header, SIZEOF_EHDR};
use goblin::elf64::program_header::{ProgramHeader, SIZEOF_PHDR};
use goblin::elf64::section_header::{SHF_ALLOC, SIZEOF_SHDR, SectionHeader};
use serde_json::{Value, json};

use crate::arguments::PsOptions;
use crate::failure::{DIM, ERROR, Failure, REFUSED, TITLE};
use crate::json::hex;
use crate::target::{Mapped, Notes, Target, structures, u32_at, u64_at};

/// The most images of a process, and entries of debuggers' list, that are shown.
const MOST_IMAGES: u64 = 1 << 20;
/// The longest name that is read.
const MOST_NAME: usize = 4096;
/// The longest notes, section headers and names of sections.
const MOST_HEADERS: u64 = 16 << 20;
/// The most segments of notes that are read of an object. Linkers make three at most.
const MOST_NOTES: usize = 16;
/// `NT_GNU_BUILD_ID`.
const NT_GNU_BUILD_ID: u32 = 3;
const SYMBOLS: [&str; 2] = ["__jit_debug_descriptor", "__jit_debug_register_code"];

/// An object that memdl is linked into.
struct Object {
    mapped: Mapped,
    bias: u64,
    /// The addresses of the directories: one for each copy of memdl.
    directories: Vec<u64>,
}

/// What is listed of one object.
struct Listing {
    object: PathBuf,
    images: Vec<Image>,
    /// Debuggers find no image: the object was stripped.
    is_blind: bool,
    /// The table changed all the time while it was read.
    is_restless: bool,
}

struct Image {
    addresses: Range<u64>,
    name: String,
    build_id: Option<Vec<u8>>,
    /// `None` if it is not known.
    debug: Option<&'static str>,
}

pub fn ps(options: &PsOptions) -> Result<ExitCode, Failure> {
    let Some(target) = &options.target else { return all(options.json) };
    let target = match target.parse() {
        Ok(pid) => Target::process(pid)?,
        Err(_) => Target::core(Path::new(target))?,
    };
    let listings = listings(&target, &mut HashMap::new());
    if listings.is_empty() {
        return Err(Failure::refused(format!("memdl is not in {}", title(&target))));
    }
    print(&[(target, listings)], options.json);
    Ok(ExitCode::SUCCESS)
}

/// All processes that may be read.
fn all(is_json: bool) -> Result<ExitCode, Failure> {
    let (mut found, mut unreadable) = (Vec::new(), 0);
    let mut known = HashMap::new();
    let mut pids: Vec<u32> = fs::read_dir("/proc")
        .map_err(|error| Failure::unreadable(Path::new("/proc"), &error))?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|&pid| pid != std::process::id())
        .collect();
    pids.sort_unstable();
    for pid in pids {
        match Target::process(pid) {
            Ok(target) => {
                let listings = listings(&target, &mut known);
                if !listings.is_empty() {
                    found.push((target, listings));
                }
            }
            // One that has ended meanwhile is none.
            Err(_) => unreadable += usize::from(Path::new(&format!("/proc/{pid}")).exists()),
        }
    }
    let is_any = !found.is_empty();
    print(&found, is_json);
    if unreadable > 0 && !is_json {
        anstream::eprintln!(
            "{DIM}{unreadable} processes may not be looked into: be their user or root{DIM:#}"
        );
    }
    if !is_any && !is_json {
        println!("no process has memdl in it");
    }
    Ok(ExitCode::from(if is_any { 0 } else { REFUSED }))
}

/// What memdl has in this target. `known` says of files, by path, whether memdl is in them.
fn listings(target: &Target, known: &mut HashMap<PathBuf, bool>) -> Vec<Listing> {
    let mut listings = Vec::new();
    for mapped in target.mapped.iter().filter(|mapped| mapped.offset == 0) {
        // Files of the same path are the same for all processes, nearly always: a file that was replaced has `(deleted)`.
        if known.get(&mapped.path) == Some(&false) {
            continue;
        }
        let object = object(target, mapped);
        if object.is_some() || target.pid.is_some() {
            known.insert(mapped.path.clone(), object.is_some());
        }
        if let Some(object) = object {
            listings.push(listing(target, &object));
        }
    }
    listings
}

/// The object that is mapped there, if memdl is linked into it.
fn object(target: &Target, mapped: &Mapped) -> Option<Object> {
    let start = mapped.addresses.start;
    let (header, headers) = headers(target, start)?;
    let first = headers.iter().find(|it| it.p_type == PT_LOAD)?;
    let bias = match header.e_type {
        ET_EXEC => 0,
        _ => start.wrapping_sub(first.p_vaddr & !0xfff),
    };
    let mut directories = Vec::new();
    for notes in note_segments(&headers) {
        let address = bias.wrapping_add(notes.p_vaddr);
        let Some(bytes) = target.read(address, notes.p_memsz as usize) else { continue };
        for note in Notes::new(&bytes) {
            if note.owner == b"memdl" && note.kind == 1 && directories.len() < 16 {
                let distance = u64_at(note.description, 0)?;
                directories.push(address.wrapping_add(note.at as u64).wrapping_add(distance));
            }
        }
    }
    let object = Object { mapped: mapped.clone(), bias, directories };
    (!object.directories.is_empty()).then_some(object)
}

/// The ELF header and the program headers at this address.
fn headers(target: &Target, start: u64) -> Option<(Header, Vec<ProgramHeader>)> {
    let header = target.read(start, SIZEOF_EHDR)?;
    let header: Header = structures(&header, SIZEOF_EHDR).next()?;
    let is_elf = header.e_ident[..6] == *b"\x7fELF\x02\x01";
    if !is_elf || usize::from(header.e_phentsize) != SIZEOF_PHDR {
        return None;
    }
    let count = usize::from(header.e_phnum);
    let bytes = target.read(start.checked_add(header.e_phoff)?, count.checked_mul(SIZEOF_PHDR)?)?;
    let headers = structures(&bytes, SIZEOF_PHDR).collect();
    Some((header, headers))
}

fn listing(target: &Target, object: &Object) -> Listing {
    let pair = pair(target, object);
    let shown = pair.map(|descriptor| shown(target, descriptor)).unwrap_or_default();
    let (mut images, mut is_restless) = (Vec::new(), false);
    for &directory in &object.directories {
        match entries(target, directory) {
            Some(mut found) => images.append(&mut found),
            None => is_restless = true,
        }
    }
    for image in &mut images {
        let is_it = |(start, _): &&(u64, &'static str)| image.addresses.contains(start);
        let of_debuggers = shown.iter().find(is_it).map(|(_, level)| *level);
        image.debug = pair.map(|_| of_debuggers.unwrap_or("off"));
    }
    let is_blind = pair.is_none();
    Listing { object: object.mapped.path.clone(), images, is_blind, is_restless }
}

/// The images in a directory. `None` if it changes all the time.
fn entries(target: &Target, directory: u64) -> Option<Vec<Image>> {
    // A process runs while it is read. A core does not change.
    let tries = if target.pid.is_some() { 100 } else { 1 };
    (0..tries).find_map(|_| {
        let head = target.read(directory, 40)?;
        let images = of_directory(target, &head);
        let is_same = target.read(directory, 40)?.get(8..) == head.get(8..);
        let is_changing = u64_at(&head, 8)? % 2 == 1 && target.pid.is_some();
        images.filter(|_| is_same && !is_changing)
    })
}

fn of_directory(target: &Target, head: &[u8]) -> Option<Vec<Image>> {
    let (version, size) = (u32_at(head, 0)?, u64::from(u32_at(head, 4)?));
    let (at, count, part_size) = (u64_at(head, 16)?, u64_at(head, 24)?, u64_at(head, 32)?);
    if version != 2 || size < 64 || part_size < 16 || count > MOST_IMAGES {
        return None;
    }
    let parts = read_many(target, at, count, part_size)?;
    let mut images = Vec::new();
    for part in parts.chunks_exact(usize::try_from(part_size).ok()?) {
        let (at, count) = (u64_at(part, 0)?, u64_at(part, 8)?);
        if count > MOST_IMAGES.saturating_sub(images.len() as u64) {
            return None;
        }
        images.append(&mut of_part(target, &read_many(target, at, count, size)?, size)?);
    }
    Some(images)
}

/// So many structures of this size.
fn read_many(target: &Target, at: u64, count: u64, size: u64) -> Option<Vec<u8>> {
    match count {
        0 => Some(Vec::new()),
        count => target.read(at, usize::try_from(count.checked_mul(size)?).ok()?),
    }
}

/// The images of these entries.
fn of_part(target: &Target, bytes: &[u8], size: u64) -> Option<Vec<Image>> {
    let images = bytes.chunks_exact(size as usize).map(|entry| {
        let addresses = u64_at(entry, 0)?..u64_at(entry, 8)?;
        let (name, bias) = (u64_at(entry, 32)?, u64_at(entry, 40)?);
        let (headers, count) = (u64_at(entry, 48)?, u32_at(entry, 56)? & 0xffff);
        let headers = target.read(headers, (count as usize).checked_mul(SIZEOF_PHDR)?);
        let headers = headers.unwrap_or_default();
        let headers: Vec<ProgramHeader> = structures(&headers, SIZEOF_PHDR).collect();
        let build_id = build_id(target, bias, &headers);
        Some(Image { addresses, name: text(target, name), build_id, debug: None })
    });
    images.collect()
}

/// A C string.
fn text(target: &Target, mut address: u64) -> String {
    let mut bytes = Vec::new();
    while bytes.len() < MOST_NAME {
        // Up to the end of the page: the next may not be there.
        let len = 0x100 - (address & 0xff);
        let Some(read) = target.read(address, len as usize) else { break };
        match read.iter().position(|&byte| byte == 0) {
            Some(end) => {
                bytes.extend_from_slice(&read[..end]);
                break;
            }
            None => bytes.extend(read),
        }
        address = address.wrapping_add(len);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The segments of notes.
fn note_segments(headers: &[ProgramHeader]) -> impl Iterator<Item = &ProgramHeader> {
    let notes = headers.iter().filter(|it| it.p_type == PT_NOTE && it.p_memsz <= MOST_HEADERS);
    notes.take(MOST_NOTES)
}

fn build_id(target: &Target, bias: u64, headers: &[ProgramHeader]) -> Option<Vec<u8>> {
    note_segments(headers).find_map(|it| {
        let notes = target.read(bias.wrapping_add(it.p_vaddr), it.p_memsz as usize)?;
        let mut notes = Notes::new(&notes);
        let id = notes.find(|it| it.owner == b"GNU" && it.kind == NT_GNU_BUILD_ID)?;
        Some(id.description.to_vec())
    })
}

/// The address of debuggers' list, if the object's file has both symbols, or a file of its debug information is
/// installed, which has them.
fn pair(target: &Target, object: &Object) -> Option<u64> {
    let file = target.open(&object.mapped)?;
    let of_file = |file: &[u8]| {
        let elf = goblin::elf::Elf::parse(file).ok()?;
        let find = |wanted: &str| {
            let of = |table: &goblin::elf::Symtab<'_>, names: &goblin::strtab::Strtab<'_>| {
                let is_it = |it: &goblin::elf::Sym| {
                    it.st_shndx != 0 && names.get_at(it.st_name) == Some(wanted)
                };
                table.iter().find(is_it).map(|it| it.st_value)
            };
            of(&elf.syms, &elf.strtab).or_else(|| of(&elf.dynsyms, &elf.dynstrtab))
        };
        let [descriptor, _] = [find(SYMBOLS[0])?, find(SYMBOLS[1])?];
        Some(descriptor)
    };
    let separate = || {
        let (_, headers) = headers(target, object.mapped.addresses.start)?;
        let id = hex(&build_id(target, object.bias, &headers)?);
        let (folder, rest) = id.split_at_checked(2)?;
        of_file(&fs::read(format!("/usr/lib/debug/.build-id/{folder}/{rest}.debug")).ok()?)
    };
    of_file(&file).or_else(separate).map(|value| object.bias.wrapping_add(value))
}

/// The entries of debuggers' list: the address of each one's first section, and what it shows.
fn shown(target: &Target, descriptor: u64) -> Vec<(u64, &'static str)> {
    let mut shown = Vec::new();
    let first = target.read(descriptor, 24).and_then(|it| u64_at(&it, 16));
    let mut next = first.unwrap_or_default();
    for _ in 0..MOST_IMAGES {
        if next == 0 {
            break;
        }
        let Some(entry) = target.read(next, 32) else { break };
        let word = |at| u64_at(&entry, at).unwrap_or_default();
        shown.extend(of_symfile(target, word(16)));
        next = word(0);
    }
    shown
}

fn of_symfile(target: &Target, start: u64) -> Option<(u64, &'static str)> {
    let header = target.read(start, SIZEOF_EHDR)?;
    let header: Header = structures(&header, SIZEOF_EHDR).next()?;
    let count = usize::from(header.e_shnum);
    let table = target.read(start.checked_add(header.e_shoff)?, count.checked_mul(SIZEOF_SHDR)?)?;
    let sections: Vec<SectionHeader> = structures(&table, SIZEOF_SHDR).collect();
    let names = sections.get(usize::from(header.e_shstrndx))?;
    if names.sh_size > MOST_HEADERS {
        return None;
    }
    let names = target.read(start.checked_add(names.sh_offset)?, names.sh_size as usize)?;
    let has = |name: &[u8]| {
        sections.iter().any(|section| {
            names.get(section.sh_name as usize..).is_some_and(|it| it.starts_with(name))
        })
    };
    let level = match (has(b".gnu_debugdata\0"), has(b".debug_info\0")) {
        (true, _) => "full",
        (_, true) => "portable",
        _ => "symbols",
    };
    let first = sections.iter().find(|it| it.sh_flags & u64::from(SHF_ALLOC) != 0)?;
    Some((first.sh_addr, level))
}

fn title(target: &Target) -> String {
    let name = target.name.escape_debug();
    target.pid.map_or_else(|| name.to_string(), |pid| format!("{pid} {name}"))
}

fn print(found: &[(Target, Vec<Listing>)], is_json: bool) {
    if is_json {
        let values: Vec<Value> =
            found.iter().map(|(target, listings)| value(target, listings)).collect();
        println!("{:#}", json!({ "processes": values }));
        return;
    }
    for (target, listings) in found {
        for listing in listings {
            let (title, object) = (title(target), listing.object.display());
            anstream::println!("{TITLE}{title}{TITLE:#} {DIM}memdl in {object}{DIM:#}");
            for Image { addresses: Range { start, end }, name, build_id, debug } in &listing.images
            {
                let id = build_id.as_deref().map_or_else(|| "-".into(), hex);
                let (debug, name) = (debug.unwrap_or("unseen"), name.escape_debug());
                println!("  {start:#x}-{end:#x}  {debug:<8}  {id:<40}  {name}");
            }
            if listing.images.is_empty() && !listing.is_restless {
                println!("  no images");
            }
            if listing.is_restless {
                anstream::println!(
                    "  {ERROR}the list changes while it is read: try again{ERROR:#}"
                );
            }
            if listing.is_blind {
                anstream::println!(
                    "  {ERROR}debuggers see no image:{ERROR:#} {object} was stripped of {}; strip it with \
                     `-K {} -K {}`, or with `-g` only",
                    SYMBOLS.join(" and "),
                    SYMBOLS[0],
                    SYMBOLS[1]
                );
            }
        }
    }
}

fn value(target: &Target, listings: &[Listing]) -> Value {
    let objects = listings.iter().map(|listing| {
        let images = listing.images.iter().map(|image| {
            json!({
                "name": image.name,
                "start": image.addresses.start,
                "end": image.addresses.end,
                "build_id": image.build_id.as_deref().map(hex),
                "debug": image.debug,
            })
        });
        json!({
            "path": listing.object.to_string_lossy(),
            "stripped": listing.is_blind,
            "changing": listing.is_restless,
            "images": images.collect::<Value>(),
        })
    });
    json!({ "pid": target.pid, "name": target.name, "objects": objects.collect::<Value>() })
}
