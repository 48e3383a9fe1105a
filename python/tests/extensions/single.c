/* An extension module with single-phase initialisation. -DNAME=x, -DSIZE=-1 or 0. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#define STRING2(x) #x
#define STRING(x) STRING2(x)
#define JOIN2(a, b) a##b
#define JOIN(a, b) JOIN2(a, b)

static int initialisations;
static struct PyModuleDef definition;

static PyObject *answer(PyObject *self, PyObject *unused) { return PyLong_FromLong(42); }

/* The module that CPython has for the definition. */
static PyObject *state_module(PyObject *self, PyObject *unused) {
    PyObject *module = PyState_FindModule(&definition);
    if (!module) module = Py_None;
    Py_INCREF(module);
    return module;
}

static PyMethodDef methods[] = {
    {"answer", answer, METH_NOARGS, "42."},
    {"state_module", state_module, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, STRING(NAME), "Single-phase.", SIZE, methods};

PyMODINIT_FUNC JOIN(PyInit_, NAME)(void) {
    PyObject *module = PyModule_Create(&definition);
    if (!module) return NULL;
    PyModule_AddIntConstant(module, "initialisations", ++initialisations);
    return module;
}
