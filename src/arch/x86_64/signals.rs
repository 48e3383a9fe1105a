//! Where signal handlers return to.

#![allow(unsafe_code)]

/// The addresses that signal handlers return to: what a backtrace shows between a handler and
/// what it has interrupted. The C library has one such place, and tells nobody but the kernel.
pub(crate) fn signal_returns() -> Vec<usize> {
    /// `struct kernel_sigaction` of this machine (`rt_sigaction(2)`).
    #[repr(C)]
    #[derive(Default)]
    struct Action {
        handler: usize,
        flags: u64,
        restorer: usize,
        mask: u64,
    }
    const MAX_SIGNAL: libc::c_int = 64;
    let mut returns = Vec::new();
    for signal in 1..=MAX_SIGNAL {
        let mut action = Action::default();
        let mask_size = size_of_val(&action.mask);
        // SAFETY: asks, and changes nothing; the answer goes to the local, which is as large.
        unsafe {
            let nothing = std::ptr::null::<Action>();
            libc::syscall(libc::SYS_rt_sigaction, signal, nothing, &raw mut action, mask_size);
        }
        if action.restorer != 0 && !returns.contains(&action.restorer) {
            returns.push(action.restorer);
        }
    }
    returns
}
