//! What only AArch64 has: functions with other calling conventions, guarded branch targets, scalable vectors.

use std::ffi::c_int;
use std::path::PathBuf;

use libc::{RTLD_LAZY, RTLD_NOW};
use memdl::{Binding, Library, Loader};

use crate::common::{AnyWay, Opened, build, call_run, in_child, isolated, load_and_run};
use crate::helpers::{function, opened_function, read};

type Run = unsafe extern "C" fn() -> c_int;

fn gcc(source: &str, flags: &[&str]) -> PathBuf {
    build("gcc", &format!("aarch64/{source}"), &[&["-O1"], flags].concat())
}

fn has(capability: libc::c_ulong, bit: u32) -> bool {
    // SAFETY: no preconditions.
    unsafe { libc::getauxval(capability) >> bit & 1 != 0 }
}

/// A lazy PLT keeps the registers of the usual convention only.
#[test]
fn functions_with_another_convention_are_bound_at_once() {
    isolated(|| {
        let lazy = Loader::new().binding(Binding::Lazy);
        let usual = gcc("variant.c", &["-Wl,-z,lazy"]);
        load_and_run(&lazy, &read(&usual), "usual");
        assert_eq!(Opened::new(&usual, RTLD_LAZY).run(), 42);

        let vector = gcc("variant.c", &["-Wl,-z,lazy", "-DVECTOR"]);
        // SAFETY: a library of `testlibs/`, which may be loaded anywhere.
        let error = unsafe { lazy.load_any_way(&read(&vector)) }.unwrap_err().to_string();
        let refusal = Opened::refusal(&vector, RTLD_LAZY);
        for text in [error, refusal] {
            assert!(text.contains("missing"), "{text}");
        }
    });
}

/// The signal that ends a child which branches to an instruction that no branch may go to; 0 without one.
fn signal_of(branch: impl FnOnce() -> c_int) -> c_int {
    let status = in_child(20, branch);
    if libc::WIFSIGNALED(status) { libc::WTERMSIG(status) } else { 0 }
}

#[test]
fn branches_to_unmarked_instructions_fault_as_with_dlopen() {
    // HWCAP2_BTI
    let is_guarded = has(libc::AT_HWCAP2, 17);
    let expected = if is_guarded { libc::SIGILL } else { 0 };
    // The C library's objects for the start have no marks.
    let guarded = ["-mbranch-protection=standard", "-nostartfiles", "-Wl,-z,force-bti"];
    let path = gcc("branch_targets.c", &guarded);
    let unguarded = gcc("branch_targets.c", &["-mbranch-protection=none", "-nostartfiles"]);
    isolated(|| {
        let opened = Opened::new(&path, RTLD_NOW);
        assert_eq!(opened.run(), 42);
        let unmarked: Run = opened_function(&opened, "run_unmarked");
        // SAFETY: `int run_unmarked(void)`.
        assert_eq!(signal_of(|| unsafe { unmarked() }), expected, "dlopen");
        let run_unmarked = |library: &Library| {
            let unmarked: Run = function(library, "run_unmarked");
            // SAFETY: as above.
            signal_of(|| unsafe { unmarked() })
        };
        // Again, in memory that is used again.
        for round in 0..4 {
            let library = load_and_run(&Loader::new(), &read(&path), "guarded");
            assert_eq!(run_unmarked(&library), expected, "round {round}");
        }
        let library = load_and_run(&Loader::new(), &read(&unguarded), "unguarded");
        assert_eq!(run_unmarked(&library), 0);
    });
}

#[test]
fn the_first_access_to_a_variable_keeps_scalable_registers() {
    // HWCAP_SVE
    assert!(has(libc::AT_HWCAP, 22), "this test needs a processor with SVE: -cpu max of qemu");
    isolated(|| {
        let path = gcc("scalable.c", &[]);
        assert_eq!(Opened::new(&path, RTLD_NOW).run(), 42, "dlopen");
        let library = load_and_run(&Loader::new(), &read(&path), "scalable");
        std::thread::scope(|scope| {
            for _ in 0..3 {
                let thread = scope.spawn(|| call_run(&library));
                assert_eq!(thread.join().unwrap(), 42, "the first access of a thread");
            }
        });
    });
}

#[test]
fn a_plt_of_signed_addresses_is_refused_where_the_processor_checks_them() {
    // HWCAP_PACA
    let is_checked = has(libc::AT_HWCAP, 30);
    let path = gcc("variant.c", &["-mbranch-protection=standard", "-Wl,-z,pac-plt,-z,lazy"]);
    isolated(|| {
        // SAFETY: a library of `testlibs/`, which may be loaded anywhere.
        let loaded = unsafe { Loader::new().binding(Binding::Lazy).load_any_way(&read(&path)) };
        match loaded {
            Ok(library) => assert!(!is_checked && call_run(&library) == 42),
            Err(error) => {
                assert!(is_checked, "{error}");
                assert!(error.to_string().contains("expects signed addresses"), "{error}");
            }
        }
    });
}
