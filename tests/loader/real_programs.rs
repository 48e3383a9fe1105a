//! Whole programs as libraries: interpreters, compilers, and the run-time libraries of languages,
//! from their bytes.
//!
//! Each runs in a process of its own with a limit on its time: most start threads that outlive
//! their use, and some can never be unloaded. Where the program is a test library with a `run`,
//! what `dlopen` makes of the same file is the reference.

use std::ffi::{CStr, CString, c_char, c_int, c_longlong, c_void};
use std::fs;
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{
    AnyWay, Opened, build, call_run, exit_status, in_child, is_over, isolated, library_folder,
    limited, load_and_run, maps, repository, system_library, system_library_of,
};
use libc::{RTLD_GLOBAL, RTLD_LAZY, RTLD_LOCAL, RTLD_NOW};
use memdl::{Binding, Library, Loader, Symbol, Template};

/// Each in turn: real libraries have thousands of calls to bind.
const BINDINGS: [Binding; 2] = [Binding::Now, Binding::Lazy];

/// The bytes of a library of the system.
fn system_bytes(name: &str) -> Vec<u8> {
    fs::read(system_library(name)).unwrap()
}

/// Whether `ld.so` has mapped a file whose path contains this.
fn is_mapped(name: &str) -> bool {
    maps().iter().any(|line| line.name.starts_with('/') && line.name.contains(name))
}

/// A function of a library, of the type that its header states.
fn function<'lib, T>(library: &'lib Library, name: &str) -> Symbol<'lib, T> {
    // SAFETY: the types below are those of the libraries' headers.
    unsafe { library.get(name) }.unwrap_or_else(|error| panic!("{error}"))
}

/// What `run` says in a process where `dlopen` loads the file: the reference must be content
/// before memdl is asked.
fn reference_is_content(file: &Path, flags: c_int) {
    // This process is there for one test. The child only opens, calls and ends: to close the library would unload what it
    // needs, which may have threads.
    let status = in_child(60, || {
        let opened = Opened::new(file, RTLD_NOW | flags);
        let number = opened.run();
        mem::forget(opened);
        number
    });
    let what = format!("{} through dlopen", file.display());
    let signal = libc::WTERMSIG(status);
    let number = exit_status(status).unwrap_or_else(|| panic!("{what}: signal {signal}"));
    assert_eq!(number, 42, "{what}: the number of the failed check, or 42");
}

/// Runs `run` of a loaded library in several threads at once.
fn run_in_threads(library: &Library, count: usize) {
    thread::scope(|scope| {
        let runs: Vec<_> = (0..count).map(|_| scope.spawn(|| call_run(library))).collect();
        for run in runs {
            assert_eq!(run.join().unwrap(), 42, "the number of the failed check, or 42");
        }
    });
}

/// CPython, with the functions of its manual that the tests use.
struct Python {
    library: Library,
}

impl Python {
    fn name() -> String {
        system_library_of("libpython3.", ".so.1.0")
    }

    fn loader() -> Loader {
        Loader::new().name(Python::name()).system_libraries(true)
    }

    /// Starts the interpreter; the calling thread has its lock.
    fn start(library: Library) -> Python {
        assert!(!is_mapped(&Python::name()), "it was mapped from its file");
        let python = Python { library };
        // Not where some other Python on the path has its modules. Python keeps the pointers.
        let wide = |text: &str| {
            let text = text.chars().map(|it| it as libc::wchar_t);
            text.chain([0]).collect::<Vec<_>>().leak().as_ptr()
        };
        type SetWide = unsafe extern "C" fn(*const libc::wchar_t);
        let set_name = function::<SetWide>(&python.library, "Py_SetProgramName");
        let set_home = function::<SetWide>(&python.library, "Py_SetPythonHome");
        let initialize =
            function::<unsafe extern "C" fn(c_int)>(&python.library, "Py_InitializeEx");
        // SAFETY: strings that end in 0 and stay, before the start, as the manual asks.
        unsafe {
            let name = Python::name();
            let version = name.trim_start_matches("lib").trim_end_matches(".so.1.0");
            set_name(wide(&format!("/usr/bin/{version}")));
            set_home(wide("/usr"));
            initialize(0);
        }
        python
    }

