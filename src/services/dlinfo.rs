//! `dlinfo`, for callers in images. What it tells of an image is what the C library tells of a library that
//! `dlopen` opened from a file of the image's name.
//!
//! Handles of `ld.so` pass through. Two answers depend on the name, since an image has no file:
//! `RTLD_DI_ORIGIN` is the folder of the name, from the current folder on where the name is no absolute path;
//! and folders of the search path that begin with `$ORIGIN` are listed for absolute names only.
//!
//! Source: glibc `dlfcn/dlinfo.c`, `elf/dl-load.c` (`_dl_rtld_di_serinfo`), `elf/dl-object.c` (`l_origin`).

#![allow(unsafe_code)]

use std::env;
use std::ffi::{c_int, c_long, c_uint, c_void};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::ptr;

use crate::base::error::Error;
use crate::base::fallible::{TryGrow, require_memory, try_vec};
use crate::host::dl::{RTLD_DI_SERINFO, RTLD_DI_SERINFOSIZE, SearchFolder, SearchInfo};
use crate::host::link_map::LinkMap;
use crate::images::dl_handles;
use crate::images::group::{ImageRef, LoadedImage};
use crate::services::dlfcn::{fail, forget_error, no_memory};
use crate::tls::{self, TlsModule};

// The requests (`<dlfcn.h>`). glibc refuses 3, 7 and 8, which are Solaris's.
const RTLD_DI_LMID: c_int = 1;
const RTLD_DI_LINKMAP: c_int = 2;
const RTLD_DI_ORIGIN: c_int = 6;
const RTLD_DI_TLS_MODID: c_int = 9;
const RTLD_DI_TLS_DATA: c_int = 10;
const RTLD_DI_PHDR: c_int = 11;

/// `LM_ID_BASE`.
const LM_ID_BASE: c_long = 0;

/// `dlinfo`.
///
/// # Safety
/// As the C library's function: `info` points to what `request` reads and writes.
pub(super) unsafe extern "C" fn dlinfo(
    handle: *mut c_void,
    request: c_int,
    info: *mut c_void,
) -> c_int {
    forget_error();
    let Some(image) = dl_handles::image(handle) else {
        // SAFETY: the caller's promise, passed on.
        return unsafe { libc::dlinfo(handle, request, info) };
    };
    // SAFETY: the caller's promise.
    unsafe { answer(&image, request, info) }.unwrap_or_else(|_| {
        no_memory();
        -1
    })
}

/// The result of a request for an image, with what it writes.
///
/// # Safety
/// As [`dlinfo`].
unsafe fn answer(image: &ImageRef, request: c_int, info: *mut c_void) -> Result<c_int, Error> {
    let loaded = image.image();
    let module = loaded.tls.as_ref().map(TlsModule::id);
    // SAFETY: the caller's promise. The map and the program headers live as long as the image; the image is
    // loaded, and offset 0 is in every block.
    unsafe {
        match request {
            RTLD_DI_LMID => info.cast::<c_long>().write(LM_ID_BASE),
            RTLD_DI_LINKMAP => info.cast::<*const LinkMap>().write(&*loaded.link_map),
            RTLD_DI_SERINFOSIZE => write_size(&folders(image)?, info.cast()),
            RTLD_DI_SERINFO => write_folders(&folders(image)?, info.cast()),
            RTLD_DI_ORIGIN => {
                let folder = origin(loaded)?;
                ptr::copy_nonoverlapping(folder.as_ptr(), info.cast(), folder.len());
                info.cast::<u8>().add(folder.len()).write(0);
            }
            RTLD_DI_TLS_MODID => info.cast::<usize>().write(module.map_or(0, |module| module.0)),
            RTLD_DI_TLS_DATA => {
                // Null for a thread that has no block, as in the C library.
                let block = module.and_then(tls::allocated_block);
                info.cast::<*mut c_void>().write(block.unwrap_or(ptr::null_mut()));
            }
            RTLD_DI_PHDR => {
                let headers = &loaded.decoded.program_headers;
                info.cast::<*const c_void>().write(headers.as_ptr().cast());
                // `e_phnum` has 16 bits.
                return Ok(headers.len() as c_int);
            }
            _ => {
                fail("unsupported dlinfo request");
                return Ok(-1);
            }
        }
    }
    Ok(0)
}

/// The folder of the image's name, as glibc makes it of a file's name.
fn origin(loaded: &LoadedImage) -> Result<Vec<u8>, Error> {
    require_memory()?;
    let name = loaded.name.as_bytes();
    let mut folder = Vec::new();
    if !name.starts_with(b"/") {
        // A current folder that is gone has no name.
        let current = env::current_dir().map(|it| it.into_os_string().into_vec());
        folder = current.unwrap_or_default();
        if folder.last() != Some(&b'/') {
            folder.try_push(b'/')?;
        }
    }
    folder.try_append(name)?;
    let end = folder.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
    // The slash stays where it is all.
    folder.truncate(end.max(1));
    // C strings end there.
    if let Some(nul) = folder.iter().position(|&byte| byte == 0) {
        folder.truncate(nul);
    }
    Ok(folder)
}

