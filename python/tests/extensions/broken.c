/* Extension modules whose initialisation goes wrong, in the ways that CPython tells apart. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

PyMODINIT_FUNC PyInit_raises(void) {
    PyErr_SetString(PyExc_ValueError, "raised by the module");
    return NULL;
}

PyMODINIT_FUNC PyInit_returns_null(void) { return NULL; }

PyMODINIT_FUNC PyInit_raises_and_returns(void) {
    static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "raises_and_returns", NULL, -1, NULL};
    PyObject *module = PyModule_Create(&definition);
    PyErr_SetString(PyExc_ValueError, "raised by the module");
    return module;
}

PyMODINIT_FUNC PyInit_no_module(void) { return PyLong_FromLong(1); }

PyMODINIT_FUNC PyInit_uninitialized(void) {
    static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "uninitialized", NULL, 0, NULL};
    return (PyObject *)&definition;
}
