//! The machine-dependent code. No other folder names a machine.
//!
//! A relocation has one name for all machines ([`RelocKind`]), with its formula. A machine is a table
//! of numbers ([`Machine`]), a few constants, and a little assembly. To port memdl, write a folder
//! beside the others, and add its lines below. The tables compile on every host, so that each can read the files of
//! all; the assembly is under `cfg`. This folder loads nothing, and imports no other.

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!(
    "memdl supports x86-64 and AArch64: build the program for x86_64-unknown-linux-gnu or \
     aarch64-unknown-linux-gnu."
);

pub(crate) mod aarch64;
mod machine;
mod reloc_kind;
pub(crate) mod x86_64;

#[cfg(target_arch = "aarch64")]
use aarch64 as this;
#[cfg(target_arch = "x86_64")]
use x86_64 as this;

use aarch64::MACHINE as AARCH64;
use x86_64::MACHINE as X86_64;

pub(crate) use machine::{Machine, UNKNOWN, machine_name};
pub(crate) use reloc_kind::RelocKind;
#[cfg_attr(
    not(feature = "exported-debug-symbols"),
    allow(unused_imports, reason = "`build.rs` writes that function")
)]
pub(crate) use this::return_instruction;
pub(crate) use this::{
    LIBUNWIND_CACHES, LIBUNWIND_STEPS, MACHINE, MARK_DISTANCE, STATIC_AREA_ALIGN, bind_call,
    branch_protection, call_ifunc_resolver, checks_signatures, define_marked, define_tls,
    define_tls_variables, detect_registers, first_nul, hwcaps_folders, is_signal_return,
    jump_instruction, lacking_isa, linked_caches, linked_unwinders, static_area, sync_instructions,
    thread_pointer, unless_answered, with_return_address,
};

/// The machines whose files can be read.
static MACHINES: [&Machine; 2] = [&AARCH64, &X86_64];

/// The machine with this number (gABI `e_machine`), if its files can be read.
pub(crate) fn machine(e_machine: u16) -> Option<&'static Machine> {
    // Nearly all files are for this one.
    if e_machine == MACHINE.e_machine {
        return Some(&MACHINE);
    }
    MACHINES.into_iter().find(|machine| machine.e_machine == e_machine)
}

impl Machine {
    /// Whether it is that of this process.
    #[inline]
    pub(crate) fn is_this(&self) -> bool {
        self.e_machine == MACHINE.e_machine
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_machine_is_found_by_its_number_and_has_a_name() {
        for it in MACHINES {
            let found = machine(it.e_machine).unwrap();
            assert_eq!((found.name, found.is_known()), (it.name, true));
            assert_eq!(machine_name(it.e_machine), Some(it.name));
            assert_eq!(it.reloc_kind(it.relative), Some(RelocKind::Relative));
        }
        assert!(MACHINE.is_this() && !UNKNOWN.is_known() && machine(UNKNOWN.e_machine).is_none());
        assert_eq!(MACHINES.into_iter().filter(|it| it.is_this()).count(), 1);
    }
}
