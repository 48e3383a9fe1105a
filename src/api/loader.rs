//! Load options, and the functions that load with them.

#![allow(unsafe_code)]

use std::ffi::c_void;
use std::fmt;
use std::sync::Arc;

use crate::api::library::{Library, Template};
use crate::api::namespace::Namespace;
use crate::api::report::{self, Report};
use crate::api::startup;
use crate::base::error::Error;
use crate::base::limits::Limits;
use crate::base::promise::MayRun;
use crate::base::words::words;
use crate::debug::{DebugLevel, Instances};
use crate::images::group::Provided;
use crate::images::policy::SymbolRequest;
use crate::images::policy::{Imports, VerifyRequest};
use crate::images::provider::LibraryRequest;
use crate::images::scope::Scope;
use crate::load::settings::Settings;
use crate::memory::buffer::ImageBuffer;
use crate::memory::bytes::Bytes;
use crate::profile::Profile;
use crate::services;

/// When calls between libraries are bound.
///
/// ```
/// use memdl::Binding;
///
/// assert_eq!("lazy".parse(), Ok(Binding::Lazy));
/// assert_eq!(Binding::default().to_string(), "now");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum Binding {
    /// All at load, as `RTLD_NOW`. A missing function is an error of the load.
    #[default]
    Now,
    /// At the first call, as `RTLD_LAZY`. A missing function ends the process when it is called. An image
    /// with `DF_BIND_NOW` is bound at load.
    Lazy,
}

words!(Binding, [("now", Binding::Now), ("lazy", Binding::Lazy)]);

/// Load options: a reusable builder of [`Library`] and [`Template`].
///
/// ```
/// # let bytes = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/bytes.rs"));
/// extern "C" fn host_log(_: *const std::ffi::c_char) {}
///
/// let loader = memdl::Loader::new()
///     .name("thumbnailer-7f3a")
///     .define("host_log", host_log as *const std::ffi::c_void);
/// // SAFETY: we trust the library's constructors.
/// let library = unsafe { loader.load(&bytes)? };
/// assert_eq!(library.name(), "thumbnailer-7f3a");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
#[must_use]
pub struct Loader {
    pub(crate) settings: Settings,
}

impl Default for Loader {
    fn default() -> Loader {
        Loader::new()
    }
}

