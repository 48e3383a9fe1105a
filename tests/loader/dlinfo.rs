//! All requests of `dlinfo`, asked from inside an image about itself, the executable and the C library. What
//! a copy says that `dlopen` opened is the reference.

use std::ffi::{CStr, CString, c_char, c_int};
use std::path::{Path, PathBuf};
use std::{env, fs};

use crate::common::machine::{CALLS, DESCRIPTORS, links_calls};
use crate::common::{Opened, WAYS, build, can_link, isolated_with, load_in_way};
use crate::helpers::{apart, function, opened_function, read};
use libc::RTLD_NOW;
use memdl::Loader;

type Describe = extern "C" fn(*const c_char, *mut c_char) -> c_int;

fn described(describe: Describe, name: &str) -> String {
    let name = CString::new(name).unwrap();
    let mut text = vec![0 as c_char; 1 << 20];
    if describe(name.as_ptr(), text.as_mut_ptr()) != 42 {
        return "no handle".to_owned();
    }
    // SAFETY: the function wrote a C string.
    unsafe { CStr::from_ptr(text.as_ptr()) }.to_str().unwrap().to_owned()
}

/// All say the same in all ways. `name` is how the file is opened, and the image's name.
fn assert_same(path: &Path, name: &str) -> String {
    let expected = apart(|| {
        let opened = Opened::new(Path::new(name), RTLD_NOW);
        described(opened_function(&opened, "describe"), name)
    });
    assert!(expected.contains("unsupported dlinfo request"), "{expected}");
    for way in WAYS {
        let ours = apart(|| {
            let loader = Loader::new().system_libraries(true).name(name);
            // SAFETY: a library of `testlibs/`.
            let library = unsafe { load_in_way(&loader, &read(path), way) };
            let library = library.unwrap_or_else(|error| panic!("{error}"));
            described(function(&library, "describe"), name)
        });
        assert_eq!(ours, expected, "{way}");
    }
    expected
}

fn library(flags: &[&str]) -> PathBuf {
    // Of variables that are reached by a descriptor, `dlopen` does not tell where they are.
    let calls = if flags.iter().all(|flag| links_calls(flag)) { CALLS } else { DESCRIPTORS };
    build("gcc", "files/info.c", &[&["-O1", calls], flags].concat())
}

#[test]
fn every_request_is_answered_as_for_a_file() {
    isolated_with(&[], || {
        for flags in [
            &[][..],
            &["-Wl,-rpath,/memdl/one:/memdl/two//:/memdl/one:/"],
            &["-Wl,-rpath,/memdl/one:$ORIGIN/lib:/usr/lib", "-Wl,--disable-new-dtags"],
            &["-Wl,-z,nodefaultlib", "-Wl,-rpath,/memdl/one"],
            &["-fuse-ld=lld"],
            &["-fuse-ld=mold", "-Wl,-rpath,${ORIGIN}/.."],
        ] {
            if !can_link(flags) {
                continue;
            }
            let path = library(flags);
            let text = assert_same(&path, path.to_str().unwrap());
            assert_eq!(
                text.contains("/memdl/one"),
                flags.concat().contains("/memdl/one"),
                "{text}"
            );
        }
    });
}

#[test]
fn the_folders_of_the_environment_are_listed() {
    let folders = "/memdl/env:/memdl/more/;/memdl/env";
    isolated_with(&[("LD_LIBRARY_PATH", folders)], || {
        for flags in [&[][..], &["-Wl,-rpath,/memdl/one"]] {
            let path = library(flags);
            let text = assert_same(&path, path.to_str().unwrap());
            assert!(text.contains("/memdl/env") && text.contains("/memdl/more"), "{text}");
        }
    });
}

/// A name that is no absolute path is one from the current folder on, as with `dlopen`.
#[test]
fn the_origin_of_a_relative_name() {
    isolated_with(&[], || {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("dlinfo");
        fs::create_dir_all(folder.join("deep")).unwrap();
        let path = library(&[]);
        fs::copy(&path, folder.join("deep/info.so")).unwrap();
        env::set_current_dir(&folder).unwrap();
        for name in ["./deep/info.so", "deep/info.so", "deep/../deep/info.so"] {
            let text = assert_same(&path, name);
            let name_of_folder = name.strip_suffix("/info.so").unwrap();
            let origin = format!("origin 0: {}/{name_of_folder}\n", folder.display());
            assert!(text.contains(&origin), "{text}");
        }
    });
}

/// A needed library is searched for things in the `DT_RPATH` of the one that needs it, too.
#[test]
fn the_folders_of_what_needs_the_library() {
    isolated_with(&[], || {
        let soname = "libmemdl-info.so";
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("dlinfo-needed");
        fs::create_dir_all(&folder).unwrap();
        for own in [
            &["-Wl,-rpath,/memdl/own"][..],
            &["-Wl,-rpath,/memdl/own", "-Wl,--disable-new-dtags"],
            &[],
        ] {
            let info = library(&[own, &["-Wl,-soname,libmemdl-info.so"]].concat());
            fs::copy(&info, folder.join(soname)).unwrap();
            let rpath = format!("-Wl,-rpath,{}:/memdl/root", folder.display());
            for tags in ["-Wl,--disable-new-dtags", "-Wl,--enable-new-dtags"] {
                let needs = ["-Wl,--no-as-needed", &rpath, tags, info.to_str().unwrap()];
                let root = build("gcc", "files/part.c", &needs);
                let folders = |text: String| -> Vec<String> {
                    let own = text.split("origin").next().unwrap().lines();
                    let folders = own.filter(|it| it.starts_with("path") || it.starts_with("size"));
                    folders.map(str::to_owned).collect()
                };
                let expected = folders(apart(|| {
                    let opened = Opened::new(&root, RTLD_NOW);
                    described(opened_function(&opened, "describe"), soname)
                }));
                assert!(expected.len() > 4, "{expected:?}");
                let ours = folders(apart(|| {
                    let loader = Loader::new().system_libraries(true).provide(soname, read(&info));
                    let loader = loader.name(root.to_str().unwrap());
                    // SAFETY: a library of `testlibs/`.
                    let library = unsafe { loader.load(&read(&root)) }.unwrap();
                    described(function(&library, "describe"), soname)
                }));
                assert_eq!(ours, expected, "{own:?} {tags}");
            }
        }
    });
}
