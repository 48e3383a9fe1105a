//! The server: from a connection to the answers on it.

#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::fs;
use std::io::{self, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use memdl::ImageBuffer;
use rustix::net::sockopt::socket_peercred;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use tracing::{debug, error, info, info_span, warn};

use crate::arguments::{Mode, ServeOptions};
use crate::auth::{self, Role, SharedKey};
use crate::cache::{Cache, Entry, Room};
use crate::fork::{self, Forked};
use crate::metrics::{self, Gauges, Metrics};
use crate::permits::{Permit, Permits};
use crate::pool::InProcess;
use crate::protocol::{
    Announced, Call, Digest, Failure, FailureKind, FrameKind, Header, Hello, Limits, Welcome,
    write_frame,
};
use crate::run::{Backend, Loaded, Received};
use crate::signals::StopSignals;
use crate::stream::{Channel, Socket, Timed};
use crate::{Context, Error};

/// How long a client may take to say who it is.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a call may take in a process of its own, unless the options say otherwise.
const TIME_LIMIT: Duration = Duration::from_secs(10);
/// An image may have this many times the addresses of the largest library: a small file can ask for much zeroed memory.
const SPAN_OF_LIMIT: u64 = 16;

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// The options contradict each other, a file cannot be read, or an address cannot be listened on.
pub fn serve(options: &ServeOptions) -> Result<(), Error> {
    let signals = StopSignals::block()?;
    // Connections and libraries need more descriptors than the usual 1,024.
    let descriptors = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: descriptors.maximum, ..descriptors })?;
    // Before any thread starts and any secret is read: see `fork`.
    let server = Arc::new(Server::new(options)?);
    listen(options, &server)?;
    while server.backend.is_alive() && !signals.wait_for(Duration::from_secs(1)) {}
    info!("stopping");
    server.stop(options.grace(), &signals);
    if let Some(path) = &options.unix {
        // Whoever connects from now on finds no server.
        let _ = fs::remove_file(path);
    }
    match server.backend.is_alive() {
        true => Ok(()),
        false => Err("the process from which those of libraries are forked has ended".into()),
    }
}

struct Server {
    limits: Limits,
    idle: Duration,
    frame: Duration,
    backend: Box<dyn Backend>,
    cache: Cache<Loaded>,
    calls: Permits,
    connections: Permits,
    open: Mutex<HashMap<u64, EndReads>>,
    next_connection: AtomicU64,
    is_stopping: AtomicBool,
    metrics: Metrics,
}

/// Ends the reads of a connection.
type EndReads = Box<dyn Fn() -> io::Result<()> + Send>;

impl Server {
    fn new(options: &ServeOptions) -> Result<Server, Error> {
        let policy = Arc::new(options.policy()?);
        let image_span = u64::from(options.max_library).saturating_mul(SPAN_OF_LIMIT);
        let backend: Box<dyn Backend> = match options.mode {
            Mode::Fork => Box::new(Forked::start(fork::Settings {
                loader: options.loader,
                policy,
                limits: options.limits(),
                image_span,
                time_limit: options.time_limit.unwrap_or(TIME_LIMIT),
                cores: options.cores.clone(),
                keep_cores: options.keep_cores,
            })?),
            Mode::Pool if options.time_limit.is_some() || options.cores.is_some() => {
                return Err("--time-limit and --cores need --mode fork".into());
            }
            Mode::Pool => Box::new(InProcess {
                loader: options.loader,
                policy,
                idle: options.max_calls,
                image_span,
                loading: Mutex::default(),
            }),
        };
        Ok(Server {
            limits: options.limits(),
            idle: Duration::from_secs(options.idle_timeout),
            frame: Duration::from_secs(options.frame_timeout),
            backend,
            cache: Cache::new(options.memory, options.max_libraries),
            calls: Permits::new(options.max_calls),
            connections: Permits::new(options.max_connections),
            open: Mutex::default(),
            next_connection: AtomicU64::new(0),
            is_stopping: AtomicBool::new(false),
            metrics: Metrics::default(),
        })
    }

