/* memdl: run a shared library straight from bytes in memory, and debug it as if it had come from
 * disk. The C API (C99, usable from C++; include/memdl.hpp is nicer there).
 *
 *     memdl_options *options = memdl_options_new();
 *     memdl_options_set_name(options, "plugin");
 *     memdl_library *library = memdl_open(bytes, len, options);
 *     memdl_options_free(options);
 *     if (!library) { fprintf(stderr, "%s\n", memdl_error()); return 1; }
 *     int (*foo)(int) = (int (*)(int))memdl_sym(library, "foo");
 *     ...
 *     memdl_close(library);
 *
 * ERRORS. A function fails with a null pointer or -1, and keeps a text that tells why for
 * memdl_error() in the same thread. The texts name functions of the Rust API where they advise:
 * Loader::provide is memdl_options_provide here, and so on. A null handle, or a null string, is
 * such an error too. A failed load leaves the process as it was.
 *
 * OWNERSHIP. What a function ..._new, _open, _prepare or _instantiate returns is the caller's, to
 * be given back once to the function that its comment names. Strings that memdl returns are
 * memdl's; how long they live is said with each. What the caller passes in is copied or no longer
 * needed when the call returns, unless it is said otherwise.
 *
 * THREADS. All functions may be called in any thread. Libraries and templates may be used by many
 * threads at once; only memdl_close and memdl_template_free must be the last use. Options and
 * buffers may not be changed by one thread while another uses them; loading with the same options
 * in several threads is fine.
 *
 * CODE THAT RUNS. Loading runs the library's constructors, and closing its destructors, with the
 * rights of the process: memdl is a loader, not a sandbox. Whoever calls memdl_open or
 * memdl_instantiate vouches for the library as for one that is given to dlopen. memdl holds no lock
 * while they run: they may load, look up and unload.
 *
 * EXCEPTIONS. A C++ exception that a constructor throws passes through memdl_open,
 * memdl_open_buffer and memdl_instantiate to their caller; the library is finalised and unmapped on
 * its way, so what() or the type of such an exception must not lie in the library. The same goes
 * for callbacks of memdl_symbols. Resolvers must not throw; nor may destructors, as everywhere.
 * Nothing may longjmp over a function of memdl. A panic of memdl itself, which is a bug, is an error
 * like others, except while code of the library could run: there it aborts with a message.
 */
#ifndef MEMDL_H
#define MEMDL_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A library that runs from memory. memdl_close ends it. */
typedef struct memdl_library memdl_library;
/* A library that is parsed and bound, for any number of instances. memdl_template_free ends it. */
typedef struct memdl_template memdl_template;

/* Instances of a template that are used again and again. memdl_pool_free ends it. */
typedef struct memdl_pool memdl_pool;
/* Memory made for receiving a library into. memdl_buffer_free or memdl_open_buffer ends it. */
typedef struct memdl_buffer memdl_buffer;
/* How to load. memdl_options_free ends it. */
typedef struct memdl_options memdl_options;

/* ---- Errors ------------------------------------------------------------------------------ */

/* What went wrong in this thread's last call that failed; null if nothing did since the last
 * memdl_error in this thread. As dlerror: reading clears, and a call that succeeds does not.
 * UTF-8. The text lives until this thread's next memdl_error. */
const char *memdl_error(void);

/* ---- Loading ----------------------------------------------------------------------------- */

/* Loads a library from its `len` bytes, which are not needed any more afterwards. Null options are
 * the defaults: as dlopen with RTLD_NOW | RTLD_LOCAL, but needed libraries that are not in the
 * process yet are not opened. Runs constructors.
 * Returns a library to be closed, or null. */
memdl_library *memdl_open(const void *bytes, size_t len, const memdl_options *options);

/* As memdl_open, from a buffer that the library was received into: saves copying where that can
 * be. Takes the buffer, whether it succeeds or fails: do not use or free it afterwards. */
