//! The levels of the instruction set: which an image asks for, and what this processor lacks for them.
//!
//! A feature counts only if the system has enabled the registers that it needs, as in glibc. Nothing is asked
//! of the processor unless an image asks for a level: `cpuid` takes microseconds in a virtual machine.
//!
//! Sources: AMD64 psABI, section 3.1.1 "Processor Architecture"; glibc `sysdeps/x86/get-isa-level.h` and
//! `cpu-features.c`; Intel SDM volume 1, chapter 13 (XCR0).

#![cfg_attr(target_arch = "x86_64", allow(unsafe_code))]
#![cfg_attr(not(target_arch = "x86_64"), forbid(unsafe_code))]

#[cfg(target_arch = "x86_64")]
use std::sync::OnceLock;

/// `GNU_PROPERTY_X86_ISA_1_NEEDED`.
pub(super) const ISA_NEEDED: u32 = 0xc000_8002;

/// What `cpuid` and `xgetbv` return: the registers that have a feature of a level.
#[derive(Clone, Copy, Default, Debug)]
struct Processor {
    leaf_1_ecx: u32,
    leaf_1_edx: u32,
    leaf_7_ebx: u32,
    extended_ecx: u32,
    /// The register states that the system has enabled; 0 if it does not use `xsave`.
    xcr0: u64,
}

/// The register of `cpuid` with a feature.
#[derive(Clone, Copy)]
enum Register {
    Leaf1Ecx,
    Leaf1Edx,
    Leaf7Ebx,
    ExtendedEcx,
}
use Register::{ExtendedEcx, Leaf1Ecx, Leaf1Edx, Leaf7Ebx};

/// The states of SSE and AVX, and with those of AVX-512.
const AVX: u64 = 0b110;
const AVX_512: u64 = 0b1110_0110;

/// A feature: its name in `/proc/cpuinfo`, its bit, and the register states that it needs.
type Feature = (&'static str, Register, u32, u64);

/// The levels, from the lowest, with what each adds. A level's bit in the property is its index.
const LEVELS: [(&str, &[Feature]); 4] = [
    (
        "x86-64",
        &[
            ("cmov", Leaf1Edx, 15, 0),
            ("cx8", Leaf1Edx, 8, 0),
            ("fpu", Leaf1Edx, 0, 0),
            ("fxsr", Leaf1Edx, 24, 0),
            ("mmx", Leaf1Edx, 23, 0),
            ("sse", Leaf1Edx, 25, 0),
            ("sse2", Leaf1Edx, 26, 0),
        ],
    ),
    (
        "x86-64-v2",
        &[
            ("cx16", Leaf1Ecx, 13, 0),
            ("lahf_lm", ExtendedEcx, 0, 0),
            ("popcnt", Leaf1Ecx, 23, 0),
            ("sse3", Leaf1Ecx, 0, 0),
            ("ssse3", Leaf1Ecx, 9, 0),
            ("sse4_1", Leaf1Ecx, 19, 0),
            ("sse4_2", Leaf1Ecx, 20, 0),
        ],
    ),
    (
        "x86-64-v3",
        &[
            ("avx", Leaf1Ecx, 28, AVX),
            ("avx2", Leaf7Ebx, 5, AVX),
            ("bmi1", Leaf7Ebx, 3, 0),
            ("bmi2", Leaf7Ebx, 8, 0),
            ("f16c", Leaf1Ecx, 29, AVX),
            ("fma", Leaf1Ecx, 12, AVX),
            ("lzcnt", ExtendedEcx, 5, 0),
            ("movbe", Leaf1Ecx, 22, 0),
        ],
    ),
    (
        "x86-64-v4",
        &[
            ("avx512f", Leaf7Ebx, 16, AVX_512),
            ("avx512bw", Leaf7Ebx, 30, AVX_512),
            ("avx512cd", Leaf7Ebx, 28, AVX_512),
            ("avx512dq", Leaf7Ebx, 17, AVX_512),
            ("avx512vl", Leaf7Ebx, 31, AVX_512),
        ],
    ),
];

impl Processor {
    /// This one.
    #[cfg(target_arch = "x86_64")]
    fn current() -> Processor {
        use std::arch::x86_64::{__cpuid, __cpuid_count};

        const OSXSAVE: u32 = 1 << 27;
        let has_leaf = |leaf: u32| __cpuid(leaf & 0x8000_0000).eax >= leaf;
        let leaf_1 = __cpuid(1);
        Processor {
            leaf_1_ecx: leaf_1.ecx,
            leaf_1_edx: leaf_1.edx,
            leaf_7_ebx: if has_leaf(7) { __cpuid_count(7, 0).ebx } else { 0 },
            extended_ecx: if has_leaf(0x8000_0001) { __cpuid(0x8000_0001).ecx } else { 0 },
            // SAFETY: the system has enabled `xsave`, and with it `xgetbv`.
            xcr0: if leaf_1.ecx & OSXSAVE != 0 { unsafe { enabled_states() } } else { 0 },
        }
    }

    fn has(&self, &(_, register, bit, states): &Feature) -> bool {
        let word = match register {
            Leaf1Ecx => self.leaf_1_ecx,
            Leaf1Edx => self.leaf_1_edx,
            Leaf7Ebx => self.leaf_7_ebx,
            ExtendedEcx => self.extended_ecx,
        };
        word >> bit & 1 != 0 && self.xcr0 & states == states
    }

    /// The name of the level that an image with this property needs, and what is missing for it. `None` if
    /// nothing is. A level includes those below it.
    fn lacks(&self, needed: u32) -> Option<(String, Vec<&'static str>)> {
        let highest = (0..LEVELS.len()).rev().find(|&level| needed >> level & 1 != 0);
        let mut levels = LEVELS.iter().take(highest.map_or(0, |level| level.saturating_add(1)));
        let features = levels.clone().flat_map(|(_, features)| features.iter());
        let lacking = features.filter(|feature| !self.has(feature)).map(|feature| feature.0);
        let lacking: Vec<&'static str> = lacking.collect();
        let unknown = needed >> LEVELS.len() << LEVELS.len();
        if unknown != 0 {
            return Some((format!("{unknown:#x} of GNU_PROPERTY_X86_ISA_1_NEEDED"), lacking));
        }
        let (name, _) = levels.next_back()?;
        (!lacking.is_empty()).then(|| ((*name).to_owned(), lacking))
    }
}

/// XCR0.
///
/// # Safety
/// The processor has `xgetbv`.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "xsave")]
unsafe fn enabled_states() -> u64 {
    // SAFETY: the caller's promise.
    unsafe { std::arch::x86_64::_xgetbv(0) }
}

/// What is added to the protection of executable pages whose code marks the targets of its indirect branches: the
/// kernel has nothing for that on this machine.
#[inline]
pub(crate) fn branch_protection() -> libc::c_int {
    0
}

/// Whether this processor checks signatures of addresses: none of this machine does.
#[inline]
pub(crate) fn checks_signatures() -> bool {
    false
}

/// The folders in `glibc-hwcaps` whose libraries this processor runs, best first. They are named after the
/// levels above the lowest.
#[cfg(target_arch = "x86_64")]
pub(crate) fn hwcaps_folders() -> &'static [&'static str] {
    static FOLDERS: OnceLock<Vec<&'static str>> = OnceLock::new();
    FOLDERS.get_or_init(|| {
        let processor = Processor::current();
        let has = |level: &(usize, &(&str, &[Feature]))| processor.lacks(1 << level.0).is_none();
        let levels = LEVELS.iter().enumerate().take_while(has).skip(1);
        let mut folders: Vec<&str> = levels.map(|(_, (name, _))| *name).collect();
        folders.reverse();
        folders
    })
}

