//! `--mode pool`: functions run in the server's own process. Each call gets an instance of the library as it was after
//! its constructors.
//!
//! It is the fastest way. A function that crashes ends the server, and one that does not return keeps its thread.

#![allow(unsafe_code)]

use std::sync::{Arc, Mutex, PoisonError};

use memdl::Pool;

use crate::arguments::LoaderKind;
use crate::library::{Memfd, function, invoke, loader, not_loaded};
use crate::policy::Policy;
use crate::protocol::Failure;
use crate::run::{Backend, Callable, Received};

/// Runs calls in this process.
pub(crate) struct InProcess {
    pub(crate) loader: LoaderKind,
    pub(crate) policy: Arc<Policy>,
    /// The most idle instances of a library.
    pub(crate) idle: usize,
    /// The most addresses of an image.
    pub(crate) image_span: u64,
    /// Held by the thread that loads. Loads change the mappings of the process, one at a time in any case: many threads
    /// that do so at once wait longer for the system's lock than for this one.
    pub(crate) loading: Mutex<()>,
}

impl Backend for InProcess {
    fn load(&self, library: Received) -> Result<Box<dyn Callable>, Failure> {
        let _one_at_a_time = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        if self.loader == LoaderKind::Memfd {
            return Ok(Box::new(Memfd::load(&self.policy, &library)?));
        }
        let loader = loader(&self.policy, library.digest, library.signature, self.image_span);
        // SAFETY: the policy allows the library, and what it needs.
        let template = unsafe { loader.prepare_buffer(library.bytes) };
        let template = template.map_err(|error| not_loaded(&error))?;
        let pool = template.pool(self.idle);
        // The first instance is made now: its constructors belong to the load.
        // SAFETY: the policy allows the library. Nothing has called it.
        drop(unsafe { pool.acquire() }.map_err(|error| not_loaded(&error))?);
        Ok(Box::new(pool))
    }
}

impl Callable for Pool {
    fn call(&self, name: &str, input: &[u8], capacity: usize) -> Result<Vec<u8>, Failure> {
        // SAFETY: the policy allows the library. A function that leaves threads behind breaks its contract.
        let instance = unsafe { self.acquire() }.map_err(|error| not_loaded(&error))?;
        let function = function(&instance, name)?;
        // SAFETY: the instance stays until the end of this block.
        unsafe { invoke(function, name, input, capacity) }
    }
}

impl Callable for Memfd {
    fn call(&self, name: &str, input: &[u8], capacity: usize) -> Result<Vec<u8>, Failure> {
        let function = self.function(name)?;
        // SAFETY: the library stays as long as `self`.
        unsafe { invoke(function, name, input, capacity) }
    }
}
