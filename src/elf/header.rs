//! The ELF header: whether a file is a shared library, and for which machine.
//!
//! It checks the fields that `ld.so` checks, and refuses what `ld.so` refuses, but for files of another machine that can be
//! read here: to load such a file is refused where a load begins (`load/admission.rs`). It says nothing about
//! the rest of the file. Section header fields are not read: a loader does not need them.
//!
//! Sources: gABI "ELF Header"; glibc `elf/dl-load.c`, `open_verify`.

#![forbid(unsafe_code)]

use goblin::elf64::header::{
    EI_ABIVERSION, EI_CLASS, EI_DATA, EI_OSABI, EI_VERSION, ELFCLASS64, ELFDATA2LSB, ELFMAG,
    ELFOSABI_GNU, ELFOSABI_NONE, ET_DYN, ET_EXEC, ET_REL, EV_CURRENT, SIZEOF_EHDR, SIZEOF_IDENT,
};
use goblin::elf64::program_header::SIZEOF_PHDR;

use crate::arch::{self, MACHINE, Machine};
use crate::base::error::{Error, Place};
use crate::base::faults::Faults;
use crate::elf::foreign;
use crate::elf::read::{u16_at, u32_at};

/// The largest `EI_ABIVERSION` of a GNU image that glibc accepts.
const MAX_ABIVERSION: u8 = 3;
/// Where the padding of `e_ident` begins.
const EI_PAD: usize = 9;

fn malformed<T>(what: String) -> Result<T, Error> {
    Err(Error::malformed(what, Place::Header))
}

/// `e_machine`, if `bytes` are long enough.
#[inline]
pub(crate) fn e_machine(bytes: &[u8]) -> Option<u16> {
    u16_at(bytes, 18)
}

/// The machine that `bytes` are for, if they begin with an ELF header of its word size and byte order. Nothing else is
/// checked.
pub(crate) fn machine(bytes: &[u8]) -> Option<&'static Machine> {
    let has_header = bytes.len() >= SIZEOF_EHDR && bytes.starts_with(ELFMAG);
    let ident = |index: usize| bytes.get(index).copied();
    let is_readable = ident(EI_CLASS) == Some(ELFCLASS64) && ident(EI_DATA) == Some(ELFDATA2LSB);
    arch::machine(e_machine(bytes).filter(|_| has_header && is_readable)?)
}

/// The error for an image whose `e_machine` this is, in a process of another machine.
pub(crate) fn other_machine(e_machine: u16) -> Error {
    Error::unsupported(of_other_machine(e_machine))
}

/// Whether it is [`other_machine`].
pub(crate) fn is_other_machine(error: &Error, e_machine: u16) -> bool {
    matches!(error, Error::Unsupported { what, .. } if *what == of_other_machine(e_machine))
}

/// What is wrong with an image whose `e_machine` this is, in a process of another machine.
pub(crate) fn of_other_machine(e_machine: u16) -> String {
    let process = MACHINE.name;
    match arch::machine_name(e_machine) {
        Some(name) => format!("an image for {name}; this process is {process}"),
        None => format!(
            "an image for another machine: e_machine is {e_machine}; this process is {process}"
        ),
    }
}

/// Checks that `bytes` start with the ELF header of a shared library, and returns its machine. Notes what does not keep
/// the rest from being read.
pub(super) fn check(bytes: &[u8], faults: &mut Faults) -> Result<&'static Machine, Error> {
    if bytes.is_empty() {
        return malformed("no bytes at all".into());
    }
    if !bytes.starts_with(ELFMAG) {
        if let Some(format) = foreign::format_of(bytes) {
            return malformed(format!("not an ELF file, but {format}"));
        }
        let start: Vec<u8> = bytes.iter().take(4).copied().collect();
        return malformed(format!("not an ELF file: it starts with {start:02x?}, not 7f 45 4c 46"));
    }
    if bytes.len() < SIZEOF_EHDR {
        return malformed(format!(
            "truncated: {} bytes, the ELF header alone has {SIZEOF_EHDR}",
            bytes.len()
        ));
    }
    check_ident(bytes, faults)?;
    let half = |offset| u16_at(bytes, offset).unwrap_or(0);
    let machine = match arch::machine(half(18)) {
        Some(machine) => machine,
        None => {
            faults.note(other_machine(half(18)))?;
            &arch::UNKNOWN
        }
    };
    match half(16) {
        ET_DYN => {}
        ET_EXEC => {
            faults.note(Error::unsupported("an executable (ET_EXEC), not a shared library"))?;
        }
        ET_REL => {
            return Err(Error::unsupported("an object file (ET_REL): link it with -shared"));
        }
        other => return malformed(format!("e_type is {other}, not ET_DYN (3)")),
    }
    if usize::from(half(54)) != SIZEOF_PHDR {
        return malformed(format!("e_phentsize is {}, not {SIZEOF_PHDR}", half(54)));
    }
    Ok(machine)
}

