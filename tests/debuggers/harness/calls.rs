//! Whether gdb can call functions on this machine. gdb 13 cannot on processors with AMX, in no program: it writes
//! the registers back without AMX's, which Linux refuses. What follows from such a call is left out there, and
//! the standard error says so.

use std::fs;
use std::process::Command;
use std::sync::OnceLock;

use super::{Replies, gdb, scratch};
use crate::common::{limited, run};

const REFUSED: &str = "Couldn't write extended state status";

/// Whether a call failed in this session that fails in a program without memdl, too.
pub fn are_impossible_in(session: &Replies) -> bool {
    let has_failed = session.to_string().contains(REFUSED);
    let is_impossible = has_failed && are_impossible();
    if is_impossible {
        eprintln!(
            "left out: what follows a call, since {} cannot call functions on this machine",
            gdb()
        );
    }
    is_impossible
}

fn are_impossible() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        let folder = scratch("calls");
        fs::create_dir(&folder).unwrap();
        let (source, program) = (folder.join("calls.c"), folder.join("calls"));
        fs::write(&source, "int five(void) { return 5; }\nint main(void) { return five() - 5; }\n")
            .unwrap();
        run(Command::new("gcc").arg("-g").arg("-o").args([&program, &source]), "gcc");
        let mut command = limited(60, gdb());
        command.args(["-nx", "-batch", "-ex", "break main", "-ex", "run", "-ex", "print five()"]);
        let output = command.arg(&program).output().unwrap();
        let _ = fs::remove_dir_all(&folder);
        let said = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&said).contains(REFUSED)
    })
}
