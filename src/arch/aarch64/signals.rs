//! The return addresses of signal handlers.
//!
//! Sources: Linux `arch/arm64/kernel/vdso/sigreturn.S`; libgcc `config/aarch64/linux-unwind.h`.

#![forbid(unsafe_code)]

/// `mov x8, #__NR_rt_sigreturn`, `svc #0`.
const RETURN: [u8; 8] = [0x68, 0x11, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4];

/// Tells of an address in a backtrace whether it is the return address of a signal handler: the frame between the
/// handler and the code that it has interrupted. The kernel lets handlers return to these two instructions, and
/// unwinders know them by their bytes. `read` copies memory at an address that need not exist.
pub(crate) fn is_signal_return(read: impl Fn(usize, &mut [u8]) -> bool) -> impl Fn(usize) -> bool {
    move |address| {
        let mut found = [0; RETURN.len()];
        read(address, &mut found) && found == RETURN
    }
}
