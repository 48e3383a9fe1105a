/* memdl runs a shared library straight from bytes in memory, and lets you debug it as if it had come
 * from disk. This is the C API: C99, also usable from C++, where include/memdl.hpp is more convenient.
 *
 *     memdl_options *options = memdl_options_new();
 *     memdl_options_set_name(options, "plugin");
 *     memdl_library *library = memdl_open(bytes, len, options);
 *     memdl_options_free(options);
 *     if (!library) { fprintf(stderr, "%s\n", memdl_error()); return 1; }
 *     int (*foo)(int) = (int (*)(int))memdl_sym_function(library, "foo");
 *     ...
 *     memdl_close(library);
 *
 * ERRORS. A function that fails returns a null pointer or -1. memdl_error(), called in the same
 * thread, returns the reason as a text, memdl_error_code() its kind, and memdl_error_missing() what the library
 * lacks. A null handle or a null string is an error, too. A failed load leaves the process as it was.
 *
 * OWNERSHIP. The caller owns what a function ..._new, _open, _prepare, _instantiate or _acquire
 * returns, and ends it once, with the function that the type's comment names. memdl owns the strings
 * that it returns; each comment says how long they live. Arguments are copied, or not used after the
 * call returns, unless the comment says otherwise.
 *
 * THREADS. All functions may be called in any thread. Several threads may use a library, a template or
 * a pool at the same time; the call that ends it must be the last use. While one thread changes
 * options or a buffer, no other thread may use them. Several threads may load with the same options.
 *
 * CODE THAT RUNS. A load runs the library's constructors, and closing it runs its destructors, with
 * the rights of the process: memdl is a loader, not a sandbox. The caller vouches for the library, as
 * for one that is passed to dlopen. memdl holds no lock while they run: they may load, look up and
 * unload libraries.
 *
 * EXCEPTIONS. A C++ exception of a constructor passes through memdl_open, memdl_open_buffer,
 * memdl_instantiate and memdl_pool_acquire to their caller. On its way the library is finalised and
 * unmapped, so neither the type of the exception nor its what() may lie in the library. Exceptions of
 * the callbacks of memdl_symbols, memdl_functions, memdl_symbolize, memdl_images and memdl_error_missing pass, too. Other callbacks and
 * destructors must not throw. No longjmp may cross a function of memdl. A panic of memdl, which is a bug, is an error
 * like others; but while code of the library may run, it aborts the process with a message.
 */
#ifndef MEMDL_H
#define MEMDL_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Libraries that find each other, by DT_SONAME, by name and by file, when something needs or opens a library.
 * So what several loads need exists once. It keeps no library loaded. memdl_namespace_free ends it. */
typedef struct memdl_namespace memdl_namespace;

/* A library that runs from memory. memdl_close ends it. */
typedef struct memdl_library memdl_library;
/* A library that is parsed and bound, for any number of instances. memdl_template_free ends it. */
typedef struct memdl_template memdl_template;

/* Instances of a template that are reset and used again. memdl_pool_free ends it. */
typedef struct memdl_pool memdl_pool;
/* Memory to receive a library into. memdl_buffer_free, memdl_open_buffer or memdl_prepare_buffer
 * ends it. */
typedef struct memdl_buffer memdl_buffer;
/* Load options. memdl_options_free ends them. */
typedef struct memdl_options memdl_options;
/* What is known of a library before it is loaded. memdl_report_free ends it. */
typedef struct memdl_report memdl_report;

/* ---- Version ----------------------------------------------------------------------------- */

/* The version of this header. Within 0.x a new minor version may change the interface; a new patch version only adds
 * to it. */
#define MEMDL_VERSION_MAJOR 0
#define MEMDL_VERSION_MINOR 1
#define MEMDL_VERSION_PATCH 0
/* As one number: 1002003 is 1.2.3. */
#define MEMDL_VERSION (MEMDL_VERSION_MAJOR * 1000000 + MEMDL_VERSION_MINOR * 1000 + MEMDL_VERSION_PATCH)

/* MEMDL_VERSION of the library that runs, which may be later than the header's. */
unsigned memdl_version(void);

/* The same as a text: "0.1.0". It lives as long as the process. */
const char *memdl_version_text(void);

/* ---- Errors ------------------------------------------------------------------------------ */

/* The reason why the last call of this thread that failed did so, in UTF-8. Null if none has failed since
 * this thread's last memdl_error. As with dlerror, reading clears the error, and a call that succeeds
 * does not. The text lives until this thread's next memdl_error. */
const char *memdl_error(void);

/* Why a call failed. Later versions may add more. */
typedef enum memdl_error_kind {
    /* No call has failed in this thread. */
    MEMDL_ERROR_NONE = 0,
    /* The bytes are not a well-formed shared library. */
    MEMDL_ERROR_MALFORMED = 1,
    /* memdl does not support something in it: another machine, for example. */
    MEMDL_ERROR_UNSUPPORTED = 2,
    /* It needs a level of the instruction set that this processor does not have. */
    MEMDL_ERROR_PROCESSOR = 3,
    /* Libraries, versions or symbols that it needs are not there: memdl_error_missing() lists them. */
    MEMDL_ERROR_MISSING = 4,
    /* The verifier refuses it. */
    MEMDL_ERROR_REFUSED = 5,
    /* The import filter refuses symbols: memdl_error_missing() lists them. */
    MEMDL_ERROR_REFUSED_IMPORTS = 6,
    /* A lookup by name found nothing. */
    MEMDL_ERROR_SYMBOL_NOT_FOUND = 7,
    /* The system refused an operation. */
    MEMDL_ERROR_SYSTEM = 8,
    MEMDL_ERROR_OUT_OF_MEMORY = 9,
    /* The debug information belongs to another library. */
    MEMDL_ERROR_DEBUG_INFO = 10,
    /* It exceeds a limit of memdl_options_set_limit. */
    MEMDL_ERROR_LIMIT = 11,
    /* An argument is wrong: a null handle, a name that is not UTF-8, a number that does not exist. */
    MEMDL_ERROR_ARGUMENT = 12,
    /* A fault of memdl: please report it. */
    MEMDL_ERROR_PANIC = 13
} memdl_error_kind;

/* The memdl_error_kind of the last call of this thread that failed. It stays when memdl_error() is called, and when
 * calls succeed. */
int memdl_error_code(void);

