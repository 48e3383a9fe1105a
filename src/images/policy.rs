//! What a host allows: which bytes are loaded ([`Loader::verify`](crate::Loader::verify)), which of the
//! host's symbols they may bind to ([`Imports`]), and whether an image can be changed once it is in
//! place ([`Loader::seal`](crate::Loader::seal)).
//!
//! A policy goes with the load group, and to what its images open through memdl. None of it makes a
//! sandbox: code that runs has all rights of the process. It narrows what an image gets by being linked.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::error::Error as StdError;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};

use crate::base::error::Error;
use crate::base::sync::{Lock, Rank};

/// What a [resolver](crate::Loader::resolver) is asked for: a symbol that nothing defines.
#[derive(Debug)]
pub struct SymbolRequest<'a> {
    pub(crate) name: &'a str,
    pub(crate) version: Option<&'a str>,
    pub(crate) weak: bool,
    pub(crate) requested_by: &'a str,
}

impl<'a> SymbolRequest<'a> {
    /// The symbol's name, not demangled.
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// The version that the image asks for.
    pub fn version(&self) -> Option<&'a str> {
        self.version
    }

    /// Whether the image does without it (the symbol is then null).
    pub fn is_weak(&self) -> bool {
        self.weak
    }

    /// The name of the image that asks.
    pub fn requested_by(&self) -> &'a str {
        self.requested_by
    }
}

/// All that a host allows the images of a load.
#[derive(Clone, Default)]
pub(crate) struct Policy {
    pub verifier: Option<Arc<Verifier>>,
    pub imports: Imports,
    pub seal: bool,
}

/// Why a [verifier](crate::Loader::verify) refuses.
pub(crate) type Refusal = Box<dyn StdError + Send + Sync>;

pub(crate) type Verifier = dyn Fn(&VerifyRequest<'_>) -> Result<(), Refusal> + Send + Sync;

/// What a [verifier](crate::Loader::verify) is shown: an image that is about to be loaded.
pub struct VerifyRequest<'a> {
    name: &'a str,
    bytes: &'a [u8],
}

impl VerifyRequest<'_> {
    /// All bytes of the image, of which nothing else has looked at any. What is loaded are these very
    /// bytes.
    pub fn bytes(&self) -> &[u8] {
        self.bytes
    }

    /// What the image is called so far: [`Loader::name`](crate::Loader::name), or `image`; the name that
    /// was given to [`Loader::provide`](crate::Loader::provide); of a file that memdl reads, its path. It
    /// is no word of the bytes.
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
    /// Whether anything that images ask for may be refused.
    pub(crate) fn is_restricted(&self) -> bool {
        self.verifier.is_some() || self.imports.is_restricted()
    }

    /// Asks the verifier, if there is one.
    pub(crate) fn verify(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let Some(verifier) = &self.verifier else { return Ok(()) };
        verifier(&VerifyRequest { name, bytes })
            .map_err(|reason| Error::Refused { image: name.to_owned(), reason })
    }

    /// The same with a verifier that refuses where the host's panics: for calls that come out of an image,
    /// which a panic may not be able to cross.
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
/// let pure = Imports::allow(["malloc", "free", "memcpy", "__cxa_finalize"]);
/// let no_processes = Imports::deny(["system", "popen", "fork", "execve"]);
/// let no_sockets = Imports::filter(|request| !request.name().starts_with("socket"));
/// ```
#[derive(Clone, Default)]
pub struct Imports(Option<Arc<Rule>>);

enum Rule {
    Allow(BTreeSet<String>),
    Deny(BTreeSet<String>),
    Filter(Box<dyn Fn(&SymbolRequest<'_>) -> bool + Send + Sync>),
}

impl Imports {
    /// Any: the default.
    pub fn all() -> Imports {
        Imports(None)
    }

    /// These, whatever their versions, and no others.
    pub fn allow<I: IntoIterator<Item: Into<String>>>(names: I) -> Imports {
        Imports(Some(Arc::new(Rule::Allow(names.into_iter().map(Into::into).collect()))))
    }

    /// All but these, whatever their versions.
    pub fn deny<I: IntoIterator<Item: Into<String>>>(names: I) -> Imports {
        Imports(Some(Arc::new(Rule::Deny(names.into_iter().map(Into::into).collect()))))
    }

    /// Those for which `allows` returns true. It is asked only for symbols that the host has, during the
    /// load, when a call is bound lazily, and by `dlsym`, in whatever thread does so; more than once for
    /// the same, perhaps. A panic in it fails a load; in `dlsym` it is a refusal.
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

/// The policy of a group in place, while there is anything of the group, its destructors included.
pub(crate) struct Restriction {
    _policy: Arc<Policy>,
}

/// The policies of all groups that have any: what holds for a call of which it cannot be told which image
/// makes it.
static RESTRICTIONS: Lock<Vec<Weak<Policy>>> = Lock::new(Rank::Restrictions, Vec::new());

impl Restriction {
    /// Notes the policy of a group, if it has one.
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

/// The policies of all groups in place.
fn all() -> Vec<Arc<Policy>> {
    // What the caller has supplied is called, and dropped, while no lock is held.
    RESTRICTIONS.lock().iter().filter_map(Weak::upgrade).collect()
}

/// Whether all groups in place may bind to it.
pub(crate) fn all_allow(request: &SymbolRequest<'_>) -> bool {
    all().iter().all(|policy| allows_without_panic(&policy.imports, request))
}

/// Asks the verifiers of all groups in place.
pub(crate) fn all_verify(name: &str, bytes: &[u8]) -> Result<(), Error> {
    all().iter().try_for_each(|policy| policy.verify(name, bytes))
}

/// As [`Imports::allows`]; a panic of a filter is a refusal.
pub(crate) fn allows_without_panic(imports: &Imports, request: &SymbolRequest<'_>) -> bool {
    catch_unwind(AssertUnwindSafe(|| imports.allows(request))).unwrap_or(false)
}
