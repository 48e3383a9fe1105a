// A node of a graph of libraries: `SELF` calls the functions of those that it needs, and it notes
// its beginning and its end on descriptor 199, if there is one.
#include <string.h>
#include <unistd.h>
#define TEXT_OF(name) #name
#define TEXT(name) TEXT_OF(name)

static void note(const char *text) {
    if (write(199, text, strlen(text)) < 0)
        return;
}
__attribute__((constructor)) static void construct(void) { note("+" TEXT(SELF) " "); }
__attribute__((destructor)) static void destruct(void) { note("-" TEXT(SELF) " "); }

static int calls;
#ifdef NEED_1
int NEED_1(int);
#else
#define NEED_1(depth) 0
#endif
#ifdef NEED_2
int NEED_2(int);
#else
#define NEED_2(depth) 0
#endif
#ifdef NEED_3
int NEED_3(int);
#else
#define NEED_3(depth) 0
#endif

// How many calls there are on all ways from here that are no longer than `depth`.
int SELF(int depth) {
    calls++;
    return depth == 0 ? 1 : 1 + NEED_1(depth - 1) + NEED_2(depth - 1) + NEED_3(depth - 1);
}
int SELF_CALLS(void) { return calls; }
#ifdef COMMON
// All such nodes define it: which of them is bound to?
int common_name(void) { return *TEXT(SELF); }
int whose_common_name(void) { return common_name(); }
#endif
