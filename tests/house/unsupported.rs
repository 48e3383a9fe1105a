//! What memdl does not support, the compiler says.

use std::path::Path;

use crate::common::{limited, repository};

/// In a program with a C library of its own, images would have another one.
#[test]
fn a_statically_linked_program_is_refused_by_the_compiler() {
    let output = limited(300, env!("CARGO"))
        .args(["check", "--quiet", "--offline", "--lib", "--target", "x86_64-unknown-linux-gnu"])
        .arg("--target-dir")
        .arg(Path::new(env!("CARGO_TARGET_TMPDIR")).join("static"))
        .env("RUSTFLAGS", "-Ctarget-feature=+crt-static")
        .current_dir(repository(""))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(said.contains("memdl needs a dynamically linked program"), "{said}");
}
