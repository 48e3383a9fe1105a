//! Where libraries are searched for, and that what is found once exists once: needed libraries, plug-ins that
//! images open, plug-ins that libraries of the system open for them. `dlopen` of the same files, in a process
//! of its own, is the reference.

use std::env::consts::ARCH;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::common::{
    AnyWay, Opened, glibc, in_child, isolated, isolated_with, machine, name_of, run,
};
use libc::{RTLD_GLOBAL, RTLD_LAZY, RTLD_LOCAL, RTLD_NOW};
use memdl::{ImageBuffer, Library, Loader, Namespace, Provided, Scope};

/// A folder of libraries that a test builds.
struct Folder(PathBuf);

impl Folder {
    /// The folder of the test that this closure stands in. It is empty at first; the test's children find it
    /// as it is.
    fn of<T>(test: &T) -> Folder {
        let name = name_of(test).replace("::", "-");
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("folder-{name}"));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        Folder(folder)
    }

    fn path(&self, file: &str) -> PathBuf {
        self.0.join(file)
    }

    /// Builds a library, in this folder or one of its own. `$D` in a flag is this folder.
    fn library(&self, file: &str, source: &str, flags: &[&str]) -> PathBuf {
        let path = self.path(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let text = self.path(&format!("{}.c", file.replace('/', "-")));
        fs::write(&text, source).unwrap();
        let folder = self.0.to_str().unwrap();
        let flags = flags.iter().map(|flag| flag.replace("$D", folder));
        let mut command = Command::new("gcc");
        command.args(["-shared", "-fPIC", "-O1", "-w", "-o"]).arg(&path).arg(&text);
        command.args(["-Wl,--no-as-needed", "-Wl,--allow-shlib-undefined", "-L"]).arg(folder);
        run(command.args(flags).current_dir(folder), "gcc");
        path
    }

    /// As [`Folder::library`], with the file's name as `DT_SONAME`.
    fn named(&self, file: &str, source: &str, flags: &[&str]) -> PathBuf {
        let soname = format!("-Wl,-soname,{}", file.rsplit('/').next().unwrap());
        self.library(file, source, &[flags, &[&soname]].concat())
    }
}

const RPATH: &str = "-Wl,--disable-new-dtags,-rpath,$D";
const RUNPATH: &str = "-Wl,--enable-new-dtags,-rpath,$D";

fn loader(path: &Path) -> Loader {
    Loader::new().system_libraries(true).name(path.to_str().unwrap())
}

fn load(loader: &Loader, path: &Path) -> Library {
    // SAFETY: libraries that these tests build.
    let library = unsafe { loader.load_any_way(&fs::read(path).unwrap()) };
    library.unwrap_or_else(|error| panic!("{error}"))
}

/// Who loads a library, and with which of `dlopen`'s flags.
#[derive(Clone, Copy, PartialEq, Debug)]
enum How {
    Memdl,
    LdSo,
}

/// A library that is loaded either way.
enum Loaded {
    Memdl(Library),
    LdSo(Opened),
}

impl How {
    fn load(self, path: &Path, flags: c_int) -> Loaded {
        match self {
            How::LdSo => Loaded::LdSo(Opened::new(path, flags)),
            How::Memdl => {
                let deep = flags & libc::RTLD_DEEPBIND != 0;
                let scope = if deep { Scope::SelfFirst } else { Scope::HostFirst };
                let lazy = flags & RTLD_LAZY != 0;
                let binding = if lazy { memdl::Binding::Lazy } else { memdl::Binding::Now };
                let loader = loader(path).global(flags & RTLD_GLOBAL != 0).scope(scope);
                Loaded::Memdl(load(&loader.binding(binding), path))
            }
        }
    }
}

impl Loaded {
    fn symbol(&self, name: &str) -> *mut c_void {
        match self {
            Loaded::LdSo(opened) => opened.symbol(name, None),
            // SAFETY: used as its type says.
            Loaded::Memdl(library) => unsafe { *library.get::<*mut c_void>(name).unwrap() },
        }
    }

    /// Calls an `int f(void)`.
    fn call(&self, name: &str) -> c_int {
        let function = self.symbol(name);
        assert!(!function.is_null(), "{name}");
        // SAFETY: the convention of these tests.
        unsafe { std::mem::transmute::<*mut c_void, extern "C" fn() -> c_int>(function)() }
    }

    /// Calls an `int f(const char *, int)`.
    fn call_with(&self, name: &str, text: &str, flags: c_int) -> c_int {
        let (function, text) = (self.symbol(name), CString::new(text).unwrap());
        type Function = unsafe extern "C" fn(*const c_char, c_int) -> c_int;
        // SAFETY: the convention of these tests.
        unsafe { std::mem::transmute::<*mut c_void, Function>(function)(text.as_ptr(), flags) }
    }
}

/// What `body` gives when memdl loads and when `ld.so` does, each in a process of its own. Not less than 0,
/// and at most 255.
fn both(body: impl Fn(How) -> c_int) -> [c_int; 2] {
    [How::Memdl, How::LdSo].map(|how| in_child(60, || body(how)))
}

/// The exit status of a child that returns this.
fn expect(value: c_int) -> [c_int; 2] {
    [value << 8; 2]
}

/// Opens what it is told to, itself or through libopener.so, and calls it.
const CORE: &str = r#"
    #include <dlfcn.h>
    #include <stdio.h>
    int core_state;
    int core_get(void) { return core_state; }
    #ifdef OPENER
    void *opens(const char *, int);
    #else
    void *opens(const char *path, int flags) { return dlopen(path, flags); }
    #endif
    int core_open(const char *path, int flags) {
        core_state = 42;
        void *handle = opens(path, flags);
        if (!handle) return printf("%s\n", dlerror()), 1;
        int (*plugin)(void) = (int (*)(void))dlsym(handle, "plugin");
        return plugin ? plugin() : 2;
    }
    static void *first;
    int core_first(const char *path, int flags) {
        first = dlopen(path, flags);
        if (!first) return printf("%s\n", dlerror()), 1;
        ((void (*)(int))dlsym(first, "set"))(42);
        return 0;
    }
