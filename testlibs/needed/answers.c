// Replaces what a library that it needs defines too. BINDING is that of its definition.
#ifndef BINDING
#define BINDING
#endif
#ifndef ASK
#define ASK ask
#endif
int ASK(void);
BINDING int answer(void) { return 42; }
int run(void) { return ASK(); }
