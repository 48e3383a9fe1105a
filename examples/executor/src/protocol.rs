//! What travels between client and server: frames. PROTOCOL.md describes them for other languages.
//!
//! The bytes of a peer are hostile. A length is compared with a limit before anything else is done with it, and memory
//! grows with the bytes that have arrived, not with those that were announced.

#![forbid(unsafe_code)]

use std::fmt;
use std::io::{self, Read, Write};

use ring::digest;

/// The version of the protocol. A server answers a client of another version with an error.
pub const VERSION: u16 = 1;
/// How a [`Hello`] begins, so that a client of something else is told apart.
pub const MAGIC: [u8; 8] = *b"memdlexe";
/// The longest name of a function, in bytes.
pub const LONGEST_NAME: usize = 1024;
/// The longest text of a failure, in bytes.
pub const LONGEST_MESSAGE: usize = 16 << 10;
/// The bytes of a frame's header.
const HEADER: usize = 8;
/// The bytes of a `Library` frame in front of the library, with a signature.
const LONGEST_LIBRARY_HEAD: usize = 32 + 1 + 64;
/// The bytes of a `Call` frame that are always there: digest, capacity, length of the name.
const CALL_HEAD: usize = 32 + 4 + 2;

/// A number that cannot be guessed, and that is used once.
pub type Nonce = [u8; 32];
/// An HMAC-SHA-256.
pub type Mac = [u8; 32];
/// An ed25519 signature.
pub type Signature = [u8; 64];

/// The SHA-256 of a library: its name in the protocol.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of these bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Digest {
        let mut digest = [0; 32];
        digest.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
        Digest(digest)
    }

    /// The first digits, for names and logs.
    #[must_use]
    pub fn short(&self) -> String {
        hex(self.0.get(..6).unwrap_or_default())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The bytes in hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The `N` bytes that a text has in hexadecimal.
#[must_use]
pub fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if text.len() != N.checked_mul(2)? || !text.bytes().all(|it| it.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(bytes)
}

/// Why a request failed. The numbers are part of the protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u16)]
pub enum FailureKind {
    /// A frame is malformed, was cut, or is not expected here.
    Protocol = 1,
    /// The peer has another version of the protocol.
    Version = 2,
    /// The peer has not proved who it is.
    Unauthenticated = 3,
    /// A frame exceeds a limit.
    TooLarge = 4,
    /// The library is not allowed to run.
    Refused = 5,
    /// The library cannot be loaded.
    NotLoaded = 6,
    /// The library has no such function.
    NoFunction = 7,
    /// The function has returned a failure, or has ended its process.
    Function = 8,
    /// The function has crashed.
    Crash = 9,
    /// The function has exceeded the time limit.
    TimeLimit = 10,
    /// As many calls run as the server allows. Later it may work.
    Busy = 11,
    /// All memory for libraries is in use. Later it may work.
    Memory = 12,
    /// The server stops.
    Stopping = 13,
    /// The server has a problem of its own, which its log describes.
    Internal = 14,
    /// The connection broke. Never sent.
    Connection = 15,
}

impl FailureKind {
    /// All kinds.
    pub const ALL: [FailureKind; 15] = [
        FailureKind::Protocol,
        FailureKind::Version,
        FailureKind::Unauthenticated,
        FailureKind::TooLarge,
        FailureKind::Refused,
        FailureKind::NotLoaded,
        FailureKind::NoFunction,
        FailureKind::Function,
        FailureKind::Crash,
        FailureKind::TimeLimit,
        FailureKind::Busy,
        FailureKind::Memory,
        FailureKind::Stopping,
        FailureKind::Internal,
        FailureKind::Connection,
    ];

    /// Its name in metrics and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            FailureKind::Protocol => "protocol",
            FailureKind::Version => "version",
            FailureKind::Unauthenticated => "unauthenticated",
            FailureKind::TooLarge => "too_large",
            FailureKind::Refused => "refused",
            FailureKind::NotLoaded => "not_loaded",
            FailureKind::NoFunction => "no_function",
            FailureKind::Function => "function",
            FailureKind::Crash => "crash",
            FailureKind::TimeLimit => "time_limit",
            FailureKind::Busy => "busy",
            FailureKind::Memory => "memory",
            FailureKind::Stopping => "stopping",
            FailureKind::Internal => "internal",
            FailureKind::Connection => "connection",
        }
    }

    /// Whether the server closes the connection after it: it no longer knows where the next frame begins, or whom it
    /// talks to.
    #[must_use]
    pub fn ends_connection(self) -> bool {
        matches!(
            self,
            FailureKind::Protocol
                | FailureKind::Version
                | FailureKind::Unauthenticated
                | FailureKind::TooLarge
                | FailureKind::Stopping
                | FailureKind::Connection
        )
    }

    fn from_number(number: u16) -> Option<FailureKind> {
        FailureKind::ALL.into_iter().find(|kind| *kind as u16 == number)
    }
}

