//! Real libraries of the distribution, from their bytes, really used.
//!
//! Each runs in a process of its own: some can never be unloaded (`DF_1_NODELETE`), and what they
//! leave in the process is theirs to explain.

use std::ffi::{CStr, c_char, c_int, c_long, c_uchar, c_uint, c_ulong, c_void};
use std::fs;
use std::ptr::{null, null_mut};

use crate::common::{AnyWay, is_sanitized, isolated, maps, system_library, system_library_of};
use memdl::{Library, Loader, Symbol};

/// Loads a library of the system from its bytes.
fn load(name: &str, loader: Loader) -> Library {
    let file = fs::read(system_library(name)).unwrap();
    // SAFETY: libraries of the distribution, whose constructors any program would run.
    let library = unsafe { loader.name(name).load_any_way(&file) };
    let library = library.unwrap_or_else(|error| panic!("{error}"));
    assert!(!maps().iter().any(|line| line.name.contains(name)), "it was mapped from its file");
    library
}

/// A function of a library, of the type that its header states.
fn function<'lib, T>(library: &'lib Library, name: &str) -> Symbol<'lib, T> {
    // SAFETY: the types below are those of the libraries' headers.
    unsafe { library.get(name) }.unwrap_or_else(|error| panic!("{error}"))
}

/// A megabyte that can be compressed, but not to nothing.
fn megabyte() -> Vec<u8> {
    let mut state = 1u32;
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        b"abcdefghijklmnop"[(state >> 28) as usize]
    };
    (0..1 << 20).map(next).collect()
}

#[test]
fn zlib_compresses_and_decompresses() {
    isolated(|| {
        let mappings = maps().len();
        let zlib = load("libz.so.1", Loader::new());
        type Compress =
            unsafe extern "C" fn(*mut u8, *mut c_ulong, *const u8, c_ulong, c_int) -> c_int;
        type Uncompress = unsafe extern "C" fn(*mut u8, *mut c_ulong, *const u8, c_ulong) -> c_int;
        let bound = function::<unsafe extern "C" fn(c_ulong) -> c_ulong>(&zlib, "compressBound");
        let compress = function::<Compress>(&zlib, "compress2");
        let uncompress = function::<Uncompress>(&zlib, "uncompress");
        let crc32 =
            function::<unsafe extern "C" fn(c_ulong, *const u8, c_uint) -> c_ulong>(&zlib, "crc32");
        let original = megabyte();
        let len = original.len() as c_ulong;
        // SAFETY: the buffers have the lengths that are passed with them.
        unsafe {
            // The check value of this CRC.
            assert_eq!(crc32(0, b"123456789".as_ptr(), 9), 0xcbf4_3926);
            let mut packed = vec![0; bound(len) as usize];
            let mut packed_len = packed.len() as c_ulong;
            assert_eq!(
                compress(packed.as_mut_ptr(), &mut packed_len, original.as_ptr(), len, 9),
                0
            );
            assert!((len / 4..len * 3 / 4).contains(&packed_len), "packed to {packed_len}");
            let mut unpacked = vec![0; original.len()];
            let mut unpacked_len = len;
            let (to, from) = (unpacked.as_mut_ptr(), packed.as_ptr());
            assert_eq!(uncompress(to, &mut unpacked_len, from, packed_len), 0);
            assert_eq!(unpacked_len, len);
            assert!(unpacked == original, "what came out is not what went in");
            // Damaged data is an error (Z_DATA_ERROR), not a crash.
            packed[packed_len as usize / 2] ^= 0x55;
            let damaged = uncompress(to, &mut unpacked_len, packed.as_ptr(), packed_len);
            assert_eq!(damaged, -3);
        }
        zlib.close().unwrap();
        assert!(maps().len() <= mappings + 6 || is_sanitized(), "it is not unmapped");
    });
}

