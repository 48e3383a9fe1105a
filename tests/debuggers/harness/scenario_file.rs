//! Reads scenarios: the files below `tests/debuggers/` that end with `.gdb` or `.lldb`. README.md there
//! says how they are written. This file finds and parses them; `scenario.rs` runs them.
//!
//! What is not understood is an error, with the file's name and the line: a scenario that is passed over
//! would look like one that passes.

use std::fs;
use std::path::{Path, PathBuf};

use super::builds::{is_build, is_word};
use super::host::Loader;

/// How the debugger comes by the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// The debugger starts it, by the session's `run`.
    Run,
    /// gdb attaches; the host says `await-debugger` where it waits for that.
    Attach,
    /// gdbserver starts it, at the other end of a pipe.
    Server,
    /// It is dead; the kernel has left its core.
    KernelCore,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Debugger {
    Gdb,
    Lldb,
}

/// A file, read.
#[derive(Debug)]
pub struct Scenario {
    pub debugger: Debugger,
    pub source: String,
    pub builds: Vec<String>,
    pub start: Start,
    /// Whether the session must be that of a library which `dlopen` has loaded.
    pub is_compared: bool,
    /// Whether the session fails on a complaint of gdb's.
    pub fails_on_complaints: bool,
    /// The debug levels, one session for each; the usual one if the list is empty.
    pub forms: Vec<String>,
    /// Other libraries: the place's name, the source, the build.
    pub libraries: Vec<[String; 3]>,
    /// What the host does; the usual if there is none.
    pub steps: Vec<String>,
    pub commands: Vec<Command>,
    /// What the host prints, under lldb: there that comes on a way of its own.
    pub printed: Vec<String>,
}

#[derive(Debug)]
pub struct Command {
    pub text: String,
    pub expected: Vec<Expected>,
}

/// A text that is expected in a reply, and when.
#[derive(Debug)]
pub struct Expected {
    pub what: What,
    pub text: String,
    pub condition: Condition,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// After the texts before it.
    Has,
    /// Anywhere; the texts behind it are looked for after it.
    HasAgain,
    HasNot,
    /// With one of the loaders only.
    With(Loader),
    /// With memdl only, in the form that a debugger sees which comes after the load.
    WithWrapped,
}

/// What a line needs to count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// The debugger's version is less than this.
    below: Option<u32>,
    /// It is this, or more.
    from: Option<u32>,
    /// The build has this word.
    build: Option<String>,
}

impl Condition {
    /// Whether the line counts for this version of the debugger, and this build.
    pub fn holds(&self, version: impl Fn() -> u32, build: &str) -> bool {
        let version_fits = match (self.below, self.from) {
            (None, None) => true,
            (below, from) => {
                let version = version();
                below.is_none_or(|below| version < below) && from.is_none_or(|from| version >= from)
            }
        };
        let has_word = |word: &String| build.split('_').any(|it| it == word);
        version_fits && self.build.as_ref().is_none_or(has_word)
    }
}

/// All files of scenarios below `folder`, with their names as tests: `parity::late::NAME`. Anything else
/// that is there, but for Rust and Markdown, is an error.
pub fn find(folder: &Path) -> Vec<(String, PathBuf)> {
    let mut found = Vec::new();
    find_below(folder, "", &mut found);
    found.sort();
    found
}

fn find_below(folder: &Path, prefix: &str, found: &mut Vec<(String, PathBuf)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let is_ours = path.extension().is_none_or(|it| it != "rs" && it != "md");
        if path.is_dir() {
            find_below(&path, &format!("{prefix}{name}::"), found);
        } else if is_ours {
            found.push((format!("{prefix}{name}"), path));
        }
    }
}

