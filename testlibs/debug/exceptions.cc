// What a debugger is shown of exceptions that a library throws, catches and throws again. The
// marks are where tests set breakpoints.
#include <stdexcept>
#include <string>

struct Refused {
    int code;
};

__attribute__((noinline)) int refuses(int n) {
    throw Refused{n}; // MARK throws
}

__attribute__((noinline)) int passes_on(int n) {
    try {
        return refuses(n);
    } catch (const Refused &refused) {
        if (refused.code > 100)
            return 0;
        throw; // MARK rethrows
    }
}

__attribute__((noinline)) int fails(int n) {
    throw std::runtime_error("failed " + std::to_string(n));
}

extern "C" int entry(int n) {
    int result = 0;
    try {
        result = passes_on(n);
    } catch (const Refused &refused) {
        result = refused.code; // MARK caught
    }
    try {
        fails(n);
    } catch (const std::exception &error) {
        result += error.what()[7]; // MARK failed
    }
    return result;
}
