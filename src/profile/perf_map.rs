//! `/tmp/perf-PID.map`: a line `START SIZE name` for each function, numbers in hexadecimal.
//!
//! Any user can guess the name of the file and write to the folder, so nothing there is trusted: a link is
//! never followed, and a file that others can write to is never written to. perf in
//! turn reads the file only if it belongs to the process's user.
//!
//! The file may be shared with other runtimes of the process, which append to it and know nothing
//! of each other. So it is never truncated or renamed. Lines are appended at its end, and lines that are no
//! longer true are overwritten with newlines, which readers skip, if the file still has there what was
//! written. Such gaps are used again, so that a process that loads and unloads for days does not fill the
//! disk.
//!
//! perf does not document which of two lines for an address it uses (usually the first), so there must be
//! only one: lines of an unloaded image are removed when its addresses are used again.
//!
//! A forked child has another number and so another file. It makes one at its first load, with the lines of
//! the images that it has inherited.
//!
//! Sources: Linux `tools/perf/Documentation/jit-interface.txt`; `tools/perf/util/symbol.c`
//! (`dso__load_perf_map`).

#![allow(unsafe_code)]

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, Write};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process;
use std::time::{Duration, SystemTime};

use super::named_code::no_memory;
use crate::base::fallible::{TryGrow, require_memory, try_zeroed};

/// How many bytes of lines of unloaded images are kept.
const MAX_RETIRED: u64 = 64 << 20;

/// How much older than the process a file may seem to be that the process made. The kernel takes a file's time
/// from a clock that goes in ticks of up to 10 ms, and a busy virtual machine gets its ticks late. No
/// number of a process is used again within that time.
const SLACK: Duration = Duration::from_millis(250);

/// This process's map.
pub(super) struct PerfMap {
    file: File,
    path: PathBuf,
    process: u32,
    /// Whether memdl has made it.
    is_ours: bool,
    /// Whether it stays when the process ends.
    keep: bool,
    /// In the order in which images were loaded.
    blocks: Vec<Block>,
    /// The parts of the file with nothing but newlines, ascending.
    gaps: Vec<Range<u64>>,
}

/// The lines of one image.
struct Block {
    /// The addresses of the image.
    addresses: Range<usize>,
    /// Their place in the file.
    place: Range<u64>,
    /// Whether they stay when the image is unloaded.
    keep: bool,
    is_live: bool,
}

