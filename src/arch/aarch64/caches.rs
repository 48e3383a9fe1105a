//! The caches of data and of instructions, which the processor does not keep equal.
//!
//! The kernel makes them agree when it maps a page as executable for the first time. It does not see what is
//! stored to the page later, as into memory that is used for another image.
//!
//! Source: "Arm Architecture Reference Manual for A-profile", B2.4.4 "Synchronization and coherency issues between
//! data and instruction accesses"; `CTR_EL0`.

#![allow(unsafe_code)]

use std::arch::asm;
use std::ops::Range;

/// No data has to be cleaned for instruction fetches.
const CTR_IDC: u64 = 1 << 28;
/// No instructions have to be invalidated.
const CTR_DIC: u64 = 1 << 29;

/// Lets instruction fetches see what was stored at these addresses, in every thread that learns of it afterwards.
///
/// # Safety
/// The addresses can be read.
pub(crate) unsafe fn sync_instructions(addresses: Range<usize>) {
    let ctr: u64;
    // SAFETY: reads a register that Linux lets programs read.
    unsafe { asm!("mrs {}, ctr_el0", out(reg) ctr, options(nomem, nostack, preserves_flags)) };
    // The fields are logarithms of numbers of words.
    let data_line = 4usize << (ctr >> 16 & 0xf);
    let instruction_line = 4usize << (ctr & 0xf);
    if ctr & CTR_IDC == 0 {
        for line in lines(&addresses, data_line) {
            // SAFETY: the caller's promise. It changes no contents.
            unsafe { asm!("dc cvau, {}", in(reg) line, options(nostack, preserves_flags)) };
        }
    }
    // SAFETY: barriers, which change no contents. The first one also waits for the stores themselves.
    unsafe { asm!("dsb ish", options(nostack, preserves_flags)) };
    if ctr & CTR_DIC == 0 {
        for line in lines(&addresses, instruction_line) {
            // SAFETY: as above.
            unsafe { asm!("ic ivau, {}", in(reg) line, options(nostack, preserves_flags)) };
        }
        // SAFETY: as above.
        unsafe { asm!("dsb ish", options(nostack, preserves_flags)) };
    }
    // SAFETY: as above.
    unsafe { asm!("isb", options(nostack, preserves_flags)) };
}

/// The lines of a cache that have a byte of these addresses.
fn lines(addresses: &Range<usize>, line: usize) -> impl Iterator<Item = usize> {
    // A line's length is a power of two.
    let first = addresses.start & !line.wrapping_sub(1);
    (first..addresses.end).step_by(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_that_has_a_byte_is_visited() {
        let all = |addresses: Range<usize>| lines(&addresses, 64).collect::<Vec<_>>();
        assert_eq!(all(130..260), [128, 192, 256]);
        assert_eq!(all(128..192), [128]);
        assert_eq!(all(70..71), [64]);
    }

    #[test]
    fn stored_instructions_are_executed() {
        const RET: u32 = 0xd65f_03c0;
        let access = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping, which stays until the test ends.
        let memory = unsafe { libc::mmap(std::ptr::null_mut(), 4096, access, flags, -1, 0) };
        assert_ne!(memory, libc::MAP_FAILED);
        let code = memory.cast::<u32>();
        for value in 0..100u32 {
            // SAFETY: two instructions in memory of this test: `mov w0, #value` and `ret`.
            let found = unsafe {
                code.write(0x5280_0000 | value << 5);
                code.add(1).write(RET);
                sync_instructions(code.addr()..code.addr() + 8);
                std::mem::transmute::<*mut u32, extern "C" fn() -> u32>(code)()
            };
            assert_eq!(found, value);
        }
    }
}
