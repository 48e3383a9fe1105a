//! The unwritten segments of a template's image, as pages that all its instances share.
//!
//! Shared pages cannot get a debugger's breakpoints: the kernel refuses to write to them. So an instance that
//! is registered with debuggers gets its own ([`Mapping::make_private`]).
//!
//! [`Mapping::make_private`]: crate::memory::mapping::Mapping::make_private

#![forbid(unsafe_code)]

use std::sync::{Arc, OnceLock};

use crate::base::addr::{Vaddr, len_of, page_size};
use crate::base::error::Error;
use crate::base::fallible::{TryGrow, require_memory_for_next, try_collect, try_collect_ok};
use crate::elf::plan::{Plan, PlannedSegment};
use crate::memory::cache::{self, CacheKey};
use crate::memory::cow_image::SharedPages;
use crate::memory::executable;
use crate::memory::stage::Reuse;

/// Each run of segments without a gap: its offset in the span, and its pages.
type Runs = Vec<(usize, SharedPages)>;

/// The segments of an image that are not written, for all instances that no debugger sees.
pub(crate) struct SharedText {
    /// Empty if the process was known not to make memory executable.
    runs: Runs,
    /// The same, executable everywhere. Made when the process is known not to make memory executable.
    executable: OnceLock<Runs>,
    /// For memory in the cache that maps these pages.
    pub(super) key: Arc<CacheKey>,
}

impl Drop for SharedText {
    fn drop(&mut self) {
        cache::forget_key(&self.key);
    }
}

impl SharedText {
    /// How an instance's memory can be used again.
    pub(super) fn reuse(&self, plan: &Plan) -> Result<Reuse, Error> {
        let offset = |at: Vaddr| len_of(&(plan.span.start..at)) as usize;
        let written = plan.segments.iter().filter(|segment| segment.access.write);
        let written = written.map(|segment| offset(segment.pages.start)..offset(segment.pages.end));
        let written = try_collect(written)?;
        Ok(Reuse::Parked { key: Arc::downgrade(&self.key), written })
    }

    /// Whether an image has so many pages that are not written that instances share them.
    pub(crate) fn is_worth(plan: &Plan) -> bool {
        /// A further mapping for each instance costs as much as copying this many bytes.
        const MIN_SHARED: usize = 1 << 16;
        let unwritten = plan.segments.iter().filter(|segment| !segment.access.write);
        unwritten.map(PlannedSegment::len).fold(0, usize::saturating_add) >= MIN_SHARED
    }

    /// The unwritten segments of the image with these bytes. `None` if they are too small to be shared.
    pub(crate) fn new(plan: &Plan, bytes: &[u8]) -> Result<Option<SharedText>, Error> {
        if !SharedText::is_worth(plan) {
            return Ok(None);
        }
        let runs = runs(plan)?;
        let len = |run: &[&PlannedSegment]| run.iter().map(|segment| segment.len()).sum::<usize>();
        let pages = |run: Vec<&PlannedSegment>| {
            let start = run.first().map_or(plan.span.start, |segment| segment.pages.start);
            let filled = |segment: &PlannedSegment| {
                let at = len_of(&(start..segment.pages.start)) as usize;
                let source = bytes.get(segment.file.clone()).unwrap_or(&[]);
                (at, source.get(..segment.len()).unwrap_or(source))
            };
            let page = page_size();
            let parts = run.iter().map(|segment| {
                let (at, source) = filled(segment);
                at..at.saturating_add(source.len().next_multiple_of(page))
            });
            let pages = SharedPages::filled(len(&run), parts, |memory| {
                for segment in &run {
                    let (at, source) = filled(segment);
                    if let Some(target) = memory.get_mut(at..at.saturating_add(source.len())) {
                        target.copy_from_slice(source);
                    }
                }
            })?;
            Ok((len_of(&(plan.span.start..start)) as usize, pages))
        };
        let runs = try_collect_ok::<_, Error>(runs.into_iter().map(pages))?;
        let mut text = SharedText { runs, executable: OnceLock::new(), key: Arc::default() };
        if executable::is_denied() && text.executable_runs().is_some() {
            text.runs = Vec::new();
        }
        Ok(Some(text))
    }

    /// What is mapped into an instance, and whether it can be executed already.
    pub(super) fn runs(&self) -> (&[(usize, SharedPages)], bool) {
        if executable::is_denied()
            && let Some(runs) = self.executable_runs()
        {
            return (runs, true);
        }
        (&self.runs, false)
    }

    /// `None` if the system refuses such memory, too. Then each instance gets code of its own.
    #[cold]
    fn executable_runs(&self) -> Option<&Runs> {
        if self.executable.get().is_none() {
            let copies = self.runs.iter().map(|(at, pages)| Ok((*at, pages.executable()?)));
            let runs = try_collect_ok::<_, Error>(copies).ok()?;
            // Another thread's are as good.
            let _ = self.executable.set(runs);
        }
        self.executable.get()
    }
}

/// The segments that are not written, in runs without a gap.
fn runs(plan: &Plan) -> Result<Vec<Vec<&PlannedSegment>>, Error> {
    let mut runs: Vec<Vec<&PlannedSegment>> = Vec::new();
    for segment in plan.segments.iter().filter(|segment| !segment.access.write) {
        match runs.last_mut() {
            Some(run) if run.last().is_some_and(|it| it.pages.end == segment.pages.start) => {
                run.try_push(segment)?;
            }
            _ => {
                require_memory_for_next(runs.len())?;
                runs.try_push(vec![segment])?;
            }
        }
    }
    Ok(runs)
}
