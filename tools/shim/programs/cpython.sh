# CPython: all of its extension modules.
# Packages: python3
set -eu
[ "$1" = run ] || exit 0
/usr/bin/python3 - <<'END'
import importlib, os, sysconfig
folder = os.path.join(sysconfig.get_path("stdlib"), "lib-dynload")
names = sorted({file.split(".")[0] for file in os.listdir(folder) if file.endswith(".so")})
for name in names:
    try:
        module = importlib.import_module(name)
        print(name, os.path.basename(module.__file__), len(dir(module)))
    except ImportError as error:
        print(name, error)

import asyncio, bz2, ctypes, curses, dbm, decimal, hashlib, json, lzma, multiprocessing, queue, sqlite3, ssl
import threading, unicodedata, uuid, zoneinfo
import xml.etree.ElementTree as tree

text = b"memory " * 1000
print(bz2.decompress(bz2.compress(text)) == text, lzma.decompress(lzma.compress(text)) == text)
print(decimal.Decimal(2).sqrt(), unicodedata.name("é"), uuid.uuid5(uuid.NAMESPACE_DNS, "x"))
for name in ["md5", "sha256", "sha3_512", "blake2b"]:
    print(name, hashlib.new(name, text).hexdigest()[:32])
print(hashlib.scrypt(b"p", salt=b"s", n=16, r=8, p=1).hex()[:32])
context = ssl.create_default_context()
print(ssl.OPENSSL_VERSION, len(context.get_ciphers()), context.verify_mode)

database = sqlite3.connect(":memory:")
database.create_function("twice", 1, lambda x: 2 * x)
database.execute("create table t (x)")
database.executemany("insert into t values (?)", [(n,) for n in range(100)])
print(database.execute("select sum(twice(x)) from t").fetchall())

# A callback through libffi, and an error that a callback raises.
compare = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_int))
numbers = (ctypes.c_int * 5)(3, 1, 4, 1, 5)
ctypes.CDLL(None).qsort(numbers, 5, 4, compare(lambda a, b: a[0] - b[0]))
print(list(numbers), ctypes.pythonapi.Py_IsInitialized())
zlib = ctypes.CDLL("libz.so.1")
zlib.zlibVersion.restype = ctypes.c_char_p
print(zlib.zlibVersion(), zlib.crc32(0, text, len(text)))
try:
    ctypes.CDLL("libnone.so")
except OSError as error:
    print(error)
try:
    zlib.no_such_function
except AttributeError as error:
    print(error)

print(tree.tostring(tree.fromstring("<a><b c='1'/></a>")), json.loads("[1, 2.5, \"x\"]"))
try:
    tree.fromstring("<a>")
except tree.ParseError as error:
    print(error)

async def answer():
    await asyncio.sleep(0.001)
    return 42
print(asyncio.run(answer()))
results = queue.Queue()
threads = [threading.Thread(target=lambda n=n: results.put(decimal.Decimal(n).sqrt())) for n in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(sum(results.get() for _ in threads))
with multiprocessing.get_context("fork").Pool(2) as pool:
    print(pool.map(len, [b"a", b"bb", b"ccc"]))
END