impl Loader {
    /// A loader that does what `dlopen(.., RTLD_NOW | RTLD_LOCAL)` does, with debug entries.
    ///
    /// ```
    /// # let bytes = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/bytes.rs"));
    /// let loader = memdl::Loader::new();
    /// // SAFETY: we trust the library's constructors.
    /// let library = unsafe { loader.load(&bytes)? };
    /// assert_eq!(library.name(), "libexample.so");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn new() -> Loader {
        Loader { settings: Settings::new(services::replacement, services::hosted::cover) }
    }

    /// The name of the image in errors, debuggers, profilers and `/proc/self/maps`. Default: its `DT_SONAME`,
    /// or else `image`.
    ///
    /// It is also what `dladdr` gives as the image's file. So an image that finds its own files that way needs
    /// the path that it would have on disk: a JVM finds its home by that of libjvm.so. And `$ORIGIN` in the
    /// image's search path, and in names that it opens, is the folder of a name that is an absolute path. If
    /// there is a file at that path, it counts as this image, for what opens it later.
    ///
    /// ```
    /// # let bytes = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/bytes.rs"));
    /// let loader = memdl::Loader::new().name("thumbnailer-7f3a");
    /// // SAFETY: we trust the library's constructors.
    /// let library = unsafe { loader.load(&bytes)? };
    /// assert_eq!(library.name(), "thumbnailer-7f3a");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn name(mut self, name: impl Into<String>) -> Loader {
        self.settings.name = Some(name.into().into());
        self
    }

    /// Defines a symbol as if the host exported it.
    ///
    /// It takes precedence over a symbol of that name that the host does export. The address must stay valid
    /// for as long as any image that was loaded with these options.
    ///
    /// ```
    /// # let bytes = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/bytes.rs"));
    /// extern "C" fn roll() -> i32 { 3 }
    ///
    /// let loader = memdl::Loader::new().define("roll", roll as *const std::ffi::c_void);
    /// // SAFETY: we trust the library's constructors. It calls `roll` by its type.
    /// let library = unsafe { loader.load(&bytes)? };
    /// // SAFETY: this is the type of `play`, which calls `roll`.
    /// assert_eq!(unsafe { library.get::<extern "C" fn() -> i32>("play")?() }, 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn define(mut self, name: impl Into<String>, address: *const c_void) -> Loader {
        self.settings.defined.insert(name.into(), address.addr());
        self
    }

    /// Asks `resolver` for every symbol that nothing else defines.
    ///
    /// The result must be the address of such a symbol, valid for as long as the image.
    ///
    /// ```
    /// # let bytes = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/bytes.rs"));
    /// extern "C" fn roll() -> i32 { 3 }
    ///
    /// let loader = memdl::Loader::new().resolver(|symbol| {
    ///     (symbol.name() == "roll").then_some(roll as *const std::ffi::c_void)
    /// });
    /// // SAFETY: we trust the library's constructors. It calls `roll` by its type.
    /// let library = unsafe { loader.load(&bytes)? };
    /// // SAFETY: this is the type of `play`, which calls `roll`.
    /// assert_eq!(unsafe { library.get::<extern "C" fn() -> i32>("play")?() }, 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn resolver(
        mut self,
        resolver: impl Fn(&SymbolRequest<'_>) -> Option<*const c_void> + Send + Sync + 'static,
    ) -> Loader {
        self.settings.resolver = Some(Arc::new(resolver));
        self
    }

    /// Satisfies a `DT_NEEDED` entry that names this library, by its `DT_SONAME` or its name.
    ///
    /// The library joins the scope, and stays loaded, only if an image needs it. The libraries that it was
    /// itself loaded with ([`Loader::provide`]) are found the same way.
    ///
    /// ```
    /// # let library = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/library.rs"));
    /// # let plugin_bytes = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/plugin.rs"));
    /// let loader = memdl::Loader::new().depends_on(&library);
    /// // SAFETY: we trust the plug-in's constructors.
    /// let plugin = unsafe { loader.load(&plugin_bytes)? }; // it needs libexample.so
    /// assert_eq!(memdl::images().len(), 2); // it has no libexample.so of its own
    /// # drop(plugin);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn depends_on(mut self, library: &Library) -> Loader {
        self.settings.depends_on.push(library.group().clone());
        self
    }

    /// Bytes to load when something needs a library of this name: at most once per load.
    ///
    /// ```
    /// # let bytes = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/bytes.rs"));
    /// # let plugin_bytes = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/plugin.rs"));
    /// let loader = memdl::Loader::new().provide("libexample.so", bytes);
    /// // SAFETY: we trust the constructors of both.
    /// let plugin = unsafe { loader.load(&plugin_bytes)? }; // it needs libexample.so
    /// let names: Vec<String> = memdl::images().iter().map(|image| image.name().to_owned()).collect();
    /// assert_eq!(names, ["libplugin.so", "libexample.so"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn provide(mut self, name: impl Into<String>, bytes: impl Into<Arc<[u8]>>) -> Loader {
        self.settings.provided.push((name.into().into(), Bytes::Shared(bytes.into())));
        self
    }

    /// Asks `provider` for every library that an image needs, and that neither [`Loader::depends_on`], nor the
    /// namespace, nor [`Loader::provide`] has: before the process's libraries and the file system. It is asked
    /// once for each name in a load, and for what the images open later with `dlopen`.
    ///
    /// It supplies bytes, which are loaded with the image, or a library that is loaded, or nothing. So
    /// libraries come out of an archive or a cache, without a list of them.
    ///
    /// ```
    /// use std::collections::HashMap;
    /// use std::sync::Arc;
    ///
    /// # let bytes = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/bytes.rs"));
    /// # let plugin_bytes = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/plugin.rs"));
    /// let store: HashMap<&str, Arc<[u8]>> = HashMap::from([("libexample.so", bytes.into())]);
    /// let loader = memdl::Loader::new()
    ///     .provider(move |request| Some(store.get(request.name())?.clone().into()));
    /// // SAFETY: we trust the constructors of both.
    /// let plugin = unsafe { loader.load(&plugin_bytes)? }; // it needs libexample.so
    /// # assert_eq!(memdl::images().len(), 2);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn provider(
        mut self,
        provider: impl Fn(&LibraryRequest<'_>) -> Option<Provided> + Send + Sync + 'static,
    ) -> Loader {
        self.settings.provider = Some(Arc::new(provider));
        self
    }

    /// Loads into a namespace that other loads use, too. Default: each load, and each instance of a template,
    /// has one of its own.
    ///
    /// Images of a namespace find each other by `DT_SONAME` and by name when something needs or opens a
    /// library of that name, and by file. So what several loads need exists once, also if it was supplied as
    /// bytes.
    ///
    /// ```
    /// # let bytes = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/bytes.rs"));
    /// # let plugin_bytes = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/plugin.rs"));
    /// let loader = memdl::Loader::new()
    ///     .namespace(&memdl::Namespace::new())
    ///     .provide("libexample.so", bytes);
    /// // SAFETY: we trust the constructors of both libraries. The plug-in needs libexample.so.
    /// let (first, second) = unsafe { (loader.load(&plugin_bytes)?, loader.load(&plugin_bytes)?) };
    /// assert_eq!(memdl::images().len(), 3); // both use one libexample.so
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn namespace(mut self, namespace: &Namespace) -> Loader {
        self.settings.namespace = Some(namespace.0.clone());
        self
    }

    /// Whether images that are loaded later see the exports, and those of all libraries that the image needs,
    /// as with `RTLD_GLOBAL`. Default false. [`Library::make_global`] does so later.
    ///
    /// ```
    /// # let bytes = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/bytes.rs"));
    /// # let dice_bytes = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/dice.rs"));
    /// // SAFETY: we trust the library's constructors.
    /// let dice = unsafe { memdl::Loader::new().global(true).load(&dice_bytes)? }; // it exports `roll`
    /// // SAFETY: as above.
    /// let library = unsafe { memdl::Library::from_bytes(&bytes)? };
    /// // SAFETY: this is the type of `play`, which calls `roll`.
    /// assert_eq!(unsafe { library.get::<extern "C" fn() -> i32>("play")?() }, 6);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn global(mut self, global: bool) -> Loader {
        self.settings.global = global;
        self
    }

    /// Whether needed libraries that are not in the process may be opened, as `dlopen` does. Default true. With
    /// false an image gets only what is in the process, and what the caller supplies: a hardened host knows
    /// what its images need.
    ///
    /// A library that is opened this way stays in the process once the image is loaded: the system's loader
    /// owns it, other threads may run in it, and the next load finds it there.
    ///
    /// A library that is not in the process is searched for as `ld.so` would for the image.
    ///
    /// Where such a library calls `dlopen` for an image (as libgmodule does), and what it opens needs the image,
    /// memdl answers that call.
    ///
    /// A few libraries must see the images that need them: libstdc++, where an image replaces `operator new`;
    /// a library that itself needs an image; D's runtime. If the process does not have such a library yet,
    /// memdl reads its file, and loads and unloads it with the image.
    ///
    /// [`Loader::prepare`] runs the constructors of such system libraries, too.
    ///
    /// ```
    /// # let bytes = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/bytes.rs"));
    /// let loader = memdl::Loader::new().system_libraries(false);
    /// // SAFETY: we trust the library's constructors.
    /// let library = unsafe { loader.load(&bytes) };
    /// assert!(library.is_ok()); // it needs the C library only, which is in the process
    /// ```
    pub fn system_libraries(mut self, allowed: bool) -> Loader {
        self.settings.system_libraries = allowed;
        self
    }

    /// Where references are searched first. Default [`Scope::HostFirst`], as `dlopen` does.
    ///
    /// ```
    /// # let dice_bytes = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/dice.rs"));
    /// // Both the C library and this library have a function `rand`.
    /// let loader = memdl::Loader::new().scope(memdl::Scope::SelfFirst);
    /// // SAFETY: we trust the library's constructors.
    /// let library = unsafe { loader.load(&dice_bytes)? };
    /// // SAFETY: this is its type. It calls `rand`.
    /// let random_number = unsafe { library.get::<extern "C" fn() -> i32>("random_number")? };
    /// assert_eq!(random_number(), 4);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn scope(mut self, scope: Scope) -> Loader {
        self.settings.scope = scope;
        self
    }

    /// When calls are bound. Default [`Binding::Now`].
    ///
    /// ```
    /// # let plugin_bytes = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/plugin.rs"));
    /// # let bytes = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/bytes.rs"));
    /// let loader = memdl::Loader::new().binding(memdl::Binding::Lazy).provide("libexample.so", bytes);
    /// // SAFETY: we trust the constructors of both.
    /// let plugin = unsafe { loader.load(&plugin_bytes)? };
    /// // SAFETY: this is its type. It calls `foo` of libexample.so, which is bound now.
    /// assert_eq!(unsafe { plugin.get::<extern "C" fn(i32) -> i32>("bar")?(1) }, 3);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn binding(mut self, binding: Binding) -> Loader {
        self.settings.lazy = binding == Binding::Lazy;
        self
    }

    /// How much debuggers see. Default [`DebugLevel::Full`]. The environment variable
    /// `MEMDL_DEBUG=off|symbols|full|portable` overrides it. Without the feature `debug` it is [`DebugLevel::Off`].
    ///
    /// ```
    /// # let bytes = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/bytes.rs"));
    /// let loader = memdl::Loader::new().debug(memdl::DebugLevel::Symbols);
    /// // SAFETY: we trust the library's constructors.
    /// let library = unsafe { loader.load(&bytes)? };
    /// assert_eq!(library.debug(), memdl::DebugLevel::Symbols);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn debug(mut self, debug: DebugLevel) -> Loader {
        self.settings.debug = debug;
        self
    }

    /// The debug information of a stripped image: the bytes of the file that was split off it (by `objcopy
    /// --only-keep-debug`, `eu-strip -f`, or a distribution's debug package). Debuggers see it as if it were
    /// inside the image. It applies to the loaded image, not to the images that it needs.
    ///
    /// Without it gdb looks for that file by the build-id, as for a library on disk, but then shows wrong
    /// memory for thread-local variables. So for an image that has any, memdl looks for the file first, where
    /// the process runs: in `/usr/lib/debug`, or in the folders that the environment variable
    /// `MEMDL_DEBUG_FILE_DIRECTORY` lists, separated by colons, and in debuginfod's cache. With
    /// `MEMDL_DEBUG_BUILD_ID=safe` gdb does not look for a file that memdl did not find.
    /// [`Library::set_debug_info`](crate::Library::set_debug_info) supplies it later.
    ///
    /// For an image with split DWARF (`-gsplit-dwarf`): the bytes of its package (`.dwp`). Debuggers see it
    /// as if it had not been split, except for macros. memdl reads and rewrites all of the package, which
    /// takes some 40 ms for each MB. If that cannot be done (the package has type units), memdl logs a
    /// warning, and debuggers see what they see without it.
    ///
    /// A load fails with [`Error::DebugInfo`] if the file does not belong to the image: by the build-id of
    /// both or, in an image without one, by the checksum in its `.gnu_debuglink`; for a package, by the ids
    /// of all units. With [`DebugLevel::Off`] the file is not read.
    ///
    /// ```
    /// # let stripped = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/stripped.rs"));
    /// # let debug_file = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/bytes.rs"));
    /// let loader = memdl::Loader::new().debug_info(debug_file);
    /// // SAFETY: we trust the library's constructors.
    /// let library = unsafe { loader.load(&stripped)? };
    /// let foo = library.symbols().find(|symbol| symbol.name() == "foo").unwrap();
    /// assert_eq!(memdl::symbolize(foo.address())[0].line(), Some(11));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn debug_info(mut self, bytes: impl Into<Arc<[u8]>>) -> Loader {
        self.settings.debug_info = Some(Bytes::Shared(bytes.into()));
        self
    }

    /// What profilers see. Default [`Profile::Off`]. The environment variable
    /// `MEMDL_PERF=off|map|live-map|jitdump|file` overrides it. Without the feature `profile` it is [`Profile::Off`],
    /// and each load that requests more logs a warning.
    ///
    /// ```
    /// # let bytes = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/bytes.rs"));
    /// let loader = memdl::Loader::new().profile(memdl::Profile::LivePerfMap);
    /// // SAFETY: we trust the library's constructors.
    /// let library = unsafe { loader.load(&bytes)? };
    /// let map = std::fs::read_to_string(format!("/tmp/perf-{}.map", std::process::id()))?;
    /// assert!(map.contains("foo [libexample.so]"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn profile(mut self, profile: Profile) -> Loader {
        self.settings.profile = profile;
        self
    }

    /// Calls `verify` with the bytes of every image before anything else reads them. It may refuse them: then
    /// the load fails with [`Error::Refused`], which has the image's name and the reason.
    ///
    /// It is called for the loaded image; for needed images of [`Loader::provide`]; for needed libraries that
    /// memdl reads from files in order to load them with the image (see [`Loader::system_libraries`]); and,
    /// as long as the images exist, for files that they open from inside by `dlopen`. There a refusal is a null
    /// pointer, and `dlerror` has the reason. It is not called for needed libraries that the system's loader
    /// opens. It may be called with the same bytes again, and by several threads at
    /// once.
    ///
    /// A panic passes through a load, which leaves the process as it was; in an image's `dlopen` it counts as
    /// a refusal. `examples/verify.rs` has an allow-list of digests, and a signature.
    ///
    /// ```
    /// let loader = memdl::Loader::new().verify(|image| match image.bytes().len() {
    ///     0..1_000_000 => Ok(()),
    ///     _ => Err(format!("{} is too large", image.name()).into()),
    /// });
    /// // SAFETY: nothing is loaded.
    /// let error = unsafe { loader.load(&[0; 1_000_000]) }.unwrap_err();
    /// assert_eq!(error.to_string(), "image: refused by the verifier: image is too large");
    /// ```
    pub fn verify(
        mut self,
        verify: impl Fn(&VerifyRequest<'_>) -> Result<(), Box<dyn std::error::Error + Send + Sync>>
        + Send
        + Sync
        + 'static,
    ) -> Loader {
        self.settings.policy.verifier = Some(Arc::new(verify));
        self.settings.services = services::replacements_for(&self.settings.policy);
        self
    }

    /// Restricts which symbols of the host images may bind to. Default [`Imports::all`].
    ///
    /// The host's symbols are those of the process's libraries, of needed libraries that the system opens,
    /// and of system files that memdl loads a copy of. A function that memdl replaces (`dlsym`,
    /// `dl_iterate_phdr`, `__tls_get_addr`, ..) counts by its name. Symbols that the caller supplies are not
    /// restricted: [`Loader::define`], [`Loader::resolver`], other images.
    ///
    /// A refused symbol counts as missing from the host. So the image's own definition of that name is used,
    /// or another image's, or the resolver's; a weak reference is null. If there is no definition, the load
    /// fails with [`Error::RefusedImports`], which lists all refused symbols, including functions that would
    /// be bound lazily. `dlsym` and `dlvsym`, called by the image, do not find it either, whatever the
    /// handle; `dlerror` says why. The same holds for libraries that the image opens through memdl.
    ///
    /// For a call of `dlsym` or `dlopen` that returns to no image (compilers turn a function's last call into
    /// a jump) the caller is unknown. Then the restrictions of all live images apply.
    ///
    /// This is no sandbox: running code can find its way to every function of the process.
    ///
    /// ```
    /// # let bytes = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/bytes.rs"));
    /// use memdl::Imports;
    ///
    /// let loader = memdl::Loader::new().imports(Imports::deny(["system", "popen", "getpid"]));
    /// // SAFETY: we trust the library's constructors.
    /// let error = unsafe { loader.load(&bytes) }.unwrap_err();
    /// assert!(error.to_string().contains("the host does not allow these imports: getpid"));
    /// ```
    pub fn imports(mut self, imports: Imports) -> Loader {
        self.settings.policy.imports = imports;
        self.settings.services = services::replacements_for(&self.settings.policy);
        self
    }

    /// Makes images immutable once they are relocated, before their constructors run. Default false.
    ///
    /// Code, read-only data and RELRO can then not be changed, unmapped, moved, replaced or given other
    /// access, by the image or by anything else in the process (`mseal(2)`). Writable data can be written,
    /// but not made executable, unmapped, moved or replaced. `/proc/PID/mem` remains: a process that can
    /// write to that file writes to sealed memory as well. That includes the process itself, unless the host
    /// denies it (a seccomp filter, or Linux's `proc_mem.force_override=never`). Debuggers set breakpoints
    /// that way.
    ///
    /// So a sealed image stays for the life of the process, like a library that is linked with `-z nodelete`:
    /// [`Library::close`] says so, destructors run when the process exits, and a sealed image cannot be in a
    /// pool.
    ///
    /// ```
    /// # let bytes = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/bytes.rs"));
    /// // SAFETY: we trust the library's constructors.
    /// match unsafe { memdl::Loader::new().seal(true).load(&bytes) } {
    ///     Ok(library) => assert!(library.close().is_err()),
    ///     // Before Linux 6.10.
    ///     Err(error) => assert_eq!(error.kind(), memdl::ErrorKind::Unsupported),
    /// }
    /// ```
    ///
    /// # Errors
    /// A load, or [`Loader::prepare`], fails with [`Error::Unsupported`] where the system has no `mseal`,
    /// which needs Linux 6.10.
    pub fn seal(mut self, seal: bool) -> Loader {
        self.settings.policy.seal = seal;
        self
    }

    /// Limits on what an image may ask for.
    ///
    /// ```
    /// # let bytes = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/bytes.rs"));
    /// let mut limits = memdl::Limits::default();
    /// limits.image_bytes = 4096;
    /// let loader = memdl::Loader::new().limits(limits);
    /// // SAFETY: we trust the library's constructors.
    /// let error = unsafe { loader.load(&bytes) }.unwrap_err();
    /// assert_eq!(error.kind(), memdl::ErrorKind::Limit);
    /// ```
    pub fn limits(mut self, limits: Limits) -> Loader {
        self.settings.limits = limits;
        self
    }

    /// Loads a shared library from its bytes, which need not outlive the call.
    ///
    /// ```
    /// # let bytes = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/bytes.rs"));
    /// let loader = memdl::Loader::new().name("one");
    /// // SAFETY: we trust the library's constructors.
    /// let (one, other) = unsafe { (loader.load(&bytes)?, loader.name("other").load(&bytes)?) };
    /// assert_eq!([one.name(), other.name()], ["one", "other"]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// See [`Error`]. A failed load leaves the process as it was; but needed libraries that it opened may have
    /// run their constructors.
    ///
    /// # Safety
    /// As [`Library::from_bytes`].
    pub unsafe fn load(&self, bytes: &[u8]) -> Result<Library, Error> {
        // SAFETY: the caller's promise.
        let may_run = unsafe { MayRun::promised() };
        let prepared = startup::prepare(
            &self.settings,
            Bytes::Borrowed(bytes),
            Instances::One,
            Some(may_run),
        )?;
        // SAFETY: the caller's promise.
        unsafe { Library::single_instance(prepared) }
    }

    /// Loads a shared library that was received into an [`ImageBuffer`].
    ///
    /// ```
    /// # let bytes = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/bytes.rs"));
    /// # let stream = &bytes[..];
    /// let buffer = memdl::ImageBuffer::read_from(stream, 100_000)?;
    /// // SAFETY: we trust the library's constructors.
    /// let library = unsafe { memdl::Loader::new().load_buffer(buffer)? };
    /// assert_eq!(library.name(), "libexample.so");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Loader::load`].
    ///
    /// # Safety
    /// As [`Library::from_bytes`].
    pub unsafe fn load_buffer(&self, buffer: ImageBuffer) -> Result<Library, Error> {
        // SAFETY: the caller's promise.
        let may_run = unsafe { MayRun::promised() };
        let bytes = Bytes::Buffer(Arc::new(buffer));
        let prepared = startup::prepare(&self.settings, bytes, Instances::One, Some(may_run))?;
        // SAFETY: the caller's promise.
        unsafe { Library::single_instance(prepared) }
    }

    /// Parses and binds a library, for any number of instances. This and the first instance take little longer than a
    /// load; the second instance makes what it and all later ones share. Runs no code of the image.
    ///
    /// ```
    /// # let bytes = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/bytes.rs"));
    /// // SAFETY: we trust the constructors of what the library needs.
    /// let template = unsafe { memdl::Loader::new().prepare(&bytes)? };
    /// // SAFETY: we trust the library's constructors.
    /// let (one, other) = unsafe { (template.instantiate()?, template.instantiate()?) };
    /// assert_ne!(one.load_bias(), other.load_bias());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Loader::load`].
    ///
    /// # Safety
    /// The system opens what `dlopen` would open: the libraries, paths included, that `DT_NEEDED` entries of
    /// the bytes name, unless [`Loader::system_libraries`] forbids that. Their constructors run, and must be sound
    /// to run here; their destructors run if the load fails. The IFUNC resolver of a library that is already
    /// in the process runs if the image refers to it.
    pub unsafe fn prepare(&self, bytes: &[u8]) -> Result<Template, Error> {
        // The buffer is populated by one system call, and a large one lies in huge pages.
        let mut kept = ImageBuffer::new(bytes.len())?;
        kept.copy_from_slice(bytes);
        // SAFETY: the caller's promise.
        unsafe { self.prepare_buffer(kept) }
    }

    /// As [`Loader::prepare`], of a library that was received into an [`ImageBuffer`]. The template keeps the buffer:
    /// no byte is copied.
    ///
    /// ```
    /// # let bytes = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/bytes.rs"));
    /// # let stream = &bytes[..];
    /// let buffer = memdl::ImageBuffer::read_from(stream, 100_000)?;
    /// // SAFETY: we trust the constructors of what the library needs.
    /// let template = unsafe { memdl::Loader::new().prepare_buffer(buffer)? };
    /// assert_eq!(template.name(), "libexample.so");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Loader::load`].
    ///
    /// # Safety
    /// As [`Loader::prepare`].
    pub unsafe fn prepare_buffer(&self, buffer: ImageBuffer) -> Result<Template, Error> {
        let kept = Bytes::Buffer(Arc::new(buffer));
        // SAFETY: the caller's promise.
        let may_run = unsafe { MayRun::promised() };
        Ok(Template::new(startup::prepare(&self.settings, kept, Instances::Many, Some(may_run))?))
    }
}

