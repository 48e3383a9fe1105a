// A thread-local object whose destructor tells what it finds.
#include <string>
static int *report;
struct Told {
    int *to = nullptr;
    std::string text = "a text that is too long for the object itself";
    ~Told() { if (to) *to += text.size() == 45 ? 1 : 1000; }
};
static thread_local Told told;
static thread_local Told second;
extern "C" void tell(int *to) { told.to = second.to = to; }
extern "C" int run() { return 42; }
