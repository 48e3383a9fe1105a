// Calls a function that nothing defines.
void absent(int);

extern "C" int run() {
    absent(1);
    return 42;
}