memdl_library *memdl_open_buffer(memdl_buffer *buffer, const memdl_options *options);

/* Unloads the library: runs destructors and gives its memory back. While other libraries depend on
 * it, and while threads have destructors of its thread-local variables to run, it stays until the
 * last of them is gone. The handle, its symbols and strings must not be used any more.
 * 0, or -1 if the handle is null, or the library is sealed: then it stays. */
int memdl_close(memdl_library *library);

/* Parses and binds a library without running any of its code. But with
 * memdl_options_set_system_libraries, the system opens what the library needs, paths included, and
 * runs the constructors of that: the bytes must be trusted. The bytes are copied.
 * Returns a template to be freed, or null. */
memdl_template *memdl_prepare(const void *bytes, size_t len, const memdl_options *options);

/* One more instance, with its own data, thread-local variables and run of constructors.
 * Returns a library to be closed, or null. */
memdl_library *memdl_instantiate(const memdl_template *tmpl);

/* Frees a template; its instances stay. Null is allowed. */
void memdl_template_free(memdl_template *tmpl);

/* ---- Pools ------------------------------------------------------------------------------- */

/* What an instance is reset to when it goes back to its pool. */
typedef enum memdl_reset {
    /* As it was after its constructors, which run once for each instance: the quick way. What they left
     * in thread-local variables is not kept. */
    MEMDL_RESET_AFTER_CONSTRUCTORS = 0,
    /* As it was before them: destructors run when it is closed, constructors when it is acquired. */
    MEMDL_RESET_BEFORE_CONSTRUCTORS = 1
} memdl_reset;

/* A pool of instances of a template, of which up to `capacity` are kept while nobody uses them. The
 * template may be freed before the pool.
 *
 * A reset brings back the image's data, thread-local variables in all threads, pthread keys with
 * destructors, and what was registered by atexit and pthread_atfork. It does not bring back memory that
 * the image has allocated and its destructors do not free, files that it has opened, and what it has
 * changed in the host and in system libraries.
 * Returns a pool to be freed, or null. */
memdl_pool *memdl_pool_new(const memdl_template *tmpl, size_t capacity, memdl_reset reset);

/* An instance that waits, or else a new one. memdl_close resets it and gives it back, instead of
 * unloading it. Then none of its code runs in any thread, and nothing will call it or uses its data. In
 * the thread that closes it objects in its thread-local variables are destroyed. If another library was
 * bound to it, or another thread has such objects, it is unloaded.
 * Returns a library to be closed, or null: also for a library that must never be unloaded. */
memdl_library *memdl_pool_acquire(const memdl_pool *pool);

/* How many instances wait. */
size_t memdl_pool_parked(const memdl_pool *pool);

/* Frees a pool and unloads what waits in it; instances that are in use stay until they are closed. Null
 * is allowed. */
void memdl_pool_free(memdl_pool *pool);

/* ---- Buffers ----------------------------------------------------------------------------- */

/* `len` zero bytes, page aligned.
 * Returns a buffer to be freed or given to memdl_open_buffer, or null. */
memdl_buffer *memdl_buffer_new(size_t len);

/* The buffer's bytes, to be written to; they live as long as the buffer. Null if it is null. */
void *memdl_buffer_data(const memdl_buffer *buffer);

/* How many there are: the `len` of memdl_buffer_new. 0 if it is null. */
size_t memdl_buffer_size(const memdl_buffer *buffer);

/* Frees a buffer that was not given away. Null is allowed. */
void memdl_buffer_free(memdl_buffer *buffer);

/* ---- Symbols ----------------------------------------------------------------------------- */

/* The address of a symbol, as dlsym: in the library, then in what it needs. Of a thread-local
 * symbol the calling thread's address, of an IFUNC the function that its resolver chose. Null if
 * there is none; for a symbol whose value is null, memdl_error is null then, if it was read before.
 * Good until the library is closed; of a thread-local until its thread ends. */