/* What something that is missing is. Later versions may add more. */
typedef enum memdl_missing_kind {
    /* A library that is needed. */
    MEMDL_MISSING_LIBRARY = 0,
    /* A version that a library should define. */
    MEMDL_MISSING_VERSION = 1,
    /* A symbol. */
    MEMDL_MISSING_SYMBOL = 2,
    /* A symbol of the host that the import filter refuses. */
    MEMDL_MISSING_REFUSED_IMPORT = 3
} memdl_missing_kind;

/* Something that is missing. Only memdl makes these. Later versions may append members. */
typedef struct memdl_missing {
    /* A memdl_missing_kind. */
    int kind;
    /* Of the library, or of the symbol, not demangled. */
    const char *name;
    /* The version that is missing, or with which the symbol is asked for. Null if there is none. */
    const char *version;
    /* The name of the library that needs it. */
    const char *needed_by;
    /* The system's reason for not opening a library; else null. */
    const char *reason;
} memdl_missing;

/* Called with something that is missing, which lives, with its strings, until the callback returns. Return 0 to
 * continue. Any other value ends memdl_error_missing, which returns it; use a positive one, since -1 is an error. */
typedef int (*memdl_missing_callback)(const memdl_missing *missing, void *user);

/* Calls `callback` with all that the last call of this thread that failed found missing: libraries, then versions,
 * then symbols. Makes no call if that call failed for another reason. The callback may call memdl.
 * Returns 0, or the value with which the callback ended it, or -1 for an error, which then is the last one. */
int memdl_error_missing(memdl_missing_callback callback, void *user);

/* ---- Loading ----------------------------------------------------------------------------- */

/* Loads a library from its `len` bytes, and runs its constructors. The bytes need not outlive the call.
 * Null options are the defaults: as dlopen with RTLD_NOW | RTLD_LOCAL.
 * Returns a library, or null. */
memdl_library *memdl_open(const void *bytes, size_t len, const memdl_options *options);

/* As memdl_open, from a buffer that the library was received into: most of the bytes are not copied.
 * Takes the buffer, even if it fails: do not use or free it afterwards. */
memdl_library *memdl_open_buffer(memdl_buffer *buffer, const memdl_options *options);

/* Unloads the library: runs its destructors and frees its memory. It stays loaded while other libraries
 * depend on it, or while threads have destructors of its thread-local objects to run (C++'s thread_local;
 * a Rust library has such objects in each thread that spawned a thread there). The last of these unloads
 * it. The handle, its symbols and strings must not be used any more, whatever the call returns.
 * Returns 0 if the library is gone, or an instance is back in its pool; 1 if it stays loaded:
 * memdl_last_kept() returns what keeps it; -1 if the handle is null, or the library is sealed, so that it
 * stays loaded.
 *
 * A host that reloads a library in threads that live on uses the next two functions:
 *
 *     in each worker: memdl_leave_thread(library);
 *     then:           if (memdl_close_with_thread_locals(library) == 1)
 *                         fprintf(stderr, "%s\n", memdl_last_kept()->text); */
int memdl_close(memdl_library *library);

/* As memdl_leave_thread, then memdl_close. Returns what memdl_close returns; or -1 if
 * memdl_leave_thread fails, and closes the library all the same. */
int memdl_close_with_thread_locals(memdl_library *library);

/* Does for the library, for what was loaded with it, and for what it opened by dlopen, what happens when
 * the calling thread ends: runs the destructors of the thread's thread-local objects, then those of its
 * values of pthread keys, and frees its thread-local variables. If the thread calls the library again, it
 * finds initial values. None of the library's code may be running in this thread: do not call it from a
 * callback of the library. Nothing, in any thread, may use this thread's thread-local variables of the
 * library any more, or what these destructors free.
 * Returns 0, or -1. */
int memdl_leave_thread(const memdl_library *library);

/* What kept a library loaded when it was closed. Later versions may add fields at the end. */
typedef struct memdl_kept {
    /* All of it, as a text in UTF-8. */
    const char *text;
    /* The number of threads that have destructors of its thread-local objects to run. */
    size_t threads;
    /* Whether the thread that closed it is one of them. */
    int this_thread;
    /* Whether an image has opened it by dlopen, and not closed it. */
    int is_open;
    /* Whether it is never unloaded (DF_1_NODELETE). */
    int never_unloaded;
    /* The number of libraries that are bound to it, or that it opened. */
    size_t libraries;
    /* The number of options, templates and lookups that hold it. */
    size_t others;
} memdl_kept;

/* Returns what kept the library for which a close last returned 1 in this thread; or null if none did. It
 * is valid until the next close in this thread, or the thread's end. */
const memdl_kept *memdl_last_kept(void);

/* Parses and binds a library. Runs none of its code. But the system opens the libraries that it needs, paths
 * included, and runs their constructors, unless memdl_options_set_system_libraries forbids that: the bytes
 * must be trusted. The bytes are copied.
 * Returns a template, or null. */
memdl_template *memdl_prepare(const void *bytes, size_t len, const memdl_options *options);

/* As memdl_prepare, from a buffer that the library was received into. The template keeps it: no byte is copied.
 * Takes the buffer, even if it fails: do not use or free it afterwards. */
memdl_template *memdl_prepare_buffer(memdl_buffer *buffer, const memdl_options *options);

/* Makes one more instance, with its own data and thread-local variables, and runs its constructors.
 * Returns a library, or null. */
memdl_library *memdl_instantiate(const memdl_template *tmpl);

/* The number of a template, which no other template of the process has or had: the `template_id` of its
 * instances in memdl_images. 0 for a null template. */
uint64_t memdl_template_id(const memdl_template *tmpl);

/* Frees a template. Its instances stay. Null is allowed. */
void memdl_template_free(memdl_template *tmpl);

/* ---- Pools ------------------------------------------------------------------------------- */

/* The state to which an instance is reset when it returns to its pool. */
typedef enum memdl_reset {
    /* The state after the constructors, which run once for each instance: the fast way. Values that they
     * left in thread-local variables are lost. */
    MEMDL_RESET_AFTER_CONSTRUCTORS = 0,
    /* The state before the constructors: destructors run when the instance is closed, constructors when
     * it is acquired. */
    MEMDL_RESET_BEFORE_CONSTRUCTORS = 1
} memdl_reset;

/* Makes a pool of instances of a template, which keeps up to `capacity` idle instances. The template may
 * be freed before the pool.
 *
 * A reset restores the image's data, its thread-local variables in all threads, its pthread keys with
 * destructors, and the functions that it registered by atexit and pthread_atfork. A reset does not free
 * memory that the image's destructors do not free, close files that the image opened, or undo its
 * changes to the host and to system libraries.
 * Returns a pool, or null. */
