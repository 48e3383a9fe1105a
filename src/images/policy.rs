//! The host's policy: which bytes are loaded ([`Loader::verify`](crate::Loader::verify)), which of the
//! host's symbols they may bind to ([`Imports`]), and whether a loaded image can be changed
//! ([`Loader::seal`](crate::Loader::seal)).
//!
//! A policy holds for a load group, and for the libraries that its images open through memdl. It is no
//! sandbox: code that runs has all rights of the process. It restricts the symbols that linking provides.
//! The policy is applied elsewhere; nothing is loaded or bound here.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::error::Error as StdError;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};

use crate::base::error::Error;
use crate::base::sync::{Lock, Rank};

/// A symbol that an image refers to, as a [resolver](crate::Loader::resolver) or a filter of [`Imports`] sees
/// it.
#[derive(Debug)]
pub struct SymbolRequest<'a> {
    pub(crate) name: &'a str,
    pub(crate) version: Option<&'a str>,
    pub(crate) weak: bool,
    pub(crate) requested_by: &'a str,
}

impl<'a> SymbolRequest<'a> {
    /// The symbol's name, not demangled.
    ///
    /// ```
    /// # let bytes = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/bytes.rs"));
    /// let loader = memdl::Loader::new().imports(memdl::Imports::filter(|symbol| symbol.name() != "getpid"));
    /// // SAFETY: we trust the library's constructors.
    /// let error = unsafe { loader.load(&bytes) }.unwrap_err();
    /// assert_eq!(error.kind(), memdl::ErrorKind::RefusedImports); // it imports `getpid`
    /// ```
    #[must_use]
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// The version of the reference.
    ///
    /// ```
    /// # let bytes = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/bytes.rs"));
    /// let imports = memdl::Imports::filter(|symbol| symbol.version() != Some("GLIBC_PRIVATE"));
    /// // SAFETY: we trust the library's constructors.
    /// let library = unsafe { memdl::Loader::new().imports(imports).load(&bytes) };
    /// assert!(library.is_ok()); // it uses public functions of the C library only
    /// ```
    #[must_use]
    pub fn version(&self) -> Option<&'a str> {
        self.version
    }

    /// Whether the reference is weak: undefined, the symbol is null.
    ///
    /// ```
    /// # let bytes = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/bytes.rs"));
    /// extern "C" fn unknown() -> i32 { panic!("this function is not there") }
    ///
    /// let loader = memdl::Loader::new().resolver(|symbol| {
    ///     // The library can do without a symbol that it refers to weakly.
    ///     (!symbol.is_weak()).then_some(unknown as *const std::ffi::c_void)
    /// });
    /// // SAFETY: we trust the library's constructors.
    /// let library = unsafe { loader.load(&bytes)? };
    /// // SAFETY: this is the type of `play`, which calls `roll` if there is one.
    /// assert_eq!(unsafe { library.get::<extern "C" fn() -> i32>("play")?() }, -1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn is_weak(&self) -> bool {
        self.weak
    }

    /// The name of the image with the reference.
    ///
    /// ```
    /// # let bytes = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/bytes.rs"));
    /// let loader = memdl::Loader::new().imports(memdl::Imports::filter(|symbol| {
    ///     println!("{} refers to {}", symbol.requested_by(), symbol.name());
    ///     symbol.requested_by() != "libexample.so"
    /// }));
    /// // SAFETY: we trust the library's constructors.
    /// let error = unsafe { loader.load(&bytes) }.unwrap_err();
    /// assert_eq!(error.kind(), memdl::ErrorKind::RefusedImports);
    /// ```
    #[must_use]
    pub fn requested_by(&self) -> &'a str {
        self.requested_by
    }
}

/// The policy of a load.
#[derive(Clone, Default)]
pub(crate) struct Policy {
    pub verifier: Option<Arc<Verifier>>,
    pub imports: Imports,
    pub seal: bool,
}

/// Why a [verifier](crate::Loader::verify) refuses.
pub(crate) type Refusal = Box<dyn StdError + Send + Sync>;

pub(crate) type Verifier = dyn Fn(&VerifyRequest<'_>) -> Result<(), Refusal> + Send + Sync;

/// An image that is about to be loaded, as a [verifier](crate::Loader::verify) sees it.
pub struct VerifyRequest<'a> {
    name: &'a str,
    bytes: &'a [u8],
}

