//! From an address in an image to function, file and line: for those who print backtraces.
//!
//! Whatever prints a backtrace asks the C library which file an address is from, and reads that
//! file. Images are from no file, so their frames stay without a name. [`symbolize`] names them,
//! from what is kept for debuggers: the DWARF, or if there is none the symbol table, or if nothing
//! was kept ([`Debug::Off`](crate::Debug::Off)) the image's own dynamic symbols.
//!
//! Reading DWARF is the business of addr2line. What it has read of an image is kept until the image
//! goes, with a copy of the image's debug sections; nothing is read before somebody asks.
//!
//! Source: DWARF 5, 6.2 (lines), 3.3 (subroutines, inlined ones too).

#![forbid(unsafe_code)]

use std::backtrace::Backtrace;
use std::borrow::Cow;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use addr2line::gimli::{self, EndianArcSlice, LittleEndian};

use crate::addr::Vaddr;
use crate::arch;
use crate::debug::Presence;
use crate::demangle::demangled;
use crate::escape::Escaped;
use crate::group::{self, Loaded};
use crate::sync::{Guard, Lock, Rank};

/// A function of an image that an address is in, see [`symbolize`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    image: Arc<str>,
    address: Vaddr,
    is_inlined: bool,
    linkage_name: Option<String>,
    file: Option<PathBuf>,
    line: Option<u32>,
    column: Option<u32>,
}

impl Frame {
    /// What the image is called.
    pub fn image(&self) -> &str {
        &self.image
    }

    /// The address, as the image states it: what `addr2line` and `objdump` want to know.
    pub fn address(&self) -> Vaddr {
        self.address
    }

    /// Whether the function is a part of that of the next frame, and none of its own.
    pub fn is_inlined(&self) -> bool {
        self.is_inlined
    }

    /// The function's name, as people write it.
    pub fn function(&self) -> Option<Cow<'_, str>> {
        self.linkage_name.as_deref().map(demangled)
    }

    /// The function's name, as linkers know it.
    pub fn linkage_name(&self) -> Option<&str> {
        self.linkage_name.as_deref()
    }

    /// The source file.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// The line in it, from 1 on.
    pub fn line(&self) -> Option<u32> {
        self.line
    }

    /// The column in it, from 1 on.
    pub fn column(&self) -> Option<u32> {
        self.column
    }
}

/// As `work(int) at /src/work.c:12:5 [libwork.so]`, as much of it as is known. Control characters and
/// invisible ones are escaped.
impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.function() {
            Some(name) => write!(f, "{}", Escaped(name))?,
            None => write!(f, "{:#x}", self.address.0)?,
        }
        if let Some(file) = &self.file {
            write!(f, " at {}", Escaped(file.display()))?;
            for number in [self.line, self.column].into_iter().map_while(|it| it) {
                write!(f, ":{number}")?;
            }
        }
        write!(f, " [{}]", Escaped(&self.image))
    }
}

/// The functions that `address` lies in, if it lies in an image: the innermost inlined one first,
/// last the one that is not inlined. Empty for an address that is in no image.
///
/// What a backtrace says of a caller is the address that it will return to, which may be that of the
/// next line or even of the next function: ask for the byte before it.
///
/// Files and lines are known of images that were loaded with [`Debug::Full`](crate::Debug::Full),
/// [`Symbols`](crate::Debug::Symbols) or [`Portable`](crate::Debug::Portable) and were built with
/// debug information.
///
/// # In a signal handler
/// This allocates and takes locks. A thread that a signal has interrupted may hold one of those, and
/// then this never returns. In a handler that ends the process anyhow that is a risk that many take
/// (with `alarm(2)`, so that it ends in any case, and with a stack that is large enough: an alternate
/// one of 8 KiB is not). Where it is not acceptable, note the addresses in
/// the handler, write them to a pipe, and let another thread, or a later time, do the rest.
///
/// ```no_run
/// # fn in_a_handler(address: usize) {
/// memdl::symbolize(address).iter().for_each(|frame| eprintln!("{frame}"));
/// # }
/// ```
pub fn symbolize(address: usize) -> Vec<Frame> {
    let Some((group, index)) = group::image_at(address) else { return Vec::new() };
    // What is taken in there is given back before the group: its end takes it too.
    frames(group.member(index), address)
}

