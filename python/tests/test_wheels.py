"""Wheels that nobody unpacked: each package is imported and computes something, in a process of its own that must end
well. MEMDL_TEST_WHEELS is a folder with the wheels of `wheels.txt` and of what they need."""

import os
from pathlib import Path

import pytest

from helpers import python

WHEELS = sorted(Path(os.environ["MEMDL_TEST_WHEELS"]).resolve().glob("*.whl"))

START = """
import os, sys
import memdl, memdl.importer
memdl.importer.install()
sys.path[:0] = sys.argv[1:]
"""

# Nothing that is used may come from a folder: all modules are in the wheels, and no library of theirs is a file.
END = """
loaded = {image.name for image in memdl.images()}
assert any(name.startswith(tuple(sys.argv[1:])) for name in loaded), loaded
with open("/proc/self/maps") as maps:
    files = {line.split(maxsplit=5)[5].strip() for line in maps if len(line.split(maxsplit=5)) == 6}
assert not [file for file in files if ".libs/" in file or file.endswith(".whl")], files
print("done")
"""

CASES = {
    "numpy": """
import numpy
a = numpy.random.default_rng(1).standard_normal((300, 300))
inverse = numpy.linalg.inv(a)
assert numpy.allclose(a @ inverse, numpy.eye(300))
assert numpy.fft.ifft(numpy.fft.fft(a[0])).real.round(9)[0] == a[0, 0].round(9)
u, s, v = numpy.linalg.svd(a)
assert numpy.allclose(u * s @ v, a)
assert numpy.array([1, 2, 3], dtype="u1").sum() == 6 and ".whl/" in numpy._core._multiarray_umath.__file__
import pickle
assert (pickle.loads(pickle.dumps(a)) == a).all()
""",
    "pandas": """
import io, pandas
text = "name,value,at\\na,1,2020-01-02\\nb,2,2020-03-04\\na,3,2020-05-06"
frame = pandas.read_csv(io.StringIO(text), parse_dates=["at"])
assert frame.groupby("name")["value"].sum().to_dict() == {"a": 4, "b": 2}
assert list(frame["at"].dt.tz_localize("Europe/Berlin").dt.month) == [1, 3, 5]
assert frame.set_index("at").resample("YE").sum(numeric_only=True)["value"].iloc[0] == 6
assert frame.merge(frame, on="name").shape == (5, 5)
""",
    "pydantic": """
import pydantic
class Point(pydantic.BaseModel):
    x: int
    y: float = pydantic.Field(gt=0)
assert Point.model_validate_json('{"x": "3", "y": 1.5}') == Point(x=3, y=1.5)
try:
    Point(x="no", y=-1)
except pydantic.ValidationError as error:
    assert error.error_count() == 2
else:
    raise AssertionError
import pydantic_core
assert ".whl/" in pydantic_core._pydantic_core.__file__
""",
    "cryptography": """
from cryptography.fernet import Fernet
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
key = Fernet.generate_key()
assert Fernet(key).decrypt(Fernet(key).encrypt(b"secret")) == b"secret"
private = ed25519.Ed25519PrivateKey.generate()
private.public_key().verify(private.sign(b"text"), b"text")
private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
digest = hashes.SHA256()
private.public_key().verify(private.sign(b"text", padding.PKCS1v15(), digest), b"text", padding.PKCS1v15(), digest)
from cryptography.exceptions import InvalidSignature
try:
    private.public_key().verify(bytes(256), b"text", padding.PKCS1v15(), digest)
except InvalidSignature:
    pass
else:
    raise AssertionError
assert private.private_bytes(
    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
).startswith(b"-----BEGIN PRIVATE KEY-----")
import cffi
ffi = cffi.FFI()
ffi.cdef("int abs(int);")
assert ffi.dlopen(None).abs(-42) == 42
callback = ffi.callback("int(int)", lambda x: x + 1)
assert callback(41) == 42
""",
    "lxml": """
from lxml import etree, html, objectify
tree = etree.fromstring("<a><b n='1'>x</b><b n='2'>y</b></a>")
assert tree.xpath("//b[@n='2']/text()") == ["y"] and html.fromstring("<p>one<p>two").xpath("count(//p)") == 2
style = etree.XSLT(etree.XML('''<xsl:stylesheet version="1.0" xmlns:xsl="http://www.w3.org/1999/XSL/Transform">
<xsl:template match="/"><out><xsl:value-of select="count(//b)"/></out></xsl:template></xsl:stylesheet>'''))
assert style(tree).getroot().text == "2"
schema = etree.RelaxNG(etree.XML('<element name="a" xmlns="http://relaxng.org/ns/structure/1.0"><text/></element>'))
assert not schema.validate(tree) and schema.validate(etree.XML("<a>text</a>"))
try:
    etree.fromstring("<a>")
except etree.XMLSyntaxError as error:
    assert error.lineno == 1
else:
    raise AssertionError
assert objectify.fromstring("<r><n>5</n></r>").n + 1 == 6
""",
    "Pillow": """
import io
from PIL import Image, ImageDraw, ImageFilter, ImageFont, features
image = Image.new("RGB", (64, 64), "navy")
ImageDraw.Draw(image).text((4, 4), "memdl", fill="white", font=ImageFont.load_default(12))
for format in "PNG", "JPEG", "WEBP", "TIFF", "GIF", "JPEG2000":
    file = io.BytesIO()
    image.save(file, format)
    file.seek(0)
    again = Image.open(file)
    again.load()
    assert again.size == (64, 64) and again.format == format
assert image.filter(ImageFilter.GaussianBlur(2)).resize((16, 16), Image.Resampling.LANCZOS).size == (16, 16)
assert features.check("freetype2") and features.check("webp") and features.check("jpg")
""",
    "scipy": """
import numpy, scipy.fft, scipy.integrate, scipy.linalg, scipy.optimize, scipy.sparse.linalg, scipy.spatial, scipy.stats
assert abs(scipy.optimize.brentq(lambda x: x * x - 2, 0, 2) - 2 ** 0.5) < 1e-9
assert abs(scipy.integrate.quad(numpy.sin, 0, numpy.pi)[0] - 2) < 1e-9
a = numpy.random.default_rng(2).standard_normal((200, 200))
lu, pivots = scipy.linalg.lu_factor(a)
assert numpy.allclose(a @ scipy.linalg.lu_solve((lu, pivots), numpy.ones(200)), 1)
below, on = numpy.full(99, -1.0), numpy.full(100, 2.0)
sparse = scipy.sparse.diags([below, on, below], [-1, 0, 1], format="csc")
assert numpy.allclose(sparse @ scipy.sparse.linalg.spsolve(sparse, numpy.ones(100)), 1)
assert abs(scipy.sparse.linalg.eigsh(sparse, k=1, which="LM")[0][0] - 2 * (1 + numpy.cos(numpy.pi / 101))) < 1e-9
assert scipy.spatial.cKDTree(a).query(a[7])[1] == 7 and abs(scipy.stats.norm.cdf(0) - 0.5) < 1e-12
fit = scipy.optimize.minimize(lambda x: ((x - 3) ** 2).sum(), numpy.zeros(4))
assert numpy.allclose(fit.x, 3, atol=1e-3) and numpy.allclose(scipy.fft.ifft(scipy.fft.fft(a)), a)
""",
    "pyarrow": """
import io, numpy, pyarrow, pyarrow.compute, pyarrow.csv, pyarrow.dataset, pyarrow.parquet
table = pyarrow.table({"name": ["a", "b", "a"], "value": [1, 2, 3]})
sums = table.group_by("name").aggregate([("value", "sum")]).sort_by("name")
assert sums.column("value_sum").to_pylist() == [4, 2]
for compression in "snappy", "zstd", "gzip", "brotli", "lz4":
    file = io.BytesIO()
    pyarrow.parquet.write_table(table, file, compression=compression)
    assert pyarrow.parquet.read_table(io.BytesIO(file.getvalue())).equals(table)
assert pyarrow.compute.sum(pyarrow.array(numpy.arange(1000))).as_py() == 499500
assert pyarrow.csv.read_csv(io.BytesIO(b"x,y\\n1,2\\n3,4\\n")).column("y").to_pylist() == [2, 4]
try:
    pyarrow.compute.cast(pyarrow.array(["no"]), "int32")
except pyarrow.ArrowInvalid as error:
    assert "no" in str(error)
else:
    raise AssertionError
assert table.to_pandas()["value"].sum() == 6
""",
}


