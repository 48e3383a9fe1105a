//! A client of the executor.

#![forbid(unsafe_code)]

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::arguments::ServerAddress;
use crate::auth::{self, Role, SharedKey};
use crate::protocol::{
    Announced, Call, Digest, Failure, FailureKind, FrameKind, Header, Hello, Limits, Signature,
    VERSION, Welcome, write_frame,
};
use crate::stream::{Channel, Timed};
use crate::{Context, Error};

/// How long the client waits for the server, by default.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a library is sent for one call: other clients' libraries may push it out in between.
const SENDS: usize = 3;

/// A connection to a server.
pub struct Client {
    channel: Box<dyn Channel>,
    limits: Limits,
    patience: Duration,
}

/// A library to call functions of.
#[derive(Clone)]
pub struct Library {
    bytes: Arc<[u8]>,
    digest: Digest,
    signature: Option<Signature>,
}

impl Library {
    /// A library of these bytes.
    #[must_use]
    pub fn new(bytes: impl Into<Arc<[u8]>>) -> Library {
        let bytes = bytes.into();
        Library { digest: Digest::of(&bytes), bytes, signature: None }
    }

    /// The same, with a signature.
    #[must_use]
    pub fn signed(self, signature: Signature) -> Library {
        Library { signature: Some(signature), ..self }
    }

    /// Its digest.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The number of its bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether it has no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// There is no server, a file cannot be read, or one side does not trust the other.
    pub fn connect(address: &ServerAddress) -> Result<Client, Error> {
        if let Some(path) = &address.unix {
            let key_file = address.key.as_deref().ok_or("--unix needs --key FILE")?;
            return Ok(Client::unix(path, &SharedKey::from_file(key_file)?)?);
        }
        let host = address.tcp.as_deref().ok_or("name a server: --unix or --tcp")?;
        let config = auth::client_config(address.tls.files()?)?;
        Ok(Client::tcp(host, &config)?)
    }

    /// Connects to a Unix socket.
    ///
    /// # Errors
    /// There is no server, or it has another key.
    pub fn unix(path: &Path, key: &SharedKey) -> Result<Client, Failure> {
        let socket = UnixStream::connect(path).map_err(|error| {
            Failure::new(FailureKind::Connection, format!("{}: {error}", path.display()))
        })?;
        let mut channel = Timed::new(socket, after(PATIENCE));
        let hello = Hello { version: VERSION, nonce: nonce()? };
        hello.write(&mut channel)?;
        let challenge = expect(FrameKind::Challenge, &mut channel)?.body(&mut channel, 32)?;
        let theirs =
            challenge.try_into().map_err(|_| Failure::protocol("a challenge has 32 bytes"))?;
        let proof = key.proof(Role::Client, &hello.nonce, &theirs);
        write_frame(&mut channel, FrameKind::Proof, &proof, &[])?;
        let welcome = Welcome::read(expect(FrameKind::Welcome, &mut channel)?, &mut channel)?;
        key.verify(Role::Server, &hello.nonce, &theirs, &welcome.mac)?;
        Ok(Client { channel: Box::new(channel), limits: welcome.limits, patience: PATIENCE })
    }

    /// Connects over TCP and TLS, to a host and a port such as `executor.example:7000`.
    ///
    /// # Errors
    /// There is no server, or one side does not trust the other's certificate.
    pub fn tcp(host: &str, config: &Arc<ClientConfig>) -> Result<Client, Failure> {
        let unreachable = |error: &dyn std::fmt::Display| {
            Failure::new(FailureKind::Connection, format!("{host}: {error}"))
        };
        let (name, _) = host.rsplit_once(':').ok_or_else(|| unreachable(&"write HOST:PORT"))?;
        let name = name.trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(name).map_err(|error| unreachable(&error))?;
        let socket = TcpStream::connect(host).map_err(|error| unreachable(&error))?;
        socket.set_nodelay(true)?;
        let connection =
            ClientConnection::new(config.clone(), name).map_err(|error| unreachable(&error))?;
        let mut channel = StreamOwned::new(connection, Timed::new(socket, after(PATIENCE)));
        // TLS says by an alert that the server does not take the certificate, as an error of any read or write.
        let tls = |failure: Failure| match failure.kind {
            FailureKind::Connection | FailureKind::Protocol => {
                Failure::new(FailureKind::Unauthenticated, format!("{host}: {failure}"))
            }
            _ => failure,
        };
        let hello = Hello { version: VERSION, nonce: nonce()? };
        hello.write(&mut channel).map_err(|error| tls(error.into()))?;
        let header = expect(FrameKind::Welcome, &mut channel).map_err(tls)?;
        let welcome = Welcome::read(header, &mut channel)?;
        Ok(Client { channel: Box::new(channel), limits: welcome.limits, patience: PATIENCE })
    }

