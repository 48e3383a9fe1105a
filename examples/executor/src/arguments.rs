//! The command line.

#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::Error;
use crate::auth::TlsFiles;
use crate::policy::Policy;
use crate::protocol::Limits;

/// Receives shared libraries over the network and runs functions of them.
#[derive(Parser, Debug)]
#[command(name = "memdl-executor", version)]
pub struct Arguments {
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Serve until SIGTERM or SIGINT.
    Serve(Box<ServeOptions>),
    /// Call a function of a library, which is sent if the server does not have it.
    Call(Box<CallOptions>),
    /// Measure calls with memdl beside those with a memfd and dlopen.
    Load(LoadOptions),
    /// Print 32 random bytes in hexadecimal: a key for --key, or a secret to sign with.
    Secret,
    /// Print the public key of a secret: a line for --allow-keys.
    PublicKey {
        /// The file with the secret.
        #[arg(long, value_name = "FILE")]
        secret: PathBuf,
    },
}

/// How calls are run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Mode {
    /// In this process. Fast. A crash ends the server.
    Pool,
    /// Each in a process of its own. A crash costs that process only.
    Fork,
}

/// What turns bytes into code.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum LoaderKind {
    /// memdl.
    Memdl,
    /// A memfd and dlopen, to compare with: functions keep their state from call to call, and gdb hangs.
    Memfd,
}

/// What a side of a TLS connection needs.
#[derive(Args, Debug, Clone, Default)]
pub struct TlsOptions {
    /// The authority that has signed the other side's certificate, in PEM.
    #[arg(long, value_name = "FILE")]
    pub tls_authority: Option<PathBuf>,
    /// This side's certificate, in PEM.
    #[arg(long, value_name = "FILE")]
    pub tls_certificate: Option<PathBuf>,
    /// This side's private key, in PEM.
    #[arg(long, value_name = "FILE")]
    pub tls_key: Option<PathBuf>,
}

impl TlsOptions {
    pub(crate) fn files(&self) -> Result<TlsFiles<'_>, Error> {
        match (&self.tls_authority, &self.tls_certificate, &self.tls_key) {
            (Some(authority), Some(certificate), Some(key)) => {
                Ok(TlsFiles { authority, certificate, key })
            }
            _ => Err("--tcp needs --tls-authority, --tls-certificate and --tls-key".into()),
        }
    }
}

/// Options of `serve`.
#[derive(Args, Debug)]
pub struct ServeOptions {
    /// Listen on a Unix socket.
    #[arg(long, value_name = "PATH", requires = "key")]
    pub unix: Option<PathBuf>,
    /// The key that clients of the Unix socket must have.
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Listen on TCP, with TLS. Port 0 is a free one.
    #[arg(long, value_name = "ADDRESS", requires_all = ["tls_authority", "tls_certificate", "tls_key"])]
    pub tcp: Option<SocketAddr>,
    /// The files for TLS.
    #[command(flatten)]
    pub tls: TlsOptions,
    /// Serve http://ADDRESS/metrics for Prometheus.
    #[arg(long, value_name = "ADDRESS")]
    pub metrics: Option<SocketAddr>,

    /// Run libraries whose digest is in this file: the output of sha256sum.
    #[arg(long, value_name = "FILE")]
    pub allow_digests: Vec<PathBuf>,
    /// Run libraries that one of the keys in this file has signed: the output of public-key.
    #[arg(long, value_name = "FILE")]
    pub allow_keys: Vec<PathBuf>,
    /// Run any library of a client that is who it says.
    #[arg(long)]
    pub allow_any: bool,

    /// How calls are run.
    #[arg(long, value_enum, default_value = "pool")]
    pub mode: Mode,
    /// What turns bytes into code.
    #[arg(long, value_enum, default_value = "memdl")]
    pub loader: LoaderKind,

    /// With --mode fork: how long a call may take. Default 10.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub time_limit: Option<Duration>,
    /// With --mode fork: keep cores of crashes in this folder.
    #[arg(long, value_name = "FOLDER")]
    pub cores: Option<PathBuf>,
    /// The most cores that are kept.
    #[arg(long, value_name = "NUMBER", default_value_t = 16)]
    pub keep_cores: usize,

