//! The ways in which an image is published to profilers.
//!
//! A build without the feature `profile` has this file, too: what it does with a way is in `without.rs`.

#![forbid(unsafe_code)]

use crate::base::environment;
use crate::base::words::words;

/// How an image is published to profilers.
///
/// The environment variable `MEMDL_PERF` (`off`, `map`, `live-map`, `jitdump`, `file`) overrides what the
/// program has chosen, so that an operator needs no rebuild.
///
/// ```
/// use memdl::Profile;
///
/// assert_eq!("live-map".parse(), Ok(Profile::LivePerfMap));
/// assert_eq!(Profile::default().to_string(), "off");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Profile {
    /// Not at all. Nothing is written, and it costs nothing.
    #[default]
    Off,
    /// Names of functions, in `/tmp/perf-PID.map`, for `perf report`, `perf script` and other programs that
    /// read such files.
    ///
    /// The file serves a report that is made after the process has ended, so **it stays**, as the maps of
    /// other runtimes do; its user removes it. The lines of an image stay when it is unloaded, until another
    /// image is loaded to its addresses: perf cannot tell the two apart, [`Profile::JitDump`] can. At most 64
    /// MiB of such lines are kept; the oldest are removed.
    ///
    /// A file of an earlier process with this number is replaced. If another runtime of the process
    /// has made the file, lines are added to it.
    PerfMap,
    /// As [`Profile::PerfMap`], for reports that are made while the process runs: the lines of an
    /// image go with it, and the file is removed with the last of them, or when the process exits.
    LivePerfMap,
    /// Functions with their code, and with source lines if the image has any: `jit-PID.dump`, in a
    /// new folder in `$JITDUMPDIR/.debug/jit`, or else `$HOME/.debug/jit`, or else `.debug/jit`.
    /// It stays, and holds code of the image.
    ///
    /// ```console
    /// $ perf record -k 1 -o perf.data ./host
    /// $ perf inject --jit -i perf.data -o perf.jit.data
    /// $ perf report -i perf.jit.data
    /// ```
    JitDump,
    /// As a library on disk: the image's bytes are written to a file, and its code and read-only data are mapped
    /// from there. So everything works that reads names and unwind tables from the files of
    /// `/proc/PID/maps`, while the process runs and later: `perf record --call-graph dwarf`, `perf top`,
    /// `eu-stack -p`, bpftrace, llvm-symbolizer.
    ///
    /// The file is `NUMBER/NAME` in a new folder, in the same place as a jitdump's. It stays. Loads of the same bytes
    /// by the same name have one file. It must not be changed while the process runs. A core of the process
    /// has, as with `dlopen`, no code of such an image, and debuggers read it from the file.
    ///
    /// An image with text relocations is not mapped from a file.
    ///
    /// ```console
    /// $ MEMDL_PERF=file perf record --call-graph dwarf ./host && perf report
    /// $ eu-stack -p PID
    /// ```
    File,
}

/// The environment variable that an operator can set.
const ENVIRONMENT: &str = "MEMDL_PERF";
const WORDS: [(&str, Profile); 5] = [
    ("off", Profile::Off),
    ("map", Profile::PerfMap),
    ("live-map", Profile::LivePerfMap),
    ("jitdump", Profile::JitDump),
    ("file", Profile::File),
];

words!(Profile, WORDS);

impl Profile {
    /// The way that the environment requests, or `self` if it requests none that exists.
    pub(crate) fn requested(self) -> Profile {
        environment::overridden(ENVIRONMENT, &WORDS, self)
    }

    /// Whether the image's memory may have a name. perf takes memory with a name for a file of
    /// that name, and does not look into the perf map.
    pub(crate) fn allows_memory_names(self) -> bool {
        !matches!(self, Profile::PerfMap | Profile::LivePerfMap | Profile::File)
    }
}
