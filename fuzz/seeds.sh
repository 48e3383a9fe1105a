#!/bin/sh
# Builds what fuzzing starts from out of testlibs/, small, into a folder for each target:
# `sh fuzz/seeds.sh FOLDER`. What a compiler or linker that is not there would build is left out.
set -u
out=$(mkdir -p "$1" && cd "$1" && pwd)
lib=$(cd "$(dirname "$0")/../testlibs" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
for target in parse load symfile dwarf pair inflate symbolize demangle; do mkdir -p "$out/$target"; done

put() { # FILE NAME TARGET...
    file=$1 name=$2
    shift 2
    for target; do cp "$file" "$out/$target/$name"; done
}
# An image for TARGETS, by COMMAND.
targets=
image() { # NAME COMMAND...
    name=$1
    shift
    # shellcheck disable=SC2086
    if "$@" -o "$name" 2>"$name.log"; then
        put "$name" "$name" $targets
    else
        echo "seeds.sh: left out: $name: $*" >&2
        head -3 "$name.log" >&2
    fi
}
small="-shared -fPIC -Os -nostartfiles -Wl,-z,noseparate-code -Wl,-z,max-page-size=4096 -Wl,--build-id=none"

# What is in memory: no debug information, and no section headers' business.
targets="parse load"
s="gcc $small -s"
image everything $s -Wl,--hash-style=both "$lib/loading/everything.c"
image relr $s -Wl,-z,pack-relative-relocs "$lib/loading/everything.c"
image android clang -fuse-ld=lld $small -s -Wl,--pack-dyn-relocs=android "$lib/loading/everything.c"
image android_relr clang -fuse-ld=lld $small -s -Wl,--pack-dyn-relocs=android+relr \
    -Wl,--use-android-relr-tags "$lib/loading/everything.c"
image mold gcc -fuse-ld=mold $small -s "$lib/loading/everything.c"
image gold gcc -fuse-ld=gold -shared -fPIC -Os -nostartfiles -s "$lib/loading/everything.c"
image separate gcc -shared -fPIC -Os -s "$lib/loading/everything.c"
image now $s -Wl,-z,now "$lib/loading/ifunc.c"
image ifunc $s "$lib/loading/must_not_run.c"
image tls $s "$lib/loading/tls.c"
image tlsdesc $s -mtls-dialect=gnu2 "$lib/loading/tls.c"
image initial_exec $s -ftls-model=initial-exec "$lib/loading/small_tls.c"
image tls_gap $s "$lib/tls/gap.S"
image bss $s "$lib/loading/bss.c"
image versions $s -Wl,--version-script="$lib/loading/versions.map" "$lib/loading/versions.c"
image symbols $s -Wl,--hash-style=sysv "$lib/loading/symbols.c"
image unique g++ $small -s "$lib/loading/unique.cpp"
image relocations $s "$lib/loading/relocations.S"
image text $s "$lib/loading/text_relocation.S"
image order gcc -shared -fPIC -Os -s "$lib/loading/order.c"
image throws g++ -shared -fPIC -Os -s "$lib/unwind/throws.cpp"
# For another machine: reports read, and bind, what a load refuses.
for machine in aarch64 x86_64; do
    f="clang --target=$machine-linux-gnu -nostdlib -fuse-ld=lld -shared -fPIC -Os -Wl,--build-id=none"
    image "cross_$machine" $f -s -Wl,-z,max-page-size=4096 "$lib/cross/library.c"
    image "cross_relr_$machine" $f -s -Wl,-z,pack-relative-relocs "$lib/cross/library.c"
done
image aligned $s -DALIGNMENT=8192 "$lib/loading/aligned.c"

# What debuggers read.
targets="symfile dwarf symbolize load"
for dwarf in 2 3 4 5; do
    image "gcc_$dwarf" gcc $small -gdwarf-$dwarf "$lib/debug/places.c"
    image "clang_$dwarf" clang $small -gdwarf-$dwarf "$lib/debug/places.c"
done
image clang_O2 clang $small -O2 -gdwarf-5 "$lib/debug/inline.cc"
image gcc_inline g++ $small -O2 -g "$lib/debug/inline.cc"
image gcc_inline_4 g++ $small -O2 -gdwarf-4 -fdebug-types-section "$lib/debug/inline.cc"
for machine in aarch64 x86_64; do
    f="clang --target=$machine-linux-gnu -nostdlib -fuse-ld=lld -shared -fPIC -Os"
    image "cross_debug_$machine" $f -g -Wl,-z,max-page-size=4096 "$lib/cross/library.c"
done
image signals gcc $small -g -gno-as-locview-support "$lib/debug/signals.c"
image zlib gcc $small -g -gz=zlib "$lib/debug/twin.c"
image zlib_gnu gcc $small -g -gz=zlib-gnu "$lib/debug/twin.c"
image zstd clang -fuse-ld=lld $small -g "$lib/debug/twin.c"
objcopy --compress-debug-sections=zstd zstd zstd2 2>/dev/null && put zstd2 zstd $targets
image locals gcc $small -g -ftls-model=global-dynamic "$lib/tls/variables.c"
image locals_clang clang $small -g "$lib/loading/small_tls.c"
image macros gcc $small -g3 "$lib/debug/macros.c"
image assembly gcc $small -g "$lib/debug/places.S"
image names gcc $small "$lib/debug/places.c"
image frames gcc $small -g -fno-asynchronous-unwind-tables "$lib/debug/twin.c"
image index gcc -fuse-ld=gold -shared -fPIC -Os -g -Wl,--gdb-index "$lib/debug/twin.c"
image pubnames clang $small -gdwarf-5 -gpubnames "$lib/debug/twin.c"
image minidebug gcc $small -g -Wl,--build-id=sha1 "$lib/debug/twin.c"
# In an image that is in place: see targets.rs.
for name in gcc_5 clang_4 gcc_inline zlib names; do
    cp "$name" placed && printf '\001' | dd of=placed bs=1 seek=26 conv=notrunc 2>/dev/null &&
        put placed "placed_$name" symbolize
done
gcc -c -Os -g "$lib/debug/twin.c" -o object.o && put object.o object dwarf

# An image and what was split off it: both files, and the length of the first.
pair() { # NAME IMAGE SECOND
    python3 - "$2" "$3" "$out/pair/$1" <<'PYTHON'
import sys
first, second = (open(path, "rb").read() for path in sys.argv[1:3])
open(sys.argv[3], "wb").write(first + second + len(first).to_bytes(4, "little"))
PYTHON
}
targets=
package() { # NAME TOOL COMMAND...
    name=$1 tool=$2
    shift 2
    image "$name" "$@"
    if timeout 20 "$tool" -e "$name" -o "$name.dwp"; then pair "$name" "$name" "$name.dwp"; fi
    rm -f ./*.dwo
}
package gcc_4 dwp gcc $small -gdwarf-4 -gsplit-dwarf "$lib/debug/twin.c"
package gcc_inline dwp g++ $small -O2 -gdwarf-4 -gsplit-dwarf "$lib/debug/inline.cc"
package gcc_locals dwp gcc $small -gdwarf-4 -gsplit-dwarf "$lib/loading/small_tls.c"
package clang_4 dwp clang $small -gdwarf-4 -gsplit-dwarf "$lib/debug/twin.c"
package clang_5 llvm-dwp clang $small -gdwarf-5 -gsplit-dwarf "$lib/debug/twin.c"
package clang_inline llvm-dwp clang++ $small -O2 -gdwarf-5 -gsplit-dwarf "$lib/debug/inline.cc"
package clang_locals llvm-dwp clang $small -gdwarf-5 -gsplit-dwarf "$lib/loading/small_tls.c"
for id in none sha1; do
    image "whole_$id" gcc $small -g -Wl,--build-id=$id "$lib/loading/small_tls.c"
    objcopy --only-keep-debug "whole_$id" "$id.debug"
    strip -o "stripped_$id" "whole_$id"
    objcopy --add-gnu-debuglink="$id.debug" "stripped_$id" "linked_$id"
    pair "separate_$id" "linked_$id" "$id.debug"
done
eu-strip -o eu -f eu.debug whole_sha1 && pair eu eu eu.debug

# Sections as they are, and names.
targets=
image long g++ -shared -fPIC -O2 -g "$lib/debug/containers.cc"
for kind in zlib zlib-gnu zstd; do objcopy --compress-debug-sections=$kind long long_$kind; done
python3 - "$out" zlib zlib_gnu zstd2 long_zlib long_zlib-gnu long_zstd <<'PYTHON'
import struct, sys
out = sys.argv[1]
for path in sys.argv[2:]:
    try:
        file = open(path, "rb").read()
    except OSError:
        continue
    at, count = struct.unpack_from("<Q", file, 40)[0], struct.unpack_from("<H", file, 60)[0]
    for index in range(count):
        flags, _, start, size = struct.unpack_from("<QQQQ", file, at + 64 * index + 8)
        section = file[start:start + size]
        if (flags & 0x800 or section[:4] == b"ZLIB") and size < 10000:
            open(f"{out}/inflate/{path}_{index}", "wb").write(section)
names = """_ZN3foo3barEi _ZNKSt6vectorIiSaIiEE4sizeEv _ZN4core3ptr4read17h0123456789abcdefE
_RNvCs1234_7mycrate3foo _RINvNtC3std3mem8align_ofdE _RNvXs5_NtCsbmNqQUJIY6D_4core5sliceINtB5_4IterjE3bar
_ZStlsISt11char_traitsIcEERSt13basic_ostreamIcT_ES5_PKc _ZZN1A1fEvENKUlvE_clEv _ZTVN10__cxxabiv117__class_type_infoE
_ZNSt3mapIiSsSt4lessIiESaISt4pairIKiSsEEED0Ev _ZN1AIXadL_Z1fvEEE1gEv _RYFG_FGyG0_vEvNtCs_3foo3Bar
_RNCINkXs25_NgCsbmNqQUJIY6D_4core5sliceINyB9_4IterpENuNgNoBb_4iter8iterator8Iterator9rpositionNCNgNpB9_6memchr7memrchrs_0E0Bb_
_Z1fIJiEEvDpOT_ _ZSteqIcEN9__gnu_cxx11__enable_ifIXsr9__is_charIT_EE7__valueEbE6__typeERKSs _ZL1f""".split()
for index, name in enumerate(names):
    open(f"{out}/demangle/{index}", "w").write(name)
PYTHON