void *memdl_sym(const memdl_library *library, const char *name);

/* As memdl_sym, for a symbol of this version, as dlvsym. */
void *memdl_symv(const memdl_library *library, const char *name, const char *version);

/* What a symbol is: the ELF numbers, STT_*. */
typedef enum memdl_symbol_kind {
    MEMDL_SYMBOL_OTHER = 0,
    MEMDL_SYMBOL_OBJECT = 1,
    MEMDL_SYMBOL_FUNCTION = 2,
    MEMDL_SYMBOL_THREAD_LOCAL = 6,
    MEMDL_SYMBOL_IFUNC = 10
} memdl_symbol_kind;

/* An exported symbol. Only memdl makes these; later versions may append members. */
typedef struct memdl_symbol {
    /* Not demangled. */
    const char *name;
    /* Null if the library does not version its symbols. */
    const char *version;
    /* A memdl_symbol_kind; later versions may add more. */
    int kind;
    /* Whether it is what memdl_sym finds under its name. */
    int is_default_version;
    /* In bytes; 0 if the library does not say. */
    uint64_t size;
    /* At run time; of a thread-local symbol the offset in the library's block, of an IFUNC the
     * address of the resolver. */
    uintptr_t address;
} memdl_symbol;

/* Called with one symbol, which lives, with its strings, until it returns. 0 to go on; anything
 * else, best above 0, ends memdl_symbols, which returns it. */
typedef int (*memdl_symbol_callback)(const memdl_symbol *symbol, void *user);

/* Shows all symbols that the library exports, in the order of its symbol table.
 * 0, or what the callback returned, or -1 for an error. */
int memdl_symbols(const memdl_library *library, memdl_symbol_callback callback, void *user);

/* The exported symbol that `address` lies in: the nearest one at or below it, unless that has a
 * size and ends before it. Null, with an error, if there is none.
 * It lives, with its strings, until this thread's next memdl_symbol_at that finds something. */
const memdl_symbol *memdl_symbol_at(const memdl_library *library, const void *address);

/* A function that an address lies in. */
typedef struct memdl_frame {
    /* What the library is called. Never null. */
    const char *image;
    /* As people write it; null if it is not known. */
    const char *function;
    /* As linkers know it; null if it is not known. */
    const char *linkage_name;
    /* The source file; null if it is not known. */
    const char *file;
    /* From 1 on; 0 if it is not known. */
    uint32_t line;
    uint32_t column;
    /* Not 0 if it is a part of the next frame's function, and none of its own. */
    int is_inlined;
    /* The address, as the library's file states it. */
    uint64_t address;
} memdl_frame;

/* Called with one frame, which lives, with its strings, until it returns. 0 to go on; anything
 * else, best above 0, ends memdl_symbolize, which returns it. */
typedef int (*memdl_frame_callback)(const memdl_frame *frame, void *user);

/* Shows the functions that an address in any library lies in: the innermost inlined one first, last
 * the one that is not inlined. Shows nothing for an address that is in no library of memdl's.
 * 0, or what the callback returned, or -1 for an error.
 * Of a return address, as backtrace(3) gives them, ask for the byte before it.
 * It allocates and takes locks: a signal handler that uses it may never return if the signal has
 * interrupted a thread that holds one of them. */
int memdl_symbolize(const void *address, memdl_frame_callback callback, void *user);

/* ---- About a library --------------------------------------------------------------------- */

/* What errors, debuggers and /proc/self/maps call it. Lives until the library is closed. */
const char *memdl_name(const memdl_library *library);

/* Its DT_SONAME; null, which is no error, if it has none. Lives until the library is closed. */
const char *memdl_soname(const memdl_library *library);

/* Run-time address minus the address that the file states. */
uintptr_t memdl_load_bias(const memdl_library *library);

/* 1 if it was made immutable (memdl_options_set_seal), 0 if not, -1 if the library is null. */
int memdl_is_sealed(const memdl_library *library);