    fn open(&self) -> MutexGuard<'_, HashMap<u64, EndReads>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::SeqCst)
    }

    /// Lets running calls finish, within a limit. Another signal ends the wait.
    fn stop(&self, grace: Duration, signals: &StopSignals) {
        self.is_stopping.store(true, Ordering::SeqCst);
        // Idle connections find their end, and those with a call after its answer.
        for end_reads in self.open().values() {
            let _ = end_reads();
        }
        let end = Instant::now().checked_add(grace);
        while self.connections.taken() > 0 {
            let is_over = end.is_none_or(|end| Instant::now() >= end);
            if is_over || signals.wait_for(Duration::from_millis(20)) {
                warn!(calls = self.calls.taken(), "stopped before all calls had finished");
                return;
            }
        }
        // Destructors of libraries run.
        self.cache.clear();
        info!("stopped");
    }

    fn gauges(&self) -> Gauges {
        let (libraries, library_bytes) = self.cache.size();
        Gauges {
            libraries,
            library_bytes,
            connections: self.connections.taken(),
            running_calls: self.calls.taken(),
        }
    }
}

/// Starts a thread for each address. Standard output says where the server listens.
fn listen(options: &ServeOptions, server: &Arc<Server>) -> Result<(), Error> {
    let mut addresses = String::new();
    if let Some(path) = &options.unix {
        let key_file = options.key.as_deref().ok_or("--unix needs --key FILE")?;
        let key = SharedKey::from_file(key_file)?;
        let listener = unix_listener(path).context(|| path.display().to_string())?;
        addresses.push_str(&format!("listening unix {}\n", path.display()));
        let server = server.clone();
        thread::spawn(move || {
            accept(&server, listener.incoming(), move |socket, deadline| {
                unix_handshake(socket, deadline, &key)
            });
        });
    }
    if let Some(address) = options.tcp {
        let config = auth::server_config(options.tls.files()?)?;
        let listener = TcpListener::bind(address).context(|| address.to_string())?;
        addresses.push_str(&format!("listening tcp {}\n", listener.local_addr()?));
        let server = server.clone();
        thread::spawn(move || {
            accept(&server, listener.incoming(), move |socket, deadline| {
                tls_handshake(socket, deadline, &config)
            });
        });
    }
    if addresses.is_empty() {
        return Err("name an address to listen on: --unix PATH or --tcp ADDRESS".into());
    }
    if let Some(address) = options.metrics {
        let listener = TcpListener::bind(address).context(|| address.to_string())?;
        addresses.push_str(&format!("listening metrics {}\n", listener.local_addr()?));
        let server = server.clone();
        thread::spawn(move || {
            metrics::serve(&listener, || server.metrics.page(&server.gauges()));
        });
    }
    let mut out = io::stdout();
    out.write_all(addresses.as_bytes())?;
    out.flush()?;
    Ok(())
}

/// Listens at a path, where an earlier server may have left its socket.
fn unix_listener(path: &Path) -> io::Result<UnixListener> {
    let is_stale =
        || UnixStream::connect(path).is_err_and(|it| it.kind() == io::ErrorKind::ConnectionRefused);
    let listener = match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_stale() => {
            fs::remove_file(path)?;
            UnixListener::bind(path)
        }
        other => other,
    }?;
    // The key decides who may call. This is for order.
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// A client who has said who it is.
struct Client {
    channel: Box<dyn Channel>,
    /// What logs call it: its certificate's digest, or its process.
    name: String,
    /// The answer to its nonce.
    welcome_mac: [u8; 32],
}

/// Serves each connection in a thread of its own: the code of a call needs one anyway.
fn accept<S: Socket>(
    server: &Arc<Server>,
    incoming: impl Iterator<Item = io::Result<S>>,
    handshake: impl Fn(S, Instant) -> Result<Client, Failure> + Clone + Send + 'static,
) {
    for socket in incoming {
        let started = socket.and_then(|socket| start(server, socket, handshake.clone()));
        if let Err(error) = started {
            warn!(%error, "a connection was not accepted");
            // Without descriptors or threads, this would fail again at once.
            thread::sleep(Duration::from_millis(10));
        }
    }
}

fn start<S: Socket>(
    server: &Arc<Server>,
    socket: S,
    handshake: impl Fn(S, Instant) -> Result<Client, Failure> + Send + 'static,
) -> io::Result<()> {
    let Some(permit) = server.connections.take() else {
        server.metrics.refused_connections.add(1);
        warn!(limit = server.connections.most(), "too many connections: one was closed");
        return Ok(());
    };
    let second = socket.duplicate()?;
    let server = server.clone();
    thread::Builder::new().name("connection".into()).spawn(move || {
        let connection = Connection::open(server, permit, Box::new(move || second.end_reads()));
        connection.run(|deadline| handshake(socket, deadline));
    })?;
    Ok(())
}

/// An open connection, which the server knows until its end.
struct Connection {
    server: Arc<Server>,
    number: u64,
    _permit: Permit,
}

