//! What becomes of a fault of an image that does not keep the rest from being examined.
//!
//! A load ends at the first one. A report lists all of them, and goes on as if the fault were none. The checks are
//! the same: they pass each such fault to [`Faults::note`], and go on if it returns.

#![forbid(unsafe_code)]

use crate::base::error::Error;
use crate::base::fallible::TryGrow;
use crate::base::limits;

/// The number of faults that are listed. Bytes can have any number of them.
const MAX_LISTED: usize = 256;

/// Where faults go.
#[derive(Default)]
pub(crate) enum Faults {
    /// The first one is the error of the load.
    #[default]
    End,
    /// They are listed.
    List(Vec<Error>),
    /// As `List`, for a library that `ld.so` would load: without what only memdl refuses.
    OfSystem(Vec<Error>),
}

impl Faults {
    /// A list without faults.
    pub(crate) fn listed() -> Faults {
        Faults::List(Vec::new())
    }

    /// Whether a load would have ended.
    pub(crate) fn is_listing(&self) -> bool {
        !matches!(self, Faults::End)
    }

    /// Returns if the examination goes on.
    #[cold]
    pub(crate) fn note(&mut self, error: Error) -> Result<(), Error> {
        match self {
            // Without memory, nothing can be examined.
            _ if matches!(error, Error::OutOfMemory { .. }) => Err(error),
            Faults::End => Err(error),
            Faults::List(list) | Faults::OfSystem(list) if list.len() < MAX_LISTED => {
                Ok(list.try_push(error)?)
            }
            Faults::List(_) | Faults::OfSystem(_) => Ok(()),
        }
    }

    /// As [`Faults::note`], for what memdl refuses and `ld.so` does not.
    #[cold]
    pub(crate) fn note_own(&mut self, error: Error) -> Result<(), Error> {
        match self {
            Faults::OfSystem(_) => Ok(()),
            _ => self.note(error),
        }
    }

    /// Notes it if `needed` is more than `limit`.
    #[inline]
    pub(crate) fn check_limit(
        &mut self,
        what: &'static str,
        needed: u64,
        limit: u64,
    ) -> Result<(), Error> {
        limits::check(what, needed, limit).or_else(|error| self.note_own(error))
    }

    /// The value, unless a fault is noted.
    #[inline]
    pub(crate) fn noted<T>(&mut self, result: Result<T, Error>) -> Result<Option<T>, Error> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error) => self.note(error).map(|()| None),
        }
    }

    /// What `examine` returns. Its faults get the image's name.
    pub(crate) fn in_image<T>(
        &mut self,
        name: &str,
        examine: impl FnOnce(&mut Faults) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let before = self.list().len();
        let examined = examine(self).map_err(|error| error.in_image(name));
        self.name_from(before, name);
        examined
    }

    /// Gives the faults from this index on the image's name.
    pub(crate) fn name_from(&mut self, before: usize, name: &str) {
        if let Faults::List(list) | Faults::OfSystem(list) = self {
            for error in list.iter_mut().skip(before) {
                let unnamed = std::mem::replace(error, Error::out_of_memory(0));
                *error = unnamed.in_image(name);
            }
        }
    }

    /// The faults so far.
    pub(crate) fn list(&self) -> &[Error] {
        match self {
            Faults::End => &[],
            Faults::List(list) | Faults::OfSystem(list) => list,
        }
    }

    /// Drops the faults from this index on that `keep` does not accept.
    pub(crate) fn retain_from(&mut self, before: usize, keep: impl Fn(&Error) -> bool) {
        if let Faults::List(list) | Faults::OfSystem(list) = self {
            let mut index = 0usize;
            list.retain(|error| {
                index = index.saturating_add(1);
                index <= before || keep(error)
            });
        }
    }

    /// Takes all faults.
    pub(crate) fn take(&mut self) -> Vec<Error> {
        match self {
            Faults::End => Vec::new(),
            Faults::List(list) | Faults::OfSystem(list) => std::mem::take(list),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_ends_at_the_first_fault_and_a_report_has_all_but_so_many() {
        let fault = || Error::unsupported("x");
        assert!(Faults::End.note(fault()).is_err() && Faults::End.note_own(fault()).is_err());
        let (mut listed, mut of_system) = (Faults::listed(), Faults::OfSystem(Vec::new()));
        for faults in [&mut listed, &mut of_system] {
            faults.note(fault()).unwrap();
            faults.note_own(fault()).unwrap();
            assert!(faults.note(Error::out_of_memory(1)).is_err());
        }
        assert_eq!((listed.list().len(), of_system.list().len()), (2, 1));
        for _ in 0..2 * MAX_LISTED {
            listed.note(fault()).unwrap();
        }
        assert_eq!(listed.take().len(), MAX_LISTED);
    }

    #[test]
    fn faults_get_the_name_of_the_image_that_is_examined() {
        let mut faults = Faults::listed();
        faults.note(Error::unsupported("of none")).unwrap();
        let examined: Result<(), Error> = faults.in_image("a", |faults| {
            faults.note(Error::unsupported("of a"))?;
            Err(Error::unsupported("the end"))
        });
        assert_eq!(examined.unwrap_err().to_string(), "a: not supported: the end");
        let texts: Vec<String> = faults.take().iter().map(Error::to_string).collect();
        assert_eq!(texts, ["not supported: of none", "a: not supported: of a"]);
    }
}
