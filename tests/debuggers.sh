#!/bin/sh
# Unpacks debuggers of other Debian releases side by side, without installing them.
#
#     sh tests/debuggers.sh [SUITE/PACKAGE...]
#
# Each gets the libraries of its own release, including the C library, as apt resolves them for an empty
# machine, and becomes a command in target/debuggers: gdb-10.1, lldb-14.0.6, ... Those that exist are
# not unpacked again. Prints the commands, one a line.
set -eu

# lldb's packages cannot be installed together, since their Python modules conflict; unpacked they can be.
# The version of sid changes: the printed command has it.
wanted="bullseye/gdb bullseye/gdb-minimal bookworm/gdb bookworm/gdb-multiarch trixie/gdb
    bookworm/gdb-17 sid/gdb bookworm/lldb-14 bookworm/lldb-19"
[ $# = 0 ] || wanted="$*"

cd "$(dirname "$0")/.."
mkdir -p "${CARGO_TARGET_DIR:-target}/debuggers"
cd "${CARGO_TARGET_DIR:-target}/debuggers"
all=$PWD
machine=$(uname -m)-linux-gnu

fail() {
    echo "tests/debuggers.sh: $*" >&2
    exit 1
}

for tool in apt-get dpkg-deb flock; do
    command -v "$tool" >/dev/null || fail "needs $tool: this works on Debian and what comes of it"
done
[ "$machine" = x86_64-linux-gnu ] || fail "is written for x86_64, not for $machine"
# Two runs at once would unpack into the same folders.
exec 9>"$all/lock"
flock 9

# Prints the mirror of Debian that this machine is set up to use.
mirror() {
    # shellcheck disable=SC2016 # apt's own variables
    apt-get indextargets --format '$(REPO_URI)' 'Origin: Debian' 'Created-By: Packages' |
        grep -v -e security -e backports | head -n 1
}

# Prepares apt_in for a release: apt's state gets a folder of its own.
ready_apt() {
    keys=/usr/share/keyrings/debian-archive-keyring.gpg
    [ -e "$keys" ] || fail "needs the package debian-archive-keyring ($keys)"
    # A new machine has no package lists yet, and so knows no mirror.
    [ -n "$(mirror)" ] || [ "$(id -u)" != 0 ] || apt-get -qq update
    mirror=$(mirror)
    [ -n "$mirror" ] || fail "apt-get knows no mirror of Debian here: run apt-get update"
    mkdir -p "$all/apt/$1/state/lists/partial" "$all/apt/$1/cache/archives/partial"
    echo "deb [signed-by=$keys] $mirror $1 main" >"$all/apt/$1/sources.list"
    : >"$all/apt/$1/status"
    apt_in "$1" -q update >"$all/log" 2>&1 || fail "no release $1:" "$(cat "$all/log")"
}

# Runs apt-get for the release $1, as on a machine without any packages.
apt_in() {
    private=$all/apt/$1
    shift
    apt-get -o "Dir::Etc::sourcelist=$private/sources.list" -o Dir::Etc::sourceparts=/dev/null \
        -o Dir::Etc::preferencesparts=/dev/null -o "Dir::State=$private/state" \
        -o "Dir::State::status=$private/status" -o "Dir::Cache=$private/cache" \
        -o APT::Sandbox::User= -o APT::Install-Recommends=false "$@"
}

# Packages that no debugger runs: those of every machine, and those for building programs.
not_run="dpkg|tar|perl-base|debconf|init-system-helpers|ucf|sensible-utils|procps|tzdata|netbase"
not_run="$not_run|llvm-.*|lib.*-dev|python3|python3-minimal|python3\.[0-9]*|python3\.[0-9]*-minimal"

# A build of a gdb version that Debian does not have. It lacks the Python interpreter.
wheel=gdb_for_pwndbg-17.2.0.post5-cp311-cp311-manylinux_2_28_x86_64.whl
wheel_sum=2759f80f110ce910f9dc30776882df442426cb4500266addda03751e3f7815cc

# Unpacks the wheel into the folder $1.
unpack_wheel() {
    python3 -m pip download -q --no-deps --only-binary=:all: --python-version 3.11 --abi cp311 \
        --platform manylinux_2_28_x86_64 --dest "$1/packages" gdb-for-pwndbg==17.2.0.post5 \
        >"$1/log" 2>&1 || fail "cannot download gdb 17.2:" "$(tail -n 5 "$1/log")"
    echo "$wheel_sum  $1/packages/$wheel" | sha256sum -c --quiet || fail "not the known $wheel"
    python3 -m zipfile -e "$1/packages/$wheel" "$1/wheel"
    mkdir -p "$1/root/usr/bin" "$1/root/usr/share/gdb/python"
    mv "$1"/wheel/gdb_for_pwndbg/_vendor/share/gdb/* "$1/root/usr/share/gdb"
    mv "$1/wheel/gdb" "$1/root/usr/share/gdb/python"
    mv "$1/wheel/gdb_for_pwndbg/_vendor/bin/gdb" "$1/root/usr/bin"
    chmod +x "$1/root/usr/bin/gdb"
    echo 17.2 >"$1/root/version"
}

# Unpacks SUITE/PACKAGE into a folder of that name, with the version in the file `version`.
unpack() {
    suite=${1%/*}
    package=${1#*/}
    # Renamed when it is complete.
    new=$all/unfinished
    rm -rf "$new"
    mkdir -p "$new/root" "$new/packages" "$all/$suite"
    case $package in
    gdb-17) packages="libpython3.11 libexpat1 zlib1g" ;;
    *) packages=$package ;;
    esac
    ready_apt "$suite"
    # shellcheck disable=SC2086
    apt_in "$suite" -s install $packages >"$new/plan" 2>"$new/log" ||
        fail "cannot resolve $1:" "$(cat "$new/log")"
    names=$(sed -n 's/^Inst \([^ ]*\) .*/\1/p' "$new/plan" | grep -v -x -E "$not_run")
    # shellcheck disable=SC2086
    (cd "$new/packages" && apt_in "$suite" -q download $names) >"$new/log" 2>&1 ||
        fail "cannot download $1:" "$(tail -n 5 "$new/log")"
    for file in "$new"/packages/*.deb; do
        dpkg-deb -x "$file" "$new/root" || fail "cannot unpack $file"
    done
    if [ "$package" = gdb-17 ]; then
        unpack_wheel "$new"
    else
        # 1:14.0.6-12 is 14.0.6.
        dpkg-deb -f "$new/packages/${package}"_*.deb Version |
            sed -e 's/^[0-9]*://' -e 's/[-+~].*//' >"$new/root/version"
    fi
    rm -rf "${all:?}/$1"
    mv "$new/root" "$all/$1"
    rm -rf "$new"
}