/// Why a request failed, with a text for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Failure {
    /// What kind of failure it is.
    pub kind: FailureKind,
    /// What failed, and what to do about it.
    pub message: String,
}

impl Failure {
    /// A failure.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Failure {
        Failure { kind, message: message.into() }
    }

    pub(crate) fn protocol(message: impl Into<String>) -> Failure {
        Failure::new(FailureKind::Protocol, message)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// A stream that ended within a frame is the peer's fault; the rest is the network's.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                Failure::protocol("the connection ended within a frame")
            }
            io::ErrorKind::TimedOut => {
                Failure::new(FailureKind::Connection, "the peer took too long")
            }
            _ => Failure::new(FailureKind::Connection, format!("the connection broke: {error}")),
        }
    }
}

/// What a frame is. The numbers are part of the protocol.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum FrameKind {
    /// The client's first frame: a [`Hello`].
    Hello = 1,
    /// The client's answer to a challenge: a [`Mac`].
    Proof = 2,
    /// A [`Call`].
    Call = 3,
    /// A library: an [`Announced`], and its bytes.
    Library = 4,
    /// The server asks for a proof: a [`Nonce`].
    Challenge = 65,
    /// The server takes requests now: a [`Welcome`].
    Welcome = 66,
    /// The output of a function.
    Output = 67,
    /// The server does not have the library of a call: send it, and call again.
    Unknown = 68,
    /// The server has the library now.
    Loaded = 69,
    /// A [`Failure`].
    Failure = 70,
}

impl FrameKind {
    fn from_number(number: u8) -> Option<FrameKind> {
        use FrameKind::*;
        let all =
            [Hello, Proof, Call, Library, Challenge, Welcome, Output, Unknown, Loaded, Failure];
        all.into_iter().find(|kind| *kind as u8 == number)
    }
}

/// The header of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// What the frame is.
    pub kind: FrameKind,
    /// The number of bytes that follow.
    pub len: usize,
}

