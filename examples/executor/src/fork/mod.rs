//! `--mode fork`: each call runs in a process of its own, with a time limit. A crash costs that process only.
//!
//! ```text
//! server ── threads, sockets, keys
//!   └─ nursery ── forked before all of these; runs no foreign code
//!        └─ host ── one for each library: loads it, and runs its constructors
//!             └─ worker ── one for each call, a copy of the host as it was after the load
//! ```
//!
//! A fork is the reset: each call finds the library's data as they were after the constructors. The nursery and the
//! hosts have one thread, so a fork copies all of the process. The server asks them over a socket ([`parent`]) to fork,
//! to end a child, and to name addresses: a worker's library lies at the same ones as its host's, so the host, which is
//! in good health, names the addresses that a crashed worker has written to a pipe ([`crash`]).
//!
//! A host and its workers have run foreign code. What they send is checked like what comes from the network.

mod child;
mod cores;
mod crash;
mod host;
mod parent;

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::arguments::LoaderKind;
use crate::fork::child::Child;
use crate::fork::cores::Cores;
use crate::fork::parent::Parent;
use crate::policy::Policy;
use crate::protocol::{Announced, Call, Digest, Failure, FailureKind, FrameKind, Header, Limits};
use crate::run::{Backend, Callable, Received};
use crate::{Context, Error};

/// What hosts need to know. They have it from the fork.
pub(crate) struct Settings {
    pub(crate) loader: LoaderKind,
    pub(crate) policy: Arc<Policy>,
    pub(crate) limits: Limits,
    /// The most addresses of an image.
    pub(crate) image_span: u64,
    /// How long a load, and a call, may take.
    pub(crate) time_limit: Duration,
    /// Where cores go.
    pub(crate) cores: Option<PathBuf>,
    /// How many of them are kept.
    pub(crate) keep_cores: usize,
}

/// Runs calls in processes of their own.
pub(crate) struct Forked {
    nursery: Arc<Parent>,
    cores: Arc<Cores>,
    time_limit: Duration,
}

impl Forked {
    /// Starts the nursery. No thread may have been started yet, and no secret read: hosts have copies of this process's
    /// memory.
    pub(crate) fn start(settings: Settings) -> Result<Forked, Error> {
        let cores = Arc::new(Cores::new(settings.cores.clone(), settings.keep_cores)?);
        let time_limit = settings.time_limit;
        let nursery = Parent::start(move |control| {
            parent::run(control, &|socket, crashes| host::run(&settings, socket, &crashes))
        });
        let nursery = Arc::new(nursery.context(|| "starting the nursery".into())?);
        Ok(Forked { nursery, cores, time_limit })
    }
}

impl Backend for Forked {
    fn is_alive(&self) -> bool {
        self.nursery.is_alive()
    }

    fn load(&self, library: Received) -> Result<Box<dyn Callable>, Failure> {
        let Received { digest, signature, bytes } = library;
        let mut host = Child::spawn(&self.nursery, self.time_limit)?;
        let announced = Announced { digest, signature, len: bytes.len() };
        let loaded = host.ask(
            |socket| {
                socket.write_all(&announced.start_of_frame()?)?;
                socket.write_all(&bytes)
            },
            |header, socket| match header.kind {
                FrameKind::Loaded => header.body(socket, 0),
                _ => Err(unexpected(header)),
            },
        );
        match loaded {
            Ok(Ok(_)) => {
                let control = Parent::of(host.socket()?);
                Ok(Box::new(Host {
                    digest,
                    control: Arc::new(control),
                    _process: host,
                    cores: self.cores.clone(),
                    time_limit: self.time_limit,
                    is_alive: AtomicBool::new(true),
                }))
            }
            Ok(Err(failure)) => Err(failure),
            Err(ended) => Err(self.cores.explain(&ended, "the load of the library", None)),
        }
    }
}

/// A library in a process of its own, from which those of its calls are forked.
struct Host {
    digest: Digest,
    control: Arc<Parent>,
    _process: Child,
    cores: Arc<Cores>,
    time_limit: Duration,
    is_alive: AtomicBool,
}

impl Callable for Host {
    fn call(&self, function: &str, input: &[u8], capacity: usize) -> Result<Vec<u8>, Failure> {
        let lost = |failure: Failure| {
            self.is_alive.store(false, Ordering::Relaxed);
            failure
        };
        let mut worker = Child::spawn(&self.control, self.time_limit).map_err(lost)?;
        let call = Call {
            library: self.digest,
            function: function.into(),
            capacity: u32::try_from(capacity).unwrap_or(u32::MAX),
            input: input.into(),
        };
        let output = worker.ask(
            |socket| call.write(socket),
            |header, socket| match header.kind {
                FrameKind::Output => header.body(socket, capacity),
                _ => Err(unexpected(header)),
            },
        );
        match output {
            Ok(answer) => answer,
            Err(ended) => {
                let names =
                    ended.report.as_ref().map(|report| self.control.name(report.addresses()));
                let names = names.transpose().map_err(lost)?;
                Err(self.cores.explain(&ended, function, names.as_deref()))
            }
        }
    }

    fn is_alive(&self) -> bool {
        self.is_alive.load(Ordering::Relaxed)
    }
}

fn unexpected(header: Header) -> Failure {
    Failure::protocol(format!("a process of a library has sent an unexpected {:?}", header.kind))
}

fn internal(doing: &str, error: &io::Error) -> Failure {
    Failure::new(FailureKind::Internal, format!("{doing}: {error}"))
}
