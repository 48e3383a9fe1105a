/* An extension module with multi-phase initialisation. -DINIT=PyInit_x; -DNEEDS: it needs libvendored.so. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

int vendored_value(void);

static PyObject *answer(PyObject *self, PyObject *unused) {
#ifdef NEEDS
    return PyLong_FromLong(vendored_value());
#else
    return PyLong_FromLong(42);
#endif
}

static int execute(PyObject *module) {
    static int executions;
    return PyModule_AddIntConstant(module, "executions", ++executions);
}

static PyMethodDef methods[] = {{"answer", answer, METH_NOARGS, "42."}, {NULL, NULL, 0, NULL}};
static PyModuleDef_Slot slots[] = {{Py_mod_exec, execute}, {0, NULL}};
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "multi", "Multi-phase.", 0, methods, slots};

PyMODINIT_FUNC INIT(void) { return PyModuleDef_Init(&definition); }
