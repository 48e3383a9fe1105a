# What the tests of the examples in C and C++ share. They are in a folder below this one, and are there.
root=$(cd ../.. && pwd)
work=${CARGO_TARGET_DIR:-$root/target}/examples
mkdir -p "$work"

fail() {
    echo "failed: $1" >&2
    exit 1
}
passed() { echo "test result: ok: $1"; }
# Fails if a text does not contain another.
expect() {
    case $1 in
    *"$2"*) ;;
    *) fail "no \"$2\" in: $1" ;;
    esac
}

# Lets pkg-config find memdl: where MEMDL_PREFIX says, or else newly built from this checkout.
find_memdl() {
    prefix=${MEMDL_PREFIX-}
    if [ -z "$prefix" ]; then
        prefix=$work/prefix
        sh "$root/dist/install.sh" --prefix="$prefix" > "$work/install.log" 2>&1 || fail "see $work/install.log"
    fi
    export PKG_CONFIG_PATH="$prefix/lib/pkgconfig" LD_LIBRARY_PATH="$prefix/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
}

# Builds the example NAME into a folder below target/, which is $build.
build_example() {
    build=$work/$1
    find_memdl
    make --silent BUILD="$build"
}