"#;

#[test]
fn rpath_is_inherited_to_any_depth_and_runpath_is_not() {
    isolated(|| {
        let folder = Folder::of(&|| ());
        let chain = |prefix: &str, flags: &str, depth: usize| {
            let mut below = String::new();
            for level in (0..depth).rev() {
                let name = format!("lib{prefix}{level}.so");
                let source = match below.is_empty() {
                    true => format!("int {prefix}{level}(void) {{ return 42; }}"),
                    false => format!(
                        "int {prefix}{0}(void); int {prefix}{level}(void) {{ return {prefix}{0}(); }}",
                        level + 1
                    ),
                };
                let needs = format!("-l:{below}");
                let needs: &[&str] = if below.is_empty() { &[] } else { &[&needs] };
                folder.named(&name, &source, needs);
                below = name;
            }
            let source = format!("int {prefix}0(void); int run(void) {{ return {prefix}0(); }}");
            folder.library(&format!("{prefix}.so"), &source, &[&format!("-l:{below}"), flags])
        };
        for depth in [1, 2, 3, 6] {
            let image = chain(&format!("inherits{depth}_"), RPATH, depth);
            assert_eq!(both(|how| how.load(&image, RTLD_NOW).call("run")), expect(42), "{depth}");
        }
        assert_eq!(
            both(|how| how.load(&chain("own_", RUNPATH, 1), RTLD_NOW).call("run")),
            expect(42)
        );
        let image = chain("own2_", RUNPATH, 2);
        assert!(Opened::refusal(&image, RTLD_NOW).contains("libown2_1.so: cannot open"));
        // SAFETY: a library of this test.
        let error = unsafe { loader(&image).load(&fs::read(&image).unwrap()) }.unwrap_err();
        assert!(error.to_string().contains("libown2_1.so"), "{error}");
    });
}

/// A library without a `DT_SONAME` that only the image's folders have: `ld.so` could not recognize it when
/// another library needs it.
#[test]
fn what_has_no_soname_is_found_by_what_inherits_the_path() {
    isolated(|| {
        let folder = Folder::of(&|| ());
        folder.library("libplain.so", "int state; int plain(void) { return ++state; }", &[]);
        folder.named(
            "libuses.so",
            "int plain(void); int uses(void) { return plain(); }",
            &["-l:libplain.so"],
        );
        let source = "int plain(void); int uses(void); int run(void) { plain(); return uses(); }";
        let image = folder.library("image.so", source, &["-l:libuses.so", "-l:libplain.so", RPATH]);
        assert_eq!(both(|how| how.load(&image, RTLD_NOW).call("run")), expect(2));
    });
}

#[test]
fn lists_of_folders_are_read_as_ld_so_reads_them() {
    const VARIABLE: &str = "LD_LIBRARY_PATH";
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("library-path");
    let variable = format!("{0}/none;{0}/early:{0}/late/", folder.to_str().unwrap());
    // `ld.so` remembers at the start of a process which folders there are.
    fs::create_dir_all(folder.join("early")).unwrap();
    fs::create_dir_all(folder.join("late/glibc-hwcaps/x86-64-v2")).unwrap();
    isolated_with(&[(VARIABLE, &variable)], || {
        let folder = Folder(folder.clone());
        let value = |number: i32| format!("int value(void) {{ return {number}; }}");
        for (file, number) in [
            ("early/libboth.so", 1),
            ("late/libboth.so", 2),
            ("early/libtwice.so", 3),
            ("own/libtwice.so", 4),
            ("own/libown.so", 5),
            (&format!("lib/{ARCH}-linux-gnu/libtoken.so"), 6),
            ("late/glibc-hwcaps/x86-64-v2/libbetter.so", 7),
            ("late/libbetter.so", 8),
        ] {
            folder.named(file, &value(number), &[]);
        }
        // A broken link and a library for another machine are passed over.
        let _ = fs::remove_file(folder.path("early/libpassed.so"));
        let _ = fs::remove_dir_all(folder.path("early/libpassed.so"));
        std::os::unix::fs::symlink("/none", folder.path("early/libpassed.so")).unwrap();
        folder.named("late/libpassed.so", &value(9), &[]);
        let mut foreign = fs::read(folder.path("late/libpassed.so")).unwrap();
        foreign[18] = machine::FOREIGN.e_machine as u8;
        folder.named("late/libforeign.so", &value(10), &[]);
        fs::write(folder.path("early/libforeign.so"), foreign).unwrap();
        for (name, path, expected) in [
            ("libboth.so", RUNPATH, 1),
            ("libtwice.so", "-Wl,--enable-new-dtags,-rpath,$D/own", 3),
            ("libtwice.so", "-Wl,--disable-new-dtags,-rpath,$D/own", 4),
            ("libown.so", "-Wl,--enable-new-dtags,-rpath,$ORIGIN/own", 5),
            ("libown.so", "-Wl,--disable-new-dtags,-rpath,/none:${ORIGIN}/../library-path/own/", 5),
            ("libtoken.so", "-Wl,--enable-new-dtags,-rpath,$ORIGIN/$LIB", 6),
            // The C library knows levels of x86-64.
            ("libbetter.so", RUNPATH, if glibc() >= (2, 33) && ARCH == "x86_64" { 7 } else { 8 }),
            ("libpassed.so", RUNPATH, 9),
            ("libforeign.so", RUNPATH, 10),
        ] {
            let of_machine = format!("lib/{ARCH}-linux-gnu");
            let all = ["early", "late", "own", &of_machine];
            let from = all.into_iter().find(|it| folder.path(it).join(name).is_file()).unwrap();
            let needs = folder.path(from).join(name);
            let needs = match name {
                "libforeign.so" => folder.path("late/libforeign.so"),
                _ => needs,
            };
            let source = "int value(void); int run(void) { return value(); }";
            let image = folder.library(
                &format!("uses-{name}-{expected}.so"),
                source,
                &[path, needs.to_str().unwrap()],
            );
            let got = both(|how| how.load(&image, RTLD_NOW).call("run"));
            assert_eq!(got, expect(expected), "{name} {path}");
        }
    });
}