    /// What the server takes.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Calls a function. A library that the server does not have is sent. Meanwhile `sent` is called with the number of
    /// bytes that were sent.
    ///
    /// # Errors
    /// The call fails, or the connection.
    pub fn call(
        &mut self,
        library: &Library,
        function: &str,
        input: &[u8],
        capacity: u32,
        sent: &mut dyn FnMut(usize),
    ) -> Result<Vec<u8>, Failure> {
        for _ in 0..SENDS {
            if let Some(output) = self.try_call(library.digest, function, input, capacity)? {
                return Ok(output);
            }
            self.send(library, sent)?;
        }
        Err(Failure::new(FailureKind::Memory, "the server forgot the library before each call"))
    }

    /// Calls a function of a library that the server may have. `None` if it does not.
    ///
    /// # Errors
    /// The call fails, or the connection.
    pub fn try_call(
        &mut self,
        library: Digest,
        function: &str,
        input: &[u8],
        capacity: u32,
    ) -> Result<Option<Vec<u8>>, Failure> {
        self.channel.set_deadline(after(self.patience));
        let call = Call { library, function: function.into(), capacity, input: input.into() };
        call.write(&mut *self.channel)?;
        let header = self.response()?;
        match header.kind {
            FrameKind::Output => Ok(Some(header.body(&mut *self.channel, capacity as usize)?)),
            FrameKind::Unknown => header.body(&mut *self.channel, 0).map(|_| None),
            other => Err(unexpected(other)),
        }
    }

    /// Sends a library.
    ///
    /// # Errors
    /// The server does not take it, or the connection breaks.
    pub fn send(&mut self, library: &Library, sent: &mut dyn FnMut(usize)) -> Result<(), Failure> {
        const PART: usize = 64 << 10;
        let (len, most) = (library.bytes.len(), self.limits.library);
        if len > most as usize {
            let message = format!("the library has {len} bytes, and the server takes {most}");
            return Err(Failure::new(FailureKind::TooLarge, message));
        }
        self.channel.set_deadline(after(self.patience));
        let announced = Announced { digest: library.digest, signature: library.signature, len };
        self.channel.write_all(&announced.start_of_frame()?)?;
        let mut done = 0_usize;
        for part in library.bytes.chunks(PART) {
            self.channel.write_all(part)?;
            done = done.saturating_add(part.len());
            sent(done);
        }
        self.channel.flush()?;
        let header = self.response()?;
        match header.kind {
            FrameKind::Loaded => header.body(&mut *self.channel, 0).map(drop),
            other => Err(unexpected(other)),
        }
    }

    fn response(&mut self) -> Result<Header, Failure> {
        let header = Header::expect(&mut *self.channel)?;
        match header.kind {
            FrameKind::Failure => Err(Failure::read(header, &mut *self.channel)),
            _ => Ok(header),
        }
    }
}

/// The header of a frame of this kind. A failure that comes instead is the error.
fn expect(kind: FrameKind, channel: &mut impl Read) -> Result<Header, Failure> {
    let header = Header::expect(channel)?;
    match header.kind {
        FrameKind::Failure => Err(Failure::read(header, channel)),
        found if found == kind => Ok(header),
        other => Err(unexpected(other)),
    }
}

fn unexpected(kind: FrameKind) -> Failure {
    Failure::protocol(format!("the server has sent an unexpected {kind:?}"))
}

fn nonce() -> Result<[u8; 32], Failure> {
    auth::random().map_err(|error| Failure::new(FailureKind::Internal, error.to_string()))
}

/// The time after this long.
fn after(time: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(time).unwrap_or(now)
}

/// The library in a file.
///
/// # Errors
/// The file cannot be read.
pub fn library_file(path: &Path) -> Result<Library, Error> {
    Ok(Library::new(fs::read(path).context(|| path.display().to_string())?))
}
