// Static data of templates and inline functions: one in the process (STB_GNU_UNIQUE).
template <int N> struct Holder { static int value; };
template <int N> int Holder<N>::value = 5;
inline int &counter() { static int count = 7; return count; }
extern "C" int *holder() { return &Holder<1>::value; }
extern "C" int *counted() { return &counter(); }
extern "C" int run() { return Holder<1>::value == 5 && counter() == 7 ? 42 : Holder<1>::value; }
