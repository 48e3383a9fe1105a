// As callers.c: below a virtual function, which an algorithm of the C++ library calls.

#include <algorithm>
#include <memory>
#include <numeric>
#include <vector>

namespace {

volatile unsigned long total;

__attribute__((noinline)) unsigned long spins_here(unsigned long turns)
{
    unsigned long sum = 0;
    for (unsigned long turn = 0; turn < turns; turn++)
        sum += turn ^ (sum << 3);
    total = total + sum;
    return sum;
}

struct order {
    virtual ~order() = default;
    virtual bool before(int a, int b) = 0;
};

struct ascending final : order {
    bool before(int a, int b) override
    {
        total = total + spins_here(2000);
        return a < b;
    }
};

__attribute__((noinline)) std::unique_ptr<order> chosen()
{
    return std::make_unique<ascending>();
}

__attribute__((noinline)) int sorts(order &order)
{
    std::vector<int> values(64);
    std::iota(values.begin(), values.end(), 0);
    std::reverse(values.begin(), values.end());
    std::sort(values.begin(), values.end(), [&](int a, int b) { return order.before(a, b); });
    return values[3];
}

} // namespace

extern "C" int call(int rounds)
{
    auto order = chosen();
    int sum = 0;
    for (int round = 0; round < rounds; round++)
        sum += sorts(*order);
    return sum;
}