memdl_pool *memdl_pool_new(const memdl_template *tmpl, size_t capacity, memdl_reset reset);

/* Returns an idle instance, or else a new one. memdl_close resets it and returns it to the pool. When you
 * close it, none of its code may run in any thread, nothing may call it later, and nothing may use its
 * data. memdl_close destroys its thread-local objects of the calling thread. It unloads the instance if the
 * pool is full, if another library is bound to it, or if another thread still has thread-local objects
 * of it (memdl_leave_thread).
 * Returns a library, or null; null, too, for a library that must never be unloaded. */
memdl_library *memdl_pool_acquire(const memdl_pool *pool);

/* The number of idle instances. 0 for a null pool. */
size_t memdl_pool_parked(const memdl_pool *pool);

/* Frees a pool and unloads its idle instances. Instances that are in use stay until they are closed. Null is
 * allowed. */
void memdl_pool_free(memdl_pool *pool);

/* ---- Buffers ----------------------------------------------------------------------------- */

/* Makes a buffer of `len` zero bytes, page-aligned.
 * If a network card writes into it (an RDMA memory region, or a registered buffer of io_uring), deregister
 * that before memdl_open_buffer: the library runs in this memory, so a late write would change its code, and
 * the load moves some of the bytes. Marks that hide the memory from children of fork (MADV_DONTFORK) are
 * removed by memdl_open_buffer: a child can run the library.
 * Returns a buffer, or null. */
memdl_buffer *memdl_buffer_new(size_t len);

/* The buffer's bytes, which you may write. They live as long as the buffer. Null for a null buffer. */
void *memdl_buffer_data(const memdl_buffer *buffer);

/* The buffer's size: the `len` of memdl_buffer_new. 0 for a null buffer. */
size_t memdl_buffer_size(const memdl_buffer *buffer);

/* Makes the buffer `len` bytes long: for a library whose length is not known before it was received, or which comes
 * with other bytes behind it. Added bytes are zero. If the buffer grows, its bytes may move: ask memdl_buffer_data
 * again. Returns 0; or -1 for an error, and changes nothing then. */
int memdl_buffer_resize(memdl_buffer *buffer, size_t len);

/* Frees a buffer that nothing has taken: memdl_open_buffer, memdl_prepare_buffer, or a provider's answer. Null is
 * allowed. */
void memdl_buffer_free(memdl_buffer *buffer);

/* ---- Symbols ----------------------------------------------------------------------------- */

/* Looks a symbol up as dlsym does: in the library, then in the libraries that it needs. For a thread-local
 * symbol this is the calling thread's address; for an IFUNC, the function that its resolver chose.
 * Returns null, with an error, if there is no such symbol, or if it lies at address 0. The address is
 * valid until the library is closed; that of a thread-local variable, until its thread ends. */
void *memdl_sym(const memdl_library *library, const char *name);

/* Any function: cast it to its type before it is called. */
typedef void (*memdl_function)(void);

/* As memdl_sym, for a function: C permits no cast from an object pointer to a function pointer, which compilers say
 * with -Wpedantic. */
memdl_function memdl_sym_function(const memdl_library *library, const char *name);

/* As memdl_sym, for a symbol of this version, like dlvsym. */
void *memdl_symv(const memdl_library *library, const char *name, const char *version);

/* The type of a symbol: the ELF numbers STT_*. */
typedef enum memdl_symbol_kind {
    MEMDL_SYMBOL_OTHER = 0,
    MEMDL_SYMBOL_OBJECT = 1,
    MEMDL_SYMBOL_FUNCTION = 2,
    MEMDL_SYMBOL_THREAD_LOCAL = 6,
    MEMDL_SYMBOL_IFUNC = 10
} memdl_symbol_kind;

/* An exported symbol. Only memdl makes these. Later versions may append members. */
typedef struct memdl_symbol {
    /* Not demangled. */
    const char *name;
    /* Null if the library does not version its symbols. */
    const char *version;
    /* A memdl_symbol_kind. Later versions may add more. */
    int kind;
    /* Not 0 if memdl_sym finds this version under its name. */
    int is_default_version;
    /* In bytes; 0 if the library does not state it. */
    uint64_t size;
    /* The run-time address; of a thread-local symbol, the offset in the library's block; of an IFUNC,
     * the address of the resolver. */
    uintptr_t address;
} memdl_symbol;

/* Called with one symbol, which lives, with its strings, until the callback returns. Return 0 to continue.
 * Any other value ends memdl_symbols, which returns it; use a positive one, since -1 is an error. */
typedef int (*memdl_symbol_callback)(const memdl_symbol *symbol, void *user);

/* Calls `callback` with all symbols that the library exports, in the order of its symbol table.
 * Returns 0, or the value with which the callback ended it, or -1 for an error. */
int memdl_symbols(const memdl_library *library, memdl_symbol_callback callback, void *user);

/* A function symbol (STT_FUNC), defined or not. */
typedef struct memdl_function_symbol {
    /* Its index in the dynamic symbol table. */
    uint32_t index;
    /* Not demangled. */
    const char *name;
    /* st_value, relative to the load bias; 0 if it is not defined. */
    uint64_t value;
    /* Not 0 if the library defines it. Else it imports it. */
    int is_defined;
} memdl_function_symbol;

/* Called with one function symbol, as memdl_symbol_callback. */
typedef int (*memdl_function_callback)(const memdl_function_symbol *function, void *user);

/* Calls `callback` with all symbols of type STT_FUNC in the order of the dynamic symbol table, imported ones included:
 * protocols that call functions by number count them so. memdl_report_function lists them before the load, and
 * memdl_sym finds the functions, imported ones too, by these names.
 * Returns 0, or the value with which the callback ended it, or -1 for an error. */
int memdl_functions(const memdl_library *library, memdl_function_callback callback, void *user);

/* The exported symbol that `address` lies in, as dladdr reports it. A symbol without a size is found only at
 * its exact address. Null, with an error, if there is none.
 * The symbol lives, with its strings, until this thread's next memdl_symbol_at or memdl_symbol_named that finds one. */
const memdl_symbol *memdl_symbol_at(const memdl_library *library, const void *address);

/* The exported symbol of this name: what memdl_sym finds if the library itself has it, and not another that it needs.
 * Runs no code. Null, with an error, if there is none. The symbol lives as that of memdl_symbol_at. */
