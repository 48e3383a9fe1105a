// Its constructor throws.
#include <stdexcept>
__attribute__((constructor)) static void construct() { throw std::runtime_error("thrown by a constructor"); }
extern "C" int run() { return 1; }
