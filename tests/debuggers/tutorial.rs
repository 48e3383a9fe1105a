//! The tutorial, done as it says: its files are saved, its commands run in its order, and its sessions with gdb held.
//! What the pages print must be what comes out; `...` on a page stands for anything.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::common::{limited, repository};
use crate::harness::Gdb;

tests! { pub fn tests:
    the_tutorial_does_what_it_says
    the_files_for_ides_are_well_formed
}

/// A block of code: its language, the paragraph before it, its lines.
struct Block {
    language: String,
    before: String,
    lines: Vec<String>,
}

fn blocks(page: &str) -> Vec<Block> {
    let text = fs::read_to_string(repository("docs").join(page)).unwrap();
    let mut found = Vec::new();
    let mut paragraph = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(language) = line.trim_start().strip_prefix("```") {
            let language = language.split(',').next().unwrap().to_owned();
            let lines = lines.by_ref().take_while(|it| it.trim_start() != "```");
            let lines = lines.map(str::to_owned).collect();
            found.push(Block { language, before: std::mem::take(&mut paragraph), lines });
        } else if line.is_empty() {
            paragraph.push('\n');
        } else {
            // The last paragraph.
            if paragraph.ends_with('\n') {
                paragraph.clear();
            }
            paragraph += &format!("{line} ");
        }
    }
    found
}

/// Where the pages are followed: beside the checkout, as it were, and outside of its workspace.
struct Folder {
    root: PathBuf,
    /// Where the next command runs.
    current: PathBuf,
}

impl Folder {
    fn new() -> Folder {
        let root = std::env::temp_dir().join(format!("memdl-tutorial-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(&root).unwrap();
        symlink(repository(""), root.join("memdl")).unwrap();
        Folder { current: root.clone(), root }
    }

    /// Does what a block says.
    fn follow(&mut self, block: &Block) {
        if let Some((_, rest)) = block.before.split_once("Save this as `") {
            let name = rest.split('`').next().unwrap();
            let text = block.lines.join("\n") + "\n";
            fs::write(self.current.join(name), text).unwrap();
        } else if block.language == "console" {
            let mut lines = block.lines.iter().peekable();
            while let Some(line) = lines.next() {
                let command = line.strip_prefix("$ ").expect("a command");
                let mut printed = vec![];
                while let Some(line) = lines.next_if(|it| !it.starts_with("$ ")) {
                    printed.push(line.as_str());
                }
                self.run(command, &printed);
            }
        }
    }

    fn run(&mut self, command: &str, printed: &[&str]) {
        if let Some(folder) = command.strip_prefix("cd ") {
            self.current.push(folder);
            // What memdl needs is compiled once, and kept.
            let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("tutorial");
            fs::create_dir_all(&target).unwrap();
            symlink(target, self.current.join("target")).unwrap();
            fs::copy(repository("Cargo.lock"), self.current.join("Cargo.lock")).unwrap();
            return;
        }
        let mut shell = limited(900, "sh");
        shell.args(["-c", &format!("{command} 2>&1")]).current_dir(&self.current);
        shell.env("CARGO_NET_OFFLINE", "true").env_remove("CARGO_TARGET_DIR");
        let output = shell.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{command}: {}: {said}", output.status);
        assert_printed(&said, printed, command);
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

/// Fails unless `said` has these lines, in this order.
fn assert_printed(said: &str, printed: &[&str], command: &str) {
    let mut lines = said.lines();
    for expected in printed {
        let is_printed = lines.any(|line| is_like(line, expected));
        assert!(is_printed, "{command}: no `{expected}` there, or not in this order:\n{said}");
    }
}

/// Whether a line has all parts of what a page shows of it.
fn is_like(line: &str, shown: &str) -> bool {
    let mut rest = line;
    shown.split("...").all(|part| match rest.split_once(part) {
        Some((_, after)) => {
            rest = after;
            true
        }
        None => false,
    })
}

/// The commands of the page's session, each with what the page shows of the reply.
fn session(blocks: &[Block]) -> Vec<(&str, Vec<&str>)> {
    let mut session: Vec<(&str, Vec<&str>)> = Vec::new();
    for line in blocks.iter().filter(|it| it.language == "console").flat_map(|it| &it.lines) {
        match (line.strip_prefix("(gdb) "), session.last_mut()) {
            (Some(command), _) => session.push((command, vec![])),
            (None, Some((_, reply))) => reply.push(line),
            (None, None) => assert_eq!(line, "$ gdb -q target/debug/hello"),
        }
    }
    session
}

fn the_tutorial_does_what_it_says() {
    let mut folder = Folder::new();
    blocks("tutorial/1-first-function.md").iter().for_each(|it| folder.follow(it));

    let blocks_of_second = blocks("tutorial/2-debug-it.md");
    let session = session(&blocks_of_second);
    assert!(session.len() > 10, "the page has no session");
    let program = folder.current.join("target/debug/hello");
    let commands: Vec<&str> = session.iter().map(|it| it.0).collect();
    let replies = Gdb::of_program(&program, &[]).folder(&folder.current).run_unchecked(&commands);
    for (at, (command, shown)) in session.iter().enumerate() {
        assert_printed(replies.at(at).text(), shown, command);
    }

    a_debug_file_is_supplied_at_the_prompt(&mut folder);

    blocks("tutorial/3-a-pool-in-a-server.md").iter().for_each(|it| folder.follow(it));
}

/// As the page about stripped fleets says, with the tutorial's library.
fn a_debug_file_is_supplied_at_the_prompt(folder: &mut Folder) {
    let page = blocks("how-to/debug-a-stripped-fleet.md");
    folder.follow(page.iter().find(|it| it.language == "console").expect("how it is built"));
    let supply = "with language c -- print (int)memdl_debug_file(\"libgreet.debug\")";
    let shown = page
        .iter()
        .flat_map(|it| &it.lines)
        .any(|line| line.replace("/tmp/", "").strip_prefix("(gdb) ") == Some(supply));
    assert!(shown, "the page does not say `{supply}`");
    let program = folder.current.join("target/debug/hello");
    let commands = ["set breakpoint pending on", "break greet", "run", "bt 1", supply, "bt"];
    let replies = Gdb::of_program(&program, &[]).folder(&folder.current).run_unchecked(&commands);
    replies.to("bt 1").has(&["in greet ()"]);
    replies.to(supply).has(&["$1 = 1"]);
    replies.to("bt").has(&[
        "greet (name=",
        "times=2) at greet.c:",
        "hello::main () at src/main.rs:",
    ]);
}

fn the_files_for_ides_are_well_formed() {
    let mut types = vec![];
    for block in blocks("how-to/use-an-ide.md").iter().filter(|it| it.language == "json") {
        let file: serde_json::Value = serde_json::from_str(&block.lines.join("\n")).unwrap();
        for configuration in file["configurations"].as_array().unwrap() {
            let text = |name: &str| configuration[name].as_str().unwrap().to_owned();
            assert!(["launch", "attach"].contains(&&*text("request")), "{configuration}");
            assert!(text("program").starts_with("${workspaceFolder}/"), "{configuration}");
            types.push(text("type"));
        }
    }
    assert_eq!(types, ["cppdbg", "cppdbg", "lldb-dap"]);
}
