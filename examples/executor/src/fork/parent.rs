//! A process that forks children by order, and the server's end of the socket that the orders come by.

#![allow(unsafe_code)]

use std::io::{self, IoSlice, IoSliceMut, PipeWriter, Read, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use rustix::process::{Pid, Signal, WaitOptions, getpid, getppid, kill_process, waitpid};

use crate::fork::internal;
use crate::protocol::Failure;
use crate::stream::{Channel, Timed};

/// How long the process may take for an answer. It runs no foreign code while it makes one.
const ANSWER: Duration = Duration::from_secs(10);
/// The most addresses that are named at once.
pub(super) const MOST_ADDRESSES: usize = 64;
/// The longest text that names them.
const LONGEST_NAMES: usize = 64 << 10;

/// An order to the process.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Order {
    /// Fork a child, which gets the two descriptors that come with it. The answer is its pid.
    Fork = 1,
    /// Tell a child that its time is over.
    TimeIsOver = 2,
    /// End a child, if it has not ended yet. The answer is its wait status.
    Bury = 3,
    /// Name the addresses that follow: as many as the number says. The answer is a length, and a text.
    Name = 4,
}

/// An order with its number: a pid, or a count.
const ORDER: usize = 5;

/// The server's end.
pub(super) struct Parent {
    /// `None` once an answer did not come in time, or broke off: later ones would be taken for others.
    control: Mutex<Option<Timed<UnixStream>>>,
    /// Its pid, if this process has forked it.
    pid: Option<i32>,
}

impl Parent {
    /// Forks a process that runs `main`. It must be the process's only thread.
    pub(super) fn start(main: impl FnOnce(UnixStream) -> Never) -> io::Result<Parent> {
        let (ours, theirs) = UnixStream::pair()?;
        match fork()? {
            Forked::Child => {
                drop(ours);
                in_child(|| main(theirs))
            }
            Forked::Parent(pid) => Ok(Parent { pid: Some(pid), ..Parent::of(ours) }),
        }
    }

    /// The process at the other end of this socket.
    pub(super) fn of(control: UnixStream) -> Parent {
        Parent { control: Mutex::new(Some(Timed::new(control, Instant::now()))), pid: None }
    }

    fn control(&self) -> MutexGuard<'_, Option<Timed<UnixStream>>> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the process that this one has forked still runs, and answers.
    pub(super) fn is_alive(&self) -> bool {
        let pid = self.pid.and_then(Pid::from_raw);
        self.control().is_some()
            && pid.is_none_or(|pid| matches!(waitpid(Some(pid), WaitOptions::NOHANG), Ok(None)))
    }

    /// Forks a child with these descriptors.
    pub(super) fn fork(
        &self,
        socket: BorrowedFd<'_>,
        crashes: BorrowedFd<'_>,
    ) -> Result<i32, Failure> {
        let pid = self.locked("forking a process", |control| {
            let descriptors = [socket, crashes];
            let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
            let order = order(Order::Fork, 0);
            let sent = sendmsg(
                control.get_ref(),
                &[IoSlice::new(&order)],
                &mut ancillary,
                SendFlags::NOSIGNAL,
            )?;
            match sent {
                ORDER => number(control),
                _ => Err(io::ErrorKind::WriteZero.into()),
            }
        })?;
        match pid {
            1.. => Ok(pid),
            error => {
                let error = io::Error::from_raw_os_error(error.saturating_neg());
                Err(internal("forking a process", &error))
            }
        }
    }

    /// Tells a child that its time is over. It says where it is, and ends.
    pub(super) fn time_is_over(&self, pid: i32) -> Result<(), Failure> {
        self.tell(Order::TimeIsOver, pid).map(drop)
    }

    /// Ends a child, and gives its wait status.
    pub(super) fn bury(&self, pid: i32) -> Result<i32, Failure> {
        self.tell(Order::Bury, pid)
    }

