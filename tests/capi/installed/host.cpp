// As host.c, in C++.
#include <cstdio>
#include <fstream>
#include <iterator>
#include <memdl.hpp>
#include <vector>

int main(int argc, char **argv) {
    if (argc != 2) return 2;
    std::ifstream file(argv[1], std::ios::binary);
    const std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
    try {
        memdl::library library = memdl::library::open(bytes, memdl::options().name("plain"));
        std::printf("memdl %s: %d\n", memdl::version().c_str(), library.get<int()>("plain_value")());
    } catch (const memdl::error &error) {
        std::fprintf(stderr, "%s (%d)\n", error.what(), static_cast<int>(error.code()));
        return 1;
    }
}
