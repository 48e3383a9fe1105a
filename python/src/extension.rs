//! Extension modules: calls `PyInit_NAME` as CPython does.
//!
//! A module with multi-phase initialisation (PEP 489) returns its definition, and importlib goes on from there. One
//! with single-phase initialisation returns the module. It does not know its package: CPython tells
//! `PyModule_Create2` its full name by a variable that is private since Python 3.12. Here extension modules get a
//! `PyModule_Create2` that passes the full name on.
//!
//! Source: CPython `Python/importdl.c`, `Python/import.c` (`_PyImport_FixupExtensionObject`), `Objects/moduleobject.c`.

#![allow(unsafe_code)]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_int, c_void};
use std::mem::replace;
use std::ptr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::exceptions::PySystemError;
use pyo3::prelude::*;
use pyo3::types::PyString;
use pyo3::{PyTypeInfo, ffi};

use crate::library::Image;

thread_local! {
    /// The full name of the extension module that this thread initialises, until a module takes it.
    static FULL_NAME: RefCell<Option<CString>> = const { RefCell::new(None) };
}

/// The module that `PyState_FindModule` gives for a definition, by the addresses of both.
///
/// CPython is not asked: before a definition is added, `PyState_FindModule` of Python 3.12 can read behind the end of
/// its list (`_modules_by_index_check` takes an index that is the list's length).
static STATE_MODULES: Mutex<BTreeMap<usize, usize>> = Mutex::new(BTreeMap::new());

fn state_modules() -> MutexGuard<'static, BTreeMap<usize, usize>> {
    STATE_MODULES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Leads calls of extension modules that create modules, or add them to the interpreter's state, to this file.
pub fn define_services(loader: memdl::Loader) -> memdl::Loader {
    type Create = unsafe extern "C" fn(*mut ffi::PyModuleDef, c_int) -> *mut ffi::PyObject;
    type Add = unsafe extern "C" fn(*mut ffi::PyObject, *mut ffi::PyModuleDef) -> c_int;
    type Remove = unsafe extern "C" fn(*mut ffi::PyModuleDef) -> c_int;
    let (create, add, remove): (Create, Add, Remove) =
        (module_create, state_add_module, state_remove_module);
    loader
        .define("PyModule_Create2", create as *const c_void)
        .define("PyState_AddModule", add as *const c_void)
        .define("PyState_RemoveModule", remove as *const c_void)
}

/// `PyState_AddModule`.
///
/// # Safety
/// As the function of CPython's API.
unsafe extern "C" fn state_add_module(
    module: *mut ffi::PyObject,
    definition: *mut ffi::PyModuleDef,
) -> c_int {
    // SAFETY: the caller's promise.
    let status = unsafe { ffi::PyState_AddModule(module, definition) };
    if status == 0 {
        state_modules().insert(definition.addr(), module.addr());
    }
    status
}

/// `PyState_RemoveModule`.
///
/// # Safety
/// As the function of CPython's API.
unsafe extern "C" fn state_remove_module(definition: *mut ffi::PyModuleDef) -> c_int {
    state_modules().remove(&definition.addr());
    // SAFETY: the caller's promise.
    unsafe { ffi::PyState_RemoveModule(definition) }
}

/// `PyModule_Create2`. The module of the initialisation that is going on gets its full name.
///
/// # Safety
/// As the function of CPython's API.
unsafe extern "C" fn module_create(
    definition: *mut ffi::PyModuleDef,
    version: c_int,
) -> *mut ffi::PyObject {
    // SAFETY: the caller's promise: `m_name` is a C string.
    let own_name = unsafe { CStr::from_ptr((*definition).m_name) };
    let is_it = |full: &mut CString| {
        full.as_bytes().rsplit(|&byte| byte == b'.').next() == Some(own_name.to_bytes())
    };
    let full_name = FULL_NAME.with_borrow_mut(|name| name.take_if(is_it));
    let Some(full_name) = full_name else {
        // SAFETY: the caller's promise.
        return unsafe { ffi::PyModule_Create2(definition, version) };
    };
    // SAFETY: the caller holds the GIL, and the definition is the module's own. CPython copies the name.
    unsafe {
        let own_name = replace(&mut (*definition).m_name, full_name.as_ptr());
        let module = ffi::PyModule_Create2(definition, version);
        (*definition).m_name = own_name;
        module
    }
}

