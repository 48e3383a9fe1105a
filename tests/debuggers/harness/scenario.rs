//! Runs scenarios (`scenario_file.rs` reads them): once on the host that loads a library by memdl, and
//! once on the same host that loads it by `dlopen`. The debugger must say the same, but for what
//! [`super::compare`] allows; and it must say what the scenario expects, since two sessions that are
//! equally broken are the same too.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use libtest_mimic::Trial;

use super::builds::built;
use super::host::Loader;
use super::libraries::{Copy, load_and_call, marks};
use super::lldb::{self, Lldb};
use super::scenario_file::{Command, Debugger, Expected, Scenario, Start, What, find};
use super::versions;
use super::{Gdb, Replies, Reply, Running, bare_host, compare, is_wrapped, scratch};

/// A test for each scenario, build, and version of lldb; one that fails for each file that cannot be read.
pub fn tests(folder: &Path) -> Vec<Trial> {
    let files = find(folder);
    assert!(!files.is_empty(), "no scenario in {}", folder.display());
    files.into_iter().flat_map(|(name, path)| tests_of(&name, &path)).collect()
}

fn tests_of(name: &str, path: &Path) -> Vec<Trial> {
    let scenario = match Scenario::read(path) {
        Ok(scenario) => scenario,
        Err(error) => return vec![Trial::test(name, move || Err(error.into()))],
    };
    // For as long as the tests run.
    let scenario: &'static Scenario = Box::leak(Box::new(scenario));
    let versions: &[Option<lldb::Version>] = match scenario.debugger {
        Debugger::Gdb => &[None],
        Debugger::Lldb => &[Some(lldb::Version::V14), Some(lldb::Version::V19)],
    };
    let mut tests = vec![];
    for build in &scenario.builds {
        for &version in versions {
            let version_name = version.map(|version| format!("::{}", version.name()));
            let name = format!("{name}::{build}{}", version_name.unwrap_or_default());
            tests.push(Trial::test(name, move || {
                let session = Session::new(scenario, build);
                match version {
                    None => run_gdb(&session),
                    Some(version) => run_lldb(&session, version),
                }
                Ok(())
            }));
        }
    }
    tests
}

/// A scenario on one build, with all places filled in.
struct Session {
    scenario: &'static Scenario,
    build: &'static str,
    library: PathBuf,
    /// What stands for `{NAME}`.
    places: Vec<(String, String)>,
    /// Removed in the end.
    _core: Copy,
}

impl Session {
    fn new(scenario: &'static Scenario, build: &'static str) -> Session {
        let library = built(&scenario.source, build);
        let core = Copy(scratch("core"));
        let mut places = marks(&format!("testlibs/debug/{}", scenario.source));
        places.extend(marks("tests/debuggers/harness/host.rs"));
        // As lldb wants it.
        let line = |(name, place): &(String, String)| {
            Some((format!("{name}.line"), place.rsplit_once(':')?.1.to_owned()))
        };
        places.extend(places.iter().filter_map(line).collect::<Vec<_>>());
        places.push(("LIBRARY".to_owned(), library.display().to_string()));
        places.push(("CORE".to_owned(), core.path().to_owned()));
        for [name, source, build] in &scenario.libraries {
            places.push((name.clone(), built(source, build).display().to_string()));
        }
        Session { scenario, build, library, places, _core: core }
    }

    fn filled(&self, text: &str) -> String {
        let places = self.places.iter();
        let filled = places.fold(text.to_owned(), |text, (name, place)| {
            text.replace(&format!("{{{name}}}"), place)
        });
        // What is left in braces, and could be meant as a name.
        let left = filled.split('{').skip(1).filter_map(|rest| rest.split_once('}'));
        let is_name = |name: &str| {
            let is_letter = |byte: u8| byte.is_ascii_alphabetic() || matches!(byte, b'_' | b'.');
            !name.is_empty() && name.bytes().all(is_letter)
        };
        for (name, _) in left {
            assert!(!is_name(name), "there is no {{{name}}}: no MARK {name} in the source");
        }
        filled
    }

    fn steps(&self) -> Vec<String> {
        let usual = match self.scenario.debugger {
            Debugger::Gdb => load_and_call(&self.library),
            Debugger::Lldb => lldb::load_and_call(&self.library),
        };
        let steps: Vec<String> = self.scenario.steps.iter().map(|step| self.filled(step)).collect();
        if steps.is_empty() { usual } else { steps }
    }

    fn commands(&self) -> Vec<String> {
        self.scenario.commands.iter().map(|command| self.filled(&command.text)).collect()
    }

    /// Whether the replies to the command differ between the loaders, with this version of gdb.
    fn differs(&self, command: &Command) -> bool {
        let of_one = |expected: &&Expected| match expected.what {
            What::With(_) => true,
            What::WithWrapped => is_wrapped(),
            _ => false,
        };
        let mut of_one = command.expected.iter().filter(of_one);
        of_one.any(|expected| expected.condition.holds(versions::major, self.build))
    }

    /// Fails unless the replies have what is expected with this loader.
    fn assert_replies(&self, loader: Loader, replies: &Replies, version: &dyn Fn() -> u32) {
        for (at, command) in self.scenario.commands.iter().enumerate() {
            self.assert_reply(loader, &replies.at(at), command, version);
        }
    }

