/* Branches to a function that begins with `bti`, and to one that does not. */
__asm__(".text\n"
        ".type unmarked, %function\n"
        "unmarked:\n"
        "    mov w0, #42\n"
        "    ret\n"
        ".type marked, %function\n"
        "marked:\n"
        "    bti c\n"
        "    mov w0, #42\n"
        "    ret\n");

extern int unmarked(void) __attribute__((visibility("hidden")));
extern int marked(void) __attribute__((visibility("hidden")));

static int (*volatile function)(void);

int run(void) {
    function = marked;
    return function();
}

int run_unmarked(void) {
    function = unmarked;
    return function();
}
