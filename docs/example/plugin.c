// A library that needs `libexample.so`.
int foo(int number);

int bar(int number) {
    return foo(number) + 1;
}