impl Scenario {
    /// Reads the file.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn read(path: &Path) -> Result<Scenario, String> {
        let debugger = match path.extension().and_then(|extension| extension.to_str()) {
            Some("gdb") => Debugger::Gdb,
            Some("lldb") => Debugger::Lldb,
            _ => {
                return Err(format!("{}: a scenario ends with .gdb or .lldb", path.display()));
            }
        };
        let text =
            fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        Scenario::parse(debugger, &text).map_err(|(line, error)| match line {
            0 => format!("{}: {error}", path.display()),
            _ => format!("{}:{line}: {error}", path.display()),
        })
    }

    /// An error has the number of its line, or 0.
    fn parse(debugger: Debugger, text: &str) -> Result<Scenario, (usize, String)> {
        let mut head = Head::default();
        let mut body = Body { debugger, steps: vec![], commands: vec![], printed: vec![] };
        let mut is_head = true;
        for (index, line) in text.lines().enumerate() {
            let at = |error: String| (index + 1, error);
            let line = line.trim_end();
            match line.strip_prefix("//#") {
                Some(directive) if is_head => head.directive(directive).map_err(at)?,
                Some(_) => return Err(at("a directive must stand before the session".to_owned())),
                None if line.is_empty() => {}
                None => {
                    is_head = false;
                    body.line(line).map_err(at)?;
                }
            }
        }
        let scenario = head.with(body).map_err(|error| (0, error))?;
        scenario.check().map_err(|error| (0, error))?;
        Ok(scenario)
    }

    /// What no line alone can tell.
    fn check(&self) -> Result<(), String> {
        let expected = || self.commands.iter().flat_map(|command| &command.expected);
        if expected().next().is_none() && self.printed.is_empty() {
            return Err("nothing is expected".to_owned());
        }
        let needs_loader =
            expected().any(|it| matches!(it.what, What::With(_) | What::WithWrapped));
        if needs_loader && (!self.is_compared || self.debugger == Debugger::Lldb) {
            return Err("(memdl), (dlopen) and (full) need a comparison in gdb".to_owned());
        }
        if expected().any(|it| it.what == What::WithWrapped) && !self.forms.is_empty() {
            return Err("(wrapped) and the directive `forms` exclude each other".to_owned());
        }
        if self.debugger == Debugger::Lldb && (self.start != Start::Run || !self.forms.is_empty()) {
            return Err("`start` and `forms` are for gdb".to_owned());
        }
        if self.start != Start::Run && !self.forms.is_empty() {
            return Err("`forms` is for hosts that gdb starts".to_owned());
        }
        Ok(())
    }
}

/// The directives.
#[derive(Default)]
struct Head {
    source: Option<String>,
    builds: Vec<String>,
    start: Option<Start>,
    compare: Option<bool>,
    complaints: Option<bool>,
    forms: Vec<String>,
    libraries: Vec<[String; 3]>,
}

impl Head {
    fn directive(&mut self, text: &str) -> Result<(), String> {
        let (name, value) = text.split_once(':').ok_or("a directive is `//# name: value`")?;
        let (name, value) = (name.trim(), value.trim());
        let words = || value.split_whitespace().map(str::to_owned);
        if value.is_empty() {
            return Err(format!("the directive `{name}` has no value"));
        }
        let is_new = match name {
            "note" => true,
            "source" => {
                is_source(value)?;
                self.source.replace(value.to_owned()).is_none()
            }
            "builds" => {
                words().try_for_each(|build| is_build(&build))?;
                std::mem::replace(&mut self.builds, words().collect()).is_empty()
            }
            "forms" => {
                if let Some(form) = words().find(|form| form != "full" && form != "wrapped") {
                    return Err(format!("no such form: {form}"));
                }
                std::mem::replace(&mut self.forms, words().collect()).is_empty()
            }
            "start" => {
                let start = match value {
                    "run" => Start::Run,
                    "attach" => Start::Attach,
                    "server" => Start::Server,
                    "kernel-core" => Start::KernelCore,
                    _ => return Err(format!("no such start: {value}")),
                };
                self.start.replace(start).is_none()
            }
            "compare" => self.compare.replace(choice(value, "dlopen", "nothing")?).is_none(),
            "complaints" => self.complaints.replace(choice(value, "fail", "pass")?).is_none(),
            "library" => {
                let library: Vec<String> = words().collect();
                let library: [String; 3] =
                    library.try_into().map_err(|_| "a library is `NAME SOURCE BUILD`")?;
                is_source(&library[1])?;
                is_build(&library[2])?;
                self.libraries.push(library);
                true
            }
            _ => return Err(format!("no such directive: {name}")),
        };
        if is_new { Ok(()) } else { Err(format!("the directive `{name}` is there twice")) }
    }