/// Sets the full name for the modules that `body` creates.
fn with_full_name<T>(name: CString, body: impl FnOnce() -> T) -> T {
    // An initialisation can import other modules.
    let outer = FULL_NAME.replace(Some(name));
    let result = body();
    FULL_NAME.set(outer);
    result
}

fn system_error(text: String) -> PyErr {
    PySystemError::new_err(text)
}

/// Calls `function`, a `PyInit_NAME` of the image, and makes the module of `spec`, as `_imp.create_dynamic` does.
///
/// Also returns `m_size` of a module with single-phase initialisation: -1 if it must not be initialised again.
#[pyfunction]
pub fn create_module<'py>(
    image: &Bound<'py, Image>,
    function: &str,
    spec: &Bound<'py, PyAny>,
) -> PyResult<(Bound<'py, PyAny>, Option<isize>)> {
    let py = image.py();
    let name: String = spec.getattr("name")?.extract()?;
    let address = image.get().address(py, function, None)?;
    // SAFETY: a function of this name has this type. That is part of the trust in an extension module.
    let init = unsafe {
        std::mem::transmute::<*const c_void, unsafe extern "C" fn() -> *mut ffi::PyObject>(
            ptr::with_exposed_provenance(address),
        )
    };
    // SAFETY: as above. The thread is attached to the interpreter.
    let module = with_full_name(CString::new(&*name)?, || unsafe { init() });
    let raised = PyErr::take(py);
    if module.is_null() {
        return Err(raised.unwrap_or_else(|| {
            system_error(format!("initialization of {name} failed without raising an exception"))
        }));
    }
    // SAFETY: a module, which is owned, or a definition, which is static.
    unsafe {
        if ffi::Py_TYPE(module).is_null() {
            // A definition that was not passed to `PyModuleDef_Init`.
            return Err(system_error(format!(
                "init function of {name} returned uninitialized object"
            )));
        }
        if let Some(cause) = raised {
            let error =
                system_error(format!("initialization of {name} raised unreported exception"));
            error.set_cause(py, Some(cause));
            return Err(error);
        }
        if ffi::PyObject_TypeCheck(module, &raw mut ffi::PyModuleDef_Type) != 0 {
            let module = ffi::PyModule_FromDefAndSpec(module.cast(), spec.as_ptr());
            return Ok((Bound::from_owned_ptr_or_err(py, module)?, None));
        }
        let module = Bound::from_owned_ptr(py, module);
        if function.starts_with("PyInitU_") {
            return Err(system_error(format!(
                "initialization of {name} did not return PyModuleDef"
            )));
        }
        let definition = if PyModule::is_type_of(&module) {
            ffi::PyModule_GetDef(module.as_ptr())
        } else {
            ptr::null_mut()
        };
        if definition.is_null() {
            PyErr::take(py);
            return Err(system_error(format!(
                "initialization of {name} did not return an extension module"
            )));
        }
        set_module_of(definition, &module)?;
        Ok((module, Some((*definition).m_size)))
    }
}

/// Makes a module known to `PyState_FindModule`.
///
/// # Safety
/// The definition is that of a module with single-phase initialisation.
unsafe fn set_module_of(
    definition: *mut ffi::PyModuleDef,
    module: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let py = module.py();
    let known = state_modules().get(&definition.addr()).copied();
    // Its initialisation may have done it. To add a module twice ends the process.
    if known == Some(module.as_ptr().addr()) {
        return Ok(());
    }
    // SAFETY: the caller's promise. What is removed was added.
    let status = unsafe {
        match known.map_or(0, |_| state_remove_module(definition)) {
            0 => state_add_module(module.as_ptr(), definition),
            failure => failure,
        }
    };
    if status == 0 { Ok(()) } else { Err(PyErr::fetch(py)) }
}

/// A module like `first`, which has single-phase initialisation and must not be initialised again, with the
/// contents that it had: `_imp.create_dynamic` does so at the second import.
#[pyfunction]
pub fn recreate_module<'py>(
    first: &Bound<'py, PyModule>,
    name: &Bound<'py, PyString>,
    contents: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let module = first.get_type().call1((name,))?;
    module.getattr("__dict__")?.call_method1("update", (contents,))?;
    // SAFETY: the module was made by `create_module`, which has checked that it has a definition.
    unsafe { set_module_of(ffi::PyModule_GetDef(first.as_ptr()), &module)? };
    Ok(module)
}