# Makes the command $1, which runs the program $2 of the unpacked folder $root, with the libraries of its
# folder $3, too. Shell lines that run before come from the standard input; "$@" is the command's arguments.
command_for() {
    # In the old releases /lib is not /usr/lib.
    for folder in lib usr/lib; do
        loader=$root/$folder/$machine/ld-linux-x86-64.so.2
        [ ! -e "$loader" ] || break
    done
    [ -e "$loader" ] || fail "no dynamic linker in $root"
    {
        echo "#!/bin/sh"
        echo "# Made by tests/debuggers.sh."
        cat
        echo "exec $loader --library-path $root/lib/$machine:$root/usr/lib/$machine${3:+:$root/$3} \\"
        echo "    $root/$2 \"\$@\""
    } >"$1.new"
    chmod +x "$1.new"
    mv "$1.new" "$1"
}

# gdb finds its Python in its own folder. But libthread_db and the pretty printers of libstdc++ belong to the
# machine's libraries: gdb must load them from the machine's folders, as the machine's own gdb does.
gdb_command() {
    {
        # This build looks for Python only where it was installed, and not in its own folder.
        [ "$package" != gdb-17 ] ||
            echo "export PYTHONHOME=$root/usr; set -- -iex 'unset environment PYTHONHOME' \"\$@\""
        cat <<END
set -- "--data-directory=$root/usr/share/gdb" \\
    -iex "set libthread-db-search-path /lib/$machine" \\
    -iex "set auto-load scripts-directory /usr/lib/debug:/usr/share/gdb/auto-load" \\
    -iex "set auto-load safe-path /usr/lib/debug:/usr/share/gdb/auto-load:/lib/$machine:/usr/lib/$machine" "\$@"
END
        # Newer versions of Python warn about the pretty printers.
        [ "$package" = gdb-minimal ] ||
            echo "set -- -iex 'python import warnings; warnings.simplefilter(\"ignore\")' \"\$@\""
        case $version in [1-9].* | 10.*) old_gdb "$1" ;; esac
    } >"$all/lines"
    command_for "$1" "usr/bin/$2" "" <"$all/lines"
}