impl PerfMap {
    /// The map in `slot` if it is this process's, or else a new one.
    pub(super) fn of_this_process(slot: &mut Option<PerfMap>) -> io::Result<&mut PerfMap> {
        let process = process::id();
        if slot.as_ref().is_none_or(|map| map.process != process) {
            require_memory().map_err(no_memory)?;
            let path = PathBuf::from(format!("/tmp/perf-{process}.map"));
            let (file, is_ours) = open(&path)?;
            let (blocks, gaps) = (Vec::new(), Vec::new());
            let mut map = PerfMap { file, path, process, is_ours, keep: false, blocks, gaps };
            if let Some(parents) = slot {
                map.inherit(parents)?;
            }
            return Ok(slot.insert(map));
        }
        slot.as_mut().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Copies the lines of the images that are loaded from the map of the parent process.
    fn inherit(&mut self, parents: &PerfMap) -> io::Result<()> {
        for block in parents.blocks.iter().filter(|block| block.is_live) {
            // The parent may have unloaded it meanwhile, and overwritten the lines.
            if let Some(rows) = parents.rows(block) {
                self.add(block.addresses.clone(), &rows, block.keep)?;
            }
        }
        Ok(())
    }

    /// Writes the lines of an image.
    pub(super) fn add(
        &mut self,
        addresses: Range<usize>,
        rows: &str,
        keep: bool,
    ) -> io::Result<()> {
        // Images that had these addresses are unloaded.
        self.erase(|block| {
            block.addresses.start < addresses.end && addresses.start < block.addresses.end
        })?;
        self.blocks.try_room(1).map_err(no_memory)?;
        let place = self.write(rows.as_bytes())?;
        self.keep |= keep;
        self.blocks.push(Block { addresses, place, keep, is_live: true });
        Ok(())
    }

    /// Writes bytes into a gap or at the end, and returns their place.
    fn write(&mut self, bytes: &[u8]) -> io::Result<Range<u64>> {
        let len = bytes.len() as u64;
        let fits = |gap: &Range<u64>| len_of(gap) >= len;
        while let Some(index) = self.gaps.iter().position(fits) {
            let Range { start, end } = self.gaps.remove(index);
            if !self.read(start..end).is_some_and(|found| found.iter().all(|&it| it == b'\n')) {
                // Another writer has truncated the file or written there: this is no gap any more.
                continue;
            }
            self.file.write_all_at(bytes, start)?;
            // It fits.
            let behind = start.saturating_add(len);
            if behind < end {
                // There was one.
                self.gaps.insert(index, behind..end);
            }
            return Ok(start..behind);
        }
        // Others append too: only the kernel knows where the end is at that moment.
        set_appending(&self.file, true)?;
        let written = (&self.file).write_all(bytes);
        let end = (&self.file).stream_position();
        set_appending(&self.file, false)?;
        written?;
        let end = end?;
        Ok(end.saturating_sub(len)..end)
    }

    /// Removes the lines of these blocks from the file.
    fn erase(&mut self, is_void: impl Fn(&Block) -> bool) -> io::Result<()> {
        const NEWLINES: [u8; 1024] = [b'\n'; 1024];
        // Without memory to read them, lines stay: other images may have written to their place.
        while let Some(index) = self.blocks.iter().position(&is_void) {
            let block = self.blocks.remove(index);
            let Some(rows) = self.rows(&block) else { continue };
            let mut at = block.place.start;
            for part in rows.as_bytes().chunks(NEWLINES.len()) {
                let newlines = NEWLINES.get(..part.len()).unwrap_or_default();
                self.file.write_all_at(newlines, at)?;
                at = at.saturating_add(part.len() as u64);
            }
            self.add_gap(block.place);
        }
        Ok(())
    }

    fn add_gap(&mut self, gap: Range<u64>) {
        if self.gaps.try_room(1).is_err() {
            // The gap is not used again.
            return;
        }
        let index = self.gaps.partition_point(|other| other.start < gap.start);
        self.gaps.insert(index, gap);
        for second in [index.saturating_add(1), index] {
            let Some(first) = second.checked_sub(1) else { continue };
            if let (Some(before), Some(behind)) = (self.gaps.get(first), self.gaps.get(second))
                && before.end == behind.start
            {
                let merged = before.start..behind.end;
                self.gaps.splice(first..=second, [merged]);
            }
        }
    }

    /// The bytes at this place of the file.
    fn read(&self, place: Range<u64>) -> Option<Vec<u8>> {
        let len = usize::try_from(place.end.checked_sub(place.start)?).ok()?;
        let mut bytes = try_zeroed(len).ok()?;
        self.file.read_exact_at(&mut bytes, place.start).ok()?;
        Some(bytes)
    }

    /// The lines of a block, if they are still there: whole lines, each with an address in the image.
    fn rows(&self, block: &Block) -> Option<String> {
        let rows = String::from_utf8(self.read(block.place.clone())?).ok()?;
        let is_ours = |row: &str| {
            let start = row.split(' ').next().unwrap_or_default();
            usize::from_str_radix(start, 16).is_ok_and(|start| block.addresses.contains(&start))
        };
        let is_whole = rows.is_empty() || rows.ends_with('\n');
        (is_whole && rows.lines().all(is_ours)).then_some(rows)
    }

    /// The image that starts at `start` is unloaded.
    fn retire(&mut self, start: usize) -> io::Result<()> {
        let is_it = |block: &Block| block.is_live && block.addresses.start == start;
        if let Some(block) = self.blocks.iter_mut().find(|block| is_it(block)) {
            block.is_live = false;
        }
        let len = |block: &Block| len_of(&block.place);
        let retired = |block: &&Block| !block.is_live && block.keep;
        let mut excess = self.blocks.iter().filter(retired).map(len).sum::<u64>();
        let mut oldest = Vec::new();
        for block in self.blocks.iter().filter(retired) {
            if excess <= MAX_RETIRED {
                break;
            }
            excess = excess.saturating_sub(len(block));
            if oldest.try_push(block.place.start).is_err() {
                break;
            }
        }
        self.erase(|block| !block.is_live && (!block.keep || oldest.contains(&block.place.start)))
    }

    /// Removes the file at the end of the process, unless it stays.
    pub(super) fn finish(&mut self) {
        if self.process == process::id() && !self.keep {
            self.unlink();
        }
    }

    /// Removes the file if it is memdl's, and still the one of that name.
    fn unlink(&mut self) {
        let is_same = || {
            let (ours, named) =
                (self.file.metadata().ok()?, fs::symlink_metadata(&self.path).ok()?);
            Some((ours.dev(), ours.ino()) == (named.dev(), named.ino()))
        };
        if self.is_ours && is_same() == Some(true) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The image that starts at `start` is unloaded.
pub(super) fn remove(slot: &mut Option<PerfMap>, start: usize) -> io::Result<()> {
    let Some(map) = slot else { return Ok(()) };
    if map.process != process::id() {
        // A forked child that has loaded nothing yet: the map is the parent's, which has the image.
        map.blocks.retain(|block| block.addresses.start != start);
        return Ok(());
    }
    let erased = map.retire(start);
    if map.blocks.is_empty() && !map.keep && map.is_ours {
        map.unlink();
        *slot = None;
    }
    erased
}

/// The length of this part of the file.
fn len_of(place: &Range<u64>) -> u64 {
    place.end.saturating_sub(place.start)
}

/// Opens the map, and returns whether it was created.
fn open(path: &Path) -> io::Result<(File, bool)> {
    let mut options = OpenOptions::new();
    let flags = libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK;
    options.read(true).write(true).mode(0o600).custom_flags(flags);
    let make = || options.clone().create_new(true).open(path).map(|file| (file, true));
    match make() {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => return made,
    }
    let file = options.open(path)?;
    let decoded = file.metadata()?;
    // SAFETY: no preconditions.
    let user = unsafe { libc::geteuid() };
    if !decoded.is_file()
        || decoded.uid() != user
        || decoded.nlink() != 1
        || decoded.mode() & 0o002 != 0
    {
        return Err(io::Error::other("the file that is there is not this process's alone"));
    }
    if decoded.modified()? < started()? {
        // It belonged to an earlier process with this number.
        fs::remove_file(path)?;
        return make();
    }
    Ok((file, false))
}

/// A time before which nothing was written by this process: when it was started, or forked, less [`SLACK`].
fn started() -> io::Result<SystemTime> {
    let unknown = || io::Error::other("/proc does not tell when this process was started");
    let stat = fs::read_to_string("/proc/self/stat")?;
    // The 22nd field; the second is in parentheses and may hold anything (`proc(5)`).
    let (_, fields) = stat.rsplit_once(')').ok_or_else(unknown)?;
    let ticks: u64 =
        fields.split_whitespace().nth(19).and_then(|it| it.parse().ok()).ok_or_else(unknown)?;
    // This clock is read first: where the thread waits between the two, the result is too early, not too late.
    let wall_clock = SystemTime::now();
    // SAFETY: plain system calls, one of which writes to the local.
    let (ticks_per_second, now) = unsafe {
        let mut now: libc::timespec = std::mem::zeroed();
        libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut now);
        (libc::sysconf(libc::_SC_CLK_TCK), now)
    };
    let tick =
        u64::try_from(ticks_per_second).ok().and_then(|it| 1_000_000_000_u64.checked_div(it));
    let tick = tick.ok_or_else(unknown)?;
    let since_boot = Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32);
    let start = Duration::from_nanos(ticks.saturating_mul(tick));
    let age = since_boot.saturating_sub(start).saturating_add(SLACK);
    wall_clock.checked_sub(age).ok_or_else(unknown)
}

/// Whether writes go to the end of the file, wherever that is.
fn set_appending(file: &File, appending: bool) -> io::Result<()> {
    let flags = if appending { libc::O_APPEND } else { 0 };
    // SAFETY: an open descriptor; of its flags only this one can be set here that matters.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, flags) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