#[test]
fn a_plug_in_finds_the_image_whoever_opens_it() {
    isolated(|| {
        let folder = Folder::of(&|| ());
        folder.named(
            "libopener.so",
            "#include <dlfcn.h>\nvoid *opens(const char *p, int f) { void *h = dlopen(p, f); return h; }",
            &[],
        );
        folder.named("libcore.so", CORE, &[]);
        folder.named(
            "libmid.so",
            "int core_get(void); int mid(void) { return core_get(); }",
            &["-lcore", RUNPATH],
        );
        folder.library(
            "direct.so",
            "int core_get(void); int plugin(void) { return core_get(); }",
            &["-lcore", RUNPATH],
        );
        folder.library(
            "through.so",
            "int mid(void); int plugin(void) { return mid(); }",
            &["-lmid", RUNPATH],
        );
        for opener in [&[][..], &["-DOPENER", "-lopener", RUNPATH]] {
            let image = folder.named("libcore.so", CORE, opener);
            for plugin in ["direct.so", "through.so"] {
                for flags in [RTLD_NOW, RTLD_LAZY, RTLD_NOW | RTLD_GLOBAL] {
                    let path = folder.path(plugin);
                    let body = |how: How| {
                        let image = how.load(&image, RTLD_NOW);
                        image.call_with("core_open", path.to_str().unwrap(), flags)
                    };
                    assert_eq!(both(body), expect(42), "{opener:?} {plugin} {flags}");
                }
            }
        }
    });
}

/// What an image has opened, later plug-ins find by name, by the path that only it has, and through what they
/// need.
#[test]
fn what_an_image_opens_exists_once() {
    isolated(|| {
        let folder = Folder::of(&|| ());
        let image = folder.named("libcore.so", CORE, &[]);
        let state =
            "static int state; void set(int n) { state = n; } int get(void) { return state; }";
        // It needs the image, so it is an image; and by the name of a link, too.
        folder.named("libfirst.so", state, &["-lcore", RUNPATH]);
        std::os::unix::fs::symlink("libfirst.so", folder.path("liblink.so")).unwrap();
        let second = "int get(void); int plugin(void) { return get(); }";
        folder.named("libsecond.so", second, &["-lfirst", "-lcore", RUNPATH]);
        let own =
            "static int own; void set_own(int n) { own = n; } int get_own(void) { return own; }";
        folder.named("libown.so", own, &["-lcore", RUNPATH]);
        let sets = "void set_own(int); void set(int n) { set_own(n); }";
        folder.named("libsets.so", sets, &["-lown", "-lcore", RUNPATH]);
        let gets = "int get_own(void); int plugin(void) { return get_own(); }";
        folder.named("libgets.so", gets, &["-lown", "-lcore", RUNPATH]);
        let cases = [
            ("libfirst.so", "libsecond.so"),
            ("liblink.so", "libsecond.so"),
            ("libsets.so", "libgets.so"),
        ];
        for (first, second) in cases {
            for flags in [RTLD_NOW, RTLD_LAZY, RTLD_NOW | RTLD_GLOBAL] {
                let body = |how: How| {
                    let image = how.load(&image, RTLD_NOW);
                    let path = |name: &str| folder.path(name).to_str().unwrap().to_owned();
                    assert_eq!(image.call_with("core_first", &path(first), flags), 0);
                    image.call_with("core_open", &path(second), flags)
                };
                assert_eq!(both(body), expect(42), "{first} {second} {flags}");
            }
        }
    });
}

/// Each instance has its own plug-ins.
#[test]
fn instances_do_not_share_what_they_open() {
    isolated(|| {
        let folder = Folder::of(&|| ());
        let image = folder.named("libcore.so", CORE, &[]);
        let plugin = "int core_get(void); static int count; int plugin(void) { return core_get() + count++; }";
        let plugin = folder.named("libplugin.so", plugin, &["-lcore", RUNPATH]);
        let plugin = plugin.to_str().unwrap();
        let [one, two] = [0, 1].map(|_| How::Memdl.load(&image, RTLD_NOW));
        let open = |image: &Loaded| image.call_with("core_open", plugin, RTLD_NOW);
        assert_eq!([open(&one), open(&one), open(&two)], [42, 43, 42]);
    });
}

#[test]
fn a_name_is_searched_for_as_the_image_would() {
    const VARIABLE: &str = "LD_LIBRARY_PATH";
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("names-of-plug-ins");
    fs::create_dir_all(folder.join("env")).unwrap();
    isolated_with(&[(VARIABLE, folder.join("env").to_str().unwrap())], || {
        let folder = Folder(folder.clone());
        let value = |number: i32| format!("int plugin(void) {{ return {number}; }}");
        folder.library("own/libplain.so", &value(42), &[]);
        folder.library("env/libelsewhere.so", &value(43), &[]);
        for tags in ["--enable-new-dtags", "--disable-new-dtags"] {
            let path = format!("-Wl,{tags},-rpath,$D/own");
            let image = folder.named(&format!("libcore{tags}.so"), CORE, &[&path]);
            let open = |name: &'static str| {
                both(|how| how.load(&image, RTLD_NOW).call_with("core_open", name, RTLD_NOW))
            };
            assert_eq!(open("libplain.so"), expect(42), "{tags}");
            assert_eq!(open("libelsewhere.so"), expect(43), "{tags}");
            assert_eq!(open("$ORIGIN/own/libplain.so"), expect(42), "{tags}");
            assert_eq!(open("${ORIGIN}/env/libelsewhere.so"), expect(43), "{tags}");
            assert_eq!(open("libnone.so"), expect(1), "{tags}");
        }
    });
}

