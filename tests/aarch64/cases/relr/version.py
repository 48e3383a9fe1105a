# Makes the library $1 need the version GLIBC_ABI_DT_RELR of the C library, in the place of GLIBC_2.27.
import struct, sys

image = bytearray(open(sys.argv[1], "rb").read())


def elf_hash(name):
    value = 0
    for byte in name:
        value = (value << 4) + byte
        value = (value ^ (value >> 24 & 0xF0)) & 0x0FFFFFFF
    return value


(headers,) = struct.unpack_from("<Q", image, 40)
size, count = struct.unpack_from("<HH", image, 58)
sections = [struct.unpack_from("<IIQQQQIIQQ", image, headers + size * i) for i in range(count)]
(needs,) = [section for section in sections if section[1] == 0x6FFFFFFE]
strings = sections[needs[6]][4]
names = bytes(image[strings : strings + sections[needs[6]][5]])
at = needs[4]
changed = 0
while True:
    _, entries, _, first, following = struct.unpack_from("<HHIII", image, at)
    entry = at + first
    for _ in range(entries):
        _, flags, index, name, step = struct.unpack_from("<IHHII", image, entry)
        if names[name:].split(b"\0")[0] == b"GLIBC_2.27":
            new = b"GLIBC_ABI_DT_RELR"
            place = names.index(b"\0" + new + b"\0") + 1
            struct.pack_into("<IHHI", image, entry, elf_hash(new), flags, index, place)
            changed += 1
        entry += step
    if following == 0:
        break
    at += following
assert changed == 1, changed
open(sys.argv[1], "wb").write(image)
