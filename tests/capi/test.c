/* Every function of memdl.h, from C99. Run by tests/capi/capi.rs with the paths of the test libraries. */
#define _POSIX_C_SOURCE 200809L
#include "memdl.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CHECK(what)                                                                                \
    do {                                                                                           \
        if (!(what)) {                                                                             \
            const char *why = memdl_error();                                                       \
            fprintf(stderr, "%s:%d: failed: %s (%s)\n", __FILE__, __LINE__, #what, why ? why : "-"); \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

/* The last failure's text has this in it, and is cleared by being read. */
static void check_error(const char *part, int line) {
    const char *text = memdl_error();
    if (!text || !strstr(text, part)) {
        fprintf(stderr, "line %d: expected an error with \"%s\", got \"%s\"\n", line, part,
                text ? text : "(none)");
        exit(1);
    }
    CHECK(memdl_error() == NULL);
}
#define CHECK_ERROR(part) check_error(part, __LINE__)

struct file {
    void *bytes;
    size_t len;
};

static struct file read_file(const char *path) {
    struct file file = {NULL, 0};
    FILE *stream = fopen(path, "rb");
    CHECK(stream != NULL);
    CHECK(fseek(stream, 0, SEEK_END) == 0);
    file.len = (size_t)ftell(stream);
    rewind(stream);
    file.bytes = malloc(file.len);
    CHECK(file.bytes != NULL);
    CHECK(fread(file.bytes, 1, file.len, stream) == file.len);
    fclose(stream);
    return file;
}

/* Lines of /proc/self/maps, counted without allocating. */
static int count_maps(void) {
    static char chunk[4096];
    int count = 0, fd = open("/proc/self/maps", O_RDONLY);
    ssize_t size;
    CHECK(fd >= 0);
    while ((size = read(fd, chunk, sizeof chunk)) > 0)
        for (ssize_t i = 0; i < size; i++) count += chunk[i] == '\n';
    close(fd);
    CHECK(count > 10);
    return count;
}

/* ISO C has no conversion between the two kinds of pointers. */
typedef int (*function0)(void);
typedef int (*function1)(int);
static function0 as_function0(void *address) {
    function0 function;
    memcpy(&function, &address, sizeof function);
    return function;
}
static function1 as_function1(void *address) {
    function1 function;
    memcpy(&function, &address, sizeof function);
    return function;
}
static const void *address_of(function0 function) {
    const void *address;
    memcpy(&address, &function, sizeof address);
    return address;
}
static const void *address_of1(function1 function) {
    const void *address;
    memcpy(&address, &function, sizeof address);
    return address;
}

/* ---- What the test libraries use ---- */

int host_or_own(void); /* exported: the program is linked with -rdynamic */
int host_or_own(void) { return 1; }

static int started, ended;
static int defined(int x) { return x * 100; }
static int resolved(void) { return 20; }

struct asked {
    int resolved, optional;
};

static const void *resolver(const memdl_request *request, void *user) {
    struct asked *asked = user;
    CHECK(strcmp(request->requested_by, "the plugin") == 0);
    CHECK(request->version == NULL);
    if (strcmp(request->name, "capi_resolved") == 0) {
        CHECK(!request->is_weak);
        asked->resolved++;
        return address_of(resolved);
    }
    if (strcmp(request->name, "capi_optional") == 0) {
        CHECK(request->is_weak);
        asked->optional++;
    }
    return NULL;
}

/* Options that the plugin can be loaded with. */
static memdl_options *plugin_options(struct asked *asked) {
    memdl_options *options = memdl_options_new();
    CHECK(options != NULL);
    CHECK(memdl_options_set_name(options, "the plugin") == 0);
    CHECK(memdl_options_define(options, "capi_defined", address_of1(defined)) == 0);
    CHECK(memdl_options_define(options, "capi_started", &started) == 0);
    CHECK(memdl_options_define(options, "capi_ended", &ended) == 0);
    CHECK(memdl_options_set_resolver(options, resolver, asked) == 0);
    return options;
}

static int call0(const memdl_library *library, const char *name) {
    void *address = memdl_sym(library, name);
    CHECK(address != NULL);
    return as_function0(address)();
}

/* ---- Symbols ---- */

struct seen {
    int count, functions, objects, thread_locals, old, new_;
    uint64_t data_size;
    uintptr_t data_address;
};

static int see(const memdl_symbol *symbol, void *user) {
    struct seen *seen = user;
    seen->count++;
    CHECK(symbol->name != NULL);
    if (strcmp(symbol->name, "plugin_data") == 0) {
        CHECK(symbol->kind == MEMDL_SYMBOL_OBJECT);
        CHECK(symbol->version && strcmp(symbol->version, "PLUGIN_1") == 0);
        seen->objects++;
        seen->data_size = symbol->size;
        seen->data_address = symbol->address;
    } else if (strcmp(symbol->name, "plugin_thread_local") == 0) {
        CHECK(symbol->kind == MEMDL_SYMBOL_THREAD_LOCAL);
        seen->thread_locals++;
    } else if (strcmp(symbol->name, "versioned") == 0) {
        CHECK(symbol->kind == MEMDL_SYMBOL_FUNCTION && symbol->version != NULL);
        if (symbol->is_default_version) {
            CHECK(strcmp(symbol->version, "PLUGIN_2") == 0);
            seen->new_++;
        } else {
            CHECK(strcmp(symbol->version, "PLUGIN_1") == 0);
            seen->old++;
        }
    } else if (symbol->kind == MEMDL_SYMBOL_FUNCTION) {
        seen->functions++;
    }
    return 0;
}

struct functions {
    memdl_library *library;
    void *address;
    int defined, imported, found;
    uint32_t last;
};

static int see_function(const memdl_function_symbol *function, void *user) {
    struct functions *functions = user;
    CHECK(function->index > functions->last);
    functions->last = function->index;
    if (function->is_defined) {
        functions->defined++;
        functions->found += memdl_load_bias(functions->library) + function->value == (uintptr_t)functions->address;
    } else {
        CHECK(function->value == 0 && function->name[0] != 0);
        functions->imported++;
    }
    return 0;
}

static int stop_at_function(const memdl_function_symbol *function, void *user) {
    CHECK(function->name != NULL);
    ++*(int *)user;
    return 77;
}

static int stop(const memdl_symbol *symbol, void *user) {
    (void)symbol;
    ++*(int *)user;
    return 77;
}

static void *change_thread_local(void *library) {
    int *mine = memdl_sym(library, "plugin_thread_local");
    CHECK(mine != NULL && *mine == 7);
    *mine = 8;
    CHECK(*(int *)memdl_sym(library, "plugin_thread_local") == 8);
    return mine;
}

struct frames {
    int count;
    char text[100];
};

static int see_frame(const memdl_frame *frame, void *user) {
    struct frames *frames = user;
    CHECK(frame->file == NULL && frame->line == 0 && frame->column == 0); /* built without -g */
    CHECK(!frame->is_inlined && strcmp(frame->function, frame->linkage_name) == 0);
    CHECK(frame->address > 0);
    snprintf(frames->text, sizeof frames->text, "%s in %s", frame->function, frame->image);
    frames->count++;
    return 0;
}

static int stop_at_frame(const memdl_frame *frame, void *user) {
    return frame != NULL && user == NULL ? 78 : 0;
}

static void test_library(const struct file *plugin) {
    struct asked asked = {0, 0};
    memdl_options *options = plugin_options(&asked);
    memdl_library *library = memdl_open(plugin->bytes, plugin->len, options);
    CHECK(library != NULL);
    memdl_options_free(options);
    CHECK(asked.resolved == 1 && asked.optional == 1);
    CHECK(started == 1 && ended == 0);

    void *address = memdl_sym(library, "plugin_function");
    CHECK(address != NULL);
    CHECK(as_function1(address)(3) == 300 + 20 + 5);
    int *data = memdl_sym(library, "plugin_data");
    CHECK(data != NULL && *data == 5);
    *data = 6;
    CHECK(as_function1(address)(3) == 300 + 20 + 6);
    CHECK(call0(library, "plugin_has_optional") == 0);
    CHECK(memdl_sym(library, "plugin_nothing") == NULL);
    CHECK_ERROR("no symbol `plugin_nothing`");
    CHECK(memdl_sym(library, "start") == NULL);
    CHECK_ERROR("the plugin");

    CHECK(call0(library, "versioned") == 2);
    CHECK(as_function0(memdl_symv(library, "versioned", "PLUGIN_1"))() == 1);
    CHECK(as_function0(memdl_symv(library, "versioned", "PLUGIN_2"))() == 2);
    CHECK(memdl_symv(library, "versioned", "PLUGIN_3") == NULL);
    CHECK_ERROR("versioned`@PLUGIN_3");

    int *mine = memdl_sym(library, "plugin_thread_local");
    CHECK(mine != NULL && *mine == 7);
    pthread_t thread;
    void *other;
    CHECK(pthread_create(&thread, NULL, change_thread_local, library) == 0);
    CHECK(pthread_join(thread, &other) == 0);
    CHECK(other != mine && *mine == 7);
    as_function1(memdl_sym(library, "plugin_set_thread_local"))(9);
    CHECK(*mine == 9);

    CHECK(strcmp(memdl_name(library), "the plugin") == 0);
    CHECK(strcmp(memdl_soname(library), "libplugin.so") == 0);
    uintptr_t begin = 0, end = 0, bias = memdl_load_bias(library);
    CHECK(memdl_address_range(library, &begin, &end) == 0);
    CHECK(bias != 0 && bias == begin && begin < end); /* the file states 0 as its lowest address */
    CHECK(memdl_address_range(library, NULL, NULL) == 0);
    CHECK(begin <= (uintptr_t)address && (uintptr_t)address < end);
    CHECK(memcmp((void *)begin, "\177ELF", 4) == 0);

    struct seen seen = {0, 0, 0, 0, 0, 0, 0, 0};
    CHECK(memdl_symbols(library, see, &seen) == 0);
    CHECK(seen.functions == 3 && seen.objects == 1 && seen.thread_locals == 1);
    CHECK(seen.old == 1 && seen.new_ == 1);
    CHECK(seen.data_address == (uintptr_t)data && seen.data_size == sizeof(int));
    int calls = 0;
    CHECK(memdl_symbols(library, stop, &calls) == 77 && calls == 1);
    CHECK(memdl_symbols(library, NULL, NULL) == -1);
    CHECK_ERROR("the callback is null");

    struct functions functions = {library, address, 0, 0, 0, 0};
    CHECK(memdl_functions(library, see_function, &functions) == 0);
    CHECK(functions.defined == 5 && functions.imported > 0 && functions.found == 1);
    calls = 0;
    CHECK(memdl_functions(library, stop_at_function, &calls) == 77 && calls == 1);
    CHECK(memdl_functions(library, NULL, NULL) == -1);
    CHECK_ERROR("the callback is null");

    struct frames frames = {0, ""};
    CHECK(memdl_symbolize((char *)address + 1, see_frame, &frames) == 0);
    CHECK(frames.count == 1 && strcmp(frames.text, "plugin_function in the plugin") == 0);
    CHECK(memdl_symbolize((char *)address + 1, stop_at_frame, NULL) == 78);
    CHECK(memdl_symbolize(&begin, see_frame, &frames) == 0 && frames.count == 1);
    CHECK(memdl_symbolize(address, NULL, NULL) == -1);
    CHECK_ERROR("the callback is null");

    const memdl_symbol *symbol = memdl_symbol_at(library, (char *)address + 1);
    CHECK(symbol != NULL);
    CHECK(strcmp(symbol->name, "plugin_function") == 0 && strcmp(symbol->version, "PLUGIN_1") == 0);
    CHECK(symbol->address == (uintptr_t)address && symbol->size > 1);
    CHECK(symbol->kind == MEMDL_SYMBOL_FUNCTION && symbol->is_default_version);
    CHECK(memdl_symbol_at(library, &begin) == NULL);
    CHECK_ERROR("no exported symbol");
    CHECK(memdl_symbol_named(library, "getpid") == NULL);
    CHECK_ERROR("no exported symbol");
    CHECK(memdl_symbol_named(library, NULL) == NULL && memdl_error() != NULL);
    CHECK(strcmp(symbol->name, "plugin_function") == 0); /* a failure leaves the last one */
    symbol = memdl_symbol_named(library, "plugin_data");
    CHECK(symbol != NULL && symbol->kind == MEMDL_SYMBOL_OBJECT && symbol->address == (uintptr_t)data);

    CHECK(memdl_close(library) == 0);
    CHECK(started == 1 && ended == 1);
}

/* ---- Buffers and templates ---- */

static void test_buffer(const struct file *plain) {
    memdl_buffer *buffer = memdl_buffer_new(plain->len);
    CHECK(buffer != NULL && memdl_buffer_size(buffer) == plain->len);
    unsigned char *data = memdl_buffer_data(buffer);
    CHECK(data != NULL && (uintptr_t)data % 4096 == 0 && data[0] == 0 && data[plain->len - 1] == 0);
    memcpy(data, plain->bytes, plain->len);
    memdl_library *library = memdl_open_buffer(buffer, NULL);
    CHECK(library != NULL);
    CHECK(call0(library, "plain_value") == 41);
    CHECK(memdl_soname(library) == NULL && memdl_error() == NULL);
    CHECK(strcmp(memdl_name(library), "image") == 0);
    CHECK(memdl_close(library) == 0);

    memdl_buffer_free(memdl_buffer_new(10));
    memdl_buffer_free(NULL);
    CHECK(memdl_buffer_new((size_t)-1) == NULL);
    CHECK_ERROR("memory");
    /* Is taken all the same. */
    buffer = memdl_buffer_new(100);
    CHECK(memdl_open_buffer(buffer, NULL) == NULL);
    CHECK_ERROR("malformed");
}

static void test_buffer_resize(const struct file *plain) {
    /* A receive of unknown length, with other bytes behind the library. */
    memdl_buffer *buffer = memdl_buffer_new(16);
    size_t received = 0;
    while (received < plain->len + 100) {
        size_t part = plain->len + 100 - received < 3000 ? plain->len + 100 - received : 3000;
        CHECK(memdl_buffer_resize(buffer, received + part) == 0);
        unsigned char *data = memdl_buffer_data(buffer);
        CHECK(memdl_buffer_size(buffer) == received + part && data[received + part - 1] == 0);
        for (size_t i = received; i < received + part; i++)
            data[i] = i < plain->len ? ((const unsigned char *)plain->bytes)[i] : 0xee;
        received += part;
    }
    CHECK(memdl_buffer_resize(buffer, plain->len) == 0 && memdl_buffer_size(buffer) == plain->len);
    CHECK(memdl_buffer_resize(buffer, (size_t)-1) == -1);
    CHECK_ERROR("memory");
    CHECK(memdl_buffer_size(buffer) == plain->len);
    memdl_library *library = memdl_open_buffer(buffer, NULL);
    CHECK(library && call0(library, "plain_value") == 41);
    CHECK(memdl_close(library) == 0);
    CHECK(memdl_buffer_resize(NULL, 1) == -1);
    CHECK_ERROR("the buffer is null");
    buffer = memdl_buffer_new(4);
    memset(memdl_buffer_data(buffer), 0xee, 4);
    CHECK(memdl_buffer_resize(buffer, 1) == 0 && memdl_buffer_resize(buffer, 4) == 0);
    unsigned char *data = memdl_buffer_data(buffer);
    CHECK(data[0] == 0xee && data[1] == 0 && data[3] == 0);
    memdl_buffer_free(buffer);
}

/* ---- Errors ---- */

static void test_version(void) {
    char text[32];
    snprintf(text, sizeof text, "%d.%d.%d", MEMDL_VERSION_MAJOR, MEMDL_VERSION_MINOR,
             MEMDL_VERSION_PATCH);
    CHECK(strcmp(memdl_version_text(), text) == 0);
    CHECK(memdl_version() == MEMDL_VERSION && MEMDL_VERSION >= 1000);
}

struct lacks {
    int count, last_kind;
    char name[64], version[64], needed_by[64];
};

static int note_missing(const memdl_missing *missing, void *user) {
    struct lacks *lacks = user;
    lacks->count++;
    lacks->last_kind = missing->kind;
    snprintf(lacks->name, sizeof lacks->name, "%s", missing->name);
    snprintf(lacks->version, sizeof lacks->version, "%s", missing->version ? missing->version : "");
    snprintf(lacks->needed_by, sizeof lacks->needed_by, "%s", missing->needed_by);
    return lacks->count == 3 ? 7 : 0;
}

static void test_error_codes(const struct file *plain, const struct file *dependent) {
    struct lacks lacks = {0};
    CHECK(memdl_open(plain->bytes, 100, NULL) == NULL);
    CHECK(memdl_error_code() == MEMDL_ERROR_MALFORMED);
    CHECK(memdl_error_missing(note_missing, &lacks) == 0 && lacks.count == 0);
    CHECK_ERROR("malformed");
    CHECK(memdl_open(NULL, 1, NULL) == NULL && memdl_error_code() == MEMDL_ERROR_ARGUMENT);
    CHECK_ERROR("the bytes are null");
    CHECK(memdl_error_code() == MEMDL_ERROR_ARGUMENT);

    memdl_options *options = memdl_options_new();
    memdl_options_set_name(options, "asks");
    memdl_options_set_system_libraries(options, 0);
    CHECK(memdl_open(dependent->bytes, dependent->len, options) == NULL);
    CHECK(memdl_error_code() == MEMDL_ERROR_MISSING);
    CHECK(memdl_error_missing(note_missing, &lacks) == 0 && lacks.count == 1);
    CHECK(lacks.last_kind == MEMDL_MISSING_LIBRARY && strcmp(lacks.name, "libplain.so") == 0);
    CHECK(strcmp(lacks.needed_by, "asks") == 0);
    const char *text = memdl_error();
    CHECK(strstr(text, "memdl_options_provide") && !strstr(text, "Loader::"));
    CHECK(strstr(text, "memdl_options_set_system_libraries(options, 1)"));
    /* Reading the text and calls that succeed change neither. */
    lacks.count = 0;
    memdl_library *library = memdl_open(plain->bytes, plain->len, NULL);
    CHECK(library && memdl_error_code() == MEMDL_ERROR_MISSING);
    CHECK(memdl_error_missing(note_missing, &lacks) == 0 && lacks.count == 1);
    CHECK(memdl_sym(library, "nothing") == NULL);
    CHECK(memdl_error_code() == MEMDL_ERROR_SYMBOL_NOT_FOUND);
    CHECK_ERROR("nothing");
    CHECK(memdl_close(library) == 0);

    memdl_options_set_limit(options, MEMDL_LIMIT_IMAGE_BYTES, 10);
    CHECK(memdl_open(plain->bytes, plain->len, options) == NULL);
    CHECK(memdl_error_code() == MEMDL_ERROR_LIMIT);
    CHECK_ERROR("limit");
    CHECK(memdl_options_set_limit(options, (memdl_limit)99, 0) == -1);
    CHECK(memdl_error_code() == MEMDL_ERROR_ARGUMENT);
    CHECK(memdl_error_missing(NULL, NULL) == -1);
    CHECK_ERROR("the callback is null");
    memdl_options_free(options);
}

static void test_template(const struct file *plugin) {
    struct asked asked = {0, 0};
    memdl_options *options = plugin_options(&asked);
    started = ended = 0;
    memdl_template *tmpl = memdl_prepare(plugin->bytes, plugin->len, options);
    CHECK(tmpl != NULL && started == 0);
    memdl_options_free(options);
    memdl_library *a = memdl_instantiate(tmpl), *b = memdl_instantiate(tmpl);
    CHECK(a != NULL && b != NULL && started == 2);
    memdl_template_free(tmpl);
    memdl_template_free(NULL);
    int *data_a = memdl_sym(a, "plugin_data"), *data_b = memdl_sym(b, "plugin_data");
    CHECK(data_a != data_b && *data_a == 5 && *data_b == 5);
    *data_a = 1;
    CHECK(*data_b == 5 && memdl_load_bias(a) != memdl_load_bias(b));
    CHECK(memdl_close(a) == 0 && ended == 1);
    CHECK(call0(b, "plugin_has_optional") == 0);
    CHECK(memdl_close(b) == 0 && ended == 2);
}

static void test_template_of_a_buffer(const struct file *plain) {
    memdl_buffer *buffer = memdl_buffer_new(plain->len);
    memcpy(memdl_buffer_data(buffer), plain->bytes, plain->len);
    memdl_template *tmpl = memdl_prepare_buffer(buffer, NULL);
    CHECK(tmpl != NULL);
    memdl_library *a = memdl_instantiate(tmpl), *b = memdl_instantiate(tmpl);
    memdl_template_free(tmpl);
    CHECK(call0(a, "plain_value") == 41 && call0(b, "plain_value") == 41);
    CHECK(memdl_close(a) == 0 && memdl_close(b) == 0);
    /* Is taken all the same. */
    CHECK(memdl_prepare_buffer(memdl_buffer_new(100), NULL) == NULL);
    CHECK_ERROR("malformed");
    CHECK(memdl_prepare_buffer(NULL, NULL) == NULL);
    CHECK_ERROR("the buffer is null");
}

static void test_pool(const struct file *plugin) {
    struct asked asked = {0, 0};
    memdl_options *options = plugin_options(&asked);
    memdl_template *tmpl = memdl_prepare(plugin->bytes, plugin->len, options);
    memdl_options_free(options);
    memdl_pool *after = memdl_pool_new(tmpl, 1, MEMDL_RESET_AFTER_CONSTRUCTORS);
    memdl_pool *before = memdl_pool_new(tmpl, 1, MEMDL_RESET_BEFORE_CONSTRUCTORS);
    CHECK(after != NULL && before != NULL);
    CHECK(memdl_pool_new(tmpl, 1, (memdl_reset)2) == NULL);
    CHECK_ERROR("no memdl_reset 2");
    memdl_template_free(tmpl);
    for (int reset = 0; reset < 2; reset++) {
        memdl_pool *pool = reset ? before : after;
        started = ended = 0;
        for (int round = 1; round <= 3; round++) {
            memdl_library *library = memdl_pool_acquire(pool);
            CHECK(library != NULL && memdl_pool_parked(pool) == 0);
            CHECK(started == (reset ? round : 1) && ended == (reset ? round - 1 : 0));
            int *data = memdl_sym(library, "plugin_data");
            CHECK(*data == 5);
            *data = 1;
            CHECK(memdl_close(library) == 0 && memdl_pool_parked(pool) == 1);
        }
        memdl_library *library = memdl_pool_acquire(pool);
        memdl_pool_free(pool);
        CHECK(call0(library, "plugin_has_optional") == 0);
        CHECK(memdl_close(library) == 0 && ended == started);
    }
    memdl_pool_free(NULL);
}

/* ---- Threads that have objects of a library ---- */

struct worker {
    memdl_library *library;
    int may_end;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int step;
};

static int told;
static void count_event(int letter) {
    CHECK(letter != '!');
    __atomic_fetch_add(&told, 1, __ATOMIC_SEQ_CST);
}

/* The worker's steps, and those of the thread that waits for it. */
static void go_to(struct worker *worker, int step) {
    pthread_mutex_lock(&worker->lock);
    worker->step = step;
    pthread_cond_broadcast(&worker->changed);
    pthread_mutex_unlock(&worker->lock);
}

static void wait_for(struct worker *worker, int step) {
    pthread_mutex_lock(&worker->lock);
    while (worker->step != step) pthread_cond_wait(&worker->changed, &worker->lock);
    pthread_mutex_unlock(&worker->lock);
}

/* Uses the library, leaves it when it is told to, and lives on. */
static void *work(void *user) {
    struct worker *worker = user;
    CHECK(call0(worker->library, "use") == 6);
    CHECK(call0(worker->library, "use") == 7);
    go_to(worker, 1);
    wait_for(worker, 2);
    if (worker->may_end == 0) {
        CHECK(memdl_leave_thread(worker->library) == 0);
        CHECK(call0(worker->library, "use") == 6);
        CHECK(memdl_leave_thread(worker->library) == 0);
    }
    go_to(worker, 3);
    wait_for(worker, 4);
    return NULL;
}

static memdl_library *open_leaves(const struct file *leaves) {
    memdl_options *options = memdl_options_new();
    CHECK(memdl_options_set_system_libraries(options, 1) == 0);
    memdl_library *library = memdl_open(leaves->bytes, leaves->len, options);
    memdl_options_free(options);
    CHECK(library != NULL);
    void (*report_to)(void (*)(int)) = NULL;
    *(void **)&report_to = memdl_sym(library, "report_to");
    report_to(count_event);
    return library;
}

static void test_leaving(const struct file *leaves) {
    enum { WORKERS = 3, OBJECTS = 3 };
    CHECK(memdl_leave_thread(NULL) == -1);
    CHECK_ERROR("library");
    CHECK(memdl_close_with_thread_locals(NULL) == -1);
    CHECK_ERROR("library");
    for (int stays = 0; stays < 2; stays++) {
        memdl_library *library = open_leaves(leaves);
        struct worker workers[WORKERS];
        pthread_t threads[WORKERS];
        told = 0;
        for (int i = 0; i < WORKERS; i++) {
            workers[i] = (struct worker){library, i < stays, PTHREAD_MUTEX_INITIALIZER,
                                         PTHREAD_COND_INITIALIZER, 0};
            CHECK(pthread_create(&threads[i], NULL, work, &workers[i]) == 0);
            wait_for(&workers[i], 1);
            go_to(&workers[i], 2);
            wait_for(&workers[i], 3);
        }
        CHECK(told == 2 * OBJECTS * (WORKERS - stays));
        CHECK(call0(library, "use") == 6);
        CHECK(memdl_close_with_thread_locals(library) == stays);
        CHECK(told == 2 * OBJECTS * (WORKERS - stays) + OBJECTS);
        if (stays) {
            const memdl_kept *kept = memdl_last_kept();
            CHECK(kept && kept->threads == 1 && !kept->this_thread && kept->libraries == 0);
            CHECK(strstr(kept->text, "1 thread has destructors") != NULL);
        }
        for (int i = 0; i < WORKERS; i++) {
            go_to(&workers[i], 4);
            CHECK(pthread_join(threads[i], NULL) == 0);
        }
        CHECK(told == 2 * OBJECTS * (WORKERS - stays) + OBJECTS + OBJECTS * stays);
    }
    /* The thread that closes keeps it, if it closes as dlclose does. */
    memdl_library *library = open_leaves(leaves);
    CHECK(call0(library, "use") == 6);
    CHECK(memdl_close(library) == 1);
    CHECK(memdl_last_kept()->threads == 1 && memdl_last_kept()->this_thread);
}

/* ---- Options ---- */

struct store {
    const struct file *plain;
    const memdl_library *library;
    int asked, freed;
    const char *name, *error;
    int buffers;
};

static int provider(const memdl_library_request *request, memdl_provided *provided, void *user) {
    struct store *store = user;
    if (strcmp(request->name, "libplain.so") != 0) return 0;
    CHECK(strcmp(request->needed_by, "needing") == 0);
    CHECK(request->folder_count == 0 || request->folders[0] != NULL);
    store->asked++;
    provided->library = store->library;
    if (store->buffers > 0) {
        store->buffers--;
        provided->buffer = memdl_buffer_new(store->plain->len);
        CHECK(provided->buffer != NULL);
        memcpy(memdl_buffer_data(provided->buffer), store->plain->bytes, store->plain->len);
    } else if (!store->library) {
        provided->bytes = store->plain->bytes;
        provided->len = store->plain->len;
    }
    provided->name = store->name;
    provided->error = store->error;
    return 1;
}

static int is_called(const memdl_image_info *image, void *name) {
    return strcmp(image->name, name) == 0;
}

static void free_store(void *user) { ((struct store *)user)->freed++; }

static void test_namespace(const struct file *plain, const struct file *dependent) {
    struct store store = {plain, NULL, 0, 0, NULL, NULL, 0};
    memdl_options *options = memdl_options_new();
    CHECK(memdl_options_set_name(options, "needing") == 0);
    CHECK(memdl_options_set_provider(options, provider, &store, free_store) == 0);
    memdl_library *one = memdl_open(dependent->bytes, dependent->len, options);
    memdl_library *two = memdl_open(dependent->bytes, dependent->len, options);
    CHECK(one && two && store.asked == 2 && call0(one, "dependent_value") == 42);
    CHECK(memdl_sym(one, "plain_value") != memdl_sym(two, "plain_value"));
    CHECK(memdl_close(one) == 0 && memdl_close(two) == 0);

    /* A buffer, in which the library runs. */
    store.buffers = 1;
    one = memdl_open(dependent->bytes, dependent->len, options);
    CHECK(one && call0(one, "plain_value") == 41 && store.buffers == 0 && memdl_close(one) == 0);

    /* A name for what the bytes become, and a reason for which there are none. */
    store.name = "/archive/libplain.so";
    one = memdl_open(dependent->bytes, dependent->len, options);
    CHECK(one && memdl_images(is_called, (void *)store.name) == 1);
    CHECK(memdl_close(one) == 0);
    store.name = NULL;
    store.error = "the store is offline";
    CHECK(memdl_open(dependent->bytes, dependent->len, options) == NULL);
    CHECK_ERROR("libplain.so [the store is offline]");
    store.error = NULL;
    store.asked = 2;

    /* What the first load needs, the second finds. */
    memdl_namespace *space = memdl_namespace_new();
    CHECK(space && memdl_options_set_namespace(options, space) == 0);
    one = memdl_open(dependent->bytes, dependent->len, options);
    memdl_namespace_free(space);
    memdl_namespace_free(NULL);
    two = memdl_open(dependent->bytes, dependent->len, options);
    CHECK(one && two && store.asked == 3);
    CHECK(memdl_sym(one, "plain_value") == memdl_sym(two, "plain_value"));
    CHECK(memdl_options_set_namespace(options, NULL) == 0);

    /* A library that is loaded. */
    memdl_library *loaded = memdl_open(plain->bytes, plain->len, NULL);
    store.library = loaded;
    memdl_library *three = memdl_open(dependent->bytes, dependent->len, options);
    CHECK(three && memdl_sym(three, "plain_value") == memdl_sym(loaded, "plain_value"));
    CHECK(memdl_make_global(loaded) == 0);
    CHECK(memdl_make_global(NULL) == -1);
    CHECK_ERROR("the library is null");

    CHECK(memdl_options_set_provider(options, NULL, NULL, NULL) == 0);
    memdl_options_free(options);
    CHECK(store.freed == 0); /* a library could still open something */
    CHECK(memdl_close(three) == 0 && memdl_close(loaded) == 0);
    memdl_close(one);
    memdl_close(two);
    CHECK(store.freed == 1);
}

static void test_needed(const struct file *plain, const struct file *dependent) {
    CHECK(memdl_open(dependent->bytes, dependent->len, NULL) == NULL);
    CHECK_ERROR("libplain.so");

    /* Provided as bytes: part of the load. */
    memdl_options *options = memdl_options_new();
    CHECK(memdl_options_provide(options, "libplain.so", plain->bytes, plain->len) == 0);
    memdl_library *library = memdl_open(dependent->bytes, dependent->len, options);
    CHECK(library != NULL);
    CHECK(call0(library, "dependent_value") == 42);
    CHECK(call0(library, "plain_value") == 41); /* what it needs is searched too */
    CHECK(call0(library, "dependent_host_or_own") == 1);
    CHECK(memdl_close(library) == 0);
    CHECK(memdl_options_set_scope(options, MEMDL_SCOPE_SELF_FIRST) == 0);
    library = memdl_open(dependent->bytes, dependent->len, options);
    CHECK(library != NULL && call0(library, "dependent_host_or_own") == 2);
    CHECK(memdl_close(library) == 0);
    CHECK(memdl_options_set_limit(options, MEMDL_LIMIT_IMAGES, 1) == 0);
    CHECK(memdl_open(dependent->bytes, dependent->len, options) == NULL);
    CHECK_ERROR("limit");
    memdl_options_free(options);

    /* A library that is loaded already, found by its name, and kept while it is needed. */
    options = memdl_options_new();
    CHECK(memdl_options_set_name(options, "libplain.so") == 0);
    memdl_library *needed = memdl_open(plain->bytes, plain->len, options);
    memdl_options_free(options);
    CHECK(needed != NULL);
    options = memdl_options_new();
    CHECK(memdl_options_depends_on(options, needed) == 0);
    library = memdl_open(dependent->bytes, dependent->len, options);
    memdl_options_free(options);
    CHECK(library != NULL);
    CHECK(memdl_sym(library, "plain_value") == memdl_sym(needed, "plain_value"));
    CHECK(memdl_last_kept() == NULL);
    CHECK(memdl_close(needed) == 1);
    const memdl_kept *kept = memdl_last_kept();
    CHECK(kept && kept->libraries == 1 && kept->threads == 0 && !kept->this_thread);
    CHECK(!kept->is_open && !kept->never_unloaded && kept->others == 0);
    CHECK(strstr(kept->text, "is bound to it") != NULL);
    CHECK(call0(library, "dependent_value") == 42);
    CHECK(memdl_close(library) == 0);

    /* Global: needed by name without being asked for. */
    options = memdl_options_new();
    CHECK(memdl_options_set_name(options, "libplain.so") == 0);
    CHECK(memdl_options_set_global(options, 1) == 0);
    needed = memdl_open(plain->bytes, plain->len, options);
    memdl_options_free(options);
    CHECK(needed != NULL);
    library = memdl_open(dependent->bytes, dependent->len, NULL);
    CHECK(library != NULL && call0(library, "dependent_value") == 42);
    CHECK(memdl_close(library) == 0 && memdl_close(needed) == 0);
    CHECK(memdl_open(dependent->bytes, dependent->len, NULL) == NULL);
    CHECK_ERROR("libplain.so");

    /* The system is asked, and says why not. */
    options = memdl_options_new();
    CHECK(memdl_options_set_system_libraries(options, 1) == 0);
    CHECK(memdl_open(dependent->bytes, dependent->len, options) == NULL);
    CHECK_ERROR("libplain.so: cannot open shared object file");
    memdl_options_free(options);
}

static void test_options(const struct file *plain) {
    memdl_options *options = memdl_options_new();
    CHECK(memdl_options_set_binding(options, MEMDL_BINDING_LAZY) == 0);
    CHECK(memdl_options_set_binding(options, MEMDL_BINDING_NOW) == 0);
    CHECK(memdl_options_set_debug(options, MEMDL_DEBUG_OFF) == 0);
    CHECK(memdl_options_set_debug(options, MEMDL_DEBUG_SYMBOLS) == 0);
    CHECK(memdl_options_set_debug(options, MEMDL_DEBUG_FULL) == 0);
    CHECK(memdl_options_set_debug(options, (memdl_debug)99) == -1);
    CHECK_ERROR("memdl_debug 99");
    CHECK(memdl_options_set_profile(options, MEMDL_PROFILE_LIVE_PERF_MAP) == 0);
    char map[64];
    snprintf(map, sizeof map, "/tmp/perf-%ld.map", (long)getpid());
    memdl_library *profiled = memdl_open(plain->bytes, plain->len, options);
    CHECK(profiled != NULL && access(map, R_OK) == 0);
    CHECK(memdl_close(profiled) == 0 && access(map, R_OK) == -1);
    CHECK(memdl_options_set_profile(options, MEMDL_PROFILE_OFF) == 0);
    CHECK(memdl_options_set_profile(options, (memdl_profile)99) == -1);
    CHECK_ERROR("memdl_profile 99");
    CHECK(memdl_options_set_scope(options, (memdl_scope)99) == -1);
    CHECK_ERROR("memdl_scope 99");
    CHECK(memdl_options_set_binding(options, (memdl_binding)99) == -1);
    CHECK_ERROR("memdl_binding 99");
    CHECK(memdl_options_set_limit(options, (memdl_limit)99, 1) == -1);
    CHECK_ERROR("memdl_limit 99");
    CHECK(memdl_options_set_name(options, "\xff") == -1);
    CHECK_ERROR("UTF-8");
    CHECK(memdl_options_set_resolver(options, NULL, NULL) == 0);
    CHECK(memdl_options_set_limit(options, MEMDL_LIMIT_ALIGNMENT, 1u << 20) == 0);
    CHECK(memdl_options_set_limit(options, MEMDL_LIMIT_TLS_BLOCK, 1u << 20) == 0);
    CHECK(memdl_options_set_limit(options, MEMDL_LIMIT_RELOCATIONS, 1000) == 0);
    CHECK(memdl_options_set_limit(options, MEMDL_LIMIT_IMAGE_SPAN, 1u << 20) == 0);
    CHECK(memdl_options_set_limit(options, MEMDL_LIMIT_INSTANCES_IN_FULL, 1) == 0);
    memdl_library *library = memdl_open(plain->bytes, plain->len, options);
    CHECK(library != NULL && call0(library, "plain_value") == 41);
    CHECK(memdl_close(library) == 0);
    CHECK(memdl_options_set_limit(options, MEMDL_LIMIT_IMAGE_BYTES, 1000) == 0);
    CHECK(memdl_open(plain->bytes, plain->len, options) == NULL);
    CHECK_ERROR("limit");
    memdl_options_free(options);
    memdl_options_free(NULL);
}

/* What is kept of libraries that are gone, wiped or not, and given back. */
static void test_kept_memory(const struct file *plain) {
    for (int wipe = 0; wipe < 3; wipe++) {
        memdl_wipe_kept_memory(wipe);
        for (int round = 0; round < 2; round++) {
            memdl_library *library = memdl_open(plain->bytes, plain->len, NULL);
            CHECK(library != NULL && call0(library, "plain_value") == 41);
            CHECK(memdl_close(library) == 0);
        }
        memdl_release_memory();
    }
    memdl_wipe_kept_memory(0);
}

/* The debug level can change. An unstripped library is its own debug information. */
static void test_debug(const struct file *plain) {
    memdl_options *options = memdl_options_new();
    CHECK(memdl_options_set_debug(options, MEMDL_DEBUG_SYMBOLS) == 0);
    CHECK(memdl_options_set_debug_info(options, plain->bytes, plain->len) == 0);
    memdl_library *library = memdl_open(plain->bytes, plain->len, options);
    CHECK(library != NULL);
    for (int debug = MEMDL_DEBUG_OFF; debug <= MEMDL_DEBUG_PORTABLE; debug++) {
        CHECK(memdl_set_debug(library, (memdl_debug)debug) == 0);
        CHECK(call0(library, "plain_value") == 41);
    }
    CHECK(memdl_set_debug(library, (memdl_debug)99) == -1);
    CHECK_ERROR("memdl_debug 99");
    CHECK(memdl_set_debug(NULL, MEMDL_DEBUG_FULL) == -1);
    CHECK_ERROR("the library is null");
    CHECK(memdl_close(library) == 0);

    CHECK(memdl_options_set_debug_info(options, "\x7f" "ELF", 4) == 0);
    CHECK(memdl_open(plain->bytes, plain->len, options) == NULL);
    CHECK_ERROR("the separate debug information is not this image's");
    memdl_options_free(options);

    options = memdl_options_new();
    CHECK(memdl_options_set_debug(options, MEMDL_DEBUG_OFF) == 0);
    library = memdl_open(plain->bytes, plain->len, options);
    CHECK(library != NULL && memdl_set_debug(library, MEMDL_DEBUG_FULL) == -1);
    CHECK_ERROR("were not kept");
    CHECK(memdl_set_debug(library, MEMDL_DEBUG_SYMBOLS) == 0);
    CHECK(memdl_set_debug_info(library, "\x7f" "ELF", 4) == -1);
    CHECK_ERROR("the separate debug information is not this image's");
    CHECK(memdl_set_debug_info(library, NULL, 4) == -1);
    CHECK_ERROR("the bytes are null");
    CHECK(memdl_set_debug_info(NULL, plain->bytes, plain->len) == -1);
    CHECK_ERROR("the library is null");
    CHECK(memdl_set_debug(library, MEMDL_DEBUG_FULL) == -1);
    CHECK(memdl_set_debug_info(library, plain->bytes, plain->len) == 0);
    CHECK(memdl_set_debug(library, MEMDL_DEBUG_FULL) == 0);
    CHECK(memdl_close(library) == 0);
    memdl_options_free(options);
}

/* ---- What operators see ---- */

struct listed {
    memdl_image_info last;
    char name[32];
    size_t count, stop;
    memdl_library *closes;
};

static int see_image(const memdl_image_info *image, void *user) {
    struct listed *listed = user;
    listed->last = *image;
    CHECK(strlen(image->name) < sizeof listed->name && image->start < image->end);
    CHECK((image->build_id == NULL) == (image->build_id_len == 0));
    strcpy(listed->name, image->name);
    /* No lock is held. */
    if (listed->closes != NULL) {
        CHECK(memdl_close(listed->closes) == 0);
        listed->closes = NULL;
    }
    return ++listed->count == listed->stop ? 7 : 0;
}

static void test_images(const struct file *plain) {
    struct listed listed;
    memset(&listed, 0, sizeof listed);
    /* Some stay for their threads, or for the process. */
    CHECK(memdl_images(see_image, &listed) == 0);
    const size_t others = listed.count;
    memdl_options *options = memdl_options_new();
    CHECK(memdl_options_set_name(options, "listed") == 0);
    CHECK(memdl_options_set_debug(options, MEMDL_DEBUG_SYMBOLS) == 0);
    memdl_statistics before, after;
    CHECK(memdl_get_statistics(&before, sizeof before) == 0 && before.images == others);
    memdl_library *library = memdl_open(plain->bytes, plain->len, options);
    CHECK(library != NULL && memdl_get_debug(library) == MEMDL_DEBUG_SYMBOLS);
    int (*value)(void) = (int (*)(void))memdl_sym_function(library, "plain_value");
    CHECK(value != NULL && memdl_sym_function(library, "nothing") == NULL);
    CHECK_ERROR("no symbol `nothing`");
    listed.count = 0;
    CHECK(memdl_images(see_image, &listed) == 0 && listed.count == others + 1);
    uintptr_t start, end;
    CHECK(memdl_address_range(library, &start, &end) == 0);
    CHECK(listed.last.start == start && listed.last.end == end && strcmp(listed.name, "listed") == 0);
    CHECK(listed.last.load_bias == memdl_load_bias(library) && listed.last.holders == 1);
    CHECK(listed.last.debug == MEMDL_DEBUG_SYMBOLS && listed.last.template_id == 0);
    CHECK(listed.last.build_id_len == 20); /* plain.c is linked with one */
    CHECK(memdl_get_statistics(&after, sizeof after) == 0 && after.images == others + 1);
    CHECK(after.loads == before.loads + 1 && after.unloads == before.unloads);
    CHECK(after.mapped_bytes == before.mapped_bytes + (end - start));

    /* Instances, and the list's end. */
    memdl_template *tmpl = memdl_prepare(plain->bytes, plain->len, options);
    memdl_options_free(options);
    memdl_library *one = memdl_instantiate(tmpl), *two = memdl_instantiate(tmpl);
    CHECK(one && two && memdl_template_id(tmpl) != 0);
    memset(&listed, 0, sizeof listed);
    CHECK(memdl_images(see_image, &listed) == 0 && listed.count == others + 3);
    CHECK(listed.last.template_id == memdl_template_id(tmpl));
    uint64_t load = listed.last.load;
    memset(&listed, 0, sizeof listed);
    listed.stop = others + 2;
    CHECK(memdl_images(see_image, &listed) == 7 && listed.count == others + 2);
    CHECK(listed.last.template_id == memdl_template_id(tmpl) && listed.last.load == load - 1);
    memdl_template_free(tmpl);

    /* The list is a snapshot. */
    memset(&listed, 0, sizeof listed);
    listed.closes = two;
    CHECK(memdl_images(see_image, &listed) == 0 && listed.count == others + 3);
    CHECK(memdl_close(one) == 0 && memdl_close(library) == 0);
    memset(&listed, 0, sizeof listed);
    CHECK(memdl_images(see_image, &listed) == 0 && listed.count == others);

    /* Failures; a host that knows less, and one that knows more. */
    memdl_error();
    CHECK(memdl_open(plain->bytes, 100, NULL) == NULL && memdl_error() != NULL);
    struct {
        memdl_statistics known;
        uint64_t unknown;
    } later;
    memset(&later, 0xff, sizeof later);
    CHECK(memdl_get_statistics(&later.known, sizeof later) == 0);
    CHECK(later.known.failures == before.failures + 1 && later.unknown == 0);
    CHECK(later.known.loads == before.loads + 3 && later.known.unloads == before.unloads + 3);
    memset(&after, 0xff, sizeof after);
    CHECK(memdl_get_statistics(&after, 2 * sizeof(uint64_t)) == 0);
    CHECK(after.images == others && after.mapped_bytes == before.mapped_bytes);
    CHECK(after.failures == (uint64_t)-1);

    CHECK(memdl_images(NULL, NULL) == -1);
    CHECK_ERROR("the callback is null");
    CHECK(memdl_get_statistics(NULL, 8) == -1);
    CHECK_ERROR("the statistics are null");
    CHECK(memdl_get_debug(NULL) == -1);
    CHECK_ERROR("the library is null");
    CHECK(memdl_template_id(NULL) == 0);
    CHECK_ERROR("the template is null");
}

struct heard {
    int count, level, freed;
    char text[256];
};

static void hear(int level, const char *text, void *user) {
    struct heard *heard = user;
    heard->count++;
    heard->level = level;
    snprintf(heard->text, sizeof heard->text, "%s", text);
    /* No lock is held. */
    memdl_statistics statistics;
    CHECK(memdl_get_statistics(&statistics, sizeof statistics) == 0);
}

static void free_heard(void *user) { ((struct heard *)user)->freed++; }

/* A report on plain.c's library: nothing is loaded. */
static void test_report(const struct file *plain) {
    memdl_statistics before, after;
    CHECK(memdl_get_statistics(&before, sizeof before) == 0);
    memdl_report *report = memdl_inspect(plain->bytes, plain->len, NULL);
    CHECK(report != NULL && memdl_report_is_refused(report) == 0);
    CHECK(memdl_report_refusal(report, 0) == NULL && memdl_report_is_complete(report) == 1);
    CHECK(strcmp(memdl_report_machine(report), "x86-64") == 0);
    CHECK(memdl_report_is_for_this_machine(report) == 1 && memdl_report_unloads(report) == 1);
    CHECK(memdl_report_has_unique_symbols(report) == 0);
    size_t len = 0;
    CHECK(memdl_report_build_id(report, &len) != NULL && len == 20);
    CHECK(strstr(memdl_report_text(report), "can be loaded") != NULL);
    CHECK(memdl_report_name(report)[0] != 0);
    int libc = 0, exported = 0, function = 0, build_id = 0;
    for (size_t i = 0; memdl_report_needed(report, i); i++) {
        const memdl_needed *needed = memdl_report_needed(report, i);
        if (strcmp(needed->name, "libc.so.6")) continue;
        CHECK(needed->is_direct && needed->origin == MEMDL_ORIGIN_IN_PROCESS);
        CHECK(strstr(needed->detail, "/libc.so.6") != NULL);
        libc++;
    }
    for (size_t i = 0; memdl_report_export(report, i); i++) exported++;
    for (size_t i = 0; memdl_report_function(report, i); i++) {
        const memdl_function_symbol *found = memdl_report_function(report, i);
        CHECK(found->name[0] != 0 && (found->value != 0 || !found->is_defined));
        function++;
    }
    for (size_t i = 0; memdl_report_note(report, i); i++) {
        const memdl_note *note = memdl_report_note(report, i);
        if (note->kind == 3 && strcmp(note->owner, "GNU") == 0) build_id += note->description_len == 20;
    }
    for (size_t i = 0; memdl_report_import(report, i); i++) {
        const memdl_import *import = memdl_report_import(report, i);
        CHECK(import->index != 0 && import->binding != MEMDL_IMPORT_MISSING);
    }
    for (size_t i = 0; memdl_report_needed_version(report, i); i++) {
        const memdl_needed_version *needed = memdl_report_needed_version(report, i);
        CHECK(needed->library[0] != 0 && needed->version[0] != 0 && !needed->is_weak);
    }
    uint64_t relocations = 0;
    for (size_t i = 0; memdl_report_relocation_type(report, i); i++) {
        const memdl_relocation_type *type = memdl_report_relocation_type(report, i);
        CHECK(strncmp(type->name, "R_", 2) == 0 && type->number != 0 && type->is_supported);
        relocations += type->count;
    }
    CHECK(relocations > 0 && memdl_report_relocation_type(report, (size_t)-1) == NULL);
    int kinds = 0;
    while (memdl_report_debug_information(report, (size_t)kinds)) kinds++;
    CHECK(kinds > 0 && memdl_report_isa_level(report, 4) == NULL);
    CHECK(memdl_report_defined_version(report, 0) == NULL && memdl_report_soname(report) == NULL);
    CHECK(libc <= 1 && exported > 0 && function > 0 && build_id == 1);
    CHECK(memdl_report_export(report, (size_t)-1) == NULL);
    memdl_report_free(report);

    /* For another machine: RISC-V, by its number. */
    unsigned char *theirs = malloc(plain->len);
    CHECK(theirs != NULL);
    memcpy(theirs, plain->bytes, plain->len);
    theirs[18] = 243;
    theirs[19] = 0;
    report = memdl_inspect(theirs, plain->len, NULL);
    CHECK(report && memdl_report_is_refused(report) == 1);
    CHECK(strcmp(memdl_report_machine(report), "RISC-V") == 0);
    CHECK(memdl_report_is_for_this_machine(report) == 0);
    CHECK(strstr(memdl_report_refusal(report, 0), "an image for RISC-V; this process is ") != NULL);
    CHECK(memdl_report_refusal_on_its_machine(report, 0) == NULL);
    CHECK(memdl_report_relocation_type(report, 0) == NULL);
    memdl_report_free(report);
    free(theirs);

    /* Refused ones, and null. */
    report = memdl_inspect("#!/bin/sh", 9, NULL);
    CHECK(report && memdl_report_is_refused(report) == 1 && memdl_report_machine(report) == NULL);
    CHECK(strstr(memdl_report_refusal(report, 0), "a script") && !memdl_report_refusal(report, 1));
    uint64_t size = 7;
    CHECK(memdl_report_thread_local_storage(report, &size, NULL, NULL) == 0 && size == 7);
    memdl_report_free(report);
    memdl_report_free(NULL);
    CHECK(memdl_inspect(NULL, 0, NULL) == NULL);
    CHECK_ERROR("the bytes are null");
    CHECK(memdl_report_is_refused(NULL) == -1);
    CHECK_ERROR("the report is null");
    CHECK(memdl_report_name(NULL) == NULL);
    CHECK_ERROR("the report is null");
    CHECK(memdl_get_statistics(&after, sizeof after) == 0 && after.loads == before.loads);
    CHECK(after.failures == before.failures);
}

static void test_log(const struct file *plain) {
    struct heard first, second;
    memset(&first, 0, sizeof first);
    memset(&second, 0, sizeof second);
    CHECK(memdl_set_log(MEMDL_LOG_DEBUG, hear, &first, free_heard) == 0);
    memdl_library *library = memdl_open(plain->bytes, plain->len, NULL);
    CHECK(library && first.count == 1 && first.level == MEMDL_LOG_DEBUG);
    CHECK(strstr(first.text, ": loaded at 0x") && strstr(first.text, " ms"));
    CHECK(memdl_set_log(MEMDL_LOG_INFO, hear, &second, free_heard) == 0 && first.freed == 1);
    CHECK(memdl_close(library) == 0 && first.count == 1 && second.count == 0);
    CHECK(memdl_set_log(MEMDL_LOG_TRACE, NULL, NULL, NULL) == 0 && second.freed == 1);
    CHECK(memdl_open(plain->bytes, 100, NULL) == NULL && memdl_error() != NULL);
    CHECK(first.count == 1 && second.count == 0);

    CHECK(memdl_set_log((memdl_log_level)99, hear, &second, free_heard) == -1);
    CHECK_ERROR("no memdl_log_level 99");
    CHECK(second.freed == 2);
    CHECK(memdl_set_log(MEMDL_LOG_OFF, hear, &first, NULL) == 0);
    CHECK(memdl_open(plain->bytes, 100, NULL) == NULL && memdl_error() != NULL && first.count == 1);
    CHECK(memdl_set_log(MEMDL_LOG_OFF, NULL, NULL, NULL) == 0 && first.freed == 1);
}

enum { LOGGERS = 100 };

/* What loggers that are set one after the other heard. */
struct heard_of {
    int heard, heard_late, freed;
};
static struct heard_of loggers[LOGGERS];
static int loggers_done;

static void hear_in_turn(int level, const char *text, void *user) {
    struct heard_of *logger = user;
    (void)level;
    (void)text;
    __atomic_add_fetch(&logger->heard, 1, __ATOMIC_SEQ_CST);
    sched_yield();
    /* The context is freed after the last call only. */
    __atomic_add_fetch(&logger->heard_late, __atomic_load_n(&logger->freed, __ATOMIC_SEQ_CST),
                       __ATOMIC_SEQ_CST);
}

static void free_in_turn(void *user) {
    __atomic_add_fetch(&((struct heard_of *)user)->freed, 1, __ATOMIC_SEQ_CST);
}

static void *load_in_thread(void *user) {
    const struct file *plain = user;
    while (!__atomic_load_n(&loggers_done, __ATOMIC_SEQ_CST)) {
        memdl_library *library = memdl_open(plain->bytes, plain->len, NULL);
        CHECK(library && memdl_close(library) == 0);
    }
    return NULL;
}

/* The logger can be replaced while threads are in it. */
static void test_log_in_threads(struct file *plain) {
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) CHECK(pthread_create(&threads[i], NULL, load_in_thread, plain) == 0);
    for (int i = 0; i < LOGGERS; i++) {
        CHECK(memdl_set_log(MEMDL_LOG_DEBUG, hear_in_turn, &loggers[i], free_in_turn) == 0);
        while (!__atomic_load_n(&loggers[i].heard, __ATOMIC_SEQ_CST)) sched_yield();
    }
    CHECK(memdl_set_log(MEMDL_LOG_OFF, NULL, NULL, NULL) == 0);
    __atomic_store_n(&loggers_done, 1, __ATOMIC_SEQ_CST);
    for (int i = 0; i < 2; i++) CHECK(pthread_join(threads[i], NULL) == 0);
    for (int i = 0; i < LOGGERS; i++)
        CHECK(loggers[i].heard > 0 && loggers[i].heard_late == 0 && loggers[i].freed == 1);
}

/* ---- What a host allows ---- */

struct policy {
    const char *refuses;
    int seen, freed;
};

static int verifier(const memdl_image *image, const char **reason, void *user) {
    struct policy *policy = user;
    policy->seen++;
    CHECK(image->len > 4 && memcmp(image->bytes, "\177ELF", 4) == 0);
    if (policy->refuses == NULL || strcmp(image->name, policy->refuses) != 0) return 0;
    if (image->name[0] == 'i') *reason = "not signed";
    return 5;
}

static int filter(const memdl_request *request, void *user) {
    ((struct policy *)user)->seen++;
    return strcmp(request->name, "__tls_get_addr") != 0;
}

static void free_policy(void *user) { ((struct policy *)user)->freed++; }

static void test_policy(const struct file *plugin, const struct file *plain,
                        const struct file *dependent) {
    static const char *names[] = {"__tls_get_addr", "malloc"};
    struct policy policy = {NULL, 0, 0};
    memdl_options *options = memdl_options_new();
    CHECK(memdl_options_set_verifier(options, verifier, &policy, free_policy) == 0);
    CHECK(memdl_options_provide(options, "libplain.so", plain->bytes, plain->len) == 0);
    memdl_library *library = memdl_open(dependent->bytes, dependent->len, options);
    CHECK(library != NULL && policy.seen == 2);
    policy.refuses = "image";
    CHECK(memdl_open(dependent->bytes, dependent->len, options) == NULL);
    CHECK_ERROR("image: refused by the verifier: not signed");
    policy.refuses = "libplain.so";
    CHECK(memdl_open(dependent->bytes, dependent->len, options) == NULL);
    CHECK_ERROR("libplain.so: refused by the verifier: it gives no reason");
    memdl_options_free(options);
    /* The library could still open something. */
    CHECK(policy.freed == 0);
    CHECK(memdl_close(library) == 0 && policy.freed == 1);

    options = memdl_options_new();
    CHECK(memdl_options_deny_imports(options, names, 2) == 0);
    CHECK(memdl_open(plugin->bytes, plugin->len, options) == NULL);
    CHECK_ERROR("does not allow these imports: __tls_get_addr");
    CHECK(memdl_options_allow_imports(options, names + 1, 1) == 0);
    CHECK(memdl_open(plugin->bytes, plugin->len, options) == NULL);
    CHECK_ERROR("does not allow these imports: __tls_get_addr");
    CHECK(memdl_options_allow_imports(options, names, 2) == 0);
    CHECK(memdl_open(plugin->bytes, plugin->len, options) == NULL);
    CHECK_ERROR("undefined symbols");
    policy.seen = policy.freed = 0;
    CHECK(memdl_options_filter_imports(options, filter, &policy, free_policy) == 0);
    CHECK(memdl_open(plugin->bytes, plugin->len, options) == NULL);
    CHECK_ERROR("does not allow these imports: __tls_get_addr");
    CHECK(policy.seen > 0 && policy.freed == 0);
    CHECK(memdl_options_filter_imports(options, NULL, &policy, free_policy) == 0);
    CHECK(policy.freed == 2);
    CHECK(memdl_options_set_verifier(options, verifier, &policy, NULL) == 0);
    CHECK(memdl_options_set_verifier(options, NULL, NULL, NULL) == 0);
    CHECK(memdl_options_allow_imports(options, NULL, 0) == 0);
    CHECK(memdl_options_allow_imports(options, NULL, 1) == -1);
    CHECK_ERROR("the names are null");

    CHECK(memdl_options_set_seal(options, 1) == 0);
    library = memdl_open(plain->bytes, plain->len, options);
    if (library == NULL) {
        CHECK_ERROR("mseal needs Linux 6.10");
    } else {
        CHECK(memdl_is_sealed(library) == 1 && call0(library, "plain_value") == 41);
        CHECK(memdl_close(library) == -1);
        CHECK_ERROR("stays for the life of the process");
    }
    CHECK(memdl_options_set_seal(options, 0) == 0);
    library = memdl_open(plain->bytes, plain->len, options);
    CHECK(library != NULL && memdl_is_sealed(library) == 0 && memdl_close(library) == 0);
    CHECK(memdl_is_sealed(NULL) == -1);
    CHECK_ERROR("the library is null");
    memdl_options_free(options);
}

/* ---- Errors ---- */

static void test_null(const struct file *plain) {
    CHECK(memdl_open(NULL, 10, NULL) == NULL);
    CHECK_ERROR("the bytes are null");
    CHECK(memdl_open(plain->bytes, (size_t)-1, NULL) == NULL);
    CHECK_ERROR("memory");
    CHECK(memdl_open("", 0, NULL) == NULL);
    CHECK_ERROR("malformed");
    CHECK(memdl_open_buffer(NULL, NULL) == NULL);
    CHECK_ERROR("the buffer is null");
    CHECK(memdl_close(NULL) == -1);
    CHECK_ERROR("the library is null");
    CHECK(memdl_prepare(NULL, 0, NULL) == NULL);
    CHECK_ERROR("the bytes are null");
    CHECK(memdl_instantiate(NULL) == NULL);
    CHECK_ERROR("the template is null");
    CHECK(memdl_pool_new(NULL, 1, MEMDL_RESET_AFTER_CONSTRUCTORS) == NULL);
    CHECK_ERROR("the template is null");
    CHECK(memdl_pool_acquire(NULL) == NULL);
    CHECK_ERROR("the pool is null");
    CHECK(memdl_pool_parked(NULL) == 0);
    CHECK_ERROR("the pool is null");
    CHECK(memdl_buffer_data(NULL) == NULL);
    CHECK_ERROR("the buffer is null");
    CHECK(memdl_buffer_size(NULL) == 0);
    CHECK_ERROR("the buffer is null");
    CHECK(memdl_sym(NULL, "x") == NULL);
    CHECK_ERROR("the library is null");
    CHECK(memdl_symv(NULL, "x", "y") == NULL);
    CHECK_ERROR("the library is null");
    CHECK(memdl_functions(NULL, see_function, NULL) == -1);
    CHECK_ERROR("the library is null");
    CHECK(memdl_symbols(NULL, see, NULL) == -1);
    CHECK_ERROR("the library is null");
    CHECK(memdl_symbol_at(NULL, plain) == NULL);
    CHECK_ERROR("the library is null");
    CHECK(memdl_name(NULL) == NULL);
    CHECK_ERROR("the library is null");
    CHECK(memdl_soname(NULL) == NULL);
    CHECK_ERROR("the library is null");
    CHECK(memdl_load_bias(NULL) == 0);
    CHECK_ERROR("the library is null");
    CHECK(memdl_address_range(NULL, NULL, NULL) == -1);
    CHECK_ERROR("the library is null");
    CHECK(memdl_options_set_name(NULL, "x") == -1);
    CHECK_ERROR("the options are null");

    memdl_options *options = memdl_options_new();
    CHECK(memdl_options_set_name(options, NULL) == -1);
    CHECK_ERROR("a string is null");
    CHECK(memdl_options_define(options, NULL, NULL) == -1);
    CHECK_ERROR("a string is null");
    CHECK(memdl_options_depends_on(options, NULL) == -1);
    CHECK_ERROR("the library is null");
    CHECK(memdl_options_provide(options, "x", NULL, 1) == -1);
    CHECK_ERROR("the bytes are null");
    memdl_options_free(options);

    memdl_library *library = memdl_open(plain->bytes, plain->len, NULL);
    CHECK(memdl_sym(library, NULL) == NULL);
    CHECK_ERROR("a string is null");
    CHECK(memdl_symv(library, "plain_value", NULL) == NULL);
    CHECK_ERROR("a string is null");
    /* Success does not clear an error, reading does. */
    CHECK(memdl_sym(library, "nothing") == NULL);
    CHECK(memdl_sym(library, "plain_value") != NULL);
    CHECK_ERROR("nothing");
    CHECK(memdl_close(library) == 0);
}

struct thread_errors {
    memdl_library *library;
    pthread_barrier_t *barrier;
    const char *name;
};

static void *fail_in_thread(void *argument) {
    struct thread_errors *self = argument;
    for (int round = 0; round < 100; round++) {
        CHECK(memdl_error() == NULL);
        CHECK(memdl_sym(self->library, self->name) == NULL);
        pthread_barrier_wait(self->barrier); /* both have failed, nobody has asked */
        const char *text = memdl_error();
        CHECK(text != NULL && strstr(text, self->name) != NULL);
        pthread_barrier_wait(self->barrier); /* both have asked */
        CHECK(strstr(text, self->name) != NULL);
    }
    return NULL;
}

static void test_thread_errors(const struct file *plain) {
    pthread_barrier_t barrier;
    CHECK(pthread_barrier_init(&barrier, NULL, 2) == 0);
    memdl_library *library = memdl_open(plain->bytes, plain->len, NULL);
    struct thread_errors a = {library, &barrier, "asked_by_a"};
    struct thread_errors b = {library, &barrier, "asked_by_b"};
    pthread_t threads[2];
    CHECK(memdl_sym(library, "asked_by_main") == NULL);
    CHECK(pthread_create(&threads[0], NULL, fail_in_thread, &a) == 0);
    CHECK(pthread_create(&threads[1], NULL, fail_in_thread, &b) == 0);
    CHECK(pthread_join(threads[0], NULL) == 0 && pthread_join(threads[1], NULL) == 0);
    CHECK_ERROR("asked_by_main");
    pthread_barrier_destroy(&barrier);
    CHECK(memdl_close(library) == 0);
}

static void test_failures_leave_nothing(const struct file *plugin, const struct file *dependent) {
    /* Once before counting: allocators keep what they have. */
    for (int round = 0, before = 0; round < 20; round++) {
        CHECK(memdl_open(plugin->bytes, plugin->len, NULL) == NULL);
        CHECK_ERROR("capi_resolved");
        CHECK(memdl_open(plugin->bytes, plugin->len / 2, NULL) == NULL);
        CHECK(memdl_open(plugin->bytes, 64, NULL) == NULL);
        CHECK(memdl_open(dependent->bytes, dependent->len, NULL) == NULL);
        memdl_buffer *buffer = memdl_buffer_new(plugin->len);
        memcpy(memdl_buffer_data(buffer), plugin->bytes, plugin->len);
        CHECK(memdl_open_buffer(buffer, NULL) == NULL);
        CHECK_ERROR("capi_resolved");
        if (round == 0) before = count_maps();
        CHECK(count_maps() == before);
    }
}

int main(int argc, char **argv) {
    CHECK(argc == 5);
    CHECK(memdl_error() == NULL);
    struct file plugin = read_file(argv[1]);
    struct file plain = read_file(argv[2]), dependent = read_file(argv[3]);
    struct file leaves = read_file(argv[4]);
    test_library(&plugin);
    test_buffer(&plain);
    test_buffer_resize(&plain);
    test_version();
    test_error_codes(&plain, &dependent);
    test_template(&plugin);
    test_template_of_a_buffer(&plain);
    test_pool(&plugin);
    test_needed(&plain, &dependent);
    test_namespace(&plain, &dependent);
    test_leaving(&leaves);
    test_options(&plain);
    test_kept_memory(&plain);
    test_debug(&plain);
    test_images(&plain);
    test_report(&plain);
    test_log(&plain);
    test_log_in_threads(&plain);
    test_policy(&plugin, &plain, &dependent);
    test_null(&plain);
    test_thread_errors(&plain);
    test_failures_leave_nothing(&plugin, &dependent);
    CHECK(memdl_error() == NULL);
    free(plugin.bytes);
    free(plain.bytes);
    free(dependent.bytes);
    free(leaves.bytes);
    puts("all of memdl.h works");
    return 0;
}
