//! [`Symfile`]: what people call.

#![forbid(unsafe_code)]

use std::fmt;

use crate::base::addr::LoadBias;
use crate::base::fallible::try_copy;
use crate::base::limits::Limits;
use crate::builder::error::NotOpened;
use crate::builder::ifuncs::Ifuncs;
use crate::builder::instance::Instance;
use crate::builder::template::{Dwarf, Instances, SymfileTemplate};
use crate::dwarf::budget::Allowance;
use crate::dwarf::tls_locations::ThreadLocals;
use crate::error::Error;
use crate::heap::Heap;
use crate::image::{Image, build_id_of_file};
use crate::object;

/// The form of a symfile: which debuggers read all of it, and what it costs.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum Form {
    /// gdb from 8.1 on sees everything; lldb sees names and backtraces. It costs one copy of the debug sections,
    /// which are not read: they are a file inside the file, and gdb adds the load bias.
    #[default]
    Wrapped,
    /// gdb and lldb see everything. All of the debug information is read, about 1 ms for each MB. If it cannot be read
    /// with certainty (split DWARF), there is an [`Error::DebugInformation`].
    Portable,
}

/// How a symfile is made.
///
/// ```
/// use memdl_symfile::{Form, Options};
///
/// let options = Options::new().form(Form::Portable);
/// ```
#[derive(Clone, Debug)]
pub struct Options<'a> {
    form: Form,
    debug_info: Option<&'a [u8]>,
    thread_locals: ThreadLocals,
    limits: Limits,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Options {
            form: Form::default(),
            debug_info: None,
            thread_locals: ThreadLocals::Elsewhere,
            limits: Limits::default(),
        }
    }
}

impl<'a> Options<'a> {
    /// The defaults: [`Form::Wrapped`], no separate debug information.
    pub fn new() -> Options<'a> {
        Options::default()
    }

    /// The form. Objects have one form only: [`Form::Portable`].
    #[must_use]
    pub fn form(mut self, form: Form) -> Options<'a> {
        self.form = form;
        self
    }

    /// The file that was split off the image (`objcopy --only-keep-debug`, `eu-strip -f`). Its build-id must be the
    /// image's, where both have one.
    #[must_use]
    pub fn debug_info(mut self, file: &'a [u8]) -> Options<'a> {
        self.debug_info = Some(file);
        self
    }

    /// Where each thread has its block of the image's thread-local variables. Default [`ThreadLocals::Elsewhere`]:
    /// debuggers say of these variables that they are optimized out.
    #[must_use]
    pub fn thread_locals(mut self, thread_locals: ThreadLocals) -> Options<'a> {
        self.thread_locals = thread_locals;
        self
    }

    /// What may be spent.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Options<'a> {
        self.limits = limits;
        self
    }

    fn allowance(&self, len: usize) -> Allowance {
        Allowance::new(self.limits, len)
    }
}

/// An ELF file for debuggers. It describes code at its run-time addresses.
///
/// `AsRef<[u8]>` is the file; it can be written to disk, and read there by `readelf`, or by gdb with `symbol-file`.
pub struct Symfile(Vec<u8>);

impl Symfile {
    /// Of a shared library or a position-independent executable, whose bytes `image` are as they are in its file, and
    /// which is mapped at `load_bias`. Nothing is read at that address.
    ///
    /// # Errors
    /// [`Error`]: the image or its debug information is malformed, is over [`Limits`], or cannot be had in this form.
    pub fn of_image(
        image: &[u8],
        load_bias: LoadBias,
        options: &Options<'_>,
    ) -> Result<Symfile, Error> {
        let parsed = Image::parse(image)?;
        let file = options.debug_info.unwrap_or(image);
        if options.debug_info.is_some()
            && let (Some(ours), Some(theirs)) = (parsed.build_id(), build_id_of_file(file))
            && ours != theirs
        {
            return Err(Error::OtherImage);
        }
        let allowance = options.allowance(file.len());
        let template = parsed.source(file, |source| {
            SymfileTemplate::<Heap>::new(source, Instances::One, allowance, Dwarf::Opened)
        })?;
        if let Some(fault) = template.fault() {
            return Err(of_fault(fault));
        }
        let thread_locals = options.thread_locals;
        let instance = Instance { load_bias, thread_locals, ifuncs: Ifuncs::default() };
        let mut symfile = template.into_symfile(&instance)?;
        symfile.show_dwarf(true);
        match options.form {
            Form::Wrapped => Ok(Symfile(try_copy(symfile.shown())?)),
            Form::Portable if !symfile.can_show_dwarf() => Ok(Symfile(try_copy(symfile.shown())?)),
            Form::Portable => {
                let portable = symfile.parts()?.portable(&instance)?;
                Ok(Symfile(portable.into_contents()?))
            }
        }
    }

    /// Of a relocatable object (`ET_REL`), whose sections were placed one by one. `addresses` says where, by their
    /// names; a section for which it says nothing is not in memory. Objects with `.debug_*` sections give lines and
    /// variables, `.eh_frame` gives backtraces. Relocations of these sections are applied here; those of the code and
    /// the data are the caller's business.
    ///
    /// # Errors
    /// [`Error`]: the object is malformed, its debug sections have relocations that are not known (x86-64 and AArch64
    /// are), or are over [`Limits`].
    ///
    /// ```
    /// use memdl_symfile::{Options, Symfile};
    ///
    /// # fn example(object: &[u8], code: *const u8) -> Result<(), memdl_symfile::Error> {
    /// let place = |section: &str| (section == ".text").then_some(code as u64);
    /// let symfile = Symfile::of_object(object, &place, &Options::new())?;
    /// # drop(symfile);
    /// # Ok(()) }
    /// # assert!(example(b"not an object", std::ptr::null()).is_err());
    /// ```
    pub fn of_object(
        object: &[u8],
        addresses: &dyn Fn(&str) -> Option<u64>,
        options: &Options<'_>,
    ) -> Result<Symfile, Error> {
        let budget = options.allowance(object.len()).budget();
        object::symfile(object, addresses, &budget).map(Symfile)
    }
}

fn of_fault(fault: &NotOpened) -> Error {
    Error::debug_information(fault)
}

impl AsRef<[u8]> for Symfile {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl From<Symfile> for Vec<u8> {
    fn from(symfile: Symfile) -> Vec<u8> {
        symfile.0
    }
}

impl fmt::Debug for Symfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Symfile").field("len", &self.0.len()).finish()
    }
}
