//! What differs among the machines that tests run on: relocations, compilers' flags, the C library's first version.

use std::path::PathBuf;

use super::{build, repository};

/// A type of relocation.
pub struct Relocation {
    pub number: u32,
    pub name: &'static str,
}

/// One of each machine; the one that is compiled for counts.
macro_rules! relocations {
    ($($constant:ident: $x86:literal $x86_name:literal, $arm:literal $arm_name:literal;)*) => {
        $(
            #[cfg(target_arch = "x86_64")]
            pub const $constant: Relocation = Relocation { number: $x86, name: concat!("R_X86_64_", $x86_name) };
            #[cfg(target_arch = "aarch64")]
            pub const $constant: Relocation = Relocation { number: $arm, name: concat!("R_AARCH64_", $arm_name) };
        )*
    };
}

relocations! {
    NONE: 0 "NONE", 0 "NONE";
    ABSOLUTE: 1 "64", 257 "ABS64";
    COPY: 5 "COPY", 1024 "COPY";
    GLOB_DAT: 6 "GLOB_DAT", 1025 "GLOB_DAT";
    JUMP_SLOT: 7 "JUMP_SLOT", 1026 "JUMP_SLOT";
    RELATIVE: 8 "RELATIVE", 1027 "RELATIVE";
    DTPMOD: 16 "DTPMOD64", 1028 "TLS_DTPMOD";
    DTPOFF: 17 "DTPOFF64", 1029 "TLS_DTPREL";
    TPOFF: 18 "TPOFF64", 1030 "TLS_TPREL";
    TLSDESC: 36 "TLSDESC", 1031 "TLSDESC";
    IRELATIVE: 37 "IRELATIVE", 1032 "IRELATIVE";
}

#[cfg(target_arch = "x86_64")]
mod of_one {
    pub const OWN: usize = 0;
    pub const CALLS: &str = "-mtls-dialect=gnu";
    pub const DESCRIPTORS: &str = "-mtls-dialect=gnu2";
    pub const FIRST_GLIBC: &str = "GLIBC_2.2.5";
}

#[cfg(target_arch = "aarch64")]
mod of_one {
    pub const OWN: usize = 1;
    pub const CALLS: &str = "-mtls-dialect=trad";
    pub const DESCRIPTORS: &str = "-mtls-dialect=desc";
    pub const FIRST_GLIBC: &str = "GLIBC_2.17";
}

/// A machine that memdl runs on.
pub struct Machine {
    /// As messages have it.
    pub name: &'static str,
    pub e_machine: u16,
    /// As clang has it.
    target: &'static str,
}

const MACHINES: [Machine; 2] = [
    Machine { name: "x86-64", e_machine: 62, target: "--target=x86_64-linux-gnu" },
    Machine { name: "AArch64", e_machine: 183, target: "--target=aarch64-linux-gnu" },
];

/// The machine that the tests run on.
pub const OWN: &Machine = &MACHINES[of_one::OWN];
/// The other one of the two.
pub const FOREIGN: &Machine = &MACHINES[1 - of_one::OWN];

impl Machine {
    /// Builds a shared library for this machine, without its headers and libraries, which need not be here: clang and lld
    /// build for all machines.
    pub fn build(&self, source: &str, flags: &[&str]) -> PathBuf {
        let usual = [self.target, "-nostdlib", "-fuse-ld=lld", "-Wl,--build-id=sha1"];
        build("clang", source, &[&usual, flags].concat())
    }

    /// `cross/library.c`, and the `libdep.so` that it needs.
    pub fn library_and_dep(&self, flags: &[&str]) -> [PathBuf; 2] {
        let script =
            format!("-Wl,--version-script={}", repository("testlibs/cross/dep.map").display());
        let dep = self.build("cross/dep.c", &["-g", "-Wl,-soname,libdep.so", &script]);
        let linked = dep.to_str().unwrap();
        [self.build("cross/library.c", &[&["-g", linked], flags].concat()), dep]
    }
}

/// gcc's flag for thread-local variables that are found by calls of `__tls_get_addr`.
pub const CALLS: &str = of_one::CALLS;
/// Whether this linker makes shared libraries of what [`CALLS`] compiles. For AArch64 lld does not know it.
pub fn links_calls(linker: &str) -> bool {
    !(cfg!(target_arch = "aarch64") && linker.contains("lld"))
}
/// gcc's flag for thread-local variables that are found by descriptors.
pub const DESCRIPTORS: &str = of_one::DESCRIPTORS;
/// The version of what the C library has had since its first release for the machine.
pub const FIRST_GLIBC: &str = of_one::FIRST_GLIBC;
