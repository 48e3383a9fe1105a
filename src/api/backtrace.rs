//! Names the function, file and line of addresses in images, for backtraces.
//!
//! Code that prints a backtrace asks the C library which file an address is from, and reads that file. Images
//! have no file, so their frames would have no name. [`symbolize`] names them from the debug information
//! that is kept for debuggers: from the DWARF, or else from the symbol table, or, with
//! [`DebugLevel::Off`](crate::DebugLevel::Off), from the image's own dynamic symbols.
//!
//! [`crate::debug::lines`] reads the DWARF of an image at the first query, and [`crate::debug::read_lines`]
//! keeps the result until the image is unloaded.
//!
//! Source: DWARF 5, 6.2 (lines), 3.3 (subroutines, inlined ones too).

#![forbid(unsafe_code)]

use std::backtrace::Backtrace;
use std::borrow::Cow;
use std::cell::Cell;
use std::fmt::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::arch;
use crate::base::addr::Vaddr;
use crate::base::demangle::demangled;
use crate::base::escape::Escaped;
use crate::base::fallible::{has_spare_memory, try_copy, try_lossy, try_vec};
use crate::debug::lines::SourceFrame;
use crate::images::group::LoadedImage;
use crate::images::registry;
use crate::memory::process_memory;

/// A function of an image that an address lies in: see [`symbolize`].
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
    /// The image's name.
    ///
    /// ```
    /// # let frame = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/frame.rs"));
    /// assert_eq!(frame.image(), "libexample.so");
    /// ```
    #[must_use]
    pub fn image(&self) -> &str {
        &self.image
    }

    /// The address relative to the image's load bias: the one that `addr2line` and `objdump` take.
    ///
    /// ```
    /// # let library = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/library.rs"));
    /// let foo = library.symbols().find(|symbol| symbol.name() == "foo").unwrap();
    /// let frame = memdl::symbolize(foo.address()).remove(0);
    /// assert_eq!(frame.address().0 as usize, foo.address() - library.load_bias());
    /// ```
    #[must_use]
    pub fn address(&self) -> Vaddr {
        self.address
    }

    /// Whether the function was inlined into the function of the next frame.
    ///
    /// ```
    /// # let library = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/library.rs"));
    /// # let foo = library.symbols().find(|symbol| symbol.name() == "foo").unwrap();
    /// # let in_twice = (foo.address()..).find(|at| memdl::symbolize(*at).len() > 1).unwrap();
    /// // `twice` was inlined into `foo`.
    /// let [twice, foo] = &memdl::symbolize(in_twice)[..] else { panic!() };
    /// assert!(twice.is_inlined() && !foo.is_inlined());
    /// ```
    #[must_use]
    pub fn is_inlined(&self) -> bool {
        self.is_inlined
    }

    /// The demangled name of the function.
    ///
    /// ```
    /// # let frame = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/frame.rs"));
    /// assert_eq!(frame.function().as_deref(), Some("foo"));
    /// ```
    pub fn function(&self) -> Option<Cow<'_, str>> {
        self.linkage_name.as_deref().map(demangled)
    }

    /// The linkage name of the function.
    ///
    /// ```
    /// # let frame = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/frame.rs"));
    /// assert_eq!(frame.linkage_name(), Some("foo")); // in C++ such as `_ZN3foo3barEi`
    /// ```
    #[must_use]
    pub fn linkage_name(&self) -> Option<&str> {
        self.linkage_name.as_deref()
    }

    /// The source file.
    ///
    /// ```
    /// # let frame = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/frame.rs"));
    /// assert!(frame.file().unwrap().ends_with("docs/example/example.c"));
    /// ```
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// The line in it, from 1 on.
    ///
    /// ```
    /// # let frame = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/frame.rs"));
    /// assert_eq!(frame.line(), Some(11));
    /// ```
    #[must_use]
    pub fn line(&self) -> Option<u32> {
        self.line
    }

    /// The column in it, from 1 on.
    ///
    /// ```
    /// # let frame = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/frame.rs"));
    /// assert!(frame.column().is_some_and(|column| column > 1));
    /// ```
    #[must_use]
    pub fn column(&self) -> Option<u32> {
        self.column
    }
}