/* From the first byte of its memory to the one behind its last. Either pointer may be null.
 * 0, or -1 if the library is null. */
int memdl_address_range(const memdl_library *library, uintptr_t *start, uintptr_t *end);

/* ---- Memory that is kept -------------------------------------------------------------------- */

/* Gives the system the memory that is kept for images to come, up to 64 MiB: it makes the next load of
 * the same image quick. */
void memdl_release_memory(void);

/* Whether memory that is kept is wiped first: not with 0, which is the default. No image ever finds what
 * another has left; but unless it is wiped it is in the process's memory, and in a core file, until the
 * memory is used again. Other values than 0 give back what is kept at the moment. Wiping costs a small
 * image some 5 % of load and unload; pieces of 256 KiB and more are given back instead of being kept.
 * The environment variable MEMDL_WIPE=off|on overrides what the program says. */
void memdl_wipe_kept_memory(int wipe);

/* ---- What debuggers are told --------------------------------------------------------------- */

/* How much they are told. The environment variable MEMDL_DEBUG=off|symbols|full|portable
 * overrides what the program says. */
typedef enum memdl_debug {
    MEMDL_DEBUG_OFF = 0,
    /* Names of functions and variables, and how to walk the stack; more can be told later. */
    MEMDL_DEBUG_SYMBOLS = 1,
    /* Lines, types, variables as well, for gdb. The default. */
    MEMDL_DEBUG_FULL = 2,
    /* The same for lldb too. */
    MEMDL_DEBUG_PORTABLE = 3
} memdl_debug;
/* Tells debuggers this much of a library from now on: so that a fleet can run with
 * MEMDL_DEBUG_SYMBOLS and be told of in full when somebody looks.
 * 0, or -1 for an error: a library that was loaded with MEMDL_DEBUG_OFF has no more to tell than
 * MEMDL_DEBUG_SYMBOLS. */
int memdl_set_debug(const memdl_library *library, memdl_debug debug);

/* Gives a stripped library the debug information that was split off it, after the load: as
 * memdl_options_set_debug_info, but known by the build-id only, and no package of split DWARF. Debuggers
 * are told as much as before, from it. A library that was not stripped is its own debug information, if it
 * was loaded with MEMDL_DEBUG_OFF. The bytes are copied.
 * 0, or -1 for an error: they are not this library's. */
int memdl_set_debug_info(const memdl_library *library, const void *bytes, size_t len);

/* Whoever is at the prompt of a debugger can do it too, for all libraries at once:
 * `print memdl_debug_full()`, `print memdl_debug_file("/tmp/libfoo.debug")`, in lldb
 * `expression memdl_debug_portable()`; see README.md. */

/* ---- Options ----------------------------------------------------------------------------- */

/* The defaults.
 * Returns options to be freed, or null. They serve any number of loads. */
memdl_options *memdl_options_new(void);

/* Frees options; what was loaded with them stays. Null is allowed. */
void memdl_options_free(memdl_options *options);

/* The functions below return 0, or -1 for an error, and change nothing then. Strings and bytes are
 * copied; names are UTF-8. */

/* What errors, debuggers and /proc/self/maps call the library. Default: its DT_SONAME. */
int memdl_options_set_name(memdl_options *options, const char *name);

/* Defines a symbol as the host would, for what its dynamic symbol table does not export. Comes
 * before a symbol of that name that it does export. The address must stay good for as long as any
 * library that was loaded with it. */
int memdl_options_define(memdl_options *options, const char *name, const void *address);

/* What a resolver is asked for. Lives, with its strings, until the resolver returns. */
typedef struct memdl_request {
    const char *name;
    /* Null if the library asks for none. */
    const char *version;
    /* The name of the library that asks. */
    const char *requested_by;
    /* Whether it does without; the symbol is null then. */
    int is_weak;
} memdl_request;