impl VerifyRequest<'_> {
    /// All bytes of the image, before anything else has read them. These very bytes are loaded.
    ///
    /// ```
    /// # let bytes = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/bytes.rs"));
    /// # let expected = bytes.clone();
    /// let loader = memdl::Loader::new().verify(move |image| match image.bytes() == expected {
    ///     true => Ok(()),
    ///     false => Err("these bytes are not known".into()),
    /// });
    /// // SAFETY: nothing is loaded.
    /// let error = unsafe { loader.load(b"other bytes") }.unwrap_err();
    /// assert_eq!(error.kind(), memdl::ErrorKind::Refused);
    /// # // SAFETY: we trust the library's constructors.
    /// # assert!(unsafe { loader.load(&bytes) }.is_ok());
    /// ```
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.bytes
    }

    /// The image's name so far: [`Loader::name`](crate::Loader::name), or `image`; the name given to
    /// [`Loader::provide`](crate::Loader::provide); or the path of a file that memdl reads. It never comes
    /// from the bytes.
    ///
    /// ```
    /// let loader = memdl::Loader::new().name("upload-17").verify(|image| {
    ///     Err(format!("{} is not signed", image.name()).into())
    /// });
    /// // SAFETY: nothing is loaded.
    /// let error = unsafe { loader.load(b"bytes") }.unwrap_err();
    /// assert!(error.to_string().ends_with("upload-17 is not signed"));
    /// ```
    #[must_use]
    pub fn name(&self) -> &str {
        self.name
    }
}

impl fmt::Debug for VerifyRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifyRequest")
            .field("name", &self.name)
            .field("len", &self.bytes.len())
            .finish_non_exhaustive()
    }
}

impl Policy {
    /// Whether anything may be refused to images.
    pub(crate) fn is_restricted(&self) -> bool {
        self.verifier.is_some() || self.imports.is_restricted()
    }

    /// Calls the verifier, if there is one.
    pub(crate) fn verify(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let Some(verifier) = &self.verifier else { return Ok(()) };
        verifier(&VerifyRequest { name, bytes })
            .map_err(|reason| Error::Refused { image: name.to_owned(), reason })
    }

    /// The same policy, with a verifier that refuses where the host's panics: for calls from an image, through
    /// which a panic may not unwind.
    pub(crate) fn without_panics(&self) -> Policy {
        let mut policy = self.clone();
        if let Some(verifier) = policy.verifier.take() {
            policy.verifier = Some(Arc::new(move |request: &VerifyRequest<'_>| {
                let verified = catch_unwind(AssertUnwindSafe(|| verifier(request)));
                verified.unwrap_or_else(|_| Err("the verifier has panicked".into()))
            }));
        }
        policy
    }
}

/// Which symbols of the host an image may bind to: see [`Loader::imports`](crate::Loader::imports).
///
/// ```
/// use memdl::Imports;
///
/// # let bytes = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/bytes.rs"));
/// let pure = Imports::allow(["malloc", "free", "memcpy", "__cxa_finalize", "__tls_get_addr"]);
/// let no_processes = Imports::deny(["system", "popen", "fork", "execve"]);
/// let no_sockets = Imports::filter(|request| !request.name().starts_with("socket"));
///
/// // The library imports `getpid`.
/// let is_refused = |imports| memdl::Loader::new().imports(imports).inspect(&bytes).is_refused();
/// assert_eq!([pure, no_processes, no_sockets].map(is_refused), [true, false, false]);
/// ```
#[derive(Clone, Default)]
pub struct Imports(Option<Arc<Rule>>);

