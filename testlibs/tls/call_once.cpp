// std::call_once hands its argument over in thread-local variables of libstdc++.
#include <mutex>
#include <thread>
static std::once_flag flag;
static int calls;
extern "C" int run() {
    calls = 0;
    int seen = 0;
    std::thread threads[4];
    for (auto &thread : threads)
        thread = std::thread([&seen] { std::call_once(flag, [&seen] { seen = ++calls; }); });
    for (auto &thread : threads)
        thread.join();
    return calls == 1 && seen == 1 ? 42 : calls;
}