/* The address of the symbol, good for as long as the library; or null, if it has none either. */
typedef const void *(*memdl_resolver)(const memdl_request *request, void *user);

/* Asks `resolver` for every symbol that nothing else defines. A null resolver takes it back. It is
 * called only during loads and memdl_prepare with these options, in the thread that does so;
 * `user`, which is passed on, must be good then, in several threads if several load. It must not
 * throw. */
int memdl_options_set_resolver(memdl_options *options, memdl_resolver resolver, void *user);

/* Satisfies a need (DT_NEEDED) for this library, by its DT_SONAME or its name. It joins the scope
 * only if something needs it. It is kept loaded by the options until they are freed, and by what
 * needs it. */
int memdl_options_depends_on(memdl_options *options, const memdl_library *library);

/* Bytes to load when something needs a library of this name: at most once per load. */
int memdl_options_provide(memdl_options *options, const char *name, const void *bytes, size_t len);

/* Whether libraries loaded later see the exports, as with RTLD_GLOBAL. Default 0. */
int memdl_options_set_global(memdl_options *options, int global);

/* Whether libraries that are needed but not in the process may be opened with the system's dlopen.
 * Default 0. */
int memdl_options_set_system_libraries(memdl_options *options, int allowed);

/* Where references are searched first. */
typedef enum memdl_scope {
    /* The host's definitions come before the library's own, as with dlopen. The default. */
    MEMDL_SCOPE_HOST_FIRST = 0,
    /* The library and what it needs come first, as with RTLD_DEEPBIND. */
    MEMDL_SCOPE_SELF_FIRST = 1
} memdl_scope;
int memdl_options_set_scope(memdl_options *options, memdl_scope scope);

/* When calls between libraries are bound. */
typedef enum memdl_binding {
    /* At load: a function that is missing is an error. The default. */
    MEMDL_BINDING_NOW = 0,
    /* At the first call, as RTLD_LAZY. */
    MEMDL_BINDING_LAZY = 1
} memdl_binding;
int memdl_options_set_binding(memdl_options *options, memdl_binding binding);

/* An image that is about to be loaded. Lives until the verifier returns. */
typedef struct memdl_image {
    /* What it is called so far; no word of its bytes. */
    const char *name;
    const void *bytes;
    size_t len;
} memdl_image;

/* 0 to have it loaded. Anything else refuses it; `*reason` may be set to a string for the error then,
 * which must be good until the verifier is called again in this thread. */
typedef int (*memdl_verifier)(const memdl_image *image, const char **reason, void *user);

/* Shows `verifier` the bytes of every image before anything else looks at them: of the library, of those
 * from memdl_options_provide that are needed, of needed libraries that memdl reads from files, and of
 * what these open from inside by dlopen and a path, where a refusal is a null pointer and a text for
 * dlerror. Not of what the system opens by a name. It may be shown the same bytes again. A null verifier
 * takes it back.
 * It is called in the threads that load; `user`, which is passed on, must be good for as long as the
 * options, what was prepared, and any library that was loaded with them. `free_user`, if it is not null, is
 * called with it then, and also if this fails. Neither may throw. */
int memdl_options_set_verifier(memdl_options *options, memdl_verifier verifier, void *user,
                               void (*free_user)(void *user));

/* Restricts which symbols of the host the images may bind to, by their relocations and by dlsym: to
 * these names, or to all but these. A symbol that may not be used is as if the host did not have it;
 * where nothing else defines it, the load fails, and the error lists all of them. Of what memdl puts in
 * the place of functions of the C library the same names hold. What memdl_options_define, a resolver and
 * other libraries in memory define is not restricted. This is no sandbox. */
int memdl_options_allow_imports(memdl_options *options, const char *const *names, size_t count);
int memdl_options_deny_imports(memdl_options *options, const char *const *names, size_t count);

/* Not 0 if the symbol of the host may be used. */
typedef int (*memdl_import_filter)(const memdl_request *request, void *user);