#[test]
fn sqlite_answers_a_query() {
    isolated(|| {
        // It needs libm, which this process may not have.
        let sqlite = load("libsqlite3.so.0", Loader::new().system_libraries(true));
        type Open = unsafe extern "C" fn(*const c_char, *mut *mut c_void) -> c_int;
        type Row =
            unsafe extern "C" fn(*mut c_void, c_int, *mut *mut c_char, *mut *mut c_char) -> c_int;
        type Exec = unsafe extern "C" fn(
            *mut c_void,
            *const c_char,
            Option<Row>,
            *mut c_void,
            *mut *mut c_char,
        ) -> c_int;
        let open = function::<Open>(&sqlite, "sqlite3_open");
        let exec = function::<Exec>(&sqlite, "sqlite3_exec");
        let close =
            function::<unsafe extern "C" fn(*mut c_void) -> c_int>(&sqlite, "sqlite3_close");

        unsafe extern "C" fn row(
            rows: *mut c_void,
            count: c_int,
            values: *mut *mut c_char,
            _names: *mut *mut c_char,
        ) -> c_int {
            // SAFETY: SQLite gives `count` C strings, and the vector that `exec` was called with.
            unsafe {
                let values = std::slice::from_raw_parts(values, count as usize);
                let text =
                    |value: &*mut c_char| CStr::from_ptr(*value).to_str().unwrap().to_owned();
                let rows = &mut *rows.cast::<Vec<Vec<String>>>();
                rows.push(values.iter().map(text).collect());
            }
            0
        }
        let mut database: *mut c_void = null_mut();
        // SAFETY: C strings, an in-memory database and the callback above.
        let mut query = |sql: &CStr| unsafe {
            if database.is_null() {
                assert_eq!(open(c":memory:".as_ptr(), &mut database), 0);
            }
            let mut rows: Vec<Vec<String>> = Vec::new();
            let mut message = null_mut();
            let to = (&raw mut rows).cast();
            let result = exec(database, sql.as_ptr(), Some(row), to, &mut message);
            assert!(
                result == 0,
                "{sql:?}: {:?}",
                (!message.is_null()).then(|| CStr::from_ptr(message))
            );
            rows
        };
        query(c"CREATE TABLE lot (number INTEGER PRIMARY KEY, name TEXT, weight REAL)");
        query(
            c"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000)
              INSERT INTO lot SELECT i, 'lot ' || i, i / 2.0 FROM n",
        );
        query(c"CREATE INDEX by_name ON lot (name)");
        let sums = query(
            c"SELECT count(*), sum(number), round(avg(weight), 2) FROM lot WHERE number % 7 = 0",
        );
        assert_eq!(sums, [["1428", "7142142", "2500.75"]]);
        let found = query(c"SELECT number, weight FROM lot WHERE name = 'lot 4242'");
        assert_eq!(found, [["4242", "2121.0"]]);
        // A function that comes from libm.
        assert_eq!(query(c"SELECT printf('%.6f', pow(2, 0.5))"), [["1.414214"]]);
        // SAFETY: opened above.
        unsafe { assert_eq!(close(database), 0) };
        sqlite.close().unwrap();
    });
}