/// Formats as `work(int) at /src/work.c:12:5 [libwork.so]`, without the parts that are unknown. Control
/// characters and invisible characters are escaped.
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

/// The functions that `address` lies in: the innermost inlined one first, the one that is not inlined last.
/// Empty for an address outside all images.
///
/// A backtrace has return addresses, which may belong to the next line or even to the next function: pass the
/// address of the byte before.
///
/// Files and lines are known for images that were loaded with [`DebugLevel::Full`](crate::DebugLevel::Full),
/// [`Symbols`](crate::DebugLevel::Symbols) or [`Portable`](crate::DebugLevel::Portable) and were built with debug
/// information.
///
/// ```
/// # let library = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/library.rs"));
/// let foo = library.symbols().find(|symbol| symbol.name() == "foo").unwrap();
/// let frames = memdl::symbolize(foo.address());
/// assert!(frames[0].to_string().starts_with("foo at "));
/// ```
///
/// # What it costs
/// The first call for an image reads its debug information; further calls read little or nothing. Files that
/// compilers wrote are read in time proportional to their size. Files that were made to be slow have a budget
/// for each image: 12 million steps and 16 for each byte that its debug sections take in the file, where a
/// step reads an attribute or a row of a table (about 5 ns); and 32 MiB of memory and 4 bytes for each of
/// theirs, besides a copy of the sections. When the budget is spent, the result has what was found until
/// then, and otherwise the names in the symbol table; one warning is logged. It needs less than 64 KiB of
/// stack.
///
/// While it reads, only threads that ask about the same image wait. Without memory to read debug information,
/// the result has the names in the symbol table; without memory for a frame, it is empty.
///
/// # In a signal handler
/// This allocates and takes locks. If a signal interrupts a thread that holds one of those locks, this never
/// returns. In a handler that ends the process anyway, many accept that risk (with `alarm(2)`, so that it
/// ends in any case, and with a stack that is large enough: an alternate stack of 8 KiB is not). Where it is
/// not acceptable, store the addresses in the handler, write them to a pipe, and let another thread, or a
/// later time, do the rest.
///
/// ```no_run
/// # fn in_a_handler(address: usize) {
/// memdl::symbolize(address).iter().for_each(|frame| eprintln!("{frame}"));
/// # }
/// ```
#[must_use]
pub fn symbolize(address: usize) -> Vec<Frame> {
    let Some(image) = registry::image_at(address) else { return Vec::new() };
    if !has_spare_memory() {
        return Vec::new();
    }
    frames(image.image(), address)
}

/// The text of a backtrace, with the frames of images named: where the standard library prints `<unknown>`,
/// this prints the answer of [`symbolize`]. The images must not have been unloaded since the backtrace was
/// taken.
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
    // Only the long form has the addresses of frames.
    with_frames_named(&format!("{backtrace:#}"), symbolize)
}

/// The text, with the frames that `symbolize` names replaced.
///
/// The standard library records the loaded libraries when it is first asked. If a library was closed since,
/// and an image lies at its addresses now, it prints names of that library. So its names are ignored for any
/// address in an image.
fn with_frames_named(text: &str, symbolize: impl Fn(usize) -> Vec<Frame>) -> String {
    let mut named = String::new();
    // The frame below a signal handler was interrupted: its address is not a return address.
    let read = |address, bytes: &mut [u8]| process_memory::read(address, bytes).is_ok();
    let (is_signal_return, mut is_interrupted) = (arch::is_signal_return(read), false);
    let mut is_replaced = false;
    for line in text.lines() {
        let frame = NumberedFrame::parse(line);
        let frames = match &frame {
            Some(frame) => symbolize(frame.address.saturating_sub(usize::from(!is_interrupted))),
            // The source location of the frame before, or a function that was inlined there.
            None if is_replaced && line.starts_with(' ') => continue,
            None => Vec::new(),
        };
        is_replaced = !frames.is_empty();
        let start = frame.as_ref().map_or(line, |frame| frame.start);
        named.push_str(if frames.is_empty() { line } else { start });
        for (count, frame) in frames.iter().enumerate() {
            if count > 0 {
                // As the standard library prints inlined functions: indented, without a number.
                named.push('\n');
                named.extend(std::iter::repeat_n(' ', start.len()));
            }
            // Writing to a string cannot fail.
            let _ = write!(named, "{frame}");
        }
        named.push('\n');
        if let Some(frame) = frame {
            is_interrupted = is_signal_return(frame.address);
        }
    }
    named
}

