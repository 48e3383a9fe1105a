//! What a caller of the loader meets: loading, binding, calling, unloading, by all ways to load, with small
//! libraries made for it and with those of the distribution. Debuggers, profilers and hostile bytes have
//! binaries of their own.
//!
//! A build without all features has the tests that can pass there, and [`without`]: `sh tests/features.sh`.

#[path = "../common/mod.rs"]
mod common;

#[cfg(target_arch = "aarch64")]
mod aarch64;
mod api;
mod denied;
mod differential;
mod dlinfo;
mod errors;
mod files;
mod filters;
mod fleets;
mod foreign;
#[cfg(feature = "symbolize")]
mod fork;
mod helpers;
mod images;
mod inspect;
mod lazy;
mod loading;
mod memory;
mod namespaces;
mod needed;
mod policy;
mod pool;
mod real_libraries;
mod real_programs;
mod recycled;
mod reload;
mod services;
mod shim;
#[cfg(feature = "symbolize")]
mod symbolize;
mod tls;
mod unload;
mod unwind;
#[cfg(any(not(feature = "debug"), all(feature = "symbolize", not(feature = "zstd"))))]
mod without;
