/* A host that stands in for LeakSanitizer and libgc, and notes exactly what they are told.
 * roots_noted LIBRARY LIBRARY_THAT_CANNOT_BE_LOADED */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "memdl.h"

#define CHECK(what) do { if (!(what)) { printf("line %d: %s\n", __LINE__, #what); exit(1); } } while (0)

static struct range { uintptr_t start, end; } noted[2][4096];
static int count[2];

static void add(int which, const void *start, uintptr_t end) {
    CHECK(end > (uintptr_t)start && count[which] < 4096);
    noted[which][count[which]++] = (struct range){(uintptr_t)start, end};
}

/* Each is removed as it was added, once: LeakSanitizer ends the process otherwise. */
static void forget(int which, const void *start, uintptr_t end) {
    for (int i = 0; i < count[which]; i++) {
        if (noted[which][i].start == (uintptr_t)start && noted[which][i].end == end) {
            noted[which][i] = noted[which][--count[which]];
            return;
        }
    }
    CHECK(!"was registered");
}

void __lsan_register_root_region(const void *start, size_t len) { add(0, start, (uintptr_t)start + len); }
void __lsan_unregister_root_region(const void *start, size_t len) { forget(0, start, (uintptr_t)start + len); }
void GC_add_roots(void *start, void *end) { add(1, start, (uintptr_t)end); }
void GC_remove_roots(void *start, void *end) { forget(1, start, (uintptr_t)end); }

/* How many of the two know a range with this address. */
static int known(const void *address) {
    int both = 0;
    for (int which = 0; which < 2; which++)
        for (int i = 0; i < count[which]; i++)
            if (noted[which][i].start <= (uintptr_t)address && (uintptr_t)address < noted[which][i].end) {
                both++;
                break;
            }
    return both;
}

static char *file, *broken;
static size_t len, broken_len;
static memdl_template *template;
static memdl_pool *pool;

static char *read_file(const char *path, size_t *size) {
    FILE *stream = fopen(path, "rb");
    CHECK(stream);
    fseek(stream, 0, SEEK_END);
    *size = ftell(stream);
    rewind(stream);
    char *bytes = malloc(*size);
    CHECK(bytes && fread(bytes, 1, *size, stream) == *size);
    fclose(stream);
    return bytes;
}

static memdl_library *open_in(int way) {
    if (way == 0) return memdl_open(file, len, NULL);
    if (way == 1) {
        memdl_buffer *buffer = memdl_buffer_new(len);
        memcpy(memdl_buffer_data(buffer), file, len);
        return memdl_open_buffer(buffer, NULL);
    }
    return way == 2 ? memdl_instantiate(template) : memdl_pool_acquire(pool);
}

static void *(*address_of)(int);

static void *in_thread(void *unused) {
    (void)unused;
    CHECK(known(address_of('t')) == 2);
    return address_of('t');
}

static void one_way(int way) {
    memdl_library *library = open_in(way);
    CHECK(library);
    *(void **)&address_of = memdl_sym(library, "address");
    void *data = address_of('d'), *bss = address_of('b'), *own = address_of('t');
    CHECK(known(data) == 2 && known(bss) == 2 && known(own) == 2);
    CHECK(known(*(void **)&address_of) == 0);

    int before[2] = {count[0], count[1]};
    pthread_t thread;
    void *of_thread;
    pthread_create(&thread, NULL, in_thread, NULL);
    pthread_join(thread, &of_thread);
    CHECK(of_thread != own && known(of_thread) == 0);
    CHECK(count[0] == before[0] && count[1] == before[1]);

    /* A failed load leaves none. */
    CHECK(!memdl_open(broken, broken_len, NULL) && !memdl_open(file, len / 2, NULL));
    CHECK(count[0] == before[0] && count[1] == before[1]);

    memdl_close(library);
    /* An idle instance is still there; its threads' blocks are not. */
    CHECK(known(data) == (way == 3 ? 2 : 0) && known(own) == 0);
}

int main(int argc, char **argv) {
    CHECK(argc == 3);
    file = read_file(argv[1], &len);
    broken = read_file(argv[2], &broken_len);
    CHECK(template = memdl_prepare(file, len, NULL));
    pool = memdl_pool_new(template, 2, MEMDL_RESET_AFTER_CONSTRUCTORS);
    int after[2] = {0, 0};
    for (int turn = 0; turn < 40; turn++) {
        one_way(turn % 3);
        /* What is left is the main thread's own area, once. */
        if (turn == 0) after[0] = count[0], after[1] = count[1];
        CHECK(count[0] == after[0] && count[1] == after[1] && count[0] <= 1 && count[1] <= 1);
    }
    for (int turn = 0; turn < 3; turn++) one_way(3);
    memdl_pool_free(pool);
    CHECK(count[0] == after[0] && count[1] == after[1]);
    puts("all was removed");
    return 0;
}
