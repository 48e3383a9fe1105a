// An executor of rFaaS's class, without its network: it receives a library, lists its functions, and calls them by
// number. What it would get over RDMA it reads from files.
//
//     executor memdl|memfd LIBRARY list
//     executor memdl|memfd LIBRARY call FUNCTION INPUT OUTPUT
//     executor memdl|memfd LIBRARY time FUNCTION INPUT ROUNDS
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "functions.hpp"
#include "memfd_functions.hpp"

using Bytes = std::vector<char>;
using Clock = std::chrono::steady_clock;
using Microseconds = std::chrono::duration<double, std::micro>;

// The room for a function's result, as clients of rFaaS state it.
static constexpr std::size_t OUTPUT_SIZE = 1 << 20;

static Bytes read_file(const char *path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw std::runtime_error(std::string("cannot read ") + path);
    return Bytes(std::istreambuf_iterator<char>(file), {});
}

// Receives the library into the memory that the functions offer for it.
template <class F> static void receive(const F &functions, const Bytes &library) {
    std::memcpy(functions.memory(), library.data(), library.size());
}

template <class F> static std::size_t number_of(const F &functions, const std::string &name) {
    for (std::size_t number = 0; number < functions.count(); ++number)
        if (functions.name(number) == name) return number;
    throw std::runtime_error("the library has no function " + name);
}

template <class F> static int list(const Bytes &library) {
    F functions(library.size());
    receive(functions, library);
    functions.process_library();
    for (std::size_t number = 0; number < functions.count(); ++number)
        std::printf("%zu %s\n", number, functions.name(number).c_str());
    return 0;
}

template <class F> static int call(const Bytes &library, const char *name, Bytes input, const char *path) {
    F functions(library.size());
    receive(functions, library);
    functions.process_library();
    Bytes output(OUTPUT_SIZE);
    const std::size_t number = number_of(functions, name);
    const auto size = functions.function(number)(input.data(), static_cast<std::uint32_t>(input.size()), output.data());
    std::ofstream(path, std::ios::binary).write(output.data(), size);
    std::printf("function %zu returned %u bytes\n", number, size);
    return size == 0;
}

struct Times {
    std::vector<double> load, call, unload;
};

template <class F> static void round(const Bytes &library, const char *name, Bytes &input, Bytes &output, Times &times) {
    auto functions = std::make_unique<F>(library.size());
    receive(*functions, library);
    const auto start = Clock::now();
    functions->process_library();
    auto *function = functions->function(number_of(*functions, name));
    const auto loaded = Clock::now();
    function(input.data(), static_cast<std::uint32_t>(input.size()), output.data());
    const auto called = Clock::now();
    functions.reset();
    const auto unloaded = Clock::now();
    times.load.push_back(Microseconds(loaded - start).count());
    times.call.push_back(Microseconds(called - loaded).count());
    times.unload.push_back(Microseconds(unloaded - called).count());
}

static double median(std::vector<double> values) {
    std::sort(values.begin(), values.end());
    return values.at(values.size() / 2);
}

// Prints the medians of some rounds, in microseconds. OpenCV is loaded in the first.
template <class F> static int time(const Bytes &library, const char *name, Bytes input, int rounds) {
    Bytes output(OUTPUT_SIZE);
    Times times;
    for (int turn = 0; turn < rounds; ++turn) round<F>(library, name, input, output, times);
    std::printf("first load %.0f, load %.0f, call %.0f, unload %.0f\n", times.load.front(), median(times.load),
                median(times.call), median(times.unload));
    return 0;
}

template <class F> static int run(int argc, char **argv) {
    const std::string what = argv[3];
    if (what == "list" && argc == 4) return list<F>(read_file(argv[2]));
    if (what == "call" && argc == 7) return call<F>(read_file(argv[2]), argv[4], read_file(argv[5]), argv[6]);
    if (what == "time" && argc == 7)
        return time<F>(read_file(argv[2]), argv[4], read_file(argv[5]), std::max(1, std::atoi(argv[6])));
    return -1;
}

int main(int argc, char **argv) try {
    const std::string way = argc > 3 ? argv[1] : "";
    int status = -1;
    if (way == "memdl") status = run<Functions>(argc, argv);
    if (way == "memfd") status = run<MemfdFunctions>(argc, argv);
    if (status >= 0) return status;
    std::fputs("usage: executor memdl|memfd LIBRARY list\n"
               "       executor memdl|memfd LIBRARY call FUNCTION INPUT OUTPUT\n"
               "       executor memdl|memfd LIBRARY time FUNCTION INPUT ROUNDS\n",
               stderr);
    return 2;
} catch (const std::exception &error) {
    std::fprintf(stderr, "executor: %s\n", error.what());
    return 1;
}