impl Connection {
    fn open(server: Arc<Server>, permit: Permit, end_reads: EndReads) -> Connection {
        let number = server.next_connection.fetch_add(1, Ordering::Relaxed);
        server.open().insert(number, end_reads);
        Connection { server, number, _permit: permit }
    }

    fn run(&self, handshake: impl FnOnce(Instant) -> Result<Client, Failure>) {
        if self.server.is_stopping() {
            // It was not in the list when the reads of all connections were ended.
            return;
        }
        let client = handshake(after(HANDSHAKE));
        let client = client.inspect_err(|failure| self.server.metrics.failed(failure));
        let ended = client.and_then(|mut client| {
            let channel = &mut *client.channel;
            let span = info_span!("connection", number = self.number, client = client.name);
            let _within = span.entered();
            let welcome = Welcome { limits: self.server.limits, mac: client.welcome_mac };
            welcome.write(channel)?;
            debug!("accepted");
            self.server.answer_requests(channel)
        });
        if let Err(failure) = ended
            && !self.server.is_stopping()
        {
            warn!(connection = self.number, kind = failure.kind.name(), %failure, "connection ended");
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.server.open().remove(&self.number);
    }
}

/// The time after this long.
fn after(time: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(time).unwrap_or(now)
}

/// A client on a Unix socket proves that it has the key, and gets the server's proof.
fn unix_handshake(
    socket: UnixStream,
    deadline: Instant,
    key: &SharedKey,
) -> Result<Client, Failure> {
    let mut channel = Timed::new(socket, deadline);
    let welcome_mac = reporting(&mut channel, |channel| {
        let hello = Hello::read(channel)?;
        let ours = auth::random()
            .map_err(|error| Failure::new(FailureKind::Internal, error.to_string()))?;
        write_frame(channel, FrameKind::Challenge, &ours, &[])?;
        let header = Header::expect(channel)?;
        if header.kind != FrameKind::Proof {
            return Err(Failure::protocol("a challenge was not answered with a Proof"));
        }
        let proof = header.body(channel, 32)?;
        let proof = proof.try_into().map_err(|_| Failure::protocol("a proof has 32 bytes"))?;
        key.verify(Role::Client, &hello.nonce, &ours, &proof)?;
        Ok(key.proof(Role::Server, &hello.nonce, &ours))
    })?;
    let name = socket_peercred(channel.get_ref())
        .map(|peer| format!("pid {}, uid {}", peer.pid.as_raw_nonzero(), peer.uid.as_raw()))
        .unwrap_or_default();
    Ok(Client { channel: Box::new(channel), name, welcome_mac })
}

/// A client over TCP has shown a certificate when its first frame arrives.
fn tls_handshake(
    socket: TcpStream,
    deadline: Instant,
    config: &Arc<ServerConfig>,
) -> Result<Client, Failure> {
    socket.set_nodelay(true)?;
    let connection = ServerConnection::new(config.clone())
        .map_err(|error| Failure::new(FailureKind::Internal, error.to_string()))?;
    let mut channel = StreamOwned::new(connection, Timed::new(socket, deadline));
    // TLS has no words of ours before it has a client: its own alert tells the client.
    while channel.conn.is_handshaking() {
        channel.conn.complete_io(&mut channel.sock).map_err(|error| match error.kind() {
            io::ErrorKind::TimedOut => error.into(),
            _ => Failure::new(FailureKind::Unauthenticated, format!("TLS: {error}")),
        })?;
    }
    reporting(&mut channel, Hello::read)?;
    let certificate = channel.conn.peer_certificates().and_then(|all| all.first());
    let name = certificate.map_or_else(String::new, |it| Digest::of(it).to_string());
    Ok(Client { channel: Box::new(channel), name, welcome_mac: [0; 32] })
}

/// Does something with a stream. If that fails, the peer gets the failure.
fn reporting<S: io::Read + Write, T>(
    stream: &mut S,
    run: impl FnOnce(&mut S) -> Result<T, Failure>,
) -> Result<T, Failure> {
    run(stream).inspect_err(|failure| {
        // It may be gone. The log has the failure, too.
        let _ = failure.write(stream);
    })
}

impl Server {
    /// Answers the requests of a client, one after the other.
    fn answer_requests(&self, channel: &mut dyn Channel) -> Result<(), Failure> {
        loop {
            channel.set_deadline(after(self.idle));
            let answered = match Header::read(channel) {
                Ok(None) => return Ok(()),
                Ok(Some(_)) if self.is_stopping() => {
                    Err(Failure::new(FailureKind::Stopping, "the server is stopping"))
                }
                Ok(Some(header)) => {
                    channel.set_deadline(after(self.frame));
                    self.answer(header, channel)
                }
                Err(failure) => Err(failure),
            };
            let Err(failure) = answered else { continue };
            self.metrics.failed(&failure);
            channel.set_deadline(after(self.frame));
            let sent = failure.write(channel);
            if failure.kind.ends_connection() {
                return Err(failure);
            }
            sent?;
        }
    }

