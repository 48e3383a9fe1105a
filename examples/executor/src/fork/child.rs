//! A process that was forked for the server, and that is asked one thing.

#![forbid(unsafe_code)]

use std::io::{self, PipeReader, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::fork::crash::Report;
use crate::fork::internal;
use crate::fork::parent::Parent;
use crate::protocol::{Failure, FailureKind, FrameKind, Header};
use crate::stream::{Channel, Timed};

/// How long a child whose time is over may take to say where it is.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How long the system may take to write a core.
const CORE: Duration = Duration::from_secs(30);

/// A child. It ends with this value.
pub(super) struct Child {
    parent: Arc<Parent>,
    pid: i32,
    socket: Timed<UnixStream>,
    crashes: PipeReader,
    time_limit: Duration,
    is_buried: bool,
}

/// How a child ended that has not answered.
pub(super) struct Ended {
    pub(super) pid: i32,
    pub(super) status: ExitStatus,
    /// What its signal handler has written.
    pub(super) report: Option<Report>,
    /// It had not ended, and was killed: what it sent was no answer, or it was too late.
    pub(super) was_killed: bool,
    /// The time limit that it has exceeded.
    pub(super) exceeded: Option<Duration>,
}

impl Child {
    /// Lets the parent fork a child.
    pub(super) fn spawn(parent: &Arc<Parent>, time_limit: Duration) -> Result<Child, Failure> {
        let channels = || io::Result::Ok((UnixStream::pair()?, io::pipe()?));
        let ((ours, theirs), (crashes, their_crashes)) =
            channels().map_err(|error| internal("connecting a process", &error))?;
        let pid = parent.fork(theirs.as_fd(), their_crashes.as_fd())?;
        let socket = Timed::new(ours, after(time_limit));
        Ok(Child { parent: parent.clone(), pid, socket, crashes, time_limit, is_buried: false })
    }

    /// Asks the child something, and reads its answer. The error says how it ended instead.
    pub(super) fn ask<T>(
        &mut self,
        ask: impl FnOnce(&mut Timed<UnixStream>) -> io::Result<()>,
        read: impl FnOnce(Header, &mut Timed<UnixStream>) -> Result<T, Failure>,
    ) -> Result<Result<T, Failure>, Ended> {
        let deadline = after(self.time_limit);
        self.socket.set_deadline(deadline);
        let exchange = || {
            ask(&mut self.socket)?;
            let header = Header::expect(&mut self.socket)?;
            if header.kind == FrameKind::Failure {
                return Ok(Err(Failure::read(header, &mut self.socket)));
            }
            read(header, &mut self.socket).map(Ok)
        };
        exchange().map_err(|failure: Failure| {
            let is_late = Instant::now() >= deadline && failure.kind == FailureKind::Connection;
            self.ended(is_late)
        })
    }

    /// Finds out how it ended; if it has not ended, ends it.
    fn ended(&mut self, is_late: bool) -> Ended {
        if is_late {
            // A parent that has gone has taken its child along.
            let _ = self.parent.time_is_over(self.pid);
        }
        // Its end of the socket is closed when its core has been written.
        let mut report = None;
        let mut has_ended = self.has_ended_within(LAST_WORDS);
        if !has_ended {
            report = Report::read(&self.crashes);
            has_ended = report.is_some() && self.has_ended_within(CORE);
        }
        let status = self.bury();
        let report = Report::read(&self.crashes).or(report);
        // The time may have been over while the core of a crash was written.
        let has_crashed = report.as_ref().is_some_and(|report| !report.is_of_time_limit());
        let exceeded = (is_late && !has_crashed).then_some(self.time_limit);
        Ended { pid: self.pid, status, report, was_killed: !has_ended, exceeded }
    }

    fn has_ended_within(&mut self, time: Duration) -> bool {
        self.socket.set_deadline(after(time));
        loop {
            match self.socket.read(&mut [0; 4096]) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return error.kind() != io::ErrorKind::TimedOut,
            }
        }
    }

    fn bury(&mut self) -> ExitStatus {
        self.is_buried = true;
        // Without an answer, the child has ended with its parent.
        ExitStatus::from_raw(self.parent.bury(self.pid).unwrap_or(libc::SIGKILL))
    }

    /// Another handle of the socket.
    pub(super) fn socket(&self) -> Result<UnixStream, Failure> {
        let socket = self.socket.get_ref().try_clone();
        socket.map_err(|error| internal("keeping a process", &error))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.is_buried {
            self.bury();
        }
    }
}

/// The time after this long.
fn after(time: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(time).unwrap_or(now)
}
