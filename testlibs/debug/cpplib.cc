// What a debugger is shown in C++: a namespace, a template, a virtual function, the standard
// library's containers. The marks are where tests set breakpoints.
#include <string>
#include <vector>

namespace shapes {

struct Base {
    virtual ~Base() {}
    virtual int area(int scale) = 0;
};

template <class T> struct Square : Base {
    T side{3};
    std::vector<int> sizes{1, 2, 3};
    __attribute__((noinline)) int area(int scale) override;
};

template <class T> int Square<T>::area(int scale) {
    std::string unit = "cm";
    T squared = side * side;
    sizes.push_back(scale);
    return (int)squared * scale + (int)unit.size() + sizes[0]; // MARK area
}

} // namespace shapes

extern "C" int entry(int n) {
    shapes::Square<long> square;
    // So that it is called as what it is: a virtual function.
    shapes::Base *volatile base = &square;
    return base->area(n); // MARK entry
}
