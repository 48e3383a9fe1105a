//! Which of the image and its host comes first. The order as a whole is in `link/scope.rs`.

#![forbid(unsafe_code)]

use crate::base::words::words;

/// Where an image's references are searched first.
///
/// ```
/// use memdl::Scope;
///
/// assert_eq!("self-first".parse(), Ok(Scope::SelfFirst));
/// assert_eq!(Scope::default().to_string(), "host-first");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum Scope {
    /// The host's definitions take precedence over the image's own, as with `dlopen`.
    #[default]
    HostFirst,
    /// The image and the libraries that it needs take precedence, as with `RTLD_DEEPBIND`.
    SelfFirst,
}

words!(Scope, [("host-first", Scope::HostFirst), ("self-first", Scope::SelfFirst)]);
