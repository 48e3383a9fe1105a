# bash, zsh, gawk, Lua, Tcl, SQLite: what they load.
# Packages: bash-builtins zsh gawk lua5.4 lua-lpeg lua-socket lua-filesystem tcl tcl-thread sqlite3
set -eu
[ "$1" = run ] || exit 0
bash -c '
for file in /usr/lib/bash/*; do
    name=$(basename "$file")
    case $name in Makefile* | loadables.h | sleep | tty | getconf | whoami | uname | logname | mypid) continue ;; esac
    enable -f "$file" "$name" 2>/dev/null && echo "$name is a $(type -t "$name")" || echo "$name: not loaded"
done
basename /a/b/c; dirname /a/b/c; seq 1 3; realpath /usr/..; printenv LC_ALL
enable -d basename && /usr/bin/basename /x/y
enable -f /none/none none || echo "no such file"
'
zsh -f -c '
for file in /usr/lib/x86_64-linux-gnu/zsh/*/zsh/**/*.so; do
    name=${${file#*/zsh/*/}%.so}
    [[ $name == zsh/(zftp|newuser|zprof|deltochar) ]] && continue
    zmodload $name 2>/dev/null && echo $name || echo $name: not loaded
done
zmodload -F zsh/mathfunc; zmodload zsh/datetime zsh/stat zsh/regex zsh/pcre
echo $(( sqrt(16) )) ; [[ memory -regex-match "m(.*)y" ]] && echo $match
zmodload -u zsh/mathfunc; zmodload zsh/none 2>/dev/null || echo "no such module"
'
gawk -l filefuncs -l fnmatch -l ordchr -l readfile -l rwarray -l time -l intdiv -l fork -l revoutput 'BEGIN {
    print ord("a"), chr(98), fnmatch("a*", "abc", 0), length(readfile("/etc/hostname")) > 0
    a[1] = 2; a["x"] = 3; print writea("a.bin", a); delete a; print reada("a.bin", a), a["x"]
    print stat("/", s), s["type"]; if ((pid = fork()) == 0) exit 0; print wait() == pid }'
lua5.4 -e '
local lpeg, lfs, socket, mime = require "lpeg", require "lfs", require "socket", require "mime"
print(lpeg.match(lpeg.C(lpeg.R("az")^1), "memory42"), lfs.attributes("/").mode, mime.b64("memory"))
local server = socket.bind("127.0.0.1", 0); print(server ~= nil, pcall(require, "none") == false)
print(pcall(lpeg.match, nil))'
echo 'package require Thread
puts [thread::send [thread::create] {expr 6 * 7}]
puts [catch {load /none/none.so} text]
puts $text' | tclsh
sqlite3 :memory: "select load_extension('/none/none.so');" 2>&1 || echo "not there"