impl Loader {
    /// Says what a load of these bytes with these options would come to, and all that the file says of itself,
    /// without a load: see [`inspect`](crate::inspect).
    ///
    /// The caller's verifier, provider, import filter and resolver are called, as a load calls them.
    ///
    /// ```
    /// let bytes = std::fs::read("/proc/self/exe")?;
    /// let report = memdl::Loader::new().system_libraries(false).inspect(&bytes);
    /// assert!(report.refusals()[0].to_string().contains("executable"));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn inspect(&self, bytes: &[u8]) -> Report {
        match startup::set_up() {
            Ok(()) => report::inspect(&self.settings, bytes),
            Err(error) => Report::refused(bytes, error),
        }
    }
}

/// Says what the bytes of a shared library are, need and offer, and every reason for which a load of them would be
/// refused here: [`Loader::inspect`] with the defaults.
///
/// It runs no code of the bytes and none of any library, opens no library, and maps nothing of the image. Needed
/// libraries that a load would let the system open are read from their files, so that each import is known with the
/// library that it would be bound to.
///
/// It uses the code of a load, and so agrees with it: the error of a load is among the reasons, or the listed
/// missing libraries, versions and symbols are. What is not known before a load:
///
/// * what constructors do, which functions IFUNC resolvers choose, and what the system's loader finds out only
///   when it opens a needed library;
/// * whether there is memory, and whether the system permits executable memory;
/// * how much room for thread-local variables of initial exec the system's loader has left: only more than all of it
///   is a reason;
/// * whether values of 32 bits reach, which depends on where the image will lie;
/// * what is in the arrays of constructors and destructors once they are relocated;
/// * until the first load of the process, whether an unwinder cannot be led to images.
///
/// A file for another machine that memdl runs on (x86-64, AArch64) is examined as one for this machine is. But nothing of
/// this process counts for it: what it needs and imports is [unknown](crate::LibraryOrigin::Unknown), unless the loader's options
/// supply it, or [missing](crate::LibraryOrigin::Missing) with [`system_libraries(false)`](Loader::system_libraries). A load is
/// refused by the machine's name; [`Report::refusals_on_its_machine`] has the other reasons.
///
/// Of malformed bytes, and of a file for any other machine, the report has what can be read. Symbols and
/// needed libraries are there if headers, the dynamic section and the symbol tables are well-formed. Time and
/// memory are bounded by the length of the bytes and of the files of needed libraries.
///
/// ```
/// let report = memdl::inspect(b"#!/bin/sh\n");
/// assert_eq!(report.machine(), None);
/// assert_eq!(
///     report.refusals()[0].to_string(),
///     "image: malformed image: not an ELF file, but a script (in the ELF header)"
/// );
/// ```
pub fn inspect(bytes: &[u8]) -> Report {
    Loader::new().inspect(bytes)
}