/// The folders where `ld.so` would search for what the image needs, in its order, and the cache, which it
/// does not list, left out.
fn folders(image: &ImageRef) -> Result<Vec<Vec<u8>>, Error> {
    require_memory()?;
    let mut all = Vec::new();
    for list in image.image().search_path.lists()? {
        add_list(&mut all, list)?;
    }
    Ok(all)
}

/// A folder without the slashes at its end.
fn without_slashes(folder: &[u8]) -> &[u8] {
    let end =
        folder.iter().rposition(|&byte| byte != b'/').map_or(0, |last| last.saturating_add(1));
    match folder.get(..end) {
        // The slash stays where it is all.
        Some([]) => folder.get(..1).unwrap_or(folder),
        Some(shorter) => shorter,
        None => folder,
    }
}

/// Adds the folders of a list, each once, as `ld.so` names them.
fn add_list(all: &mut Vec<Vec<u8>>, folders: &[PathBuf]) -> Result<(), Error> {
    let start = all.len();
    for folder in folders {
        require_memory()?;
        let name: &[u8] = match without_slashes(folder.as_os_str().as_bytes()) {
            [] => b".",
            name => name,
        };
        let of_list = all.get(start..).unwrap_or_default();
        if !of_list.iter().any(|known| known == name) {
            let mut copy = try_vec(name.len())?;
            copy.extend_from_slice(name);
            all.try_push(copy)?;
        }
    }
    Ok(())
}

/// The number of bytes before the names.
fn names_at(count: usize) -> usize {
    count.saturating_mul(size_of::<SearchFolder>()).saturating_add(size_of::<SearchInfo>())
}

/// # Safety
/// `info` can be written to.
unsafe fn write_size(folders: &[Vec<u8>], info: *mut SearchInfo) {
    let names =
        folders.iter().map(|name| name.len().saturating_add(1)).fold(0, usize::saturating_add);
    // SAFETY: the caller's promise.
    unsafe {
        (*info).dls_cnt = folders.len() as c_uint;
        (*info).dls_size = names_at(folders.len()).saturating_add(names);
    }
}

/// # Safety
/// `info` points to the size and the count that [`write_size`] wrote, and to as many bytes. If there are more
/// folders by now, the rest is left out.
unsafe fn write_folders(folders: &[Vec<u8>], info: *mut SearchInfo) {
    // SAFETY: the caller's promise: `dls_cnt` records, then the names, end in the buffer.
    unsafe {
        let (count, size) = ((*info).dls_cnt as usize, (*info).dls_size);
        let mut at = names_at(count);
        let records = info.cast::<u8>().add(size_of::<SearchInfo>()).cast::<SearchFolder>();
        for (index, folder) in folders.iter().take(count).enumerate() {
            let end = at.saturating_add(folder.len()).saturating_add(1);
            if end > size {
                break;
            }
            let name = info.cast::<u8>().add(at);
            ptr::copy_nonoverlapping(folder.as_ptr(), name, folder.len());
            name.add(folder.len()).write(0);
            records.add(index).write(SearchFolder { dls_name: name.cast(), dls_flags: 0 });
            at = end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_named_as_ld_so_names_them() {
        let mut all = Vec::new();
        let list = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
        add_list(&mut all, &list(&["/a//", "/b", "/a", "", "//", "c/"])).unwrap();
        // A list does not know what is in another.
        add_list(&mut all, &list(&["/b"])).unwrap();
        let all: Vec<_> = all.iter().map(|name| std::str::from_utf8(name).unwrap()).collect();
        assert_eq!(all, ["/a", "/b", ".", "/", "c", "/b"]);
    }

    #[test]
    fn folders_are_written_into_the_callers_buffer_only() {
        let folders = [b"/lib".to_vec(), b".".to_vec(), b"/".to_vec()];
        let mut size = SearchInfo { dls_size: 0, dls_cnt: 0 };
        // SAFETY: a record.
        unsafe { write_size(&folders, &mut size) };
        assert_eq!((size.dls_cnt, size.dls_size), (3, 16 + 3 * 16 + 5 + 2 + 2));
        let mut buffer = [u64::MAX; 16];
        // SAFETY: the buffer is longer than the size.
        unsafe {
            let info = buffer.as_mut_ptr().cast::<SearchInfo>();
            info.write(SearchInfo { dls_size: size.dls_size - 1, dls_cnt: size.dls_cnt });
            write_folders(&folders, info);
            let bytes = std::slice::from_raw_parts(buffer.as_ptr().cast::<u8>(), 128);
            assert_eq!(&bytes[64..71], b"/lib\0.\0");
            assert!(bytes[71..].iter().all(|&byte| byte == 0xff), "the last does not fit");
        }
    }
}