#[test]
fn global_hands_on_to_what_the_image_needs_at_the_load_or_later() {
    isolated(|| {
        let folder = Folder::of(&|| ());
        folder.named("libdep.so", "int dep(void) { return 42; }", &[]);
        let first = r#"
            #include <dlfcn.h>
            int dep(void);
            int first(void) { return dep(); }
            int promote(void) { return dlopen("libfirst.so", RTLD_NOW | RTLD_GLOBAL | RTLD_NOLOAD) != 0; }
        "#;
        let first = folder.named("libfirst.so", first, &["-ldep", RUNPATH]);
        // Not linked with either.
        let second =
            "int dep(void); int first(void); int run(void) { return dep() + first() - 42; }";
        let second = folder.library("second.so", second, &[]);
        for flags in [RTLD_NOW | RTLD_GLOBAL, RTLD_NOW, RTLD_LOCAL | RTLD_LAZY] {
            let body = |how: How| {
                let first = how.load(&first, flags);
                if flags & RTLD_GLOBAL == 0 {
                    assert_eq!(first.call("promote"), 1);
                }
                how.load(&second, RTLD_NOW).call("run")
            };
            assert_eq!(both(body), expect(42), "{flags}");
        }
        let first = load(&loader(&first), &first);
        // SAFETY: a library of this test.
        let refused = unsafe { loader(&second).load(&fs::read(&second).unwrap()) };
        assert!(refused.unwrap_err().to_string().contains("first"));
        first.make_global().unwrap();
        assert_eq!(Loaded::Memdl(load(&loader(&second), &second)).call("run"), 42);
    });
}

#[test]
fn loads_of_a_namespace_share_what_they_need() {
    isolated(|| {
        let folder = Folder::of(&|| ());
        let dep = "static int state; void dep_set(int n) { state = n; } int dep_get(void) { return state; }";
        let dep = folder.named("libdep.so", dep, &[]);
        let sets = folder.named(
            "libsets.so",
            "void dep_set(int); int run(void) { dep_set(42); return 0; }",
            &["-ldep"],
        );
        let gets = folder.named(
            "libgets.so",
            "int dep_get(void); int run(void) { return dep_get(); }",
            &["-ldep"],
        );
        let run = |loader: &Loader, path: &Path| {
            let library = Loaded::Memdl(load(loader, path));
            (library.call("run"), library)
        };
        let provide = |loader: Loader| loader.provide("libdep.so", fs::read(&dep).unwrap());
        let apart = provide(Loader::new());
        let (_, _kept) = run(&apart, &sets);
        assert_eq!(run(&apart, &gets).0, 0, "each load has its own");
        let namespace = Namespace::new();
        let together = provide(Loader::new().namespace(&namespace));
        let (_, setter) = run(&together, &sets);
        let (got, getter) = run(&together, &gets);
        assert_eq!(got, 42, "one copy");
        // What another keeps is found again.
        drop(setter);
        assert_eq!(run(&Loader::new().namespace(&namespace), &gets).0, 42);
        drop(getter);
        // Nothing keeps it now.
        let refused = Loader::new().system_libraries(false).namespace(&namespace);
        // SAFETY: a library of this test.
        let refused = unsafe { refused.load(&fs::read(&gets).unwrap()) };
        assert!(refused.unwrap_err().to_string().contains("libdep.so"));
    });
}

#[test]
fn a_provider_is_asked_by_name_and_by_who_needs_it() {
    isolated(|| {
        let folder = Folder::of(&|| ());
        let below = folder.named("libbelow.so", "int below(void) { return 40; }", &[]);
        let dep = folder.named(
            "libdep.so",
            "int below(void); int dep(void) { return below() + 1; }",
            &["-lbelow"],
        );
        let other = folder.named("libother.so", "int other(void) { return 1; }", &[]);
        let plugin = folder.named("libplugin.so", "int plugin(void) { return 43; }", &[]);
        let source = format!(
            "{CORE}\nint dep(void); int other(void); int run(void) {{ return dep() + other(); }}"
        );
        let image = folder.named("libimage.so", &source, &["-ldep", "-lother"]);
        let other = load(&Loader::new(), &other);
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = asked.clone();
        let provided = Provided::from(&other);
        let loader = Loader::new().name("image").provider(move |request| {
            log.lock().unwrap().push(format!("{} for {}", request.name(), request.needed_by()));
            let file = match request.name() {
                "libbelow.so" => &below,
                "libdep.so" => &dep,
                "libplugin.so" => &plugin,
                "libother.so" => return Some(provided.clone()),
                _ => return None,
            };
            Some(fs::read(file).unwrap().into())
        });
        let image = Loaded::Memdl(load(&loader, &image));
        assert_eq!(image.call("run"), 42);
        assert_eq!(image.call_with("core_open", "libplugin.so", RTLD_NOW), 43);
        let asked = asked.lock().unwrap();
        let of_c_library = asked.iter().filter(|it| it.starts_with("libc.so"));
        assert_eq!(of_c_library.count(), 2, "once in each load");
        for expected in [
            "libdep.so for image",
            "libother.so for image",
            "libbelow.so for libdep.so",
            "libplugin.so for image",
        ] {
            assert_eq!(
                asked.iter().filter(|it| *it == expected).count(),
                1,
                "{expected}: {asked:?}"
            );
        }
    });
}

/// `dlsym` does not find such a definition.
#[test]
fn an_unversioned_reference_means_the_first_version_in_a_global_library_too() {
    isolated(|| {
        let folder = Folder::of(&|| ());
        let map = folder.path("versions.map");
        fs::write(&map, "V1 { global: number; };").unwrap();
        let source = r#"int old(void) { return 41; } __asm__(".symver old, number@V1");"#;
        let script = format!("-Wl,--version-script={}", map.display());
        let global = folder.library("libglobal.so", source, &[&script]);
        let source = "int number(void); int run(void) { return number() + 1; }";
        let image = folder.library("libimage.so", source, &[]);
        let open = |how: How| {
            let _global = Opened::new(&global, RTLD_NOW | RTLD_GLOBAL);
            how.load(&image, RTLD_NOW).call("run")
        };
        assert_eq!(both(open), expect(42));
    });
}

