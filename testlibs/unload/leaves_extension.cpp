// An extension with a thread-local object, for leaves.cpp.
extern "C" void tell(int letter);
// Its own: leaves.cpp has an `Object` too.
static thread_local struct Extended {
    int value = 7;
    ~Extended() { tell(value == 7 ? 'x' : '!'); }
} object;
extern "C" int extension_use() { return object.value; }