const memdl_symbol *memdl_symbol_named(const memdl_library *library, const char *name);

/* A function that an address lies in. */
typedef struct memdl_frame {
    /* The library's name. Never null. */
    const char *image;
    /* The demangled name; null if it is unknown. */
    const char *function;
    /* The linkage name; null if it is unknown. */
    const char *linkage_name;
    /* The source file; null if it is unknown. */
    const char *file;
    /* Line and column count from 1; 0 if they are unknown. */
    uint32_t line;
    uint32_t column;
    /* Not 0 if the function was inlined into the function of the next frame. */
    int is_inlined;
    /* The address relative to the load bias: the one that addr2line and objdump take. */
    uint64_t address;
} memdl_frame;

/* Called with one frame, which lives, with its strings, until the callback returns. Return 0 to continue. Any
 * other value ends memdl_symbolize, which returns it; use a positive one, since -1 is an error. */
typedef int (*memdl_frame_callback)(const memdl_frame *frame, void *user);

/* Calls `callback` with the functions that an address lies in: the innermost inlined one first, the one that is
 * not inlined last. Makes no call for an address outside all libraries that memdl has loaded.
 * Returns 0, or the value with which the callback ended it, or -1 for an error.
 * For a return address, as backtrace(3) returns them, pass the address of the byte before.
 * This allocates and takes locks: called in a signal handler, it never returns if the signal interrupted
 * a thread that holds one of them. */
int memdl_symbolize(const void *address, memdl_frame_callback callback, void *user);

/* ---- Before a load ----------------------------------------------------------------------- */

/* Says what a load of these bytes with these options would come to, and all that the file says of itself, without a
 * load: runs no code of the bytes and none of any library, and opens no library. Libraries that a load would let the
 * system open are read from their files. Callbacks of the options are called, as by a load. The bytes need not
 * outlive the call.
 * A file that is malformed, or for another machine, has a report, too, with what can be read. What one for another machine
 * needs is looked for among what the options supply (memdl_options_provide, memdl_options_define, ..) and nowhere else.
 * What a load may meet nevertheless is in the documentation of the Rust function `inspect`: constructors, lack of
 * memory, and little else.
 * Returns a report; or null without memory for it, or for null bytes. What the functions below return lives as long
 * as the report. Names come from the bytes: escape them before they go to a terminal. Lists end with null, behind
 * their last element. */
memdl_report *memdl_inspect(const void *bytes, size_t len, const memdl_options *options);

/* Frees a report. Null is allowed. */
void memdl_report_free(memdl_report *report);

/* All reasons for which a load would be refused, in the order in which a load would meet them. Null behind the last;
 * null at 0 if it would succeed. The texts are escaped. */
const char *memdl_report_refusal(const memdl_report *report, size_t index);
/* Of these, the reasons that do not come from the machine of this process: all, unless the library is for another machine.
 * A process of that machine would refuse it for them, as far as that can be known here. */
const char *memdl_report_refusal_on_its_machine(const memdl_report *report, size_t index);
/* Whether there is a reason for a refusal: 1, 0, or -1 for a null report. */
int memdl_report_is_refused(const memdl_report *report);
/* Whether all that could be read is in the report: not so for symbol tables that were made to be slow. 1, 0, or -1. */
int memdl_report_is_complete(const memdl_report *report);
/* All of it, in several lines, escaped. */
const char *memdl_report_text(const memdl_report *report);

/* The name of the image in errors: that of the options, or its DT_SONAME, or "image". */
const char *memdl_report_name(const memdl_report *report);
/* The machine that it is for: "x86-64". Null for what is no ELF file, and for a machine without a name here. */
const char *memdl_report_machine(const memdl_report *report);
/* Whether it is for the machine of this process: 1, 0, or -1. */
int memdl_report_is_for_this_machine(const memdl_report *report);
/* DT_SONAME, or null. */
const char *memdl_report_soname(const memdl_report *report);
/* The build-id, and its length in bytes in `*len` unless that is null. Null, and 0, if there is none. */
const unsigned char *memdl_report_build_id(const memdl_report *report, size_t *len);
/* The levels of the instruction set that it needs: "x86-64-v3". */
const char *memdl_report_isa_level(const memdl_report *report, size_t index);
/* The kinds of debug information in the file: "DWARF", "a symbol table", .. */
const char *memdl_report_debug_information(const memdl_report *report, size_t index);
/* Whether memdl_close unloads it: 1, 0 (-z nodelete, or it is to be sealed), or -1. */
int memdl_report_unloads(const memdl_report *report);
/* Whether it exports unique symbols (STB_GNU_UNIQUE), for which dlopen would keep it loaded: 1, 0, or -1. */
int memdl_report_has_unique_symbols(const memdl_report *report);
/* Whether it has thread-local variables: 1, 0, or -1. If so: the size and the alignment of a thread's block, in bytes,
 * and whether the block must lie at the same distance from the thread pointer in every thread (initial exec). Each
 * pointer may be null. */
int memdl_report_thread_local_storage(const memdl_report *report, uint64_t *size, uint64_t *align,
                                      int *is_static);

/* Where a needed library comes from here, and what `detail` is then. */
typedef enum memdl_origin {
    /* It is loaded in this process. The path. */
    MEMDL_ORIGIN_IN_PROCESS = 0,
    /* The system would open it. The path. */
    MEMDL_ORIGIN_FILE = 1,
    /* memdl would read it and load it with the image. The path. */
    MEMDL_ORIGIN_COPY = 2,
    /* The options supply its bytes. The name. */
    MEMDL_ORIGIN_BYTES = 3,
    /* memdl has loaded it. The image's name. */
    MEMDL_ORIGIN_IMAGE = 4,
    /* It was not searched: the image is for another machine, and the options do not supply it. Null. */
    MEMDL_ORIGIN_UNKNOWN = 5,
    /* It is not there, and not required. Null. */
    MEMDL_ORIGIN_ABSENT = 6,
    /* It is missing. The reason. */
    MEMDL_ORIGIN_MISSING = 7
} memdl_origin;

/* A needed library. Only memdl makes these. Later versions may append members. */
typedef struct memdl_needed {
    const char *name;
    /* The name of the image, or the path of the library, that needs it. */
    const char *needed_by;
    /* Whether the image itself needs it. */
    int is_direct;
    /* A memdl_origin. */
    int origin;
    const char *detail;
} memdl_needed;