    /// Runs statements in `__main__`.
    fn run(&self, script: &str) {
        let script = CString::new(script).unwrap();
        type Run = unsafe extern "C" fn(*const c_char) -> c_int;
        let run = function::<Run>(&self.library, "PyRun_SimpleString");
        // SAFETY: a C string; the calling thread has the lock.
        let result = unsafe { run(script.as_ptr()) };
        assert_eq!(result, 0, "the script raised an exception: {script:?}");
    }

    /// Imports the module of `testlibs/programs/module.c` from this file.
    fn import_file(&self, file: &Path) {
        self.run(&format!(
            "import importlib.machinery, importlib.util
loader = importlib.machinery.ExtensionFileLoader('linked', {file:?})
spec = importlib.util.spec_from_loader('linked', loader)
linked = importlib.util.module_from_spec(spec)"
        ));
    }

    /// `str()` of an expression in `__main__`.
    fn evaluate(&self, expression: &str) -> String {
        type Object = *mut c_void;
        type RunString = unsafe extern "C" fn(*const c_char, c_int, Object, Object) -> Object;
        type Get = unsafe extern "C" fn(Object) -> Object;
        type Text = unsafe extern "C" fn(Object) -> *const c_char;
        const EVAL_INPUT: c_int = 258;
        let library = &self.library;
        let main = function::<unsafe extern "C" fn(*const c_char) -> Object>(
            library,
            "PyImport_AddModule",
        );
        let globals = function::<Get>(library, "PyModule_GetDict");
        let run = function::<RunString>(library, "PyRun_String");
        let as_utf8 = function::<Text>(library, "PyUnicode_AsUTF8");
        let drop = function::<unsafe extern "C" fn(Object)>(library, "Py_DecRef");
        let code = CString::new(format!("str({expression})")).unwrap();
        // SAFETY: C strings, objects that are alive; the calling thread has the lock.
        unsafe {
            let globals = globals(main(c"__main__".as_ptr()));
            let value = run(code.as_ptr(), EVAL_INPUT, globals, globals);
            assert!(!value.is_null(), "{expression} raised an exception");
            let text = CStr::from_ptr(as_utf8(value)).to_str().unwrap().to_owned();
            drop(value);
            text
        }
    }

    /// Gives the lock away while `body` runs.
    fn without_lock<R>(&self, body: impl FnOnce() -> R) -> R {
        let save =
            function::<unsafe extern "C" fn() -> *mut c_void>(&self.library, "PyEval_SaveThread");
        let restore =
            function::<unsafe extern "C" fn(*mut c_void)>(&self.library, "PyEval_RestoreThread");
        // SAFETY: the calling thread has the lock, and gets it back.
        unsafe {
            let state = save();
            let result = body();
            restore(state);
            result
        }
    }

    /// Takes the lock, in a thread that Python need not know, while `body` runs.
    fn with_lock<R>(&self, body: impl FnOnce() -> R) -> R {
        let ensure =
            function::<unsafe extern "C" fn() -> c_int>(&self.library, "PyGILState_Ensure");
        let release = function::<unsafe extern "C" fn(c_int)>(&self.library, "PyGILState_Release");
        // SAFETY: paired, in one thread.
        unsafe {
            let state = ensure();
            let result = body();
            release(state);
            result
        }
    }

    /// Ends the interpreter.
    fn finish(self) {
        let finalize = function::<unsafe extern "C" fn() -> c_int>(&self.library, "Py_FinalizeEx");
        // SAFETY: by the thread that started it.
        assert_eq!(unsafe { finalize() }, 0);
        self.library.close().unwrap();
    }
}

/// Loads libpython.
fn python(loader: Loader) -> Python {
    // SAFETY: a library of the distribution.
    let library = unsafe { loader.load_any_way(&system_bytes(&Python::name())) };
    Python::start(library.unwrap_or_else(|error| panic!("{error}")))
}