#[test]
fn what_a_provider_received_into_a_buffer_runs_there() {
    isolated(|| {
        let folder = Folder::of(&|| ());
        let state =
            "int state = 40; int *place(void) { return &state; } int dep(void) { return ++state; }";
        let dep = folder.named("libdep.so", state, &[]);
        let source = "int dep(void); int run(void) { return dep() + 1; }";
        let image = folder.named("libimage.so", source, &["-ldep"]);
        let bytes = fs::read(&dep).unwrap();
        let kept = Arc::new(Mutex::new(None));
        for keep in [false, true] {
            let (bytes, keeper) = (bytes.clone(), kept.clone());
            let address = Arc::new(AtomicUsize::new(0));
            let seen = address.clone();
            let loader = Loader::new().provider(move |request| {
                if request.name() != "libdep.so" {
                    return None;
                }
                let buffer = ImageBuffer::read_from(&bytes[..], bytes.len()).unwrap();
                seen.store(buffer.as_ptr().addr(), Ordering::Relaxed);
                let provided = Provided::from(buffer);
                if keep {
                    *keeper.lock().unwrap() = Some(provided.clone());
                }
                Some(provided)
            });
            // A template would copy it.
            // SAFETY: the test's own libraries.
            let image = unsafe { loader.load(&fs::read(&image).unwrap()) }.unwrap();
            // SAFETY: its type.
            let run = unsafe { image.get::<extern "C" fn() -> c_int>("run") }.unwrap();
            assert_eq!((run(), run()), (42, 43));
            let images = memdl::images();
            let dep = images.iter().find(|it| it.name() == "libdep.so").unwrap();
            let is_there = dep.address_range().contains(&address.load(Ordering::Relaxed));
            assert_eq!(is_there, !keep, "a kept buffer is copied");
        }
        let provided = kept.lock().unwrap().take().unwrap();
        let loader =
            Loader::new().provider(move |it| (it.name() == "libdep.so").then(|| provided.clone()));
        // SAFETY: the test's own libraries.
        let template = unsafe { loader.prepare(&fs::read(&image).unwrap()) }.unwrap();
        for _ in 0..2 {
            // SAFETY: as above, and its type.
            let run = unsafe {
                let instance = template.instantiate().unwrap();
                instance.get::<extern "C" fn() -> c_int>("run").unwrap()()
            };
            assert_eq!(run, 42);
        }
    });
}

/// `ld.so` knows a library by the names that it was asked for by. memdl asks for the path.
#[test]
fn a_library_without_a_soname_is_known_by_the_name_that_it_was_needed_by() {
    isolated(|| {
        let folder = Folder::of(&|| ());
        let state =
            "static int state; void set(int n) { state = n; } int get(void) { return state; }";
        for (file, soname) in
            [("own/libplain.so", None), ("own/libalias.so", Some("libother.so.1"))]
        {
            let soname = soname.map(|soname| format!("-Wl,-soname,{soname}"));
            let flags: Vec<&str> = soname.iter().map(String::as_str).collect();
            folder.library(file, state, &flags);
            let name = file.strip_prefix("own/").unwrap();
            // The name in the DT_NEEDED entry is that of a file without a DT_SONAME.
            folder.library(name, state, &[]);
            let link = format!("-l:{name}");
            let plugin = "int get(void); int plugin(void) { return get(); }";
            let plugin = folder.library(&format!("uses-{name}"), plugin, &[&link]);
            let core = format!("{CORE}\nvoid set(int); void prepare(void) {{ set(42); }}");
            let path = "-Wl,--enable-new-dtags,-rpath,$D/own";
            let image = folder.named(&format!("core-{name}"), &core, &[&link, path]);
            fs::remove_file(folder.path(name)).unwrap();
            let open = |how: How, what: &str| {
                let image = how.load(&image, RTLD_NOW);
                image.call("prepare");
                image.call_with("core_open", what, RTLD_NOW)
            };
            assert_eq!(both(|how| open(how, plugin.to_str().unwrap())), expect(42), "{file}");
        }
    });
}

/// An image that was opened by a name without a slash is known by that name, wherever it was found.
#[test]
fn an_image_without_a_soname_is_known_by_the_name_that_it_was_opened_by() {
    isolated(|| {
        let folder = Folder::of(&|| ());
        let path = "-Wl,--enable-new-dtags,-rpath,$D/own";
        let image = folder.named("libcore.so", CORE, &[path]);
        let state =
            "int core_get(void); static int state; void set(int n) { state = n * core_get() / 42; }
            int get(void) { return state; }";
        let core = format!("{CORE}\nvoid prepare(void) {{ core_state = 42; }}");
        let image_with = folder.named("libcore.so", &core, &[path]);
        assert_eq!(image, image_with);
        folder.library("own/libplain.so", state, &["-lcore", RUNPATH]);
        // Linked by the name, which no folder of its own has.
        folder.library("libplain.so", state, &["-lcore"]);
        let plugin = "int get(void); int plugin(void) { return get(); }";
        let plugin = folder.library("plugin.so", plugin, &["-l:libplain.so", "-lcore"]);
        fs::remove_file(folder.path("libplain.so")).unwrap();
        let body = |how: How| {
            let image = how.load(&image, RTLD_NOW);
            image.call("prepare");
            assert_eq!(image.call_with("core_first", "libplain.so", RTLD_NOW), 0);
            image.call_with("core_open", plugin.to_str().unwrap(), RTLD_NOW)
        };
        assert_eq!(both(body), expect(42));
    });
}