impl Header {
    /// Reads a header. `None` where the stream ends before it.
    ///
    /// # Errors
    /// The stream breaks or ends within the header, or the header is malformed.
    pub fn read(stream: &mut (impl Read + ?Sized)) -> Result<Option<Header>, Failure> {
        let mut bytes = [0; HEADER];
        let len = loop {
            match stream.read(&mut bytes) {
                Ok(0) => return Ok(None),
                Ok(len) => break len,
                // TLS without its own words of farewell. Between frames nothing is lost by that.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        };
        stream.read_exact(bytes.get_mut(len..).unwrap_or_default())?;
        let [a, b, c, d, kind, zeros @ ..] = bytes;
        let known = FrameKind::from_number(kind).filter(|_| zeros == [0; 3]);
        let kind = known.ok_or_else(|| Failure::protocol("this is no frame of the protocol"))?;
        let len = usize::try_from(u32::from_le_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        Ok(Some(Header { kind, len }))
    }

    /// Reads the next header, which must be there.
    ///
    /// # Errors
    /// As [`Header::read`].
    pub fn expect(stream: &mut (impl Read + ?Sized)) -> Result<Header, Failure> {
        Header::read(stream)?.ok_or_else(|| {
            Failure::new(FailureKind::Connection, "the peer has closed the connection")
        })
    }

    /// Reads the frame's bytes, if they are no more than `limit`.
    ///
    /// # Errors
    /// There are more, or the stream breaks or ends.
    pub fn body(self, stream: &mut (impl Read + ?Sized), limit: usize) -> Result<Vec<u8>, Failure> {
        self.check(limit)?;
        let mut body = Vec::new();
        // It grows with what arrives.
        stream.take(self.len as u64).read_to_end(&mut body)?;
        match body.len() == self.len {
            true => Ok(body),
            false => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
        }
    }

    fn check(self, limit: usize) -> Result<(), Failure> {
        if self.len <= limit {
            return Ok(());
        }
        let message =
            format!("a frame {:?} of {} bytes exceeds the limit of {limit}", self.kind, self.len);
        Err(Failure::new(FailureKind::TooLarge, message))
    }
}

/// Writes a frame whose bytes are `head` and then `tail`.
///
/// # Errors
/// The stream breaks, or the frame is 4 GiB or longer.
pub fn write_frame(
    stream: &mut (impl Write + ?Sized),
    kind: FrameKind,
    head: &[u8],
    tail: &[u8],
) -> io::Result<()> {
    // What is small goes in one write, and so in one packet or TLS record.
    const SMALL: usize = 16 << 10;
    let mut bytes = start_of_frame(kind, head, tail.len())?;
    if tail.len() <= SMALL {
        bytes.extend_from_slice(tail);
        stream.write_all(&bytes)?;
    } else {
        stream.write_all(&bytes)?;
        stream.write_all(tail)?;
    }
    stream.flush()
}

/// The header of a frame, and the first bytes behind it. The caller writes `rest` more.
pub(crate) fn start_of_frame(kind: FrameKind, head: &[u8], rest: usize) -> io::Result<Vec<u8>> {
    let len = head.len().checked_add(rest).and_then(|len| u32::try_from(len).ok());
    let len = len.ok_or_else(|| io::Error::other("a frame of 4 GiB or more"))?;
    let mut bytes = Vec::with_capacity(HEADER.saturating_add(head.len()));
    bytes.extend_from_slice(&len.to_le_bytes());
    bytes.extend_from_slice(&[kind as u8, 0, 0, 0]);
    bytes.extend_from_slice(head);
    Ok(bytes)
}

/// Takes fields from the front of a frame's bytes.
pub(crate) struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn bytes(&mut self, len: usize) -> Result<&'a [u8], Failure> {
        let (field, rest) = self
            .0
            .split_at_checked(len)
            .ok_or_else(|| Failure::protocol("a frame is too short"))?;
        self.0 = rest;
        Ok(field)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Failure> {
        let mut array = [0; N];
        array.copy_from_slice(self.bytes(N)?);
        Ok(array)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Failure> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Failure> {
        self.array().map(u32::from_le_bytes)
    }

    /// Nothing may be left.
    pub(crate) fn end(self) -> Result<(), Failure> {
        match self.0 {
            [] => Ok(()),
            _ => Err(Failure::protocol("a frame is too long")),
        }
    }
}

/// The client's first frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hello {
    /// The client's version of the protocol.
    pub version: u16,
    /// What the server's proof is about.
    pub nonce: Nonce,
}

impl Hello {
    /// Writes the frame.
    ///
    /// # Errors
    /// The stream breaks.
    pub fn write(&self, stream: &mut (impl Write + ?Sized)) -> io::Result<()> {
        let version = self.version.to_le_bytes();
        write_frame(stream, FrameKind::Hello, &[&MAGIC[..], &version, &self.nonce].concat(), &[])
    }

    /// Reads the frame, and refuses other versions.
    ///
    /// # Errors
    /// It is another frame, malformed, or of another version.
    pub fn read(stream: &mut (impl Read + ?Sized)) -> Result<Hello, Failure> {
        let header = Header::expect(stream)?;
        if header.kind != FrameKind::Hello {
            return Err(Failure::protocol("the first frame is no Hello"));
        }
        // Later versions may have a longer one, and get an error that says so.
        let body = header.body(stream, 1024)?;
        let mut fields = Fields(&body);
        if fields.array()? != MAGIC {
            return Err(Failure::protocol("this is no client of the executor"));
        }
        let version = fields.u16()?;
        if version != VERSION {
            let message =
                format!("the server has version {VERSION} of the protocol, not {version}");
            return Err(Failure::new(FailureKind::Version, message));
        }
        let hello = Hello { version, nonce: fields.array()? };
        fields.end().map(|()| hello)
    }
}

/// What a server takes. Clients keep to it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// The most bytes of a library.
    pub library: u32,
    /// The most bytes of a function's input.
    pub input: u32,
    /// The most bytes of a function's output.
    pub output: u32,
}

/// The server's last frame of the handshake.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Welcome {
    /// What the server takes.
    pub limits: Limits,
    /// The server's proof that it has the key, too. Zero over TLS.
    pub mac: Mac,
}

impl Welcome {
    /// Writes the frame.
    ///
    /// # Errors
    /// The stream breaks.
    pub fn write(&self, stream: &mut (impl Write + ?Sized)) -> io::Result<()> {
        let Limits { library, input, output } = self.limits;
        let limits = [library, input, output].map(u32::to_le_bytes).concat();
        write_frame(stream, FrameKind::Welcome, &limits, &self.mac)
    }