    fn assert_reply(
        &self,
        loader: Loader,
        reply: &Reply<'_>,
        command: &Command,
        version: &dyn Fn() -> u32,
    ) {
        let of_memory = loader == Loader::Memdl;
        // Each is looked for from the reply's beginning.
        let mut groups = vec![vec![]];
        for expected in &command.expected {
            if !expected.condition.holds(version, self.build) {
                continue;
            }
            let mut text = self.filled(&expected.text);
            if !of_memory {
                text = text.replace(versions::IN_MEMORY, self.library.to_str().unwrap());
            }
            match expected.what {
                What::HasNot => {
                    reply.has_not(&text);
                    continue;
                }
                What::With(with) if with != loader => continue,
                What::WithWrapped if !of_memory || !is_wrapped() => continue,
                What::HasAgain => groups.push(vec![]),
                What::Has | What::With(_) | What::WithWrapped => {}
            }
            groups.last_mut().unwrap().push(text);
        }
        for group in groups {
            reply.has(&group.iter().map(String::as_str).collect::<Vec<_>>());
        }
    }
}

fn run_gdb(session: &Session) {
    let scenario = session.scenario;
    let in_form = |form: Option<&str>| {
        let replies = gdb_session(session, Loader::Memdl, form);
        if scenario.fails_on_complaints {
            replies.assert_no_complaint();
        }
        session.assert_replies(Loader::Memdl, &replies, &versions::major);
        replies
    };
    let of_memory: Vec<Replies> = match scenario.forms.as_slice() {
        [] => vec![in_form(None)],
        forms => forms.iter().map(|form| in_form(Some(form))).collect(),
    };
    if !scenario.is_compared {
        return;
    }
    let of_file = gdb_session(session, Loader::Dlopen, None);
    if scenario.fails_on_complaints {
        of_file.assert_no_complaint();
    }
    let commands = scenario.commands.iter().enumerate();
    let differs = commands.filter(|(_, command)| session.differs(command)).map(|(at, _)| at);
    let differs: Vec<usize> = differs.collect();
    for of_memory in &of_memory {
        compare::assert_same(of_memory, &of_file, &session.library, &differs);
    }
    session.assert_replies(Loader::Dlopen, &of_file, &versions::major);
}

/// The session with this loader; in this form, or in the usual one.
fn gdb_session(session: &Session, loader: Loader, form: Option<&str>) -> Replies {
    let (steps, commands) = (session.steps(), session.commands());
    let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
    let run = |gdb: Gdb| {
        let gdb = gdb.loader(loader);
        match form {
            Some(form) => gdb.form(form).run_unchecked(&commands),
            None => gdb.run_unchecked(&commands),
        }
    };
    match session.scenario.start {
        Start::Run => run(Gdb::of_host(&steps)),
        Start::Server => run(Gdb::of_served_host(&steps)),
        Start::Attach => {
            let mut host = Running::start(bare_host(&steps, loader));
            host.await_output("awaits a debugger", 1);
            run(Gdb::attached(&host))
        }
        Start::KernelCore => {
            let folder = Folder(scratch("cores"));
            run(Gdb::of_core(&folder.core_of(bare_host(&steps, loader))))
        }
    }
}

/// What lldb says must be expected with memdl only: with `dlopen` it calls the library otherwise.
fn run_lldb(session: &Session, version: lldb::Version) {
    let scenario = session.scenario;
    let (steps, commands) = (session.steps(), session.commands());
    let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
    let of_memory = Lldb::of_host(version, &steps).run(&commands);
    session.assert_replies(Loader::Memdl, &of_memory, &|| version.number());
    let printed: Vec<String> = scenario.printed.iter().map(|text| session.filled(text)).collect();
    of_memory.at(commands.len()).has(&printed.iter().map(String::as_str).collect::<Vec<_>>());
    if scenario.is_compared {
        let of_file = Lldb::of_host(version, &steps).loader(Loader::Dlopen).run(&commands);
        lldb::assert_same(&of_memory, &of_file, &session.library);
    }
}

/// Removed when dropped, with what is in it.
pub struct Folder(pub PathBuf);

impl Folder {
    /// The core that the kernel leaves of a host that dies.
    pub fn core_of(&self, mut host: std::process::Command) -> PathBuf {
        fs::create_dir(&self.0).unwrap();
        host.current_dir(&self.0);
        let unlimited = || {
            let limit =
                libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
            // SAFETY: a plain system call, with a local.
            match unsafe { libc::setrlimit(libc::RLIMIT_CORE, &limit) } {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        };
        // SAFETY: a system call is all that the child makes of it.
        unsafe { host.pre_exec(unlimited) };
        let run = Running::start(host).finish();
        let core = fs::read_dir(&self.0).unwrap().next().unwrap_or_else(|| {
            let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
            panic!(
                "no core; kernel.core_pattern is {pattern:?}, and has to name a file in the \
                 working folder: `sysctl kernel.core_pattern=core`. The host said:\n{}",
                run.transcript
            )
        });
        core.unwrap().path()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