/* The same by a function; it is asked for symbols that the host has. A null filter allows all. `user` and
 * `free_user` as for memdl_options_set_verifier. */
int memdl_options_filter_imports(memdl_options *options, memdl_import_filter filter, void *user,
                                 void (*free_user)(void *user));

/* Whether images are made immutable once they are in place (mseal): nobody can change, unmap or replace
 * their code and read-only data, but who can write to /proc/PID/mem, as debuggers do; the process itself
 * can, unless that is denied it. Of writable data the contents can be written, no more. A sealed library
 * stays for the life of the process; there are no pools of it. Default 0. A load fails where the system has
 * no mseal, which needs Linux 6.10. */
int memdl_options_set_seal(memdl_options *options, int seal);

/* What debuggers are told from the start. */
int memdl_options_set_debug(memdl_options *options, memdl_debug debug);

/* The debug information of a stripped library: the bytes of the file that was split off it. Debuggers
 * see it as if it were inside. A load fails if it is not the library's, by the build-id of both. Or, of a
 * library with split DWARF, the bytes of its package (.dwp). */
int memdl_options_set_debug_info(memdl_options *options, const void *bytes, size_t len);

/* What profilers are told. The environment variable MEMDL_PERF=off|map|live-map|jitdump overrides
 * it. */
typedef enum memdl_profile {
    /* Nothing. The default. */
    MEMDL_PROFILE_OFF = 0,
    /* Names of functions, in /tmp/perf-PID.map, which stays. */
    MEMDL_PROFILE_PERF_MAP = 1,
    /* The same, but the names go with the library, and the file with the process. */
    MEMDL_PROFILE_LIVE_PERF_MAP = 2,
    /* Functions with code and lines, in jit-PID.dump in a new folder in $JITDUMPDIR/.debug/jit, or
     * else $HOME/.debug/jit, or else .debug/jit; it stays. For perf inject --jit. */
    MEMDL_PROFILE_JITDUMP = 3
} memdl_profile;
int memdl_options_set_profile(memdl_options *options, memdl_profile profile);

/* How much a library may ask for before it is refused. */
typedef enum memdl_limit {
    /* Received bytes of one library. Default 4 GiB. */
    MEMDL_LIMIT_IMAGE_BYTES = 0,
    /* Its address space, in bytes. Default 16 GiB. */
    MEMDL_LIMIT_IMAGE_SPAN = 1,
    /* The largest alignment of a segment, in bytes. Default 1 GiB. */
    MEMDL_LIMIT_ALIGNMENT = 2,
    /* One thread's block of its thread-local variables, in bytes. Default 1 GiB. */
    MEMDL_LIMIT_TLS_BLOCK = 3,
    /* Entries in its relocation tables. Default 64 million. */
    MEMDL_LIMIT_RELOCATIONS = 4,
    /* Libraries in one load: it, and what is loaded for it from memdl_options_provide. Default
     * 1,024. */
    MEMDL_LIMIT_IMAGES = 5,
    /* Live instances of one library that debuggers are told all of; names only of those that are
     * loaded beyond it while a debugger is attached, which is no error. Default 64. */
    MEMDL_LIMIT_INSTANCES_IN_FULL = 6,
    /* What its compressed debug sections may have unpacked, in bytes; small files get no more than
     * 16 times their size and 16 MiB. Names only beyond it, and a warning. Default 1 GiB. */
    MEMDL_LIMIT_UNPACKED_DEBUG_INFO = 7,
    /* Steps that it may take to read its debug information; small files get no more than 8 for each
     * byte and 16 million. Names only beyond it, and a warning. Default 1 billion. */
    MEMDL_LIMIT_DEBUG_INFO_STEPS = 8
} memdl_limit;
int memdl_options_set_limit(memdl_options *options, memdl_limit limit, uint64_t value);

#ifdef __cplusplus
}
#endif

#endif
