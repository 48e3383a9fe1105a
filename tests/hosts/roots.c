/* A host whose objects only a library points to: from malloc, for LeakSanitizer, or from libgc.
 * roots COLLECTOR WAY PLACES LIBRARY. It says how many objects were freed while the library had them, and
 * how many after it was closed; or leaves that to LeakSanitizer, when it exits. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "memdl.h"

#define COUNT 50
#define MUST(call) do { if (!(call)) { printf("%s: %s\n", #call, last_error()); exit(9); } } while (0)

static const char *last_error(void) {
    const char *text = memdl_error();
    return text ? text : dlerror();
}

/* libgc's functions, from whatever libgc the process has. */
static struct {
    void *(*malloc)(size_t);
    void (*init)(void), (*gcollect)(void), (*allow_register_threads)(void);
    void (*set_handle_fork)(int);
    int (*invoke_finalizers)(void);
    void (*register_finalizer)(void *, void (*)(void *, void *), void *, void *, void *);
    int (*get_stack_base)(void *), (*register_my_thread)(const void *), (*unregister_my_thread)(void);
} gc;

static void find_gc(void) {
    void *libgc = dlopen("libgc.so.1", RTLD_NOW);
    MUST(libgc);
#define FIND(name) MUST(*(void **)&gc.name = dlsym(libgc, "GC_" #name))
    FIND(malloc); FIND(init); FIND(gcollect); FIND(allow_register_threads); FIND(invoke_finalizers);
    FIND(register_finalizer); FIND(get_stack_base); FIND(register_my_thread); FIND(unregister_my_thread);
    FIND(set_handle_fork);
}

static volatile int freed;
static void finalise(void *object, void *data) { (void)object, (void)data; freed++; }

/* An object that nothing points to yet. */
void *host_new(void) {
    if (!gc.malloc) return malloc(77);
    void *object = gc.malloc(64);
    memset(object, 0x5a, 64);
    gc.register_finalizer(object, finalise, NULL, NULL, NULL);
    return object;
}

__attribute__((noinline)) static void clear_stack(void) {
    volatile char bytes[64 << 10];
    memset((void *)bytes, 0, sizeof bytes);
}

/* The number of objects that were freed since the last call. */
static int collected(void) {
    clear_stack();
    for (int i = 0; i < 4; i++) { gc.gcollect(); gc.invoke_finalizers(); }
    int count = freed;
    freed = 0;
    return count;
}

static void *file;
static size_t len;
static memdl_options *options;
static memdl_pool *pool;
static memdl_library *library;
static void *handle;
static void (*keep)(int, int, void *);
static void *(*kept)(int, int);

static void read_file(const char *path) {
    FILE *stream = fopen(path, "rb");
    MUST(stream);
    fseek(stream, 0, SEEK_END);
    len = ftell(stream);
    rewind(stream);
    file = malloc(len);
    MUST(file && fread(file, 1, len, stream) == len);
    fclose(stream);
}

static void open_library(const char *way, const char *path) {
    if (!strcmp(way, "dlopen")) {
        MUST(handle = dlopen(path, RTLD_NOW | RTLD_GLOBAL));
        *(void **)&keep = dlsym(handle, "keep");
        *(void **)&kept = dlsym(handle, "kept");
        return;
    }
    static memdl_template *template;
    if (!file) read_file(path);
    options = memdl_options_new();
    memdl_options_set_name(options, path);
    if (!strcmp(way, "load")) {
        library = memdl_open(file, len, options);
    } else if (!strcmp(way, "buffer")) {
        memdl_buffer *buffer = memdl_buffer_new(len);
        MUST(buffer);
        memcpy(memdl_buffer_data(buffer), file, len);
        library = memdl_open_buffer(buffer, options);
    } else {
        if (strcmp(way, "instance")) memdl_options_set_debug(options, MEMDL_DEBUG_OFF);
        if (!template) MUST(template = memdl_prepare(file, len, options));
        if (!strcmp(way, "pool")) {
            if (!pool) pool = memdl_pool_new(template, 2, MEMDL_RESET_AFTER_CONSTRUCTORS);
            library = memdl_pool_acquire(pool);
        } else {
            library = memdl_instantiate(template);
        }
    }
    MUST(library);
    *(void **)&keep = memdl_sym(library, "keep");
    *(void **)&kept = memdl_sym(library, "kept");
}

static void close_library(void) { if (handle) dlclose(handle); else memdl_close(library); }