/// What an image needs looks in itself first, if the image does, as with `RTLD_DEEPBIND`.
#[test]
fn self_first_is_handed_on_to_what_the_image_needs() {
    isolated(|| {
        let folder = Folder::of(&|| ());
        let value = |number: i32| format!("int value(void) {{ return {number}; }}");
        let global = folder.named("libglobal.so", &value(1), &[]);
        let dep = format!("{}\nint dep(void) {{ return value(); }}", value(2));
        folder.named("libdep.so", &dep, &[]);
        let image = "int dep(void); int run(void) { return dep(); }";
        let image = folder.named("libimage.so", image, &["-ldep", RUNPATH]);
        for (flags, expected) in [(RTLD_NOW, 1), (RTLD_NOW | libc::RTLD_DEEPBIND, 2)] {
            let body = |how: How| {
                let _global = Opened::new(&global, RTLD_NOW | RTLD_GLOBAL);
                how.load(&image, flags).call("run")
            };
            assert_eq!(both(body), expect(expected), "{flags:#x}");
        }
    });
}

/// Two threads that open a file at once get one copy of it.
#[test]
fn two_threads_open_a_file_once() {
    isolated(|| {
        let folder = Folder::of(&|| ());
        let core = r#"
            #include <dlfcn.h>
            int core_get(void) { return 1; }
            void *core_handle(const char *path) { void *h = dlopen(path, RTLD_NOW); return h; }
        "#;
        let image = folder.named("libcore.so", core, &[]);
        let plugin = "int core_get(void); int plugin(void) { return core_get(); }";
        let plugins: Vec<PathBuf> = (0..8)
            .map(|index| {
                folder.named(&format!("libplugin{index}.so"), plugin, &["-lcore", RUNPATH])
            })
            .collect();
        let image = load(&loader(&image), &image);
        for plugin in plugins {
            let path = CString::new(plugin.to_str().unwrap()).unwrap();
            let barrier = std::sync::Barrier::new(4);
            let open = || {
                type Open = unsafe extern "C" fn(*const c_char) -> *mut c_void;
                // SAFETY: its type; a plug-in of this test.
                unsafe {
                    let open = image.get::<Open>("core_handle").unwrap();
                    barrier.wait();
                    open(path.as_ptr()).addr()
                }
            };
            let handles: Vec<usize> = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(open)).collect();
                threads.into_iter().map(|it| it.join().unwrap()).collect()
            });
            assert!(handles[0] != 0 && handles.iter().all(|it| *it == handles[0]), "{handles:x?}");
        }
    });
}

/// `dlsym`, `dlclose` and `dlerror` of a library of the system work with what it opened for an image, and with
/// what it opened for itself.
#[test]
fn a_library_of_the_system_uses_the_handles_that_it_gets() {
    isolated(|| {
        let folder = Folder::of(&|| ());
        let opener = r#"
            #define _GNU_SOURCE
            #include <dlfcn.h>
            int opener_local = 7;
            int opens(const char *path, const char *name) {
                void *handle = dlopen(path, RTLD_NOW);
                if (!handle) return dlerror() ? 100 : 101;
                int (*function)(void) = (int (*)(void))dlsym(handle, name);
                if (!function) return dlerror() ? 102 : 103;
                int value = function();
                return dlclose(handle) ? 104 : value;
            }
            /* The scope is the caller's, so the return address counts. */
            int finds(void) { int *found = dlsym(RTLD_DEFAULT, "opener_local"); return found ? *found : 105; }
        "#;
        let opener = folder.named("libopener.so", opener, &["-ldl"]);
        let image = r#"
            int opens(const char *, const char *);
            int finds(void);
            int image_value(void) { return 42; }
            int run(const char *path, int which) {
                switch (which) {
                case 0: return opens(path, "plugin");
                case 1: return opens(path, "none");
                case 2: return opens("/none.so", "plugin");
                default: return finds();
                }
            }
        "#;
        let image = folder.named("libimage.so", image, &["-lopener", RUNPATH]);
        let needs = "int image_value(void); int plugin(void) { return image_value(); }";
        let needs = folder.library("needs.so", needs, &["-limage", RUNPATH]);
        let alone = folder.library("alone.so", "int plugin(void) { return 41; }", &[]);
        for before in [false, true] {
            for (path, which, expected) in [
                (&needs, 0, 42),
                (&alone, 0, 41),
                (&needs, 1, 102),
                (&needs, 2, 100),
                (&needs, 3, 7),
            ] {
                let body = |how: How| {
                    // The process may have it before the image needs it.
                    let _opened = before.then(|| Opened::new(&opener, RTLD_NOW));
                    how.load(&image, RTLD_NOW).call_with("run", path.to_str().unwrap(), which)
                };
                assert_eq!(both(body), expect(expected), "{before} {path:?} {which}");
            }
        }
    });
}

/// A lazily bound function of a library that is there already is found in what is opened later with it, as
/// `ld.so` adds the scope of the later to the library's.
#[test]
fn a_shared_library_is_bound_in_what_comes_later() {
    isolated(|| {
        let folder = Folder::of(&|| ());
        let image = folder.named("libcore.so", CORE, &[]);
        let shared = "int later(void); int shared(void) { return later(); }";
        folder.named("libshared.so", shared, &["-lcore", RUNPATH, "-Wl,-z,lazy"]);
        folder.named(
            "libfirst.so",
            "int shared(void); void set(int n) {}",
            &["-lshared", RUNPATH, "-lcore"],
        );
        let second = "int shared(void); int later(void) { return 42; } int plugin(void) { return shared(); }";
        folder.named("libsecond.so", second, &["-lshared", RUNPATH, "-lcore"]);
        let body = |how: How| {
            let image = how.load(&image, RTLD_NOW);
            let path = |name: &str| folder.path(name).to_str().unwrap().to_owned();
            assert_eq!(image.call_with("core_first", &path("libfirst.so"), RTLD_LAZY), 0);
            image.call_with("core_open", &path("libsecond.so"), RTLD_LAZY)
        };
        assert_eq!(both(body), expect(42));
    });
}

