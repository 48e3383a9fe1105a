// Replaces the allocator of the C++ runtime, which calls it from inside.
#include <cstdlib>
#include <new>
#include <sstream>
#include <string>

static int allocated;

void *operator new(std::size_t size) {
    allocated++;
    if (void *memory = std::malloc(size)) return memory;
    throw std::bad_alloc();
}
void operator delete(void *memory) noexcept { std::free(memory); }
void operator delete(void *memory, std::size_t) noexcept { std::free(memory); }

extern "C" int run() {
    int before = allocated;
    // Compiled into the runtime: a buffer of the stream's, and the text that is built from it.
    std::ostringstream stream;
    stream << "a text that is longer than what a string holds by itself " << 42;
    if (stream.str().size() != 59) return 1;
    if (allocated == before) return 2;
    try {
        throw std::string("as before");
    } catch (const std::string &text) {
        return text == "as before" ? 42 : 3;
    }
}