/* The libraries that the image needs, in order; then those that they need and that are not in the process. */
const memdl_needed *memdl_report_needed(const memdl_report *report, size_t index);

/* A version that a needed library must define. */
typedef struct memdl_needed_version {
    const char *library;
    const char *version;
    /* Whether the library may lack it. */
    int is_weak;
} memdl_needed_version;

/* The versions that needed libraries must define; null behind the last one. */
const memdl_needed_version *memdl_report_needed_version(const memdl_report *report, size_t index);

/* A type of relocation that the library has. Later versions may append members. */
typedef struct memdl_relocation_type {
    /* Its number, in the numbering of the library's machine. */
    uint32_t number;
    /* Its name in the machine's ABI: "R_X86_64_RELATIVE". */
    const char *name;
    /* How many there are. */
    uint64_t count;
    /* Whether memdl applies such relocations. If not, a load is refused. */
    int is_supported;
} memdl_relocation_type;

/* The types of its relocations, in ascending order; null behind the last one. None for a machine whose relocations memdl
 * does not know. */
const memdl_relocation_type *memdl_report_relocation_type(const memdl_report *report, size_t index);

/* The versions that the library defines. */
const char *memdl_report_defined_version(const memdl_report *report, size_t index);

/* What an import is bound to, and what `detail` is then. */
typedef enum memdl_import_binding {
    /* A symbol of the executable. Null. */
    MEMDL_IMPORT_EXECUTABLE = 0,
    /* A symbol of a library of the process, or of one that the system would open. The path. */
    MEMDL_IMPORT_LIBRARY = 1,
    /* A function of memdl, in place of a library's. The path of that library. */
    MEMDL_IMPORT_REPLACED = 2,
    /* A symbol of an image. Its name. */
    MEMDL_IMPORT_IMAGE = 3,
    /* A symbol of the process whose library is not known. Null. So is the rest. */
    MEMDL_IMPORT_PROCESS = 4,
    /* memdl_options_define. */
    MEMDL_IMPORT_DEFINED = 5,
    /* memdl_options_set_resolver. */
    MEMDL_IMPORT_RESOLVER = 6,
    /* A weak reference to nothing. */
    MEMDL_IMPORT_NULL = 7,
    /* Nothing defines it. */
    MEMDL_IMPORT_MISSING = 8,
    /* A needed library was not found, which may define it; or the image is for another machine. */
    MEMDL_IMPORT_UNKNOWN = 9,
    /* The import filter refuses it. */
    MEMDL_IMPORT_REFUSED = 10
} memdl_import_binding;

/* An undefined symbol. Later versions may append members; so it is with the next two. */
typedef struct memdl_import {
    /* In the dynamic symbol table. */
    uint32_t index;
    const char *name;
    /* The version that it asks for, or null. */
    const char *version;
    /* The ELF type (STT_*), as far as the image states it. */
    int kind;
    int is_weak;
    /* Whether a relocation names it: a load binds no other symbol. */
    int is_referenced;
    /* A memdl_import_binding. */
    int binding;
    const char *detail;
} memdl_import;

/* The symbols that the image imports; null behind the last one. */
const memdl_import *memdl_report_import(const memdl_report *report, size_t index);

/* A symbol that others can bind to. */
typedef struct memdl_export {
    uint32_t index;
    const char *name;
    const char *version;
    int is_default_version;
    int kind;
    int is_weak;
    int is_unique;
    /* st_value, relative to the load bias. */
    uint64_t value;
    uint64_t size;
} memdl_export;

/* The symbols that the image exports; null behind the last one. */
const memdl_export *memdl_report_export(const memdl_report *report, size_t index);

/* All symbols of type STT_FUNC in the order of the dynamic symbol table, as memdl_functions lists them. */
const memdl_function_symbol *memdl_report_function(const memdl_report *report, size_t index);

/* A note (PT_NOTE). */
typedef struct memdl_note {
    const char *owner;
    uint32_t kind;
    const unsigned char *description;
    size_t description_len;
} memdl_note;

/* The notes of the image; null behind the last one. */
const memdl_note *memdl_report_note(const memdl_report *report, size_t index);

/* ---- What is loaded ---------------------------------------------------------------------- */

/* An image that is loaded. Only memdl makes these. Later versions may append members. */
typedef struct memdl_image_info {
    /* The name of the image in errors, debuggers and /proc/self/maps, in UTF-8. Never null. It may come from the
     * image's bytes: escape it before it goes to a terminal. */
    const char *name;
    /* The address of the first page, and the address after the last one. */
    uintptr_t start;
    uintptr_t end;
    /* The run-time address minus the address that the file states. */
    uintptr_t load_bias;
    /* The build-id, as `readelf -n` shows it. Null, and 0 bytes, if the image has none. */
    const unsigned char *build_id;
    size_t build_id_len;
    /* A memdl_debug: how much debuggers saw of it. */
    int debug;
    /* The memdl_template_id of the template that it is an instance of; 0 if it was loaded on its own. */
    uint64_t template_id;
    /* The number of the load that it came with, from 0 on. Images that were loaded together have the same one. */
    uint64_t load;
    /* How many hold the images of that load: handles, pools, libraries that are bound to it, threads with
     * destructors to run. 0 if it was being unloaded. */
    size_t holders;
} memdl_image_info;

/* Called with one image, which lives, with what it points to, until the callback returns. Return 0 to continue.
 * Any other value ends memdl_images, which returns it; use a positive one, since -1 is an error. */
typedef int (*memdl_image_callback)(const memdl_image_info *image, void *user);

/* Calls `callback` with all images that memdl has loaded, in the order of their loads: libraries, instances (idle
 * ones of pools, too), what was loaded with them, and what they opened by dlopen. An image is among them
 * from just before its constructors run until its destructors have run.
 * The list is made before the first call, and holds no lock and no image: the callback, and other threads, may
 * load and unload, so an image may be gone when it is called. This runs no code of images.
 * Returns 0, or the value with which the callback ended it, or -1 for an error.
 * This allocates and takes locks: called in a signal handler, it may never return, as memdl_symbolize. */
int memdl_images(memdl_image_callback callback, void *user);

