// What has addresses in DWARF, in C++: templates (comdat groups), lambdas, virtual functions, types
// that fit into units of their own, exceptions, constructors that are two functions, static members.
namespace places {

int failures;

struct Error {
    int code;
    explicit Error(int code) : code(code) { failures++; }
};

struct Base {
    static int made;
    Base() { made++; }
    virtual ~Base() { made--; }
    virtual int value(int scale) const = 0;
};
int Base::made = 0;

template <class T, int N> struct Array : virtual Base {
    T items[N] = {};
    enum class Kind { Small, Large } kind = N > 4 ? Kind::Large : Kind::Small;

    template <class F> T fold(T start, F step) const {
        for (const T &item : items) {
            T next = step(start, item);
            start = next;
        }
        return start;
    }
    int value(int scale) const override {
        if (scale > 1000)
            throw Error(scale);
        return (int)fold(T(scale), [scale](T a, T b) { return a * scale + b; });
    }
};

template <class T> const T *chosen(const T *a, const T *b) {
    static int uses = 0;
    return ++uses & 1 ? a : b;
}

template <int N> struct Counted {
    static inline thread_local int count = N;
    static int next() { return count++; }
};

inline int shared_inline(int n) {
    int squared = n * n;
    return squared + Counted<7>::next();
}

} // namespace places

extern "C" int run(int n) {
    using namespace places;
    Array<int, 3> small;
    Array<long, 8> large;
    const Base *base = chosen<Base>(&small, &large);
    int total = 0;
    try {
        auto add = [&total, n](auto more) {
            auto sum = total + more * n;
            total = (int)sum;
            return total;
        };
        add(base->value(n));
        add(2.5);
        total += shared_inline(n);
    } catch (const Error &error) {
        total -= error.code;
    }
    return total + Base::made + *chosen(&total, &n);
}