/// The text of a backtrace, with the frames of images named: where the standard library says
/// `<unknown>`, it says what [`symbolize`] knows. The images must not have been unloaded since.
///
/// In a panic hook:
///
/// ```
/// use std::backtrace::Backtrace;
///
/// std::panic::set_hook(Box::new(|panic| {
///     eprintln!("{panic}\n{}", memdl::symbolize_backtrace(&Backtrace::force_capture()))
/// }));
/// # let _ = std::panic::take_hook();
/// ```
pub fn symbolize_backtrace(backtrace: &Backtrace) -> String {
    // The long form, since only that tells the addresses of frames without a name.
    let text = format!("{backtrace:#}");
    let mut named = String::with_capacity(text.len());
    // It is not a call that brought the frame below a signal handler there.
    let (signal_returns, mut is_interrupted) = (arch::signal_returns(), false);
    for line in text.lines() {
        let frame = NumberedFrame::parse(line);
        let frames = match &frame {
            Some(frame) if frame.name == "<unknown>" => {
                symbolize(frame.address.saturating_sub(usize::from(!is_interrupted)))
            }
            _ => Vec::new(),
        };
        let start = frame.as_ref().map_or(line, |frame| frame.start);
        named.push_str(if frames.is_empty() { line } else { start });
        for (count, frame) in frames.iter().enumerate() {
            if count > 0 {
                // As the standard library does it: below the number, and without one.
                named.push('\n');
                named.extend(std::iter::repeat_n(' ', start.len()));
            }
            // Writing to a string cannot fail.
            let _ = write!(named, "{frame}");
        }
        named.push('\n');
        if let Some(frame) = frame {
            is_interrupted = signal_returns.contains(&frame.address);
        }
    }
    named
}

/// A line of a backtrace: `   5:     0x7fbe44fae107 - main`.
#[derive(Debug, PartialEq, Eq)]
struct NumberedFrame<'a> {
    /// All but the name.
    start: &'a str,
    address: usize,
    name: &'a str,
}

impl<'a> NumberedFrame<'a> {
    fn parse(line: &'a str) -> Option<NumberedFrame<'a>> {
        let (number, rest) = line.split_once(':')?;
        number.trim_start().parse::<usize>().ok()?;
        let (address, name) = rest.trim_start().strip_prefix("0x")?.split_once(" - ")?;
        let address = usize::from_str_radix(address, 16).ok()?;
        let start = line.get(..line.len().checked_sub(name.len())?)?;
        Some(NumberedFrame { start, address, name })
    }
}

/// What was read of an image, or that there is nothing to be read; by where the image starts.
static READ: Lock<BTreeMap<usize, Option<Dwarf>>> = Lock::new(Rank::Lines, BTreeMap::new());

fn lock() -> Guard<'static, BTreeMap<usize, Option<Dwarf>>> {
    READ.lock()
}

/// Forgets what was read of an image that starts here: there is other debug information of it now.
pub(crate) fn forget(start: usize) {
    drop(Forget { start });
}

/// Whether some thread is reading just now.
pub(crate) fn is_busy() -> bool {
    READ.try_lock().is_none()
}

/// Forgets what was read of an image when it is dropped, with the image.
pub(crate) struct Forget {
    /// Where the image starts.
    pub(crate) start: usize,
}

impl Drop for Forget {
    fn drop(&mut self) {
        let read = lock().remove(&self.start);
        drop(read);
    }
}

fn frames(loaded: &Loaded, address: usize) -> Vec<Frame> {
    thread_local! {
        /// Whether this thread is in here already: it panics here, and the hook asks again.
        static INSIDE: Cell<bool> = const { Cell::new(false) };
    }
    let stated = loaded.mapping.load_bias().remove(address);
    let mut places = Vec::new();
    if !INSIDE.replace(true) {
        let start = loaded.mapping.address_range().start;
        let mut read = lock();
        let dwarf = read.entry(start).or_insert_with(|| Dwarf::of(&loaded.debug));
        places = dwarf.as_ref().map_or_else(Vec::new, |dwarf| dwarf.places(stated));
        drop(read);
        INSIDE.set(false);
    }
    if places.is_empty() {
        places.push(Place::default());
    }
    if let Some(outermost) = places.last_mut()
        && outermost.function.is_none()
    {
        outermost.function = function_by_symbol(loaded, address);
    }
    let count = places.len();
    let frame = |(index, place): (usize, Place)| Frame {
        image: loaded.name.clone(),
        address: stated,
        is_inlined: index + 1 < count,
        linkage_name: place.function,
        file: place.file.map(PathBuf::from),
        line: place.line,
        column: place.column,
    };
    places.into_iter().enumerate().map(frame).collect()
}