__attribute__((noinline)) static void fill(const char *places) {
    for (; *places; places++)
        for (int i = 0; i < COUNT; i++) keep(*places, i, host_new());
}

/* A thread of libgc's, which keeps objects in its own thread-local variables. */
struct thread { pthread_barrier_t filled, done; const char *places; };

static void *in_thread(void *arg) {
    struct thread *thread = arg;
    void *base[4];
    gc.get_stack_base(base);
    gc.register_my_thread(base);
    fill(thread->places);
    clear_stack();
    pthread_barrier_wait(&thread->filled);
    pthread_barrier_wait(&thread->done);
    gc.unregister_my_thread();
    return NULL;
}

static void with_thread(const char *places) {
    struct thread thread = {.places = places};
    pthread_t id;
    gc.allow_register_threads();
    pthread_barrier_init(&thread.filled, NULL, 2);
    pthread_barrier_init(&thread.done, NULL, 2);
    pthread_create(&id, NULL, in_thread, &thread);
    pthread_barrier_wait(&thread.filled);
    printf("of a thread: %d freed\n", collected());
    pid_t child = fork();
    /* The thread is gone, and its stack may be; the library's data is there. */
    if (!child) _exit(collected() > COUNT / 2 ? 42 : 41);
    int status;
    waitpid(child, &status, 0);
    printf("in a child: %d freed\n", WIFEXITED(status) ? WEXITSTATUS(status) - 41 : status);
    pthread_barrier_wait(&thread.done);
    pthread_join(id, NULL);
    printf("of an ended thread: %d freed\n", collected() > COUNT / 2);
}

/* Instances of one library, each with an object. */
static void many(const char *way, const char *path, int count) {
    memdl_library **all = calloc(count, sizeof *all);
    for (int i = 0; i < count; i++) {
        open_library(way, path);
        all[i] = library;
        keep('d', i % COUNT, host_new());
    }
    printf("%d libraries: %d freed\n", count, collected());
    for (int i = 0; i < count; i++) memdl_close(all[i]);
    printf("closed: %d freed\n", collected() > count / 2);
    open_library(way, path);
    fill("db");
    printf("then one: %d freed\n", collected());
}

/* The constructors have kept objects, and only a snapshot of the data has pointers to them for a while. */
static void reset(const char *path) {
    open_library("pool", path);
    printf("constructed: %d freed\n", collected());
    for (int turn = 0; turn < 3; turn++) {
        for (int i = 0; i < COUNT; i++) keep('d', i, NULL);
        printf("in the snapshot: %d freed\n", collected());
        memdl_close(library);
        open_library("pool", path);
        printf("reset: %d freed\n", collected());
        for (int i = 0; i < COUNT; i++)
            if (*(unsigned char *)kept('d', i) != 0x5a) { puts("overwritten"); exit(1); }
    }
}

int main(int argc, char **argv) {
    const char *collector = argv[1], *way = argv[2], *places = argv[3], *path = argv[4];
    if (argc != 5) return 9;
    setvbuf(stdout, NULL, _IONBF, 0);
    if (!strcmp(collector, "lsan") || !strcmp(collector, "lsan-closed")) {
        open_library(way, path);
        fill(places);
        clear_stack();
        if (!strcmp(collector, "lsan-closed")) close_library();
        return 0;
    }
    if (!strcmp(collector, "opened-later")) {
        open_library(way, path);
        memdl_library *first = library;
        void *keep_of_first = (void *)keep;
        find_gc();
        gc.init();
        /* The next load sees it. */
        open_library(way, path);
        fill(places);
        *(void **)&keep = keep_of_first;
        fill(places);
        printf("kept: %d freed\n", collected());
        memdl_close(first);
        printf("closed: %d freed\n", collected() > COUNT / 2);
        return 0;
    }
    find_gc();
    gc.set_handle_fork(1);
    if (strcmp(collector, "initialised-later")) gc.init();
    if (!strcmp(way, "thread")) { open_library("load", path); gc.init(); with_thread(places); return 0; }
    if (!strcmp(way, "many")) { many("shared", path, atoi(places)); return 0; }
    if (!strcmp(way, "reset")) { reset(path); return 0; }
    open_library(way, path);
    gc.init();
    fill(places);
    printf("kept: %d freed\n", collected());
    close_library();
    printf("closed: %d freed\n", collected() > COUNT / 2);
    return 0;
}
