//! What the server needs of a way to run calls: `pool.rs` and `fork.rs` each are one.

#![forbid(unsafe_code)]

use std::time::Duration;

use memdl::ImageBuffer;

use crate::protocol::{Digest, Failure, Signature};

/// A library that has arrived.
pub(crate) struct Received {
    pub(crate) digest: Digest,
    pub(crate) signature: Option<Signature>,
    pub(crate) bytes: ImageBuffer,
}

/// A way to run calls.
pub(crate) trait Backend: Send + Sync {
    /// Whether it can still load libraries. If not, the server ends, and whoever supervises it starts it again.
    fn is_alive(&self) -> bool {
        true
    }

    /// Checks a library and makes it ready to be called.
    fn load(&self, library: Received) -> Result<Box<dyn Callable>, Failure>;
}

/// A library that is ready to be called, by many threads at once.
pub(crate) trait Callable: Send + Sync {
    /// Calls a function. The output has at most `capacity` bytes.
    fn call(&self, function: &str, input: &[u8], capacity: usize) -> Result<Vec<u8>, Failure>;

    /// Whether it can be called again. If not, it is to be forgotten.
    fn is_alive(&self) -> bool {
        true
    }
}

/// A library in the server's cache.
pub(crate) struct Loaded {
    pub(crate) library: Box<dyn Callable>,
    /// How long it took to make it ready, until somebody has called it.
    pub(crate) uncalled: std::sync::Mutex<Option<Duration>>,
}
