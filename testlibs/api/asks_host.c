/* Calls the host from its constructor, from run and from its destructor. */
void ask(int when);
int run(void) {
    ask(1);
    return 42;
}
__attribute__((constructor)) static void construct(void) { ask(0); }
__attribute__((destructor)) static void destruct(void) { ask(2); }