    /// Reads what follows the header.
    ///
    /// # Errors
    /// It is malformed.
    pub fn read(header: Header, stream: &mut (impl Read + ?Sized)) -> Result<Welcome, Failure> {
        let body = header.body(stream, 1024)?;
        let mut fields = Fields(&body);
        let limits = Limits { library: fields.u32()?, input: fields.u32()?, output: fields.u32()? };
        let welcome = Welcome { limits, mac: fields.array()? };
        fields.end().map(|()| welcome)
    }
}

/// A call of a function.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Call {
    /// Which library.
    pub library: Digest,
    /// The function's name.
    pub function: String,
    /// The most bytes of output.
    pub capacity: u32,
    /// Its input.
    pub input: Vec<u8>,
}

impl Call {
    /// Writes the frame.
    ///
    /// # Errors
    /// The stream breaks, or the call is too long for a frame.
    pub fn write(&self, stream: &mut (impl Write + ?Sized)) -> io::Result<()> {
        let name = self.function.as_bytes();
        let name_len = u16::try_from(name.len()).map_err(|_| io::Error::other("a long name"))?;
        let (capacity, name_len) = (self.capacity.to_le_bytes(), name_len.to_le_bytes());
        let head = [&self.library.0[..], &capacity, &name_len, name].concat();
        write_frame(stream, FrameKind::Call, &head, &self.input)
    }

    /// Reads what follows the header.
    ///
    /// # Errors
    /// It is malformed, or exceeds a limit.
    pub fn read(
        header: Header,
        stream: &mut (impl Read + ?Sized),
        limits: &Limits,
    ) -> Result<Call, Failure> {
        let most = (limits.input as usize).saturating_add(CALL_HEAD).saturating_add(LONGEST_NAME);
        let body = header.body(stream, most)?;
        let mut fields = Fields(&body);
        let library = Digest(fields.array()?);
        let capacity = fields.u32()?;
        let name = usize::from(fields.u16()?);
        let too_large = |what: &str, len: usize, most: usize| {
            let message = format!("{what} of {len} bytes exceeds the limit of {most}");
            Err(Failure::new(FailureKind::TooLarge, message))
        };
        if name > LONGEST_NAME {
            return too_large("a name", name, LONGEST_NAME);
        }
        let function = str::from_utf8(fields.bytes(name)?)
            .map_err(|_| Failure::protocol("the name of a function is not UTF-8"))?;
        if function.contains(char::is_control) {
            // It would write lines of its own into the log.
            return Err(Failure::protocol("the name of a function has control characters"));
        }
        let input = fields.0;
        if input.len() > limits.input as usize {
            return too_large("an input", input.len(), limits.input as usize);
        }
        if capacity > limits.output {
            return too_large("an output", capacity as usize, limits.output as usize);
        }
        Ok(Call { library, function: function.into(), capacity, input: input.into() })
    }
}

/// What a client says of a library before its bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Announced {
    /// Its digest.
    pub digest: Digest,
    /// A signature of its bytes.
    pub signature: Option<Signature>,
    /// How many bytes follow.
    pub len: usize,
}

impl Announced {
    /// The frame up to the library's bytes.
    ///
    /// # Errors
    /// The library is too long for a frame.
    pub fn start_of_frame(&self) -> io::Result<Vec<u8>> {
        let signature = self.signature.as_ref().map_or(&[][..], |it| it);
        let signed = [if signature.is_empty() { 0 } else { 64 }];
        let head = [&self.digest.0[..], &signed, signature].concat();
        start_of_frame(FrameKind::Library, &head, self.len)
    }

    /// Reads what stands before the library's bytes. The caller reads those: into memory where they will run.
    ///
    /// # Errors
    /// It is malformed, or the library exceeds the limit.
    pub fn read(
        header: Header,
        stream: &mut (impl Read + ?Sized),
        limits: &Limits,
    ) -> Result<Announced, Failure> {
        header.check((limits.library as usize).saturating_add(LONGEST_LIBRARY_HEAD))?;
        let mut left = header.len;
        let mut take = |field: &mut [u8]| {
            left = left
                .checked_sub(field.len())
                .ok_or_else(|| Failure::protocol("a frame is too short"))?;
            stream.read_exact(field).map_err(Failure::from)
        };
        let mut head = [0; 33];
        take(&mut head)?;
        let [digest @ .., signed] = head;
        let signature = match signed {
            0 => None,
            64 => {
                let mut signature = [0; 64];
                take(&mut signature)?;
                Some(signature)
            }
            other => {
                return Err(Failure::protocol(format!("a signature has 64 bytes, not {other}")));
            }
        };
        let most = limits.library as usize;
        if left > most {
            let message = format!("a library of {left} bytes exceeds the limit of {most}");
            return Err(Failure::new(FailureKind::TooLarge, message));
        }
        Ok(Announced { digest: Digest(digest), signature, len: left })
    }
}