/* Counters. Later versions may append members. */
typedef struct memdl_statistics {
    /* The number of images that are loaded. */
    uint64_t images;
    /* Their address space, in bytes: the sum of their address ranges. */
    uint64_t mapped_bytes;
    /* How much of it is pages that an instance shares with other instances of its template
     * (MEMDL_DEBUG_OFF), in bytes. */
    uint64_t shared_bytes;
    /* Memory that is kept for further libraries, in bytes: what memdl_release_memory gives back. */
    uint64_t kept_bytes;
    /* The number of loads since the process started, instances and libraries that images have opened by dlopen
     * included. One load may bring several images. */
    uint64_t loads;
    /* The number of these that were unloaded. */
    uint64_t unloads;
    /* The number of loads that ended with an error, and of templates that could not be made. */
    uint64_t failures;
} memdl_statistics;

/* Fills `*statistics`, of which the caller says the size: sizeof(memdl_statistics). Members that this version of
 * memdl does not have are 0. Calls that other threads make meanwhile may be counted in some members only.
 * Returns 0, or -1 for null statistics. In a signal handler it may never return. */
int memdl_get_statistics(memdl_statistics *statistics, size_t size);

/* ---- The log ----------------------------------------------------------------------------- */

/* How important an event is. A level includes those before it. */
typedef enum memdl_log_level {
    MEMDL_LOG_OFF = 0,
    /* Not used so far. */
    MEMDL_LOG_ERROR = 1,
    /* Something does not work as it was asked for, such as debug information that cannot be read. */
    MEMDL_LOG_WARN = 2,
    MEMDL_LOG_INFO = 3,
    /* Every load, failure, instance, reset and unload, with its time. */
    MEMDL_LOG_DEBUG = 4,
    MEMDL_LOG_TRACE = 5
} memdl_log_level;

/* Called with one event, in UTF-8, without a line feed at the end. Characters from libraries' names that a terminal
 * would obey are escaped. The text lives until it returns. `level` is a memdl_log_level. */
typedef void (*memdl_logger)(int level, const char *text, void *user);

/* Calls `logger` with every event of this level, or of one before it, from now on: in the thread where it happens,
 * and by several threads at once. memdl holds no lock meanwhile: the logger may call memdl, and then gets the
 * events of that, too. It must not throw. It replaces the logger that was set before; a null one removes it.
 * `user` is passed to it. `free_user`, unless it is null, is called with `user` after the last call of the logger:
 * when it was replaced, or in the thread that was in such a call then; and also if this function fails. It must
 * not throw.
 * The environment variable MEMDL_LOG=off|error|warn|info|debug|trace overrides the level. It counts from the first
 * call of this API on, and where no logger is set, events go to standard error, a line each. Like all environment
 * variables of memdl, it is ignored in a process that runs with more rights than its user has (set-user-ID).
 * Returns 0; or -1 for an error: for a level that does not exist, or in a host in Rust that has a logger of its own
 * (the crate `log`), which gets the events. */
int memdl_set_log(memdl_log_level level, memdl_logger logger, void *user,
                  void (*free_user)(void *user));

/* ---- About a library --------------------------------------------------------------------- */

/* The name of the library in errors, debuggers and /proc/self/maps. Lives until the library is closed. */
const char *memdl_name(const memdl_library *library);

/* Its DT_SONAME; null, without an error, if it has none. Lives until the library is closed. */
const char *memdl_soname(const memdl_library *library);

/* The run-time address minus the address that the file states. 0 for a null library. */
uintptr_t memdl_load_bias(const memdl_library *library);

/* 1 if the library was made immutable (memdl_options_set_seal), 0 if not, -1 for a null library. */
int memdl_is_sealed(const memdl_library *library);

/* Stores the address of the library's first page, and the address after its last one. Either pointer may be
 * null. Returns 0, or -1 for a null library. */
int memdl_address_range(const memdl_library *library, uintptr_t *start, uintptr_t *end);

/* ---- Memory that is kept -------------------------------------------------------------------- */

/* Returns the memory that is kept for further libraries to the system: up to 32 MiB of unloaded libraries,
 * which makes the next load of the same library fast, and up to 32 MiB of buffers that is not unmapped
 * yet. */
void memdl_release_memory(void);

/* Chooses whether memory that is kept is wiped first. 0, the default, does not wipe. No library ever finds the
 * bytes of another one; but unless they are wiped, they are in the process's memory, and in a core file,
 * until the memory is used again. A value other than 0 also unmaps the memory that is kept at the time of
 * the call. Wiping costs a small library about 5 % of load and unload. Pieces of 256 KiB and more are
 * unmapped instead of being wiped. The environment variable MEMDL_WIPE=off|on overrides it. */
void memdl_wipe_kept_memory(int wipe);

/* ---- What debuggers see -------------------------------------------------------------------- */

/* How much debuggers see. The environment variable MEMDL_DEBUG=off|symbols|full|portable overrides the
 * program's choice. */
typedef enum memdl_debug {
    /* Nothing. */
    MEMDL_DEBUG_OFF = 0,
    /* Names of functions and variables, and how to unwind the stack. Debug sections are kept, so that more
     * can be shown later. */
    MEMDL_DEBUG_SYMBOLS = 1,
    /* Lines, types and variables as well, for gdb. The default. */
    MEMDL_DEBUG_FULL = 2,
    /* The same for lldb, too. */
    MEMDL_DEBUG_PORTABLE = 3
} memdl_debug;

/* Makes the exports of a library, and of all libraries that it needs, visible to libraries that are loaded
 * later, as memdl_options_set_global does at the load. It cannot be undone. Returns 0, or -1 for an error. */
int memdl_make_global(const memdl_library *library);

/* A namespace without libraries. */
memdl_namespace *memdl_namespace_new(void);

/* Ends the handle. Libraries of the namespace stay, and still find each other. Does nothing for null. */
void memdl_namespace_free(memdl_namespace *space);

/* Changes how much debuggers see of a library and of the libraries that were loaded with it. So a fleet can run
 * with MEMDL_DEBUG_SYMBOLS, and be shown in full when someone attaches.
 * Returns 0, or -1 for an error: of a library that was loaded with MEMDL_DEBUG_OFF, debuggers can see no more
 * than MEMDL_DEBUG_SYMBOLS until memdl_set_debug_info supplies its debug information. */
int memdl_set_debug(const memdl_library *library, memdl_debug debug);

/* How much debuggers see of a library now: a memdl_debug, or -1 for a null library. If MEMDL_DEBUG_PORTABLE was asked
 * for and could not be made, this is MEMDL_DEBUG_FULL. */
int memdl_get_debug(const memdl_library *library);

/* Supplies debug information after the load: as memdl_options_set_debug_info, but identified by its
 * build-id only, and not as a package of split DWARF. How much debuggers see does not change. A library
 * that was not stripped is its own debug information. The bytes are copied.
 * Returns 0; or -1 for an error, and changes nothing, if the file does not belong to the library or
 * cannot be read. */
