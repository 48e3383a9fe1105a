//! Lets `strip` leave the two symbols through which debuggers find images in `libmemdl.so`.
//!
//! `strip` removes all symbols of a shared library but the exported ones. The pair in `src/debug/gdb_jit.rs` is
//! hidden, for the sake of executables. So with the feature `capi` it comes from two small archives instead:
//!
//! * `memdl_pair` has the hidden pair. It becomes part of `libmemdl.a`.
//! * `memdl_pair_exported` has a visible one. It is not part of `libmemdl.a`, and comes first in a link by rustc.
//!
//! memdl refers to a name of its own in them ([`MEMBER`]), so that one of the two is linked even if a library has
//! defined the pair before: the pair of a library has a lock that memdl does not know.
//!
//! rustc exports only what is written in Rust. A version script of our own exports the pair, too, with a version
//! of its own: libraries whose references have another version, such as libLLVM's, keep their own pair. GNU ld
//! takes one script only, so whether it works is tried out. Where it does not, `libmemdl.so` has the pair hidden
//! as before, and the first load of a stripped one logs a warning.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs, io};

const SYMBOLS: [&str; 2] = ["__jit_debug_register_code", "__jit_debug_descriptor"];
/// Stands at a word behind the function, for which see `src/debug/gdb_jit.rs`: GNU ld makes the hidden pair local for
/// its sake.
const MEMBER: &str = "memdl_pair_member_v1";
const VERSION: &str = "MEMDL_DEBUG";

fn main() -> io::Result<()> {
    println!("cargo:rerun-if-changed=build.rs");
    // The compiler has a name of its own for this, which stable code may not ask for.
    if env::var("CARGO_CFG_SANITIZE").is_ok_and(|it| it.split(',').any(|it| it == "thread")) {
        println!("cargo:rustc-cfg=thread_sanitizer");
    }
    let has = |feature: &str| env::var_os(format!("CARGO_FEATURE_{feature}")).is_some();
    if !has("CAPI") || has("EXPORTED_DEBUG_SYMBOLS") {
        return Ok(());
    }
    let folder = PathBuf::from(variable("OUT_DIR"));
    archive(&folder, "memdl_pair", ".weak", ".hidden")?;
    archive(&folder, "memdl_pair_exported", ".globl", ".protected")?;
    println!("cargo:rustc-link-search=native={}", folder.display());

    let script = folder.join("version-script");
    let [function, data] = SYMBOLS;
    fs::write(&script, format!("{VERSION} {{ global: {function}; {data}; }};\n"))?;
    if exports(&folder, &script)? {
        println!("cargo:rustc-cdylib-link-arg=-Wl,--version-script={}", script.display());
    }
    Ok(())
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"))
}

/// rustc, for the machine that memdl is built for.
fn rustc(folder: &Path, name: &str, source: &str) -> io::Result<Command> {
    let file = folder.join(format!("{name}.rs"));
    fs::write(&file, source)?;
    let mut command = Command::new(variable("RUSTC"));
    command.args(["--edition=2024", "--crate-name", name, "--target", &variable("TARGET")]);
    command.arg(file);
    Ok(command)
}

/// Makes a static library with the pair: an empty list, and a function that returns.
fn archive(folder: &Path, name: &str, binding: &str, visibility: &str) -> io::Result<()> {
    let [function, data] = SYMBOLS;
    // A relocation that asks for a PLT entry, which no linker makes for a hidden symbol.
    let ask_for_plt = match variable("CARGO_CFG_TARGET_ARCH").as_str() {
        "aarch64" => format!("b {data}"),
        _ => format!(".4byte {data}@PLT - ."),
    };
    let source = format!(
        r##"#![no_std]
core::arch::global_asm!(r#"
    .pushsection .text.{function},"ax"
    {binding} {function}
    {visibility} {function}
    .type {function}, STT_FUNC
    {function}:
    .cfi_startproc
    ret
    .cfi_endproc
    .size {function}, . - {function}
    .weak {MEMBER}
    .hidden {MEMBER}
    {MEMBER}:
    {ask_for_plt}
    .popsection
    .pushsection .data.{data},"aw"
    .balign 8
    {binding} {data}
    {visibility} {data}
    .type {data}, STT_OBJECT
    {data}:
    .4byte 1, 0
    .8byte 0, 0
    .size {data}, . - {data}
    .popsection
"#);
"##
    );
    let object = folder.join(format!("{name}.o"));
    let mut command = rustc(folder, name, &source)?;
    command.args(["--crate-type=lib", "--emit=obj", "-Cpanic=abort", "-Ccodegen-units=1", "-o"]);
    let status = command.arg(&object).status()?;
    assert!(status.success(), "{command:?}: {status}");
    fs::write(folder.join(format!("lib{name}.a")), in_archive(name, &fs::read(object)?))
}

/// An archive with one member, and the index that linkers read (`ar(5)`, the System V form).
fn in_archive(name: &str, object: &[u8]) -> Vec<u8> {
    let member = |name: &str, contents: &[u8]| {
        let header =
            format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, "644", contents.len());
        let mut bytes = header.into_bytes();
        bytes.extend(contents);
        // Members begin at even offsets.
        bytes.extend((contents.len() % 2 == 1).then_some(b'\n'));
        bytes
    };
    let symbols = [SYMBOLS[0], SYMBOLS[1], MEMBER];
    let names: Vec<u8> = symbols.iter().flat_map(|name| name.bytes().chain([0])).collect();
    // The number of symbols, for each the offset of its member, and the names.
    let index_len = 4 * (1 + symbols.len()) + names.len();
    let offset = (8 + 60 + index_len.next_multiple_of(2)) as u32;
    let mut index = (symbols.len() as u32).to_be_bytes().to_vec();
    index.extend(symbols.iter().flat_map(|_| offset.to_be_bytes()));
    index.extend(names);
    // A name ends with a slash; 15 bytes of it are enough.
    let name = format!("{}/", &name[name.len().saturating_sub(15)..]);
    [&b"!<arch>\n"[..], &member("/", &index), &member(&name, object)].concat()
}

/// Whether the linker that rustc uses here exports what our script names besides rustc's.
fn exports(folder: &Path, script: &Path) -> io::Result<bool> {
    let source = format!(
        r#"#[link(name = "memdl_pair_exported", kind = "static", modifiers = "-bundle,+whole-archive")]
unsafe extern "C" {{
    fn {function}();
}}
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memdl_trial() {{
    unsafe {{ {function}() }}
}}
"#,
        function = SYMBOLS[0]
    );
    let library = folder.join("libmemdl_trial.so");
    let _ = fs::remove_file(&library);
    let mut command = rustc(folder, "memdl_trial", &source)?;
    command.arg("--crate-type=cdylib").arg("-L").arg(folder).arg("-o").arg(&library);
    if let Ok(linker) = env::var("RUSTC_LINKER") {
        command.arg(format!("-Clinker={linker}"));
    }
    let flags = env::var("CARGO_ENCODED_RUSTFLAGS").unwrap_or_default();
    command.args(flags.split('\x1f').filter(|flag| !flag.is_empty()));
    command.arg(format!("-Clink-arg=-Wl,--version-script={}", script.display()));
    let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    // The name of the version is in the library if it exports anything with it.
    let has_version =
        |library: Vec<u8>| library.windows(VERSION.len()).any(|bytes| bytes == VERSION.as_bytes());
    Ok(status.success() && fs::read(&library).is_ok_and(has_version))
}