    fn tell(&self, what: Order, pid: i32) -> Result<i32, Failure> {
        self.locked("ending a process", |control| {
            control.write_all(&order(what, pid))?;
            number(control)
        })
    }

    /// Names addresses: a line that says where the first of a library is, and a line for each frame of libraries.
    pub(super) fn name(&self, addresses: &[u64]) -> Result<String, Failure> {
        self.locked("naming addresses", |control| {
            let count = i32::try_from(addresses.len()).map_err(io::Error::other)?;
            let mut message = order(Order::Name, count).to_vec();
            addresses.iter().for_each(|it| message.extend_from_slice(&it.to_le_bytes()));
            control.write_all(&message)?;
            let len = usize::try_from(number(control)?).unwrap_or(usize::MAX);
            if len > LONGEST_NAMES {
                return Err(io::ErrorKind::InvalidData.into());
            }
            let mut text = vec![0; len];
            control.read_exact(&mut text)?;
            Ok(String::from_utf8_lossy(&text).into_owned())
        })
    }

    fn locked<R>(
        &self,
        doing: &str,
        run: impl FnOnce(&mut Timed<UnixStream>) -> io::Result<R>,
    ) -> Result<R, Failure> {
        let mut control = self.control();
        let result = match control.as_mut() {
            Some(open) => {
                let now = Instant::now();
                open.set_deadline(now.checked_add(ANSWER).unwrap_or(now));
                run(open)
            }
            None => Err(io::ErrorKind::NotConnected.into()),
        };
        result.map_err(|error| {
            *control = None;
            internal(doing, &error)
        })
    }
}

fn order(what: Order, number: i32) -> [u8; ORDER] {
    let [a, b, c, d] = number.to_le_bytes();
    [what as u8, a, b, c, d]
}

fn number(control: &mut impl Read) -> io::Result<i32> {
    let mut number = [0; 4];
    control.read_exact(&mut number)?;
    Ok(i32::from_le_bytes(number))
}

/// The type of what does not return.
pub(super) enum Never {}

/// Does what the server says until it closes the socket. Children run `child`.
pub(super) fn run(
    mut control: UnixStream,
    child: &dyn Fn(UnixStream, PipeWriter) -> Never,
) -> Never {
    loop {
        let Ok(Some((what, argument, descriptors))) = receive(&control) else { exit(0) };
        let answered = match (what, descriptors) {
            (Order::Fork, Some((socket, crashes))) => match fork() {
                Ok(Forked::Child) => {
                    drop(control);
                    in_child(|| child(socket, crashes))
                }
                Ok(Forked::Parent(pid)) => answer(&mut control, pid),
                Err(error) => {
                    let error = error.raw_os_error().unwrap_or(libc::EIO).saturating_neg();
                    answer(&mut control, error)
                }
            },
            (Order::TimeIsOver, None) => {
                signal(argument, Signal::XCPU);
                answer(&mut control, 0)
            }
            (Order::Bury, None) => {
                signal(argument, Signal::KILL);
                answer(&mut control, wait_status(argument))
            }
            (Order::Name, None) => name(&mut control, argument),
            _ => exit(1),
        };
        if answered.is_err() {
            exit(1);
        }
    }
}

type Descriptors = Option<(UnixStream, PipeWriter)>;

/// The next order, its number, and the descriptors that came with it. `None` at the end.
fn receive(control: &UnixStream) -> io::Result<Option<(Order, i32, Descriptors)>> {
    let mut bytes = [0; ORDER];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::WAITALL;
    let received = loop {
        match recvmsg(control, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, flags) {
            Err(Errno::INTR) => {}
            other => break other?,
        }
    };
    let mut descriptors = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            descriptors.extend(received);
        }
    }
    if received.bytes != ORDER {
        return Ok(None);
    }
    let [what, number @ ..] = bytes;
    let what = match what {
        1 => Order::Fork,
        2 => Order::TimeIsOver,
        3 => Order::Bury,
        4 => Order::Name,
        _ => return Err(io::ErrorKind::InvalidData.into()),
    };
    let both = <[OwnedFd; 2]>::try_from(descriptors).ok();
    let both = both.map(|[socket, crashes]| (socket.into(), crashes.into()));
    Ok(Some((what, i32::from_le_bytes(number), both)))
}