#[test]
fn python_with_extension_modules_in_threads() {
    isolated(|| {
        let python = python(Python::loader());
        python.run(&fs::read_to_string(repository("testlibs/programs/script.py")).unwrap());
        for number in 0..4 {
            let result = |key: &str| python.evaluate(&format!("results[{number}]['{key}']"));
            // The sum of the squares below 1000.
            assert_eq!(result("squares"), "[332833500, 16, 'no such column: missing']");
            assert_eq!(
                result("pi"),
                "3.141592653589793238462643383279502884197169399375105820974944"
            );
            assert_eq!(
                result("sha256"),
                "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"
            );
            let mut sorted = [5, 3, 9, -1, number];
            sorted.sort_unstable();
            assert_eq!(result("sorted"), format!("{sorted:?}"));
            assert_eq!(result("tls"), "['from memory', 'AECDH-AES256-SHA']");
        }
        assert_eq!(python.evaluate("child.strip()"), "child");
        // The modules are bound to this libpython: they are not files of `ld.so`'s.
        assert_eq!(python.evaluate("'/lib-dynload/_ssl.' in _ssl.__file__"), "True");
        assert!(!is_mapped("lib-dynload"), "a module was opened by ld.so");
        // In threads of the host's.
        python.without_lock(|| {
            thread::scope(|scope| {
                for number in 10..13 {
                    let python = &python;
                    scope.spawn(move || {
                        python.with_lock(|| {
                            python.run(&format!("work({number})"));
                            let sorted = python.evaluate(&format!("results[{number}]['sorted']"));
                            assert_eq!(sorted, format!("[-1, 3, 5, 9, {number}]"));
                        });
                    });
                }
            });
        });
        // An exception raised in a module of one file, of a type of the image's.
        python.run(
            "try: _decimal.Decimal('x')\nexcept ArithmeticError as e: caught = type(e).__name__",
        );
        assert_eq!(python.evaluate("caught"), "InvalidOperation");
        python.finish();
    });
}

#[test]
fn python_finds_its_own_symbols_where_it_is_global() {
    isolated(|| {
        // As a program that links libpython: `ctypes.pythonapi` is `dlopen(NULL)`.
        let python = python(Python::loader().global(true));
        python.run(
            "import ctypes
api = ctypes.pythonapi
api.Py_GetVersion.restype = ctypes.c_char_p
version = api.Py_GetVersion().decode()
api.PyLong_FromLong.restype = ctypes.py_object
number = api.PyLong_FromLong(42)
import sys
same = version == sys.version",
        );
        assert_eq!(python.evaluate("number"), "42");
        assert_eq!(python.evaluate("same"), "True");
        python.finish();
    });
}

#[test]
fn python_finds_itself_by_name() {
    isolated(|| {
        // `ld.so` knows a library that is there by its name, and opens no second one.
        let python = python(Python::loader());
        let script = "import ctypes, os
itself = ctypes.PyDLL('LIBPYTHON')
resident = ctypes.PyDLL('LIBPYTHON', mode=os.RTLD_NOLOAD | os.RTLD_NOW)
itself.PyLong_FromLong.restype = ctypes.py_object
number = itself.PyLong_FromLong(42)
address = ctypes.cast(itself.Py_GetVersion, ctypes.c_void_p).value
same = resident._handle == itself._handle";
        python.run(&script.replace("LIBPYTHON", &Python::name()));
        assert_eq!(python.evaluate("number"), "42");
        assert_eq!(python.evaluate("same"), "True");
        let address = function::<*mut c_void>(&python.library, "Py_GetVersion").as_raw_ptr();
        assert_eq!(python.evaluate("address"), address.addr().to_string());
        assert!(!is_mapped(&Python::name()), "a second libpython was opened");
        python.finish();
    });
}