    fn with(self, body: Body) -> Result<Scenario, String> {
        if self.builds.is_empty() {
            return Err("no directive `builds`".to_owned());
        }
        let is_compared = self.compare.unwrap_or(true);
        Ok(Scenario {
            debugger: body.debugger,
            source: self.source.ok_or("no directive `source`")?,
            builds: self.builds,
            start: self.start.unwrap_or(Start::Run),
            is_compared,
            // What complains in both sessions complains of something else than memdl.
            fails_on_complaints: self.complaints.unwrap_or(!is_compared),
            forms: self.forms,
            libraries: self.libraries,
            steps: body.steps,
            commands: body.commands,
            printed: body.printed,
        })
    }
}

fn is_source(name: &str) -> Result<(), String> {
    let path = crate::common::repository("testlibs/debug").join(name);
    if path.is_file() { Ok(()) } else { Err(format!("no source {}", path.display())) }
}

fn choice(value: &str, yes: &str, no: &str) -> Result<bool, String> {
    match value {
        _ if value == yes => Ok(true),
        _ if value == no => Ok(false),
        _ => Err(format!("{value} is neither {yes} nor {no}")),
    }
}

/// The session.
struct Body {
    debugger: Debugger,
    steps: Vec<String>,
    commands: Vec<Command>,
    printed: Vec<String>,
}

impl Body {
    fn line(&mut self, line: &str) -> Result<(), String> {
        let of_debugger = match self.debugger {
            Debugger::Gdb => "gdb",
            Debugger::Lldb => "lldb",
        };
        let (word, condition, text) = Body::marker(line)?;
        let what = match word {
            "host" | "gdb" | "lldb" | "printed" if condition != Condition::default() => {
                return Err(format!("({word}) takes no condition"));
            }
            "host" if self.commands.is_empty() => {
                self.steps.push(text.to_owned());
                return Ok(());
            }
            "host" => return Err("the host's steps stand before all commands".to_owned()),
            "gdb" | "lldb" if word == of_debugger => {
                self.commands.push(Command { text: text.to_owned(), expected: vec![] });
                return Ok(());
            }
            "gdb" | "lldb" => {
                return Err(format!("a command of {word}'s, in a file for {of_debugger}"));
            }
            "printed" if self.debugger == Debugger::Lldb => {
                self.printed.push(text_of(text));
                return Ok(());
            }
            "printed" => return Err("(printed) is for lldb: gdb's replies have all".to_owned()),
            "not" => What::HasNot,
            "again" => What::HasAgain,
            "memdl" => What::With(Loader::Memdl),
            "dlopen" => What::With(Loader::Dlopen),
            "wrapped" => What::WithWrapped,
            _ => What::Has,
        };
        let command = self.commands.last_mut().ok_or("a text is expected before any command")?;
        command.expected.push(Expected { what, text: text_of(text), condition });
        Ok(())
    }

    /// The word in parentheses before a text, and the text: `(dlopen<16) at leaf@plt`. Lines without such
    /// a word are texts, with parentheses or without.
    fn marker(line: &str) -> Result<(&str, Condition, &str), String> {
        const WORDS: &[&str] =
            &["host", "gdb", "lldb", "printed", "not", "again", "memdl", "dlopen", "wrapped"];
        let plain = Ok(("", Condition::default(), line));
        let Some((inside, text)) = line.strip_prefix('(').and_then(|line| line.split_once(')'))
        else {
            return plain;
        };
        let text = text.strip_prefix(' ').unwrap_or(text);
        let end = inside.find([' ', '<', '>', '=', ',']).unwrap_or(inside.len());
        let (word, rest) = inside.split_at(end);
        let number = |text: &str| text.parse::<u32>().ok();
        let condition = if let Some(build) = inside.strip_prefix("build=") {
            is_word(build)?;
            return Ok((
                "",
                Condition { build: Some(build.to_owned()), ..Condition::default() },
                text,
            ));
        } else if let Some(version) = rest.strip_prefix(">=").and_then(number) {
            Condition { from: Some(version), ..Condition::default() }
        } else if let Some(version) = rest.strip_prefix('<').and_then(number) {
            Condition { below: Some(version), ..Condition::default() }
        } else if rest.is_empty() && WORDS.contains(&word) {
            return Ok((word, Condition::default(), text));
        } else if WORDS.contains(&word) {
            return Err(format!("({inside}) is neither ({word}) nor ({word}<13) nor ({word}>=13)"));
        } else {
            return plain;
        };
        if word.is_empty() || WORDS.contains(&word) { Ok((word, condition, text)) } else { plain }
    }
}

