//! Whether a report agrees with a load.

use memdl::{Error, MissingLibrary, MissingSymbol, MissingVersion, Report};

/// What is missing, by all reasons of a report.
#[derive(Default)]
struct Missing<'a> {
    libraries: Vec<&'a MissingLibrary>,
    versions: Vec<&'a MissingVersion>,
    symbols: Vec<&'a MissingSymbol>,
}

impl<'a> Missing<'a> {
    fn of(report: &'a Report) -> Missing<'a> {
        let mut all = Missing::default();
        for reason in report.refusals() {
            if let Error::Missing { libraries, versions, symbols, .. } = reason {
                all.libraries.extend(libraries);
                all.versions.extend(versions);
                all.symbols.extend(symbols);
            }
        }
        all
    }

    /// Whether it has all that a load has missed. `ld.so` finds that a needed library lacks a version when it opens it,
    /// so a load has that as a library.
    fn has_all(&self, error: &Error) -> bool {
        let Error::Missing { libraries, versions, symbols, .. } = error else { return false };
        let has_library = |missed: &MissingLibrary| {
            let is_it = |it: &&&MissingLibrary| it.name == missed.name;
            let reason = missed.reason.as_deref().unwrap_or_default();
            self.libraries.iter().any(|it| is_it(&it))
                || self.versions.iter().any(|it| reason.contains(&it.version))
        };
        libraries.iter().all(has_library)
            && versions.iter().all(|missed| self.versions.contains(&missed))
            && symbols.iter().all(|missed| self.symbols.contains(&missed))
    }
}

/// How a report, made just before a load with the same options, disagrees with what the load came to.
pub fn disagreement<T>(report: &Report, loaded: &Result<T, Error>) -> Option<String> {
    let reasons: Vec<String> = report.refusals().iter().map(Error::to_string).collect();
    match loaded {
        Ok(_) => (!reasons.is_empty()).then(|| format!("it loads, in spite of {reasons:#?}")),
        // What the system refuses is not known before.
        Err(Error::System { .. } | Error::OutOfMemory { .. }) => None,
        Err(error) => {
            let text = error.to_string();
            // What is in arrays of functions is known once they are relocated, and how much static thread-local
            // storage `ld.so` has left once it is taken.
            let is_late = text.contains("which is to be called, is in no library")
                || text.contains("the initial-exec thread-local storage of all images");
            let is_known = reasons.contains(&text) || Missing::of(report).has_all(error);
            (!is_known && !is_late)
                .then(|| format!("it is refused: {text}\nthe report has {reasons:#?}"))
        }
    }
}

/// Asserts that a report, made just before a load with the same options, agrees with what the load came to.
pub fn assert_agrees<T>(report: &Report, loaded: &Result<T, Error>, what: &str) {
    if let Some(difference) = disagreement(report, loaded) {
        panic!("{what}: {difference}");
    }
}