/// The names of the levels, from the lowest. Each has a bit of [`ISA_NEEDED`], its index.
pub(super) const LEVEL_NAMES: [&str; LEVELS.len()] =
    [LEVELS[0].0, LEVELS[1].0, LEVELS[2].0, LEVELS[3].0];

/// The level that an image with this value of [`ISA_NEEDED`] needs, and the features that this processor
/// lacks for it; none of them is named if the level itself is not known. `None` if the image can run.
#[cfg(target_arch = "x86_64")]
#[cold]
pub(crate) fn lacking_isa(needed: u32) -> Option<(String, Vec<&'static str>)> {
    Processor::current().lacks(needed)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A processor with all features of the levels up to this one.
    fn with_levels(count: usize) -> Processor {
        let mut processor = Processor { xcr0: AVX_512, ..Processor::default() };
        for &(_, register, bit, _) in LEVELS.iter().take(count).flat_map(|level| level.1) {
            let word = match register {
                Leaf1Ecx => &mut processor.leaf_1_ecx,
                Leaf1Edx => &mut processor.leaf_1_edx,
                Leaf7Ebx => &mut processor.leaf_7_ebx,
                ExtendedEcx => &mut processor.extended_ecx,
            };
            *word |= 1 << bit;
        }
        processor
    }

    #[test]
    fn each_level_needs_those_below_it() {
        for count in 0..=4 {
            let processor = with_levels(count);
            for level in 0..4 {
                let lacks = processor.lacks(1 << level);
                assert_eq!(lacks.is_none(), level < count, "{count} levels, {level}: {lacks:?}");
                if let Some((name, lacking)) = lacks {
                    assert_eq!(name, LEVELS[level].0);
                    let all: usize = LEVELS[count..=level].iter().map(|it| it.1.len()).sum();
                    assert_eq!(lacking.len(), all);
                }
            }
            assert_eq!(processor.lacks(0xf).is_none(), count == 4);
        }
        assert_eq!(with_levels(0).lacks(0), None);
        let (level, lacking) = with_levels(4).lacks(0x11).unwrap();
        assert!(level.starts_with("0x10 of") && lacking.is_empty(), "{level}");
    }

    #[test]
    fn a_feature_needs_the_registers_that_the_system_enables() {
        let without_avx_512 = Processor { xcr0: AVX, ..with_levels(4) };
        assert_eq!(without_avx_512.lacks(4), None);
        assert_eq!(without_avx_512.lacks(8).unwrap().1.len(), 5);
        let without_avx = Processor { xcr0: 0b10, ..with_levels(4) };
        assert_eq!(without_avx.lacks(4).unwrap().1, ["avx", "avx2", "f16c", "fma"]);
        assert_eq!(without_avx.lacks(2), None);
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn this_processor_is_one_of_them() {
        assert_eq!(lacking_isa(1), None);
    }
}
