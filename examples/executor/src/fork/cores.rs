//! The cores of crashes, and the text that says what happened.

#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::fork::child::Ended;
use crate::fork::crash::signal_name;
use crate::protocol::{Failure, FailureKind};
use crate::{Context, Error};

/// The folder of cores. Each crash has a folder in it, named as the pid.
pub(super) struct Cores {
    folder: Option<PathBuf>,
    keep: usize,
    kept: Mutex<VecDeque<PathBuf>>,
}

impl Cores {
    /// Makes the folder if there is none.
    pub(super) fn new(folder: Option<PathBuf>, keep: usize) -> Result<Cores, Error> {
        if let Some(folder) = &folder {
            fs::create_dir_all(folder).context(|| folder.display().to_string())?;
        }
        let folder = folder.map(|it| it.canonicalize()).transpose()?;
        Ok(Cores { folder, keep, kept: Mutex::default() })
    }

    /// Says how a process ended that should have answered. `names` are those of the addresses in its report.
    pub(super) fn explain(&self, ended: &Ended, what: &str, names: Option<&str>) -> Failure {
        let (place, frames) = names.and_then(|it| it.split_once('\n')).unwrap_or_default();
        let place = match (place, &ended.report) {
            ("", Some(report)) => {
                format!("{what} (at {:#x})", report.addresses().first().unwrap_or(&0))
            }
            ("", None) => what.into(),
            (place, _) => place.into(),
        };
        let signal = ended.report.as_ref().map(|report| report.signal).or(ended.status.signal());
        let (kind, mut text) = match (ended.exceeded, signal) {
            (Some(limit), _) => {
                (FailureKind::TimeLimit, format!("the time limit of {limit:?} ended {place}"))
            }
            (None, _) if ended.was_killed && ended.report.is_none() => {
                let text = format!("{what} has sent something else than its output");
                (FailureKind::Function, text)
            }
            (None, Some(signal)) => {
                (FailureKind::Crash, format!("{} in {place}", signal_name(signal)))
            }
            (None, None) => {
                let code = ended.status.code().unwrap_or(0);
                let text = format!("{what} has ended its process, with the exit code {code}");
                (FailureKind::Function, text)
            }
        };
        for line in [frames, &self.core(ended)] {
            if !line.is_empty() {
                text.push('\n');
                text.push_str(line);
            }
        }
        Failure::new(kind, text)
    }

    /// Where the core is. The oldest ones are removed.
    fn core(&self, ended: &Ended) -> String {
        let Some(folder) = &self.folder else { return String::new() };
        let folder = folder.join(ended.pid.to_string());
        let core = core_in(&folder);
        if ended.report.is_some() {
            self.keep(folder);
        }
        match core {
            Some(core) => format!("  core: {}", core.display()),
            None if ended.status.core_dumped() => {
                let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern");
                let pattern = pattern.as_deref().unwrap_or("unknown").trim();
                format!("  core: pid {}, as the system's core_pattern says: {pattern}", ended.pid)
            }
            None => String::new(),
        }
    }

    fn keep(&self, folder: PathBuf) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|other| *other != folder);
        kept.push_back(folder);
        while kept.len() > self.keep {
            if let Some(oldest) = kept.pop_front() {
                // Somebody may have removed it already.
                let _ = fs::remove_dir_all(oldest);
            }
        }
    }
}

fn core_in(folder: &Path) -> Option<PathBuf> {
    let mut files = fs::read_dir(folder).ok()?.filter_map(Result::ok);
    files.find(|it| it.file_name().as_encoded_bytes().starts_with(b"core")).map(|it| it.path())
}