enum Rule {
    Allow(BTreeSet<String>),
    Deny(BTreeSet<String>),
    Filter(Box<dyn Fn(&SymbolRequest<'_>) -> bool + Send + Sync>),
}

impl Imports {
    /// Any symbol: the default.
    ///
    /// ```
    /// # let bytes = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/bytes.rs"));
    /// let loader = memdl::Loader::new().imports(memdl::Imports::all());
    /// // SAFETY: we trust the library's constructors.
    /// assert!(unsafe { loader.load(&bytes) }.is_ok());
    /// ```
    #[must_use]
    pub fn all() -> Imports {
        Imports(None)
    }

    /// These symbols, in any version, and no others.
    ///
    /// ```
    /// # let bytes = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/bytes.rs"));
    /// let loader = memdl::Loader::new().imports(memdl::Imports::allow(["malloc", "free"]));
    /// // SAFETY: we trust the library's constructors.
    /// let error = unsafe { loader.load(&bytes) }.unwrap_err();
    /// assert_eq!(error.kind(), memdl::ErrorKind::RefusedImports); // it imports `getpid`
    /// ```
    pub fn allow<I: IntoIterator<Item: Into<String>>>(names: I) -> Imports {
        Imports(Some(Arc::new(Rule::Allow(names.into_iter().map(Into::into).collect()))))
    }

    /// All symbols but these, in any version.
    ///
    /// ```
    /// # let bytes = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/bytes.rs"));
    /// let loader = memdl::Loader::new().imports(memdl::Imports::deny(["getpid", "system"]));
    /// // SAFETY: we trust the library's constructors.
    /// let error = unsafe { loader.load(&bytes) }.unwrap_err();
    /// assert_eq!(error.kind(), memdl::ErrorKind::RefusedImports); // it imports `getpid`
    /// ```
    pub fn deny<I: IntoIterator<Item: Into<String>>>(names: I) -> Imports {
        Imports(Some(Arc::new(Rule::Deny(names.into_iter().map(Into::into).collect()))))
    }

    /// Symbols for which `allows` returns true. It is called only for symbols that the host has: during the
    /// load, when a call is bound lazily, and by `dlsym`, in the thread that does so. It may be called more
    /// than once for a symbol. A panic in it fails a load; in `dlsym` it is a refusal.
    ///
    /// ```
    /// # let bytes = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/bytes.rs"));
    /// let loader = memdl::Loader::new().imports(memdl::Imports::filter(|symbol| !symbol.name().starts_with("get")));
    /// // SAFETY: we trust the library's constructors.
    /// let error = unsafe { loader.load(&bytes) }.unwrap_err();
    /// assert_eq!(error.kind(), memdl::ErrorKind::RefusedImports); // it imports `getpid`
    /// ```
    pub fn filter(allows: impl Fn(&SymbolRequest<'_>) -> bool + Send + Sync + 'static) -> Imports {
        Imports(Some(Arc::new(Rule::Filter(Box::new(allows)))))
    }

    /// Whether anything may be refused.
    pub(crate) fn is_restricted(&self) -> bool {
        self.0.is_some()
    }

    pub(crate) fn allows(&self, request: &SymbolRequest<'_>) -> bool {
        self.0.as_deref().is_none_or(|rule| rule.allows(request))
    }
}

impl Rule {
    fn allows(&self, request: &SymbolRequest<'_>) -> bool {
        match self {
            Rule::Allow(names) => names.contains(request.name()),
            Rule::Deny(names) => !names.contains(request.name()),
            Rule::Filter(allows) => allows(request),
        }
    }
}

impl fmt::Debug for Imports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_deref() {
            None => f.write_str("Imports::all()"),
            Some(Rule::Allow(names)) => write!(f, "Imports::allow({names:?})"),
            Some(Rule::Deny(names)) => write!(f, "Imports::deny({names:?})"),
            Some(Rule::Filter(_)) => f.write_str("Imports::filter(..)"),
        }
    }
}

/// The policy of a loaded group, until the group is dropped, its destructors included.
pub(crate) struct Restriction {
    _policy: Arc<Policy>,
}

/// The policies of all restricted groups. They all hold for a call whose image is unknown.
static RESTRICTIONS: Lock<Vec<Weak<Policy>>> = Lock::new(Rank::Restrictions, Vec::new());

impl Restriction {
    /// Records the policy of a group, if it restricts anything.
    pub(crate) fn new(policy: &Policy) -> Option<Restriction> {
        if !policy.is_restricted() {
            return None;
        }
        let policy = Arc::new(policy.without_panics());
        let mut list = RESTRICTIONS.lock();
        list.retain(|other| other.strong_count() > 0);
        list.push(Arc::downgrade(&policy));
        Some(Restriction { _policy: policy })
    }
}

/// The policies of all restricted groups.
fn all() -> Vec<Arc<Policy>> {
    // The caller's functions are called, and dropped, while no lock is held.
    RESTRICTIONS.lock().iter().filter_map(Weak::upgrade).collect()
}

/// Whether all restricted groups may bind to the symbol.
pub(crate) fn all_allow(request: &SymbolRequest<'_>) -> bool {
    all().iter().all(|policy| allows_without_panic(&policy.imports, request))
}

/// Calls the verifiers of all restricted groups.
pub(crate) fn all_verify(name: &str, bytes: &[u8]) -> Result<(), Error> {
    all().iter().try_for_each(|policy| policy.verify(name, bytes))
}

/// As [`Imports::allows`]; a panic of a filter is a refusal.
pub(crate) fn allows_without_panic(imports: &Imports, request: &SymbolRequest<'_>) -> bool {
    catch_unwind(AssertUnwindSafe(|| imports.allows(request))).unwrap_or(false)
}