fn answer(control: &mut UnixStream, number: i32) -> io::Result<()> {
    control.write_all(&number.to_le_bytes())
}

/// Sends a signal to a child that was not waited for. So the pid is still the child's.
fn signal(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid.max(0)) {
        // It may have ended: then there is nobody to tell.
        let _ = kill_process(pid, signal);
    }
}

fn wait_status(pid: i32) -> i32 {
    let pid = Pid::from_raw(pid.max(0));
    loop {
        match waitpid(pid, WaitOptions::empty()) {
            Err(Errno::INTR) => {}
            Ok(Some((_, status))) => return status.as_raw(),
            _ => return -1,
        }
    }
}

/// Answers with the names of the addresses that follow.
fn name(control: &mut UnixStream, count: i32) -> io::Result<()> {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    if count > MOST_ADDRESSES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut addresses = Vec::new();
    for _ in 0..count {
        let mut address = [0; 8];
        control.read_exact(&mut address)?;
        addresses.push(u64::from_le_bytes(address));
    }
    let mut text = names(&addresses);
    text.truncate(text.floor_char_boundary(LONGEST_NAMES));
    answer(control, i32::try_from(text.len()).map_err(io::Error::other)?)?;
    control.write_all(text.as_bytes())
}

fn names(addresses: &[u64]) -> String {
    /// The most frames in a text. A recursion has more.
    const MOST_FRAMES: usize = 24;
    let mut lines = Vec::new();
    for (index, address) in addresses.iter().enumerate() {
        // All but the first are return addresses: the call is before them.
        let address = address.saturating_sub(u64::from(index > 0));
        for frame in memdl::symbolize(usize::try_from(address).unwrap_or(0)) {
            if lines.is_empty() {
                lines.push(short(&frame));
            }
            lines.push(format!("  {frame}"));
            if lines.len() > MOST_FRAMES {
                lines.push("  and further frames".into());
                return lines.join("\n");
            }
        }
    }
    lines.join("\n")
}

/// As `divide (work.c:12)`.
fn short(frame: &memdl::Frame) -> String {
    let function = frame.function().map_or("?".into(), |name| name.escape_debug().to_string());
    let file = frame.file().and_then(|file| file.file_name());
    match (file, frame.line()) {
        (Some(file), Some(line)) => {
            format!("{function} ({}:{line})", file.display().to_string().escape_debug())
        }
        _ => format!("{function} ({})", frame.image().escape_debug()),
    }
}

enum Forked {
    Child,
    Parent(i32),
}

fn fork() -> io::Result<Forked> {
    let parent = getpid();
    // SAFETY: this process has one thread, or those besides it are of a library that its owner allows to be forked (the
    // C library's locks are free in the child in any case). The child runs `in_child`.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            // The child ends with its parent. One that could not see to that, or whose parent has ended already, ends.
            let ends_with_parent =
                rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
            match ends_with_parent.is_ok() && getppid() == Some(parent) {
                true => Ok(Forked::Child),
                false => exit(1),
            }
        }
        pid => Ok(Forked::Parent(pid)),
    }
}

/// Runs a child's code. It never returns to the caller, who is somebody else's: not even by a panic.
fn in_child(run: impl FnOnce() -> Never) -> ! {
    let _ = catch_unwind(AssertUnwindSafe(run));
    exit(101)
}

/// Ends this process. Handlers of the exit are not run: they are the server's.
pub(super) fn exit(code: i32) -> ! {
    // SAFETY: it has no preconditions.
    unsafe { libc::_exit(code) }
}