#[test]
fn python_imports_a_module_that_is_linked_to_libpython() {
    isolated(|| {
        let module = build(
            "gcc",
            "programs/module.c",
            &["-Wl,--no-as-needed", &format!("-l:{}", Python::name())],
        );
        // What it needs is in the image that imports it: not a second libpython, in a file.
        let python = python(Python::loader());
        python.import_file(&module);
        python.run(
            "values = [linked.add(), linked.add()]
try: linked.add()
except KeyError as error: values.append(str(error))",
        );
        assert_eq!(python.evaluate("values"), r#"[1, 2, "'three'"]"#);
        let address = function::<*mut c_void>(&python.library, "Py_GetVersion").as_raw_ptr();
        assert_eq!(python.evaluate("linked.version()"), address.addr().to_string());
        assert!(!is_mapped(&Python::name()), "a second libpython was opened");
        python.finish();
    });
}

/// A module with libraries beside it, which its `DT_RUNPATH` tells: as wheels bring them along.
fn module_with_helpers(count: usize, run_path: &str) -> PathBuf {
    let helpers =
        [build("gcc", "programs/helper.c", &[]), build("gcc", "programs/helper.c", &["-DPYTHON"])];
    let mut flags =
        vec![format!("-DHELPERS={count}"), format!("-L{}", env!("CARGO_TARGET_TMPDIR"))];
    flags.extend([format!("-Wl,{run_path}"), "-Wl,-rpath,$ORIGIN".to_owned()]);
    let name = |file: &PathBuf| file.file_name().unwrap().to_str().unwrap().to_owned();
    flags.extend(helpers[..count].iter().map(|helper| format!("-l:{}", name(helper))));
    build("gcc", "programs/module.c", &flags.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn python_imports_a_module_with_a_library_beside_it() {
    isolated(|| {
        let python = python(Python::loader());
        for run_path in ["--enable-new-dtags", "--disable-new-dtags"] {
            python.import_file(&module_with_helpers(1, run_path));
            assert_eq!(python.evaluate("linked.plain()"), "42", "{run_path}");
        }
        python.finish();
    });
}

#[test]
fn python_imports_a_module_whose_library_needs_python() {
    isolated(|| {
        let python = python(Python::loader());
        python.import_file(&module_with_helpers(2, "--enable-new-dtags"));
        assert_eq!(python.evaluate("linked.plain()"), "42");
        assert_eq!(python.evaluate("linked.twice(21)"), "42");
        python.finish();
    });
}

#[test]
fn python_opens_a_module_that_it_has_imported() {
    isolated(|| {
        let file = module_with_helpers(1, "--enable-new-dtags");
        let other_name = file.with_extension("link.so");
        let _ = std::os::unix::fs::symlink(&file, &other_name);
        let python = python(Python::loader());
        python.import_file(&file);
        python.run("linked.add(), linked.add()");
        // By another of Python's modules, and under another name: a file is loaded once.
        python.run(&format!("import ctypes; calls = ctypes.PyDLL({file:?}).calls()"));
        assert_eq!(python.evaluate("calls"), "2");
        python.run(&format!("calls = ctypes.PyDLL({other_name:?}).calls()"));
        assert_eq!(python.evaluate("calls"), "2");
        python.finish();
    });
}

#[test]
fn python_opens_lazily_what_lacks_a_function() {
    isolated(|| {
        let file = build("gcc", "programs/incomplete.c", &["-Wl,-z,lazy"]);
        reference_opens_lazily(&file);
        let python = python(Python::loader());
        python.run(&format!(
            "import ctypes, os
try: ctypes.CDLL({file:?}, mode=os.RTLD_NOW); refusal = None
except OSError as error: refusal = str(error)
value = ctypes.CDLL({file:?}, mode=os.RTLD_LAZY).run()"
        ));
        assert_eq!(python.evaluate("'defined_nowhere' in refusal"), "True");
        assert_eq!(python.evaluate("value"), "42");
        python.finish();
    });
}

/// The file is refused with `RTLD_NOW`, and taken with `RTLD_LAZY`.
fn reference_opens_lazily(file: &Path) {
    assert!(Opened::refusal(file, RTLD_NOW).contains("undefined symbol"));
    assert_eq!(Opened::new(file, RTLD_LAZY).run(), 42);
}

/// Two interpreters in one process, each with modules and state of its own.
fn two_pythons(one: Python, two: impl FnOnce() -> Python) {
    let script = |number: u32| {
        format!(
            "import sys, json, sqlite3, ctypes, threading, time
import _json, _sqlite3, _ctypes
number = {number}
sys.modules['memo'] = number
base = sqlite3.connect(':memory:', check_same_thread=False)
base.execute('CREATE TABLE t (n)')
base.executemany('INSERT INTO t VALUES (?)', [(i * number,) for i in range(100)])
Call = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)
callback = Call(lambda x: x * 1000 + number)
address = ctypes.cast(callback, ctypes.c_void_p).value
stop, ticks = False, 0
def tick():
    global ticks
    while not stop:
        ticks += 1
        time.sleep(.001)
ticker = threading.Thread(target=tick)
ticker.start()
"
        )
    };
    let check = |python: &Python, number: u32, round: u32| {
        assert_eq!(python.evaluate("sys.modules['memo']"), number.to_string());
        python.run(&format!("base.execute('INSERT INTO t VALUES (?)', ({round},))"));
        let rounds = (1..=round).sum::<u32>();
        let sum = python.evaluate("base.execute('SELECT sum(n) FROM t').fetchone()[0]");
        assert_eq!(sum, (4950 * number + rounds).to_string());
        let text = python.evaluate("json.dumps({'of': number, 'é': [None, 1.5]})");
        assert_eq!(text, format!(r#"{{"of": {number}, "\u00e9": [null, 1.5]}}"#));
        assert_eq!(python.evaluate("callback(7)"), (7000 + number).to_string());
    };
    let identity = |python: &Python| {
        ["id(type(None))", "id(_json.make_encoder)", "id(_sqlite3.connect)", "id(_ctypes.CFuncPtr)"]
            .map(|object| python.evaluate(object))
    };

    one.run(&script(1));
    // Each thread of Python's has a current interpreter per libpython: the two do not disturb.
    let two = one.without_lock(|| {
        let two = two();
        two.run(&script(2));
        two
    });
    let (of_one, of_two) = (identity(&one), identity(&two));
    for (first, second) in of_one.iter().zip(&of_two) {
        assert_ne!(first, second, "one object is in both");
    }
    for round in 1..=5 {
        check(&one, 1, round);
        check(&two, 2, round);
    }
    // The thread of one works while the other has its lock, and goes on afterwards.
    two.without_lock(|| {
        let ticks = || one.evaluate("ticks").parse::<u64>().unwrap();
        let (before, since) = (ticks(), Instant::now());
        while ticks() == before {
            assert!(!is_over(since, Duration::from_secs(10)), "it does not tick");
            one.run("time.sleep(.01)");
        }
        // One calls the other, by address.
        let address = two.with_lock(|| two.evaluate("address"));
        assert_eq!(one.evaluate(&format!("Call({address})(42)")), "42002");
    });
    // In two threads at the same time.
    one.without_lock(|| {
        two.without_lock(|| {
            thread::scope(|scope| {
                for python in [&one, &two] {
                    scope.spawn(move || {
                        for _ in 0..200 {
                            python.with_lock(|| {
                                python.run(
                                    "json.loads(json.dumps(list(range(100))))
assert base.execute('SELECT count(*) FROM t').fetchone() == (105,)",
                                );
                            });
                        }
                    });
                }
            });
        });
    });
    // The second ends; the first goes on, then ends.
    two.run("stop = True; ticker.join(); base.close()");
    two.finish();
    check(&one, 1, 6);
    one.run("import _decimal, decimal; half = decimal.Decimal(1) / 2");
    assert_eq!(one.evaluate("half"), "0.5");
    one.run("stop = True; ticker.join(); base.close()");
    one.finish();
    assert!(!is_mapped("lib-dynload") && !is_mapped(&Python::name()), "opened by ld.so");
}

#[test]
fn two_pythons_of_one_template() {
    isolated(|| {
        let template: Template = Python::loader().template(&system_bytes(&Python::name())).unwrap();
        // SAFETY: a library of the distribution.
        let instance = || Python::start(unsafe { template.instantiate() }.unwrap());
        two_pythons(instance(), instance);
    });
}

#[test]
fn two_pythons_loaded_separately() {
    isolated(|| {
        two_pythons(python(Python::loader()), || python(Python::loader()));
    });
}

/// The name of the LLVM that is installed; its C interface has been the same for years.
fn llvm() -> String {
    let folder = system_library("libc.so.6").parent().unwrap().to_owned();
    let folders = [folder, library_folder()];
    let files = folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten();
    let names = files.filter_map(|file| file.ok()?.file_name().into_string().ok());
    let is_llvm = |name: &String| {
        // libLLVM-14.so.1, and since 18 libLLVM.so.19.1
        let version = name.strip_prefix("libLLVM-").and_then(|rest| rest.strip_suffix(".so.1"));
        let version = version.or(name.strip_prefix("libLLVM.so."));
        version.is_some_and(|version| version.parse::<f32>().is_ok())
    };
    names.filter(is_llvm).min().expect("no libLLVM; `sh tests/setup.sh` installs what tests need")
}

#[test]
fn llvm_compiles_and_runs_functions() {
    isolated(|| {
        let name = llvm();
        let user = build("gcc", "programs/llvm.c", &[&format!("-l:{name}")]);
        reference_is_content(&user, RTLD_LOCAL);
        let loader = Loader::new().system_libraries(true).provide(&*name, system_bytes(&name));
        let user = fs::read(user).unwrap();
        for binding in BINDINGS {
            let loader = loader.clone().binding(binding);
            let library = load_and_run(&loader, &user, &format!("{name}, {binding:?}"));
            run_in_threads(&library, 2);
            assert!(!is_mapped(&name), "it was mapped from its file");
            library.close().unwrap();
        }
    });
}

#[test]
fn openblas_multiplies_in_parallel() {
    isolated(|| {
        let name = "libopenblas.so.0";
        // Linked by its path: the name that it needs is OpenBLAS's own.
        let path = system_library(name);
        let user = build("gcc", "programs/blas.c", &["-O1", path.to_str().unwrap()]);
        reference_is_content(&user, RTLD_LOCAL);
        let loader = Loader::new().system_libraries(true).provide(name, system_bytes(name));
        let user = fs::read(user).unwrap();
        let threads = || fs::read_dir("/proc/self/task").unwrap().count();
        let before = threads();
        // It ends its workers when it is unloaded, and starts new ones when it is back.
        for binding in BINDINGS {
            let library = load_and_run(&loader.clone().binding(binding), &user, name);
            assert!(threads() > before, "no workers with {binding:?}");
            assert!(!is_mapped("openblas"), "it was mapped from its file");
            library.close().unwrap();
            // A thread that was joined may be listed for a moment.
            let ended = (0..500).any(|_| {
                thread::sleep(Duration::from_millis(10));
                threads() == before
            });
            assert!(ended, "workers are left with {binding:?}: {} of {before}", threads());
        }
    });
}

#[test]
fn openmp_with_the_systems_libgomp() {
    isolated(|| {
        let user = build("gcc", "programs/openmp.c", &["-fopenmp", "-O1"]);
        reference_is_content(&user, RTLD_LOCAL);
        let loader = Loader::new().system_libraries(true);
        let library = load_and_run(&loader, &fs::read(user).unwrap(), "openmp");
        assert!(is_mapped("libgomp.so.1"));
        run_in_threads(&library, 3);
        // libgomp keeps its threads, which keep variables of the image.
        mem::forget(library);
    });
}

#[test]
fn openmp_with_libgomp_from_bytes() {
    isolated(|| {
        let name = "libgomp.so.1";
        let user = fs::read(build("gcc", "programs/openmp.c", &["-fopenmp", "-O1"])).unwrap();
        let loader = Loader::new().provide(name, system_bytes(name));
        // Its thread-local variables are initial exec: a thread that is there already has them too.
        let (send, receive) = mpsc::channel::<usize>();
        let older = thread::spawn(move || {
            let run = receive.recv().unwrap();
            // SAFETY: the address of `int run(void)` of the library below, which stays.
            unsafe { mem::transmute::<usize, extern "C" fn() -> c_int>(run)() }
        });
        let library = load_and_run(&loader, &user, "openmp");
        let run = function::<*mut c_void>(&library, "run").as_raw_ptr().addr();
        send.send(run).unwrap();
        assert_eq!(older.join().unwrap(), 42);
        run_in_threads(&library, 3);
        // A second one beside it, with threads and variables of its own.
        let second = load_and_run(&loader.binding(Binding::Lazy), &user, "a second libgomp");
        run_in_threads(&library, 2);
        run_in_threads(&second, 2);
        assert!(!is_mapped(name), "it was mapped from its file");
        // Their idle threads wait in their code: as with `dlclose`, unloading would end badly.
        mem::forget((library, second));
    });
}

#[test]
fn the_cpp_runtime_from_bytes() {
    isolated(|| {
        let name = "libstdc++.so.6";
        let user = build("g++", "programs/cxx.cpp", &["-O1", "-std=c++17", "-pthread"]);
        reference_is_content(&user, RTLD_LOCAL);
        assert!(!is_mapped("libstdc++"), "this process has a C++ runtime of its own");
        // libm may have to be opened.
        let loader = Loader::new().system_libraries(true).provide(name, system_bytes(name));
        let user = fs::read(user).unwrap();
        for binding in [Binding::Now, Binding::Lazy, Binding::Now] {
            let loader = loader.clone().binding(binding);
            let library = load_and_run(&loader, &user, &format!("{binding:?}"));
            assert_eq!(call_run(&library), 42, "again");
            run_in_threads(&library, 1);
            assert!(!is_mapped("libstdc++"), "it was mapped from its file");
            library.close().unwrap();
        }
        // One for two libraries. (Two libstdc++ at once share their unique symbols, which ends badly
        // with `ld.so`, too: a facet's number in one is not its number in the other.)
        let loader = Loader::new().system_libraries(true);
        // SAFETY: a library of the distribution.
        let runtime =
            unsafe { loader.clone().name(name).load_any_way(&system_bytes(name)) }.unwrap();
        let loader = loader.depends_on(&runtime);
        let one = load_and_run(&loader, &user, "one with a shared runtime");
        let two = load_and_run(&loader, &user, "two with a shared runtime");
        runtime.close().unwrap();
        one.close().unwrap();
        assert_eq!(call_run(&two), 42);
        two.close().unwrap();
        assert!(!is_mapped("libstdc++"), "it was mapped from its file");
    });
}

#[test]
fn go_with_goroutines() {
    isolated(|| {
        let file = build("go", "programs/goroutines.go", &[]);
        let (send, receive) = mpsc::channel::<usize>();
        type Sum = extern "C" fn(c_int) -> c_longlong;
        let older = thread::spawn(move || {
            let sum = receive.recv().unwrap();
            // SAFETY: the address of that function of the library below, which stays.
            unsafe { mem::transmute::<usize, Sum>(sum)(1000) }
        });
        // SAFETY: our own library; the types are those of the header that Go makes for it.
        let library = unsafe { Library::from_bytes(&fs::read(file).unwrap()).unwrap() };
        let sum = *function::<Sum>(&library, "SumOfSquares");
        let collections = *function::<extern "C" fn() -> c_int>(&library, "Collections");
        let recovered = *function::<extern "C" fn() -> c_int>(&library, "Recovered");
        let arguments = *function::<extern "C" fn(*const c_char) -> c_int>(&library, "Arguments");
        let first = CString::new(std::env::args().next().unwrap()).unwrap();
        assert_eq!(arguments(first.as_ptr()), std::env::args().count() as c_int);
        let before = collections();
        assert_eq!(sum(5000), 41_654_167_500);
        assert!(collections() > before, "no garbage was collected");
        assert_eq!(recovered(), 2);
        send.send(sum as usize).unwrap();
        assert_eq!(older.join().unwrap(), 332_833_500);
        let several = |threads: i32| {
            thread::scope(|scope| {
                for n in 0..threads {
                    scope.spawn(move || {
                        let n = c_longlong::from(n) * 200;
                        assert_eq!(sum(n as c_int), (n - 1) * n * (2 * n - 1) / 6);
                        assert_eq!(recovered(), 2);
                    });
                }
            });
        };
        several(8);
        // Go asks never to be unloaded (`DF_1_NODELETE`): its threads run on.
        library.close().unwrap();
        several(8);
        assert_eq!(sum(5000), 41_654_167_500);
    });
}

/// Builds and runs a program that uses memdl with a feature that this test may not have.
#[test]
fn jemalloc_with_room_for_its_thread_local_variables() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("large-static-tls");
    fs::create_dir_all(&folder).unwrap();
    let manifest = format!(
        "[package]\nname = \"jemalloc\"\nedition = \"2024\"\n\n[workspace]\n\n[[bin]]\n\
         name = \"jemalloc\"\npath = {:?}\n\n[dependencies]\n\
         memdl = {{ path = {:?}, features = [\"large-static-tls\"] }}\n\n\
         [profile.dev]\ndebug = false\n",
        repository("testlibs/programs/jemalloc.rs"),
        repository(""),
    );
    fs::write(folder.join("Cargo.toml"), manifest).unwrap();
    // The dependencies are those that this test was built with: they are here already.
    fs::copy(repository("Cargo.lock"), folder.join("Cargo.lock")).unwrap();
    let mut cargo = limited(300, env!("CARGO"));
    cargo.args(["build", "--quiet", "--offline", "--target-dir", "target"]);
    crate::common::run(cargo.current_dir(&folder), "cargo");
    let mut program = limited(60, "target/debug/jemalloc");
    program.arg(system_library("libjemalloc.so.2"));
    let said = crate::common::run(program.current_dir(&folder), "libjemalloc2");
    assert_eq!(said, "jemalloc is content\n");
}

#[cfg(not(feature = "large-static-tls"))]
#[test]
fn jemalloc_without_room_is_refused() {
    isolated(|| {
        let name = "libjemalloc.so.2";
        let loader = Loader::new().name(name).system_libraries(true);
        // SAFETY: a library of the distribution.
        let refused = unsafe { loader.load_any_way(&system_bytes(name)) };
        let error = refused.map(drop).unwrap_err().to_string();
        assert!(error.contains("large-static-tls") && error.contains(name), "{error}");
        // As `dlopen` does, for the same reason.
        let refusal = Opened::refusal(&system_library(name), RTLD_NOW);
        assert!(refusal.contains("static TLS block"), "{refusal}");
    });
}

#[test]
fn fortran_with_its_runtime_from_bytes() {
    isolated(|| {
        let user = build("gfortran", "programs/fortran.f90", &[]);
        reference_is_content(&user, RTLD_LOCAL);
        let names = ["libgfortran.so.5", "libquadmath.so.0"];
        let loader = names.iter().fold(Loader::new().system_libraries(true), |loader, name| {
            loader.provide(*name, system_bytes(name))
        });
        let user = fs::read(user).unwrap();
        for binding in BINDINGS {
            let library = load_and_run(&loader.clone().binding(binding), &user, "fortran");
            run_in_threads(&library, 2);
            library.close().unwrap();
        }
        for name in names {
            assert!(!is_mapped(name), "{name} was mapped from its file");
        }
    });
}

#[test]
fn perl_runs_scripts() {
    isolated(|| {
        let name = &*system_library_of("libperl.so.5.", "");
        let user = build("gcc", "programs/perl.c", &[&format!("-l:{name}")]);
        // Perl's modules find `ld.so`'s libperl in the global scope only.
        reference_is_content(&user, RTLD_GLOBAL);
        let loader = Loader::new().system_libraries(true).provide(name, system_bytes(name));
        let user = fs::read(user).unwrap();
        for binding in BINDINGS {
            let library = load_and_run(&loader.clone().binding(binding), &user, name);
            assert!(!is_mapped(name) && !is_mapped("/auto/List/Util"), "opened by ld.so");
            library.close().unwrap();
        }
    });
}