int memdl_set_debug_info(const memdl_library *library, const void *bytes, size_t len);

/* At a debugger's prompt, these change all libraries at once: `print memdl_debug_full()`,
 * `print memdl_debug_file("/tmp/libfoo.debug")`, and in lldb `expression memdl_debug_portable()`. See
 * docs/reference/debug-information.md. */

/* ---- Options ----------------------------------------------------------------------------- */

/* Makes default options, for any number of loads.
 * Returns options, or null. */
memdl_options *memdl_options_new(void);

/* Frees options. Libraries that were loaded with them stay. Null is allowed. */
void memdl_options_free(memdl_options *options);

/* The functions below return 0; or -1 for an error, and change nothing then. They copy strings and bytes.
 * Names are UTF-8. */

/* The name of the library in errors, debuggers, profilers and /proc/self/maps. Default: its DT_SONAME, or
 * else `image`. */
int memdl_options_set_name(memdl_options *options, const char *name);

/* Defines a symbol as if the host exported it. It takes precedence over a symbol of that name that the host
 * does export. The address must stay valid for as long as any library that was loaded with these
 * options. */
int memdl_options_define(memdl_options *options, const char *name, const void *address);

/* A symbol that a library refers to, as a resolver or an import filter sees it. Lives, with its strings, until
 * that returns. */
typedef struct memdl_request {
    const char *name;
    /* Null if the reference has no version. */
    const char *version;
    /* The name of the library with the reference. */
    const char *requested_by;
    /* Not 0 if the reference is weak: undefined, the symbol is null. */
    int is_weak;
} memdl_request;

/* Returns the address of the symbol, valid for as long as the library; or null if there is none. */
typedef const void *(*memdl_resolver)(const memdl_request *request, void *user);

/* Asks `resolver` for every symbol that nothing else defines. A null resolver removes it. It is called only
 * by loads and memdl_prepare with these options, in their thread, and gets `user`. With several threads
 * that load, it is called in several threads at once. It must not throw. */
int memdl_options_set_resolver(memdl_options *options, memdl_resolver resolver, void *user);

/* Satisfies a DT_NEEDED entry that names this library, by its DT_SONAME or its name. It joins the scope only if
 * a library needs it. The options keep it loaded until they are freed, and so do libraries that need
 * it. */
int memdl_options_depends_on(memdl_options *options, const memdl_library *library);

/* Bytes to load when something needs a library of this name: at most once per load. */
int memdl_options_provide(memdl_options *options, const char *name, const void *bytes, size_t len);

/* A library that something needs, as a provider sees it. Lives, with its strings, until the provider returns. */
typedef struct memdl_library_request {
    /* As the DT_NEEDED entry, or the call of dlopen, has it. */
    const char *name;
    /* The name of the library, or the path of the file, that needs it. */
    const char *needed_by;
    /* The folders in which that has it searched, by its DT_RUNPATH or DT_RPATH. $ORIGIN is the folder of
     * needed_by if that is an absolute path. They need not exist. */
    const char *const *folders;
    size_t folder_count;
} memdl_library_request;

/* What a provider supplies: a library, or else bytes. */
typedef struct memdl_provided {
    /* They are copied when the provider returns. */
    const void *bytes;
    size_t len;
    /* Null, or a library that is not closed before the load has returned. */
    const memdl_library *library;
    /* Null, or the name of the library that the bytes become, as memdl_options_set_name sets it. Null stands for
     * the name that it is needed by. A library of the load, or of its namespace, that has the name already is
     * used in place of the bytes. So with an absolute path, one library is loaded once. */
    const char *name;
    /* Null, or why a library that exists cannot be supplied: the load fails with this text, and nothing else is
     * searched. */
    const char *error;
    /* The strings are copied when the provider returns. */
    /* Null, or a buffer with the bytes in place of `bytes`: it is memdl's from then on, whatever the provider returns,
     * and the library runs in it, as with memdl_open_buffer. */
    memdl_buffer *buffer;
} memdl_provided;

/* Returns 1 and fills `*provided`, which is zero at first; or 0 if it does not have the library. Then it is searched
 * elsewhere. */
typedef int (*memdl_provider)(const memdl_library_request *request, memdl_provided *provided, void *user);

/* Asks `provider` for every library that something needs, and that neither memdl_options_depends_on, nor the
 * namespace, nor memdl_options_provide has: before the process's libraries and the file system. It is asked
 * once for each name in a load, and for what the libraries open later with dlopen; by several threads at once
 * if several load. A null provider removes it.
 * `user` is passed to it, and must be valid for as long as the options, templates and libraries that were
 * made with them. `free_user`, unless it is null, is called with `user` after that, and also if this
 * function fails. Neither may throw. */
int memdl_options_set_provider(memdl_options *options, memdl_provider provider, void *user,
                               void (*free_user)(void *user));

/* Loads into a namespace that other loads use, too. Null, the default: each load, and each instance of a
 * template, has one of its own. */
int memdl_options_set_namespace(memdl_options *options, const memdl_namespace *space);

/* Whether libraries that are loaded later see the exports, and those of all libraries that the library needs,
 * as with RTLD_GLOBAL. Default 0. memdl_make_global does so later. */
int memdl_options_set_global(memdl_options *options, int global);

/* Whether needed libraries that are not in the process may be opened, as dlopen does. Default 1. A library that
 * is opened this way stays in the process. With 0 a library gets only what is in the process, and what the
 * options supply. */
int memdl_options_set_system_libraries(memdl_options *options, int allowed);

/* Where references are searched first. */
typedef enum memdl_scope {
    /* The host's definitions take precedence over the library's own, as with dlopen. The default. */
    MEMDL_SCOPE_HOST_FIRST = 0,
    /* The library and the libraries that it needs take precedence, as with RTLD_DEEPBIND. */
    MEMDL_SCOPE_SELF_FIRST = 1
} memdl_scope;
int memdl_options_set_scope(memdl_options *options, memdl_scope scope);

/* When calls between libraries are bound. */
typedef enum memdl_binding {
    /* All at load: a missing function is an error of the load. The default. */
    MEMDL_BINDING_NOW = 0,
    /* At the first call, as RTLD_LAZY: a missing function ends the process when it is called. */
    MEMDL_BINDING_LAZY = 1
} memdl_binding;
int memdl_options_set_binding(memdl_options *options, memdl_binding binding);

