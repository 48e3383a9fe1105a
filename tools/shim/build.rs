//! The library defines the C library's functions of these names. What calls them in memdl and in Rust's
//! standard library, which are linked into it, is to reach the C library (src/real.rs).

fn main() {
    for name in ["dlopen", "dlsym", "dlvsym", "dlclose", "dlerror", "dlinfo", "dladdr", "dladdr1"] {
        println!("cargo::rustc-cdylib-link-arg=-Wl,--wrap={name}");
    }
    println!("cargo::rerun-if-changed=build.rs");
}