    fn answer(&self, header: Header, channel: &mut dyn Channel) -> Result<(), Failure> {
        match header.kind {
            FrameKind::Call => {
                let call = Call::read(header, channel, &self.limits)?;
                match self.call(&call)? {
                    Some(output) => {
                        channel.set_deadline(after(self.frame));
                        write_frame(channel, FrameKind::Output, &[], &output)?;
                    }
                    None => write_frame(channel, FrameKind::Unknown, &[], &[])?,
                }
            }
            FrameKind::Library => {
                let announced = Announced::read(header, channel, &self.limits)?;
                self.receive(&announced, channel)?;
                channel.set_deadline(after(self.frame));
                write_frame(channel, FrameKind::Loaded, &[], &[])?;
            }
            other => return Err(Failure::protocol(format!("{other:?} is no request"))),
        }
        Ok(())
    }

    /// Calls a function. `None` if the library is not there.
    fn call(&self, call: &Call) -> Result<Option<Vec<u8>>, Failure> {
        let Some(entry) = self.cache.get(&call.library) else { return Ok(None) };
        let Some(_permit) = self.calls.take() else {
            let message = format!("{} calls run already: call again later", self.calls.most());
            return Err(Failure::new(FailureKind::Busy, message));
        };
        self.metrics.calls.add(1);
        let Loaded { library, uncalled } = &entry.value;
        let loading = uncalled.lock().unwrap_or_else(PoisonError::into_inner).take();
        let start = Instant::now();
        let output = library.call(&call.function, &call.input, call.capacity as usize);
        let took = start.elapsed();
        match loading {
            Some(loading) => self.metrics.cold.observe(took.saturating_add(loading)),
            None => self.metrics.warm.observe(took),
        }
        self.said(call, &entry, &output, took);
        output.map(Some)
    }

    fn said(
        &self,
        call: &Call,
        entry: &Arc<Entry<Loaded>>,
        output: &Result<Vec<u8>, Failure>,
        took: Duration,
    ) {
        let (library, function) = (call.library.short(), &call.function);
        match output {
            Ok(output) => debug!(library, function, ?took, bytes = output.len(), "called"),
            Err(failure) => {
                let kind = failure.kind.name();
                warn!(library, function, ?took, kind, %failure, "a call failed");
            }
        }
        if !entry.value.library.is_alive() {
            error!(library, "the library's process has ended: it must be sent again");
            self.cache.remove(&call.library, entry);
        }
    }

    /// Receives a library, straight into the memory that it will run in, and makes it ready.
    fn receive(&self, announced: &Announced, channel: &mut dyn Channel) -> Result<(), Failure> {
        let (room, mut bytes) = match self.room_for(announced.len) {
            Ok(both) => both,
            Err(failure) => {
                // The next frame begins behind the library.
                io::copy(
                    &mut io::Read::take(&mut *channel, announced.len as u64),
                    &mut io::sink(),
                )?;
                return Err(failure);
            }
        };
        channel.read_exact(&mut bytes)?;
        let digest = announced.digest;
        self.metrics.uploads.add(1);
        self.metrics.uploaded_bytes.add(announced.len as u64);
        let start = Instant::now();
        let received = Received { digest, signature: announced.signature, bytes };
        let library = self.backend.load(received).inspect_err(|failure| {
            warn!(library = digest.short(), kind = failure.kind.name(), %failure, "not loaded");
        })?;
        let took = start.elapsed();
        info!(library = digest.short(), bytes = announced.len, ?took, "loaded");
        let uncalled = Mutex::new(Some(took));
        self.cache.insert(digest, room, Loaded { library, uncalled });
        Ok(())
    }

    fn room_for(&self, len: usize) -> Result<(Room<Loaded>, ImageBuffer), Failure> {
        let room = self.cache.reserve(len)?;
        let bytes = ImageBuffer::new(len)
            .map_err(|error| Failure::new(FailureKind::Memory, error.to_string()))?;
        Ok((room, bytes))
    }
}