/// What a line says of a text: `\n` is the end of a line, `\s` a space where editors would take it away.
fn text_of(line: &str) -> String {
    line.replace("\\n", "\n").replace("\\s", " ")
}

/// What the parser refuses, and takes. Errors are what people see who write their first scenario.
pub fn what_is_not_understood_is_an_error() {
    let refused = |text: &str, error: &str| {
        let found = Scenario::parse(Debugger::Gdb, text).unwrap_err();
        assert!(found.1.contains(error), "{found:?} of\n{text}");
    };
    let head = "//# source: clib.c\n//# builds: gcc_o0_dwarf5\n";
    refused("//# source: clib.c\n(gdb) run\nBreakpoint\n", "no directive `builds`");
    refused("//# builds: gcc_o0\n(gdb) run\nBreakpoint\n", "no directive `source`");
    refused("//# source: none.c\n", "no source ");
    refused("//# builds: gcc_o7\n", "no such build: gcc_o7");
    refused("//# bilds: gcc_o0\n", "no such directive: bilds");
    refused("//# builds:\n", "has no value");
    refused("//# builds\n", "a directive is `//# name: value`");
    refused("//# start: slowly\n", "no such start");
    refused("//# compare: lldb\n", "neither dlopen nor nothing");
    refused("//# forms: symbols\n", "no such form");
    refused("//# library: twin.c\n", "NAME SOURCE BUILD");
    for (text, error) in [
        ("//# source: clib.c\n", "is there twice"),
        ("Breakpoint 1\n(gdb) run\n", "before any command"),
        ("(gdb) run\n", "nothing is expected"),
        ("(gdb) run\n//# start: run\nBreakpoint 1\n", "must stand before the session"),
        ("(gdb) run\nBreakpoint 1\n(host) pause\n", "before all commands"),
        ("(lldb) run\nBreakpoint 1\n", "a command of lldb's"),
        ("(gdb) run\n(printed) done\n", "is for lldb"),
        ("(gdb<12) run\nBreakpoint 1\n", "takes no condition"),
        ("(gdb) run\n(build=o9) Breakpoint 1\n", "no such word of a build: o9"),
        ("(gdb) run\n(memdl<old) Breakpoint 1\n", "is neither (memdl) nor"),
        ("//# compare: nothing\n(gdb) run\n(memdl) Breakpoint 1\n", "need a comparison"),
        ("//# forms: full\n(gdb) run\n(wrapped) Breakpoint 1\n", "exclude each other"),
    ] {
        refused(&format!("{head}{text}"), error);
    }
    let text = "(gdb) run\n(>=12) one\\n\n(not) two\n(leaf) pending.\n  three\n(at < 9) four\n";
    let read = Scenario::parse(Debugger::Gdb, &format!("{head}{text}")).unwrap();
    let found: Vec<_> = read.commands[0].expected.iter().map(|it| (it.what, &*it.text)).collect();
    let plain = |text| (What::Has, text);
    assert_eq!(found[0], plain("one\n"));
    assert_eq!(found[1], (What::HasNot, "two"));
    assert_eq!(found[2..], [plain("(leaf) pending."), plain("  three"), plain("(at < 9) four")]);
    let condition = &read.commands[0].expected[0].condition;
    assert!(condition.holds(|| 12, "gcc_o0") && !condition.holds(|| 11, "gcc_o0"));
}
