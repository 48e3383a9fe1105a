/* More thread-local storage than any thread has room for at a fixed distance from its thread pointer. */
static __thread char large[1 << 22] __attribute__((tls_model("initial-exec")));

char *run(void) { return large; }
