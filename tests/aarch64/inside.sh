#!/bin/sh
# What tests/aarch64/run.sh has the emulated machine do: inside.sh LOADER DEBUGGERS, two test binaries.
set -u
cd "$(dirname "$0")/../.."
loader=$1
# In memory: gdb reads much of it.
cp "$2" /tmp/debuggers
bad=
# A step is killed after so many seconds.
step() {
    seconds=$1
    shift
    echo "== inside: $*"
    timeout -s KILL "$seconds" "$@" || { bad=yes; echo "FAILED: $*"; }
}
uname -srm
# What qemu-user cannot run.
step 1200 "$loader" a_thousand_rounds_leave_nothing an_instance_where_another_was unwind::a_constructor_that_throws \
    memory_for_the_next_instance_is_given_back denied:: forks_during_the_first_load many_rounds_of_loading \
    hundreds_of_threads_at_once aarch64::
# A debugger that starts the host, attaches to it, and reads a core of its own and one of the kernel; signals.
step 2000 /tmp/debuggers --test-threads 1 gcc_o0_dwarf5 parity::breakpoints::a_temporary_breakpoint_stops_once \
    parity::late::gdb_attaches_and_detaches parity::late::gdbs_core_shows_the_library \
    parity::signals::a_signal_stops_and_is_handled_by_the_library parity::signals::the_kernels_core_shows_an_abort
[ -z "$bad" ]
