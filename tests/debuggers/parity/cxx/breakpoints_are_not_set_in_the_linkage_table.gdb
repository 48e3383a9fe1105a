//# source: classes.cc
//# builds: gcc_o0_dwarf5

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