/// A line of a backtrace: `   5:     0x7fbe44fae107 - main`.
#[derive(Debug, PartialEq, Eq)]
struct NumberedFrame<'a> {
    /// The part before the name.
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

fn frames(loaded: &LoadedImage, address: usize) -> Vec<Frame> {
    thread_local! {
        /// Whether this thread is already in this function: it panicked here, and the panic hook asks again.
        static INSIDE: Cell<bool> = const { Cell::new(false) };
    }
    struct Outside;
    impl Drop for Outside {
        fn drop(&mut self) {
            INSIDE.set(false);
        }
    }
    let stated = loaded.mapping.load_bias().remove(address);
    let mut sources = Vec::new();
    if !INSIDE.replace(true) {
        let _outside = Outside;
        sources = loaded.read.frames(&loaded.debug, stated);
    }
    if sources.is_empty() {
        sources.push(SourceFrame::default());
    }
    if let Some(outermost) = sources.last_mut()
        && outermost.function.is_none()
    {
        outermost.function = function_by_symbol(loaded, address);
    }
    let outermost = sources.len().saturating_sub(1);
    let Ok(mut frames) = try_vec(sources.len()) else { return Vec::new() };
    let frame = |(index, source): (usize, SourceFrame)| Frame {
        image: loaded.name.clone(),
        address: stated,
        is_inlined: index < outermost,
        linkage_name: source.function,
        file: source.file.map(PathBuf::from),
        line: source.line,
        column: source.column,
    };
    frames.extend(sources.into_iter().enumerate().map(frame));
    frames
}

/// The function's name in the symbol table that debuggers see, or else in the dynamic symbols.
fn function_by_symbol(loaded: &LoadedImage, address: usize) -> Option<String> {
    let name = loaded.debug.function_at(address).or_else(|| {
        let (_, symbol) = loaded.symbol_at(address)?;
        try_copy(loaded.symbols().string(symbol.st_name)?).ok()
    });
    name.and_then(|name| try_lossy(&name).ok())
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
    fn a_frame_of_an_image_is_not_named_after_a_library_that_was_there() {
        let text = "   0:           0x401001 - host\n\
                    \x20                              at /src/host/ld_so.rs:1:2\n   \
                    1:           0x500001 - closed::inlined\n\
                    \x20                              at /src/closed.rs:3:4\n\
                    \x20                        - closed\n\
                    \x20                              at /src/closed.rs:5:6\n   \
                    2:           0x402001 - main\n";
        let image = |address| {
            let frame = Frame {
                image: "image".into(),
                address: Vaddr(0x1000),
                is_inlined: false,
                linkage_name: Some("work".into()),
                file: None,
                line: None,
                column: None,
            };
            // The byte before the return address.
            if address == 0x50_0000 { vec![frame] } else { Vec::new() }
        };
        let expected = "   0:           0x401001 - host\n\
                        \x20                              at /src/host/ld_so.rs:1:2\n   \
                        1:           0x500001 - work [image]\n   \
                        2:           0x402001 - main\n";
        assert_eq!(with_frames_named(text, image), expected);
        assert_eq!(with_frames_named(text, |_| Vec::new()), text);
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