# gdb before 11 does not know two things of the C library here (2.36). It refuses objects with a section of
# the type SHT_RELR: so it reads copies in which that section has another type, from a folder with links to
# the rest of the machine. The process has the real objects. And it looks for threads when it sees
# libpthread, which the C library has absorbed: so programs start with the empty libpthread that still
# exists, after the C library.
old_gdb() {
    # gdb shows file names with this prefix; tests/debuggers/harness/versions.rs removes it.
    copies=$1.machine
    libraries=usr/lib/$machine
    rm -rf "$copies"
    mkdir -p "$copies/$libraries" "$copies/lib64"
    for at in / /usr/ /usr/lib/ "/$libraries/"; do
        find "$at" -mindepth 1 -maxdepth 1 ! -name usr ! -name lib ! -name lib64 ! -name "$machine" \
            -exec ln -s -t "$copies$at" {} +
    done
    ln -s usr/lib "$copies/lib"
    rm -f "$copies/usr/lib64" && ln -s ../lib64 "$copies/usr/lib64"
    python3 - "/$libraries" "$copies" <<'END' || fail "cannot copy the C library for gdb $version"
import os, struct, sys
SHT_PROGBITS, SHT_RELR = 1, 19
folder, copies = sys.argv[1:]
names = "ld-linux-x86-64.so.2 libc.so.6 libm.so.6 libpthread.so.0 libdl.so.2 librt.so.1"
for name in names.split():
    image = bytearray(open(os.path.join(folder, name), "rb").read())
    (start,) = struct.unpack_from("<Q", image, 40)
    size, count = struct.unpack_from("<HH", image, 58)
    for at in range(start + 4, start + 4 + size * count, size):
        if struct.unpack_from("<I", image, at) == (SHT_RELR,):
            struct.pack_into("<I", image, at, SHT_PROGBITS)
    for path in [folder, "/lib64"] if name.startswith("ld-") else [folder]:
        path = copies + os.path.join(path, name)
        if os.path.lexists(path):
            os.remove(path)
        open(path, "wb").write(image)
END
    cat <<END
set -- -iex "set sysroot $copies" \\
    -iex "set environment LD_PRELOAD /lib/$machine/libc.so.6:/lib/$machine/libpthread.so.0" "\$@"
END
}

# The command, and lldb-dap-19, which talks the Debug Adapter Protocol.
lldb_command() {
    llvm=usr/lib/llvm-${version%%.*}
    command_for "$root/lldb-server" "$llvm/bin/lldb-server" "$llvm/lib" </dev/null
    modules=$(find "$root/$llvm/lib" -path '*-packages/lldb/__init__.py' | head -n 1)
    [ -n "$modules" ] || fail "no Python modules of lldb in $root"
    modules=${modules%/lldb/__init__.py}
    cat >"$all/lines" <<END
export LLDB_DEBUGSERVER_PATH=$root/lldb-server
export PYTHONHOME=$root/usr PYTHONPATH=$modules:$root/usr/lib/python3/dist-packages
END
    # 14 calls it lldb-vscode.
    [ ! -e "$root/$llvm/bin/lldb-dap" ] ||
        command_for "$all/lldb-dap-${version%%.*}" "$llvm/bin/lldb-dap" "$llvm/lib" <"$all/lines"
    cat >>"$all/lines" <<END
# Not for the program that is debugged.
set -- -O "settings set target.unset-env-vars LLDB_DEBUGSERVER_PATH PYTHONHOME PYTHONPATH" "\$@"
END
    command_for "$1" "$llvm/bin/lldb" "$llvm/lib" <"$all/lines"
}

for one in $wanted; do
    case $one in
    */gdb | */gdb-minimal | */gdb-multiarch | bookworm/gdb-17 | */lldb-[0-9]*) ;;
    *) fail "$one is not SUITE/gdb, SUITE/lldb-19 or the like" ;;
    esac
    [ -e "$all/$one/version" ] || unpack "$one"
    root=$all/$one
    version=$(cat "$root/version")
    package=${one#*/}
    case $package in
    lldb-*)
        command=$all/lldb-$version
        lldb_command "$command"
        # The command under the package's name.
        [ "$command" = "$all/$package" ] || ln -sf "${command##*/}" "$all/$package"
        ;;
    gdb-17)
        command=$all/gdb-$version
        gdb_command "$command" gdb
        ;;
    gdb-minimal)
        command=$all/gdb-minimal-$version
        gdb_command "$command" gdb
        ;;
    *)
        command=$all/$package-$version
        gdb_command "$command" "$package"
        ;;
    esac
    "$command" --version >"$all/log" 2>&1 </dev/null || fail "$command does not run:" "$(cat "$all/log")"
    echo "$command"
done
