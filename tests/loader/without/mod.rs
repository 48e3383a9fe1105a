//! What a build without features does where they are asked for: it refuses, or warns, and names the feature.

use std::mem;
use std::sync::Mutex;

#[cfg(not(feature = "debug"))]
mod debug;
#[cfg(feature = "symbolize")]
mod zstd;

static LOGGED: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Log;

impl log::Log for Log {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        if record.level() == log::Level::Warn {
            LOGGED.lock().unwrap().push(record.args().to_string());
        }
    }

    fn flush(&self) {}
}

/// Keeps the warnings of this process from here on.
fn log_warnings() {
    log::set_logger(&Log).unwrap();
    log::set_max_level(log::LevelFilter::Warn);
}

/// Those that came since.
fn take_warnings() -> Vec<String> {
    mem::take(&mut *LOGGED.lock().unwrap())
}
