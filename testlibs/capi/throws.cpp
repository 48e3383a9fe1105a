// Its constructor throws, if the host says so.
#include <stdexcept>

extern "C" int capi_throw;

namespace {
struct Thrower {
    Thrower() {
        if (capi_throw) throw std::runtime_error("thrown by a constructor");
    }
} thrower;
} // namespace

extern "C" int not_thrown() { return 3; }