/// By the symbol table that debuggers are given, or else by what the image exports.
fn function_by_symbol(loaded: &Loaded, address: usize) -> Option<String> {
    let name = loaded.debug.function_at(address).or_else(|| {
        let (_, symbol) = loaded.symbol_at(address)?;
        Some(loaded.symbols().string(symbol.st_name)?.to_vec())
    });
    name.map(|name| String::from_utf8_lossy(&name).into_owned())
}

/// What DWARF says of an address.
#[derive(Default)]
struct Place {
    function: Option<String>,
    file: Option<String>,
    line: Option<u32>,
    column: Option<u32>,
}

/// A line of the source, and from where on the code is its.
pub(crate) struct Line {
    pub address: Vaddr,
    pub file: String,
    pub line: u32,
}

/// The DWARF of an image.
pub(crate) struct Dwarf(addr2line::Context<EndianArcSlice<LittleEndian>>);

impl Dwarf {
    /// What is kept for debuggers; `None` if that is nothing, or cannot be read.
    pub(crate) fn of(presence: &Presence) -> Option<Dwarf> {
        let mut sections = presence.debug_sections();
        if sections.is_empty() {
            return None;
        }
        let dwarf = gimli::Dwarf::load(|id| {
            let contents = sections.remove(id.name()).unwrap_or_default();
            Ok::<_, gimli::Error>(EndianArcSlice::new(contents.into(), LittleEndian))
        });
        addr2line::Context::from_dwarf(dwarf.ok()?).ok().map(Dwarf)
    }

    /// The functions that an address lies in, the innermost first.
    fn places(&self, address: Vaddr) -> Vec<Place> {
        let mut places = Vec::new();
        // Debug information that is split off into files is not looked for.
        let Ok(mut frames) = self.0.find_frames(address.0).skip_all_loads() else { return places };
        while let Ok(Some(frame)) = frames.next() {
            let location = frame.location.as_ref();
            let name = |function: &addr2line::FunctionName<_>| {
                function.raw_name().ok().map(Cow::into_owned).filter(|name| !name.is_empty())
            };
            let numbers = location.map(|it| [it.line, it.column]).unwrap_or_default();
            let [line, column] = numbers.map(|number| number.filter(|&number| number > 0));
            places.push(Place {
                function: frame.function.as_ref().and_then(name),
                file: location.and_then(|location| location.file).map(str::to_owned),
                line,
                column,
            });
        }
        places
    }

    /// The lines of a range of code, ascending.
    pub(crate) fn lines(&self, addresses: Range<Vaddr>) -> Vec<Line> {
        let Range { start, end } = addresses;
        let Ok(locations) = self.0.find_location_range(start.0, end.0) else { return Vec::new() };
        let line = |(address, _, location): (u64, u64, addr2line::Location<'_>)| {
            let file = location.file?.to_owned();
            Some(Line { address: Vaddr(address.max(start.0)), file, line: location.line? })
        };
        locations.filter_map(line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_frame_says_is_one_line_whatever_its_names() {
        let frame = Frame {
            image: "lib\r.so".into(),
            address: Vaddr(0x10),
            is_inlined: false,
            linkage_name: Some("f\u{1b}[2J\nroot".into()),
            file: Some("/src/\u{202e}c.\n".into()),
            line: Some(7),
            column: None,
        };
        let shown = r"f\u{1b}[2J\nroot at /src/\u{202e}c.\n:7 [lib\r.so]";
        assert_eq!(frame.to_string(), shown);
        assert_eq!(frame.linkage_name(), Some("f\u{1b}[2J\nroot"));
    }

    #[test]
    fn the_lines_of_a_backtrace_are_read() {
        let start = "  15:     0x7fbe44fae107 - ";
        for name in ["<unknown>", "main", "<a as b>::c: 0x1 - d"] {
            let line = format!("{start}{name}");
            let frame = NumberedFrame { start, address: 0x7fbe_44fa_e107, name };
            assert_eq!(NumberedFrame::parse(&line), Some(frame));
        }
        let others = ["   5: <unknown>", "          at /rustc/x.rs:1:2", "main: 0x10 - x", ""];
        assert!(others.iter().all(|line| NumberedFrame::parse(line).is_none()));
    }
}
