# Work for several threads, with modules of the distribution whose compiled halves are files that
# need the symbols of the libpython that imports them. `results` is what the test looks at.
import ctypes, decimal, hashlib, json, sqlite3, ssl, subprocess, sys, threading

import _ctypes, _decimal, _hashlib, _json, _sqlite3, _ssl  # the compiled halves, or an error


def squares(n):
    base = sqlite3.connect(":memory:")
    base.create_function("square", 1, lambda x: x * x)
    base.create_aggregate("longest", 1, Longest)
    base.execute("CREATE TABLE t (n INTEGER, word TEXT)")
    base.executemany("INSERT INTO t VALUES (?, ?)", ((i, "x" * (i % 17)) for i in range(n)))
    found = base.execute("SELECT sum(square(n)), longest(word) FROM t").fetchone()
    try:
        base.execute("SELECT missing FROM t")
    except sqlite3.OperationalError as error:
        found += (str(error),)
    base.close()
    return found


class Longest:
    def __init__(self):
        self.length = 0

    def step(self, word):
        self.length = max(self.length, len(word))

    def finalize(self):
        return self.length


def pi(digits):
    with decimal.localcontext() as context:
        context.prec = digits + 5
        D = decimal.Decimal
        arctan = lambda n: sum(
            D((-1) ** k) / (D(2 * k + 1) * D(n) ** (2 * k + 1)) for k in range(digits)
        )
        return str(4 * (4 * arctan(5) - arctan(239)))[: digits + 2]


def sort(numbers):
    libc = ctypes.CDLL(None)
    compare = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.POINTER(ctypes.c_int)] * 2)
    array = (ctypes.c_int * len(numbers))(*numbers)
    libc.qsort(array, len(numbers), 4, compare(lambda a, b: a[0] - b[0]))
    return list(array)


def encrypted(text):
    # A handshake between two ends in memory, without certificates.
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for context in (client, server):
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        context.set_ciphers("AECDH-AES256-SHA:@SECLEVEL=0")
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = client.wrap_bio(to_client, to_server), server.wrap_bio(to_server, to_client, True)
    for _ in range(10):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                pass
    ends[0].write(text)
    on_the_way = to_server.read()
    to_server.write(on_the_way)
    assert text not in on_the_way
    return ends[1].read().decode(), ends[0].cipher()[0]


def work(number):
    results[number] = json.loads(json.dumps({
        "squares": squares(1000),
        "pi": pi(60),
        "sha256": hashlib.sha256(b"a" * 1_000_000).hexdigest(),
        "sorted": sort([5, 3, 9, -1, number]),
        "tls": encrypted(b"from memory"),
    }))


results = {}
threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
# `fork` and `exec`, out of a process with an image in it.
child = subprocess.run(["echo", "child"], capture_output=True, text=True).stdout
