// The library that tools/bench-programs/src/bin/fleet.rs loads many times: a function, an argument, a local, a global.
int fleet_calls = 0;

int foo(int number) {
    int result = number * 2;
    fleet_calls += result;
    return result;
}
