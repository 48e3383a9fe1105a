//! What is logged of a group: that it was loaded, and that it was unloaded, with times.
//!
//! A group has one [`Events`] as its last field. So the unload is logged when all else of it is gone. No lock is
//! held while the logger runs.

#![forbid(unsafe_code)]

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use crate::base::events::Took;

/// What the log says of a group. Empty where the log takes no events.
#[derive(Default)]
pub(crate) struct Events {
    /// When its load began.
    began: OnceLock<Instant>,
    /// Its load was logged.
    is_loaded: AtomicBool,
    unload: Option<Box<Unload>>,
}

/// An unload that is under way.
struct Unload {
    image: Subject,
    began: Instant,
}

/// The image that a group was loaded for.
pub(super) struct Subject {
    pub name: Arc<str>,
    pub addresses: Range<usize>,
    /// The template that it is an instance of.
    pub template: Option<u64>,
    /// The number of images in the group.
    pub images: usize,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Range { start, end } = self.addresses;
        write!(f, "at {start:#x}..{end:#x}")
    }
}

impl Events {
    /// The load began at `start`, if it is to be logged.
    pub(crate) fn set_start(&self, start: Option<Instant>) {
        if let Some(start) = start {
            let _ = self.began.set(start);
        }
    }

    /// Logs that the group is loaded, the first time. `constructors` is when its constructors began.
    #[inline]
    pub(super) fn loaded(&self, constructors: Option<Instant>, group: impl Fn() -> Subject) {
        if let (Some(began), Some(constructors)) = (self.began.get(), constructors)
            && !self.is_loaded.swap(true, Ordering::Relaxed)
        {
            log_load(&group(), &Took::since(*began), &Took::since(constructors));
        }
    }

    /// An unload has begun at `start`. It is logged when this is dropped.
    #[cold]
    pub(super) fn start_unload(&mut self, start: Instant, group: Subject) {
        self.unload = Some(Box::new(Unload { image: group, began: start }));
    }
}

#[cold]
fn log_load(subject: &Subject, took: &Took, constructors: &Took) {
    let name = &subject.name;
    let needed = match subject.images {
        0 | 1 => String::new(),
        images => format!(", with {} that it needs,", images.saturating_sub(1)),
    };
    let what = match subject.template {
        Some(template) => format!("an instance of template {template}"),
        None => "loaded".to_owned(),
    };
    logged!(debug, "{name}: {what} {subject}{needed} in {took}, constructors {constructors}");
}

impl Drop for Unload {
    fn drop(&mut self) {
        let Unload { image, began } = self;
        logged!(debug, "{}: unloaded {image} in {}", image.name, Took::since(*began));
    }
}
