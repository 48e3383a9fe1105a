# libpython, opened by a C program, with pyarrow, NumPy, SciPy and pandas from wheels: Parquet, a UDF.
# Packages: python3 python3-venv libpython3.11 gcc libc6-dev
set -eu
if [ "$1" = build ]; then
    # Kept: half a gigabyte.
    venv=${TMPDIR:-/tmp}/memdl-shim-wheels
    [ -f "$venv/done" ] || {
        /usr/bin/python3 -m venv "$venv"
        "$venv/bin/pip" install -q pyarrow numpy scipy pandas
        touch "$venv/done"
    }
    ln -s "$venv/lib/python3.11/site-packages" packages
    cat >python.c <<'END'
#include <dlfcn.h>
#include <stdio.h>
int main(int argc, char **argv) {
    void *python = dlopen("libpython3.11.so.1.0", RTLD_NOW | RTLD_GLOBAL);
    if (!python) return puts(dlerror()), 1;
    int (*run)(int, char **) = dlsym(python, "Py_BytesMain");
    return run(argc, argv);
}
END
    gcc -o python python.c
    cat >x.py <<'END'
import numpy as np, pandas as pd, pyarrow as pa, pyarrow.compute as pc, pyarrow.dataset as ds, pyarrow.parquet as pq
import pyarrow.csv, pyarrow.feather, pyarrow.json, pyarrow.orc
import scipy.fft, scipy.integrate, scipy.linalg, scipy.optimize, scipy.sparse.linalg, scipy.spatial, scipy.special, scipy.stats
table = pa.table({"a": list(range(1000)), "b": ["x%d" % n for n in range(1000)]})
pq.write_table(table, "x.parquet", compression="zstd")
read = pq.read_table("x.parquet")
print(read.num_rows, read.equals(table), pc.sum(read["a"]), ds.dataset("x.parquet").to_table(filter=ds.field("a") > 990).num_rows)
def twice(context, x):
    return pc.multiply(x, 2, memory_pool=context.memory_pool)
def fails(context, x):
    raise ValueError("from a function of Python's")
for function in [twice, fails]:
    pc.register_scalar_function(function, function.__name__, {"summary": "", "description": ""}, {"x": pa.int64()}, pa.int64())
print(pc.sum(pc.call_function("twice", [read["a"]])))
# Exceptions of C++ become Python's.
for bad in [lambda: pc.call_function("fails", [read["a"]]), lambda: pa.array([1, "x"]), lambda: pq.read_table("/none.parquet"),
            lambda: pc.call_function("none", []), lambda: pa.array([1]).cast(pa.date32())]:
    try:
        bad()
    except Exception as error:
        print(type(error).__name__, str(error)[:60])
print(read.to_pandas().groupby(lambda n: n % 3).a.sum().tolist(), pd.Timestamp("2001-02-03").day_name())
random = np.random.default_rng(1)
matrix = random.random((50, 50))
print(np.allclose(matrix @ np.linalg.inv(matrix), np.eye(50)), scipy.linalg.svdvals(matrix)[0].round(6))
print(scipy.optimize.minimize(lambda x: ((x - 1) ** 2).sum(), np.zeros(5)).x.round(4), scipy.special.gamma(5.5))
print(scipy.sparse.linalg.spsolve(scipy.sparse.eye(5).tocsc() * 2, np.ones(5)), scipy.integrate.quad(np.sin, 0, np.pi)[0])
print(scipy.spatial.ConvexHull(random.random((30, 2))).volume > 0, scipy.fft.fft(np.arange(4)), scipy.stats.norm.ppf(.975))
END
    exit 0
fi
PYTHONPATH=packages ./python x.py
PYTHONPATH=packages /usr/bin/python3 x.py