#[test]
fn libcrypto_hashes_and_draws_random_bytes() {
    isolated(|| {
        let crypto =
            load(&system_library_of("libcrypto.so.", ""), Loader::new().system_libraries(true));
        type Sha256 = unsafe extern "C" fn(*const u8, usize, *mut c_uchar) -> *mut c_uchar;
        let sha256 = function::<Sha256>(&crypto, "SHA256");
        let random =
            function::<unsafe extern "C" fn(*mut u8, c_int) -> c_int>(&crypto, "RAND_bytes");
        let hash = |data: &[u8]| {
            let mut hash = [0; 32];
            // SAFETY: the buffers have the lengths that are passed, or known to the function.
            unsafe { assert!(!sha256(data.as_ptr(), data.len(), hash.as_mut_ptr()).is_null()) };
            hash.map(|byte| format!("{byte:02x}")).concat()
        };
        // FIPS 180-2, appendix B.
        assert_eq!(
            hash(b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(
            hash(&vec![b'a'; 1_000_000]),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"
        );
        let draw = || {
            let mut bytes = [0; 32];
            // SAFETY: as above.
            unsafe { assert_eq!(random(bytes.as_mut_ptr(), 32), 1) };
            bytes
        };
        let (one, two) = (draw(), draw());
        assert_ne!(one, two);
        assert!(one != [0; 32] && two != [0; 32]);
        // Each thread has its own generator, in thread-specific data of the library.
        let random = *random;
        let other = std::thread::spawn(move || {
            let mut bytes = [0; 32];
            // SAFETY: as above; the library outlives the thread.
            unsafe { assert_eq!(random(bytes.as_mut_ptr(), 32), 1) };
            bytes
        });
        assert_ne!(other.join().unwrap(), one);

        // AES-256 in counter mode and back, through the tables of function pointers.
        let get = function::<unsafe extern "C" fn() -> *const c_void>;
        let new = function::<unsafe extern "C" fn() -> *mut c_void>(&crypto, "EVP_CIPHER_CTX_new");
        let free = function::<unsafe extern "C" fn(*mut c_void)>(&crypto, "EVP_CIPHER_CTX_free");
        type Init = unsafe extern "C" fn(
            *mut c_void,
            *const c_void,
            *const c_void,
            *const u8,
            *const u8,
            c_int,
        ) -> c_int;
        type Update =
            unsafe extern "C" fn(*mut c_void, *mut u8, *mut c_int, *const u8, c_int) -> c_int;
        let init = function::<Init>(&crypto, "EVP_CipherInit_ex");
        let update = function::<Update>(&crypto, "EVP_CipherUpdate");
        let cipher = get(&crypto, "EVP_aes_256_ctr");
        let crypt = |data: &[u8], encrypt: c_int| {
            let mut out = vec![0; data.len()];
            let mut len = 0;
            // SAFETY: key and counter have the lengths that the cipher asks for.
            unsafe {
                let context = new();
                let (key, counter) = ([7u8; 32], [9u8; 16]);
                let started =
                    init(context, cipher(), null(), key.as_ptr(), counter.as_ptr(), encrypt);
                assert_eq!(started, 1);
                let size = data.len() as c_int;
                assert_eq!(update(context, out.as_mut_ptr(), &mut len, data.as_ptr(), size), 1);
                free(context);
            }
            assert_eq!(len as usize, data.len());
            out
        };
        let text = megabyte();
        let secret = crypt(&text, 1);
        assert!(secret != text && crypt(&secret, 0) == text);
        crypto.close().unwrap();
    });
}

#[test]
fn python_runs_a_script() {
    isolated(|| {
        let python = load(
            &system_library_of("libpython3.", ".so.1.0"),
            Loader::new().system_libraries(true),
        );
        type Object = *mut c_void;
        let initialize = function::<unsafe extern "C" fn(c_int)>(&python, "Py_InitializeEx");
        let run_simple =
            function::<unsafe extern "C" fn(*const c_char) -> c_int>(&python, "PyRun_SimpleString");
        let add_module = function::<unsafe extern "C" fn(*const c_char) -> Object>(
            &python,
            "PyImport_AddModule",
        );
        let get_dict =
            function::<unsafe extern "C" fn(Object) -> Object>(&python, "PyModule_GetDict");
        type RunString = unsafe extern "C" fn(*const c_char, c_int, Object, Object) -> Object;
        let run_string = function::<RunString>(&python, "PyRun_String");
        let as_long = function::<unsafe extern "C" fn(Object) -> c_long>(&python, "PyLong_AsLong");
        let as_utf8 =
            function::<unsafe extern "C" fn(Object) -> *const c_char>(&python, "PyUnicode_AsUTF8");
        let finalize = function::<unsafe extern "C" fn() -> c_int>(&python, "Py_FinalizeEx");
        const EVAL_INPUT: c_int = 258;
        // SAFETY: C strings, and the order of calls that Python's manual asks for. The results are
        // looked at before Python is finalised.
        unsafe {
            initialize(0);
            let script = c"
import json, re, zlib, threading
def primes(limit):
    sieve = bytearray([1]) * limit
    for n in range(2, int(limit ** .5) + 1):
        if sieve[n]:
            sieve[n * n::n] = bytes(len(range(n * n, limit, n)))
    return [n for n in range(2, limit) if sieve[n]]
total = []
threads = [threading.Thread(target=lambda: total.append(sum(primes(10000)))) for _ in range(3)]
[t.start() for t in threads], [t.join() for t in threads]
try:
    1 / 0
except ZeroDivisionError as e:
    error = str(e)
text = json.dumps({'words': re.findall(r'[a-z]+', 'from memory, by 1 loader'), 'error': error})
packed = len(zlib.decompress(zlib.compress(b'x' * 100000)))
";
            assert_eq!(run_simple(script.as_ptr()), 0, "the script raised an exception");
            let globals = get_dict(add_module(c"__main__".as_ptr()));
            let evaluate = |expression: &CStr| {
                let value = run_string(expression.as_ptr(), EVAL_INPUT, globals, globals);
                assert!(!value.is_null(), "{expression:?} raised an exception");
                value
            };
            // The sum of the primes below 10,000.
            assert_eq!(as_long(evaluate(c"total[2]")), 5_736_396);
            assert_eq!(as_long(evaluate(c"len(total)")), 3);
            assert_eq!(as_long(evaluate(c"packed")), 100_000);
            let text = CStr::from_ptr(as_utf8(evaluate(c"text"))).to_str().unwrap();
            let expected =
                r#"{"words": ["from", "memory", "by", "loader"], "error": "division by zero"}"#;
            assert_eq!(text, expected);
            assert_eq!(finalize(), 0);
        }
    });
}