/// `RTLD_NODELETE`, `RTLD_NOLOAD` and `RTLD_DEEPBIND` in an image's `dlopen`.
#[test]
fn flags_of_an_images_dlopen_count() {
    isolated(|| {
        let folder = Folder::of(&|| ());
        let core = r#"
            #include <dlfcn.h>
            int value(void) { return 1; }
            int run(const char *path, int flags) {
                if (dlopen(path, RTLD_NOW | RTLD_NOLOAD)) return 10;
                if (dlerror()) return 11;
                void *handle = dlopen(path, RTLD_NOW | flags);
                if (!handle) return 12;
                int found = ((int (*)(void))dlsym(handle, "plugin"))();
                dlclose(handle);
                return found * 10 + (dlopen(path, RTLD_NOW | RTLD_NOLOAD) != 0);
            }
        "#;
        let image = folder.named("libcore.so", core, &[]);
        let plugin = "int value(void) { return 2; } int plugin(void) { return value(); }";
        let plugin = folder.named("libplugin.so", plugin, &["-lcore", RUNPATH]);
        let plugin = plugin.to_str().unwrap();
        for (flags, global, expected) in [
            (0, false, 20),
            (libc::RTLD_NODELETE, false, 21),
            (0, true, 10),
            (libc::RTLD_DEEPBIND, true, 20),
            (libc::RTLD_DEEPBIND | libc::RTLD_NODELETE, true, 21),
        ] {
            let body = |how: How| {
                let scope = if global { RTLD_GLOBAL } else { RTLD_LOCAL };
                how.load(&image, RTLD_NOW | scope).call_with("run", plugin, flags)
            };
            assert_eq!(both(body), expect(expected), "{flags:#x} {global}");
        }
    });
}

/// The text that `dlerror` gives an image.
#[test]
fn errors_of_an_images_dlopen_are_those_of_ld_so() {
    isolated(|| {
        let folder = Folder::of(&|| ());
        let core = r#"
            #include <dlfcn.h>
            #include <stdlib.h>
            const char *run(const char *path) { return dlopen(path, RTLD_NOW) ? "opened" : dlerror(); }
        "#;
        let image = folder.named("libcore.so", core, &[]);
        fs::write(
            folder.path("text.so"),
            "no library, but longer than a header of an ELF file is, by far",
        )
        .unwrap();
        fs::write(folder.path("short.so"), "short").unwrap();
        let text = |how: How, path: &str| {
            let image = how.load(&image, RTLD_NOW);
            let (run, path) = (image.symbol("run"), CString::new(path).unwrap());
            type Run = unsafe extern "C" fn(*const c_char) -> *const c_char;
            // SAFETY: its type.
            let text = unsafe {
                CStr::from_ptr(std::mem::transmute::<*mut c_void, Run>(run)(path.as_ptr()))
            };
            text.to_string_lossy().into_owned()
        };
        for path in ["libnone.so", "/none/libnone.so", "$D/text.so", "$D/short.so", "$D"] {
            let path = path.replace("$D", folder.0.to_str().unwrap());
            assert_eq!(text(How::Memdl, &path), text(How::LdSo, &path), "{path}");
        }
    });
}

/// Each call replaces the error that the call before it left, whoever answers it.
#[test]
fn errors_are_those_of_the_last_call() {
    isolated(|| {
        let folder = Folder::of(&|| ());
        let core = r#"
            #define _GNU_SOURCE
            #include <dlfcn.h>
            #include <string.h>
            static char text[4096];
            const char *run(const char *path, int which) {
                void *handle = dlopen(path, RTLD_NOW);
                if (!handle) return dlerror();
                dlerror();
                switch (which) {
                case 0: dlsym(handle, "none"); break;
                case 1: dlvsym(handle, "plugin", "NONE_1"); break;
                case 2: dlsym(RTLD_DEFAULT, "none"); break;
                case 3: dlvsym(RTLD_DEFAULT, "none", "NONE_1"); break;
                case 4: dlsym(handle, "none"), dlopen("/none/libnone.so", RTLD_NOW); break;
                case 5: dlsym(handle, "none"), dlsym(handle, "plugin"); break;
                case 6: dlsym(handle, "none"), dlsym(RTLD_DEFAULT, "strlen"); break;
                case 7: dlsym(handle, "none"), dlclose(dlopen(path, RTLD_NOW)); break;
                default: dlopen("/none/libnone.so", RTLD_NOW), dlsym(handle, "none");
                }
                const char *error = dlerror();
                strcpy(text, error ? error : "no error");
                return dlerror() ? "two errors" : text;
            }
        "#;
        let image = folder.named("libcore.so", core, &[]);
        let plugin = "int run(void); int plugin(void) { return 0; } void *uses = run;";
        let plugin = folder.named("libplugin.so", plugin, &["-lcore", RUNPATH]);
        let plugin = CString::new(plugin.to_str().unwrap()).unwrap();
        let text = |how: How, which: c_int| {
            let run = how.load(&image, RTLD_NOW);
            let run = run.symbol("run");
            type Run = unsafe extern "C" fn(*const c_char, c_int) -> *const c_char;
            // SAFETY: its type.
            let text = unsafe {
                let run = std::mem::transmute::<*mut c_void, Run>(run);
                CStr::from_ptr(run(plugin.as_ptr(), which))
            };
            text.to_string_lossy().into_owned()
        };
        // In the second round the plug-in is `ld.so`'s for the image, too.
        for round in 0..2 {
            let ours: Vec<String> = (0..9).map(|which| text(How::Memdl, which)).collect();
            for (which, ours) in (0..).zip(&ours) {
                assert_eq!(*ours, text(How::LdSo, which), "{which} {round}");
            }
        }
    });
}

