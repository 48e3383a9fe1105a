//! The return addresses of signal handlers. It reads the process's handlers and changes none.
//!
//! Source: `rt_sigaction(2)`, `SA_RESTORER`.

#![allow(unsafe_code)]

/// Tells of an address in a backtrace whether it is the return address of a signal handler: the frame between the
/// handler and the code that it has interrupted. The C library has one such address, and only the kernel gives it
/// out. `_read` would copy memory at an address that need not exist.
pub(crate) fn is_signal_return(_read: impl Fn(usize, &mut [u8]) -> bool) -> impl Fn(usize) -> bool {
    let returns = signal_returns();
    move |address| returns.contains(&address)
}

fn signal_returns() -> Vec<usize> {
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
        // SAFETY: with a null new action, the call changes no handler. The result fits the local.
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