@pytest.mark.parametrize("package", CASES)
def test_a_package_computes(package):
    assert python(START + CASES[package] + END, *WHEELS, limit=120).endswith("done\n")


def test_all_in_one_process():
    assert python(START + "".join(CASES.values()) + END, *WHEELS, limit=240).endswith("done\n")


def test_in_threads_and_forked_workers():
    code = """
import concurrent.futures, multiprocessing, numpy
def work(seed):
    a = numpy.random.default_rng(seed).standard_normal((120, 120))
    return bool(numpy.allclose(numpy.linalg.inv(a) @ a, numpy.eye(120)))
with concurrent.futures.ThreadPoolExecutor(8) as pool:
    assert all(pool.map(work, range(32)))
with concurrent.futures.ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as pool:
    assert all(pool.map(work, range(8)))
"""
    assert python(START + code + END, *WHEELS, limit=120).endswith("done\n")


def test_metadata_and_data_of_packages():
    code = """
import importlib.metadata, importlib.resources
import numpy
assert importlib.metadata.version("numpy") == numpy.__version__
assert any("numpy" in str(file) for file in importlib.metadata.files("numpy"))
import tzdata, zoneinfo
zoneinfo.reset_tzpath([])
assert (importlib.resources.files("tzdata") / "zones").read_text().startswith("Africa/Abidjan")
assert zoneinfo.ZoneInfo("Europe/Berlin").key == "Europe/Berlin"
"""
    assert python(START + code + END, *WHEELS).endswith("done\n")