/// Checks `e_ident`, and `e_version`, which repeats one of its fields.
fn check_ident(bytes: &[u8], faults: &mut Faults) -> Result<(), Error> {
    let ident = |index: usize| bytes.get(index).copied().unwrap_or(0);
    match ident(EI_CLASS) {
        ELFCLASS64 => {}
        1 => return Err(Error::unsupported("a 32-bit image (ELFCLASS32)")),
        class => return malformed(format!("EI_CLASS is {class}")),
    }
    match ident(EI_DATA) {
        ELFDATA2LSB => {}
        2 => return Err(Error::unsupported("a big-endian image (ELFDATA2MSB)")),
        data => return malformed(format!("EI_DATA is {data}")),
    }
    let e_version = u32_at(bytes, 20).unwrap_or(0);
    for version in [u32::from(ident(EI_VERSION)), e_version] {
        if version != u32::from(EV_CURRENT) {
            return malformed(format!("ELF version {version} is not {EV_CURRENT}"));
        }
    }
    // `ld.so` accepts these.
    match (ident(EI_OSABI), ident(EI_ABIVERSION)) {
        (ELFOSABI_NONE, 0) | (ELFOSABI_GNU, 0..=MAX_ABIVERSION) => {}
        (ELFOSABI_NONE | ELFOSABI_GNU, version) => {
            let what = format!("ELF file ABI version {version} invalid");
            faults.note(Error::unsupported(what))?;
        }
        (system, _) => {
            let what = format!("an image for another system (EI_OSABI {system})");
            faults.note(Error::unsupported(what))?;
        }
    }
    if bytes.get(EI_PAD..SIZEOF_IDENT).is_none_or(|padding| padding.iter().any(|&byte| byte != 0)) {
        faults.note(Error::malformed("nonzero padding in e_ident", Place::Header))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The ELF header of a shared library.
    fn header() -> Vec<u8> {
        let mut bytes = vec![0; SIZEOF_EHDR];
        bytes[..4].copy_from_slice(ELFMAG);
        bytes[EI_CLASS..=EI_VERSION].copy_from_slice(&[ELFCLASS64, ELFDATA2LSB, EV_CURRENT]);
        bytes[16..18].copy_from_slice(&ET_DYN.to_le_bytes());
        bytes[18..20].copy_from_slice(&MACHINE.e_machine.to_le_bytes());
        bytes[20] = EV_CURRENT;
        bytes[54] = SIZEOF_PHDR as u8;
        bytes
    }

    #[test]
    fn the_header_of_a_shared_library_is_accepted_and_no_prefix_of_it() {
        let bytes = header();
        check(&bytes, &mut Faults::End).unwrap();
        for len in 0..bytes.len() {
            let error = check(&bytes[..len], &mut Faults::End).map(drop).unwrap_err();
            assert!(matches!(error, Error::Malformed { at: Place::Header, .. }), "{error}");
        }
    }

    #[test]
    fn the_machine_is_found_and_one_without_a_table_is_a_fault_that_can_be_noted() {
        let mut bytes = header();
        for e_machine in [62u16, 183] {
            bytes[18..20].copy_from_slice(&e_machine.to_le_bytes());
            assert_eq!(check(&bytes, &mut Faults::End).unwrap().e_machine, e_machine);
            assert_eq!(machine(&bytes).map(|it| it.e_machine), Some(e_machine));
        }
        bytes[EI_CLASS] = 1;
        assert!(machine(&bytes).is_none());
        bytes[EI_CLASS] = ELFCLASS64;
        assert!(machine(&bytes[..SIZEOF_EHDR - 1]).is_none());
        bytes[18..20].copy_from_slice(&243u16.to_le_bytes());
        assert!(machine(&bytes).is_none());
        let mut faults = Faults::listed();
        assert!(!check(&bytes, &mut faults).unwrap().is_known());
        let [fault] = faults.list() else { panic!("{:?}", faults.list()) };
        let expected = format!("an image for RISC-V; this process is {}", MACHINE.name);
        assert!(fault.to_string().ends_with(&expected), "{fault}");
    }

    #[test]
    fn each_field_that_decides_is_checked() {
        for (offset, value, expected) in [
            (0, 0x7e, "not an ELF file"),
            (EI_CLASS, 1, "32-bit"),
            (EI_CLASS, 3, "EI_CLASS is 3"),
            (EI_DATA, 2, "big-endian"),
            (EI_DATA, 0, "EI_DATA is 0"),
            (EI_VERSION, 2, "ELF version 2"),
            (EI_OSABI, 9, "EI_OSABI 9"),
            (EI_ABIVERSION, 1, "ABI version 1"),
            (EI_PAD, 1, "nonzero padding"),
            (15, 1, "nonzero padding"),
            (16, 1, "ET_REL"),
            (16, 2, "ET_EXEC"),
            (16, 4, "e_type is 4"),
            (18, 3, "an image for x86 (32 bits)"),
            (18, 1, "e_machine is 1"),
            (20, 0, "ELF version 0"),
            (54, 32, "e_phentsize is 32"),
        ] {
            let mut bytes = header();
            bytes[offset] = value;
            let error = check(&bytes, &mut Faults::End).map(drop).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let mut gnu = header();
        gnu[EI_OSABI..=EI_ABIVERSION].copy_from_slice(&[ELFOSABI_GNU, MAX_ABIVERSION]);
        check(&gnu, &mut Faults::End).unwrap();
    }
}
