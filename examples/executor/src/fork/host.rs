//! The process of a library, and those of its calls.

#![allow(unsafe_code)]

use std::io::{self, PipeWriter, Read};
use std::os::unix::net::UnixStream;

use memdl::ImageBuffer;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::arguments::LoaderKind;
use crate::fork::parent::{Never, exit, run as run_parent};
use crate::fork::{Settings, crash};
use crate::library::{Memfd, function, invoke, loader, not_loaded};
use crate::protocol::{Announced, Call, Failure, FailureKind, FrameKind, Header, write_frame};
use crate::run::Received;

/// A library in this process.
enum Code {
    Memdl(memdl::Library),
    Memfd(Memfd),
}

/// Loads the library that comes from the socket. Then forks a worker for each call.
pub(super) fn run(settings: &Settings, mut socket: UnixStream, crashes: &PipeWriter) -> Never {
    let loaded = prepare_for_crashes(settings, crashes)
        .map_err(|error| Failure::new(FailureKind::Internal, error.to_string()))
        .and_then(|()| receive(settings, &mut socket))
        .and_then(|library| load(settings, library));
    let sent = match &loaded {
        Ok(_) => write_frame(&mut socket, FrameKind::Loaded, &[], &[]),
        Err(failure) => failure.write(&mut socket),
    };
    match (loaded, sent) {
        (Ok(code), Ok(())) => {
            run_parent(socket, &|socket, crashes| work(settings, &code, socket, &crashes))
        }
        _ => exit(1),
    }
}

/// Cores are written to the folder for them, or not at all.
fn prepare_for_crashes(settings: &Settings, crashes: &PipeWriter) -> io::Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Core);
    let current = match &settings.cores {
        Some(folder) => {
            std::env::set_current_dir(folder)?;
            maximum
        }
        None => Some(0),
    };
    setrlimit(Resource::Core, Rlimit { current, maximum })?;
    crash::install(settings.cores.is_some())?;
    crash::report_to(crashes);
    Ok(())
}

fn receive(settings: &Settings, socket: &mut UnixStream) -> Result<Received, Failure> {
    let header = Header::expect(socket)?;
    let announced = Announced::read(header, socket, &settings.limits)?;
    let bytes = ImageBuffer::new(announced.len);
    let mut bytes = bytes.map_err(|error| Failure::new(FailureKind::Memory, error.to_string()))?;
    socket.read_exact(&mut bytes)?;
    Ok(Received { digest: announced.digest, signature: announced.signature, bytes })
}

fn load(settings: &Settings, library: Received) -> Result<Code, Failure> {
    if settings.loader == LoaderKind::Memfd {
        return Memfd::load(&settings.policy, &library).map(Code::Memfd);
    }
    let Received { digest, signature, bytes } = library;
    let loader = loader(&settings.policy, digest, signature, settings.image_span);
    // SAFETY: the policy allows the library's constructors, and those of what it needs. Destructors never run: the
    // process ends by a signal, or without them.
    let library = unsafe { loader.load_buffer(bytes) };
    library.map(Code::Memdl).map_err(|error| not_loaded(&error))
}

/// Runs one call, in a process of its own.
fn work(settings: &Settings, code: &Code, mut socket: UnixStream, crashes: &PipeWriter) -> Never {
    crash::report_to(crashes);
    let output = Header::expect(&mut socket)
        .and_then(|header| Call::read(header, &mut socket, &settings.limits))
        .and_then(|call| invoke_in(code, &call));
    // Without the server, nobody waits for the answer.
    let _ = match output {
        Ok(output) => write_frame(&mut socket, FrameKind::Output, &[], &output),
        Err(failure) => failure.write(&mut socket),
    };
    exit(0)
}

fn invoke_in(code: &Code, call: &Call) -> Result<Vec<u8>, Failure> {
    let function = match code {
        Code::Memdl(library) => function(library, &call.function)?,
        Code::Memfd(library) => library.function(&call.function)?,
    };
    // SAFETY: the library stays as long as the process.
    unsafe { invoke(function, &call.function, &call.input, call.capacity as usize) }
}
