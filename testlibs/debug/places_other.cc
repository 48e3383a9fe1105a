// A second unit for places.cc: templates and types that both have, of which the linker keeps one.
namespace places {

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

extern "C" int run_other(int n) {
    int twice = n * 2;
    return places::shared_inline(twice) + *places::chosen(&twice, &n);
}
