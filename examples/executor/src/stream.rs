//! Connections whose reads and writes end at a deadline.

#![forbid(unsafe_code)]

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::ops::DerefMut;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustls::{ConnectionCommon, SideData, StreamOwned};

/// Which way bytes go.
#[derive(Clone, Copy)]
pub(crate) enum Way {
    In,
    Out,
}

/// A socket of either kind.
pub(crate) trait Socket: Read + Write + Send + Sized + 'static {
    fn set_timeout(&self, way: Way, timeout: Duration) -> io::Result<()>;
    /// Another handle of the socket.
    fn duplicate(&self) -> io::Result<Self>;
    /// Reads find the end from now on, in all handles.
    fn end_reads(&self) -> io::Result<()>;
}

impl Socket for UnixStream {
    fn set_timeout(&self, way: Way, timeout: Duration) -> io::Result<()> {
        match way {
            Way::In => self.set_read_timeout(Some(timeout)),
            Way::Out => self.set_write_timeout(Some(timeout)),
        }
    }

    fn duplicate(&self) -> io::Result<UnixStream> {
        self.try_clone()
    }

    fn end_reads(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Read)
    }
}

impl Socket for TcpStream {
    fn set_timeout(&self, way: Way, timeout: Duration) -> io::Result<()> {
        match way {
            Way::In => self.set_read_timeout(Some(timeout)),
            Way::Out => self.set_write_timeout(Some(timeout)),
        }
    }

    fn duplicate(&self) -> io::Result<TcpStream> {
        self.try_clone()
    }

    fn end_reads(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Read)
    }
}

/// A socket with a deadline: a peer that sends a byte now and then does not hold a thread for long.
pub(crate) struct Timed<S> {
    socket: S,
    deadline: Instant,
    /// The timeouts that the socket has, by way.
    timeouts: [Option<Duration>; 2],
}

impl<S: Socket> Timed<S> {
    pub(crate) fn new(socket: S, deadline: Instant) -> Timed<S> {
        Timed { socket, deadline, timeouts: [None; 2] }
    }

    pub(crate) fn get_ref(&self) -> &S {
        &self.socket
    }

    fn before_deadline<R>(
        &mut self,
        way: Way,
        run: impl FnOnce(&mut S) -> io::Result<R>,
    ) -> io::Result<R> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let [timeout_in, timeout_out] = &mut self.timeouts;
        let timeout = match way {
            Way::In => timeout_in,
            Way::Out => timeout_out,
        };
        // A system call each time would cost more than the read. An eighth more than is left is no harm.
        let most = left.saturating_add(left.checked_div(8).unwrap_or_default());
        if timeout.is_none_or(|set| set < left || set > most) {
            self.socket.set_timeout(way, left)?;
            *timeout = Some(left);
        }
        run(&mut self.socket).map_err(|error| match error.kind() {
            // So the system says that the time is over.
            io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
            _ => error,
        })
    }
}

impl<S: Socket> Read for Timed<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.before_deadline(Way::In, |socket| socket.read(buffer))
    }
}

impl<S: Socket> Write for Timed<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.before_deadline(Way::Out, |socket| socket.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
}

/// A connection, with TLS or without.
pub(crate) trait Channel: Read + Write + Send {
    /// When reads and writes end with an error.
    fn set_deadline(&mut self, deadline: Instant);
}

impl<S: Socket> Channel for Timed<S> {
    fn set_deadline(&mut self, deadline: Instant) {
        self.deadline = deadline;
    }
}

impl<C, S, D: SideData> Channel for StreamOwned<C, Timed<S>>
where
    C: DerefMut<Target = ConnectionCommon<D>> + Send,
    S: Socket,
{
    fn set_deadline(&mut self, deadline: Instant) {
        self.sock.deadline = deadline;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_sends_a_byte_now_and_then_meets_the_deadline() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let start = Instant::now();
        std::thread::spawn(move || {
            while theirs.write_all(b"x").is_ok() {
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        let deadline = start.checked_add(Duration::from_millis(200)).unwrap();
        let error = Timed::new(ours, deadline).read_exact(&mut [0; 1000]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(start.elapsed() < Duration::from_secs(5));
    }
}
