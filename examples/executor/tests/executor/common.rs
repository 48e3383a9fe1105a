//! Starts servers, compiles libraries, and makes keys.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use memdl_executor::auth::SharedKey;
use memdl_executor::client::{Client, Library};
use memdl_executor::protocol::{Failure, FailureKind};

/// The program.
pub const EXECUTOR: &str = env!("CARGO_BIN_EXE_memdl-executor");

/// A command that ends after this many seconds, whatever happens.
pub fn limited(seconds: u32, program: &str) -> Command {
    let mut command = Command::new("timeout");
    command.args(["-s", "KILL", &seconds.to_string(), program]).stdin(Stdio::null());
    command
}

/// A new folder, below `target`. Its path is short enough for a socket.
pub fn folder() -> PathBuf {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("executor-{}-{number}", std::process::id());
    let folder = std::env::temp_dir().join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir(&folder).unwrap();
    folder
}

/// The functions of `functions/work.c`, compiled once.
pub fn work() -> &'static Library {
    static WORK: OnceLock<Library> = OnceLock::new();
    WORK.get_or_init(|| Library::new(fs::read(work_file()).unwrap()))
}

/// The file of [`work`].
pub fn work_file() -> &'static Path {
    static FILE: OnceLock<PathBuf> = OnceLock::new();
    FILE.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("functions/work.c");
        compile(&source, &folder.join(format!("libwork-{}.so", std::process::id())))
    })
}

/// Compiles a library.
pub fn compile(source: &Path, output: &Path) -> PathBuf {
    let mut cc = limited(60, "cc");
    cc.args(["-g", "-O0", "-shared", "-fPIC", "-Wall", "-Wno-infinite-recursion", "-Werror", "-o"]);
    assert!(cc.arg(output).arg(source).status().unwrap().success());
    output.to_owned()
}

/// The same library under other digests: bytes behind the end of an ELF file mean nothing.
pub fn work_with(suffix: &[u8]) -> Library {
    Library::new([&fs::read(work_file()).unwrap()[..], suffix].concat())
}

/// A running server, with a Unix socket and a page of metrics. It is killed when the test ends.
pub struct Server {
    child: Child,
    pub folder: PathBuf,
    /// The lines that say where it listens.
    lines: Vec<String>,
    is_over: bool,
}

impl Server {
    /// Starts one that runs any library.
    pub fn start(options: &[&str]) -> Server {
        Server::start_in(folder(), &[&["--allow-any"], options].concat())
    }

    /// Starts one in a folder, with these options besides the Unix socket and the metrics.
    pub fn start_in(folder: PathBuf, options: &[&str]) -> Server {
        fs::write(folder.join("key"), "0123456789abcdef0123456789abcdef\n").unwrap();
        let log = fs::File::create(folder.join("log")).unwrap();
        // `exec` by a shell that limits the time itself would change the process: `timeout` passes signals on.
        let mut child = Command::new(EXECUTOR)
            .args(["serve", "--log", "debug", "--metrics", "127.0.0.1:0", "--unix"])
            .arg(folder.join("socket"))
            .arg("--key")
            .arg(folder.join("key"))
            .args(options)
            .current_dir(&folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut lines = Vec::new();
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            let is_last = line.starts_with("listening metrics");
            lines.push(line);
            if is_last {
                break;
            }
        }
        let server = Server { child, folder, lines, is_over: false };
        assert!(server.lines.len() >= 2, "the server did not start:\n{}", server.log());
        server
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.join("socket")
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap()
    }

    /// Where it listens: `tcp` or `metrics`.
    pub fn address(&self, what: &str) -> String {
        let prefix = format!("listening {what} ");
        self.lines.iter().find_map(|it| it.strip_prefix(&prefix)).unwrap().to_owned()
    }

    pub fn client(&self) -> Client {
        self.connect().unwrap_or_else(|failure| panic!("{failure}\n{}", self.log()))
    }

    pub fn connect(&self) -> Result<Client, Failure> {
        let key = SharedKey::from_file(&self.folder.join("key")).unwrap();
        Client::unix(&self.socket(), &key)
    }

    /// A connection without a handshake.
    pub fn raw(&self) -> UnixStream {
        let socket = UnixStream::connect(self.socket()).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        socket
    }

    /// The page of metrics.
    pub fn metrics(&self) -> String {
        let mut socket = TcpStream::connect(self.address("metrics")).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        socket.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut text = String::new();
        socket.read_to_string(&mut text).unwrap();
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
        text
    }

    /// The value of a metric, named with its labels.
    pub fn metric(&self, name: &str) -> f64 {
        let page = self.metrics();
        let value = page.lines().find_map(|it| it.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {name} in\n{page}")).parse().unwrap()
    }

    /// The server answers.
    pub fn assert_lives(&self) {
        assert_eq!(call(&mut self.client(), work(), "upper", "alive").unwrap(), "ALIVE");
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: our own child, which was not waited for.
        assert_eq!(unsafe { libc::kill(self.pid().cast_signed(), signal) }, 0);
    }

    /// Waits for its end.
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                self.is_over = true;
                return status;
            }
            assert!(start.elapsed() < limit, "the server did not end:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !self.is_over {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            eprintln!("{}:\n{}", self.folder.display(), self.log());
        } else {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

/// Calls a function with a text, and gives the text that it returns.
pub fn call(
    client: &mut Client,
    library: &Library,
    function: &str,
    input: &str,
) -> Result<String, Failure> {
    let output = client.call(library, function, input.as_bytes(), 1000, &mut |_| {})?;
    Ok(String::from_utf8(output).unwrap())
}

/// The failure of a call.
pub fn failure(client: &mut Client, library: &Library, function: &str, input: &str) -> Failure {
    call(client, library, function, input).expect_err("the call should fail")
}

/// The call fails with a failure of this kind, whose text has this part.
#[track_caller]
pub fn assert_failure(failure: &Failure, kind: FailureKind, part: &str) {
    assert!(
        failure.kind == kind && failure.message.contains(part),
        "{failure:?}, not {kind:?} {part}"
    );
}

/// Waits until something is so.
#[track_caller]
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}: not within 20 seconds");
        std::thread::sleep(Duration::from_millis(5));
    }
}
