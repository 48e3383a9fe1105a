//! Whoever debugs a library that was never in a file must not notice it: the same session with gdb,
//! on one host, once with the library loaded by memdl and once loaded by `dlopen`, says the same.
//! [`gdb::scenario`] tells how a scenario is written, [`gdb::compare`] what may differ in all. What
//! differs in more than that has scenarios of its own, which say what gdb says in either case; the
//! reasons are in README.md, "What debuggers see".
//!
//! A scenario runs for each of the builds that it names: compiler, optimisation, DWARF version.
//! The environment variable `MEMDL_TEST_GDB` names a gdb other than the system's.

mod common;
mod gdb;

#[test]
#[ignore = "the program that the other tests debug: they start it"]
fn the_program_that_is_debugged() {
    gdb::host::main();
}

macro_rules! scenarios {
    ($source:literal; $($name:ident [$($build:ident)*] $($start:ident)? : $text:literal;)*) => {$(
        mod $name {
            use crate::gdb::scenario::{self, Start};

            const START: Start = [$(Start::$start,)? Start::Run][0];
            $(
                #[test]
                fn $build() {
                    scenario::run($source, stringify!($build), START, $text);
                }
            )*
        }
    )*};
}

// ---- Breakpoints ----

scenarios! { "clib.c";

a_pending_breakpoint_stops_in_the_constructor [gcc_o0_dwarf5 gcc_o2_dwarf4 clang_o0_dwarf4 clang_o2_dwarf5]: r#"
    (gdb) break lib_constructor
    Breakpoint 1 (lib_constructor) pending.
    (gdb) info breakpoints
    <PENDING>  lib_constructor
    (gdb) run
    Breakpoint 1, lib_constructor () at
    (>=11) {constructor}
    (gdb) print lib_constructed
    = 0
    (gdb) bt 1
    #0  lib_constructor () at
    (>=11) {constructor}
    (gdb) info breakpoints
    in lib_constructor at clib.c:
    breakpoint already hit 1 time
    (gdb) continue
    [host] loaded a
    exited normally
"#;

a_breakpoint_is_conditional [gcc_o0_dwarf4 gcc_o2_dwarf5 clang_o0_dwarf5]: r#"
    (gdb) break leaf if a == 3
    (gdb) break {middle} if i == 4
    (gdb) run
    Breakpoint 1, leaf (a=
    b=4) at clib.c:
    (gdb) print a
    = 3
    (gdb) condition 2 i == 2 + 2
    (gdb) condition 1
    (gdb) continue
    Breakpoint 2, middle (n=
    (gdb) info breakpoints
    stop only if i == 2 + 2
    (gdb) continue
    Breakpoint 1, leaf (a=
    (gdb) print b
    = 5
"#;

a_temporary_breakpoint_stops_once [gcc_o0_dwarf5 clang_o2_dwarf4]: r#"
    (gdb) tbreak leaf
    (leaf) pending.
    (gdb) run
    Temporary breakpoint 1, leaf (a=
    b=1) at clib.c:
    (gdb) info breakpoints
    No breakpoints or watchpoints.
    (gdb) continue
    [host] entry(5) = 514
    exited normally
"#;

breakpoints_are_set_by_a_regular_expression [gcc_o0_dwarf4 clang_o0_dwarf5]: r#"
    (gdb) break {host}
    (gdb) run
    host_calls
    (gdb) rbreak clib.c:^leaf$\|^middle$\|^compare$
    file clib.c
    int leaf(int, int);
    int middle(int, int *);
    static int compare(const void *, const void *);
    (gdb) info breakpoints
    in leaf at clib.c:
    in middle at clib.c:
    in compare at clib.c:
    (gdb) continue
    compare (a=0xADDRESS, b=0xADDRESS) at clib.c:
"#;

a_regular_expression_finds_the_library_among_all [gcc_o0_dwarf5]: r#"
    (gdb) break {host}
    (gdb) run
    (gdb) rbreak ^lib_constructor$
    Breakpoint 2 at 0xADDRESS: file clib.c
    static void lib_constructor(void);
"#;

a_breakpoint_is_at_an_address [gcc_o2_dwarf5 clang_o2_dwarf4]: r#"
    (gdb) break {host}
    (gdb) run
    (gdb) set language c
    (gdb) break *leaf
    Breakpoint 2 at 0xADDRESS: file clib.c
    (gdb) break *middle+4
    Breakpoint 3 at 0xADDRESS: file clib.c
    (gdb) continue
    Breakpoint 3, 0xADDRESS in middle (
    (gdb) x/i $pc
    => 0xADDRESS <middle+4>:
    (gdb) continue
    Breakpoint 2, leaf (a=
    (gdb) x/i $pc
    => 0xADDRESS <leaf>:
    (gdb) print $pc == leaf
    = 1
"#;

a_breakpoint_is_named_in_many_ways [gcc_o0_dwarf5]: r#"
    (gdb) break clib.c:leaf
    (gdb) break -function leaf -source clib.c
    (gdb) break -qualified leaf
    (gdb) break -line 24 -source clib.c
    (gdb) tbreak clib.c:compare
    (gdb) run
    Temporary breakpoint 5, compare (
    (gdb) info breakpoints
    1       breakpoint     keep y   0xADDRESS in leaf at clib.c:
    2       breakpoint     keep y   0xADDRESS in leaf at clib.c:
    3       breakpoint     keep y   0xADDRESS in leaf at clib.c:
    4       breakpoint     keep y   0xADDRESS in leaf at clib.c:24
    (gdb) continue
    Breakpoint 1, leaf (
"#;

a_hardware_breakpoint_stops [gcc_o0_dwarf4 clang_o2_dwarf5]: r#"
    (gdb) break {host}
    (gdb) run
    (gdb) hbreak leaf
    Hardware assisted breakpoint 2 at 0xADDRESS: file clib.c
    (gdb) thbreak {entry}
    Hardware assisted breakpoint 3 at 0xADDRESS: file clib.c
    (gdb) continue
    Temporary breakpoint 3, entry (n=
    at {entry}
    (gdb) continue
    Breakpoint 2, leaf (
    (gdb) delete 2
    (gdb) continue
    exited normally
"#;

a_breakpoint_counts_and_has_commands [gcc_o0_dwarf5 clang_o0_dwarf4]: r#"
    (gdb) break leaf
    (gdb) ignore 1 2
    (gdb) run
    Breakpoint 1, leaf (a=2, b=3) at clib.c:
    (gdb) info breakpoints
    breakpoint already hit 3 times
    (gdb) python gdb.breakpoints()[0].commands = 'silent\nprint a * 100\ncontinue'
    (gdb) continue
    (>=11) = 300
    (>=11) = 400
    (>=11) exited normally
"#;

a_breakpoint_is_disabled_and_enabled_once [gcc_o0_dwarf5]: r#"
    (gdb) break leaf
    (gdb) disable 1
    (gdb) tbreak compare
    (gdb) run
    Temporary breakpoint 2, compare (
    (gdb) enable once 1
    (gdb) continue
    Breakpoint 1, leaf (a=0, b=1) at clib.c:
    (gdb) info breakpoints
    breakpoint     dis  n   0xADDRESS in leaf at clib.c:
    (gdb) continue
    exited normally
"#;

a_dynamic_printf_prints [gcc_o0_dwarf5 clang_o0_dwarf5]: r#"
    (gdb) dprintf {leaf},"a is %d and %s\n", a, both.name
    (gdb) run
    a is 0 and pair
    a is 4 and pair
    [host] entry(5) = 514
    exited normally
"#;

a_hardware_watchpoint_sees_a_global_change [gcc_o0_dwarf5 gcc_o2_dwarf4 clang_o2_dwarf5]: r#"
    (gdb) break {host}
    (gdb) run
    (gdb) set language c
    (gdb) watch lib_global
    Hardware watchpoint 2: lib_global
    (gdb) rwatch lib_constructed
    Hardware read watchpoint 3: lib_constructed
    (gdb) continue
    Hardware watchpoint 2: lib_global
    Old value = 7
    New value = 8
    leaf (a=
    (gdb) continue
    Old value = 8
    New value = 13
    (gdb) info watchpoints
    breakpoint already hit 2 times
    (gdb) delete 2
    (gdb) continue
    exited normally
"#;

an_access_watchpoint_sees_reads_and_writes [gcc_o0_dwarf4]: r#"
    (gdb) break leaf
    (gdb) run
    (gdb) awatch lib_static
    Hardware access (read/write) watchpoint 2: lib_static
    (gdb) delete 1
    (gdb) continue
    Value = 9
    leaf (a=0, b=1) at clib.c:
    (gdb) continue
    Old value = 9
    New value =
"#;

a_watchpoint_on_a_local_ends_with_its_frame [gcc_o0_dwarf5 clang_o0_dwarf4]: r#"
    (gdb) break {middle}
    (gdb) run
    (gdb) watch sum
    Hardware watchpoint 2: sum
    (gdb) delete 1
    (gdb) continue
    Old value = 0
    (gdb) watch i if i == 4
    (gdb) delete 2
    (gdb) continue
    Hardware watchpoint 3: i
    Old value = 3
    New value = 4
    (gdb) condition 3
    (gdb) continue
    Hardware watchpoint 3: i
    New value = 5
    (gdb) continue
    Watchpoint 3 deleted because the program has left the block in
    which its expression is valid.
    entry (n=5) at {entry}
"#;

threads_are_stopped_alone_in_non_stop_mode [gcc_o0_dwarf5]: r#"
    (gdb) set non-stop on
    (gdb) break leaf
    (gdb) run
    (gdb) thread 2
    leaf (a=0, b=1) at clib.c:
    (gdb) next
    (gdb) bt 2
    middle (n=5
    (gdb) info threads
    (running)
    leaf (a=0, b=1) at clib.c:
    (gdb) kill
"#;

a_software_watchpoint_steps_through_the_library [gcc_o0_dwarf5]: r#"
    (gdb) break {leaf}
    (gdb) run
    (gdb) set can-use-hw-watchpoints 0
    (gdb) set scheduler-locking on
    (gdb) watch lib_static
    Watchpoint 2: lib_static
    (gdb) continue
    Watchpoint 2: lib_static
    Old value = 9
    New value =
    leaf (a=0, b=1) at clib.c:
"#;

until_and_advance_stop_where_they_are_told [gcc_o0_dwarf5 clang_o0_dwarf4]: r#"
    (gdb) break middle
    (gdb) run
    Breakpoint 1, middle (n=5
    (gdb) advance {leaf}
    leaf (a=0, b=1) at {leaf}
    (gdb) up
    middle (n=5
    (gdb) down
    (gdb) until {middle}
    middle (n=5
    at {middle}
    (gdb) advance {entry}
    entry (n=5) at {entry}
"#;

}

// ---- Stepping ----

scenarios! { "clib.c";

stepping_goes_from_the_host_into_the_library_and_back [gcc_o0_dwarf5 gcc_o0_dwarf4 clang_o0_dwarf5]: r#"
    (gdb) break {host}
    (gdb) run
    host_calls
    (gdb) step
    entry (n=5) at clib.c:
    (gdb) next
    (gdb) next
    // MARK entry
    (gdb) step
    middle (n=5, values=0xADDRESS) at clib.c:
    (gdb) finish
    entry (n=5) at {entry}
    Value returned is $1 = 513
    (gdb) next
    (gdb) next
    (gdb) frame function parity::gdb::host::host_calls
    host_calls (
"#;

stepping_goes_by_instruction [gcc_o2_dwarf5 clang_o2_dwarf4]: r#"
    (gdb) break {host}
    (gdb) run
    (gdb) set language c
    (gdb) break *leaf
    (gdb) set language auto
    (gdb) continue
    leaf (
    (gdb) display/i $pc
    (gdb) stepi
    1: x/i $pc
    => 0xADDRESS <leaf+
    (gdb) nexti 2
    <leaf+
    (gdb) stepi
    <leaf+
    (gdb) info display
    (gdb) undisplay 1
    (gdb) up
    middle (
    (gdb) x/2i $pc
    <middle+
"#;

stepping_goes_into_a_callback_from_the_c_library [gcc_o0_dwarf4 clang_o0_dwarf5]: r#"
    (gdb) break clib.c:entry
    (gdb) run
    Breakpoint 1, entry (n=5) at clib.c:
    (gdb) tbreak compare
    (gdb) next
    (gdb) next
    Temporary breakpoint 2, compare (
    (gdb) bt -frame-info short-location
    #0  compare (
    qsort
    entry (n=5)
    host_calls
    (gdb) finish
    Value returned is $1 =
    (gdb) info frame
    called by frame at 0xADDRESS
"#;

stepping_skips_what_it_is_told_to_skip [gcc_o0_dwarf5]: r#"
    (gdb) skip function leaf
    (gdb) break {middle}
    (gdb) run
    (gdb) step
    for (int i = 0;
    (gdb) info skip
    leaf
"#;

the_library_returns_early [gcc_o0_dwarf5 clang_o0_dwarf4]: r#"
    (gdb) break leaf
    (gdb) run
    (gdb) return 1000
    (gdb) frame
    #0  0xADDRESS in middle (n=5
    (gdb) next
    (gdb) print sum
    = 1000
    (gdb) delete
    (gdb) continue
    exited normally
"#;

execution_jumps_to_another_line [gcc_o0_dwarf5]: r#"
    (gdb) break {entry}
    (gdb) run
    (gdb) set var n = 0
    (gdb) delete
    (gdb) jump {entry}
    [host] entry(5) = 1
    exited normally
"#;

}

// ---- Frames and symbols ----

scenarios! { "clib.c";

frames_are_walked_and_selected [gcc_o0_dwarf5 gcc_o2_dwarf4 clang_o0_dwarf4 clang_o2_dwarf5]: r#"
    (gdb) break {leaf}
    (gdb) run
    (gdb) bt
    #0  leaf (
    #1  0xADDRESS in middle (n=
    #2  0xADDRESS in entry (n=
    #3  0xADDRESS in parity::gdb::host::host_calls (function=0xADDRESS <entry>, number=5) at tests/gdb/host.rs:
    parity::the_program_that_is_debugged () at tests/parity.rs:
    start_thread
    (gdb) up
    #1  0xADDRESS in middle (n=
    (gdb) up 2
    host_calls
    (gdb) down
    #2  0xADDRESS in entry (n=
    (gdb) frame 1
    #1  0xADDRESS in middle
    (gdb) frame function entry
    #2  0xADDRESS in entry
    (gdb) info locals
    values = {
    (gdb) info frame
    Stack level 2, frame at 0xADDRESS:
    source language c.
    (gdb) bt -full 2
    local =
    sum =
    (gdb) bt -2
    clone3
    (gdb) frame apply 2 -q print $pc
    <middle+
    (gdb) frame 0
    (gdb) print $_caller_is("middle")
    = 1
"#;

info_tells_of_lines_symbols_and_scopes [gcc_o0_dwarf2 gcc_o2_dwarf3 gcc_o0_dwarf5 gcc_o2_dwarf4 clang_o0_dwarf4 clang_o2_dwarf5]: r#"
    (gdb) break leaf
    (gdb) run
    (gdb) info scope leaf
    Symbol a is
    Symbol local is
    (gdb) info scope {middle}
    Symbol sum is
    (gdb) info line leaf
    of "clib.c" starts at address 0xADDRESS <leaf
    (gdb) info line {entry}
    <entry+
    (gdb) info symbol leaf
    leaf in section .text of
    (gdb) info symbol $pc
    in section .text of
    (gdb) info symbol &lib_global
    lib_global in section .data of
    (gdb) info address leaf
    Symbol "leaf" is a function at address 0xADDRESS.
    (gdb) info address lib_global
    Symbol "lib_global" is static storage at address 0xADDRESS.
    (gdb) info source
    Current source file is clib.c
    Contains 
    Source language is c.
    (gdb) info functions ^leaf$\|^compare$
    All functions matching regular expression
    File clib.c:
    int leaf(int, int);
    static int compare(const void *, const void *);
    (gdb) info variables ^lib_
    File clib.c:
    int lib_constructed;
    int lib_global;
    static int lib_static;
    (gdb) info types ^color$\|^pair$
    File clib.c:
    enum color;
    struct pair;
    (gdb) info functions -n ^leaf$
    int leaf(int, int);
"#;

source_is_listed [gcc_o0_dwarf5 gcc_o2_dwarf4 clang_o0_dwarf4]: r#"
    (gdb) break leaf
    (gdb) run
    (gdb) list
    lib_global += local; // MARK leaf
    (gdb) list middle
    sum += leaf(i, values[i]); // MARK middle
    (gdb) list clib.c:1,3
    // What a debugger is shown in C
    (gdb) list leaf,middle
    // MARK leaf
    int middle(int n, int *values) {
    (gdb) info line
    (gdb) python print(gdb.decode_line('leaf')[1][0].symtab)
    clib.c
    (gdb) python print(gdb.selected_frame().find_sal().line == gdb.lookup_global_symbol('leaf').line + 1)
    True
    (gdb) python print(gdb.lookup_symbol('lib_static')[0].type)
    int
    (gdb) complete break middl
    break middle
"#;

an_in_memory_library_is_no_loaded_file [gcc_o0_dwarf5]: r#"
    (gdb) break {host}
    (gdb) catch load clib-
    (gdb) run
    (dlopen) Catchpoint 2
    (dlopen) Inferior loaded {LIBRARY}
    (memdl) [host] loaded a
    (gdb) info proc mappings
    (dlopen) clib-
    (memdl) libc.so.6
"#;

sources_are_listed_by_symbol_file [gcc_o0_dwarf5]: r#"
    (gdb) break leaf
    (gdb) run
    (gdb) info sources -basename clib
    (full>=13) .gnu_debugdata for <in-memory@0xADDRESS>:
    clib.c
    (full>=13) <in-memory@0xADDRESS>:
"#;

code_is_disassembled [gcc_o0_dwarf5 gcc_o2_dwarf4 clang_o0_dwarf4 clang_o2_dwarf5]: r#"
    (gdb) break leaf
    (gdb) run
    (gdb) disassemble
    Dump of assembler code for function leaf:
    => 0xADDRESS <+
    ret
    (gdb) disassemble /s leaf
    clib.c:
    // MARK leaf
    (gdb) disassemble /r middle,+8
    <middle+0>:
    (gdb) x/3i leaf
    <leaf>:
    (gdb) x/2xb middle
    <middle>:
    (gdb) x/dw &lib_global
    <lib_global>:	7
    (gdb) print *(int *)&lib_global
    = 7
    (gdb) info registers rip
    <leaf
"#;

a_machine_interface_tells_the_same [gcc_o0_dwarf5]: r#"
    (gdb) interpreter-exec mi "-break-insert -f leaf"
    pending="leaf"
    (gdb) run
    (gdb) interpreter-exec mi "-stack-list-frames 0 2"
    frame={level="0",addr="0xADDRESS",func="leaf",file=
    (gdb) interpreter-exec mi "-stack-list-variables --simple-values"
    {name="a",arg="1",type="int",value="0"}
    (gdb) interpreter-exec mi "-var-create pair * both"
    name="pair",numchild="3"
    (gdb) interpreter-exec mi "-var-list-children pair"
    exp="ratio"
    (gdb) interpreter-exec mi "-data-evaluate-expression lib_global"
    value="7"
    (gdb) interpreter-exec mi "-symbol-info-functions --name ^leaf$"
    name="leaf",type="int (int, int)"
    (gdb) interpreter-exec mi "-break-list"
    func="leaf"
"#;

the_dynamic_linkers_list_has_files_only [gcc_o0_dwarf5]: r#"
    (gdb) break leaf
    (gdb) run
    (gdb) info sharedlibrary
    (not) in-memory
    libc.so.6
    (dlopen) clib-
    (gdb) python print(gdb.solib_name(gdb.selected_frame().pc()))
    (dlopen) clib-
    (memdl) None
"#;

}

scenarios! { "clib.c";

names_alone_make_backtraces_and_breakpoints [gcc_o0_bare gcc_o2_bare clang_o2_bare]: r#"
    (gdb) set language c
    (gdb) break leaf
    (gdb) run
    Breakpoint 1, 0xADDRESS in leaf ()
    (gdb) bt 4
    #0  0xADDRESS in leaf ()
    in middle ()
    in entry ()
    host_calls
    (gdb) info symbol $pc
    leaf
    (gdb) x/2i $pc
    <leaf
    (gdb) print (int) lib_global
    = 7
    (gdb) print ((int (*)(int, int *)) middle)(0, 0)
    = 0
    (gdb) delete
    (gdb) finish
    in middle ()
    (gdb) up
    (gdb) info line leaf
    No line number information available for address 0xADDRESS <leaf>
    (gdb) continue
    exited normally
"#;

}

// ---- Values ----

scenarios! { "records.c";

structures_unions_and_arrays_are_printed [gcc_o0_dwarf2 gcc_o0_dwarf3 gcc_o0_dwarf5 gcc_o2_dwarf4 clang_o0_dwarf4 clang_o2_dwarf5 gcc_o0_types]: r#"
    (gdb) break total
    (gdb) run
    (gdb) print *of
    {tag = 97 'a', place = {x = -2, y = 3}, ready = 1, level = 5, value = {whole = 1065353216, real = 1, bytes = "\000\000\200?"}, allowed = (READ | EXECUTE), matrix = {{1, 2, 3}, {4, 5, 6}}, combine = 0xADDRESS <add>, next = 0xADDRESS <last>, name = "first
    ratio = 0.5}
    (gdb) print -pretty on -- first.place
    {
    x = -2,
    (gdb) print first.matrix[1]
    = {4, 5, 6}
    (gdb) print/x first.matrix
    = {{0x1, 0x2, 0x3}, {0x4, 0x5, 0x6}}
    (gdb) print *first.next
    tag = 122 'z'
    (gdb) print &first.value
    (union number *) 0xADDRESS <first+
    (gdb) print first.matrix[0][1]@3
    = {2, 3, 4}
    (gdb) print words
    "one"
    (gdb) print wide
    (>=11) L"wide"
    (gdb) print wave
    = 1 + 2i
    (gdb) print precise
    = 1.25
    (gdb) print (enum permission) 7
    (READ | WRITE | EXECUTE)
    (gdb) print WRITE
    = WRITE
    (gdb) print of->combine == add
    = 1
    (gdb) print sizeof(struct record)
    (gdb) output first.name
    "first
    (gdb) printf "%s %d %.1f\n", words[1], first.place.y, first.ratio
    two 3 0.5
    (gdb) x/s first.name
    <first+
    "first"
"#;

types_are_printed [gcc_o0_dwarf5 gcc_o0_dwarf4 clang_o0_dwarf5 gcc_o0_types]: r#"
    (gdb) break total
    (gdb) run
    (gdb) ptype struct record
    char tag;
    struct point place;
    unsigned int ready : 1;
    operation *combine;
    (gdb) ptype /o struct record
    /* offset      |    size */
    /* total size
    (gdb) ptype union number
    float real;
    (gdb) ptype enum permission
    READ = 1
    (gdb) whatis of
    const struct record *
    (gdb) ptype operation
    type = int (int, int)
    (gdb) whatis first.matrix
    type = int [2][3]
    (gdb) ptype moved
    type = struct point {
    (gdb) whatis &first.place
    type = struct point *
    (gdb) whatis total
    (const struct record *, int)
    (gdb) info types ^number$
    union number;
"#;

members_are_watched_where_they_are [gcc_o0_dwarf5 clang_o0_dwarf4]: r#"
    (gdb) break {total}
    (gdb) run
    (gdb) watch -location of->matrix[1][2]
    Hardware watchpoint 2: -location of->matrix[1][2]
    (gdb) watch -location calls
    (gdb) delete 1
    (gdb) continue
    Hardware watchpoint 3: -location calls
    Old value = 0
    New value = 1
    (gdb) info watchpoints
    hw watchpoint
    (gdb) print first.matrix[1][2] = 60
    (gdb) delete 2
    (gdb) delete 3
    (gdb) continue
    exited normally
"#;

a_destructor_is_stopped_in_at_unload [gcc_o0_dwarf5 gcc_o2_dwarf4 clang_o0_dwarf5]: r#"
    (host) load a {LIBRARY}
    (host) call a entry 5
    (host) unload a
    (gdb) break {destructor}
    (gdb) run
    [host] entry(5) =
    Breakpoint 1, gone () at {destructor}
    (gdb) print first.level
    = 5
    (gdb) bt 1
    #0  gone () at {destructor}
    (gdb) continue
    [host] unloaded a
    exited normally
"#;

functions_of_the_library_are_called [gcc_o0_dwarf5 gcc_o2_dwarf4 clang_o0_dwarf4]: r#"
    (gdb) break records.c:entry
    (gdb) run
    (gdb) print moved(first.place, 10)
    {x = 8, y = 13}
    (gdb) print half(5)
    = 2.5
    (gdb) print total(&first, 1)
    (gdb) call half(3) + 1
    = 2.5
    (gdb) tbreak half
    (gdb) print half(7)
    Temporary breakpoint 2, half (n=
    The program being debugged stopped while in a function called from GDB.
    (gdb) bt 2
    #0  half (n=7)
    <function called from gdb>
    (gdb) finish
    Value returned is
    3.5
    (gdb) print $_exitcode
    void
    (gdb) continue
    exited normally
"#;

variables_are_changed [gcc_o0_dwarf5 clang_o0_dwarf4]: r#"
    (gdb) break {loop}
    (gdb) run
    (gdb) set var sum = 1000
    (gdb) set var first.matrix[1][1] = 500
    (gdb) print first.place = here
    (gdb) set var first.level = 2
    (gdb) set var first.allowed = WRITE
    (gdb) set var first.ratio = 2.25
    (gdb) set var first.name[0] = 'F'
    (gdb) print calls = 77
    = 77
    (gdb) print first
    level = 2
    allowed = WRITE
    name = "First
    ratio = 2.25
    (gdb) break {sum}
    (gdb) delete 1
    (gdb) continue
    (gdb) print sum
    = 1501
    (gdb) print here.x = 0
    = 0
    (gdb) set $saved = first
    (gdb) print $saved.matrix[1][1]
    = 500
    (gdb) continue
    [host] entry(5) = 1503
"#;

values_are_returned_from_functions [gcc_o0_dwarf5 gcc_o2_dwarf5 clang_o0_dwarf4]: r#"
    (gdb) break moved
    (gdb) break half
    (gdb) run
    moved (from=
    (gdb) finish
    Value returned is
    {x = 3, y = 8}
    (gdb) continue
    half (n=
    (gdb) finish
    Value returned is
    = 2.5
    (gdb) print $$
    {x = 3, y = 8}
    (gdb) print $_
"#;

inlined_functions_have_frames [gcc_o0_dwarf5 gcc_o2_dwarf5 clang_o2_dwarf4]: r#"
    (gdb) break clamped
    (gdb) run
    clamped (n=
    (gdb) bt 2
    clamped (n=
    at records.c:
    #1  total (of=
    (gdb) info frame
    inlined into frame 1
    (gdb) info args
    n =
    (gdb) up
    total (
    (gdb) info breakpoints
    in clamped at records.c:
    (gdb) finish
"#;

optimised_variables_are_told_as_such [gcc_o2_dwarf5 clang_o2_dwarf4 clang_o2_dwarf5]: r#"
    (gdb) break {sum}
    (gdb) run
    (gdb) info locals
    (gdb) info args
    (gdb) bt 2
    total (of=
    (gdb) print of
    (gdb) print by
    (gdb) print calls
    = 1
    (gdb) up
    (gdb) info locals
    (gdb) continue
    exited normally
"#;

macros_are_expanded [gcc_o0_g3]: r#"
    (gdb) break total
    (gdb) run
    (gdb) info macro SCALED
    #define SCALED(x) ((x) * LIMIT)
    (gdb) macro expand SCALED(by) + 1
    expands to: ((by) * 40) + 1
    (gdb) print SCALED(by)
    = 200
    (gdb) info macros {sum}
    #define LIMIT 40
"#;

}

// ---- C++ ----

scenarios! { "classes.cc";

a_class_is_shown_as_what_it_is [gcc_o0_dwarf5 gcc_o0_dwarf4 clang_o0_dwarf5 gcc_o0_types]: r#"
    (gdb) break {feeds}
    (gdb) run
    (gdb) print dog
    <zoo::Animal> = {_vptr
    <vtable for zoo::Dog+24>
    age = 2, static count = 3
    weight = 25}
    (gdb) print *animal
    age = 2
    (gdb) set print object on
    (gdb) print animal
    (zoo::Dog *) 0xADDRESS
    (gdb) whatis *animal
    zoo::Animal
    (gdb) print *(zoo::Dog *) animal
    weight = 25
    (gdb) print dog.name
    "rex"
    (gdb) info vtbl dog
    vtable for 'zoo::Dog'
    <zoo::Dog::legs() const>
    (gdb) ptype dog
    class zoo::Dog : public zoo::Animal, public virtual zoo::Named {
    int weight;
    zoo::Dog operator+(const zoo::Dog &) const;
    (gdb) ptype /o zoo::Animal
    /* offset      |    size */
    int age;
    (gdb) print zoo::Animal::count
    = 3
    (gdb) print zoo::Dog::size
    <zoo::Dog::size() const>
    (gdb) print dog.legs()
    = 4
    (gdb) print (animal->*method)()
    = 4
    (gdb) print dog.*member
    = 2
    (gdb) print dog.size()
    = zoo::Size::Large
    (gdb) print '(anonymous namespace)::hidden'
    = 11
"#;

references_lambdas_and_templates_are_shown [gcc_o0_dwarf5_symbolic clang_o0_dwarf4_symbolic gcc_o0_types_symbolic]: r#"
    (gdb) break {feeds}
    (gdb) run
    (gdb) print alias
    (int &) @0xADDRESS: 2
    (gdb) whatis alias
    type = int &
    (gdb) print temporary
    (int &&) @0xADDRESS: 6
    (gdb) set var alias = 9
    (gdb) print dog.age
    = 9
    (gdb) print &alias == &dog.age
    = true
    (gdb) print add
    alias
    (gdb) print size
    = zoo::Size::Large
    (gdb) ptype zoo::Size
    type = enum class zoo::Size : unsigned char {
    zoo::Size::Small
    zoo::Size::Large = 7
    (gdb) print herd
    = {members = {1, 2, 3}}
    (gdb) print herd.sum()
    = 6
    (gdb) whatis herd
    type = zoo::Herd<int, 3>
    (gdb) ptype herd
    T members[3];
    (gdb) info functions -n doubled
    zoo::doubled<double>(double)
    (gdb) info types ^zoo::Herd
    zoo::Herd<int, 3>;
    (gdb) info line zoo::Herd<int, 3>::sum
    classes.cc
    (gdb) break {lambda}
    (gdb) continue
    operator()
    (gdb) info args
    by = 1
"#;

overloads_and_instances_each_have_a_breakpoint [gcc_o0_dwarf5_symbolic clang_o0_dwarf4_symbolic]: r#"
    (gdb) break zoo::feed
    (gdb) break zoo::doubled
    (gdb) break zoo::feed(char const*)
    (gdb) break zoo::Dog::Dog(int)
    (gdb) run
    zoo::Dog::Dog (
    (gdb) info breakpoints
    <MULTIPLE>
    in zoo::feed(int) at classes.cc:
    in zoo::feed(char const*) at classes.cc:
    in zoo::feed(zoo::Dog&, int) at classes.cc:
    (>=11) in zoo::doubled<
    in zoo::feed(char const*) at classes.cc:
    (gdb) disable 4
    (gdb) continue
    zoo::feed (amount=5
    (gdb) disable 1.1-3
    (gdb) continue
    zoo::feed (what=
    (gdb) info source
    Source language is c++.
    (gdb) continue
    (>=11) zoo::doubled<
"#;

breakpoints_are_not_set_in_the_linkage_table [gcc_o0_dwarf5]: r#"
    (gdb) break zoo::feed
    (gdb) break {feeds}
    (gdb) run
    (gdb) info breakpoints
    (memdl<16) in zoo::feed(int) at classes.cc:
    (memdl<16) in zoo::feed(char const*) at classes.cc:
    (memdl<16) in zoo::feed(zoo::Dog&, int) at classes.cc:
    (dlopen<16) <zoo::feed(int)@plt>
    (>=16) in zoo::feed(int) at classes.cc:
    (>=16) in zoo::feed(char const*) at classes.cc:
    (>=16) in zoo::feed(zoo::Dog&, int) at classes.cc:
    in entry(int) at {feeds}
    (gdb) disable 1
    (gdb) step
    zoo::feed (amount=5) at {feed_int}
"#;

methods_are_stepped_through [gcc_o0_dwarf5 clang_o0_dwarf4]: r#"
    (gdb) break {feeds}
    (gdb) run
    (gdb) next
    (gdb) step
    zoo::Dog::legs (this=
    (gdb) info symbol $pc
    zoo::Dog::legs() const + 
    in section .text of
    (gdb) bt 2
    #0  zoo::Dog::legs (this=0xADDRESS) at {legs}
    entry (n=5) at classes.cc:
    (gdb) up
    (gdb) tbreak {plus}
    (gdb) continue
    zoo::Dog::operator+ (this=
    (gdb) print other.weight + this->weight
    = 26
    (gdb) print *this
    weight = 25
    (gdb) tbreak {destructor}
    (gdb) continue
    zoo::Dog::~Dog (this=
    at {destructor}
    (gdb) info locals
    (gdb) finish
"#;

}

scenarios! { "containers.cc";

containers_are_printed_by_their_pretty_printers [gcc_o0_dwarf5 gcc_o0_dwarf4 clang_o0_dwarf5 gcc_o0_types]: r#"
    (gdb) break {entry}
    (gdb) run
    (gdb) print text
    = "text"
    (gdb) print numbers
    = std::vector of length 3, capacity 3 = {1, 2, 5}
    (gdb) print flags
    = std::vector<bool> of length 3, capacity 64 = {true, false, true}
    (gdb) print items
    = std::vector of length 2, capacity 2 = {{id = 1, label = "first"}, {id = 2, label = "second"}}
    (gdb) print line
    list = {[0] = 0.5, [1] = 1.5}
    (gdb) print queue
    = std::deque with 2 elements = {97 'a', 98 'b'}
    (gdb) print pair
    7, 8
    (gdb) print ages
    = std::map with 2 elements = {["ann"] = 30, ["bob"] = 40}
    (gdb) print bag
    = std::multiset with 3 elements = {[0] = 3, [1] = 3, [2] = 4}
    (gdb) print names
    = std::unordered_map with 1 element = {[9] = "nine"}
    (gdb) print owner
    = std::unique_ptr<Item> = {get() = 0xADDRESS}
    (gdb) print *owner
    label = "owned"
    (gdb) print shared
    std::shared_ptr<int> (use count 1, weak count 1) = {get() = 0xADDRESS}
    (gdb) print some
    [contained value] = 5}
    (gdb) print none
    [no contained value]
    (gdb) print either
    [index 1] = {"either"}
    (gdb) print three
    = std::tuple containing = {[1] = 1, [2] = 99 'c', [3] = "three"}
    (gdb) print bits
    = std::bitset = {[0] = 1, [2] = 1, [4] = 1}
    (gdb) print second
    = 2
    (gdb) print numbers[2] + numbers.size()
    = 8
    (gdb) whatis ages
    std::map<
    (gdb) print /r numbers
    _M_start = 0xADDRESS
    (gdb) info pretty-printer global libstdc
"#;

}

scenarios! { "exceptions.cc";

exceptions_are_caught_where_they_are_thrown [gcc_o0_dwarf5 gcc_o2_dwarf4 clang_o0_dwarf4]: r#"
    (gdb) catch throw
    (throw)
    (gdb) catch rethrow
    (gdb) catch catch
    (gdb) run
    Catchpoint 1 (exception thrown), 0xADDRESS in
    (gdb) bt 4
    __cxa_throw
    in refuses (n=
    at {throws}
    in passes_on (n=
    (gdb) set language c++
    (gdb) print $_exception
    (gdb) set language auto
    (gdb) continue
    Catchpoint 3 (exception caught), 0xADDRESS in
    (gdb) continue
    Catchpoint 2 (exception rethrown), 0xADDRESS in
    (gdb) continue
    Catchpoint 3 (exception caught), 0xADDRESS in
    (gdb) up
    entry (n=
    (gdb) info breakpoints
    exception catch
    (gdb) delete
    (gdb) continue
    exited normally
"#;

exceptions_are_caught_by_type [gcc_o0_dwarf5]: r#"
    (gdb) catch throw runtime_error
    (gdb) run
    Catchpoint 1 (exception thrown), 0xADDRESS in
    (gdb) up
    in fails (n=5)
    (gdb) tbreak {failed}
    (gdb) continue
    Temporary breakpoint 2, entry (n=5) at {failed}
    (gdb) print error
    std::exception &
    (gdb) print error
    (const std::exception &) @0xADDRESS
"#;

stepping_over_a_throw_stops_where_it_is_caught [gcc_o0_dwarf5 clang_o0_dwarf5]: r#"
    (gdb) break {throws}
    (gdb) run
    refuses (n=5) at {throws}
    (gdb) tbreak {caught}
    (gdb) next
    entry (n=5) at {caught}
    (gdb) print refused
    @0xADDRESS: {code = 5}
"#;

}

// ---- Rust and Fortran ----

scenarios! { "rusttypes.rs";

rust_values_are_printed [rustc_o0_dwarf4 rustc_o0_dwarf5]: r#"
    (gdb) break {entry}
    (gdb) run
    (gdb) print some
    = core::option::Option<i32>::Some(5)
    (gdb) print none
    = core::option::Option<alloc::boxed::Box<i32, alloc::alloc::Global>>::None
    (gdb) print fine
    Ok(200)
    (gdb) print word
    = "word"
    (gdb) print text
    alloc::string::String
    (gdb) print numbers
    = [1, 2, 3]
    (gdb) print slice
    = &[i32] 
    (>=11) [2, 3]
    (gdb) print mixed
    (>=11) = (1, 99 'c', -2.5)
    (gdb) print *boxed
    = 17
    (gdb) print bird
    = rusttypes::Bird {size: 4}
    (gdb) print level
    = rusttypes::Level::High
    (gdb) print bits
    = rusttypes::Bits {whole: 1065353216, real: 1}
    (gdb) print &numbers[1]
    (*mut i32) 0xADDRESS
    (gdb) ptype bird
    size: i32,
    (gdb) ptype /o mixed
    (gdb) whatis add
    entry::{closure_env#0}
    (gdb) print rusttypes::COUNTER
    7
    (gdb) print bird.size * 2 + n
    = 13
    (gdb) print rusttypes::Bird{size: 3}
    = rusttypes::Bird {size: 3}
    (gdb) info source
    Source language is rust.
"#;

rust_functions_are_stopped_in_and_stepped_through [rustc_o0_dwarf4 rustc_o2_dwarf4]: r#"
    (gdb) break rusttypes::Bird::grow
    (gdb) break rusttypes::larger<i32>
    (gdb) break {volume}
    (gdb) run
    rusttypes::Bird::grow (self=
    by=5) at rusttypes.rs:
    (gdb) print *self
    = rusttypes::Bird {size: 4}
    (gdb) bt 2
    rusttypes::entry (n=5) at rusttypes.rs:
    (gdb) finish
    Value returned is $2 = 9
    (gdb) continue
    (>=11) {volume}
    (gdb) continue
    rusttypes::larger<i32> (a=
    (gdb) info breakpoints
    rusttypes::larger<i32>
    (gdb) info symbol $pc
    rusttypes::larger
    (gdb) info functions -n larger
    rusttypes.rs
    (gdb) delete
    (gdb) continue
    exited normally
"#;

rust_functions_are_called_and_variables_changed [rustc_o0_dwarf4]: r#"
    (gdb) break {entry}
    (gdb) run
    (gdb) print rusttypes::larger::<i32>(3, 4)
    (gdb) set var bird.size = 40
    (gdb) print bird
    = rusttypes::Bird {size: 40}
    (gdb) set var numbers[0] = 100
    (gdb) print numbers
    = [100, 2, 3]
    (gdb) next
    (gdb) next
    (gdb) print grown
    = 45
"#;

a_rust_panic_is_stopped_at [rustc_o0_dwarf4]: r#"
    (gdb) break std::panicking::rust_panic
    (gdb) run
    rust_panic
    (gdb) bt
    rusttypes::refuses (n=5) at {panics}
    rusttypes::entry (n=5) at rusttypes.rs:
    host_calls
    (gdb) delete
    (gdb) continue
    exited normally
"#;

}

scenarios! { "geometry.f90";

fortran_is_shown [gfortran_o0_dwarf4 gfortran_o0_dwarf5]: r#"
    (gdb) break geometry::area
    (gdb) break {fill}
    (gdb) run
    geometry::fill (values=..., title=
    (gdb) print values
    (gdb) print title
    = 'ab'
    (gdb) print size(values)
    (>=11) = 3
    (gdb) bt 2
    geometry::entry (n=5) at geometry.f90:
    (gdb) delete 2
    (gdb) continue
    geometry::area (corner=
    (gdb) print corner
    = ( x = 6, y = 1.5 )
    (gdb) print corner%x
    = 6
    (gdb) ptype corner
    real(kind=8) :: y
    (gdb) print calls
    = 3
    (gdb) print grid
    (>=11) = ((1, 2) (3, 4) (5, 6))
    (gdb) print grid(2, 1:2)
    (>=11) = (2, 4)
    (gdb) info symbol $pc
    __geometry_MOD_area
    (gdb) finish
    Value returned is
    = 30
    (gdb) info locals
    ready = .TRUE.
    wave = (1,-2)
    (gdb) print heap
    = (3, 6, 11)
    (gdb) info source
    Source language is fortran.
    (gdb) set var n = 0
    (gdb) continue
    exited normally
"#;

}

scenarios! { "golib.go";

go_is_shown [go_o0]: r#"
    (gdb) set auto-load python-scripts off
    (gdb) handle SIGURG nostop noprint
    (gdb) break {area}
    (gdb) run
    main.Area (corner=..., scale=5
    at {area}
    (gdb) bt 2
    main.entry (n=5
    at golib.go:
    (gdb) print corner
    = {X = 6, Y = 7}
    (gdb) info locals
    product = 30
    (gdb) print word
    "word"
    (gdb) print sides
    len = 2, cap = 2
    (gdb) print *sides.array@2
    = {6, 7}
    (gdb) print main.Calls
    = 3
    (gdb) set var main.Calls = 30
    (gdb) next
    (gdb) print main.Calls
    = 31
    (gdb) ptype corner
    type = struct main.Point {
    (gdb) info symbol $pc
    in section .text of
    (gdb) info source
    golib.go
    (gdb) finish
    main.entry (
    (gdb) kill
"#;

scripts_that_a_library_names_are_not_loaded [go_o0]: r#"
    (gdb) handle SIGURG nostop noprint
    (gdb) break {area}
    (gdb) run
    (dlopen) runtime-gdb.py" auto-loading has been declined
    main.Area (
    (memdl) at {area}
    (gdb) kill
"#;

}

// ---- Signals, threads, processes ----

scenarios! { "signals.c";

a_signal_stops_and_is_handled_by_the_library [gcc_o0_dwarf5 gcc_o2_dwarf4 clang_o0_dwarf4]: r#"
    (gdb) handle SIGUSR1 stop print pass
    (gdb) break handler
    (gdb) run
    received signal SIGUSR1, User defined signal 1.
    (gdb) bt 4
    raise
    in raises (number=
    at signals.c:
    (gdb) info signals SIGUSR1
    SIGUSR1       Yes	Yes	Yes
    (gdb) print $_siginfo.si_signo
    = 10
    (gdb) continue
    handler (number=
    10) at signals.c:
    (gdb) bt 3
    #1  <signal handler called>
    (gdb) info frame
    called by frame at 0xADDRESS
    (gdb) finish
    <signal handler called>
    (gdb) print handled
    = 10
    (gdb) continue
    [host] entry(5) = 15
"#;

a_signal_is_left_alone_or_swallowed [gcc_o0_dwarf5]: r#"
    (gdb) handle SIGUSR1 nostop noprint nopass
    (gdb) break {entry}
    (gdb) run
    (gdb) continue
    [host] entry(5) = 5
    exited normally
"#;

signals_are_caught_and_sent [gcc_o0_dwarf4 clang_o0_dwarf5]: r#"
    (gdb) catch signal SIGUSR1
    Catchpoint 1 (signal SIGUSR1)
    (gdb) break handler
    (gdb) run
    Catchpoint 1 (signal SIGUSR1),
    (gdb) signal 0
    [host] entry(5) = 5
    (gdb) run
    Catchpoint 1 (signal SIGUSR1),
    (gdb) queue-signal SIGUSR1
    (gdb) continue
    Breakpoint 2, handler (number=10) at signals.c:
"#;

a_crash_is_seen_where_it_happens [gcc_o0_dwarf5 gcc_o2_dwarf5 clang_o0_dwarf4]: r#"
    (host) load a {LIBRARY}
    (host) call a crash 1
    (gdb) run
    received signal SIGSEGV, Segmentation fault.
    crashes (where=
    at {crashes}
    (gdb) bt 2
    crashes (where=
    in crash (n=
    (gdb) print where
    (gdb) print $_siginfo._sifields._sigfault.si_addr
    0x0
    (gdb) x/i $pc
    <crashes
    (gdb) continue
    (gdb) continue
    Program terminated with signal SIGSEGV, Segmentation fault.
"#;

the_kernels_core_shows_an_abort [gcc_o0_dwarf5 clang_o0_dwarf4] KernelCore: r#"
    (host) load a {LIBRARY}
    (host) call a give_up 1
    (gdb) bt
    abort
    in give_up (n=
    at {aborts}
    host_calls (function=
    (gdb) frame function give_up
    (gdb) info args
    n = 
    (gdb) list
    // MARK aborts
    (gdb) print handled
    = 0
    (gdb) info symbol give_up
    give_up in section .text of
    (gdb) info line {aborts}
    <give_up+
    (gdb) x/i $pc
    <give_up+
    (gdb) ptype raises
    type = int (int)
"#;

}

scenarios! { "threads.c";

threads_are_seen_in_the_library [gcc_o0_dwarf5 gcc_o2_dwarf4 clang_o0_dwarf4]: r#"
    (gdb) break knock
    (gdb) run
    knock (number=
    1) at threads.c:
    (gdb) info threads
    knock (number=
    1) at threads.c:
    (gdb) thread apply 3 4 bt -2
    (gdb) thread apply all -q frame function work
    in work (argument=
    (gdb) print mine
    = 10
    (gdb) thread 4
    (gdb) frame function work
    at {waits}
    (gdb) print mine
    = 20
    (gdb) thread 3
    (gdb) continue
    knock (number=
    2) at threads.c:
    (gdb) print mine
    = 20
    (gdb) continue
    [host] entry(5) = 38
"#;

a_breakpoint_is_for_one_thread [gcc_o0_dwarf5]: r#"
    (gdb) tbreak {starts}
    (gdb) run
    (gdb) break knock thread 4
    (gdb) info breakpoints
    stop only in thread 4
    (gdb) continue
    knock (number=2) at threads.c:
    (gdb) print $_thread
    = 4
    (gdb) set scheduler-locking on
    (gdb) next
    (gdb) print visits
    = 33
    (gdb) set scheduler-locking off
    (gdb) delete
    (gdb) continue
    exited normally
"#;

}

scenarios! { "processes.c";

the_child_is_followed [gcc_o0_dwarf5 gcc_o2_dwarf4 clang_o0_dwarf4]: r#"
    (host) load a {LIBRARY}
    (host) call a quiet 5
    (gdb) set follow-fork-mode child
    (gdb) break in_child
    (gdb) run
    in_child (n=
    5) at processes.c:
    (gdb) bt 2
    in forks (n=
    (gdb) print generation
    = 0
    (gdb) next
    (gdb) info symbol in_child
    in_child in section .text of
    (gdb) info inferiors
    * 2
    (gdb) delete
    (gdb) continue
    exited with code 06
"#;

the_parent_is_followed [gcc_o0_dwarf4]: r#"
    (gdb) catch fork
    (gdb) break in_child
    (gdb) break in_parent
    (gdb) run
    Catchpoint 1 (forked process
    (gdb) continue
    in_parent (child=
    (gdb) finish
    Value returned is $1 = 6
"#;

both_processes_are_held [gcc_o0_dwarf5]: r#"
    (gdb) set detach-on-fork off
    (gdb) break in_child
    (gdb) break in_parent
    (gdb) run
    in_parent (child=
    (gdb) info inferiors
    * 1
    2
    (gdb) inferior 2
    (gdb) continue
    in_child (n=5) at processes.c:
    (gdb) print generation
    = 0
    (gdb) info breakpoints
    <MULTIPLE>
    inf 1
    inf 2
    (gdb) continue
    exited with code 06
    (gdb) thread 1.2
    (gdb) finish
    Value returned is $2 = 6
"#;

}

// ---- Late, from afar, after the end, again ----

scenarios! { "clib.c";

gdb_attaches_and_detaches [gcc_o0_dwarf5 gcc_o2_dwarf4 clang_o0_dwarf4] Attach: r#"
    (host) load a {LIBRARY}
    (host) await-debugger
    (host) call a entry 5
    (gdb) info symbol leaf
    leaf in section .text of
    (gdb) break leaf
    Breakpoint 1 at 0xADDRESS: file clib.c, line
    (gdb) set language c
    (gdb) set var *(char *) &HOST_GOES = 1
    (gdb) set language auto
    (gdb) continue
    Breakpoint 1, leaf (
    b=1) at clib.c:
    (gdb) bt 4
    host_calls
    (gdb) print lib_global
    = 7
    (gdb) finish
    Value returned is $2 =
    (gdb) detach
    detached
"#;

a_host_is_debugged_through_gdbserver [gcc_o0_dwarf5 gcc_o2_dwarf4 clang_o0_dwarf4] Server: r#"
    (gdb) break leaf
    (gdb) continue
    Breakpoint 1, leaf (
    b=1) at clib.c:
    (gdb) bt 4
    host_calls
    (gdb) watch lib_global
    Hardware watchpoint 2: lib_global
    (gdb) continue
    Old value = 7
    New value = 8
    (gdb) info locals
    (gdb) print middle(0, values)
    (gdb) delete
    (gdb) continue
    exited normally
"#;

gdbs_core_shows_the_library [gcc_o0_dwarf5 gcc_o2_dwarf4 clang_o0_dwarf4]: r#"
    (gdb) break {leaf}
    (gdb) run
    (gdb) gcore {CORE}
    Saved corefile
    (gdb) kill
    (gdb) core-file {CORE}
    leaf (
    (gdb) bt
    #0  
    leaf (
    in middle (n=
    in entry (n=
    host_calls (
    (gdb) info locals
    local =
    (gdb) print lib_global
    = 7
    (gdb) print lib_static
    = 9
    (gdb) info symbol $pc
    leaf + 
    in section .text of
    (gdb) disassemble /s leaf
    // MARK leaf
    =>
    (gdb) up
    middle (
    (gdb) info locals
    sum =
"#;

breakpoints_follow_an_unload_and_a_reload [gcc_o0_dwarf5 clang_o0_dwarf4]: r#"
    (host) load a {LIBRARY}
    (host) call a entry 5
    (host) unload a
    (host) pause
    (host) load a {LIBRARY}
    (host) call a entry 5
    (host) unload a
    (gdb) break host_pauses
    (gdb) break leaf
    (gdb) break {entry}
    (gdb) run
    Breakpoint 3, entry (n=5) at {entry}
    (gdb) continue
    Breakpoint 2, leaf (a=0, b=1) at clib.c:
    (gdb) disable 2
    (gdb) continue
    [host] unloaded a
    host_pauses ()
    (gdb) info breakpoints
    <PENDING>          leaf
    <PENDING>          {entry}
    (gdb) info symbol leaf
    No symbol
    (gdb) enable 2
    (gdb) continue
    Breakpoint 3, entry (n=5) at {entry}
    (gdb) continue
    Breakpoint 2, leaf (a=0, b=1) at clib.c:
    (gdb) print lib_global
    = 7
    (gdb) bt 3
    in middle (n=5
    (gdb) delete
    (gdb) continue
    [host] unloaded a
    exited normally
"#;

a_watchpoint_outlives_its_library [gcc_o0_dwarf5]: r#"
    (host) load a {LIBRARY}
    (host) call a entry 5
    (host) unload a
    (host) pause
    (gdb) tbreak middle
    (gdb) run
    (gdb) watch lib_global
    (gdb) tbreak host_pauses
    (gdb) continue
    Old value = 7
    (gdb) disable 2
    (gdb) continue
    host_pauses ()
    (dlopen<17) at tests/gdb/host.rs:
    (memdl<17) at tests/gdb/host.rs:
    (>=17) at tests/gdb/host.rs:
    (gdb) info breakpoints
    hw watchpoint
    (dlopen<17) lib_global
    (memdl<17) lib_global
    (>=17) lib_global
    (gdb) delete 2
    (gdb) continue
    exited normally
"#;

a_second_run_stops_again [gcc_o0_dwarf5 clang_o2_dwarf4]: r#"
    (gdb) break leaf
    (gdb) break {entry}
    (gdb) run
    Breakpoint 2, entry (
    (gdb) run
    Breakpoint 2, entry (
    (gdb) continue
    Breakpoint 1, leaf (
    (gdb) kill
    (gdb) run
    Breakpoint 2, entry (
"#;

after_its_end_the_library_is_known_no_more [gcc_o0_dwarf5]: r#"
    (gdb) break leaf
    (gdb) run
    (gdb) delete
    (gdb) continue
    exited normally
    (gdb) tbreak leaf
    (dlopen) Temporary breakpoint 2 at 0xADDRESS: file clib.c, line
    (memdl) Temporary breakpoint 2 (leaf) pending.
"#;

}
