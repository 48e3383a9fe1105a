// A bit of everything that a load must undo: thread-local variables, exceptions, atexit, objects.
#include <cstdlib>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
static thread_local std::string mine = "initial";
static thread_local char block[100000];
static std::string whole(100000, 'x');
static int zero;
static void at_exit() { zero++; }
static std::unique_ptr<char[]> memory;
struct Static { Static() { memory.reset(new char[50000]); std::atexit(at_exit); } ~Static() { memory.reset(); } } object;
extern "C" int run() {
    if (mine != "initial" || block[99999]) return 1;
    mine += " and more, so that it lies on the heap", block[99999] = 1;
    try { throw std::runtime_error("x"); } catch (const std::exception &) {}
    int result = 0;
    std::thread([&result] { result = mine == "initial" && !block[5]; mine = std::string(1000, 'y'); }).join();
    mine = "initial", block[99999] = 0;
    return result ? 42 : 2;
}