impl Failure {
    /// Writes the frame.
    ///
    /// # Errors
    /// The stream breaks.
    pub fn write(&self, stream: &mut (impl Write + ?Sized)) -> io::Result<()> {
        let cut = self.message.floor_char_boundary(LONGEST_MESSAGE);
        let message = self.message.get(..cut).unwrap_or_default();
        let kind = (self.kind as u16).to_le_bytes();
        write_frame(stream, FrameKind::Failure, &kind, message.as_bytes())
    }

    /// Reads what follows the header. What cannot be read is a failure as well.
    pub fn read(header: Header, stream: &mut (impl Read + ?Sized)) -> Failure {
        let mut read = || {
            let body = header.body(stream, LONGEST_MESSAGE.saturating_add(2))?;
            let mut fields = Fields(&body);
            let kind = FailureKind::from_number(fields.u16()?).unwrap_or(FailureKind::Internal);
            Ok(Failure::new(kind, String::from_utf8_lossy(fields.0)))
        };
        read().unwrap_or_else(|failure| failure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { library: 1000, input: 100, output: 100 };

    fn read_call(mut bytes: &[u8]) -> Result<Call, Failure> {
        Call::read(Header::expect(&mut bytes)?, &mut bytes, &LIMITS)
    }

    #[test]
    fn a_call_is_read_as_it_was_written() {
        let call = Call {
            library: Digest::of(b"library"),
            function: "grüße".into(),
            capacity: 7,
            input: b"input".to_vec(),
        };
        let mut bytes = Vec::new();
        call.write(&mut bytes).unwrap();
        assert_eq!(read_call(&bytes), Ok(call));
        for len in 1..bytes.len() {
            let failure = read_call(&bytes[..len]).unwrap_err();
            assert_eq!(failure.kind, FailureKind::Protocol, "cut at {len}: {failure}");
        }
    }

    #[test]
    fn no_bytes_make_a_reader_panic_or_allocate_without_bound() {
        // Every byte of a short call takes every value.
        let call = Call {
            library: Digest([0; 32]),
            function: "f".into(),
            capacity: 1,
            input: vec![1, 2, 3],
        };
        let mut bytes = Vec::new();
        call.write(&mut bytes).unwrap();
        let mut refused = 0;
        for at in 0..bytes.len() {
            for value in 0..=u8::MAX {
                let mut changed = bytes.clone();
                changed[at] = value;
                refused += usize::from(read_call(&changed).is_err());
            }
        }
        assert!(refused > 1000, "{refused}");
    }

    #[test]
    fn what_exceeds_a_limit_is_refused_before_it_is_read() {
        let mut frame = &start_of_frame(FrameKind::Call, &[], 4_000_000_000).unwrap()[..];
        let header = Header::expect(&mut frame).unwrap();
        // Nothing follows: a reader that tried would find the end first.
        let failure = Call::read(header, &mut frame, &LIMITS).unwrap_err();
        assert_eq!(failure.kind, FailureKind::TooLarge, "{failure}");

        let announced = Announced { digest: Digest([1; 32]), signature: None, len: 1001 };
        let mut frame = &announced.start_of_frame().unwrap()[..];
        let header = Header::expect(&mut frame).unwrap();
        let failure = Announced::read(header, &mut frame, &LIMITS).unwrap_err();
        assert_eq!(failure.kind, FailureKind::TooLarge, "{failure}");
    }

    #[test]
    fn a_library_is_announced_with_and_without_a_signature() {
        for signature in [None, Some([9; 64])] {
            let announced = Announced { digest: Digest([1; 32]), signature, len: 1000 };
            let frame = announced.start_of_frame().unwrap();
            let mut stream = &frame[..];
            let header = Header::expect(&mut stream).unwrap();
            assert_eq!(Announced::read(header, &mut stream, &LIMITS), Ok(announced));
            assert!(stream.is_empty());
        }
    }

    #[test]
    fn hexadecimal_is_read_back() {
        assert_eq!(from_hex(&hex(&[0, 0xab, 0xff])), Some([0, 0xab, 0xff]));
        assert_eq!(from_hex::<3>("00abf"), None);
        assert_eq!(from_hex::<3>("00abfg"), None);
        assert_eq!(from_hex::<1>("é"), None);
    }
}
