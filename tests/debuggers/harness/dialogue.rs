//! Debuggers as development environments run them: messages go both ways while the program runs. The
//! dialogue is ended, with all that it started, when it is dropped, and fails at the limit.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::host::{self, Loader};
use super::{LIMIT, choose_form, choose_steps, host_program, is_over};

/// A debugger that is talked to.
struct Dialogue {
    child: Child,
    input: ChildStdin,
    messages: Receiver<String>,
    /// All messages so far, for the text of a failure.
    said: Vec<String>,
}

impl Dialogue {
    /// Starts a debugger of the host, which is to do these steps. `next` reads a message.
    fn start(
        mut command: Command,
        steps: &[String],
        loader: Loader,
        next: fn(&mut BufReader<ChildStdout>) -> Option<String>,
    ) -> Dialogue {
        choose_form(&mut command);
        choose_steps(&mut command, steps);
        command
            .env(host::LOADER, loader.name())
            .env_remove("DEBUGINFOD_URLS")
            .env_remove("LD_LIBRARY_PATH")
            .env("RUST_BACKTRACE", "0")
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0);
        let mut child = command.spawn().unwrap_or_else(|error| {
            panic!("cannot run {command:?}: {error}; `sh tests/setup.sh` installs what tests need")
        });
        let input = child.stdin.take().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let (sender, messages) = channel();
        thread::spawn(move || {
            while let Some(message) = next(&mut output) {
                if sender.send(message).is_err() {
                    break;
                }
            }
        });
        Dialogue { child, input, messages, said: vec![] }
    }

    fn send(&mut self, text: &str) {
        self.said.push(format!("> {text}"));
        self.input.write_all(text.as_bytes()).unwrap();
        self.input.flush().unwrap();
    }

    /// The first message from now on for which `find` has a result.
    fn await_message<T>(&mut self, what: &str, mut find: impl FnMut(&str) -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            match self.messages.recv_timeout(Duration::from_millis(100)) {
                Ok(message) => {
                    let found = find(&message);
                    self.said.push(message);
                    if let Some(found) = found {
                        return found;
                    }
                }
                Err(RecvTimeoutError::Timeout) if !is_over(start, LIMIT) => {}
                Err(error) => panic!("no {what} ({error}):\n{}", self.said.join("\n")),
            }
        }
    }
}

impl Drop for Dialogue {
    fn drop(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            // SAFETY: a plain system call. The leader of the group has not been waited for, so the number is
            // still its own.
            unsafe { libc::kill(-self.child.id().cast_signed(), libc::SIGKILL) };
        }
        self.child.wait().unwrap();
    }
}

/// gdb by its machine interface.
pub struct Mi(Dialogue);

impl Mi {
    pub fn of_host(gdb: &str, steps: &[String], loader: Loader) -> Mi {
        let mut command = Command::new(gdb);
        command.args(["-nx", "-q", "--interpreter=mi"]);
        let line = |output: &mut BufReader<ChildStdout>| {
            let mut bytes = vec![];
            let read = output.read_until(b'\n', &mut bytes).unwrap_or(0);
            (read > 0).then(|| String::from_utf8_lossy(&bytes).trim_end().to_owned())
        };
        let mut mi = Mi(Dialogue::start(command, steps, loader, line));
        mi.ask("-gdb-set startup-with-shell off");
        mi.ask("-gdb-set disable-randomization off");
        mi.ask(&format!("-file-exec-and-symbols {}", host_program()));
        mi
    }

    /// The result of a command, which must succeed.
    pub fn ask(&mut self, command: &str) -> String {
        self.0.send(&format!("7{command}\n"));
        let result = self.0.await_message(command, |line| Some(line.strip_prefix('7')?.to_owned()));
        assert!(!result.starts_with("^error"), "{command}: {result}");
        result
    }

    /// Runs on with this command until the program stops: the record `*stopped`.
    pub fn run(&mut self, command: &str) -> String {
        self.ask(command);
        self.0.await_message("stop", |line| line.starts_with("*stopped").then(|| line.to_owned()))
    }
}

/// A debugger by the Debug Adapter Protocol.
pub struct Adapter {
    dialogue: Dialogue,
    number: u64,
    /// Events that came before the response to a request. A program may stop again before an adapter says that it
    /// has gone on.
    events: VecDeque<Value>,
}

impl Adapter {
    /// Begins a session with the host, up to where breakpoints are set. The program does not run yet.
    pub fn of_host(command: Command, steps: &[String], loader: Loader, launch: Value) -> Adapter {
        let dialogue = Dialogue::start(command, steps, loader, dap_message);
        let mut adapter = Adapter { dialogue, number: 0, events: VecDeque::new() };
        let client = json!({"adapterID": "memdl", "linesStartAt1": true, "columnsStartAt1": true,
            "pathFormat": "path", "supportsVariableType": true});
        adapter.ask("initialize", client);
        let mut arguments = json!({"program": host_program(), "stopOnEntry": false});
        for (name, value) in launch.as_object().into_iter().flatten() {
            arguments[name] = value.clone();
        }
        adapter.send("launch", arguments);
        adapter.await_event(&["initialized"]);
        adapter
    }

    fn send(&mut self, command: &str, arguments: Value) -> u64 {
        self.number += 1;
        let request = json!({"seq": self.number, "type": "request", "command": command,
            "arguments": arguments})
        .to_string();
        self.dialogue.send(&format!("Content-Length: {}\r\n\r\n{request}", request.len()));
        self.number
    }

    /// The body of the response to a request, which must succeed.
    pub fn ask(&mut self, command: &str, arguments: Value) -> Value {
        let number = self.send(command, arguments);
        let Adapter { dialogue, events, .. } = self;
        let response = dialogue.await_message(command, |message| {
            let message: Value = serde_json::from_str(message).unwrap();
            if message["request_seq"] == number {
                return Some(message);
            }
            events.extend(message["event"].is_string().then_some(message));
            None
        });
        let said = self.dialogue.said.join("\n");
        assert_eq!(response["success"], true, "{command}: {response}\n{said}");
        response["body"].clone()
    }

    /// The next event with one of these names.
    pub fn await_event(&mut self, names: &[&str]) -> Value {
        let is_one =
            |message: &Value| message["event"].as_str().is_some_and(|name| names.contains(&name));
        if let Some(at) = self.events.iter().position(is_one) {
            return self.events.remove(at).unwrap();
        }
        self.dialogue.await_message(&names.join(" or "), |message| {
            let message: Value = serde_json::from_str(message).unwrap();
            is_one(&message).then_some(message)
        })
    }
}

/// A message of the Debug Adapter Protocol, without its header.
fn dap_message(output: &mut BufReader<ChildStdout>) -> Option<String> {
    let mut len = None;
    loop {
        let mut line = String::new();
        if output.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim().to_ascii_lowercase();
        if let Some(number) = line.strip_prefix("content-length:") {
            len = number.trim().parse::<usize>().ok();
        } else if line.is_empty() && len.is_some() {
            break;
        }
    }
    let mut message = vec![0; len?];
    output.read_exact(&mut message).ok()?;
    String::from_utf8(message).ok()
}