/* A library that is about to be loaded. Lives until the verifier returns. */
typedef struct memdl_image {
    /* Its name so far, which never comes from its bytes. */
    const char *name;
    const void *bytes;
    size_t len;
} memdl_image;

/* Returns 0 to allow the load. Any other value refuses it. Then it may set `*reason` to a string for the error,
 * which must be valid until the verifier is called again in this thread. */
typedef int (*memdl_verifier)(const memdl_image *image, const char **reason, void *user);

/* Calls `verifier` with the bytes of every library before anything else reads them: of the loaded library, of
 * needed ones from memdl_options_provide, of needed ones that memdl reads from files, and of files that
 * these libraries open by dlopen. There a refusal is a null pointer, and dlerror has the
 * reason. It is not called for needed libraries that the system opens. It may be called with the same
 * bytes again, and by several threads at once. A null verifier removes it.
 * `user` is passed to it, and must be valid for as long as the options, templates and libraries that were
 * made with them. `free_user`, unless it is null, is called with `user` after that, and also if this
 * function fails. Neither may throw. */
int memdl_options_set_verifier(memdl_options *options, memdl_verifier verifier, void *user,
                               void (*free_user)(void *user));

/* Restricts which symbols of the host libraries may bind to, by relocations and by dlsym: to these names, or to
 * all but these. A refused symbol counts as missing from the host. If nothing else defines it, the load
 * fails, and the error lists all refused symbols. A function that memdl replaces counts by its name. Symbols
 * of memdl_options_define, of a resolver and of other libraries that memdl has loaded are not restricted.
 * This is no sandbox. */
int memdl_options_allow_imports(memdl_options *options, const char *const *names, size_t count);
int memdl_options_deny_imports(memdl_options *options, const char *const *names, size_t count);

/* Returns not 0 to allow the symbol of the host. */
typedef int (*memdl_import_filter)(const memdl_request *request, void *user);

/* The same with a function, which is called for symbols that the host has. A null filter allows all. `user` and
 * `free_user` are as for memdl_options_set_verifier. */
int memdl_options_filter_imports(memdl_options *options, memdl_import_filter filter, void *user,
                                 void (*free_user)(void *user));

/* Whether libraries are made immutable (mseal) once they are relocated. Then nothing in the process can change,
 * unmap or replace their code and read-only data. Writable data can be written, but not unmapped, replaced
 * or made executable. A process that can write to /proc/PID/mem, as debuggers do, can still change all of
 * it; the process itself can, too, unless the host denies it. A sealed library stays for the life of the
 * process, and cannot be in a pool. Default 0. A load fails where the system has no mseal, which needs
 * Linux 6.10. */
int memdl_options_set_seal(memdl_options *options, int seal);

/* How much debuggers see. Default MEMDL_DEBUG_FULL. */
int memdl_options_set_debug(memdl_options *options, memdl_debug debug);

/* The debug information of a stripped library: the bytes of the file that was split off it. Debuggers see it as
 * if it were inside the library. For a library with split DWARF: the bytes of its package (.dwp). A load
 * fails if the file does not belong to the library, by the build-id of both, or else by the checksum in
 * .gnu_debuglink; for a package, by the ids of all units. */
int memdl_options_set_debug_info(memdl_options *options, const void *bytes, size_t len);

/* What profilers see. The environment variable MEMDL_PERF=off|map|live-map|jitdump|file overrides it. */
typedef enum memdl_profile {
    /* Nothing. The default. */
    MEMDL_PROFILE_OFF = 0,
    /* Names of functions, in /tmp/perf-PID.map. The file stays. */
    MEMDL_PROFILE_PERF_MAP = 1,
    /* The same, but the names are removed with the library, and the file with the last of them or when
     * the process exits. */
    MEMDL_PROFILE_LIVE_PERF_MAP = 2,
    /* Functions with their code and lines, for `perf inject --jit`: jit-PID.dump, in a new folder in
     * $JITDUMPDIR/.debug/jit, or else $HOME/.debug/jit, or else .debug/jit. The file stays. */
    MEMDL_PROFILE_JITDUMP = 3,
    /* As a library on disk: its bytes are written to NUMBER/NAME in such a folder, and its code is mapped from
     * there. For `perf record --call-graph dwarf`, `eu-stack -p` and others that read files. The file stays. */
    MEMDL_PROFILE_FILE = 4
} memdl_profile;
int memdl_options_set_profile(memdl_options *options, memdl_profile profile);

/* Limits on what a library may ask for. */
typedef enum memdl_limit {
    /* Received bytes of one library. Default 4 GiB. */
    MEMDL_LIMIT_IMAGE_BYTES = 0,
    /* Address space of one library, in bytes. Default 16 GiB. */
    MEMDL_LIMIT_IMAGE_SPAN = 1,
    /* The largest alignment of a segment, in bytes. Default 1 GiB. */
    MEMDL_LIMIT_ALIGNMENT = 2,
    /* One thread's block of a library's thread-local variables, in bytes. Default 1 GiB. */
    MEMDL_LIMIT_TLS_BLOCK = 3,
    /* Entries in the relocation tables of one library. Default 64 million. */
    MEMDL_LIMIT_RELOCATIONS = 4,
    /* Libraries in one load: the library, and those that it needs from memdl_options_provide. Default
     * 1,024. */
    MEMDL_LIMIT_IMAGES = 5,
    /* Live instances of one library that debuggers see in full. Further instances that are loaded while a
     * debugger is attached are shown as with MEMDL_DEBUG_SYMBOLS, which is no error. Default 64. */
    MEMDL_LIMIT_INSTANCES_IN_FULL = 6,
    /* Total size of the compressed debug sections of one library when they are unpacked, in bytes; for small
     * files at most 16 times their size plus 16 MiB. Beyond it the library is shown as with
     * MEMDL_DEBUG_SYMBOLS, and a warning is logged. Default 1 GiB. */
    MEMDL_LIMIT_UNPACKED_DEBUG_INFO = 7,
    /* Steps to read the debug information of one library; for small files at most 8 for each byte plus 16
     * million. Beyond it the library is shown as with MEMDL_DEBUG_SYMBOLS, and a warning is logged. Default
     * 1 billion. */
    MEMDL_LIMIT_DEBUG_INFO_STEPS = 8
} memdl_limit;

/* Sets a limit. */
int memdl_options_set_limit(memdl_options *options, memdl_limit limit, uint64_t value);

#ifdef __cplusplus
}
#endif

#endif