    /// The most bytes of all libraries that are kept, as they were received. Their instances take more.
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 30)]
    pub memory: usize,
    /// The most libraries that are kept. With --mode fork each is a process.
    #[arg(long, value_name = "NUMBER", default_value_t = 256)]
    pub max_libraries: usize,
    /// The most bytes of a library.
    #[arg(long, value_name = "BYTES", default_value_t = 256 << 20)]
    pub max_library: u32,
    /// The most bytes of a function's input.
    #[arg(long, value_name = "BYTES", default_value_t = 16 << 20)]
    pub max_input: u32,
    /// The most bytes of a function's output.
    #[arg(long, value_name = "BYTES", default_value_t = 16 << 20)]
    pub max_output: u32,
    /// The most connections at once.
    #[arg(long, value_name = "NUMBER", default_value_t = 256)]
    pub max_connections: usize,
    /// The most calls at once.
    #[arg(long, value_name = "NUMBER", default_value_t = 64)]
    pub max_calls: usize,
    /// How long a connection may be idle.
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub idle_timeout: u64,
    /// How long a frame may take to arrive, or to leave.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub frame_timeout: u64,
    /// How long running calls may take to finish when the server stops.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    pub grace: u64,
    /// What is logged.
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub log: tracing::Level,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().map_err(|_| "write a number of seconds, as 0.5")?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

impl ServeOptions {
    pub(crate) fn limits(&self) -> Limits {
        Limits { library: self.max_library, input: self.max_input, output: self.max_output }
    }

    pub(crate) fn grace(&self) -> Duration {
        Duration::from_secs(self.grace)
    }

    pub(crate) fn policy(&self) -> Result<Policy, Error> {
        let mut policy = Policy::new(self.allow_any);
        self.allow_digests.iter().try_for_each(|path| policy.allow_digests(path))?;
        self.allow_keys.iter().try_for_each(|path| policy.allow_keys(path))?;
        match policy.is_empty() {
            false => Ok(policy),
            true => {
                Err("no library may run: say which by --allow-digests, --allow-keys or --allow-any"
                    .into())
            }
        }
    }
}

/// Where the server is, and how the client says who it is.
#[derive(Args, Debug, Clone)]
pub struct ServerAddress {
    /// The server's Unix socket.
    #[arg(long, value_name = "PATH", requires = "key", required_unless_present = "tcp")]
    pub unix: Option<PathBuf>,
    /// The key that the server has, too.
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// The server's host and port.
    #[arg(long, value_name = "HOST:PORT", conflicts_with = "unix",
        requires_all = ["tls_authority", "tls_certificate", "tls_key"])]
    pub tcp: Option<String>,
    /// The files for TLS.
    #[command(flatten)]
    pub tls: TlsOptions,
}

/// Options of `call`.
#[derive(Args, Debug)]
pub struct CallOptions {
    /// The server.
    #[command(flatten)]
    pub server: ServerAddress,
    /// Sign the library with the secret in this file.
    #[arg(long, value_name = "FILE")]
    pub secret: Option<PathBuf>,
    /// Show how the upload goes.
    #[arg(long)]
    pub progress: bool,
    /// The most bytes of output.
    #[arg(long, value_name = "BYTES", default_value_t = 64 << 10)]
    pub capacity: u32,
    /// The shared library.
    #[arg(value_name = "LIBRARY")]
    pub library: PathBuf,
    /// The function.
    #[arg(value_name = "FUNCTION")]
    pub function: String,
    /// Its input. Without it, that is standard input.
    #[arg(value_name = "INPUT")]
    pub input: Option<String>,
}

/// Options of `load`.
#[derive(Args, Debug)]
pub struct LoadOptions {
    /// How calls are run.
    #[arg(long, value_enum, default_value = "pool")]
    pub mode: Mode,
    /// The number of clients, which call at once.
    #[arg(long, value_name = "NUMBER", default_value_t = 50)]
    pub clients: usize,
    /// The number of calls with each loader.
    #[arg(long, value_name = "NUMBER", default_value_t = 100_000)]
    pub calls: usize,
    /// How often the loaders take turns.
    #[arg(long, value_name = "NUMBER", default_value_t = 10)]
    pub turns: usize,
    /// Every so manieth call is cold: its library is new to the server. 0 is none.
    #[arg(long, value_name = "NUMBER", default_value_t = 20)]
    pub cold_every: usize,
    /// The shared library.
    #[arg(value_name = "LIBRARY")]
    pub library: PathBuf,
    /// The function.
    #[arg(value_name = "FUNCTION")]
    pub function: String,
    /// Its input.
    #[arg(value_name = "INPUT")]
    pub input: String,
}