/// What an image needs is in its scope, so in that of what it opens, though the process does not see it.
#[test]
fn what_an_image_opens_sees_the_libraries_that_it_needs() {
    isolated(|| {
        let folder = Folder::of(&|| ());
        let dep = folder.named("libdep.so", "int dep(void) { return 42; }", &[]);
        let image = folder.named("libcore.so", CORE, &["-ldep", RUNPATH, "-Wl,--no-as-needed"]);
        // The one refers to an image, and is loaded with it; neither needs libdep.
        let core = "int core_get(void); int dep(void); void *uses = core_get; int plugin(void) { return dep(); }";
        let core = folder.library("core.so", core, &["-lcore", RUNPATH]);
        let alone =
            folder.library("alone.so", "int dep(void); int plugin(void) { return dep(); }", &[]);
        // `dep` is the system's.
        let _opened = Opened::new(&dep, RTLD_NOW);
        for plugin in [&core, &alone] {
            let body = |how: How, flags: c_int| {
                let image = how.load(&image, RTLD_NOW | flags);
                image.call_with("core_open", plugin.to_str().unwrap(), RTLD_NOW)
            };
            assert_eq!(both(|how| body(how, RTLD_GLOBAL)), expect(42), "{plugin:?}");
            // Also where it is not global: `ld.so` refuses that.
            assert_eq!(in_child(60, || body(How::Memdl, RTLD_LOCAL)), 42 << 8, "{plugin:?}");
        }
    });
}

/// A thread that ends runs destructors that open, look up and close, after memdl's own variables of that thread
/// are gone.
#[test]
fn destructors_of_a_thread_open_and_close() {
    isolated(|| {
        let folder = Folder::of(&|| ());
        let core = r#"
            #include <dlfcn.h>
            #include <pthread.h>
            static const char *path;
            static pthread_key_t key;
            static int found;
            int core_get(void) { return 42; }
            static void end(void *former) {
                void *handle = dlopen(path, RTLD_NOW);
                if (!handle || dlopen("/none/libnone.so", RTLD_NOW) || dlsym(handle, "none")) return;
                dlerror();
                int (*plugin)(void) = (int (*)(void))dlsym(handle, "plugin");
                found = plugin();
                if (dlclose(handle) || dlclose(former)) found = 1;
            }
            static void *thread(void *none) {
                void *handle = dlopen(path, RTLD_NOW);
                dlsym(handle, "none");
                pthread_setspecific(key, handle);
                return 0;
            }
            int run(const char *plugin, int flags) {
                pthread_t id;
                path = plugin;
                pthread_key_create(&key, end);
                pthread_create(&id, 0, thread, 0);
                pthread_join(id, 0);
                return found;
            }
        "#;
        let image = folder.named("libcore.so", core, &[]);
        let plugin = "int core_get(void); int plugin(void) { return core_get(); }";
        let plugin = folder.named("libplugin.so", plugin, &["-lcore", RUNPATH]);
        let body =
            |how: How| how.load(&image, RTLD_NOW).call_with("run", plugin.to_str().unwrap(), 0);
        assert_eq!(both(body), expect(42));
    });
}

/// As an archive whose libraries were never unpacked: each says where it lies, and what it needs is found from there.
#[test]
fn a_provider_is_told_the_folders_and_names_what_it_supplies() {
    isolated(|| {
        let folder = Folder::of(&|| ());
        let below = folder.named("libbelow.so", "int below(void) { return 40; }", &[]);
        let source = "int below(void); int dep(void) { return below() + 2; }";
        let dep = folder.named(
            "libdep.so",
            source,
            &["-lbelow", "-Wl,--enable-new-dtags,-rpath,$ORIGIN/below"],
        );
        let source = format!("{CORE}\nint dep(void); int run(void) {{ return dep(); }}");
        let options = ["-ldep", "-Wl,--enable-new-dtags,-rpath,$ORIGIN/../deps:/elsewhere"];
        let image = folder.named("libimage.so", &source, &options);
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = asked.clone();
        let loader = Loader::new().name("/archive/bin/image").namespace(&Namespace::new());
        let loader = loader.provider(move |request| {
            let folders: Vec<_> = request.folders().map(|it| it.to_str().unwrap()).collect();
            log.lock().unwrap().push(format!(
                "{} for {}: {folders:?}",
                request.name(),
                request.needed_by()
            ));
            let (file, name) = match request.name() {
                "libdep.so" | "/archive/bin/../deps/libdep.so" => {
                    (&dep, "/archive/bin/../deps/libdep.so")
                }
                "libbelow.so" => (&below, "/archive/bin/../deps/below/libbelow.so"),
                _ => return None,
            };
            Some(Provided::from(fs::read(file).unwrap()).named(name))
        });
        let image = Loaded::Memdl(load(&loader, &image));
        assert_eq!(image.call("run"), 42);
        for expected in [
            r#"libdep.so for /archive/bin/image: ["/archive/bin/../deps", "/elsewhere"]"#,
            r#"libbelow.so for /archive/bin/../deps/libdep.so: ["/archive/bin/../deps/below"]"#,
        ] {
            let asked = asked.lock().unwrap();
            assert!(asked.iter().any(|it| it == expected), "{expected}: {asked:?}");
        }
        // It is there under its own name, and under the one that it was needed by. It has no function `plugin`.
        let count = memdl::images().len();
        assert_eq!(image.call_with("core_open", "/archive/bin/../deps/libdep.so", RTLD_NOW), 2);
        assert_eq!(image.call_with("core_open", "libdep.so", RTLD_NOW), 2);
        assert_eq!(memdl::images().len(), count);
    });
}

#[test]
fn a_provider_that_fails_ends_the_load() {
    isolated(|| {
        let folder = Folder::of(&|| ());
        folder.named("libdep.so", "int dep(void) { return 1; }", &[]);
        // The file would be found, were it searched.
        let source = "int dep(void); int run(void) { return dep(); }";
        let needing = fs::read(folder.named("libneeding.so", source, &["-ldep", RUNPATH])).unwrap();
        let fails = |request: &memdl::LibraryRequest<'_>| {
            request.name().contains("dep").then(|| Provided::failed("the store is offline"))
        };
        // SAFETY: a library of this test.
        let error = unsafe { Loader::new().provider(fails).load(&needing) }.unwrap_err();
        assert_eq!(error.kind(), memdl::ErrorKind::Missing);
        assert!(error.to_string().contains("libdep.so [the store is offline]"), "{error}");
        let plain = folder.named("libplain.so", CORE, &[]);
        let plain = Loaded::Memdl(load(&Loader::new().provider(fails), &plain));
        assert_eq!(plain.call_with("core_open", "libdep.so", RTLD_NOW), 1);
    });
}