impl Library {
    /// Loads a shared library from its bytes: [`Loader::load`] with the defaults.
    ///
    /// ```
    /// # let bytes = include!(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/example/bytes.rs"));
    /// // SAFETY: we trust the library's constructors.
    /// let library = unsafe { memdl::Library::from_bytes(&bytes)? };
    /// assert_eq!(library.name(), "libexample.so");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// See [`Error`]. A failed load leaves the process as it was.
    ///
    /// # Safety
    /// Runs the library's constructors, and its destructors when it is unloaded, with the rights of the
    /// process: memdl is a loader, not a sandbox. They must be sound to run here, as with `dlopen`. Its code
    /// must not modify its own dynamic symbol and string tables, which linkers put into read-only memory.
    pub unsafe fn from_bytes(bytes: &[u8]) -> Result<Library, Error> {
        // SAFETY: the caller's promise.
        unsafe { Loader::new().load(bytes) }
    }
}

impl fmt::Debug for Loader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let provided: Vec<&str> = self.settings.provided.iter().map(|(name, _)| &**name).collect();
        f.debug_struct("Loader")
            .field("name", &self.settings.name)
            .field("defined", &self.settings.defined.keys())
            .field("provided", &provided)
            .field("provider", &self.settings.provider.is_some())
            .field("namespace", &self.settings.namespace.is_some())
            .field("global", &self.settings.global)
            .field("system_libraries", &self.settings.system_libraries)
            .field("scope", &self.settings.scope)
            .field("lazy", &self.settings.lazy)
            .field("debug", &self.settings.debug)
            .field("debug_info", &self.settings.debug_info.as_ref().map(|bytes| bytes.len()))
            .field("limits", &self.settings.limits)
            .field("verify", &self.settings.policy.verifier.is_some())
            .field("imports", &self.settings.policy.imports)
            .field("seal", &self.settings.policy.seal)
            .finish_non_exhaustive()
    }
}
