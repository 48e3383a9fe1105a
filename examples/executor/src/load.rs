//! The load test: many clients, two servers in turns, one with memdl and one with a `memfd` and `dlopen`.

#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::arguments::{LoadOptions, LoaderKind, Mode};
use crate::auth::{self, SharedKey};
use crate::client::{Client, Library};
use crate::protocol::{Digest, Failure, hex};
use crate::{Context, Error};

/// How many libraries a server keeps: so many that the one of the warm calls stays, and so few that others go.
const KEPT: usize = 200;

/// Runs the test, and gives the table of times, in Markdown.
///
/// # Errors
/// A server does not start, or a call fails.
pub fn load(options: &LoadOptions) -> Result<String, Error> {
    let bytes = fs::read(&options.library).context(|| options.library.display().to_string())?;
    let folder = Folder::new()?;
    let mut ways = Vec::new();
    for loader in [LoaderKind::Memdl, LoaderKind::Memfd] {
        ways.push((
            loader,
            Server::start(&folder.0, options.mode, loader, bytes.len())?,
            Times::default(),
        ));
    }
    for turn in 0..options.turns {
        for (_, server, times) in &mut ways {
            times.add(one_turn(options, server, &bytes, turn)?);
        }
    }
    let mut table = String::from(
        "| loader | calls | number | calls/s | p50 | p90 | p99 | p99.9 | max |\n\
         |---|---|---:|---:|---:|---:|---:|---:|---:|\n",
    );
    for (loader, _, times) in &mut ways {
        let loader = match loader {
            LoaderKind::Memdl => "memdl",
            LoaderKind::Memfd => "memfd + dlopen",
        };
        let all = times.cold.len().saturating_add(times.warm.len());
        let rate = all as f64 / times.wall.as_secs_f64();
        for (name, sample) in [("cold", &mut times.cold), ("warm", &mut times.warm)] {
            sample.sort_unstable();
            // Writing to a string cannot fail.
            let _ = write!(table, "| {loader} | {name} | {} | {rate:.0} |", sample.len());
            for share in [0.5, 0.9, 0.99, 0.999, 1.0] {
                let _ = write!(table, " {} |", micros(percentile(sample, share)));
            }
            table.push('\n');
        }
    }
    Ok(table)
}

/// The time that this share of a sorted sample does not exceed.
fn percentile(sorted: &[Duration], share: f64) -> Duration {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

fn micros(time: Duration) -> String {
    match time.as_secs_f64() * 1e6 {
        small if small < 10_000.0 => format!("{small:.0} µs"),
        large => format!("{:.1} ms", large / 1e3),
    }
}

/// How long calls took.
#[derive(Default)]
struct Times {
    cold: Vec<Duration>,
    warm: Vec<Duration>,
    wall: Duration,
}

impl Times {
    fn add(&mut self, other: Times) {
        self.cold.extend(other.cold);
        self.warm.extend(other.warm);
        self.wall = self.wall.saturating_add(other.wall);
    }
}

/// All clients call one server.
fn one_turn(
    options: &LoadOptions,
    server: &Server,
    bytes: &[u8],
    turn: usize,
) -> Result<Times, Error> {
    let share = options.calls.checked_div(options.turns.saturating_mul(options.clients));
    let share = share.filter(|share| *share > 0).ok_or("fewer calls than clients and turns")?;
    let warm = Library::new(bytes);
    let mut clients = Vec::new();
    for _ in 0..options.clients {
        let mut client = server.connect()?;
        call(&mut client, &warm, options)?;
        clients.push(client);
    }
    let start = Instant::now();
    let parts: Vec<Result<Times, Failure>> = thread::scope(|scope| {
        let run = |(number, mut client): (usize, Client)| {
            let warm = &warm;
            scope
                .spawn(move || one_client(options, &mut client, warm, bytes, [turn, number], share))
        };
        let running: Vec<_> = clients.into_iter().enumerate().map(run).collect();
        let failed = |_| Err(Failure::protocol("a client has panicked"));
        running.into_iter().map(|it| it.join().unwrap_or_else(failed)).collect()
    });
    let mut times = Times { wall: start.elapsed(), ..Times::default() };
    for part in parts {
        times.add(part?);
    }
    Ok(times)
}

fn one_client(
    options: &LoadOptions,
    client: &mut Client,
    warm: &Library,
    bytes: &[u8],
    identity: [usize; 2],
    calls: usize,
) -> Result<Times, Failure> {
    let mut times = Times::default();
    for number in 0..calls {
        if number.checked_rem(options.cold_every) == Some(0) {
            // Bytes behind the end of an ELF file mean nothing. But the digest is another.
            let [turn, identity] = identity;
            let suffix = [turn, identity, number].map(usize::to_le_bytes).concat();
            let library = Library::new([bytes, &suffix].concat());
            let start = Instant::now();
            client.send(&library, &mut |_| {})?;
            call(client, &library, options)?;
            times.cold.push(start.elapsed());
        } else {
            let start = Instant::now();
            call(client, warm, options)?;
            times.warm.push(start.elapsed());
        }
    }
    Ok(times)
}

fn call(client: &mut Client, library: &Library, options: &LoadOptions) -> Result<Vec<u8>, Failure> {
    const CAPACITY: u32 = 4096;
    client.call(library, &options.function, options.input.as_bytes(), CAPACITY, &mut |_| {})
}

/// A server that this process has started. It ends with this value.
struct Server {
    process: Child,
    socket: PathBuf,
    key: SharedKey,
}

impl Server {
    fn start(folder: &Path, mode: Mode, loader: LoaderKind, len: usize) -> Result<Server, Error> {
        let loader = match loader {
            LoaderKind::Memdl => "memdl",
            LoaderKind::Memfd => "memfd",
        };
        let (socket, key) = (folder.join(loader), folder.join("key"));
        let mode = match mode {
            Mode::Pool => "pool",
            Mode::Fork => "fork",
        };
        let memory = len.saturating_add(100).saturating_mul(KEPT).to_string();
        let program = std::env::current_exe()?;
        let mut process = Command::new(program)
            .args(["serve", "--allow-any", "--log", "error", "--mode", mode, "--loader", loader])
            .args(["--memory", &memory, "--max-calls", "1000", "--max-connections", "1000"])
            .arg("--key")
            .arg(&key)
            .arg("--unix")
            .arg(&socket)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = process.stdout.take();
        let server = Server { process, socket, key: SharedKey::from_file(&key)? };
        let mut line = String::new();
        BufReader::new(output.ok_or("a server without output")?).read_line(&mut line)?;
        match line.starts_with("listening ") {
            true => Ok(server),
            false => Err(format!("the server with {loader} did not start").into()),
        }
    }

    fn connect(&self) -> Result<Client, Failure> {
        Client::unix(&self.socket, &self.key)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A folder for sockets, with a key.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Folder, Error> {
        let name = format!("executor-load-{}", Digest(auth::random()?).short());
        let folder = Folder(std::env::temp_dir().join(name));
        fs::create_dir(&folder.0)?;
        fs::write(folder.0.join("key"), hex(&auth::random()?))?;
        Ok(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_sample() {
        let sample: Vec<Duration> = (1..=1000).map(Duration::from_micros).collect();
        let found = [0.5, 0.99, 0.999, 1.0].map(|share| percentile(&sample, share).as_micros());
        assert_eq!(found, [500, 990, 999, 1000]);
        assert_eq!(percentile(&[], 0.5), Duration::ZERO);
        assert_eq!(micros(Duration::from_micros(9_999)), "9999 µs");
        assert_eq!(micros(Duration::from_micros(12_345)), "12.3 ms");
    }
}
