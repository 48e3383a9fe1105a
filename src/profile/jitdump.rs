//! `jit-PID.dump`: a record for each function, with its code, and the time from which it was at its
//! address.
//!
//! perf finds the file by an executable mapping of it. That is the only use of the mapping; no code ever
//! runs there. `perf inject --jit` then makes an ELF file of each function, beside the
//! dump, so each dump gets a folder of its own. Times are of `CLOCK_MONOTONIC`, which `perf record
//! -k 1` uses too.
//!
//! It never writes a record for unloaded code: a later record for the same addresses counts from its time.
//!
//! Source: Linux `tools/perf/Documentation/jitdump-specification.txt`, version 2.

#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::process;

use super::folder;
use super::named_code::{NamedCode, no_memory};
use crate::arch::MACHINE;
use crate::base::error::Error;
use crate::base::escape::Escaped;
use crate::base::fallible::{TryGrow, require_memory, try_format, try_vec};
use crate::debug::lines::Line;
use crate::memory::mapped_file::ExecutableMarker;

/// `JiTD`.
const MAGIC: u32 = 0x4a69_5444;
const VERSION: u32 = 1;
const HEADER_SIZE: u32 = 40;
/// The kinds of records.
const CODE_LOAD: u32 = 0;
const CODE_DEBUG_INFO: u32 = 2;
const CODE_CLOSE: u32 = 3;
/// Each record begins with its kind, its size, and the time.
const PREFIX_SIZE: usize = 16;

/// This process's dump.
pub(super) struct JitDump {
    file: File,
    process: u32,
    /// How many functions have been recorded.
    count: u64,
    _marker: ExecutableMarker,
}

impl JitDump {
    /// The dump in `slot` if it is this process's, or else a new one.
    pub(super) fn of_this_process(slot: &mut Option<JitDump>) -> io::Result<&mut JitDump> {
        let process = process::id();
        if slot.as_ref().is_none_or(|dump| dump.process != process) {
            *slot = None;
            return Ok(slot.insert(JitDump::new(process)?));
        }
        slot.as_mut().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn new(process: u32) -> io::Result<JitDump> {
        let path = folder::new()?.join(format!("jit-{process}.dump"));
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        let mut file = options.open(&path)?;
        require_memory().map_err(no_memory)?;
        let mut header = Vec::with_capacity(HEADER_SIZE as usize);
        let machine = u32::from(MACHINE.e_machine);
        for word in [MAGIC, VERSION, HEADER_SIZE, machine, 0, process] {
            header.extend_from_slice(&word.to_ne_bytes());
        }
        for word in [now(), 0] {
            header.extend_from_slice(&word.to_ne_bytes());
        }
        file.write_all(&header)?;
        let marker = ExecutableMarker::new(&file)?;
        Ok(JitDump { file, process, count: 0, _marker: marker })
    }

    /// Records that these functions exist from now on.
    pub(super) fn add<'a>(
        &mut self,
        functions: impl Iterator<Item = Result<NamedCode<'a>, Error>>,
    ) -> io::Result<()> {
        require_memory().map_err(no_memory)?;
        // SAFETY: no preconditions.
        let thread = unsafe { libc::gettid() }.cast_unsigned();
        let time = now();
        let mut out = BufWriter::new(&self.file);
        for function in functions {
            require_memory().map_err(no_memory)?;
            let NamedCode { addresses, name, code, lines } = function.map_err(no_memory)?;
            if !lines.is_empty() {
                // It comes before the code to which it belongs.
                let record = debug_info(addresses.start, &lines).map_err(no_memory)?;
                write_record(&mut out, CODE_DEBUG_INFO, time, &[&record])?;
            }
            let (start, size) = (addresses.start as u64, code.len() as u64);
            let mut body = try_vec(name.len().saturating_add(41)).map_err(no_memory)?;
            for word in [self.process, thread] {
                body.extend_from_slice(&word.to_ne_bytes());
            }
            // The address, twice: perf supports code that is written at one address and runs at another.
            for word in [start, start, size, self.count] {
                body.extend_from_slice(&word.to_ne_bytes());
            }
            body.extend_from_slice(name.as_bytes());
            body.push(0);
            write_record(&mut out, CODE_LOAD, time, &[&body, code])?;
            self.count = self.count.wrapping_add(1);
        }
        out.flush()
    }

    /// Ends the dump, at the end of the process.
    pub(super) fn finish(&mut self) {
        if self.process == process::id() {
            // The end of the file says the same.
            let _ = write_record(&mut self.file, CODE_CLOSE, now(), &[]);
        }
    }
}

/// Where lines begin, without the record's prefix.
fn debug_info(function: usize, lines: &[(usize, Line)]) -> Result<Vec<u8>, Error> {
    let mut record = Vec::new();
    for word in [function, lines.len()] {
        record.extend_from_slice(&(word as u64).to_ne_bytes());
    }
    for (address, line) in lines {
        record.try_append(&(*address as u64).to_ne_bytes())?;
        // The second is a discriminator, which no reader uses.
        for word in [line.line, 0] {
            record.try_append(&word.to_ne_bytes())?;
        }
        record.try_append(try_format(format_args!("{}", Escaped(&line.file)))?.as_bytes())?;
        record.try_push(0)?;
    }
    Ok(record)
}

fn write_record(out: &mut impl Write, kind: u32, time: u64, parts: &[&[u8]]) -> io::Result<()> {
    let add = |size: usize, part: &&[u8]| size.saturating_add(part.len());
    let size = parts.iter().fold(PREFIX_SIZE, add);
    let size = u32::try_from(size).map_err(|_| io::Error::other("a function of 4 GiB"))?;
    out.write_all(&kind.to_ne_bytes())?;
    out.write_all(&size.to_ne_bytes())?;
    out.write_all(&time.to_ne_bytes())?;
    parts.iter().try_for_each(|part| out.write_all(part))
}

/// In nanoseconds, as `perf record -k 1` counts.
fn now() -> u64 {
    // SAFETY: writes to the local only.
    let now = unsafe {
        let mut now: libc::timespec = std::mem::zeroed();
        libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now);
        now
    };
    let seconds = now.tv_sec.unsigned_abs().saturating_mul(1_000_000_000);
    seconds.saturating_add(now.tv_nsec.unsigned_abs())
}
