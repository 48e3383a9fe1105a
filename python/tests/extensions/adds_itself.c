/* An extension module with single-phase initialisation that adds itself to the interpreter's state. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "adds_itself", NULL, 0, NULL};

PyMODINIT_FUNC PyInit_adds_itself(void) {
    PyObject *module = PyModule_Create(&definition);
    if (!module || PyState_AddModule(module, &definition) < 0) return NULL;
    PyModule_AddIntConstant(module, "is_known", PyState_FindModule(&definition) == module);
    return module;
}
