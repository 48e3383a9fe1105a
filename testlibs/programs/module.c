// An extension module. Linked to libpython, as many are, its `DT_NEEDED` names it; or it has
// libraries of its own beside it. The declarations are those of Python.h, 3.11.
#include <stddef.h>

typedef struct object Object;

typedef struct {
    const char *name;
    Object *(*call)(Object *, Object *);
    int flags;
    const char *doc;
} Method;

typedef struct {
    struct {
        ptrdiff_t references;
        void *type;
        Object *(*init)(void);
        ptrdiff_t index;
        Object *copy;
    } base;
    const char *name, *doc;
    ptrdiff_t size;
    Method *methods;
    void *slots, *traverse, *clear, *free;
} Definition;

Object *PyModule_Create2(Definition *, int);
Object *PyLong_FromLong(long);
Object *PyErr_Format(Object *, const char *, ...);
extern Object *PyExc_KeyError;
const char *Py_GetVersion(void);

static int count;

int calls(void) { return count; }

static Object *add(Object *self, Object *none) {
    if (++count == 3) return PyErr_Format(PyExc_KeyError, "three");
    return PyLong_FromLong(count);
}

static Object *version(Object *self, Object *none) {
    return PyLong_FromLong((long)Py_GetVersion);
}

#if HELPERS
long helped_plainly(long);
static Object *plain(Object *self, Object *none) { return PyLong_FromLong(helped_plainly(14)); }
#endif
#if HELPERS > 1
long helped(Object *);
static Object *twice(Object *self, Object *number) { return PyLong_FromLong(helped(number)); }
#endif

static Method methods[] = {
    {"add", add, 4, 0},
    {"version", version, 4, 0},
#if HELPERS
    {"plain", plain, 4, 0},
#endif
#if HELPERS > 1
    {"twice", twice, 8, 0},
#endif
    {0},
};
static Definition module = {{1}, "linked", 0, -1, methods};

Object *PyInit_linked(void) { return PyModule_Create2(&module, 1013); }
