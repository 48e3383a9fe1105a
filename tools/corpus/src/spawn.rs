//! Starts a child process, waits for it with a time limit, and collects what it left.

use std::env;
use std::fs::{self, File};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::values::Dump;
use crate::{Options, Result};

/// How a child ended.
pub struct Ended {
    /// `refused`, `loaded`, `dumped`, `closed`, as far as it came.
    pub loaded: bool,
    pub dumped: bool,
    pub closed: bool,
    /// The process had it already.
    pub resident: bool,
    pub refusal: Option<String>,
    pub status: Option<ExitStatus>,
    pub stderr: String,
    pub dump: Option<Dump>,
    /// How the report of `Loader::inspect` disagrees with the load.
    pub report: Option<String>,
}

impl Ended {
    /// Why it did not load.
    pub fn reason(&self) -> String {
        match &self.refusal {
            Some(refusal) => refusal.clone(),
            None => format!("{} while loading: {}", self.end(), self.stderr),
        }
    }

    pub fn end(&self) -> String {
        match self.status {
            None => "out of time".into(),
            Some(status) => match (status.code(), status.signal()) {
                (Some(code), _) => format!("exit {code}"),
                (None, Some(signal)) => format!("signal {signal}"),
                (None, None) => "?".into(),
            },
        }
    }
}

pub fn spawn(how: &str, path: &Path, folder: &Path, options: &Options) -> Result<Ended> {
    fs::create_dir_all(folder)?;
    let (out, stderr) = (folder.join("found"), folder.join("stderr"));
    let progress = out.with_extension("progress");
    let _ = fs::remove_file(&out);
    let report = out.with_extension("report");
    let _ = fs::remove_file(&progress);
    let _ = fs::remove_file(&report);
    let mut child = Command::new(env::current_exe()?)
        .arg("--child")
        .args([how.as_ref(), path.as_os_str(), out.as_os_str()])
        .args(&options.with)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", folder)
        .env("TMPDIR", folder)
        .env("XDG_RUNTIME_DIR", folder)
        .env("LC_ALL", "C")
        .envs(options.library_path.as_ref().map(|path| ("LD_LIBRARY_PATH", path)))
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(&stderr)?)
        .process_group(0)
        .spawn()?;
    let group = child.id() as libc::pid_t;
    let started = Instant::now();
    let mut pause = Duration::from_micros(500);
    let mut in_time = true;
    // The child is waited for without being reaped, so that its number, which is its group's,
    // cannot be anyone else's when the group is killed.
    loop {
        // SAFETY: plain data; all zero is a value of it.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        // SAFETY: a child of ours, and a record to write to.
        let waited = unsafe { libc::waitid(libc::P_PID, child.id(), &mut info, flags) };
        // SAFETY: `waitid` filled it in, or left the zeroes.
        if waited != 0 || unsafe { info.si_pid() } != 0 {
            break;
        }
        if started.elapsed() > options.limit() {
            in_time = false;
            break;
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
    // SAFETY: the group of our own child, with what that may have left running.
    unsafe { libc::kill(-group, libc::SIGKILL) };
    let status = child.wait()?;
    let text = String::from_utf8_lossy(&fs::read(&progress).unwrap_or_default()).into_owned();
    let stderr = fs::read(&stderr).unwrap_or_default();
    let tail = String::from_utf8_lossy(&stderr[stderr.len().saturating_sub(300)..]).into_owned();
    let reached = |what: &str| text.lines().any(|line| line == what);
    Ok(Ended {
        loaded: reached("loaded"),
        dumped: reached("dumped"),
        closed: reached("closed"),
        resident: reached("resident"),
        refusal: text.strip_prefix("refused\n").map(|text| text.trim().replace('\n', "; ")),
        status: in_time.then_some(status),
        stderr: tail.trim().replace('\n', " | "),
        dump: if reached("dumped") { Dump::read(&out) } else { None },
        report: fs::read_to_string(&report).ok(),
    })
}
